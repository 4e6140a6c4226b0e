"""The null space of a linear network's Hessian, written down layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmthess.ranks.factors import Array, after, before, checked_data, checked_weights
from rmthess.ranks.numerical import numerical_rank

SMALLEST_SINGULAR_VALUE = 1e-10  # of the largest: below it the null vectors have no digits left


@dataclass(frozen=True, eq=False)
class NullSpace:
    """Directions C Z Rᵀ in a layer, C and R orthonormal and Z free, and the sum over layers.

    ``parts`` holds (layer − 1, C, R); the parts of a layer are orthogonal.  ``shapes`` are those of
    the weights.  Vectors (parameters,) run through the layers in turn, each weight row by row, as
    the parameters of a torch model without biases do.
    """

    shapes: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, Array, Array], ...]

    @property
    def parameters(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    @property
    def dim(self) -> int:
        return sum(C.shape[1] * R.shape[1] for _, C, R in self.parts)

    def basis(self) -> Array:
        """Orthonormal columns (parameters, dim)."""
        found = np.zeros((self.parameters, self.dim))
        starts, column = self._starts(), 0
        for layer, C, R in self.parts:
            width = C.shape[1] * R.shape[1]
            rows = slice(starts[layer], starts[layer + 1])
            found[rows, column : column + width] = np.kron(C, R)
            column += width
        return found

    def project(self, vectors: ArrayLike) -> Array:
        """The part of vectors (parameters,) or (parameters, k) within the null space."""
        given = np.asarray(vectors, dtype=np.float64)
        if given.ndim not in (1, 2) or given.shape[0] != self.parameters:
            raise ValueError(f"vectors must have {self.parameters} rows, got shape {given.shape}")
        columns, found, starts = given.reshape(self.parameters, -1), [], self._starts()
        for layer, shape in enumerate(self.shapes):
            D = columns[starts[layer] : starts[layer + 1]].T.reshape(-1, *shape)
            kept = np.zeros_like(D)
            for _, C, R in (part for part in self.parts if part[0] == layer):
                kept += C @ (C.T @ D @ R) @ R.T
            found.append(kept.reshape(len(D), -1).T)
        return np.concatenate(found).reshape(given.shape)

    def _starts(self) -> list[int]:
        return [0, *np.cumsum([rows * columns for rows, columns in self.shapes]).tolist()]


def null_space(
    weights: Sequence[ArrayLike],
    inputs: ArrayLike,
    gradients: ArrayLike,
    loss: str = "mse",
) -> NullSpace:
    """Directions along which the second derivative of a linear network's loss vanishes.

    With A_l = W_L ⋯ W_{l+1}, B_l = W_{l-1} ⋯ W_1, W = W_L ⋯ W_1 and Ω = Σ_n g_n x_nᵀ::

        ker H = ⊕_l { D : D B_l Ωᵀ W = 0 and W Ωᵀ A_l D = 0 }

    of dimension Σ_l (M_l − q)(M_{l-1} − q), in coordinates where the inputs have full rank; what
    no input reaches is added, and under softmax the common shift of the logits.  Holds where
    rank W = rank W Ωᵀ W = q.  Project it out of the start vectors of Lanczos, and the zeros leave
    the spectrum.

    Parameters
    ----------
    weights : W_1, …, W_L of shapes (M_l, M_{l-1}); no biases.
    inputs : (samples, d).
    gradients : g_n = ∂loss/∂f_n, (samples, K); for squared error, outputs − targets up to a factor.
    loss : "mse" (any strictly convex loss of the outputs) or "cross_entropy" (softmax).

    Source
    ------
    ``theory/linear_network_rank.md``, "The null space".

    >>> rng = np.random.default_rng(0)
    >>> weights = [rng.normal(size=(2, 5)), rng.normal(size=(4, 2))]
    >>> null_space(weights, rng.normal(size=(9, 5)), rng.normal(size=(9, 4))).dim
    0
    >>> weights = [rng.normal(size=(6, 5)), rng.normal(size=(3, 6))]
    >>> null_space(weights, rng.normal(size=(9, 5)), rng.normal(size=(9, 3))).dim
    6
    """
    if loss not in ("mse", "cross_entropy"):
        raise ValueError(f"loss must be one of mse, cross_entropy, got {loss!r}")
    matrices = checked_weights(weights)
    shapes = tuple(matrix.shape for matrix in matrices)
    X = checked_data("inputs", inputs, shapes[0][1])
    g = checked_data("gradients", gradients, shapes[-1][0], rows=len(X))
    reached, unreached = _reached(X)
    seen, unseen = _seen(shapes[-1][0], loss)
    Omega = seen.T @ g.T @ X @ reached
    reduced = list(matrices)
    reduced[0] = reduced[0] @ reached
    reduced[-1] = seen.T @ reduced[-1]
    parts = [
        (layer, C if layer < len(matrices) - 1 else seen @ C, reached @ R if layer == 0 else R)
        for layer, C, R in _layerwise(reduced, Omega)
    ]
    parts.append((0, np.eye(shapes[0][0]), unreached))
    last = reached if len(matrices) == 1 else np.eye(shapes[-1][1])
    parts.append((len(matrices) - 1, unseen, last))
    kept = tuple(part for part in parts if part[1].size and part[2].size)
    return NullSpace(shapes=shapes, parts=kept)


def _reached(X: Array) -> tuple[Array, Array]:
    """Orthonormal bases of the span of the inputs and of its complement."""
    _, sizes, right = np.linalg.svd(X, full_matrices=True)
    rank = numerical_rank(sizes)
    if rank.value is None:
        raise ValueError(f"the rank of the inputs cannot be decided: {rank.doubt}")
    return right[: rank.value].T, right[rank.value :].T


def _seen(outputs: int, loss: str) -> tuple[Array, Array]:
    if loss == "mse":
        return np.eye(outputs), np.zeros((outputs, 0))
    left, _, _ = np.linalg.svd(np.ones((outputs, 1)), full_matrices=True)
    return left[:, 1:], left[:, :1]


def _layerwise(weights: list[Array], Omega: Array) -> list[tuple[int, Array, Array]]:
    W = np.linalg.multi_dot(weights[::-1]) if len(weights) > 1 else weights[0]
    q = min(W.shape[0], *(weight.shape[1] for weight in weights))
    if q:
        sizes = np.linalg.svd(W @ Omega.T @ W, compute_uv=False)
        if not sizes[q - 1] > SMALLEST_SINGULAR_VALUE * sizes[0]:
            raise ValueError(
                f"W Ωᵀ W must have the rank q = {q} of a generic point, got the singular values "
                f"{', '.join(f'{size:.1e}' for size in sizes[:q])}; where the data are fitted "
                "or a weight is rank-deficient the null space is larger, and no sum over layers"
            )
    found = []
    for layer, (A, B) in enumerate(zip(after(weights), before(weights))):
        C = _complement((W @ Omega.T @ A).T, q)
        R = _complement(B @ Omega.T @ W, q)
        found.append((layer, C, R))
    return found


def _complement(matrix: Array, rank: int) -> Array:
    """Orthonormal basis of what is orthogonal to the columns of a matrix of that rank."""
    left, _, _ = np.linalg.svd(matrix, full_matrices=True)
    return np.asarray(left[:, rank:])
