"""Fits: calibrated under the null, powerful against the nearest alternative, plain when refused.

Matrices are built entry by entry and seen by Lanczos or by eigvalsh; the fit's own samplers appear
only in its bootstrap.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from chains import run_of
from scipy.special import multigammaln
from scipy.stats import kstest
from test_measure import measured

import rmthess as rm
from rmthess.families import Family
from rmthess.families import family as family_of
from rmthess.fitting import _corrected, format_uncertain
from rmthess.nearest import problem as problem_of
from rmthess.sampling import sample_chains

VARIANCE, DIM, SAMPLES = 1.7, 200, 540
TRUTH = {"ratio": DIM / SAMPLES, "variance": VARIANCE}
EIGENVALUES = rm.DiscreteMeasure.from_eigenvalues(
    rm.MarchenkoPastur(0.43, 1.7).sample(300, np.random.default_rng(40))
)
SEMICIRCLE = rm.DiscreteMeasure.from_eigenvalues(
    rm.Semicircle(1.7, 0.43).sample(300, np.random.default_rng(41))
)


def wishart(dim, samples, seed, population=1.0):
    x = np.random.default_rng(seed).normal(size=(samples, dim)) * np.sqrt(population)
    return x.T @ x / samples


def by_lanczos(matrix, seed=0, steps=30, probes=4):
    return measured(matrix, steps, probes, seed)


def by_eigenvalues(matrix, seed=0):
    return rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(matrix))


INSTRUMENTS = {"lanczos": by_lanczos, "eigenvalues": by_eigenvalues}
instruments = pytest.mark.parametrize("instrument", INSTRUMENTS)


# ------------------------------------------------------------------- the null hypothesis


@cache
def null_fits(instrument):
    """Forty real Wishart matrices, each fitted."""
    return [
        rm.fit(
            rm.MarchenkoPastur,
            INSTRUMENTS[instrument](wishart(DIM, SAMPLES, [1, seed], VARIANCE), seed),
            bootstrap=100,
            seed=seed,
        )
        for seed in range(40)
    ]


@instruments
def test_p_values_of_a_true_law_are_uniform(instrument):
    p = [fit.p_value for fit in null_fits(instrument)]
    assert kstest(p, "uniform").pvalue > 0.02
    assert sum(value <= 0.01 for value in p) <= 2  # 0.4 expected


@instruments
def test_standard_errors_of_a_true_law_are_its_errors(instrument):
    """z-scores of 40 fits have mean 0 ± 1/√40 and standard deviation 1 ± 1/√80."""
    fits = null_fits(instrument)
    for name, value in TRUTH.items():
        z = [(fit.parameters[name] - value) / fit.standard_errors[name] for fit in fits]
        assert abs(np.mean(z)) < 3 / np.sqrt(40)
        assert 1 - 3 / np.sqrt(80) < np.std(z, ddof=1) < 1 + 3 / np.sqrt(80)


@instruments
def test_the_distance_of_a_true_law_is_the_expected_one(instrument):
    quotients = [fit.distance / fit.expected_distance for fit in null_fits(instrument)]
    assert abs(np.mean(quotients) - 1) < 3 * np.std(quotients) / np.sqrt(40)
    assert all(fit.converged for fit in null_fits(instrument))


def test_a_goe_matrix_is_fitted_by_its_semicircle():
    x = np.random.default_rng(42).normal(size=(300, 300))
    matrix = 0.43 * np.eye(300) + np.sqrt(1.7 / 600) * (x + x.T)
    for measure in (by_lanczos(matrix), by_eigenvalues(matrix)):
        fit = rm.fit(rm.Semicircle, measure, bootstrap=100)
        assert fit.accepted()
        for name, value in (("variance", 1.7), ("mean", 0.43)):
            assert abs(fit.parameters[name] - value) < 3 * fit.standard_errors[name]


def test_outliers_outside_the_window_leave_the_bulk_as_it_is():
    """Three spikes of a spiked Wishart matrix: refused whole, accepted without them."""
    population = np.ones(400)
    population[:3] = [8.0, 12.0, 20.0]
    matrix = wishart(400, 1080, 44, population)
    for measure in (by_eigenvalues(matrix), by_lanczos(matrix, steps=48)):
        assert not rm.fit(rm.MarchenkoPastur, measure, bootstrap=100).accepted()
        fit = rm.fit(rm.MarchenkoPastur, measure, window=(0.0, 3.2), bootstrap=100)
        assert fit.accepted()
        assert abs(fit.parameters["variance"] - 1) < 4 * fit.standard_errors["variance"]


# ------------------------------------------------------------------- power


def test_a_population_of_two_variances_is_refused():
    """Half 1, half 1.5 at 400 x 1080: the nearest alternative that users meet."""
    population = np.repeat([1.0, 1.5], 200)
    for seed in range(3):
        measure = by_eigenvalues(wishart(400, 1080, [45, seed], population))
        fit = rm.fit(rm.MarchenkoPastur, measure, bootstrap=100, seed=seed)
        assert not fit.accepted()
        assert fit.distance > 1.2 * fit.expected_distance
        assert "Refused (p ≤ 0.0099)" in fit.message


@pytest.mark.parametrize(
    ("family", "measure"),
    [(rm.MarchenkoPastur, SEMICIRCLE), (rm.Semicircle, EIGENVALUES)],
    ids=["semicircle data", "Marchenko-Pastur data"],
)
def test_the_other_law_is_refused(family, measure):
    fit = rm.fit(family, measure, bootstrap=100)
    assert not fit.accepted()
    assert "Refused" in str(fit) or "does not fit" in str(fit)


def test_a_negative_spectrum_ends_at_the_range_of_marchenko_pastur_and_says_so():
    fit = rm.fit(rm.MarchenkoPastur, by_eigenvalues(-wishart(60, 150, 46)), bootstrap=20)
    assert not fit.converged
    assert not fit.accepted()
    assert np.isnan(fit.p_value)
    assert "The family does not fit" in str(fit)


# ------------------------------------------------------------------- families and options


def test_a_known_parameter_stays_fixed():
    fit = rm.fit(rm.MarchenkoPastur, EIGENVALUES, fixed={"ratio": 0.43}, bootstrap=100)
    assert set(fit.parameters) == set(fit.standard_errors) == {"variance"}
    assert fit.law.ratio == 0.43
    assert abs(fit.parameters["variance"] - 1.7) < 3 * fit.standard_errors["variance"]
    assert fit.accepted()


@pytest.mark.parametrize("start", [0.02, 1.0, 3000.0])
def test_any_callable_is_a_family_from_any_start(start):
    """From 3000 the first step would leave the range of the variance; the fit shortens it."""

    def family(variance):
        return rm.Semicircle(variance, 0.43)

    fit = rm.fit(family, SEMICIRCLE, start={"variance": start}, bootstrap=100)
    # the minimiser of √v-dependent quantiles in closed form: least squares in the radius
    unit = rm.Semicircle(1).quantile((np.arange(300) + 0.5) / 300)
    root = unit @ (SEMICIRCLE.nodes - 0.43) / (unit @ unit)
    bare = rm.fit(family, SEMICIRCLE, start={"variance": start}, bootstrap=0)
    assert bare.parameters["variance"] == pytest.approx(root**2, rel=1e-8)
    assert fit.parameters["variance"] == pytest.approx(root**2, rel=0.02)  # bias of O(1/dim)
    assert fit.accepted()


def test_the_best_fit_is_the_minimum_of_the_distance():
    fit = rm.fit(rm.MarchenkoPastur, EIGENVALUES, bootstrap=0)
    p = (np.arange(300) + 0.5) / 300

    def distance(ratio, variance):
        gap = EIGENVALUES.nodes - rm.MarchenkoPastur(ratio, variance).quantile(p)
        return np.sqrt(np.mean(gap**2))

    q, v = fit.parameters["ratio"], fit.parameters["variance"]
    least = distance(q, v)
    unit = EIGENVALUES.nodes.std()
    assert fit.distance == pytest.approx(least / unit, rel=1e-9)
    for factor in (0.999, 1.001):
        assert distance(factor * q, v) > least
        assert distance(q, factor * v) > least


def test_without_bootstrap_there_are_no_errors_and_it_says_so():
    fit = rm.fit(rm.Semicircle, SEMICIRCLE, bootstrap=0)
    assert np.isnan([*fit.standard_errors.values(), fit.p_value, fit.expected_distance]).all()
    assert not fit.accepted()
    assert fit.converged
    assert "No p-value: bootstrap = 0." in str(fit)


def test_too_few_matrices_to_refuse_leave_the_verdict_open():
    population = np.repeat([1.0, 9.0], 100)
    measure = by_eigenvalues(wishart(200, 540, 47, population))
    fit = rm.fit(rm.MarchenkoPastur, measure, bootstrap=20)
    assert fit.p_value == pytest.approx(1 / 21)
    assert "Undecided" in fit.message
    assert "Not refused" not in fit.message


def test_a_law_without_ensemble_has_no_p_value_and_says_so():
    start = {"left": 0.0, "right": 1.0}
    values = np.random.default_rng(4).uniform(0.3, 2.1, 300)
    for measure in (rm.DiscreteMeasure.from_eigenvalues(values), by_lanczos(np.diag(values))):
        fit = rm.fit(rm.Uniform, measure, start=start, bootstrap=20)
        assert np.isnan([fit.p_value, *fit.standard_errors.values()]).all()
        assert "No p-value: Uniform has no canonical matrix ensemble." in fit.message
        assert abs(fit.parameters["right"] - 2.1) < 0.2


def covariance(ratio, small):
    """Half the population variances ``small``, half 1.5."""
    return rm.SampleCovariance(ratio, rm.DiscreteMeasure([small, 1.5], [0.5, 0.5]))


def through_lanczos(law, dim, seed, steps=24, probes=8):
    a, b = sample_chains(law, steps + 1, dim, probes, 1, seed)
    return run_of(a[0], b[0], dim)


@pytest.mark.parametrize("dim", [300, 5000])
def test_a_law_without_short_cut_is_calibrated_by_matrices_of_its_ensemble(dim):
    truth, start = {"ratio": 0.4, "small": 0.6}, {"ratio": 0.5, "small": 0.8}
    law = covariance(**truth)
    measures = [through_lanczos(law, dim, seed=3)]
    if dim == 300:
        values = law.sample(dim, np.random.default_rng(5))
        measures.append(rm.DiscreteMeasure.from_eigenvalues(values))
    for measure in measures:
        fit = rm.fit(covariance, measure, start=start, bootstrap=100)
        assert fit.accepted(), fit
        for name, value in truth.items():
            assert abs(fit.parameters[name] - value) < 3 * fit.standard_errors[name]


def test_a_smooth_departure_that_a_distance_drowns_shows_in_few_moments():
    """Population half 1, half 1.5: the third moment is off by 0.05 of its unit, which 16 probes of
    side 4000 see to 0.006; the 127 coordinates of the distance see 1.3 times their noise."""
    measure = through_lanczos(covariance(0.37, 1.0), 4000, seed=6, steps=63, probes=16)
    fit = rm.fit(rm.MarchenkoPastur, measure, bootstrap=200)
    assert fit.p_value < 0.01
    assert "in the moments up to degree" in fit.message


def test_a_correction_for_bias_never_leaves_the_range_of_the_family():
    """A scale once came out as -1.3 where the data left it open."""
    family = family_of("lognormal_covariance")
    task = problem_of(family, {}, {}, 1.0)
    assert tuple(task.free) == ("ratio", "scale", "spread")
    assert _corrected(task, np.array([0.4, -1.3, 1.0])) is None
    law, parameters = _corrected(task, np.array([0.4, 1.3, 1.0]))
    assert parameters == {"ratio": 0.4, "scale": 1.3, "spread": 1.0}
    assert law.support[0][0] > 0


def test_likelihood_estimates_scatter_less_than_the_nearest_law():
    """30% less for the ratio of a Wishart matrix; unbiased for the variance of a GOE matrix."""
    found = []
    for seed in range(60):
        values = rm.MarchenkoPastur(0.4, 1.7).sample(120, np.random.default_rng(seed))
        near = rm.fit(rm.MarchenkoPastur, rm.DiscreteMeasure.from_eigenvalues(values), bootstrap=0)
        likely = rm.MarchenkoPastur.likelihood_estimate(values)
        found.append([near.parameters["ratio"], likely["ratio"], likely["variance"]])
    spread = np.std(found, axis=0)
    assert spread[1] < 0.85 * spread[0]
    assert np.mean(found, axis=0)[1:] == pytest.approx([0.4, 1.7], abs=3 * spread.max() / 7.7)
    goe = [rm.Semicircle(0.7).sample(20, np.random.default_rng(seed)) for seed in range(400)]
    likely = [rm.Semicircle.likelihood_estimate(values)["variance"] for values in goe]
    assert np.mean(likely) == pytest.approx(0.7, abs=3 * np.std(likely) / 20)


def test_likelihood_of_a_wishart_matrix_is_stationary_at_its_estimate():
    """Muirhead's density by scipy: neither another variance nor another real s is likelier."""
    values = rm.MarchenkoPastur(0.4, 1.7).sample(60, np.random.default_rng(3))
    best = rm.MarchenkoPastur.likelihood_estimate(values)

    def log_likelihood(ratio, variance):
        n, s = values.size, values.size / ratio
        return (
            (s - n - 1) / 2 * np.log(values).sum()
            - s * values.sum() / (2 * variance)
            - s * n / 2 * np.log(2 * variance / s)
            - multigammaln(s / 2, n)
        )

    top = log_likelihood(**best)
    for name in best:
        for factor in (0.99, 1.01):
            assert log_likelihood(**{**best, name: best[name] * factor}) < top


