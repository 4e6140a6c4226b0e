"""The free multiplicative convolution μ ⊠ ν: the spectrum of A^(1/2) U B Uᵀ A^(1/2).

Derived in theory/free_convolution.md.
"""

from __future__ import annotations

from rmthess.free.boxplus import as_measure, point_mass, scaled, unit_of
from rmthess.free.convolution import FreeProduct
from rmthess.laws.fuss_catalan import FussCatalan
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.sample_covariance import SampleCovariance
from rmthess.measure import DiscreteMeasure, SpectralMeasure


def boxtimes(mu: SpectralMeasure, nu: SpectralMeasure) -> Law | DiscreteMeasure:
    """S(w) = S_μ(w) S_ν(w): the limit spectrum of A^(1/2) U B Uᵀ A^(1/2), U Haar orthogonal.

    One of the measures must live on [0, ∞). A Marchenko–Pastur factor makes a sample covariance
    law, Fuss–Catalan laws add their orders; the rest goes through two-variable subordination.
    Voiculescu, J. Operator Theory 18 (1987).

    >>> boxtimes(MarchenkoPastur(0.25, 2.0), DiscreteMeasure([1.0], [1.0]))
    MarchenkoPastur(ratio=0.25, variance=2.0)
    """
    mu, nu = as_measure(mu), as_measure(nu)
    lowest = [float(measure.breakpoints[0]) for measure in (mu, nu)]
    if max(lowest) < 0:
        raise ValueError(
            "one of the two measures must live on [0, ∞), else A^(1/2) is not real; "
            f"they begin at {lowest[0]:g} and {lowest[1]:g}"
        )
    for one, other in ((mu, nu), (nu, mu)):
        point = point_mass(one)
        if point is not None:
            return scaled(other, point)
    if isinstance(mu, FussCatalan) and isinstance(nu, FussCatalan):
        return FussCatalan(mu.order + nu.order)
    for one, other in ((mu, nu), (nu, mu)):
        if isinstance(one, MarchenkoPastur):
            return SampleCovariance(float(one.ratio), scaled(other, float(one.variance)))
    units = unit_of(mu), unit_of(nu)
    if units == (1.0, 1.0):
        return FreeProduct(mu, nu)
    product = FreeProduct(scaled(mu, 1 / units[0]), scaled(nu, 1 / units[1]))
    return product.dilate(units[0] * units[1])
