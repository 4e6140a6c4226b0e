"""An orthonormal basis that grows by one vector at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def norm(vector: Tensor) -> float:
    """Euclidean norm, accumulated in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


class Basis:
    """Rows q_0, ..., q_{size-1} of one contiguous buffer (capacity, dim).

    >>> basis = Basis(2, 3, torch.float64, torch.device("cpu"))
    >>> basis.append(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    >>> vector = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    >>> basis.remove_from(vector), vector.tolist()
    (5.0, [0.0, 3.0, 4.0])
    """

    def __init__(self, capacity: int, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self._rows = torch.empty(capacity, dim, dtype=dtype, device=device)
        self.size = 0

    @property
    def rows(self) -> Tensor:
        """The basis so far, (size, dim)."""
        return self._rows[: self.size]

    def append(self, vector: Tensor) -> None:
        self._rows[self.size] = vector
        self.size += 1

    def remove_from(self, vector: Tensor) -> float:
        """w <- w - Q Qᵀ w in place; returns |w| afterwards.

        Classical Gram-Schmidt as two GEMVs. A pass that removes more than half of |w|² leaves
        rounding of the removed size behind, so it is repeated (Daniel, Gragg, Kaufman & Stewart,
        Math. Comp. 30 (1976), 772-795: twice is enough unless w lies in the span).
        """
        rows, before = self.rows, norm(vector)
        after = before
        for _ in range(3):
            vector.addmv_(rows.T, rows @ vector, alpha=-1)
            after = norm(vector)
            if after > before * math.sqrt(0.5):
                break
            before = after
        return after
