"""Spikes: published values, matrices, thresholds, any bulk, and the way back to the strength."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import rmthess as rm
from rmthess import spikes
from rmthess.free.boxplus import boxplus
from rmthess.laws.sample_covariance import SampleCovariance
from rmthess.spikes import additive, additive_strength, covariance, covariance_strength, rectangular

TABLE = json.loads((Path(__file__).parent / "reference" / "laws.json").read_text("utf-8"))
OUTLIERS = {entry["name"]: entry for entry in TABLE if entry["kind"] == "outlier"}
THREE = rm.DiscreteMeasure([1.0, 3.0, 10.0], np.full(3, 1 / 3))
WISHART_PLUS_WIGNER = boxplus(rm.MarchenkoPastur(0.25), rm.Semicircle(0.5))


def predicted(entry):
    """What the code says, in the order of the entry's values."""
    p = {
        k: v if isinstance(v, list) else float(Fraction(v)) for k, v in entry["parameters"].items()
    }
    name = entry["name"]
    if name.startswith("spiked_wigner"):
        spike = additive(rm.Semicircle(p["sigma"] ** 2), p["theta"])
        return spike.location, spike.overlap, spike.fluctuation**2
    if name.startswith("spiked_covariance"):
        spike = covariance(p["ell"], p["c"])
        # the table's variance is that of √samples (λ - location)
        return spike.location, spike.overlap, None, spike.fluctuation**2 / p["c"]
    if name.startswith("additive_spike"):
        bulk = rm.MarchenkoPastur(p["c"], p["sigma2"])
        if "wigner" in name:
            bulk = boxplus(bulk, rm.Semicircle(p["variance_semicircle"]))
        spike = additive(bulk, p["theta"])
        return spike.location, spike.overlap, spike.threshold, bulk.support[0][1]
    if name.startswith("spiked_gmp"):
        spike = covariance(p["ell"], p["c"], population=THREE)
        rise = spike.overlap * spike.location / spike.strength
        return spike.location, spike.overlap, rise
    spike = rectangular(p["theta"], p["c"])
    return spike.location, spike.overlap, spike.right_overlap


@pytest.mark.parametrize("entry", OUTLIERS.values(), ids=OUTLIERS)
def test_spike_agrees_with_the_table(entry):
    compared = 0
    for found, wanted in zip(predicted(entry), entry["values"], strict=False):
        if found is not None:
            assert found == pytest.approx(float(wanted), rel=1e-11)
            compared += 1
    assert compared >= 3


# ---------------------------------------------------------------------------- matrices


def outliers_of(matrix_of, direction, trials, seed):
    """Top eigenvalue and its squared overlap with ``direction`` over seeded matrices."""
    rng = np.random.default_rng(seed)
    tops, overlaps = [], []
    for _ in range(trials):
        values, vectors = np.linalg.eigh(matrix_of(rng))
        tops.append(values[-1])
        overlaps.append((vectors[:, -1] @ direction) ** 2)
    return np.array(tops), np.array(overlaps)


def agrees(spike, dim, tops, overlaps):
    """Location within 4 standard errors and O(1/dim), overlap to 3%, fluctuation to 4 errors."""
    trials = tops.size
    error = spike.std(dim) / np.sqrt(trials)
    assert abs(tops.mean() - spike.location) < 4 * error + 5 / dim
    assert abs(overlaps.mean() - spike.overlap) < 0.03
    assert abs(tops.std(ddof=1) / spike.std(dim) - 1) < 4 / np.sqrt(2 * trials)


DIM, TRIALS = 600, 24
E1 = np.eye(DIM)[0]


def goe(rng, variance):
    x = rng.standard_normal((DIM, DIM))
    return np.sqrt(variance / (2 * DIM)) * (x + x.T)


def test_a_spiked_wigner_matrix_of_side_600():
    theta = np.zeros((DIM, DIM))
    theta[0, 0] = 2.0
    seen = outliers_of(lambda rng: goe(rng, 0.7) + theta, E1, TRIALS, 1)
    agrees(additive(rm.Semicircle(0.7), 2.0), DIM, *seen)


def test_a_spike_on_wishart_plus_wigner_of_side_600():
    theta = np.zeros((DIM, DIM))
    theta[0, 0] = 3.0

    def matrix(rng):
        x = rng.standard_normal((4 * DIM, DIM))
        return x.T @ x / (4 * DIM) + goe(rng, 0.5) + theta

    agrees(additive(WISHART_PLUS_WIGNER, 3.0), DIM, *outliers_of(matrix, E1, TRIALS, 2))