def test_a_singular_wishart_matrix_has_as_many_samples_as_its_rank():
    values = rm.MarchenkoPastur(2.0, 1.7).sample(60, np.random.default_rng(3))
    assert rm.MarchenkoPastur.likelihood_estimate(values)["ratio"] == 2.0


@pytest.mark.parametrize("ratio", [2.5, 2.7])
def test_a_singular_wishart_matrix_tells_its_ratio_by_counting(ratio):
    """60 matrices of side 150: p uniform, the variance within its errors, the ratio to rounding."""
    p, z, samples = [], [], round(150 / ratio)
    for seed in range(60):
        measure = by_eigenvalues(wishart(150, samples, [48, seed], VARIANCE))
        fit = rm.fit(rm.MarchenkoPastur, measure, bootstrap=60, seed=seed)
        assert fit.parameters["ratio"] == pytest.approx(150 / samples, rel=1e-12)
        # samples ± 1/2, evenly
        assert fit.standard_errors["ratio"] == pytest.approx(150 / samples**2 / np.sqrt(12))
        p.append(fit.p_value - 0.5 / 61)
        z.append((fit.parameters["variance"] - VARIANCE) / fit.standard_errors["variance"])
    assert kstest(p, "uniform").pvalue > 0.02
    assert abs(np.mean(z)) < 3 / np.sqrt(60)
    assert 1 - 3 / np.sqrt(120) < np.std(z, ddof=1) < 1 + 3 / np.sqrt(120)
    assert "ratio by counting: 0.4 of" in fit.message or ratio != 2.5


