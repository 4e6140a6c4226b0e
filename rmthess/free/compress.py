"""Free compression of any measure (theory/compression.md)."""

from __future__ import annotations

import numpy as np

from rmthess.free.boxplus import as_measure, levy, point_mass
from rmthess.laws.compression import Compression
from rmthess.laws.free_compound_poisson import FreeLevy
from rmthess.laws.law import Law
from rmthess.laws.semicircle import Semicircle
from rmthess.measure import DiscreteMeasure, SpectralMeasure


def compress(mu: SpectralMeasure, fraction: float) -> Law | DiscreteMeasure:
    """R_α(w) = R_μ(α w), 0 < α <= 1: the spectrum of an α dim × α dim corner of U A Uᵀ.

    Equivalently the free power μ^(⊞ 1/α), dilated by α. Freely infinitely divisible laws compress
    in closed form, everything else through the rational kernel. Nica & Speicher, Amer. J. Math. 118
    (1996).

    >>> compress(Semicircle(2.0), 0.25)
    Semicircle(variance=0.5, mean=0)
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"fraction must lie in (0, 1], got {fraction}; it is the share of rows kept"
        )
    mu = as_measure(mu)
    if fraction == 1 or point_mass(mu) is not None:
        return mu
    if isinstance(mu, Semicircle):
        return Semicircle(mu.variance * fraction, mu.mean)
    triple = levy(mu)
    if triple is not None:
        drift, jumps, weights = triple
        total = float(np.sum(weights))
        return FreeLevy(drift, DiscreteMeasure(fraction * jumps, weights / total), fraction * total)
    return Compression(mu, fraction)