def test_a_spiked_covariance_matrix_of_side_600():
    scale = np.ones(DIM)
    scale[0] = np.sqrt(4.0)

    def matrix(rng):
        x = rng.standard_normal((2 * DIM, DIM)) * scale
        return x.T @ x / (2 * DIM)

    agrees(covariance(4.0, 0.5), DIM, *outliers_of(matrix, E1, TRIALS, 3))


def test_a_spike_among_three_population_eigenvalues_of_side_600():
    scale = np.sqrt(np.concatenate([[25.0], np.repeat([1.0, 3.0, 10.0], 200)[1:]]))

    def matrix(rng):
        x = rng.standard_normal((2 * DIM, DIM)) * scale
        return x.T @ x / (2 * DIM)

    agrees(covariance(25.0, 0.5, population=THREE), DIM, *outliers_of(matrix, E1, TRIALS, 4))


def test_a_rectangular_spike_of_side_600():
    rng, c, theta = np.random.default_rng(5), 0.5, 1.6
    spike = rectangular(theta, c)
    found = []
    for _ in range(8):
        x = rng.standard_normal((DIM, 2 * DIM)) / np.sqrt(2 * DIM)
        x[0, 0] += theta
        u, s, v = np.linalg.svd(x, full_matrices=False)
        found.append([s[0], u[0, 0] ** 2, v[0, 0] ** 2])
    location, left, right = np.mean(found, axis=0)
    assert abs(location - spike.location) < 4 * np.std(found, axis=0)[0] / np.sqrt(8) + 5 / DIM
    assert abs(left - spike.overlap) < 0.03
    assert abs(right - spike.right_overlap) < 0.03


# ---------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(
    ("make", "threshold"),
    [
        (lambda theta: additive(rm.Semicircle(1.7, 0.4), theta), np.sqrt(1.7)),
        (lambda theta: additive(rm.Semicircle(1.7, 0.4), -theta), -np.sqrt(1.7)),
        (lambda ell: covariance(ell, 0.49), 1.7),
        (lambda theta: rectangular(theta, 0.43), 0.43**0.25),
    ],
    ids=["semicircle", "negative", "covariance", "rectangular"],
)
def test_the_threshold_is_the_closed_form(make, threshold):
    weak, strong = make(abs(threshold) * (1 - 1e-6)), make(abs(threshold) * (1 + 1e-3))
    assert weak.threshold == pytest.approx(threshold, rel=1e-6)
    assert weak.location is None
    assert weak.overlap == 0
    assert 0 < strong.overlap < 0.01


def test_additive_threshold_of_marchenko_pastur():
    """G at the right edge v(1 + √q)² is 1/(v √q (1 + √q))."""
    q, v = 0.43, 1.7
    wanted = v * np.sqrt(q) * (1 + np.sqrt(q))
    assert additive(rm.MarchenkoPastur(q, v), 0.1).threshold == pytest.approx(wanted, rel=1e-7)


@pytest.mark.parametrize("bulk", [WISHART_PLUS_WIGNER, SampleCovariance(0.3, THREE)],
                         ids=["wishart_plus_wigner", "sample_covariance"])  # fmt: skip
def test_an_outlier_leaves_a_general_bulk_at_its_edge(bulk):
    edge = bulk.support[-1][1]
    threshold = additive(bulk, 1e-3).threshold
    spike = additive(bulk, threshold * 1.01)
    assert edge < spike.location < edge + 0.01 * (edge - bulk.support[0][0])
    assert spike.overlap < 0.2
    for theta in threshold * np.array([1.3, 2.0, 5.0]):
        spike = additive(bulk, theta)
        assert np.real(bulk.stieltjes(spike.location)) == pytest.approx(-1 / theta, rel=1e-12)
        step = 1e-4  # overlap = d location/d θ: first-order perturbation theory
        rise = (additive(bulk, theta + step).location - additive(bulk, theta - step).location) / (
            2 * step
        )
        assert spike.overlap == pytest.approx(rise, rel=1e-6)


def test_a_bulk_of_two_sides_sends_negative_spikes_to_the_left():
    up, down = additive(rm.Semicircle(0.7), 2.0), additive(rm.Semicircle(0.7), -2.0)
    assert down.location == pytest.approx(-up.location, rel=1e-14)
    assert down.overlap == pytest.approx(up.overlap, rel=1e-12)
    assert down.threshold == pytest.approx(-up.threshold)


def test_a_spike_on_atoms_is_first_order_perturbation_theory():
    """Atoms have no threshold: G is infinite at the outermost."""
    spike = additive(THREE, 0.01)
    assert spike.threshold == 0
    assert spike.location == pytest.approx(10 + 0.01 / 3, rel=1e-5)


