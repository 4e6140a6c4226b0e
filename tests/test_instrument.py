"""Instruments: one set of coordinates for a measurement, a law and a random matrix."""

from __future__ import annotations

import numpy as np
import pytest
from chains import run_of
from test_measure import measured

import rmthess as rm
from rmthess.instrument import EigenvalueInstrument, LanczosInstrument, NoDraws, instrument_of

LAW = rm.MarchenkoPastur(0.43, 1.7)
RNG_SEED = 30


def eigenvalue_instrument(values):
    return instrument_of(rm.DiscreteMeasure.from_eigenvalues(values))


def lanczos_measure(law=LAW, steps=10, dim=300, probes=3):
    a, b = law.sample_jacobi(steps + 1, dim, np.random.default_rng(RNG_SEED), probes)
    return run_of(a, b, dim)


# ------------------------------------------------------------------- eigenvalues


def test_the_quantiles_of_a_law_lie_at_distance_zero_from_it():
    instrument = eigenvalue_instrument(LAW.quantile((np.arange(40) + 0.5) / 40))
    np.testing.assert_allclose(instrument.observe(), instrument.expect(LAW), atol=1e-14)


def test_distance_between_eigenvalues_and_law_is_wasserstein_two():
    """√∫(Q_mu - Q_law)² dp by 4e5 midpoints; one quantile a weight is off by its variance there."""
    values = LAW.sample(400, np.random.default_rng(1)) + 0.4
    instrument = eigenvalue_instrument(values)
    p = (np.arange(400_000) + 0.5) / 400_000
    gap = rm.DiscreteMeasure.from_eigenvalues(values).quantile(p) - LAW.quantile(p)
    found = np.linalg.norm(instrument.observe() - instrument.expect(LAW))
    assert found == pytest.approx(np.sqrt(np.mean(gap**2)), rel=1e-3)


def test_unequal_weights_count_by_their_weight():
    once = instrument_of(rm.DiscreteMeasure([1.0, 2.0, 4.0], [0.25, 0.25, 0.5]))
    shift = once.expect(LAW.shift(0.7)) - once.expect(LAW)
    np.testing.assert_allclose(shift, 0.7 * np.sqrt([0.25, 0.25, 0.5]), atol=1e-12)
    np.testing.assert_allclose(once.expect(LAW)[2], np.sqrt(0.5) * LAW.quantile(0.75), atol=1e-12)


def test_a_drawn_matrix_is_sorted_eigenvalues_in_the_same_coordinates():
    instrument = eigenvalue_instrument(LAW.sample(60, np.random.default_rng(2)))
    draws = instrument.draw(LAW, 300, seed=3).coordinates
    assert np.all(np.diff(draws) >= 0)
    bias = draws.mean(axis=0) - instrument.expect(LAW)
    # the mean of the i-th eigenvalue is its quantile to O(1/dim) of the width
    assert np.abs(bias).max() * np.sqrt(60) < 2 / 60 * np.ptp(LAW.support[0])
    first, second = (instrument.draw(LAW, 2, seed=4).coordinates for _ in range(2))
    np.testing.assert_array_equal(first, second)


# ------------------------------------------------------------------- Lanczos


@pytest.mark.parametrize("dim", [300.0, None])
def test_a_shift_is_a_distance_in_units_of_the_eigenvalues(dim):
    measure = lanczos_measure()
    instrument = LanczosInstrument(measure.diagonals, measure.off_diagonals, dim)
    moved = LanczosInstrument(measure.diagonals - 0.7, measure.off_diagonals, dim)
    assert np.linalg.norm(moved.observe() - instrument.observe()) == pytest.approx(0.7, rel=1e-13)
    shift = instrument.expect(LAW.shift(0.7)) - instrument.expect(LAW)
    assert np.linalg.norm(shift) == pytest.approx(0.7, rel=1e-13)


def test_lanczos_distance_is_the_root_mean_square_of_the_band_edges():
    """Edges a_k ± 2 b_k; the last step has no b, so its two edges move by the diagonal alone."""
    measure = lanczos_measure(probes=1, steps=6)
    instrument = instrument_of(measure)
    a, b = LAW.mean_jacobi(6, 300)
    da, db = measure.diagonals[0] - a, np.append(measure.off_diagonals[0] - b, 0)
    edges = np.array([da - 2 * db, da + 2 * db])
    found = np.linalg.norm(instrument.observe() - instrument.expect(LAW))
    assert found == pytest.approx(np.sqrt(np.mean(edges**2)), rel=1e-12)


def test_the_law_is_shown_at_the_side_of_the_matrix_and_in_the_limit_without_one():
    measure = lanczos_measure()
    finite = instrument_of(measure)
    assert finite.dim == 300
    endless = LanczosInstrument(measure.diagonals, measure.off_diagonals, None)
    a, b = LAW.jacobi(10)
    limit = np.concatenate([a, 2 * b]) / np.sqrt(10)
    np.testing.assert_allclose(endless.expect(LAW), limit, rtol=1e-15)
    assert np.abs(finite.expect(LAW) - limit).max() > 1e-3
    # a law without ensemble has no finite side either
    nameless = type("Nameless", (rm.MarchenkoPastur,), {"ensemble": None})(0.43, 1.7)
    np.testing.assert_allclose(finite.expect(nameless), limit, rtol=1e-15)
    large = instrument_of(measure, dim=10**9)
    np.testing.assert_allclose(large.expect(LAW), limit, atol=1e-7)


