"""Choice among families: the true one wins, equals are called equal."""

from __future__ import annotations

import numpy as np
import pytest
from chains import run_of

import rmthess as rm
from rmthess.families import FAMILIES, discrete_covariance, with_noise
from rmthess.sampling import sample_chains

TWO = rm.SampleCovariance(0.4, rm.DiscreteMeasure([0.5, 2.0], [0.5, 0.5]))
WHITE = rm.MarchenkoPastur(0.4, 1.7)


def run(law, dim=2000, probes=6, steps=20, seed=0):
    if law.ensemble is not None:
        a, b = law.sample_jacobi(steps + 1, dim, np.random.default_rng(seed), probes)
    else:
        a, b = (chain[0] for chain in sample_chains(law, steps + 1, dim, probes, 1, seed))
    return run_of(a, b, dim)


def test_held_out_probes_tell_two_atoms_from_one():
    families = [rm.Semicircle, rm.MarchenkoPastur, discrete_covariance(2)]
    found = rm.choose(families, run(TWO), bootstrap=40)
    assert [item.name for item in found.candidates] == [
        "discrete_covariance_2", "MarchenkoPastur", "Semicircle",
    ]  # fmt: skip
    assert found.chosen.name == "discrete_covariance_2"
    assert not any(item.tied for item in found.candidates[1:])
    assert "predicts the probes left out best, by" in found.reason
    assert found.fit.parameters["ratio"] == pytest.approx(0.4, abs=0.05)


def test_families_that_hold_each_other_are_not_told_apart():
    """Two atoms fit white data as well as one does, and have two parameters more."""
    found = rm.choose([discrete_covariance(2), rm.MarchenkoPastur], run(WHITE), bootstrap=0)
    assert found.chosen.name == "MarchenkoPastur"
    assert "cannot be told apart; MarchenkoPastur: it has fewer parameters" in found.reason
    assert "not told apart" in str(found)


def test_eigenvalues_are_judged_by_an_information_criterion():
    families = [rm.MarchenkoPastur, rm.Semicircle, with_noise(FAMILIES["marchenko_pastur"])]
    values = WHITE.sample(150, np.random.default_rng(1))
    found = rm.choose(families, rm.DiscreteMeasure.from_eigenvalues(values), bootstrap=40)
    assert found.chosen.name == "MarchenkoPastur"
    assert found.criterion == "AIC"
    scores = {item.name: item.behind for item in found.candidates}
    assert scores["Semicircle"] > 50
    assert scores["marchenko_pastur_with_noise"] < 10  # it holds the truth: noise 0


def test_fewer_than_four_probes_are_not_held_out():
    found = rm.choose([rm.MarchenkoPastur, rm.Semicircle], run(WHITE, probes=3), bootstrap=40)
    assert found.criterion == "AIC"
    assert found.chosen.name == "MarchenkoPastur"


def test_the_best_of_wrong_families_is_called_wrong():
    values = TWO.sample(200, np.random.default_rng(2))
    measure = rm.DiscreteMeasure.from_eigenvalues(values)
    found = rm.choose([rm.MarchenkoPastur, rm.Semicircle], measure, bootstrap=100)
    assert "best of these, and refused by the data all the same" in found.reason


def test_a_family_without_a_score_says_why_and_comes_last():
    values = WHITE.sample(100, np.random.default_rng(3))
    measure = rm.DiscreteMeasure.from_eigenvalues(values)
    found = rm.choose([rm.Uniform, rm.MarchenkoPastur, lambda x: rm.Semicircle(x)], measure)
    assert found.chosen.name == "MarchenkoPastur"
    assert "Uniform has no canonical matrix ensemble" in str(found)
    assert "no fit: pass start=" in str(found)
    assert np.isinf([item.score for item in found.candidates[1:]]).all()


def test_none_with_a_score_is_refused():
    nodes = rm.DiscreteMeasure(np.arange(5.0), np.full(5, 0.2))
    with pytest.raises(ValueError, match=r"none of the families has a score \(Semicircle: no sco"):
        rm.choose([rm.Semicircle, rm.Uniform], nodes)


@pytest.mark.parametrize(
    ("families", "sentence"),
    [
        ([rm.Semicircle], "at least two families, got 1"),
        ([rm.Semicircle, rm.Semicircle], "different names, got Semicircle, Semicircle"),
    ],
)
def test_a_choice_needs_different_families(families, sentence):
    with pytest.raises(ValueError, match=sentence):
        rm.choose(families, run(WHITE))