def test_a_counted_ratio_goes_through_populations_and_may_be_fixed():
    values = by_eigenvalues(wishart(120, 60, 49, np.repeat([1.0, 6.0], 60)))
    two = rm.fit(family_of("discrete_covariance_2"), values, bootstrap=60)
    assert list(two.parameters) == ["ratio", "atom1", "atom2", "weight1"]
    assert two.parameters["ratio"] == pytest.approx(2.0, rel=1e-12)
    assert two.accepted() or two.p_value > 1 / 61, two
    fixed = rm.fit(rm.MarchenkoPastur, values, fixed={"ratio": 2.0}, bootstrap=0)
    assert set(fixed.parameters) == {"variance"}


def test_of_many_eigenvalues_some_are_looked_at_and_it_says_so():
    """6000 eigenvalues of a real Wishart matrix, by its tridiagonal model."""
    law = rm.MarchenkoPastur(0.4, 1.7)
    many = rm.DiscreteMeasure.from_eigenvalues(law.sample(6000, np.random.default_rng(6)))
    fit = rm.fit(rm.MarchenkoPastur, many, bootstrap=100)
    assert fit.accepted(), fit
    assert "2000 of the eigenvalues were looked at, at even distances in rank" in fit.message
    for name, value in (("ratio", 0.4), ("variance", 1.7)):
        assert abs(fit.parameters[name] - value) < 3 * fit.standard_errors[name]