def test_a_small_population_eigenvalue_leaves_below():
    spike = covariance(0.1, 0.25)
    assert spike.location < rm.MarchenkoPastur(0.25).support[0][0]
    assert spike.threshold == pytest.approx(0.5, rel=1e-9)
    assert covariance(0.6, 0.25).location is None


# ---------------------------------------------------------------------------- the way back


def test_an_outlier_gives_its_strength_away():
    for bulk in (rm.Semicircle(0.7, 0.3), rm.MarchenkoPastur(0.43, 1.7), WISHART_PLUS_WIGNER,
                 SampleCovariance(0.3, THREE)):  # fmt: skip
        threshold = additive(bulk, 1e-3).threshold
        for theta in threshold * np.array([1.1, 2.0, 30.0]):
            location = additive(bulk, theta).location
            assert additive_strength(bulk, location) == pytest.approx(theta, rel=1e-10)
    for ell in (2.0, 7.0, 0.2):
        location = covariance(ell, 0.25).location
        assert covariance_strength(location, 0.25) == pytest.approx(ell, rel=1e-12)
    location = covariance(25.0, 0.3, population=THREE).location
    found = covariance_strength(location, 0.3, population=THREE)
    assert found == pytest.approx(25.0, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: additive(rm.Semicircle(), 0), "without a spike there is no outlier"),
        (lambda: additive(rm.Semicircle(), np.nan), "strength must be a finite number, got nan"),
        (lambda: additive_strength(rm.Semicircle(), 1.0), "lies within the bulk, -2 to 2"),
        (lambda: covariance(-1.0, 0.5), "strength must be a positive finite number, got -1"),
        (lambda: covariance(3.0, 0.0), "ratio must be a positive finite number, got 0"),
        (lambda: covariance(3.0, 0.3, population=THREE), "lies within the population, 1 to 10"),
        (lambda: covariance_strength(1.0, 0.25), "location 1 lies within the bulk"),
        (lambda: rectangular(0.0, 1.0), "strength must be a positive finite number, got 0"),
        (lambda: additive(rm.Semicircle(), 2.0).std(0), "dim must be positive, got 0"),
    ],
)
def test_a_bad_argument_is_refused_with_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_module_is_reached_from_the_package():
    assert rm.spikes is spikes


@pytest.mark.parametrize(("theta", "ratio"), [(1.5, 0.5), (2.5, 1.7)])
def test_a_singular_value_fluctuates_as_the_quadratic_forms_say(theta, ratio):
    """400 matrices of side 120: a standard deviation has an error of 3.5 percent."""
    dim = 120
    samples = round(dim / ratio)
    spike = rectangular(theta, dim / samples)
    rng, found = np.random.default_rng(31), []
    for _ in range(400):
        x = rng.standard_normal((dim, samples)) / np.sqrt(samples)
        x[0, 0] += theta
        found.append(np.linalg.norm(x, 2))
    assert np.std(found) == pytest.approx(spike.std(dim), rel=0.12)
    q, s = dim / samples, theta**2
    closed = q * (s**2 - q) * (2 * s + 1 + q) / (2 * s * (s + q) * (s + 1))
    assert spike.fluctuation**2 == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize(
    "bulk",
    [
        rm.Semicircle(),
        rm.MarchenkoPastur(0.3),
        rm.SampleCovariance(0.5, rm.DiscreteMeasure([1.0, 2.0], [0.5, 0.5])),
        rm.boxplus(rm.Uniform(0, 1), rm.MarchenkoPastur(0.3)),
    ],
    ids=lambda bulk: type(bulk).__name__,
)
def test_just_above_threshold_the_outlier_is_at_the_edge_and_nothing_is_nan(bulk):
    end = bulk.support[-1][1]
    threshold = rm.spikes.additive(bulk, 5.0).threshold
    for excess in (1e-15, 1e-12, 1e-9, 1e-7, 1e-5):
        spike = rm.spikes.additive(bulk, threshold * (1 + excess))
        assert spike.location == pytest.approx(end, abs=20 * excess**2 + 1e-14)
        assert 0 <= spike.overlap <= 10 * excess
        assert 0 <= spike.fluctuation <= 10 * excess**0.5


def test_a_rectangular_spike_just_above_threshold_has_no_overlap():
    threshold = rm.spikes.rectangular(3.0, 0.5).threshold
    spike = rm.spikes.rectangular(threshold * (1 + 1e-12), 0.5)
    assert spike.overlap <= 1e-9
    assert spike.fluctuation <= 1e-4
