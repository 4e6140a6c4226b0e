"""Distances of spectral measures against SciPy, quantile integration and the axioms of a metric."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from battery import quadrature
from hypothesis import given, settings
from hypothesis import strategies as st

import rmthess as rm

ATOM_LAW = rm.MarchenkoPastur(1.7, 0.43)
LAWS = {
    "semicircle": rm.Semicircle(1.7, 0.43),
    "marchenko_pastur": rm.MarchenkoPastur(0.43, 1.7),
    "with_atom": ATOM_LAW,
    "reflected_with_atom": ATOM_LAW.dilate(-1.7),
    "hard_edge": rm.MarchenkoPastur(1, 1.7),
}
laws = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
METRICS = [rm.kolmogorov, rm.wasserstein, lambda mu, nu: rm.resolvent_distance(mu, nu, 0.5)]
metrics = pytest.mark.parametrize("metric", METRICS, ids=["kolmogorov", "wasserstein", "resolvent"])

atoms = st.lists(
    st.tuples(st.integers(-8, 8).map(float), st.floats(0.01, 1)), min_size=1, max_size=6
)


def measure_of(pairs):
    nodes, weights = np.array(pairs).T
    return rm.DiscreteMeasure(nodes, weights / weights.sum())


@given(atoms, atoms)
def test_discrete_distances_are_those_of_scipy(first, second):
    mu, nu = measure_of(first), measure_of(second)
    wanted = scipy.stats.wasserstein_distance(mu.nodes, nu.nodes, mu.weights, nu.weights)
    assert rm.wasserstein(mu, nu) == pytest.approx(wanted, abs=1e-13)
    everywhere = np.union1d(mu.nodes, nu.nodes)
    gap = np.abs(mu.cdf(everywhere) - nu.cdf(everywhere)).max()
    assert rm.kolmogorov(mu, nu) == pytest.approx(gap, abs=1e-15)


@pytest.mark.parametrize("law", [law for law in LAWS.values() if not law.atoms])
def test_the_kolmogorov_distance_to_a_sample_is_scipys_statistic(law):
    values = law.sample(50, np.random.default_rng(1)) + 0.05
    wanted = scipy.stats.kstest(values, law.cdf).statistic
    found = rm.kolmogorov(rm.DiscreteMeasure.from_eigenvalues(values), law)
    assert found == pytest.approx(wanted, abs=1e-14)


@laws
def test_wasserstein_is_the_distance_of_the_quantile_functions(law):
    """∫ |Q_mu - Q_nu| dp on 2e5 midpoints, whose error is the variation of Q over 4e5."""
    nu = rm.DiscreteMeasure([-0.3, 0.4, 1.9, 4.0], [0.2, 0.3, 0.4, 0.1])
    p = (np.arange(200_000) + 0.5) / 200_000
    wanted = np.mean(np.abs(law.quantile(p) - nu.quantile(p)))
    assert rm.wasserstein(law, nu) == pytest.approx(wanted, abs=5e-5)
    assert rm.wasserstein(nu, law) == pytest.approx(rm.wasserstein(law, nu), abs=1e-14)


@laws
def test_to_a_point_left_of_the_support_wasserstein_is_the_mean_distance(law):
    point = float(law.breakpoints[0]) - 1.3
    wanted = law.moment(1) - point
    assert rm.wasserstein(law, rm.DiscreteMeasure([point], [1.0])) == pytest.approx(wanted, 1e-12)
    assert rm.kolmogorov(law, rm.DiscreteMeasure([point], [1.0])) == pytest.approx(1, abs=1e-15)


@laws
def test_to_two_points_wasserstein_carries_the_lower_quantile_left(law):
    """Optimal transport to p δ_L + (1-p) δ_R: E[X - L; X < Q(p)] + E[R - X; X > Q(p)].

    The cdfs cross at Q(p), where |F - G| has a kink.
    """
    left, right = float(law.breakpoints[0]) - 0.2, float(law.breakpoints[-1]) + 0.1
    p = 0.83 if law is ATOM_LAW else 0.31  # beside the atom
    x, w = quadrature(law, upto=law.quantile(p))
    below = x @ w
    wanted = below - left * p + right * (1 - p) - (law.moment(1) - below)
    nu = rm.DiscreteMeasure([left, right], [p, 1 - p])
    assert rm.wasserstein(law, nu) == pytest.approx(wanted, abs=1e-12)


@laws
def test_wasserstein_of_a_shifted_law_is_the_shift(law):
    for c in (0.37, -2.9, 1e-3):
        assert rm.wasserstein(law, law.shift(c)) == pytest.approx(abs(c), rel=1e-6)


def test_wasserstein_resolves_an_edge_that_is_almost_hard():
    """Ratio near 1: the left edge is 1e-3 to 6e-6 of the width from the pole of the density."""
    for ratio in (0.9, 0.99, 1.01, 1.2):
        law = rm.MarchenkoPastur(ratio)
        assert rm.wasserstein(law, rm.DiscreteMeasure([-1.0], [1.0])) == pytest.approx(2, abs=1e-10)


def test_wasserstein_of_a_dilated_centred_law_is_its_mean_absolute_value():
    """W_1(X, sX) = |s - 1| E|X|, and E|X| = 8√v/(3π) for a semicircle."""
    law = rm.Semicircle(1.7)
    wanted = 0.43 * 8 * np.sqrt(1.7) / (3 * np.pi)
    assert rm.wasserstein(law, law.dilate(1.43)) == pytest.approx(wanted, rel=1e-9)


def test_kolmogorov_of_two_shifted_semicircles_is_reached_halfway():
    law = rm.Semicircle(1.7)
    for c in (0.01, 0.43, 3.0):
        wanted = 2 * law.cdf(c / 2) - 1
        assert rm.kolmogorov(law, law.shift(c)) == pytest.approx(wanted, abs=1e-12)


def test_kolmogorov_sees_an_atom_that_a_law_does_not_share():
    below = rm.MarchenkoPastur(0.99, 0.43)
    assert rm.kolmogorov(ATOM_LAW, below) >= ATOM_LAW.atoms[0][1] - 1e-9
    bare = rm.DiscreteMeasure([0.0], [1.0])
    assert rm.kolmogorov(ATOM_LAW, bare) == pytest.approx(1 / 1.7, abs=1e-14)


@metrics
@settings(max_examples=60, deadline=None)
@given(first=atoms, second=atoms, third=atoms)
def test_axioms_of_a_metric(metric, first, second, third):
    mu, nu, rho = measure_of(first), measure_of(second), measure_of(third)
    assert metric(mu, mu) == 0
    assert metric(mu, nu) == pytest.approx(metric(nu, mu), abs=1e-14)
    # each resolvent distance is a maximum on its own grid: 2% is the grid's share
    slack = 0.02 if metric is METRICS[2] else 0
    assert metric(mu, rho) <= (1 + slack) * (metric(mu, nu) + metric(nu, rho)) + 1e-13


@metrics
def test_distances_between_a_law_and_itself_vanish(metric):
    for law in LAWS.values():
        assert metric(law, law) <= 1e-15


@given(atoms, atoms, st.floats(-5, 5), st.floats(0.1, 10))
def test_wasserstein_scales_and_kolmogorov_does_not(first, second, offset, scale):
    mu, nu = measure_of(first), measure_of(second)
    moved = [rm.DiscreteMeasure(scale * m.nodes + offset, m.weights) for m in (mu, nu)]
    assert rm.wasserstein(*moved) == pytest.approx(scale * rm.wasserstein(mu, nu), abs=1e-12)
    assert rm.kolmogorov(*moved) == pytest.approx(rm.kolmogorov(mu, nu), abs=1e-14)


def test_a_lanczos_measure_is_compared_as_its_average():
    law = rm.MarchenkoPastur(0.43, 1.7)
    a, b = law.sample_jacobi(12, 300, np.random.default_rng(2), probes=3)
    mu = rm.LanczosMeasure(a, b, np.zeros(3), 300)
    for metric in METRICS:
        assert metric(mu, law) == pytest.approx(metric(mu.pooled, law), abs=1e-15)
    assert 0 < rm.wasserstein(mu, law) < mu.resolution


def test_the_resolvent_distance_of_two_points():
    """|m_mu - m_nu|/π for atoms at 0 and 1, on a grid twenty times finer: within 2%."""
    mu, nu = rm.DiscreteMeasure([0.0], [1.0]), rm.DiscreteMeasure([1.0], [1.0])
    for width in (0.02, 0.3, 4.0):
        z = np.linspace(-width, 1 + width, int(80 * (1 / width + 2)) + 1) + 1j * width
        wanted = np.abs(1 / (0 - z) - 1 / (1 - z)).max() / np.pi
        found = rm.resolvent_distance(mu, nu, width)
        assert 0.98 * wanted <= found <= wanted * (1 + 1e-3)


def test_an_empty_or_endless_resolution_is_refused():
    mu = rm.DiscreteMeasure([0.0, 1.0], [0.5, 0.5])
    for width in (0, -1, np.nan):
        with pytest.raises(ValueError, match=f"width must be positive, got {width}"):
            rm.resolvent_distance(mu, mu, width)
    with pytest.raises(ValueError, match=r"asks for .* points over a range of 1; take a larger"):
        rm.resolvent_distance(mu, mu, 1e-7)


def test_zeros_that_rounding_has_scattered_lie_at_the_atom_at_zero():
    """X^T X/n with n < dim: half of the exact zeros come out of eigvalsh slightly negative."""
    data = np.random.default_rng(17).standard_normal((120, 300))
    values = np.linalg.eigvalsh(data.T @ data / 120)
    assert (values < 0).sum() > 20
    law = rm.MarchenkoPastur(2.5)
    assert rm.kolmogorov(rm.DiscreteMeasure.from_eigenvalues(values), law) < 0.02