def test_a_measure_without_dim_has_no_p_value_until_it_is_given():
    bare = rm.DiscreteMeasure(SEMICIRCLE.nodes, SEMICIRCLE.weights)
    fit = rm.fit(rm.Semicircle, bare, bootstrap=50)
    assert np.isnan([fit.p_value, *fit.standard_errors.values()]).all()
    assert "No p-value: the side of the matrix is unknown; pass dim=." in fit.message
    told = rm.fit(rm.Semicircle, bare, dim=300, bootstrap=100)
    assert told == rm.fit(rm.Semicircle, SEMICIRCLE, bootstrap=100)
    assert told.accepted()


def test_nodes_of_unequal_weight_are_no_eigenvalues_and_it_says_so():
    weights = np.linspace(1, 2, 300)
    measure = rm.DiscreteMeasure(SEMICIRCLE.nodes, weights / weights.sum(), 300)
    fit = rm.fit(rm.Semicircle, measure, bootstrap=50)
    assert np.isnan(fit.p_value)
    assert "nodes of unequal weight" in fit.message


def test_a_seed_fixes_the_fit():
    first, second = (rm.fit(rm.Semicircle, SEMICIRCLE, bootstrap=50, seed=3) for _ in range(2))
    assert first == second
    other = rm.fit(rm.Semicircle, SEMICIRCLE, bootstrap=50, seed=4)
    assert other.standard_errors != first.standard_errors