def test_the_mean_of_draws_is_what_is_expected():
    instrument = instrument_of(lanczos_measure(steps=5, dim=40))
    draws = instrument.draw(LAW, 2000, seed=5).coordinates
    error = draws.std(axis=0) / np.sqrt(2000)
    assert np.all(np.abs(draws.mean(axis=0) - instrument.expect(LAW)) < 4 * error)


def test_probes_go_on_to_the_shortest_breakdown():
    a = [[1.0, 2.0, np.nan, np.nan], [1.0, 2.0, 3.0, np.nan]]
    b = [[0.5, np.nan, np.nan], [0.5, 0.6, np.nan]]
    instrument = instrument_of(rm.LanczosMeasure(a, b, [0, 0], 20))
    assert (instrument.probes, instrument.steps) == (2, 2)
    np.testing.assert_allclose(instrument.observe(), np.array([1, 2, 1.0]) / np.sqrt(2))


# ------------------------------------------------------------------- windows


def test_a_window_on_eigenvalues_leaves_out_the_rest():
    values = np.concatenate([LAW.sample(95, np.random.default_rng(6)), np.full(5, 30.0)])
    inside = instrument_of(rm.DiscreteMeasure.from_eigenvalues(values), (0.0, 10.0))
    bare = eigenvalue_instrument(values[:95])
    assert inside.dim == 95
    np.testing.assert_allclose(inside.observe(), bare.observe(), rtol=1e-13)


def test_a_window_on_a_lanczos_run_leaves_out_converged_outliers():
    """Three outliers of 300 eigenvalues: what is left is the run on the bulk, to 3/4 of its depth.

    Against Lanczos on the bulk itself from the same starts: the same coefficients, to the error of
    outliers that have converged.
    """
    bulk = LAW.sample(297, np.random.default_rng(7))
    matrix = np.diag(np.concatenate([bulk, [20.0, 30.0, 45.0]]))
    measure = measured(matrix, 24, 2, seed=8)
    inside = instrument_of(measure, (0.0, 10.0))
    assert inside.steps == 15  # (24 - 3) * 3 // 4
    starts = np.random.default_rng(8).normal(size=(2, 300))
    mass = np.mean(np.sum(starts[:, :297] ** 2, axis=1) / np.sum(starts**2, axis=1))
    assert inside.dim == pytest.approx(300 * mass, rel=1e-9)
    weights = starts[:, :297] ** 2 / np.sum(starts[:, :297] ** 2, axis=1, keepdims=True)
    for probe in range(2):
        a, b = rm.DiscreteMeasure(bulk, weights[probe]).jacobi(15)
        np.testing.assert_allclose(inside.diagonals[probe], a, atol=1e-3)
        np.testing.assert_allclose(inside.off_diagonals[probe], b, atol=1e-3)


def test_deflated_eigenvalues_are_not_looked_at():
    whole = lanczos_measure()
    measure = rm.LanczosMeasure(
        whole.diagonals, whole.off_diagonals, whole.residuals, 302, deflated=[3.0, 45.0]
    )
    for window in (None, (0.0, 10.0)):
        found, bulk = instrument_of(measure, window), instrument_of(whole, window)
        assert found.dim == bulk.dim
        np.testing.assert_array_equal(found.observe(), bulk.observe())


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize("measure", [LAW, np.arange(3.0), None], ids=["law", "array", "none"])
def test_what_is_no_measurement_is_refused(measure):
    with pytest.raises(TypeError, match=r"got .*; for a list of eigenvalues use Discrete"):
        instrument_of(measure)


@pytest.mark.parametrize("measure", [lanczos_measure(), lanczos_measure().pooled])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"window": (2.0, 1.0)}, r"window must be \(left, right\) with left < right, got"),
        ({"window": (np.nan, 1.0)}, r"window must be \(left, right\) with left < right, got"),
        ({"window": (50.0, 60.0)}, "window 50 to 60 holds no"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"dim": -4}, "dim must be an integer of at least 1, got -4"),
        ({"dim": 2.5}, "dim must be an integer of at least 1, got 2.5"),
    ],
)
def test_a_bad_window_or_side_is_refused(measure, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        instrument_of(measure, **arguments)


def test_no_matrix_is_drawn_without_a_side():
    instrument = LanczosInstrument(np.ones((1, 3)), np.ones((1, 2)), None)
    with pytest.raises(NoDraws, match="the side of the matrix is unknown; pass dim="):
        instrument.draw(LAW, 2, seed=0)
    assert EigenvalueInstrument(rm.DiscreteMeasure([1.0], [1.0])).dim is None
