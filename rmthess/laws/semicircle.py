"""The semicircle law of Wigner matrices (theory/semicircle.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.arithmetic import arithmetic, check_finite, check_positive, plain
from rmthess.jacobi import Coefficients
from rmthess.laws.law import Interval, Law
from rmthess.measure import SpectralMeasure, check_order


@dataclass(frozen=True)
class Semicircle(Law):
    """ρ(x) = √(4v - y²)/(2πv), y = x - mean, on mean ± 2√v;  m(z) = -2/(y + √(y-2√v)√(y+2√v)).

    The limit spectrum of mean·1 + W, W symmetric (dim, dim) with independent entries of variance
    v/dim. ``variance`` v > 0 is also the law's own variance. Wigner, Ann. Math. 67 (1958).

    >>> Semicircle(variance=0.25).support
    ((-1.0, 1.0),)
    """

    variance: Any = 1
    mean: Any = 0

    ensemble: ClassVar[str | None] = "GOE"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "variance": (0.0, np.inf),
        "mean": (-np.inf, np.inf),
    }

    def __post_init__(self) -> None:
        check_positive("variance", self.variance, "dim times the variance of a matrix entry")
        check_finite("mean", self.mean, "the centre of the law")

    @property
    def _radius(self) -> Any:
        return 2 * arithmetic(self.variance).sqrt(self.variance)

    @property
    def support(self) -> tuple[Interval, ...]:
        return ((plain(self.mean - self._radius), plain(self.mean + self._radius)),)

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.variance, self.mean)
        y = xp.point(z) - self.mean
        # the form that does not cancel at large |z|
        return -xp.quotient(2, y + xp.sqrt(y - self._radius) * xp.sqrt(y + self._radius))

    def stieltjes_and_slope(self, z: Any) -> tuple[Any, Any]:
        """m' = -m/(2 v m + z - mean)."""
        m = self.stieltjes(z)
        with np.errstate(divide="ignore", invalid="ignore"):
            return m, -m / (2 * self.variance * m + z - self.mean)

    def equation(self, m: Any, z: Any) -> Any:
        """v m² + (z - mean) m + 1."""
        return self.variance * m**2 + (z - self.mean) * m + 1

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.variance, self.mean)
        y = xp.real(x) - self.mean
        inside = xp.positive_part((self._radius - y) * (self._radius + y))
        return xp.sqrt(inside) / (2 * xp.pi * self.variance)

    def cdf(self, x: Any) -> Any:
        xp = arithmetic(x, self.variance, self.mean)
        y = xp.clip(xp.real(x) - self.mean, -self._radius, self._radius)
        root = xp.sqrt(xp.positive_part((self._radius - y) * (self._radius + y)))
        turn = xp.arctan2(y, root) / xp.pi
        return xp.clip(turn + y * root / (4 * xp.pi * self.variance) + xp.real(1) / 2, 0, 1)

    def r_transform(self, w: Any) -> Any:
        """R(w) = mean + v w."""
        return self.mean + self.variance * w

    def s_transform(self, w: Any) -> Any:
        """S(w) = 2/(mean + √(mean² + 4 v w)); undefined for a centred law."""
        if self.mean == 0:
            return super().s_transform(w)
        xp = arithmetic(w, self.variance, self.mean)
        c = self.mean  # the branch with S(0) = 1/mean
        return 2 / (c * (1 + xp.sqrt(1 + 4 * self.variance * xp.point(w) / c**2)))

    def free_cumulants(self, order: int) -> list[Any]:
        """mean, v, 0, 0, ..."""
        return [self.mean, self.variance, *[0] * order][: check_order("order", order)]

    def moment(self, order: int) -> Any:
        """Σ_j binom(order, 2j) C_j v^j mean^(order-2j) with the Catalan numbers C_j."""
        k = check_order("order", order, least=0)
        return sum(
            comb(k, 2 * j) * comb(2 * j, j) // (j + 1) * self.variance**j * self.mean ** (k - 2 * j)
            for j in range(k // 2 + 1)
        )

    def jacobi(self, steps: int) -> Coefficients:
        """a_k = mean, b_k = √v: shifted Chebyshev polynomials of the second kind."""
        check_order("steps", steps)
        return np.full(steps, float(self.mean)), np.full(steps - 1, float(self._radius) / 2)

    def sample_jacobi(
        self, steps: int, dim: float, rng: np.random.Generator, probes: int = 1
    ) -> Coefficients:
        return self._scaled(jacobi.hermite_chains(steps, dim, rng, probes))

    def mean_jacobi(self, steps: int, dim: float) -> Coefficients:
        return self._scaled(jacobi.mean_hermite_chain(steps, dim))

    def _scaled(self, chain: Coefficients) -> Coefficients:
        scale = float(self._radius) / 2
        return float(self.mean) + scale * chain[0], scale * chain[1]

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        mean = measure.moment(1)
        return {"variance": measure.integrate(lambda x: (x - mean) ** 2), "mean": mean}

    @classmethod
    def likelihood_estimate(cls, eigenvalues: NDArray[np.float64]) -> dict[str, float]:
        """Of a GOE matrix: v = n Σ(λ - mean)²/(n(n+1) - 2), unbiased."""
        n, mean = eigenvalues.size, float(eigenvalues.mean())
        return {
            "variance": n * float(np.sum((eigenvalues - mean) ** 2)) / (n * (n + 1) - 2),
            "mean": mean,
        }

    def shift(self, c: Any) -> Semicircle:
        return Semicircle(self.variance, self.mean + c)

    def dilate(self, c: Any) -> Semicircle:
        return Semicircle(self.variance * c**2, self.mean * c)
