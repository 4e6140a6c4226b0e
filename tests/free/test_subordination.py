"""The subordination system itself: certificate, residual, gaps, the whole upper half-plane."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import rmthess as rm
from rmthess.free.continuation import Continuation
from rmthess.free.convolution import FreeProduct, FreeSum
from rmthess.free.excess import excess
from rmthess.laws.uniform import Uniform

ATOMS = rm.DiscreteMeasure([-2.0, 0.0, 3.0], [0.25, 0.5, 0.25])
POSITIVE = rm.DiscreteMeasure([0.4, 1.3, 4.1], [0.2, 0.5, 0.3])
SUMS = {
    "smooth": FreeSum(rm.MarchenkoPastur(0.43, 1.7), rm.MarchenkoPastur(0.7, 0.4)),
    "hard_edge": FreeSum(rm.MarchenkoPastur(1.0, 1.7), Uniform(-0.4, 1.1)),
    "atom_and_law": FreeSum(ATOMS, rm.MarchenkoPastur(1.7, 0.03)),
    "atoms": FreeSum(ATOMS, POSITIVE),
}
PRODUCTS = {
    "smooth": FreeProduct(rm.MarchenkoPastur(0.43, 1.7), Uniform(0.3, 1.1)),
    "signed": FreeProduct(rm.MarchenkoPastur(0.43, 1.7), Uniform(-0.8, 1.1)),
    "centred": FreeProduct(POSITIVE, rm.Semicircle(0.3)),
    "atoms": FreeProduct(POSITIVE, ATOMS),
    "projection": FreeProduct(
        rm.DiscreteMeasure([0.0, 1.0], [0.3, 0.7]), rm.DiscreteMeasure([0.5, 2.0], [0.6, 0.4])
    ),
}
LAWS = {f"sum_{k}": v for k, v in SUMS.items()} | {f"product_{k}": v for k, v in PRODUCTS.items()}
each_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def inverse_transform(measure, w):
    return -1 / measure.stieltjes(w)


def inner(law, count=400):
    turn = np.linspace(0, np.pi / 2, count + 2)[1:-1]
    return np.concatenate([a + (b - a) * np.sin(turn) ** 2 for a, b in law.support])


@pytest.mark.parametrize("law", SUMS.values(), ids=SUMS)
def test_a_sum_has_the_transform_of_its_terms_at_shifted_points(law):
    """F(z) = F₁(w₁) = F₂(w₂) = w₁ + w₂ - z, from the terms' own Stieltjes transforms."""
    z = np.concatenate([inner(law) + 0j, inner(law) + 0.03j, 1e3 * inner(law) + 1j])
    w1, w2 = law.subordination.solve(z)
    level = w1 + w2 - z
    scale = np.abs(z) + law.subordination.width
    assert np.all(np.abs(inverse_transform(law.left, w1) - level) <= 1e-11 * scale)
    assert np.all(np.abs(inverse_transform(law.right, w2) - level) <= 1e-11 * scale)
    assert np.all(w1.imag >= z.imag - 1e-12 * scale)
    assert np.all(w2.imag >= z.imag - 1e-12 * scale)
    assert np.all(w1.imag > 0)


