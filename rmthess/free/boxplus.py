"""The free additive convolution μ ⊞ ν: the spectrum of A + U B Uᵀ (theory/free_convolution.md)."""

from __future__ import annotations

import numpy as np

from rmthess.free.convolution import FreeSum
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.free_compound_poisson import FreeLevy, Levy, LevyLaw
from rmthess.laws.law import AffineLaw, Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.semicircle import Semicircle
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure


def boxplus(mu: SpectralMeasure, nu: SpectralMeasure) -> Law | DiscreteMeasure:
    """R(w) = R_μ(w) + R_ν(w): the limit spectrum of A + U B Uᵀ, U Haar orthogonal.

    Any two measures. Semicircles, Marchenko–Pastur and free compound Poisson laws, shifted,
    dilated, reflected or already summed, add in closed form; a semicircle and anything else go
    through the rational kernel; what is left through two-variable subordination. Voiculescu, J.
    Funct. Anal. 66 (1986).

    >>> boxplus(Semicircle(0.5), Semicircle(1.5, mean=2.0))
    Semicircle(variance=2.0, mean=2.0)
    """
    mu, nu = as_measure(mu), as_measure(nu)
    for one, other in ((mu, nu), (nu, mu)):
        point = point_mass(one)
        if point is not None:
            return shifted(other, point)
    if isinstance(mu, Semicircle) and isinstance(nu, Semicircle):
        return Semicircle(mu.variance + nu.variance, mu.mean + nu.mean)
    first, second = levy(mu), levy(nu)
    if first is not None and second is not None:
        (drift, jumps, weights), (more, further, others) = first, second
        nodes, masses = np.concatenate([jumps, further]), np.concatenate([weights, others])
        total = float(masses.sum())
        return FreeLevy(drift + more, DiscreteMeasure(nodes, masses / total), total)
    for one, other in ((mu, nu), (nu, mu)):
        if isinstance(one, Semicircle):
            if isinstance(other, DeformedWigner):
                grown = float(other.variance) + float(one.variance)
                return shifted(DeformedWigner(other.population, grown), one.mean)
            return shifted(DeformedWigner(other, one.variance), one.mean)
    unit = unit_of(mu, nu)
    if unit == 1:
        return FreeSum(mu, nu)
    return FreeSum(scaled(mu, 1 / unit), scaled(nu, 1 / unit)).dilate(unit)


def unit_of(*measures: SpectralMeasure) -> float:
    """A power of two of the size of the measures, where products of sizes would leave the doubles.

    1 for ordinary sizes; dividing by it changes no digit.
    """
    size = max(float(np.abs(measure.breakpoints).max()) for measure in measures)
    return 1.0 if 1e-30 < size < 1e30 or size == 0 else float(2.0 ** np.round(np.log2(size)))


def scaled(measure: Law | DiscreteMeasure, c: float) -> Law | DiscreteMeasure:
    """The law of c X."""
    if isinstance(measure, DiscreteMeasure):
        return DiscreteMeasure(c * measure.nodes, measure.weights, measure.dim)
    if c == 0:
        return DiscreteMeasure([0.0], [1.0])
    return measure if c == 1 else measure.dilate(c)


def as_measure(measure: SpectralMeasure) -> Law | DiscreteMeasure:
    """A law or a discrete measure; of a Lanczos measure its pooled Gauss rules."""
    if isinstance(measure, LanczosMeasure):
        return measure.pooled
    if not isinstance(measure, Law | DiscreteMeasure):
        raise TypeError(
            f"a free convolution takes laws and measures, got {type(measure).__name__}; "
            "for a list of eigenvalues use DiscreteMeasure.from_eigenvalues"
        )
    return measure


def point_mass(measure: SpectralMeasure) -> float | None:
    """Its location, if the measure is one atom."""
    if isinstance(measure, DiscreteMeasure) and np.ptp(measure.nodes[measure.weights > 0]) == 0:
        return float(measure.nodes[0])
    return None


def shifted(measure: Law | DiscreteMeasure, c: float) -> Law | DiscreteMeasure:
    """The law of X + c."""
    if isinstance(measure, DiscreteMeasure):
        return DiscreteMeasure(measure.nodes + float(c), measure.weights, measure.dim)
    return measure if c == 0 else measure.shift(c)


def levy(measure: SpectralMeasure) -> Levy | None:
    """Drift, jumps and weights of a freely infinitely divisible law, or None."""
    if isinstance(measure, Semicircle):
        return float(measure.mean), np.zeros(1), np.array([float(measure.variance)])
    if isinstance(measure, MarchenkoPastur):
        q, v = float(measure.ratio), float(measure.variance)
        return v, np.array([q * v]), np.array([q * v**2])
    if isinstance(measure, LevyLaw):
        return measure.levy
    if isinstance(measure, AffineLaw):
        inner = levy(measure.base)
        if inner is not None:
            drift, jumps, weights = inner
            c = float(measure.scale)
            return c * drift + float(measure.offset), c * jumps, c**2 * weights
    return None
