"""Three ways to treat the loss of orthogonality in Lanczos.

In exact arithmetic q_{j+1} is orthogonal to all before it. Rounding grows along every converged
Ritz vector (Paige), until converged eigenvalues are found again: ghosts.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rmthess.operators.basis import Basis

Array = NDArray[np.float64]
Method = Literal["full", "periodic", "none"]
METHODS: tuple[Method, ...] = ("full", "periodic", "none")


class Keeper(Protocol):
    """What is kept of one probe's past: q_1, q_2, ..., or nothing."""

    def append(self, vector: Tensor) -> None: ...

    def clean(self, row: Tensor, alpha: Tensor) -> Tensor:
        """Make row = β_j q_{j+1} orthogonal to the past in place; β_j, float64 on the device."""


class Full:
    """Every vector against all before it: Q is orthonormal to rounding, and nothing is a ghost."""

    def __init__(self, basis: Basis, twice: bool) -> None:
        self._basis, self._twice = basis, twice

    def append(self, vector: Tensor) -> None:
        self._basis.append(vector)

    def clean(self, row: Tensor, alpha: Tensor) -> Tensor:
        return self._basis.remove_from(row, twice=self._twice)


class Local:
    """The three-term recurrence alone: nothing is stored, and ghosts appear.

    Gauss weights stay right: the copies of an eigenvalue share its weight (Greenbaum, Linear
    Algebra Appl. 113 (1989), 7-63). Counting Ritz values does not. ``empty``: a basis without rows,
    which still removes what was deflated.
    """

    def __init__(self, empty: Basis, twice: bool) -> None:
        self._empty, self._twice = empty, twice

    def append(self, vector: Tensor) -> None:
        pass

    def clean(self, row: Tensor, alpha: Tensor) -> Tensor:
        return self._empty.remove_from(row, twice=self._twice)


class Periodic:
    """Two vectors in a row against all before, whenever orthogonality has fallen to sqrt(eps).

    Down to there T is, up to rounding, a true projection of A (Simon, Linear Algebra Appl. 61
    (1984), 101-131, theorem 4). The level of orthogonality ω_{j+1,k} = q_{j+1}·q_k is estimated
    by its own recurrence, which costs no vector:
    β_j ω_{j+1,k} = β_k ω_{j,k+1} + (α_k - α_j) ω_{j,k} + β_{k-1} ω_{j,k-1} - β_{j-1} ω_{j-1,k} + θ,
    where θ, the rounding of products, is taken as 4 eps |T| of the worst sign.
    """

    def __init__(self, basis: Basis, empty: Basis, eps: float) -> None:
        self._basis, self._empty, self._eps = basis, empty, eps
        self._alpha, self._beta = np.empty(0), np.empty(0)
        self._before, self._level = np.empty(0), np.ones(1)  # ω_{j-1,k} and ω_{j,k}, k <= j
        self._largest, self._again = 0.0, False
        self.passes = 0

    def append(self, vector: Tensor) -> None:
        self._basis.append(vector)

    def clean(self, row: Tensor, alpha: Tensor) -> Tensor:
        beta = self._empty.remove_from(row)
        level = self._estimate(float(alpha), float(beta))
        due = self._again or np.abs(level).max() > np.sqrt(self._eps)
        if due:
            beta = self._basis.remove_from(row)
            level = np.full(level.size, self._eps)
            self.passes += 1
        self._again = due and not self._again
        self._beta = np.append(self._beta, float(beta))
        self._before, self._level = self._level, np.append(level, 1.0)
        return beta

    def _estimate(self, alpha: float, beta: float) -> Array:
        """ω_{j+1,k} for k = 1, ..., j; the last is local and only rounding."""
        j = self._alpha.size
        self._alpha = np.append(self._alpha, alpha)
        self._largest = max(self._largest, abs(alpha) + beta)
        level = self._level
        found = np.full(j + 1, self._eps)
        if j == 0 or beta == 0:
            return found
        total = self._beta * level[1:] + (self._alpha[:-1] - alpha) * level[:-1]
        total[1:] += self._beta[:-1] * level[:-2]
        total -= self._beta[-1] * self._before
        rounding = 4 * self._eps * self._largest
        found[:-1] = (total + np.copysign(rounding, total)) / beta
        return found