@pytest.mark.parametrize("law", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_has_the_transform_of_its_terms_at_shifted_points(law):
    """zG(z) = w₁G₁(w₁) = w₂G₂(w₂) = E/(E - 1) with E = w₁w₂/z."""
    z = np.concatenate([inner(law) + 0j, inner(law) + 0.03j])
    w1, w2 = law.subordination.solve(z)
    level = w1 * w2 / z
    wanted = level / (level - 1)
    first, second = law.left, law.right
    scale = 1e-10 * np.maximum(1, np.abs(wanted)) ** 2
    assert np.all(np.abs(-w1 * first.stieltjes(w1) - wanted) <= scale)
    assert np.all(np.abs(-w2 * second.stieltjes(w2) - wanted) <= scale)
    assert np.all(w2.imag > 0)


@each_law
def test_a_gap_is_certified_by_an_attracting_real_solution(law):
    """In a gap w₁ and w₂ are real and B₁'B₂' < 1."""
    edges = law.subordination.edges
    ends = np.concatenate([[edges[0] - 1.0], edges, [edges[-1] + 1.0]])
    gaps = [(a, b) for a, b in ends.reshape(-1, 2) if b > a]
    places = {location for location, _ in law.atoms} | {0.0}
    x = np.concatenate([a + (b - a) * np.array([0.01, 0.37, 0.71, 0.99]) for a, b in gaps])
    x = np.array([p for p in x if min(abs(p - q) for q in places) > 1e-6])
    w1, w2 = law.subordination.solve(x)
    assert np.all(np.abs(w2.imag) <= 1e-7 * (1 + np.abs(w2)))
    equations = law.subordination.equations
    with np.errstate(all="ignore"):
        slope1 = equations.map(equations.first, w1, x)[1]
        slope2 = equations.map(equations.second, w2, x)[1]
    assert np.all((slope1 * slope2).real < 1)


@each_law
def test_an_edge_is_where_a_gap_stops_being_attracting(law):
    """The density is positive on one side of every edge and 0 on the other, 1e-9 widths away."""
    step = 1e-9 * law.subordination.width
    for left, right in law.support:
        assert law.density(left + step) > 0
        assert law.density(right - step) > 0
        for outside in (left - step, right + step):
            if not any(a < outside < b for a, b in law.support):
                assert law.density(outside) == 0
                assert abs(law.stieltjes(outside).imag) < 1e-7


@each_law
def test_twenty_thousand_points_have_no_nan_and_no_warning(law):
    left, right = law.breakpoints[[0, -1]]
    margin = 0.1 * (right - left)
    x = np.linspace(left - margin, right + margin, 20001)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        density, m = law.density(x), law.stieltjes(x)
    assert not np.isnan(density).any()
    assert not np.isnan(m).any()
    assert np.all(m.imag >= -1e-9)


@each_law
def test_no_point_just_outside_an_edge_is_lost(law):
    """From 2 roundings of the width to 1e-6 of it; the certified root has a real neighbour there.

    The edge itself is known to a few roundings, whose square root is the bound on Im m.
    """
    width = law.subordination.width
    depth = np.concatenate([np.arange(2, 60) * 2.0**-52, np.logspace(-13.9, -6, 60)]) * width
    edges = np.array(law.subordination.edges)
    for k, edge in enumerate(edges):
        x = edge + (1 if k % 2 else -1) * depth
        x = x[np.searchsorted(edges, x, side="right") % 2 == 0]
        m = law.stieltjes(x)  # a warning is an error here
        assert np.all(np.abs(m.imag) <= 1e-6 * np.abs(m).max())


@pytest.mark.parametrize("opening", [1e-2, 1e-4, 1e-6, -1e-6, -1e-4, -1e-2])
def test_gaps_down_to_a_millionth_of_the_width_are_found_and_none_is_invented(opening):
    """Atoms ±1 in a semicircle of variance v = 1 - ε: a gap if ε > 0, its edges in closed form.

    K(ω) = ω + v ω/(ω² - 1) is the kernel of this law; its edges are at K' = 0.
    """
    width = 5.2
    # the gap of this family has the width 4 ε^{3/2}/√27, to leading order
    epsilon = np.sign(opening) * (abs(opening) * width * np.sqrt(27) / 4) ** (2 / 3)
    v = 1 - epsilon
    law = FreeSum(rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5]), rm.Semicircle(v))
    # K' = 1 - v (s + 1)/(s - 1)² = 0 with s = ω²
    inside, outside = (2 + v) / 2 + np.array([-1, 1]) * np.sqrt((2 + v) ** 2 / 4 - (1 - v))
    turns = np.sqrt([s for s in (inside, outside) if s > 0])
    wanted = sorted(abs(w + v * w / (w**2 - 1)) for w in turns)
    assert len(law.support) == (2 if epsilon > 0 else 1)
    found = sorted({round(abs(x), 15) for interval in law.support for x in interval})
    assert law.support[-1][1] == pytest.approx(wanted[-1], abs=1e-13)
    if epsilon > 0:
        assert law.support[1][0] == pytest.approx(wanted[0], abs=1e-12)
        assert law.support[0][1] == pytest.approx(-wanted[0], abs=1e-12)
        assert 2 * wanted[0] / width == pytest.approx(opening, rel=0.3)
    assert len(found) <= 4
    x = np.concatenate([np.linspace(-3, 3, 10001), np.linspace(-1e-5, 1e-5, 10000)])
    assert not np.isnan(law.density(x)).any()


