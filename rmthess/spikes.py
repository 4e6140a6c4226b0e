"""Spikes: where a low-rank part of a matrix puts an eigenvalue (theory/spikes.md).

An eigenvalue leaves the bulk when the strength of the low-rank part passes a threshold (Baik, Ben
Arous & Péché, Ann. Probab. 33, 2005). On any bulk the answer is in the bulk's Stieltjes transform
(Benaych-Georges & Nadakuditi, Adv. Math. 227, 2011, and J. Multivariate Anal. 111, 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from rmthess.arithmetic import check_finite, check_positive
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.sample_covariance import SampleCovariance
from rmthess.laws.transforms import r_transform
from rmthess.measure import DiscreteMeasure, SpectralMeasure


@dataclass(frozen=True)
class Spike:
    """What a spike of given ``strength`` does to a large matrix.

    ``location`` of its eigenvalue, or None where the bulk absorbs it; ``overlap`` the squared inner
    product of the eigenvector with the spike's direction, 0 if absorbed; ``threshold`` the strength
    at which the eigenvalue leaves the bulk on this side. ``right_overlap`` is that of the right
    singular vector of a rectangular matrix, NaN elsewhere.
    """

    strength: float
    location: float | None
    overlap: float
    threshold: float
    fluctuation: float
    right_overlap: float = float("nan")

    def __str__(self) -> str:
        if self.location is None:
            return (
                f"strength {self.strength:.6g}: absorbed by the bulk; "
                f"an outlier beyond {self.threshold:.6g}"
            )
        spread = f" ± {self.fluctuation:.3g}/√dim" if np.isfinite(self.fluctuation) else ""
        return (
            f"strength {self.strength:.6g}: outlier at {self.location:.6g}{spread}, "
            f"overlap {self.overlap:.4f}; threshold {self.threshold:.6g}"
        )

    def std(self, dim: int) -> float:
        """Standard deviation of the eigenvalue at matrix side ``dim``: fluctuation/√dim."""
        if dim <= 0:
            raise ValueError(f"dim must be positive, got {dim}; it is the side of the matrix")
        return self.fluctuation / float(np.sqrt(dim))


def additive(bulk: SpectralMeasure, strength: float) -> Spike:
    """G(λ) = 1/θ: the eigenvalue of A + θ u uᵀ, u a random unit vector, A of law ``bulk``.

    With G = -m: it exists where 1/θ lies between 0 and G at the end of the bulk; overlap
    -1/(θ² G'(λ)); variance 2(-G' - G²)/G'² /dim, because uᵀ(λ - A)⁻¹u has variance 2(-G' - G²)/dim.

    >>> from rmthess import Semicircle
    >>> additive(Semicircle(), 2.0).location
    2.5
    """
    check_finite("strength", strength, "the eigenvalue of the rank-one part")
    if strength == 0:
        raise ValueError("strength must not be 0; without a spike there is no outlier")
    theta = float(strength)
    end = float(bulk.breakpoints[-1 if theta > 0 else 0])
    threshold = _inverse(_cauchy_at_end(bulk, end, theta > 0))
    if abs(theta) <= abs(threshold):
        return Spike(theta, None, 0.0, threshold, float("nan"))
    location = _locate(bulk, 1 / theta, end)
    if _at_end(location, end):
        return Spike(theta, location, 0.0, threshold, 0.0)
    slope = _cauchy_slope(bulk, location, abs(location - end))
    overlap = -1 / (theta**2 * slope)
    spread = 2 * (-slope - 1 / theta**2) / slope**2
    return Spike(theta, location, overlap, threshold, float(np.sqrt(max(spread, 0.0))))


def additive_strength(bulk: SpectralMeasure, location: float) -> float:
    """θ = 1/G(λ): the spike that an eigenvalue at λ outside the bulk gives away.

    >>> from rmthess import Semicircle
    >>> additive_strength(Semicircle(), 2.5)
    2.0
    """
    ends = bulk.breakpoints
    if ends[0] <= location <= ends[-1]:
        raise ValueError(
            f"location {location:g} lies within the bulk, {ends[0]:g} to {ends[-1]:g}; "
            "only an outlier gives a strength away"
        )
    return float(-1 / np.real(bulk.stieltjes(location)))


def covariance(
    strength: float, ratio: float, *, population: SpectralMeasure | None = None
) -> Spike:
    """ψ(ℓ) = ℓ(1 + q ∫ t dH(t)/(ℓ - t)): one population eigenvalue ℓ among others of law H.

    strength: ℓ > 0, the population eigenvalue. ratio: q = dim/samples. population: H, default all
    eigenvalues 1. The sample eigenvalue leaves the bulk where ψ'(ℓ) > 0; overlap ℓ ψ'(ℓ)/ψ(ℓ);
    variance 2 q ℓ² ψ'(ℓ)/dim for Gaussian data. ``threshold`` is the ℓ > max H (or < min H) with
    ψ'(ℓ) = 0. Baik & Silverstein, J. Multivariate Anal. 97 (2006); Paul, Stat. Sinica 17 (2007);
    Bai & Yao, J. Multivariate Anal. 106 (2012).

    >>> covariance(3.0, 0.25).location
    3.375
    """
    check_positive("strength", strength, "a population eigenvalue")
    check_positive("ratio", ratio, "dim / samples")
    base = DiscreteMeasure([1.0], [1.0]) if population is None else population
    ell, q = float(strength), float(ratio)
    left, right = float(base.breakpoints[0]), float(base.breakpoints[-1])
    if left <= ell <= right:
        raise ValueError(
            f"strength {ell:g} lies within the population, {left:g} to {right:g}; "
            "it is not a spike there"
        )

    def rise(x: float) -> float:
        return 1 - q * float(base.integrate(lambda t: t**2 / (x - t) ** 2))

    def threshold() -> float:
        """Where ψ' changes sign: it increases with the distance from the population."""
        near, far = (right, 2 * right + 1) if ell > right else (left, 0.0)
        while ell > right and rise(far) < 0:
            far *= 2
        if ell < left and rise(0.0) < 0:
            return 0.0
        for _ in range(200):
            middle = (near + far) / 2
            near, far = (middle, far) if rise(middle) < 0 else (near, middle)
        return (near + far) / 2

    slope = rise(ell)
    if slope <= 0:
        return Spike(ell, None, 0.0, threshold(), float("nan"))
    location = ell * (1 + q * float(base.integrate(lambda t: t / (ell - t))))
    spread = float(np.sqrt(2 * q * slope)) * ell
    return Spike(ell, location, ell * slope / location, threshold(), spread)