def test_the_fit_scales_with_the_spectrum():
    """Eigenvalues times c: variance times c, ratio and relative distance as they were."""
    plain = rm.fit(rm.MarchenkoPastur, EIGENVALUES, bootstrap=50)
    for scale in (1e-8, 1e8):
        scaled = rm.DiscreteMeasure.from_eigenvalues(scale * EIGENVALUES.nodes)
        fit = rm.fit(rm.MarchenkoPastur, scaled, bootstrap=50)
        assert fit.parameters["ratio"] == pytest.approx(plain.parameters["ratio"], rel=1e-6)
        wanted = scale * plain.parameters["variance"]
        assert fit.parameters["variance"] == pytest.approx(wanted, rel=1e-6)
        assert fit.distance == pytest.approx(plain.distance, rel=1e-6)
        assert fit.p_value == plain.p_value


def test_a_fit_prints_values_with_their_errors():
    text = str(rm.fit(rm.Semicircle, SEMICIRCLE, bootstrap=100))
    assert text.startswith("variance 1.")
    assert " ± 0." in text
    assert "expected" in text
    assert "Not refused (p = " in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.40123, 0.0021, "0.4012 ± 0.0021"),
        (17.32, 1.4, "17.3 ± 1.4"),
        (1234.5, 56.0, "1234 ± 56"),
        (0.5, np.nan, "0.5"),
        (0.5, 0.0, "0.5"),
    ],
)
def test_errors_are_printed_with_two_digits(value, error, text):
    assert format_uncertain(value, error) == text


# ------------------------------------------------------------------- what speaks against a fit


def test_parameters_of_which_only_the_product_is_seen_are_undetermined():
    """Semicircle of variance a b: any error along a/b, and errors are infinite."""

    def family(a, b):
        return rm.Semicircle(a * b, 0.43)

    start = {"a": 1.0, "b": 1.5}
    for bootstrap in (0, 50):
        fit = rm.fit(family, SEMICIRCLE, start=start, bootstrap=bootstrap)
        assert fit.undetermined == ("a", "b")
        assert "Undetermined: changed together by a " in fit.message
        assert fit.parameters["a"] * fit.parameters["b"] == pytest.approx(1.7, rel=0.1)
    assert fit.standard_errors == {"a": np.inf, "b": np.inf}
    fixed = rm.fit(family, SEMICIRCLE, fixed={"b": 1.5}, start={"a": 1.0}, bootstrap=50)
    assert fixed.undetermined == ()
    assert np.isfinite(fixed.standard_errors["a"])


