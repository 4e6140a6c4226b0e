"""Edge constants: closed forms, Johnstone's scale, the curvature of the kernel, a matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

import rmthess as rm
from rmthess.edges import cusps, edges
from rmthess.free.boxplus import boxplus
from rmthess.free.convolution import FreeProduct, FreeSum
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.free_compound_poisson import LevyLaw
from rmthess.laws.sample_covariance import SampleCovariance

THREE = rm.DiscreteMeasure([1.0, 3.0, 10.0], np.full(3, 1 / 3))


def test_the_constant_of_a_semicircle_is_v_to_minus_three_quarters():
    """ρ = √(4v - x²)/(2πv) ~ (2/(2πv)) v^(1/4) √distance, so a = v^(-3/4)."""
    for variance in (0.43, 1.7):
        for edge in edges(rm.Semicircle(variance, 0.3)):
            assert edge.constant == pytest.approx(variance**-0.75, rel=1e-12)
            # (a dim)^(-2/3) = √v dim^(-2/3), Tracy and Widom's scale of the GOE
            assert edge.scale(1000) == pytest.approx(variance**0.5 * 1000 ** (-2 / 3), rel=1e-12)


@pytest.mark.parametrize(("ratio", "variance"), [(0.2, 1.7), (2.5, 0.43)])
def test_the_scale_of_marchenko_pastur_is_johnstone_s(ratio, variance):
    """σ = v (√n + √p)(1/√n + 1/√p)^(1/3)/n at the right edge, p = dim, n = samples = p/q."""
    dim = 1000
    n, p = np.sqrt(dim / ratio), np.sqrt(dim)
    wide = variance * (n + p) * (1 / n + 1 / p) ** (1 / 3) / n**2
    narrow = variance * abs(n - p) * abs(1 / n - 1 / p) ** (1 / 3) / n**2
    for law in (
        rm.MarchenkoPastur(ratio, variance),
        SampleCovariance(ratio, rm.DiscreteMeasure([variance], [1.0])),
    ):
        left, right = edges(law)
        assert right.scale(dim) == pytest.approx(wide, rel=1e-12)
        assert left.scale(dim) == pytest.approx(narrow, rel=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        SampleCovariance(0.3, THREE),
        DeformedWigner(THREE, 0.25),
        boxplus(rm.MarchenkoPastur(0.25), rm.MarchenkoPastur(0.5).dilate(-1)),
    ],
    ids=["sample_covariance", "deformed_wigner", "boxminus"],
)
def test_the_constant_follows_from_the_curvature_of_the_kernel(law):
    """ω - s ~ √(2 (z - edge)/K''(s)), times dm/dω."""
    kernel, found = law.kernel, edges(law)
    assert [edge.location for edge in found] == list(kernel.edges)
    for edge, s in zip(found, kernel.turning_points, strict=True):
        bend = 2 * np.sum(kernel.residues / (s - kernel.poles) ** 3)
        if isinstance(law, LevyLaw):
            slope = 1 / s**2  # m = -1/ω
        elif isinstance(law, SampleCovariance):
            slope = 1 / (law.ratio * s**2)  # q m = -1/ω + (1 - q)/z, and z does not move
        else:
            slope = 1 / law.variance  # v m = ω - z
        assert edge.constant == pytest.approx(slope * np.sqrt(2 / abs(bend)), rel=1e-12)
        inward = 1e-10 if edge.side == "left" else -1e-10
        density = law.density(edge.location + inward)
        assert np.pi * density == pytest.approx(edge.constant * 1e-5, rel=1e-4)
        assert edge.soft


def test_both_sides_of_every_interval_are_listed_from_left_to_right():
    found = edges(SampleCovariance(0.3, THREE))
    assert [edge.side for edge in found] == ["left", "right"] * 3
    assert [edge.location for edge in found] == sorted(edge.location for edge in found)


def test_a_hard_edge_and_a_cube_root_have_no_constant():
    hard, soft = edges(rm.MarchenkoPastur(1.0, 1.7))
    assert np.isnan(hard.constant)
    assert not hard.soft
    assert hard.scale(100) == 0.0
    assert hard.threshold(100, 0.01) == 0.0  # no eigenvalue of the bulk passes
    assert soft.soft
    cube, _ = edges(rm.FussCatalan(2))  # x^(-2/3)
    assert not cube.soft
    coin = rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
    for law in (SampleCovariance(1.0, THREE), rm.compress(coin, 0.5), rm.Arcsine(0.0, 1.0)):
        assert not edges(law)[0].soft


def test_an_edge_beside_a_narrow_gap_keeps_a_constant_of_its_own():
    """a grows as the gap closes: its 3/2-th power law ends in a cusp of cube roots."""
    constants = [
        edges(DeformedWigner(rm.DiscreteMeasure([-a, a], [0.5, 0.5])))[1].constant
        for a in (1.5, 1.1, 1.01)
    ]
    assert np.all(np.diff(constants) > 0)


def test_the_threshold_is_passed_as_often_as_it_says():
    """Side 200, one in ten: the finite-size shift of the quantile is of order dim^(-2/3)."""
    edge, rng, count = edges(rm.Semicircle(1.7))[1], np.random.default_rng(2), 400
    top = np.array([rm.Semicircle(1.7).sample(200, rng)[-1] for _ in range(count)])
    share = np.mean(top > edge.threshold(200, 0.1))
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / count)
    left = edges(rm.Semicircle(1.7))[0]
    assert left.threshold(200, 0.1) == pytest.approx(-edge.threshold(200, 0.1))


def test_where_a_gap_closes_the_density_is_a_cube_root():
    """Atoms -1, 0.3, 2: at v = 1/min Σ w/(s - t)² the gap between the first two just closes."""
    t, w = np.array([-1.0, 0.3, 2.0]), np.array([0.5, 0.3, 0.2])
    least = minimize_scalar(
        lambda s: w @ (1 / (s - t) ** 2), bounds=(-0.9, 0.2), method="bounded",
        options={"xatol": 1e-13},
    )  # fmt: skip
    critical = 1 / least.fun
    law = DeformedWigner(rm.DiscreteMeasure(t, w), critical)
    (point,) = cusps(law)
    assert point == pytest.approx(least.x + critical * float(w @ (1 / (least.x - t))), abs=1e-9)
    near, far = law.density(point + 1e-6), law.density(point + 8e-6)
    assert far / near == pytest.approx(2, rel=5e-3)
    for factor in (0.999, 1.001):
        assert cusps(DeformedWigner(rm.DiscreteMeasure(t, w), factor * critical)) == ()


MERGING = rm.DiscreteMeasure([-1.0, 0.3, 2.0], [0.5, 0.3, 0.2])


def critical_variance():
    """1/min Σ w/(s - t)² between the first two atoms of MERGING, and where they then touch."""
    t, w = MERGING.nodes, MERGING.weights
    s = brentq(lambda s: w @ (1 / (s - t) ** 3), -0.9, 0.2, xtol=1e-16)
    variance = 1 / float(w @ (1 / (s - t) ** 2))
    return variance, s + variance * float(w @ (1 / (s - t)))


def test_a_cusp_is_found_through_subordination_as_by_the_kernel():
    variance, point = critical_variance()
    for law in (
        DeformedWigner(MERGING, variance),
        FreeSum(MERGING, rm.Semicircle(variance)),
        FreeSum(rm.Semicircle(variance), MERGING),
    ):
        assert cusps(law) == pytest.approx((point,), abs=1e-13)
        assert cusps(law.dilate(-2.0).shift(0.3)) == pytest.approx((0.3 - 2 * point,), abs=1e-13)
        assert not any(a in law.cusps or b in law.cusps for a, b in law.support)
    apart = rm.mixture([law, rm.Semicircle(0.1, 9.0)], [0.5, 0.5])
    assert cusps(apart) == law.cusps
    assert cusps(rm.mixture([law, rm.Semicircle(4.0)], [0.5, 0.5])) == ()  # no zero of the density


@pytest.mark.parametrize("factor", [1 - 1e-6, 1 + 1e-6, 1 + 1e-9])
def test_a_density_that_is_only_small_is_no_cusp(factor):
    """1e-6 below there is a gap of 1e-9 of the width, above a density of 1e-3 and 1e-4."""
    variance, point = critical_variance()
    for law in (
        DeformedWigner(MERGING, factor * variance),
        FreeSum(MERGING, rm.Semicircle(factor * variance)),
    ):
        assert cusps(law) == ()
        assert len(law.support) == (3 if factor < 1 else 2)
        assert law.density(point) < 3e-3


def test_a_free_product_has_a_cusp_where_the_sample_covariance_law_has_one():
    """q = 1/min over u of ∫ (t u)²/(1 + t u)² between the poles -1, -1/10."""
    population = rm.DiscreteMeasure([1.0, 10.0], [0.5, 0.5])
    t, w = population.nodes, population.weights
    # K' = 1 - q Σ w t²/(ω - t)²: least where Σ w t²/(ω - t)³ = 0
    omega = brentq(lambda o: w @ (t**2 / (o - t) ** 3), 1.1, 9.0, xtol=1e-16)
    ratio = 1 / float(w @ (t**2 / (omega - t) ** 2))
    point = omega * (1 + ratio * float(w @ (t / (omega - t))))
    for law in (
        SampleCovariance(ratio, population),
        FreeProduct(rm.MarchenkoPastur(ratio), population),
    ):
        assert cusps(law) == pytest.approx((point,), abs=1e-12)


def test_laws_of_one_cut_and_generic_sums_have_no_cusp():
    coin = rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
    for law in (
        rm.Semicircle(), rm.MarchenkoPastur(0.3), rm.Wachter(0.3, 0.4), rm.FussCatalan(2),
        boxplus(coin, coin), boxplus(rm.Uniform(0.0, 1.0), rm.MarchenkoPastur(0.3)),
    ):  # fmt: skip
        assert cusps(law) == ()


def test_edges_of_an_affine_image_are_images():
    """ρ/√distance of c X is |c|^(-3/2) as large."""
    law = rm.MarchenkoPastur(0.3, 1.7)
    left, right = edges(law)
    mirrored = edges(law.dilate(-2.0).shift(1.0))
    assert [edge.side for edge in mirrored] == ["left", "right"]
    assert mirrored[0].location == 1 - 2 * right.location
    assert mirrored[0].constant == pytest.approx(right.constant / 2**1.5, rel=1e-15)
    assert mirrored[1].constant == pytest.approx(left.constant / 2**1.5, rel=1e-15)


def test_constants_of_a_free_sum_are_those_of_the_kernel():
    """Extrapolated from the density on the generic route, exact on the other."""
    variance = 0.25
    exact = edges(DeformedWigner(THREE, variance))
    found = edges(FreeSum(THREE, rm.Semicircle(variance)))
    for one, other in zip(found, exact, strict=True):
        assert one.constant == pytest.approx(other.constant, rel=1e-10)
