"""Spectral measures: mass, cdf, quantile, pooled Gauss rules, errors, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rmthess as rm
from rmthess import jacobi

VALUES = [3.0, -1.0, 2.0, 2.0, 7.5]

weighted_atoms = st.lists(
    st.tuples(st.floats(-50, 50), st.floats(0.01, 1)), min_size=1, max_size=12
).map(lambda pairs: np.array(pairs).T)


def measure_of(pairs):
    nodes, weights = pairs
    return rm.DiscreteMeasure(nodes, weights / weights.sum())


def measured(matrix, steps, probes, seed=0):
    """The LanczosMeasure of a dense matrix by ``jacobi.chains``, with its true residuals."""
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(probes, len(matrix)))
    a, b = jacobi.chains(lambda v: v @ matrix, starts, steps + 1)
    residuals = np.nan_to_num(b[:, -1])
    return rm.LanczosMeasure(a[:, :-1], b[:, :-1], residuals, len(matrix))


def symmetric(dim, seed=0):
    x = np.random.default_rng(seed).normal(size=(dim, dim))
    return x + x.T


# ------------------------------------------------------------------- discrete


@given(weighted_atoms)
def test_the_cdf_counts_the_weight_at_or_left_of_a_point(pairs):
    mu = measure_of(pairs)
    for x in [*mu.nodes, *(mu.nodes + 1e-3), -60.0, 60.0]:
        assert mu.cdf(x) == pytest.approx(mu.weights[mu.nodes <= x].sum(), abs=1e-14)
    assert mu.cdf(mu.nodes[-1]) == 1
    assert mu.cdf(np.nextafter(mu.nodes[0], -np.inf)) == 0
    np.testing.assert_array_equal(mu.cdf([-np.inf, np.inf]), [0, 1])


@given(weighted_atoms, st.floats(0, 1))
def test_the_quantile_is_the_least_point_whose_cdf_reaches_p(pairs, p):
    mu = measure_of(pairs)
    x = mu.quantile(p)
    assert x in mu.nodes
    assert mu.cdf(x) >= p
    assert x == mu.nodes[0] or mu.cdf(np.nextafter(x, -np.inf)) < p
    np.testing.assert_array_equal(mu.quantile(mu.cdf(mu.nodes)), mu.nodes)
    np.testing.assert_array_equal(mu.quantile([0, 1]), mu.nodes[[0, -1]])


def test_a_list_of_eigenvalues_is_sorted_and_counts_one_each():
    mu = rm.DiscreteMeasure.from_eigenvalues(VALUES)
    np.testing.assert_array_equal(mu.nodes, sorted(VALUES))
    np.testing.assert_array_equal(mu.weights, np.full(5, 0.2))
    np.testing.assert_array_equal(mu.breakpoints, sorted(set(VALUES)))
    assert mu.dim == 5
    assert mu.resolution == 0
    assert mu.cdf(2.0) == pytest.approx(0.6)
    assert mu.cdf(np.nextafter(2.0, 0)) == pytest.approx(0.2)


def test_moments_transform_and_smoothed_density_are_sums_over_the_atoms():
    mu = rm.DiscreteMeasure([3.0, -1.0], [0.25, 0.75])
    assert [mu.moment(k) for k in range(4)] == [1.0, 0.0, 3.0, 6.0]
    z = np.array([[0.5 + 1j, 2.0], [1j, -3 - 1j]])
    np.testing.assert_allclose(mu.stieltjes(z), 0.25 / (3 - z) + 0.75 / (-1 - z), rtol=1e-15)
    assert mu.stieltjes(1j) == 0.25 / (3 - 1j) + 0.75 / (-1 - 1j)
    x = np.array([-1.0, 0.4])
    cauchy = [0.75 * 0.1 / ((x + 1) ** 2 + 0.01), 0.25 * 0.1 / ((x - 3) ** 2 + 0.01)]
    np.testing.assert_allclose(mu.smoothed_density(x, 0.1), sum(cauchy) / np.pi, rtol=1e-14)
    with pytest.raises(ValueError, match="order must be an integer of at least 0, got -1"):
        mu.moment(-1)


def test_shapes_and_nan_pass_through_a_discrete_measure():
    mu = rm.DiscreteMeasure.from_eigenvalues(VALUES)
    for method in (mu.cdf, mu.stieltjes):
        assert method(np.zeros((2, 0, 3))).shape == (2, 0, 3)
        assert np.ndim(method(1)) == 0
        assert np.isnan(method(np.nan))
        np.testing.assert_array_equal(np.isnan(method([np.nan, 1.5])), [True, False])
    assert mu.quantile(np.full((2, 3), 0.5)).shape == (2, 3)


def test_measures_are_frozen_and_keep_their_own_copy():
    nodes = np.array(VALUES)
    mu = rm.DiscreteMeasure.from_eigenvalues(nodes)
    nodes[:] = 0
    assert mu.nodes[-1] == 7.5
    with pytest.raises(ValueError, match="read-only"):
        mu.nodes[0] = 1
    with pytest.raises(AttributeError):
        mu.dim = 3


def test_a_window_conditions_the_measure_and_shrinks_the_matrix():
    mu = rm.DiscreteMeasure.from_eigenvalues(VALUES)
    inside = mu.restrict((2.0, 3.0))
    np.testing.assert_array_equal(inside.nodes, [2, 2, 3])
    np.testing.assert_allclose(inside.weights, np.full(3, 1 / 3), rtol=1e-15)
    assert inside.dim == 3
    assert rm.DiscreteMeasure([1.0], [1.0]).restrict((0, 2)).dim is None
    with pytest.raises(
        ValueError, match="window 8 to 9 holds no mass; the measure lies on -1 to 7"
    ):
        mu.restrict((8, 9))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([], []), "not empty"),
        (([1.0, 2.0], [1.0]), r"one length .* got shapes \(2,\) and \(1,\)"),
        (([[1.0]], [[1.0]]), "one-dimensional"),
        (([1.0, np.nan], [0.5, 0.5]), "must be finite, got 1 NaN or infinite"),
        (([1.0, np.inf], [np.nan, 0.5]), "must be finite, got 2 NaN or infinite"),
        (([1.0, 2.0], [1.5, -0.5]), "must not be negative, got -0.5"),
        (([1.0, 2.0], [0.5, 0.4]), r"must sum to 1, got 0.9; pass weights / weights.sum\(\)"),
        (([1.0], [1.0], 0), "dim must be an integer of at least 1, got 0"),
        (([1.0], [1.0], 2.5), "dim must be an integer of at least 1, got 2.5"),
        (([1.0], [1.0], True), "dim must be an integer of at least 1, got True"),
    ],
)
def test_a_bad_discrete_measure_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        rm.DiscreteMeasure(*arguments)


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], 3.0])
def test_eigenvalues_are_a_list_of_numbers(bad):
    with pytest.raises(ValueError, match=r"eigenvalues must have shape \(dim,\), dim > 0, got"):
        rm.DiscreteMeasure.from_eigenvalues(bad)


@pytest.mark.parametrize("p", [-0.1, 1.01, np.nan, [0.5, np.inf]])
def test_a_probability_lies_between_zero_and_one(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\], got values from"):
        rm.DiscreteMeasure([1.0], [1.0]).quantile(p)


# ------------------------------------------------------------------- Lanczos


def test_after_dim_steps_each_probe_holds_every_eigenvalue():
    matrix = symmetric(9)
    exact, vectors = np.linalg.eigh(matrix)
    mu = measured(matrix, 9, 3)
    starts = np.random.default_rng(0).normal(size=(3, 9))
    overlaps = (starts @ vectors) ** 2 / np.sum(starts**2, axis=1, keepdims=True)
    np.testing.assert_allclose(mu.nodes, np.tile(exact, (3, 1)), atol=1e-12)
    np.testing.assert_allclose(mu.weights, overlaps, atol=1e-12)
    assert mu.errors.max() < 1e-13  # no residual after the last step


def test_the_average_of_probes_has_mass_one_and_their_average_moments():
    matrix = symmetric(30)
    mu = measured(matrix, 5, 4)
    starts = np.random.default_rng(0).normal(size=(4, 30))
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    for order in range(10):  # 2 * 5 - 1
        power = np.linalg.matrix_power(matrix, order)
        wanted = np.mean([v @ power @ v for v in starts])
        assert abs(mu.moment(order) - wanted) <= 1e-12 * np.linalg.norm(power, 2)
    np.testing.assert_allclose(mu.weights.sum(axis=1), np.ones(4), atol=1e-14)
    assert mu.cdf(np.nanmax(mu.nodes)) == 1
    assert (mu.probes, mu.steps, mu.dim) == (4, 5, 30)
    assert mu.resolution == pytest.approx(np.ptp(mu.nodes) / 5)


def test_pooled_jacobi_coefficients_reproduce_the_moments_of_the_average():
    mu = measured(symmetric(30), 5, 4)
    a, b = mu.jacobi()
    assert a.shape == (5,)
    nodes, weights = jacobi.gauss_quadrature(a, b)
    scale = np.abs(mu.nodes).max()
    for order in range(10):
        assert abs(nodes**order @ weights - mu.moment(order)) <= 1e-13 * scale**order
    assert mu.jacobi(3)[0] == pytest.approx(a[:3])
    # one probe: its own coefficients
    one = measured(symmetric(30), 5, 1)
    np.testing.assert_allclose(one.jacobi()[0], one.diagonals[0], atol=1e-11)
    np.testing.assert_allclose(one.jacobi()[1], one.off_diagonals[0], atol=1e-11)


def test_the_cdf_of_the_average_is_the_average_of_the_cdfs():
    mu = measured(symmetric(30), 5, 4)
    x = np.sort(np.concatenate([mu.nodes.ravel(), np.linspace(-20, 20, 37)]))
    each = [rule.cdf(x) for rule in mu.quadratures()]
    np.testing.assert_allclose(mu.cdf(x), np.mean(each, axis=0), atol=1e-14)
    z = 0.3 + 0.2j
    wanted = np.mean([rule.stieltjes(z) for rule in mu.quadratures()])
    assert mu.stieltjes(z) == pytest.approx(wanted, rel=1e-13)
    assert mu.quantile(0.5) in mu.nodes
    np.testing.assert_array_equal(mu.breakpoints, np.unique(mu.nodes))


def test_each_error_bound_holds_an_eigenvalue():
    matrix = symmetric(80)
    mu = measured(matrix, 25, 3)
    distance = np.abs(mu.nodes[..., None] - np.linalg.eigvalsh(matrix)).min(axis=-1)
    assert np.all(distance <= mu.errors + 1e-12)
    assert np.median(distance / mu.errors) > 1e-6  # a bound of any use


def test_the_standard_error_is_that_of_a_mean_over_probes():
    mu = rm.LanczosMeasure([[0.0], [1.0], [5.0]], np.zeros((3, 0)), [0, 0, 0], dim=9)
    wanted = np.std([0, 1, 5], ddof=1) / np.sqrt(3)
    assert mu.standard_error(lambda rule: rule.moment(1)) == pytest.approx(wanted, rel=1e-15)
    both = mu.standard_error(lambda rule: [rule.moment(0), rule.moment(1)])
    np.testing.assert_allclose(both, [0, wanted], atol=1e-15)
    one = rm.LanczosMeasure([[2.0]], [[]], [0], dim=9)
    assert np.isnan(one.standard_error(lambda rule: rule.moment(1)))


def test_the_trace_lies_within_the_standard_errors_that_it_should():
    """Of 200 runs of 6 probes, |z| < 1.96 should hold for 1 - 2 P(t_5 > 1.96) = 89%."""
    matrix = symmetric(40, seed=1)
    inside = 0
    for seed in range(200):
        mu = measured(matrix, 2, 6, seed)
        error = mu.standard_error(lambda rule: rule.moment(1))
        inside += abs(mu.moment(1) - np.trace(matrix) / 40) < 1.96 * error
    assert 165 <= inside <= 190  # 178 ± 3 × 4.4


def test_entries_after_a_breakdown_are_nan_and_carry_no_mass():
    projector = np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    mu = measured(projector, 5, 2)
    assert np.isnan(mu.nodes[:, 2:]).all()
    assert np.isnan(mu.weights[:, 2:]).all()
    assert np.isnan(mu.errors[:, 2:]).all()
    np.testing.assert_allclose(mu.nodes[:, :2], [[0, 1], [0, 1]], atol=1e-14)
    assert mu.moment(0) == pytest.approx(1, abs=1e-14)
    assert [rule.nodes.size for rule in mu.quadratures()] == [2, 2]
    assert mu.cdf(0.5) == pytest.approx(mu.weights[:, 0].mean())
    assert mu.dim == 7
    for array in (mu.nodes, mu.weights, mu.errors, mu.diagonals):
        assert not array.flags.writeable


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([0.0, 0.0], [1.0], 0.0, 5), r"diagonals must have shape \(probes, steps\)"),
        (([[0.0, 0.0]], [[1.0, 1.0]], [0.0], 5), r"got \(1, 2\) and \(1, 2\)"),
        ((np.zeros((0, 3)), np.zeros((0, 2)), [], 5), r"got \(0, 3\)"),
        ((np.zeros((2, 0)), np.zeros((2, 0)), [0, 0], 5), r"got \(2, 0\)"),
        (([[0.0]], [[]], [0.0, 0.0], 5), "residuals must be 1 finite numbers"),
        (([[0.0]], [[]], [-1.0], 5), "that are not negative"),
        (([[0.0]], [[]], [np.nan], 5), "residuals must be 1 finite numbers"),
        (([[np.nan]], [[]], [0.0], 5), "probe 0 has coefficients that are not finite"),
        (([[0.0, 1.0], [0.0, np.inf]], [[1.0], [1.0]], [0, 0], 5), "probe 1 has .* step 2"),
        (([[0.0, 1.0]], [[-1.0]], [0.0], 5), "not positive off the diagonal"),
        (([[0.0, 1.0]], [[np.nan]], [0.0], 5), "only the rest after a breakdown may be NaN"),
        (([[0.0, np.nan, 1.0]], [[1.0, 1.0]], [0.0], 5), "before step 3"),
        (([[0.0]], [[]], [0.0], 0), "dim must be an integer of at least 1, got 0"),
        (([[0.0]], [[]], [0.0], None), "dim must be an integer of at least 1, got None"),
    ],
)
def test_a_bad_lanczos_measure_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        rm.LanczosMeasure(*arguments)


def test_a_rule_needs_at_least_one_step_of_jacobi():
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        measured(symmetric(5), 2, 1).jacobi(0)
