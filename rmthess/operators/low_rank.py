"""A symmetric operator of low rank, given by its factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmthess.operators.errors import NonFiniteError
from rmthess.operators.operator import Operator
from rmthess.operators.vectors import as_columns


@dataclass(frozen=True, eq=False, repr=False, init=False)
class LowRank(Operator):
    """U diag(s) Uᵀ.

    ``vectors``: U (dim, r), columns of any length and angle; ``values``: s (r,). With unit
    eigenvectors and eigenvalues of A, ``A - LowRank(vectors, values)`` is A with these moved to 0.

    Raises ValueError for shapes that do not match, NonFiniteError for NaN.

    >>> import numpy as np
    >>> operator = LowRank(np.array([[1.0], [2.0]]), [3.0])
    >>> operator @ torch.tensor([1.0, 0.0], dtype=torch.float64)
    tensor([3., 6.], dtype=torch.float64)
    """

    vectors: Tensor
    values: Tensor

    def __init__(self, vectors: ArrayLike | Tensor, values: ArrayLike | Tensor) -> None:
        columns = as_columns("vectors", vectors)
        factors = torch.as_tensor(values, dtype=columns.dtype, device=columns.device).detach()
        if factors.shape != columns.shape[1:]:
            raise ValueError(
                f"values must have shape ({columns.shape[1]},), one for each column of vectors, "
                f"got {tuple(factors.shape)}"
            )
        if not bool(torch.isfinite(factors).all()):
            raise NonFiniteError("values holds NaN or Inf")
        object.__setattr__(self, "vectors", columns)
        object.__setattr__(self, "values", factors)

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape[0], self.vectors.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.vectors.dtype

    @property
    def device(self) -> torch.device:
        return self.vectors.device

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        return self.vectors @ (self.values[:, None] * (self.vectors.T @ vectors))

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"LowRank(dim={self.dim}, rank={len(self.values)}, {kind})"