def test_a_parameter_without_effect_is_undetermined():
    fit = rm.fit(
        lambda variance, unused: rm.Semicircle(variance, 0.43), SEMICIRCLE,
        start={"variance": 1.0, "unused": 3.0}, bootstrap=50,
    )  # fmt: skip
    assert fit.undetermined == ("unused",)
    assert fit.standard_errors["unused"] == np.inf
    assert fit.standard_errors["variance"] < 0.2


def test_two_atoms_where_one_is_seen_are_poorly_determined():
    """White data: the weight of a second atom beside the first is anybody's guess."""
    fit = rm.fit(family_of("discrete_covariance_2"), EIGENVALUES, bootstrap=50)
    assert "weight1" in fit.undetermined or fit.at_bound
    said = "oorly determined", "Undetermined: ", "At the end of its range"
    assert any(words in fit.message for words in said)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (lambda share: rm.Semicircle(1.7 * share, 0.43), "share"),
        (lambda share: rm.Semicircle(1.7 / share, 0.43), "share"),
    ],
    ids=["upper", "upper from the other side"],
)
def test_a_parameter_at_its_upper_bound_is_flagged(family, name):
    """The data want 1 where the bound is 0.5, or 2 where 1.3 is."""
    bounds = {"share": (0.1, 0.5)}
    bounded = Family("bounded", family, bounds, lambda measure: {"share": 0.3})
    fit = rm.fit(bounded, SEMICIRCLE, bootstrap=20)
    assert fit.at_bound == (name,)
    assert not fit.converged
    assert "At the end of its range: share." in fit.message


def test_a_law_that_cannot_reach_the_data_says_what_it_misses():
    family = Family(
        "far", lambda variance: rm.Semicircle(variance, 50.0), {"variance": (0.5, 2.0)},
        lambda measure: {"variance": 1.0},
    )  # fmt: skip
    fit = rm.fit(family, SEMICIRCLE, bootstrap=20)
    assert "misses 100% of the spectrum" in fit.message
    assert not fit.accepted()


def test_order_and_repetition_of_nodes_do_not_matter():
    """Shuffled eigenvalues, and every one twice: the same law, to half a quantile for 600."""
    values = EIGENVALUES.nodes
    plain = rm.fit(rm.MarchenkoPastur, EIGENVALUES, bootstrap=0)
    shuffled = np.random.default_rng(3).permutation(values)
    again = rm.fit(rm.MarchenkoPastur, rm.DiscreteMeasure.from_eigenvalues(shuffled), bootstrap=0)
    assert again.parameters == plain.parameters
    double = rm.DiscreteMeasure.from_eigenvalues(np.repeat(values, 2))
    twice = rm.fit(rm.MarchenkoPastur, double, bootstrap=0)
    assert twice.parameters == pytest.approx(plain.parameters, rel=5e-3)


def test_a_constant_part_beside_a_bulk_is_a_bulk_of_another_law():
    """Half the eigenvalues at one point: refused, not crashed on."""
    values = np.concatenate([EIGENVALUES.nodes[:150], np.full(150, 3.0)])
    fit = rm.fit(rm.MarchenkoPastur, rm.DiscreteMeasure.from_eigenvalues(values), bootstrap=100)
    assert not fit.accepted()


def test_minimisation_that_ends_without_converging_says_so(monkeypatch):
    from rmthess import nearest

    class Stuck:
        x, fun, jac = np.array([1.0]), np.ones(300), np.ones((300, 1))
        success, message = False, "The maximum number of function evaluations is exceeded."

    monkeypatch.setattr(nearest, "least_squares", lambda *args, **options: Stuck())
    fit = rm.fit(lambda variance: rm.Semicircle(variance), SEMICIRCLE, start={"variance": 1.0})
    assert not fit.converged
    assert "did not converge: The maximum number of function evaluations" in fit.message
    assert np.isnan(fit.p_value)


