"""A Wigner matrix added to anything: semicircle ⊞ μ (theory/deformed_wigner.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic, check_positive
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants
from rmthess.laws.kernel import Kernel, Terms
from rmthess.laws.kernel_law import (
    KernelLaw,
    check_algebraic,
    cleared,
    coefficients,
    nodes_of,
    shares,
)
from rmthess.laws.law import Law
from rmthess.laws.transforms import r_transform
from rmthess.measure import SpectralMeasure, check_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DeformedWigner(KernelLaw):
    """m(z) = ∫ dμ(t)/(t - z - v m(z)): the limit spectrum of A + W.

    A (dim, dim) symmetric with eigenvalue law ``population`` μ, W Wigner with entries of variance
    v/dim; ``variance`` v > 0. With ω = z + v m: z = ω + v ∫ dμ(t)/(ω - t). Pastur, Theor. Math.
    Phys. 10 (1972); Biane, Indiana Univ. Math. J. 46 (1997).

    >>> from rmthess import DiscreteMeasure
    >>> DeformedWigner(DiscreteMeasure([0.0], [1.0]), variance=0.25).support
    ((-1.0, 1.0),)
    """

    population: SpectralMeasure
    variance: float = 1

    def __post_init__(self) -> None:
        check_positive("variance", self.variance, "dim times the variance of a matrix entry")

    @cached_property
    def _nodes(self) -> tuple[Array, Array]:
        return nodes_of(self.population, self._kernel_at)

    def _kernel_at(self, nodes: Array, weights: Array) -> Kernel:
        return Kernel(nodes, float(self.variance) * weights)

    @cached_property
    def kernel(self) -> Kernel:
        return self._kernel_at(*self._nodes)

    def _terms(self) -> Terms:
        import mpmath

        v, (t, w) = mpmath.mpmathify(self.variance), self._nodes
        weights = [v * x for x in shares(w, mpmath.mpf(1))]
        return [*map(mpmath.mpf, t)], weights, 1, mpmath.mpf(0)

    def _transform(self, omega: Any, z: Any) -> Any:
        t, w = self._nodes
        if arithmetic(omega).exact:
            pairs = zip(t.tolist(), shares(w, omega), strict=True)
            return sum(wj / (tj - omega) for tj, wj in pairs)
        return (1 / (t - omega[..., None])) @ w

    def _partials(self, omega: Any, z: Any) -> tuple[Any, Any]:
        t, w = self._nodes
        return (1 / (t - omega[..., None]) ** 2) @ w, 0.0

    def _argument(self, omega: Any, x: Any) -> Any:
        """L = ∫ log(ω - t) dμ + v m²/2."""
        t, w = self._nodes
        inverse = 1 / (omega[..., None] - t)
        return np.angle(omega[..., None] - t) @ w + float(self.variance) / 2 * np.imag(
            (inverse @ w) ** 2
        )

    def free_cumulants(self, order: int) -> list[Any]:
        """Those of μ, the second one larger by v."""
        count = check_order("order", order)
        moments = [self.population.moment(k) for k in range(1, count + 1)]
        cumulants = free_cumulants_from_moments(moments)
        if count > 1:
            cumulants[1] += self.variance
        return cumulants

    def moment(self, order: int) -> Any:
        k = check_order("order", order, least=0)
        return 1.0 if k == 0 else moments_from_free_cumulants(self.free_cumulants(k))[-1]

    def r_transform(self, w: Any) -> Any:
        """R(w) = R_μ(w) + v w."""
        source = self.population
        base = source.r_transform(w) if isinstance(source, Law) else r_transform(source, w)
        return base + float(self.variance) * np.asarray(w)

    def equation(self, m: Any, z: Any) -> Any:
        """m - Σ_j w_j/(t_j - z - v m), times its denominators."""
        check_algebraic(self, self.population)
        (v,), t = (coefficients(part, m, z) for part in (self.variance, self._nodes[0]))
        w = shares(self._nodes[1], m, z)
        return cleared(m, [(wj, tj - z - v * m) for tj, wj in zip(t, w, strict=True)])

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of diag(quantiles of μ) + GOE: O(dim³)."""
        side = check_order("dim", dim)
        noise = rng.standard_normal((side, side)) * np.sqrt(float(self.variance) / (2 * side))
        levels = np.asarray(self.population.quantile((np.arange(side) + 0.5) / side), float)
        return np.linalg.eigvalsh(np.diag(levels) + noise + noise.T)