def covariance_strength(
    location: float, ratio: float, *, population: SpectralMeasure | None = None
) -> float:
    """ℓ with ψ(ℓ) = λ: the population eigenvalue behind a sample eigenvalue outside the bulk.

    >>> round(covariance_strength(3.375, 0.25), 12)
    3.0
    """
    base = DiscreteMeasure([1.0], [1.0]) if population is None else population
    law = SampleCovariance(ratio, base)
    if any(left <= location <= right for left, right in law.support):
        raise ValueError(
            f"location {location:g} lies within the bulk {law.support}; "
            "only an outlier gives a population eigenvalue away"
        )
    return float(np.real(law.kernel.solve(location)))


def rectangular(strength: float, ratio: float, *, bulk: Law | None = None) -> Spike:
    """D(λ) = 1/θ²: the singular value of θ u vᵀ + X, u and v uniformly random unit vectors.

    X (dim, samples) with ratio c = dim/samples; ``bulk`` is the law of the eigenvalues t of X Xᵀ,
    default Marchenko–Pastur: independent entries of variance 1/samples. With φ(λ) = λ G(λ²) and
    φ̃ = c φ + (1 - c)/λ, D = φ φ̃; ``location`` is the singular value λ, ``overlap`` the left one,
    -2φ/(θ² D'), ``right_overlap`` -2φ̃/(θ² D'). Benaych-Georges & Nadakuditi 2012. The variance of
    λ is (φ̃² V + c φ² Ṽ + 4 c B/θ²)/D'² /dim, with V = 2(-λ²G' - φ²) and Ṽ likewise of the quadratic
    forms in u and v, and B = -λ²G' - G of the mixed one.

    >>> rectangular(2.0, 1.0).location
    2.5
    """
    check_positive("strength", strength, "the singular value of the rank-one part")
    check_positive("ratio", ratio, "dim / samples")
    law = MarchenkoPastur(ratio) if bulk is None else bulk
    theta, c = float(strength), float(ratio)
    end = float(law.support[-1][1])

    def transforms(t: float) -> tuple[float, float]:
        root, cauchy = float(np.sqrt(t)), float(-np.real(law.stieltjes(t)))
        return root * cauchy, c * root * cauchy + (1 - c) / root

    at_edge = float(np.prod(transforms(end)))
    threshold = at_edge**-0.5 if at_edge > 0 else 0.0
    if theta <= threshold:
        return Spike(theta, None, 0.0, threshold, float("nan"), 0.0)
    # D(t) <= 1/(t - end) and D decreases
    t = brentq(
        lambda t: theta**2 * float(np.prod(transforms(t))) - 1, end, 2 * end + 4 * theta**2,
        xtol=1e-300, rtol=4 * np.finfo(float).eps,
    )  # fmt: skip
    root = float(np.sqrt(t))
    left, right = transforms(t)
    cauchy = left / root
    if _at_end(t, end):
        return Spike(theta, root, 0.0, threshold, 0.0, 0.0)
    slope = _cauchy_slope(law, t, t - end)
    # dD/dλ with D = t G (c G + (1 - c)/t)
    rise = 2 * root * (c * cauchy**2 + 2 * c * t * cauchy * slope + (1 - c) * slope)
    overlaps = [-2 * phi / (theta**2 * rise) for phi in (left, right)]
    beside = c * slope - (1 - c) / t**2  # G̃' with G̃ = c G + (1 - c)/t, of the side samples
    forms = 2 * (-t * slope - left**2), 2 * (-t * beside - right**2)
    mixed = -t * slope - cauchy
    spread = right**2 * forms[0] + c * left**2 * forms[1] + 4 * c * mixed / theta**2
    fluctuation = float(np.sqrt(max(spread, 0.0)) / abs(rise))
    return Spike(theta, root, overlaps[0], threshold, fluctuation, overlaps[1])