def test_laws_with_a_matrix_ensemble_have_p_values():
    """A Wigner matrix beside a uniform one, and zeros beside a Wishart one."""
    rng = np.random.default_rng(12)
    noisy = rm.boxplus(rm.Uniform(0.0, 1.7), rm.Semicircle(0.05))
    zeros = rm.mixture(
        [rm.DiscreteMeasure([0.0], [1.0]), rm.MarchenkoPastur(0.43, 1.7)], [0.25, 0.75]
    )
    for name, law in (("uniform_with_noise", noisy), ("marchenko_pastur_with_zeros", zeros)):
        measure = rm.DiscreteMeasure.from_eigenvalues(law.sample(120, rng))
        fit = rm.fit(family_of(name), measure, bootstrap=60)
        assert fit.p_value > 0.01, fit


# ------------------------------------------------------------------- refusals


def fit_semicircle(**options):
    return rm.fit(rm.Semicircle, SEMICIRCLE, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fixed": {"q": 1.0}}, "unknown parameter 'q'; the family has variance, mean"),
        ({"start": {"ratio": 1.0}}, "unknown parameter 'ratio'"),
        ({"fixed": {"variance": 1.7, "mean": 0}}, "every parameter is fixed"),
        ({"fixed": {"variance": -1.0}}, "variance must be a positive finite number, got -1.0"),
        ({"start": {"variance": -1.0}}, "variance must be a positive finite number, got -1.0"),
        ({"start": {"mean": np.nan}}, "start must be finite, got .*nan"),
        ({"window": (70.0, 80.0)}, "window 70 to 80 holds no mass"),
        ({"window": (1.0, 0.0)}, "left < right"),
        ({"bootstrap": -1}, "bootstrap must be an integer of at least 0, got -1"),
        ({"bootstrap": 2.5}, "bootstrap must be an integer of at least 0, got 2.5"),
        ({"bootstrap": 1}, "bootstrap must be 0 or at least 2, got 1"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
    ],
)
def test_a_bad_option_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_semicircle(**options)


def test_a_callable_without_a_start_is_asked_for_one():
    with pytest.raises(ValueError, match=r"pass start=\{...\} with a first guess of variance"):
        rm.fit(lambda variance: rm.Semicircle(variance), SEMICIRCLE)


@pytest.mark.parametrize("family", ["MarchenkoPastur", rm.Semicircle(1.7), None], ids=repr)
def test_a_family_is_callable(family):
    with pytest.raises(TypeError, match="family must be a law class or a callable"):
        rm.fit(family, SEMICIRCLE)


@pytest.mark.parametrize("value", [0.0, 2.0, -3.5])
@pytest.mark.parametrize("family", [rm.Semicircle, rm.MarchenkoPastur])
def test_one_atom_is_no_spectrum_of_a_density(family, value):
    for measure in (
        rm.DiscreteMeasure.from_eigenvalues(np.full(50, value)),
        rm.DiscreteMeasure.from_eigenvalues([value]),
        rm.DiscreteMeasure.from_eigenvalues(value * (1 + 1e-15 * np.arange(50))),
        rm.LanczosMeasure([[value], [value]], [[], []], [0, 0], 50),
    ):
        with pytest.raises(ValueError, match=f"the spectrum is one atom at {value:g}"):
            rm.fit(family, measure)


def test_two_parameters_need_two_coordinates():
    short = rm.LanczosMeasure([[1.0], [2.0]], [[], []], [0.5, 0.5], 50)
    with pytest.raises(ValueError, match="1 coordinates cannot determine 2 parameters"):
        rm.fit(rm.MarchenkoPastur, short)


def test_what_is_no_measurement_is_refused():
    with pytest.raises(TypeError, match="a measured spectrum is a LanczosMeasure or a Discrete"):
        rm.fit(rm.Semicircle, SEMICIRCLE.nodes)
