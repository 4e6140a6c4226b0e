"""The logarithmic axis: what is above the floor, what is left out, and distances there."""

from __future__ import annotations

import numpy as np
import pytest
from chains import run_of
from scipy.special import ndtri
from scipy.stats import kstest
from test_measure import measured

import rmthess as rm
from rmthess.families import lognormal_covariance
from rmthess.instrument import LogInstrument, instrument_of
from rmthess.log_axis import RESOLVED, LogLaw, log_spectrum

LAW = rm.MarchenkoPastur(0.43, 1.7)


def lognormal_eigenvalues(spread, side=200, samples=500, seed=5):
    """Of a real sample covariance whose population are the quantiles of a log-normal."""
    population = np.exp(spread * ndtri((np.arange(side) + 0.5) / side))
    x = np.random.default_rng(seed).standard_normal((samples, side)) * np.sqrt(population)
    return np.linalg.eigvalsh(x.T @ x / samples)


# ------------------------------------------------------------------- masses


def test_the_four_masses_are_counts_of_eigenvalues():
    values = [-2.0, -1e-5, 0.0, 0.0, 1e-6, 0.1, 1.0, 10.0]
    found = log_spectrum(rm.DiscreteMeasure.from_eigenvalues(values), floor=1e-3)
    assert (found.negative, found.unresolved, found.zero, found.above) == (1 / 8, 0.5, 0.25, 3 / 8)
    np.testing.assert_allclose(found.measure.nodes, [-1.0, 0.0, 1.0], atol=1e-15)
    assert found.measure.dim == 3
    assert "0.375 of the mass lies above 0.001; left out: 0.5 between ±0.001, 0.25" in str(found)


def test_the_floor_of_eigenvalues_is_their_rounding():
    found = log_spectrum(rm.DiscreteMeasure.from_eigenvalues([1e-17, 1e-10, 1.0]))
    assert found.floor == 3 * np.finfo(float).eps
    assert found.zero == pytest.approx(1 / 3)
    assert found.measure.nodes.size == 2


def test_a_lanczos_run_states_what_it_does_not_resolve():
    """From its floor on the bracket of the cdf is tight, and holds the exact masses."""
    values = np.concatenate([-np.logspace(-6, -2, 40), lognormal_eigenvalues(3.0, 360, 900)])
    run = measured(np.diag(values), 60, 8, seed=2)
    found = log_spectrum(run)
    lower, upper = run.cdf_bounds(found.floor)
    assert upper - lower <= RESOLVED
    assert np.isnan(found.zero)
    whole = log_spectrum(rm.DiscreteMeasure.from_eigenvalues(values), found.floor)
    noise = 3 * run.standard_error(lambda rule: rule.cdf(found.floor))
    assert abs(found.above - whole.above) <= RESOLVED + noise
    assert values[0] < 0 < found.floor  # most of the small ones lie below
    assert found.unresolved > 0.2
    assert found.above + found.unresolved + found.negative == pytest.approx(1)


# ------------------------------------------------------------------- a law on that axis


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_a_law_on_the_log_axis_is_the_law_of_the_logarithm(floor):
    """Against 1e6 quantiles of the law, cut at the floor."""
    law = LogLaw(LAW, floor)
    values = LAW.quantile((np.arange(100_000) + 0.5) / 100_000)
    logs = np.log10(values[values > floor])
    for p in (0.02, 0.4, 0.9):
        assert law.quantile(p) == pytest.approx(np.quantile(logs, p), abs=1e-4)
        assert law.cdf(law.quantile(p)) == pytest.approx(p, abs=1e-12)
    assert law.integrate(lambda y: y) == pytest.approx(logs.mean(), abs=2e-3 if floor else 1e-5)
    y = law.quantile(np.array([0.3, 0.7]))
    step = 1e-5
    slope = (law.cdf(y + step) - law.cdf(y - step)) / (2 * step)
    np.testing.assert_allclose(law.density(y), slope, rtol=1e-6)


def test_distances_are_those_of_any_two_measures():
    """W_1 of 300 log quantiles and their law: a quarter of the mean spacing each, by midpoints."""
    values = LAW.quantile((np.arange(300) + 0.5) / 300)
    seen = log_spectrum(rm.DiscreteMeasure.from_eigenvalues(values)).measure
    law = log_spectrum(LAW).measure
    p = (np.arange(300_000) + 0.5) / 300_000
    gap = np.abs(seen.quantile(p) - np.log10(LAW.quantile(p)))
    assert rm.wasserstein(seen, law) == pytest.approx(gap.mean(), rel=1e-3)
    assert rm.kolmogorov(seen, law) == pytest.approx(0.5 / 300, rel=1e-6)