def test_a_gap_of_a_narrow_level_range_splits_the_mass_exactly():
    """The gap is 3.5e-5 of the width; the atom of the second law has the mass on its left."""
    law = FreeSum(Uniform(-1.0, 1.5), rm.MarchenkoPastur(3.3, 1.0332452592593515))
    (_, left), (right, _) = law.support
    assert right - left == pytest.approx(3.334e-4, rel=1e-3)
    assert law.cdf((left + right) / 2) == pytest.approx(1 - 1 / 3.3, abs=1e-9)


def test_a_real_root_inside_the_support_is_not_taken_for_the_solution():
    """Here Newton's method also finds a real root, a repelling one: the density is not 0."""
    one = rm.DiscreteMeasure([0.08, 0.26, 0.54, 0.82], [0.16, 0.74, 0.09, 0.01])
    two = rm.DiscreteMeasure([0.0, 0.08, 0.14, 1.23], [0.05, 0.15, 0.13, 0.67])
    law = FreeProduct(one, two)
    for left, right in law.support:
        turn = np.linspace(0, np.pi / 2, 20001)[1:-1]
        assert law.density(left + (right - left) * np.sin(turn) ** 2).min() > 0


def test_a_cusp_is_one_interval_and_the_density_vanishes_there():
    law = FreeSum(rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5]), rm.Semicircle(1.0))
    assert len(law.support) == 1
    np.testing.assert_allclose(law.support[0], np.array([-1, 1]) * 1.5 * np.sqrt(3), atol=1e-13)
    x = np.concatenate([np.linspace(-2.7, 2.7, 10001), np.linspace(-1e-6, 1e-6, 10001)])
    density = law.density(x)
    assert not np.isnan(density).any()
    assert law.density(0.0) == pytest.approx(0.0, abs=1e-6)
    # K(ω) = x with K''' the first derivative left: ρ = √3/(2π) |x|^{1/3} to leading order
    x = 10.0 ** np.array([-6.0, -4.0])
    np.testing.assert_allclose(law.density(x), np.sqrt(3) / (2 * np.pi) * x ** (1 / 3), rtol=2e-2)


def test_points_in_the_lower_half_plane_are_conjugates():
    for law in LAWS.values():
        z = 0.3 + law.subordination.width * np.array([0.2 + 0.1j, -0.4 + 1e-3j, 3.0 + 1j])
        np.testing.assert_allclose(law.stieltjes(z.conj()), law.stieltjes(z).conj(), rtol=1e-14)


def test_the_transform_keeps_its_digits_at_infinity():
    for law in LAWS.values():
        z = law.subordination.width * np.outer([1e4, 1e12], np.exp(1j * np.array([0.2, 1.6, 3.0])))
        series = -sum(law.moment(k) / z ** (k + 1) for k in range(5))
        np.testing.assert_allclose(law.stieltjes(z), series, rtol=1e-13)


def test_excess_of_atoms_and_of_a_law_agree_with_one_over_g():
    for measure in (ATOMS, rm.MarchenkoPastur(1.7, 0.43), Uniform(-0.3, 1.2)):
        term = excess(measure)
        w = np.array([0.31 + 0.2j, -5.0 + 1j, 40.0 + 3j])
        value, slope = term.both(w)
        np.testing.assert_allclose(value, -1 / measure.stieltjes(w) - w, atol=1e-13)
        step = 1e-5
        ahead, behind = (term.both(w + sign * step)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=2e-5)
        far = np.array([1e9 + 1e9j])
        assert term.both(far)[0][0] == pytest.approx(-term.mean, abs=1e-8)


def test_a_failure_is_nan_and_one_warning(monkeypatch):
    law = FreeSum(rm.MarchenkoPastur(0.43, 1.7), Uniform(-0.4, 1.1))
    left, right = law.support[0]
    assert law.density((left + right) / 2) > 0
    monkeypatch.setattr(
        Continuation,
        "newton",
        lambda self, z, w1, w2, rounds: (w1, w2, np.zeros(z.shape, bool), np.array([w1, w2])),
    )
    with pytest.warns(UserWarning, match="no certified solution at 3 of 3 points") as caught:
        density = law.density(left + (right - left) * np.array([0.2, 0.5, 0.7]))
    assert np.isnan(density).all()
    assert len(caught) == 1


def test_a_convolution_with_one_atom_is_refused():
    with pytest.raises(ValueError, match="one atom; a convolution with it is a shift"):
        excess(rm.DiscreteMeasure([2.0], [1.0]))
