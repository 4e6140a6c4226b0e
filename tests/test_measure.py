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


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_truncated_run_is_the_shorter_run(steps):
    matrix = symmetric(30)
    long, short = measured(matrix, 5, 3), measured(matrix, steps, 3)
    cut = long.truncate(steps)
    for name in ("diagonals", "off_diagonals", "residuals"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(short, name))
    assert long.truncate(5) is long
    with pytest.raises(ValueError, match="steps must be at most 5, got 6; measure more steps"):
        long.truncate(6)


def test_a_probe_that_had_broken_down_stays_exact_when_truncated():
    projector = np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    cut = measured(projector, 5, 2).truncate(3)
    assert cut.residuals.tolist() == [0, 0]
    np.testing.assert_allclose(cut.nodes[:, :2], [[0, 1], [0, 1]], atol=1e-14)


def test_moments_are_refused_from_the_order_at_which_they_fall_short():
    matrix = symmetric(30)
    mu = measured(matrix, 3, 2)
    assert np.isfinite(mu.moment(5))
    with pytest.raises(ValueError, match="3 steps know moments up to order 5, got 6"):
        mu.moment(6)
    exact = measured(np.diag([1.0, 1.0, 2.0]), 2, 1)  # broke down: every moment is known
    assert exact.moment(40) == pytest.approx(exact.weights[0] @ [1, 2.0**40], rel=1e-12)


def test_the_tail_is_read_from_the_average_up_to_the_first_breakdown():
    law = rm.MarchenkoPastur(0.43, 1.7)
    a, b = law.sample_jacobi(30, 4000, np.random.default_rng(3), probes=6)
    a[0, 20:], b[0, 19:] = np.nan, np.nan
    found = rm.LanczosMeasure(a, b, np.zeros(6), 4000).tail()
    assert found == jacobi.tail(a[:, :20].mean(axis=0), b[:, :19].mean(axis=0))
    np.testing.assert_allclose(found.edges, law.support[0], atol=0.03 * np.ptp(law.support[0]))


# ------------------------------------------------------------------- deflation


OUTLIERS = [30.0, -20.0]


def deflated_measure(steps=5, probes=4):
    """A matrix of side 30 with two known eigenvalues, and the measure of the other 28."""
    bulk = symmetric(28)
    rules = measured(bulk, steps, probes)
    mu = rm.LanczosMeasure(
        rules.diagonals, rules.off_diagonals, rules.residuals, 30, {"seed": 0}, OUTLIERS
    )
    return mu, rules, bulk


def test_rules_and_errors_speak_of_the_complement_and_functionals_of_the_whole():
    mu, rules, _ = deflated_measure()
    np.testing.assert_array_equal(mu.nodes, rules.nodes)
    np.testing.assert_array_equal(mu.weights, rules.weights)
    assert (mu.errors >= rules.errors).all()  # products are rounded at the size of the outliers
    np.testing.assert_array_equal(mu.deflated, sorted(OUTLIERS))
    for order in range(10):
        power = 30.0**order + (-20.0) ** order
        wanted = (28 * rules.moment(order) + power) / 30
        assert mu.moment(order) == pytest.approx(wanted, rel=1e-12)
    x = np.concatenate([np.linspace(-25, 35, 61), mu.breakpoints])
    below = (x[:, None] >= sorted(OUTLIERS)).sum(axis=1)
    np.testing.assert_allclose(mu.cdf(x), (28 * rules.cdf(x) + below) / 30, atol=1e-14)
    z = 0.3 + 0.2j
    poles = 1 / (30 - z) + 1 / (-20 - z)
    assert mu.stieltjes(z) == pytest.approx((28 * rules.stieltjes(z) + poles) / 30, rel=1e-13)
    assert mu.integrate(np.exp) == pytest.approx(
        (28 * rules.integrate(np.exp) + np.exp(30) + np.exp(-20)) / 30, rel=1e-13
    )
    np.testing.assert_array_equal(mu.quantile([0, 1 / 30 + 1e-9, 1]), [-20, np.min(mu.nodes), 30])
    assert mu.resolution == rules.resolution
    assert mu.restrict((25, 35)).nodes.tolist() == [30.0]
    assert mu.restrict((25, 35)).dim == 1
    assert mu.pooled.dim == 30
    assert mu.pooled.nodes.size == 4 * 5 + 2


def test_the_bulk_is_the_measure_of_the_complement_alone():
    mu, rules, _ = deflated_measure()
    assert mu.bulk.dim == 28
    assert mu.bulk.deflated.size == 0
    assert mu.bulk.moment(3) == rules.moment(3)
    np.testing.assert_allclose(mu.bulk.errors, mu.errors, rtol=1e-2)  # the rounding is the whole's
    assert mu.bulk.provenance == {"seed": 0, "removed": sorted(OUTLIERS)}
    assert mu.bulk.bulk is mu.bulk
    assert rules.bulk is rules
    assert mu.truncate(2).bulk.moment(3) == pytest.approx(rules.moment(3), rel=1e-12)
    assert mu.tail() == mu.bulk.tail()


