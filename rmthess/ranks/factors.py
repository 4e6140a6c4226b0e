"""A given linear network as its factors: A_l after layer l, B_l before it, and the residual Ω."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def checked_weights(weights: Sequence[ArrayLike]) -> list[Array]:
    """Matrices W_1, …, W_L of shapes (M_l, M_{l-1}) that can be multiplied."""
    matrices = [np.asarray(weight, dtype=np.float64) for weight in weights]
    if not matrices:
        raise ValueError("weights is empty; give the matrices W_1, …, W_L, inputs first")
    for layer, matrix in enumerate(matrices, start=1):
        if matrix.ndim != 2 or not matrix.size:
            raise ValueError(f"W_{layer} must be a matrix, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"W_{layer} has entries that are NaN or infinite")
        if layer > 1 and matrix.shape[1] != matrices[layer - 2].shape[0]:
            raise ValueError(
                f"W_{layer} of shape {matrix.shape} cannot follow W_{layer - 1} of shape "
                f"{matrices[layer - 2].shape}; the shapes are (outputs, inputs)"
            )
    return matrices


def checked_data(name: str, data: ArrayLike, columns: int, rows: int | None = None) -> Array:
    array = np.asarray(data, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != columns or (rows is not None and len(array) != rows):
        wanted = "samples" if rows is None else rows
        raise ValueError(f"{name} must have shape ({wanted}, {columns}), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has entries that are NaN or infinite")
    return array


def after(weights: Sequence[Array]) -> list[Array]:
    """A_l = W_L ⋯ W_{l+1} for l = 1..L."""
    found = [np.eye(weights[-1].shape[0])]
    for weight in reversed(weights[1:]):
        found.insert(0, found[0] @ weight)
    return found


def before(weights: Sequence[Array]) -> list[Array]:
    """B_l = W_{l-1} ⋯ W_1 for l = 1..L."""
    found = [np.eye(weights[0].shape[1])]
    for weight in weights[:-1]:
        found.append(weight @ found[-1])
    return found