def test_an_atom_at_zero_is_left_out_of_a_law():
    found = log_spectrum(rm.MarchenkoPastur(2.5, 1.7))
    assert (found.above, found.zero, found.negative) == pytest.approx((0.4, 0.6, 0.0))
    assert found.measure.cdf(-30.0) == 0


# ------------------------------------------------------------------- fits


def test_the_instrument_measures_in_decades():
    """Eigenvalues times 10 lie one decade away; √n times the coordinates are log10 λ."""
    values = LAW.sample(100, np.random.default_rng(1))
    one, ten = (
        instrument_of(rm.DiscreteMeasure.from_eigenvalues(c * values), axis="log") for c in (1, 10)
    )
    assert isinstance(one, LogInstrument)
    assert np.linalg.norm(ten.observe() - one.observe()) == pytest.approx(1.0, rel=1e-12)
    shift = ten.expect(LAW.dilate(10.0)) - one.expect(LAW)
    assert np.linalg.norm(shift) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("law", [LAW, rm.MarchenkoPastur(2.5, 1.7)], ids=["narrow", "wide"])
def test_draws_on_the_log_axis_scatter_like_matrices(law):
    """Mean and spread of every fifth coordinate over 200 Wishart matrices, the atom left out."""
    values = law.sample(100, np.random.default_rng(2))
    instrument = instrument_of(rm.DiscreteMeasure.from_eigenvalues(values), axis="log")
    draws = instrument.draw(law, 200, seed=3).coordinates
    real = np.array([
        instrument_of(
            rm.DiscreteMeasure.from_eigenvalues(law.sample(100, np.random.default_rng([4, k]))),
            axis="log",
        ).observe()
        for k in range(200)
    ])  # fmt: skip
    error = real.std(axis=0) * np.sqrt(2 / 200)
    assert np.all(np.abs(draws.mean(axis=0) - real.mean(axis=0)) < 5 * error)
    np.testing.assert_allclose(draws.std(axis=0), real.std(axis=0), rtol=0.35)


def test_a_wide_lognormal_bulk_is_found_where_the_linear_axis_sees_its_top_only():
    values = lognormal_eigenvalues(2.0)
    measure = rm.DiscreteMeasure.from_eigenvalues(values)
    found = rm.fit(lognormal_covariance(200), measure, axis="log", bootstrap=60)
    assert abs(found.parameters["spread"] - 2.0) < 4 * found.standard_errors["spread"]
    assert found.p_value > 0.01
    assert "On the logarithmic axis: 1 of the mass lies above" in found.message
    white = rm.fit(rm.MarchenkoPastur, measure, axis="log", bootstrap=100)
    assert not white.accepted()
    linear = rm.fit(rm.MarchenkoPastur, measure, bootstrap=20)
    assert 'axis="log" sees all' in linear.message


def test_what_lies_below_the_floor_does_not_touch_the_fit():
    values = LAW.sample(150, np.random.default_rng(6))
    junk = np.concatenate([values, -np.arange(1.0, 31.0), np.zeros(20)])
    clean, dirty = (
        rm.fit(rm.MarchenkoPastur, rm.DiscreteMeasure.from_eigenvalues(x), axis="log",
               floor=1e-3, bootstrap=40)
        for x in (values, junk)
    )  # fmt: skip
    assert dirty.parameters == pytest.approx(clean.parameters, rel=1e-6)
    assert dirty.p_value == clean.p_value
    assert "0.1 between ±0.001, 0.1 of it zero to rounding, 0.15 below" in dirty.message


def white_run(law, seed, dim=2000, steps=40, probes=6):
    a, b = law.sample_jacobi(steps + 1, dim, np.random.default_rng(seed), probes)
    return run_of(a, b, dim)


@pytest.mark.slow
def test_a_lanczos_run_is_fitted_on_the_log_axis_above_what_it_resolves():
    """White data and their law: 20 runs, errors of 1 ± 3/√40, at most 3 of 20 below 10%."""
    truth = {"ratio": 0.43, "variance": 1.7}
    fits = [
        rm.fit(rm.MarchenkoPastur, white_run(LAW, seed), axis="log", floor=0.5, bootstrap=60)
        for seed in range(20)
    ]
    for name, value in truth.items():
        z = [(fit.parameters[name] - value) / fit.standard_errors[name] for fit in fits]
        assert abs(np.mean(z)) < 3 / np.sqrt(20)
        assert 1 - 3 / np.sqrt(40) < np.std(z, ddof=1) < 1 + 3 / np.sqrt(40)
    assert sum(fit.p_value < 0.1 for fit in fits) <= 5  # 2 expected; more than 5: once in 90
    above = 1 - float(LAW.cdf(0.5))
    for fit in fits:
        left_out = float(fit.message.split("above 0.5; left out: ")[1].split(" between")[0])
        assert left_out == pytest.approx(1 - above, abs=0.03)