def _cauchy_at_end(bulk: SpectralMeasure, end: float, right: bool) -> float:
    """G just outside the end of the bulk: infinite at an atom or where the density jumps."""
    width = float(bulk.breakpoints[-1] - bulk.breakpoints[0]) or abs(end) or 1.0
    if isinstance(bulk, Law) and bulk.support and end in (bulk.support[0][0], bulk.support[-1][1]):
        inward = -1e-8 * width if right else 1e-8 * width
        density = float(np.asarray(bulk.density(end + inward)))
        if density < 1e-2 / width:  # a density that vanishes at the edge leaves G finite
            return float(-np.real(bulk.stieltjes(end)))
    return float("inf") if right else float("-inf")


def _inverse(value: float) -> float:
    return 0.0 if np.isinf(value) else 1 / value


def _locate(bulk: SpectralMeasure, w: float, end: float) -> float:
    """λ outside the bulk with G(λ) = w: R(w) + 1/w; next to the edge, where R loses digits, a root.

    At an edge G falls as the root of the distance: within 1e-8 of its value there, λ is the edge.
    """
    if isinstance(bulk, Law):
        with np.errstate(divide="ignore", invalid="ignore"):
            below = float(np.real(bulk.stieltjes(end))) / -w - 1
        if below <= 1e-8:
            return end
        if below <= 1e-4:  # |G(λ)| <= 1/|λ - end|
            found = brentq(
                lambda x: float(np.real(bulk.stieltjes(x))) / -w - 1, end, end + 1 / w,
                xtol=1e-300, rtol=4 * np.finfo(float).eps,
            )  # fmt: skip
            return float(found)
        return float(np.real(bulk.r_transform(w))) + 1 / w
    return float(r_transform(bulk, w)) + 1 / w


def _at_end(location: float, end: float) -> bool:
    """Whether the outlier of a strength just above threshold is not to be told from the edge."""
    return bool(abs(location - end) <= 4 * np.finfo(float).eps * abs(location))


def _cauchy_slope(bulk: SpectralMeasure, x: float, distance: float) -> float:
    """G'(x) = -∫ dμ/(x - t)², by a complex step: Im m(x + ih)/h up to (h/distance)²."""
    step = 1e-7 * distance
    return float(-np.imag(bulk.stieltjes(complex(x, step))) / step)
