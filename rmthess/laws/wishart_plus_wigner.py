"""Wishart plus Wigner: Pennington and Bahri's Hessian (theory/wishart_plus_wigner.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rmthess.arithmetic import arithmetic, check_positive, plain
from rmthess.laws.cumulants import free_cumulants_from_moments
from rmthess.laws.free_compound_poisson import Levy, LevyLaw
from rmthess.laws.kernel import Terms
from rmthess.measure import SpectralMeasure


@dataclass(frozen=True)
class WishartPlusWigner(LevyLaw):
    """R(w) = 1/(1 - φ w) + 2 ε w: the spectrum of J Jᵀ/M + W, the two parts in general position.

    J (N, M) has independent entries of variance 1, φ = N/M (``ratio`` > 0: parameters per
    residual); W is Wigner with entries of variance 2ε/N (``energy`` ε > 0: the loss per residual).
    Its share of negative eigenvalues is the ``index``. Pennington & Bahri, ICML 2017, eq. 10.

    >>> WishartPlusWigner(ratio=0.25, energy=0.04).index < 1e-12
    True
    """

    ratio: Any
    energy: Any

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "ratio": (0.0, np.inf),
        "energy": (0.0, np.inf),
    }

    def __post_init__(self) -> None:
        check_positive("ratio", self.ratio, "parameters per residual")
        check_positive("energy", self.energy, "the loss per residual, half the Wigner variance")

    @property
    def levy(self) -> Levy:
        phi, noise = float(self.ratio), 2 * float(self.energy)
        return 1.0, np.array([0.0, phi]), np.array([noise, phi])

    def _terms(self) -> Terms:
        import mpmath

        phi, energy = mpmath.mpmathify(self.ratio), mpmath.mpmathify(self.energy)
        return [mpmath.mpf(0), phi], [2 * energy, phi], 1, mpmath.mpf(1)

    def r_transform(self, w: Any) -> Any:
        return 1 / (1 - self.ratio * w) + 2 * self.energy * w

    def equation(self, m: Any, z: Any) -> Any:
        """2εφ m³ + (2ε + zφ) m² + (z + φ - 1) m + 1."""
        phi, noise = self.ratio, 2 * self.energy
        return noise * phi * m**3 + (noise + z * phi) * m**2 + (z + phi - 1) * m + 1

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """φ² = κ_3 and φ + 2ε = κ_2; the mean is 1 by convention."""
        moments = [measure.moment(order) for order in (1, 2, 3)]
        _, second, third = (float(kappa) for kappa in free_cumulants_from_moments(moments))
        ratio = max(third, 1e-12 * second**1.5) ** 0.5
        return {"ratio": ratio, "energy": max(second - ratio, 1e-6 * second) / 2}

    @property
    def index(self) -> float:
        """Share of negative eigenvalues."""
        return float(self.cdf(0.0))


def critical_energy(ratio: Any) -> Any:
    """ε_c = (1 - 20φ - 8φ² + (1 + 8φ)^(3/2))/16: the index is 0 up to this energy; 0 for φ >= 1.

    Pennington & Bahri, ICML 2017, eq. 12; derived in the theory page from K(ω) = K'(ω) = 0.

    >>> round(critical_energy(0.25), 12)
    0.043509526419
    """
    check_positive("ratio", ratio, "parameters per residual")
    xp = arithmetic(ratio)
    root = xp.sqrt(1 + 8 * ratio)
    # the printed form loses the digits of ε_c near φ = 1; with φ = (r² - 1)/8 it is this product
    return plain((root + 1) * xp.positive_part(3 - root) ** 3 / 128)


def index_coefficient(ratio: float) -> float:
    """C in index ~ C (ε - ε_c)^(3/2) just above the critical energy.

    C = (2/3π) √(2/|z''|) |2G|^(3/2) with G at the double root and z'' = d²z/dG². Derived in the
    theory page; 8% too large already at 1.1 ε_c, φ = 1/4: use ``index`` beyond.
    """
    phi = float(ratio)
    if not 0 < phi < 1:
        raise ValueError(f"ratio must lie in (0, 1), got {ratio}; from 1 on the index is never 0")
    # the double root of K at z = 0: (2φ - 2φ²) G² + (4φ - 1) G - 2 = 0, G < 0
    a, b = 2 * phi * (1 - phi), 4 * phi - 1
    g = (-b - np.sqrt(b * b + 8 * a)) / (2 * a)
    curvature = 2 * phi**2 / (1 - phi * g) ** 3 + 2 / g**3
    return float(2 / (3 * np.pi) * np.sqrt(2 / abs(curvature)) * (2 * abs(g)) ** 1.5)
