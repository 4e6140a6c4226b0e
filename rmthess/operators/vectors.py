"""Columns (dim, k) as a user may give them."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmthess.operators.errors import NonFiniteError


def as_columns(name: str, vectors: ArrayLike | Tensor, dim: int | None = None) -> Tensor:
    """A real, finite tensor (dim, k) without a graph; (dim,) is one column, integers are float64.

    >>> as_columns("start", [1, 2]).shape
    torch.Size([2, 1])
    """
    found = torch.as_tensor(vectors).detach()
    if found.is_complex():
        raise TypeError(f"{name} has dtype {found.dtype}; only real ones are supported")
    if not found.is_floating_point():
        found = found.to(torch.float64)
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or 0 in found.shape or dim not in (None, found.shape[0]):
        rows = "dim" if dim is None else dim
        raise ValueError(f"{name} must have shape ({rows}, k), got {tuple(found.shape)}")
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError(f"{name} holds NaN or Inf")
    return found
