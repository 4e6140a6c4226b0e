"""Sample covariance of correlated data: the generalised Marchenko–Pastur law.

Derived in theory/sample_covariance.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic, check_positive
from rmthess.laws.cumulants import free_cumulants_from_moments
from rmthess.laws.free_compound_poisson import FreeCompoundPoisson
from rmthess.laws.kernel import Kernel, Terms
from rmthess.laws.kernel_law import KernelLaw, check_algebraic, cleared, coefficients, shares
from rmthess.laws.transforms import r_transform
from rmthess.measure import SpectralMeasure, check_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SampleCovariance(KernelLaw):
    """m(z) = ∫ dH(t)/(t(1 - q - q z m) - z): eigenvalues of T^(1/2) XᵀX T^(1/2)/samples.

    X (samples, dim) has independent entries of variance 1, H is the law of the eigenvalues of T.
    ``ratio`` q = dim/samples > 0; ``population`` H any measure: a list of eigenvalues, a law, a
    Lanczos measure. The companion XTXᵀ/samples is free compound Poisson of rate q and jumps H:
    z = ω + q ∫ t ω/(ω - t) dH with m = -(1/z) ∫ ω/(ω - t) dH. Marchenko & Pastur, Math. USSR Sb. 1
    (1967); Silverstein & Choi, J. Multivariate Anal. 54 (1995).

    >>> from rmthess import DiscreteMeasure
    >>> SampleCovariance(0.25, DiscreteMeasure([1.0], [1.0])).support
    ((0.25, 2.25),)
    """

    ratio: float
    population: SpectralMeasure

    def __post_init__(self) -> None:
        check_positive("ratio", self.ratio, "dim / samples")

    @cached_property
    def companion(self) -> FreeCompoundPoisson:
        """The law of XTXᵀ/samples, of side ``samples``."""
        return FreeCompoundPoisson(self.ratio, self.population)

    @property
    def kernel(self) -> Kernel:
        return self.companion.kernel

    @cached_property
    def _population(self) -> tuple[Array, Array]:
        return self.companion._jumps

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        """At 0: the larger of H{0} and 1 - 1/q."""
        t, w = self._population
        mass = max(float(w[t == 0].sum()), 1 - 1 / float(self.ratio))
        return ((0.0, mass),) if mass > 1e-15 * t.size else ()

    def _terms(self) -> Terms:
        return self.companion._terms()

    def _transform(self, omega: Any, z: Any) -> Any:
        t, w = self._population
        if arithmetic(omega).exact:
            pairs = zip(t.tolist(), shares(w, omega), strict=True)
            return sum(wj * omega / (tj - omega) for tj, wj in pairs) / z
        m = np.asarray(((omega[..., None] / (t - omega[..., None])) @ w) / z)
        zero = np.asarray(z == 0)
        if zero.any():  # there ω is 0 too, and ω/z the inverse of 1 - q Σ_j w_j t_j/(t_j - ω)
            inverse = 1 / (t - omega[zero][:, None])
            m[zero] = (inverse @ w) / (1 - float(self.ratio) * (inverse @ (w * t)))
        return m

    def _partials(self, omega: Any, z: Any) -> tuple[Any, Any]:
        t, w = self._population
        by_omega = np.asarray(((t / (t - omega[..., None]) ** 2) @ w) / z)
        by_z = np.asarray(-self._transform(omega, z) / z)
        # near 0, where both grow as 1/z and cancel, m as a function of ω alone
        low = np.abs(omega) ** 2 <= 1e-2 * t.max() * np.abs(z)
        if low.any():
            inverse, q = 1 / (t - omega[low][:, None]), float(self.ratio)
            rest = 1 - q * (inverse @ (w * t))
            slope = q * (inverse**2 @ (w * t)) / rest
            by_omega[low] = (inverse**2 @ w + slope * (inverse @ w)) / rest
            by_z[low] = 0
        return by_omega, by_z

    def density(self, x: Any) -> Any:
        """The companion's, divided by q."""
        return self.companion.density(x) / self.ratio

    def _argument(self, omega: Any, x: Any) -> Any:
        """The companion has mass 1 - q more at 0, and else q times this law."""
        q = float(self.ratio)
        at_zero = np.where(x >= 0, 0.0, np.pi)
        return (self.companion._argument(omega, x) - (1 - q) * at_zero) / q

    def moment(self, order: int) -> Any:
        """The companion's moments divided by q."""
        k = check_order("order", order, least=0)
        return 1.0 if k == 0 else self.companion.moment(k) / float(self.ratio)

    def free_cumulants(self, order: int) -> list[Any]:
        moments = [self.moment(k) for k in range(1, check_order("order", order) + 1)]
        return free_cumulants_from_moments(moments)

    def r_transform(self, w: Any) -> Any:
        """From the Stieltjes transform: the population's R enters at a point that depends on R."""
        return r_transform(self, w)

    def equation(self, m: Any, z: Any) -> Any:
        """m - Σ_j w_j/(t_j(1 - q - q z m) - z), times its denominators."""
        check_algebraic(self, self.population)
        (q,), t = (coefficients(part, m, z) for part in (self.ratio, self._population[0]))
        w = shares(self._population[1], m, z)
        factor = 1 - q - q * z * m
        return cleared(m, [(wj, tj * factor - z) for tj, wj in zip(t, w, strict=True)])

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) for Gaussian X and T = diag(quantiles of H): O(dim³)."""
        side = check_order("dim", dim)
        samples = max(1, round(side / float(self.ratio)))
        scale = np.asarray(self.population.quantile((np.arange(side) + 0.5) / side), float)
        if scale.min() < 0:
            raise ValueError(
                f"sampling needs a population that is not negative, got {scale.min():g}"
            )
        if samples >= side:  # the triangle of Bartlett (1933): XᵀX = LLᵀ, whatever samples
            factor = np.tril(rng.standard_normal((side, side)), -1)
            np.fill_diagonal(factor, np.sqrt(rng.chisquare(samples - np.arange(side))))
            data = factor.T * np.sqrt(scale)
        else:
            data = rng.standard_normal((samples, side)) * np.sqrt(scale)
        return np.linalg.eigvalsh(data.T @ data / samples)
