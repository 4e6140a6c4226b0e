"""Hard edges keep their digits: closed forms and 60 digits, from 1e-6 to 1e-15 of the edge."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

import rmthess as rm
from rmthess.laws.compression import Compression
from rmthess.laws.sample_covariance import SampleCovariance

DISTANCES = 10.0 ** -np.arange(6, 16)
POPULATIONS = {
    "one": ([1.0], [1.0]),
    "three": ([1.0, 3.0, 10.0], [0.25, 0.25, 0.5]),
    "a small one": ([0.01, 1.7], [0.2, 0.8]),
}


def exact_density(x, q, t, w):
    """Im(-1/ω)/(π q), ω(1 + q Σ w t/(ω - t)) = x, by Newton's method from its leading order."""
    with mp.workdps(60):
        x, q, t, w = mp.mpf(x), mp.mpf(q), [*map(mp.mpf, t)], [*map(mp.mpf, w)]
        pairs = [(p / mp.fsum(w), s) for p, s in zip(w, t, strict=True)]
        bend = q * mp.fsum(p / s for p, s in pairs)  # (1 - q) ω - bend ω² = x, near 0
        omega = ((1 - q) + mp.sqrt((1 - q) ** 2 - 4 * bend * x)) / (2 * bend)
        for _ in range(12):
            value = omega * (1 + q * mp.fsum(p * s / (omega - s) for p, s in pairs)) - x
            omega -= value / (1 - q * mp.fsum(p * s**2 / (omega - s) ** 2 for p, s in pairs))
        return abs(mp.im(-1 / omega)) / (mp.pi * q)


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-10, 1 - 1e-6])
def test_a_hard_edge_has_relative_accuracy_at_any_distance(name, ratio):
    """The density is near 1/√x: 1e-14 of it, and 1e-12 where x - edge has lost two digits."""
    t, w = POPULATIONS[name]
    law = SampleCovariance(ratio, rm.DiscreteMeasure(t, w))
    for x in law.support[0][0] + DISTANCES:
        wanted = exact_density(x, ratio, t, w)
        assert abs(law.density(x) - wanted) <= 1e-12 * wanted
        if ratio == 1:
            assert abs(law.density(x) - wanted) <= 1e-14 * wanted


def test_the_hard_edge_of_marchenko_pastur_is_at_zero_exactly():
    law = SampleCovariance(1.0, rm.DiscreteMeasure([1.7], [1.0]))
    assert law.support[0][0] == 0.0
    x = np.concatenate([DISTANCES, [1e-30, 1e-200]])
    np.testing.assert_allclose(law.density(x), rm.MarchenkoPastur(1, 1.7).density(x), rtol=1e-14)
    z = DISTANCES * np.exp(1j * np.array([0.1, 2.0])[:, None])
    np.testing.assert_allclose(
        law.stieltjes(z), rm.MarchenkoPastur(1, 1.7).stieltjes(z), rtol=1e-13
    )


def test_the_edge_of_a_ratio_next_to_one_is_not_lost():
    """(1 - √q)² = 2.5e-21 at q = 1 + 1e-10."""
    ratio = 1 + 1e-10
    law = SampleCovariance(ratio, rm.DiscreteMeasure([1.0], [1.0]))
    assert law.support[0][0] == pytest.approx(((ratio - 1) / (1 + np.sqrt(ratio))) ** 2, rel=1e-12)


@pytest.mark.parametrize("place", [0.0, -1.0, 0.43])
def test_a_compressed_coin_is_the_arcsine_law_to_its_ends(place):
    """ρ = 1/(π√((x - a)(b - x))), also where neither end is 0; a = place, b = place + 2."""
    law = Compression(rm.DiscreteMeasure([place, place + 2.0], [0.5, 0.5]), 0.5)
    x = place + DISTANCES
    d = x - place  # the distances that the doubles have
    np.testing.assert_allclose(law.density(x) * np.pi * np.sqrt(d * (2 - d)), 1, rtol=1e-14)


def test_a_free_sum_of_jumps_has_its_hard_edge_where_the_drift_puts_it():
    """Marchenko–Pastur laws of ratio 2 and half the variance add to ratio 1."""
    half = rm.MarchenkoPastur(2.0, 0.5)
    law = rm.boxplus(half, half).shift(-1.0)
    assert law.support[0][0] == -1.0
    x = -1 + DISTANCES
    wanted = rm.MarchenkoPastur(1.0).density(x + 1.0)
    np.testing.assert_allclose(law.density(x), wanted, rtol=1e-13)
