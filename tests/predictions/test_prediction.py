"""A prediction as a value: what it counts, prints and refuses."""

from __future__ import annotations

import numpy as np
import pytest

import rmthess as rm
from rmthess.predictions.prediction import Prediction, transition
from rmthess.ranks.network import RankBound

BULK = rm.Semicircle(0.7, 0.3)
OUTSIDE = (rm.spikes.additive(BULK, 2.0), rm.spikes.additive(BULK, -3.0))
ABSORBED = rm.spikes.additive(BULK, 0.1)
RANK = RankBound(45, 5, 50, "bound", "45 of 50")


def prediction(dim=50, bulk=BULK, spikes=(*OUTSIDE, ABSORBED), rank=RANK):
    return Prediction(dim, bulk, spikes, rank, ("a bulk", "three spikes"), "asymptotic")


def test_outliers_are_the_spikes_that_the_bulk_does_not_absorb():
    found = prediction().locations
    assert found.tolist() == sorted(spike.location for spike in OUTSIDE)


def test_eigenvalues_are_dim_many_and_interleave_bulk_quantiles_with_outliers():
    values = prediction().eigenvalues()
    assert values.shape == (50,)
    assert values[[0, -1]].tolist() == prediction().locations.tolist()
    assert np.allclose(BULK.cdf(values[1:-1]), (np.arange(48) + 0.5) / 48)


def test_the_measure_has_weight_one_over_dim_on_each_outlier():
    measure = prediction().measure()
    assert measure.dim == 50
    assert np.allclose(measure.weights, 1 / 50)
    assert np.array_equal(measure.nodes, prediction().eigenvalues())


def test_the_measure_of_a_large_matrix_keeps_the_mass_of_the_bulk_on_few_atoms():
    measure = prediction(dim=10**7).measure()
    assert measure.nodes.size == 4096 + 2
    assert measure.dim == 10**7
    assert np.isclose(measure.weights[[0, -1]], 1e-7).all()
    assert abs(measure.cdf(0.3) - 0.5) < 1e-3


def test_a_bulk_of_known_eigenvalues_keeps_its_multiplicities():
    known = rm.DiscreteMeasure([1.0, 2.0], [0.25, 0.75])
    assert prediction(dim=8, bulk=known, spikes=()).eigenvalues().tolist() == [1.0] * 2 + [2.0] * 6


def test_it_prints_edges_outliers_rank_and_what_it_assumes():
    text = str(prediction())
    assert text.splitlines()[0] == "side 50, bulk -1.37332 to 1.97332"
    assert "outlier at 2.65 ±" in text
    assert "absorbed by the bulk" in text
    assert "rank ≤ 45" in text
    assert text.endswith("Assumes a bulk; three spikes (asymptotic).")


def test_atoms_of_the_bulk_are_printed():
    assert "0.5 of it at 0" in str(prediction(bulk=rm.MarchenkoPastur(2.0), spikes=()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"dim": 2}, "2 outliers leave no bulk of a matrix of side 2"),
    ],
)
def test_it_refuses_a_matrix_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        prediction(**arguments)


def test_it_refuses_an_unknown_status_and_a_bare_sentence():
    with pytest.raises(ValueError, match="status must be one of theorem, asymptotic, heuristic"):
        Prediction(9, BULK, (), None, (), "certain")
    with pytest.raises(TypeError, match="assumptions must be a tuple of clauses"):
        Prediction(9, BULK, (), None, "nothing", "theorem")


def test_a_transition_needs_two_sides():
    with pytest.raises(ValueError, match="no transition is known between them"):
        transition(lambda x: prediction(), 0.0, 1.0)
