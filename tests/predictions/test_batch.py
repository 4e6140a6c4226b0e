"""Batches against all data: every batch of a small problem, random matrices, the digits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from predictions.widths import numbers, rows
from torch import nn

import rmthess as rm
from rmthess.demo.problems import Digits
from rmthess.predictions.batch_noise import BatchNoise

MSE, LOSS = nn.MSELoss(), nn.CrossEntropyLoss()


def linear_problem(samples, dim, spread=0.3, seed=0):
    """A linear model: H_i = 2 x_i x_iᵀ, whatever the weights; one direction of x stands out."""
    rng = np.random.default_rng(seed)
    x = spread * rng.standard_normal((samples, dim))
    x[:, 0] += 1.0
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(dim, 1, bias=False).double()
    return model, (torch.as_tensor(x), torch.zeros(samples, 1, dtype=torch.float64)), x


def top(x, count=1):
    values = np.linalg.eigvalsh(2 * x.T @ x / len(x))[::-1][:count]
    return values[0] if count == 1 else values


def trained(seed, steps, hidden=32):
    digits = Digits.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)
        model = nn.Sequential(*layers).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        LOSS(model(digits.inputs), digits.labels).backward()
        optimiser.step()
    return model, (digits.inputs, digits.labels)


def test_the_variances_are_those_of_the_single_samples():
    model, data, x = linear_problem(40, 6)
    noise = rm.batch_noise(model, MSE, data, count=3)
    H = 2 * x.T @ x / len(x)
    values, vectors = np.linalg.eigh(H)
    v = vectors[:, -1]
    products = 2 * x * (x @ v)[:, None]
    np.testing.assert_allclose(noise.values[:4], values[::-1][:4])
    wanted = (products @ vectors[:, ::-1][:, :4]).var(axis=0)
    np.testing.assert_allclose(noise.variances[:4], wanted, rtol=1e-9)
    assert noise.total == pytest.approx(products.var(axis=0).sum(), rel=1e-9)


def test_second_order_is_the_mean_over_all_batches():
    """All 66 batches of 10 out of 12; what is left is of third order in the noise."""
    model, data, x = linear_problem(12, 4)
    noise = rm.batch_noise(model, MSE, data, count=3)
    wanted = np.mean([top(x[list(chosen)]) for chosen in combinations(range(12), 10)])
    assert noise.largest(10) - noise.values[0] == pytest.approx(wanted - top(x), rel=0.2)
    assert noise.largest(12) == pytest.approx(top(x), rel=1e-12)


def test_a_shift_larger_than_the_distance_to_the_second_eigenvalue_is_refused():
    model, data, _ = linear_problem(60, 20, spread=1.0)
    noise = rm.batch_noise(model, MSE, data)
    with pytest.warns(UserWarning, match=r"more than its distance to the second.*larger batches"):
        assert np.isnan(noise.largest(5))
    lone = BatchNoise(np.array([1.0, 0.0]), np.array([0.5, 0.0]), 400.0, 1.0, 100)
    with pytest.warns(UserWarning, match="more than itself, 1:"):
        assert np.isnan(lone.largest(5))


def test_the_mean_over_all_pairs_of_batches_is_of_fourth_order():
    """6 of 12 and the other 6, all 924 pairs; half the noise leaves a sixteenth."""
    left = []
    for noise in (0.1, 0.05):
        x = noise * np.random.default_rng(3).standard_normal((12, 3))
        x[:, 0] += 1.0
        matrices, found, alone = 2 * x[:, :, None] * x[:, None, :], [], []
        for a in combinations(range(12), 6):
            values, vectors = np.linalg.eigh(matrices[list(a)].mean(axis=0))
            other = matrices[sorted(set(range(12)) - set(a))].mean(axis=0)
            elsewhere = vectors[:, -1] @ other @ vectors[:, -1]
            alone.append(values[-1])
            found.append((1 + 6 / 12) / 2 * values[-1] + (1 - 6 / 12) / 2 * elsewhere)
        left.append(abs(np.mean(found) - top(x)))
        assert left[-1] < 0.005 * (np.mean(alone) - top(x))
    assert 12 < left[0] / left[1] < 20


def test_without_noise_the_eigenvalues_are_exact():
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64).repeat(40, 1)
    model = nn.Linear(2, 1, bias=False).double()
    found = rm.batch_extrapolation(model, MSE, (x, x[:, :1]), size=10, count=2)
    np.testing.assert_allclose(found.values, [50.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.errors, 0, atol=1e-12)
    assert found.known


def test_an_outlier_is_that_of_all_data_and_the_edge_of_a_bulk_says_that_it_is_not():
    """The edge of a white bulk of samples moves like b^(-1/2), and its eigenvectors are noise."""
    model, data, x = linear_problem(2000, 30, spread=1.0)
    found = rm.batch_extrapolation(model, MSE, data, size=400, sets=20, most=20, seed=1)
    full = top(x, 2)
    biased = found.alone[0].mean(axis=0) - full
    left = np.abs(found.values - full)
    assert biased[0] > 5 * found.errors[0]
    assert left[0] < 4 * found.errors[0]
    assert found.shared.tolist() == [True, False]
    assert biased[1] > found.errors[1] > left[1] > 0.2 * biased[1]
    assert "in all 2000 samples" in str(found)
    assert "eigenvalue 2 has another eigenvector in each set" in str(found)


@pytest.mark.slow
def test_the_error_covers_the_scatter_between_runs():
    """Of few rounds (Student), the rest of the fourth order, and the number of eigenvectors."""
    model, data, x = linear_problem(600, 10, spread=1.0)
    runs = [
        rm.batch_extrapolation(model, MSE, data, size=100, sets=12, most=12, seed=seed)
        for seed in range(25)
    ]
    scatter = np.std([run.values[0] for run in runs], ddof=1)
    claimed = np.sqrt(np.mean([run.errors[0] ** 2 for run in runs]))
    assert 1 < claimed / scatter < 2.5
    off = np.array([(run.values[0] - top(x)) / run.errors[0] for run in runs])
    assert np.mean(np.abs(off) < 2) > 0.9


def test_sets_are_added_until_the_largest_is_known_or_enough_are_measured():
    model, data, x = linear_problem(600, 10, spread=1.0)
    options = {"size": 100, "sets": 8, "seed": 1}
    first = rm.batch_extrapolation(model, MSE, data, most=8, **options)
    share = first.errors[0] / first.values[0]
    assert len(first.whole) == 4
    finer = rm.batch_extrapolation(model, MSE, data, tolerance=0.6 * share, **options)
    assert len(finer.whole) > 4
    np.testing.assert_array_equal(finer.whole[:4], first.whole)
    assert finer.known or len(finer.whole) == 16
    assert ("is known to" in str(finer)) != finer.known
    assert abs(finer.values[0] - top(x)) < 3 * finer.errors[0]
    coarse = rm.batch_extrapolation(model, MSE, data, tolerance=1.1 * share, **options)
    assert len(coarse.whole) == 4
    assert "is known to" not in str(coarse)


def test_two_close_eigenvalues_repel_in_each_batch_and_not_here():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1200, 2))
    x = 2 * x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / 1200)).T  # λ_1 = λ_2 = 8
    x = np.hstack([x, 0.5 * rng.standard_normal((1200, 6))])
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(8, 1, bias=False).double()
    data = torch.as_tensor(x), torch.zeros(1200, 1, dtype=torch.float64)
    found = rm.batch_extrapolation(model, MSE, data, size=300, sets=24, most=24)
    full = top(x, 2)
    assert found.line[0] > 1.01 * full[0]
    np.testing.assert_allclose(found.values, full, rtol=1e-3)
    assert np.all(np.abs(found.values - full) < 2 * found.errors)


def test_data_in_several_batches_are_one():
    model, data, _ = linear_problem(40, 6)
    parts = [(data[0][:25], data[1][:25]), (data[0][25:], data[1][25:])]
    one, two = (rm.batch_extrapolation(model, MSE, d, size=20, sets=8) for d in (data, parts))
    np.testing.assert_array_equal(one.whole, two.whole)


@pytest.mark.parametrize("row", rows("Granziol additive"))
def test_the_isotropic_baseline_is_the_spike_of_the_table(row):
    (theta,) = numbers(row["parameters"])[:1]
    noise = BatchNoise(np.array([theta, 0.0]), np.zeros(2), 0.0, isotropic_total=1.0, samples=2)
    spike = noise.isotropic(1)  # one sample of two: the factor is 1
    if "overlap" in row["quantity"]:
        found = spike.overlap
    else:
        found = 2.0 if spike.location is None else spike.location
    assert found == pytest.approx(row["value"], abs=1e-5)


def test_the_other_spikes_of_noisy_curvature_are_those_of_the_table():
    (row,) = rows("Granziol/BBP")[0].values
    assert rm.spikes.covariance(5.0, ratio=0.5).location == pytest.approx(row["value"], rel=1e-5)
    (row,) = rows("Baskerville")[0].values
    bulk = rm.MarchenkoPastur(0.5, variance=0.8)
    assert rm.spikes.additive(bulk, 4.0).location == pytest.approx(row["value"], rel=1e-5)


def test_without_noise_the_isotropic_baseline_stays():
    noise = BatchNoise(np.array([2.0, 1.0]), np.zeros(2), 0.0, isotropic_total=1.0, samples=9)
    assert noise.isotropic(9).location == 2.0


MODEL, DATA, _ = linear_problem(40, 6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 22}, "even and at most half of the 40 samples, got 22"),
        ({"size": 7}, "size must be even"),
        ({"size": 0}, "size must be an integer of at least 2"),
        ({"size": 8, "sets": 4}, "sets must be an integer of at least 8"),
        ({"size": 8, "most": 5}, "most must be an integer of at least 12"),
        ({"size": 8, "tolerance": 0}, "tolerance must be a positive finite number"),
        ({"size": 8, "count": 9}, "count must be at most the 6 parameters, got 9"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        rm.batch_extrapolation(MODEL, MSE, DATA, **options)


def test_bad_data_are_refused():
    x = DATA[0].clone()
    x[3, 2] = torch.nan
    for function in (rm.batch_extrapolation, rm.batch_noise):
        with pytest.raises(ValueError, match="not finite"):
            function(MODEL, MSE, (x, DATA[1]))
        with pytest.raises(TypeError, match="so that samples can be drawn"):
            function(MODEL, MSE, [((DATA[0], DATA[0]), DATA[1])])
    with pytest.raises(ValueError, match="one sample has no scatter"):
        rm.batch_noise(MODEL, MSE, (x[:1], DATA[1][:1]))
    with pytest.raises(ValueError, match="at most the 40 samples, got 41"):
        rm.batch_noise(MODEL, MSE, DATA).largest(41)


def test_a_loss_whose_samples_do_not_average_is_refused():
    model = nn.Linear(6, 3).double()
    weights = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="do not average to that of all"):
        rm.batch_noise(model, weights, (DATA[0], torch.arange(40) % 3))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [25, 150])  # loss .15 and .005
def test_sets_of_a_third_of_the_digits_know_all_of_them_within_their_errors(steps):
    """Five networks each. The rms of five normal numbers exceeds 1.75 once in 100 times."""
    off, errors, alone, line = [], [], [], []
    for seed in range(5):
        model, data = trained(seed, steps)
        values = rm.eigenpairs(rm.hessian(model, LOSS, data), 14).values
        full = np.sort(values)[::-1][:10]
        found = rm.batch_extrapolation(
            model, LOSS, data, size=596, sets=12, most=12, count=10, seed=seed
        )
        wanted = np.array([full[0], full.sum()])
        claimed = np.array([found.errors[0], found.sum_errors[-1]])
        missed = np.array([found.values[0], found.sums[-1]]) - wanted
        off.append(missed / claimed)
        errors.append(np.abs(missed) / wanted)
        alone.append(found.alone[0].sum(axis=1).mean() / full.sum() - 1)
        line.append(abs(found.line[0] / full[0] - 1))
    assert np.sqrt(np.mean(np.square(off), axis=0)).max() < 1.75
    assert np.max(errors) < 0.017
    assert np.median(errors, axis=0)[0] < 0.5 * np.median(line)
    assert min(alone) > np.max(errors, axis=0)[1]  # what it corrects


@pytest.mark.slow
def test_noise_of_digits_has_a_direction_that_the_isotropic_model_does_not_know():
    model, data = trained(2, 25)
    noise = rm.batch_noise(model, LOSS, data)
    assert 100 < noise.total / noise.isotropic_total < 1000
    found = rm.batch_extrapolation(model, LOSS, data, size=512, sets=12, most=12)
    measured = found.alone[0, :, 0].mean() - noise.values[0]
    isotropic = noise.isotropic(512).location - noise.values[0]
    assert isotropic < 0.05 * noise.shift(512)
    assert noise.largest(512) == pytest.approx(noise.values[0] + measured, rel=0.08)
