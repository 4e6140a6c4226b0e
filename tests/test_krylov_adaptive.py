"""Runs that stop when they are good enough, and error bars that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rmthess as rm
from rmthess.krylov.adaptive import band
from rmthess.krylov.probes import RandomStarts


def spiked(spikes=(10.0, 20.0, 40.0), dim=500):
    return np.diag(np.append(np.random.default_rng(0).random(dim - len(spikes)), spikes))


def stopped(found):
    return found.provenance["stopped"]


# ---- steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_end_when_the_outliers_have_converged(dtype):
    found = rm.lanczos(spiked().astype(dtype), steps=200, probes=3, outliers=3)
    assert found.steps < 40
    assert stopped(found)["steps"].startswith("converged: the 3 eigenvalues of largest modulus")
    eps = np.finfo(dtype).eps
    for nodes in found.nodes:
        # residual² / gap: at most eps |A|² / gap, and the rounding of a product
        np.testing.assert_allclose(nodes[-3:], [10, 20, 40], atol=2 * eps * 40**2 / 9)
    # with one outlier less it takes no longer, and a shorter run has not converged
    assert rm.lanczos(spiked().astype(dtype), steps=200, probes=3, outliers=2).steps <= found.steps
    short = rm.lanczos(spiked().astype(dtype), steps=found.steps // 2, probes=3)
    assert np.abs(short.nodes[:, -3] - 10).max() > 1e-4


def test_a_limit_on_steps_is_reported():
    found = rm.lanczos(spiked(), steps=8, probes=3, outliers=3)
    assert found.steps == 8
    assert stopped(found)["steps"].startswith("limit reached: 8 steps, after which only")


def test_a_breakdown_is_convergence():
    found = rm.lanczos(np.diag(np.repeat([1.0, 2.0, 5.0], 20)), steps=50, outliers=10)
    assert (found.residuals == 0).all()
    assert stopped(found)["steps"].startswith("converged")


def test_later_groups_take_the_steps_of_the_first():
    found = rm.lanczos(spiked(), steps=100, probes=6, outliers=3, memory=2 * 105 * 500 * 8)
    assert found.provenance["probes_at_once"] == 2
    assert found.probes == 6
    assert found.steps < 40
    assert stopped(found)["steps"].startswith("converged")


# ---- probes


def test_probes_end_when_the_band_meets_the_tolerance():
    matrix = np.diag(np.linspace(0, 1, 400))
    found = rm.lanczos(matrix, steps=30, probes=500, tolerance=4e-3)
    assert band(found) <= 4e-3
    assert 8 < found.probes < 200
    assert stopped(found)["probes"] == f"converged: band {band(found):.1e} of the range"
    fewer = rm.lanczos(matrix, steps=30, probes=8)
    assert band(fewer) > 4e-3
    # the first probes of many are those of few
    np.testing.assert_allclose(found.diagonals[:8], fewer.diagonals, atol=1e-13)


def test_a_limit_on_probes_is_reported():
    found = rm.lanczos(np.diag(np.linspace(0, 1, 400)), steps=30, probes=10, tolerance=1e-5)
    assert found.probes == 10
    assert stopped(found)["probes"].startswith("limit reached: 10 probes leave a band of")
    one = rm.lanczos(np.diag(np.linspace(0, 1, 400)), steps=30, probes=1, tolerance=1e-5)
    assert stopped(one)["probes"].startswith("limit reached: 1 probes leave a band of nan")


def test_the_band_predicts_the_distance_to_the_truth():
    # W1 = ∫ |F - F0| dx, whose mean is √(2/π) ∫ s dx where the error at x is normal
    spectrum = np.linspace(0, 1, 400)
    exact = rm.DiscreteMeasure.from_eigenvalues(spectrum)
    runs = [rm.lanczos(np.diag(spectrum), steps=60, probes=16, seed=s) for s in range(10)]
    seen = np.mean([rm.wasserstein(run, exact) for run in runs])
    predicted = np.sqrt(2 / np.pi) * np.mean([band(run) for run in runs])
    # 60 nodes on 400 eigenvalues add a discretisation error that probes do not show
    assert 0.9 < seen / predicted < 1.4


def test_fixed_by_hand_is_recorded_as_asked():
    assert stopped(rm.lanczos(spiked(), steps=5, probes=2)) == {
        "steps": "as asked",
        "probes": "as asked",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"outliers": 0}, "outliers must be an integer of at least 1"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"tolerance": -1.0}, "tolerance must be positive"),
        ({"distribution": "gaussian"}, "a Gaussian vector, normalised, is 'sphere'"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        rm.lanczos(np.eye(3), **given)


# ---- probes and their noise


def test_a_probe_is_the_same_in_every_split_and_on_its_own():
    starts = RandomStarts(50, 3, "sphere")
    children = np.random.SeedSequence(3).spawn(7)
    for probe in (0, 6):
        wanted = np.random.default_rng(children[probe]).standard_normal(50)
        assert np.array_equal(starts.vector(probe), wanted)
        unit = starts.unit(probe, torch.device("cpu"))
        assert float(unit.norm()) == pytest.approx(1, abs=1e-15)


def test_gaussian_weights_only_add_noise():
    # |v|² / dim times the rule of v / |v|: Hutchinson's estimate of a trace
    dim, draws = 20, 200_000
    spectrum = 3 + np.linspace(-1, 1, dim)
    v = np.random.default_rng(0).standard_normal((draws, dim))
    sphere = (v**2 @ spectrum) / (v**2).sum(axis=1)
    gauss = (v**2 @ spectrum) / dim
    added = gauss.var() - sphere.var()
    # E t² (2/dim), t the estimate of the sphere; both variances are known to 1% here
    assert added == pytest.approx(2 / dim * (sphere**2).mean(), rel=0.03)


@pytest.mark.parametrize("distribution", ["sphere", "rademacher"])
def test_the_trace_is_unbiased_and_its_variance_is_that_of_the_docstring(distribution):
    rng = np.random.default_rng(1)
    dim, a = 60, rng.standard_normal((60, 60))
    matrix = (a + a.T) / 2 + np.diag(rng.standard_normal(60) * 5)
    found = rm.lanczos(matrix, steps=2, probes=3000, distribution=distribution)
    traces = found.diagonals[:, 0]  # uᵀAu
    if distribution == "sphere":
        values = np.linalg.eigvalsh(matrix)
        variance = 2 * np.sum((values - values.mean()) ** 2) / (dim * (dim + 2))
    else:
        variance = 2 * np.sum((matrix - np.diag(np.diag(matrix))) ** 2) / dim**2
    assert traces.var() == pytest.approx(variance, rel=0.1)  # its own scatter is 2.6%
    assert abs(traces.mean() - np.trace(matrix) / dim) < 4 * np.sqrt(variance / 3000)


@pytest.mark.slow
def test_standard_errors_of_the_trace_are_honest():
    # 32 probes: (mean - truth) / error follows Student's t with 31 degrees of freedom, of standard
    # deviation 1.034; over 200 seeds its estimate scatters by 5%.
    rng = np.random.default_rng(0)
    a = rng.standard_normal((300, 150))
    matrix = a @ a.T / 150
    z = []
    for seed in range(200):
        found = rm.lanczos(matrix, steps=4, probes=32, seed=seed)
        error = found.standard_error(lambda rule: rule.moment(1))
        z.append((found.moment(1) - np.trace(matrix) / 300) / error)
    assert 0.85 < np.std(z) < 1.15
    assert abs(np.mean(z)) < 4 / np.sqrt(200)


def test_a_deflated_run_has_honest_standard_errors_too():
    spectrum = np.append(np.random.default_rng(0).random(200), [30.0, 50.0])
    z = []
    for seed in range(40):
        found = rm.lanczos(np.diag(spectrum), steps=6, probes=16, seed=seed, deflate=2)
        error = found.standard_error(lambda rule: rule.moment(1))
        z.append((found.moment(1) - spectrum.mean()) / error)
    # Student with 15 degrees of freedom: 1.07; 40 seeds: 12%
    assert 0.7 < np.std(z) < 1.5
    assert abs(np.mean(z)) < 4 / np.sqrt(40)
