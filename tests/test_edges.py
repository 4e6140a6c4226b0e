"""Edge constants: closed forms, Johnstone's scale, the curvature of the kernel, a matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import rmthess as rm
from rmthess.edges import cusps, edges
from rmthess.free.boxplus import boxplus
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.free_compound_poisson import LevyLaw
from rmthess.laws.sample_covariance import SampleCovariance

THREE = rm.DiscreteMeasure([1.0, 3.0, 10.0], np.full(3, 1 / 3))


def test_the_constant_of_a_semicircle_is_v_to_minus_three_quarters():
    """ρ = √(4v - x²)/(2πv) ~ (2/(2πv)) v^(1/4) √distance, so a = v^(-3/4)."""
    for variance in (0.43, 1.7):
        for edge in edges(rm.Semicircle(variance, 0.3)):
            assert edge.constant == pytest.approx(variance**-0.75, rel=1e-9)
            # (a dim)^(-2/3) = √v dim^(-2/3), Tracy and Widom's scale of the GOE
            assert edge.scale(1000) == pytest.approx(variance**0.5 * 1000 ** (-2 / 3), rel=1e-9)


@pytest.mark.parametrize(("ratio", "variance"), [(0.2, 1.7), (2.5, 0.43)])
def test_the_scale_of_marchenko_pastur_is_johnstone_s(ratio, variance):
    """σ = v (√n + √p)(1/√n + 1/√p)^(1/3)/n at the right edge, p = dim, n = samples = p/q."""
    dim = 1000
    n, p = np.sqrt(dim / ratio), np.sqrt(dim)
    left, right = edges(rm.MarchenkoPastur(ratio, variance))
    wanted = variance * (n + p) * (1 / n + 1 / p) ** (1 / 3) / n**2
    assert right.scale(dim) == pytest.approx(wanted, rel=1e-6)
    wanted = variance * abs(n - p) * abs(1 / n - 1 / p) ** (1 / 3) / n**2
    assert left.scale(dim) == pytest.approx(wanted, rel=1e-6)


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
        assert edge.constant == pytest.approx(slope * np.sqrt(2 / abs(bend)), rel=1e-5)
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


def test_cusps_of_what_has_no_kernel_are_not_guessed():
    coin = rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
    with pytest.raises(NotImplementedError, match="cusps of a FreeSum are not known here"):
        cusps(boxplus(coin, coin))