def test_a_lanczos_run_of_another_law_is_refused_on_the_log_axis():
    """Half the population variances 0.4, half 3: the best Marchenko–Pastur law is far off."""
    law = rm.SampleCovariance(0.2, rm.DiscreteMeasure([0.4, 3.0], [0.5, 0.5]))
    values = law.sample(400, np.random.default_rng(9))
    run = measured(np.diag(values), 40, 6, seed=2)
    found = rm.fit(rm.MarchenkoPastur, run, axis="log", floor=0.3, bootstrap=100)
    assert not found.accepted()
    assert "Refused" in found.message


@pytest.mark.slow
def test_a_trained_networks_positive_bulk_is_lognormal_rather_than_white():
    """Hessian of a 64-24-10 ReLU network on all digits, 100 mini-batches on: std of log λ near 3.6.

    Over four seeds 3.54 to 3.67, Kolmogorov distance of log λ to a normal 0.036 to 0.046; the
    sample covariance of a log-normal population lies within 0.1 of the spread, a white one at 0.5.
    """
    import torch
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.data / 16.0)
    y = torch.tensor(data.target)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10)
    ).double()
    loss = torch.nn.CrossEntropyLoss()
    descent = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(100):
        batch = torch.randint(len(x), (50,))
        descent.zero_grad()
        loss(model(x[batch]), y[batch]).backward()
        descent.step()
    values = rm.eigenvalues(rm.hessian(model, loss, (x, y)))
    measure = rm.DiscreteMeasure.from_eigenvalues(values)
    floor = 1e-8 * float(np.max(values))
    found = log_spectrum(measure, floor)
    logs = found.measure.nodes * np.log(10)
    assert 3 < logs.std() < 4
    assert kstest((logs - logs.mean()) / logs.std(), "norm").statistic < 0.08
    assert 0.05 < found.negative < 0.2
    lognormal, white = (
        rm.fit(family, measure, axis="log", floor=floor, bootstrap=0)
        for family in (lognormal_covariance(), rm.MarchenkoPastur)
    )
    assert lognormal.distance < 0.1
    assert white.distance > 0.4


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"floor": -1.0}, "floor must be a finite number that is not negative, got -1.0"),
        ({"floor": np.nan}, "floor must be a finite number"),
        ({"floor": 1e9}, "no mass lies above 1e"),
    ],
)
def test_a_bad_floor_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        log_spectrum(rm.DiscreteMeasure.from_eigenvalues([1.0, 2.0]), **arguments)


def test_what_has_nothing_positive_is_refused():
    with pytest.raises(ValueError, match="no mass lies above"):
        log_spectrum(rm.DiscreteMeasure.from_eigenvalues([-1.0, -2.0]))
    with pytest.raises(ValueError, match="no Ritz value is positive"):
        log_spectrum(rm.LanczosMeasure([[-3.0, -3.0]], [[1.0]], [0.5], 9))
    with pytest.raises(ValueError, match=r"the law has no mass above 10; it ends at 4\.66"):
        log_spectrum(LAW, 10.0)
    with pytest.raises(ValueError, match="nowhere on the positive axis; measure more steps"):
        log_spectrum(rm.LanczosMeasure([[2.0, 2.0]], [[1.0]], [0.5], 9))


def test_a_bad_axis_or_floor_of_a_fit_is_refused():
    run = measured(np.diag(LAW.sample(60, np.random.default_rng(3))), 10, 2, seed=1)
    with pytest.raises(ValueError, match="nowhere on the positive axis; measure more steps"):
        rm.fit(rm.MarchenkoPastur, run, axis="log")  # 10 steps resolve nothing to 5%
    with pytest.raises(ValueError, match=r"floor=0\.0 of a Lanczos run must be positive"):
        rm.fit(rm.MarchenkoPastur, run, axis="log", floor=0.0)
    with pytest.raises(TypeError, match="a LanczosMeasure or a DiscreteMeasure, got Marchenko"):
        instrument_of(LAW, axis="log")
    with pytest.raises(ValueError, match="axis must be 'linear' or 'log', got 'log10'"):
        rm.fit(rm.MarchenkoPastur, run, axis="log10")
    with pytest.raises(ValueError, match=r"floor=0\.1 belongs to axis='log'"):
        rm.fit(rm.MarchenkoPastur, run, floor=0.1)