def test_deflated_eigenvalues_have_no_noise():
    """The variance of one probe's mean is 2/(n + 2) Var over the n eigenvalues that it sees.

    From 400 probes a standard error is known to 1/√800 = 3.5%.
    """
    mu, _, bulk = deflated_measure(steps=1, probes=400)
    values = np.linalg.eigvalsh(bulk)
    plain = measured(np.diag([*values, *OUTLIERS]), 1, 400)
    with_outliers = 2 / 32 * np.var([*values, *OUTLIERS]) / 400
    without = (28 / 30) ** 2 * 2 / 30 * np.var(values) / 400
    for found, wanted in ((plain, with_outliers), (mu, without)):
        error = found.standard_error(lambda rule: rule.moment(1))
        assert error == pytest.approx(np.sqrt(wanted), rel=0.12)
    assert with_outliers > 1.2 * without


@pytest.mark.parametrize(
    ("deflated", "sentence"),
    [
        (3.0, r"deflated must be a list .* got 1 of shape \(\)"),
        ([[1.0]], r"got 1 of shape \(1, 1\)"),
        ([1.0, np.nan], "finite eigenvalues"),
        ([1.0, 2.0, 3.0], "fewer than dim = 3 finite eigenvalues, got 3"),
    ],
)
def test_deflated_eigenvalues_are_a_short_list_of_numbers(deflated, sentence):
    with pytest.raises(ValueError, match=sentence):
        rm.LanczosMeasure([[0.0]], [[]], [0.5], 3, deflated=deflated)


# ------------------------------------------------------------------- bounds on the cdf


def test_the_bounds_hold_the_cdf_of_each_start_vector_and_of_all_together():
    matrix = symmetric(40, seed=3)
    values, vectors = np.linalg.eigh(matrix)
    mu = measured(matrix, 8, 3)
    starts = np.random.default_rng(0).normal(size=(3, 40))
    overlaps = (starts @ vectors) ** 2 / np.sum(starts**2, axis=1, keepdims=True)
    exact = rm.DiscreteMeasure(values, overlaps.mean(axis=0))
    x = np.concatenate([np.linspace(-20, 20, 101), values, mu.nodes.ravel()])
    lower, upper = mu.cdf_bounds(x)
    assert np.all(lower <= exact.cdf(x) + 1e-13)
    assert np.all(exact.cdf(x) <= upper + 1e-13)
    assert np.all(lower <= mu.cdf(x) + 1e-13)
    assert np.all(mu.cdf(x) <= upper + 1e-13)
    more = mu.truncate(5).cdf_bounds(x)  # and more steps close it
    assert np.all(more[0] <= lower + 1e-13)
    assert np.all(upper <= more[1] + 1e-13)
    assert mu.cdf_bounds(0.3)[0].shape == ()
    assert [bound.shape for bound in mu.cdf_bounds(np.zeros((2, 0)))] == [(2, 0), (2, 0)]
    assert np.isnan(mu.cdf_bounds(np.nan)).all()
    np.testing.assert_array_equal(mu.cdf_bounds([-np.inf, np.inf]), [[0, 1], [0, 1]])


def test_deflated_eigenvalues_count_exactly_in_the_bounds():
    mu, rules, _ = deflated_measure()
    x = np.array([-25.0, -15.0, 0.3, 20.0, 31.0])
    below = np.array([0, 1, 1, 1, 2])
    for found, wanted in zip(mu.cdf_bounds(x), rules.cdf_bounds(x), strict=True):
        np.testing.assert_allclose(found, (28 * wanted + below) / 30, atol=1e-12)
    lower, upper = mu.cdf_bounds([-20.0, 30.0])  # at one of them: it may lie on either side
    np.testing.assert_allclose(upper - lower, [1 / 30, 1 / 30], atol=1e-3)


def test_a_breakdown_leaves_the_bounds_open_at_the_atoms_only():
    mu = measured(np.diag([1.0, 1.0, 1.0, 0.0, 0.0]), 4, 1)
    lower, upper = mu.cdf_bounds([-0.1, 0.0, 0.5, 1.0, 1.1])
    w = mu.weights[0, 0]
    np.testing.assert_allclose(lower, [0, 0, w, w, 1], atol=1e-14)
    np.testing.assert_allclose(upper, [0, w, w, 1, 1], atol=1e-14)


def test_an_atom_that_rounding_moved_is_on_both_sides_of_its_place():
    """Zeros measured in float32: a node at 1e-7 may stand for an eigenvalue at 0."""
    node = 1e-7
    mu = rm.LanczosMeasure([[node]], [[]], [0.0], 100, {"dtype": "float32", "removed": [5.0]})
    assert mu.cdf(0.0) == 0
    np.testing.assert_array_equal(mu.cdf_bounds(0.0), (0, 1))
