"""Families by name: each finds its own parameters, and the search finds a population."""

from __future__ import annotations

import numpy as np
import pytest
from chains import run_of
from scipy.special import ndtri

import rmthess as rm
from rmthess import families
from rmthess.families import FAMILIES, discrete_covariance, family, lognormal_covariance
from rmthess.instrument import instrument_of
from rmthess.nearest import quasi_random
from rmthess.sampling import sample_chains

LEVELS = (np.arange(400) + 0.5) / 400

# generic parameters; those of atoms in ascending order
TRUTHS = {
    "semicircle": {"variance": 0.43, "mean": 1.7},
    "marchenko_pastur": {"ratio": 0.43, "variance": 1.7},
    "marchenko_pastur_with_zeros": {"zeros": 0.3, "ratio": 0.43, "variance": 1.7},
    "marchenko_pastur_with_noise": {"noise": 0.17, "ratio": 0.43, "variance": 1.7},
    "lognormal_covariance": {"ratio": 0.43, "scale": 1.7, "spread": 0.6},
    "power_law_covariance": {"ratio": 0.43, "scale": 1.7, "exponent": 3.1},
    "discrete_covariance_2": {"ratio": 0.43, "atom1": 0.6, "atom2": 1.7, "weight1": 0.3},
    "discrete_covariance_3": {
        "ratio": 0.17, "atom1": 0.43, "atom2": 1.7, "atom3": 6.1, "weight1": 0.3, "weight2": 0.4,
    },
    "discrete_wigner_2": {"atom1": -0.43, "atom2": 1.7, "weight1": 0.3, "variance": 0.17},
    "discrete_wigner_3": {
        "atom1": -1.7, "atom2": 0.43, "atom3": 1.7, "weight1": 0.3, "weight2": 0.3,
        "variance": 0.1,
    },
    "wishart_plus_wigner": {"ratio": 0.43, "energy": 0.17},
    "uniform": {"left": -0.43, "right": 1.7},
    "uniform_with_noise": {"noise": 0.05, "left": -0.43, "right": 1.7},
    "arcsine": {"left": -0.43, "right": 1.7},
    "wachter": {"ratio1": 0.43, "ratio2": 0.17},
    "kesten_mckay_3": {"scale": 1.7},
    "fuss_catalan_2": {"scale": 1.7},
    "fuss_catalan_3": {"scale": 1.7},
}  # fmt: skip


def test_every_family_of_the_registry_has_a_truth_here():
    assert set(TRUTHS) == set(FAMILIES)
    assert all(found.parameters and name == found.name for name, found in FAMILIES.items())


@pytest.mark.parametrize("name", TRUTHS)
def test_a_family_finds_the_parameters_of_its_own_quantiles(name):
    """From no start: moments or the search bring it to the truth itself, at distance 0."""
    law = family(name)(**TRUTHS[name])
    measure = rm.DiscreteMeasure.from_eigenvalues(law.quantile(LEVELS))
    found = rm.fit(family(name), measure, bootstrap=0)
    assert found.distance < 2e-6
    assert found.parameters == pytest.approx(TRUTHS[name], rel=1e-3)
    assert found.at_bound == ()


def chains(law, dim, seed, steps=32, probes=8):
    a, b = sample_chains(law, steps + 1, dim, probes, 1, seed)
    return run_of(a[0], b[0], dim)


@pytest.mark.parametrize("count", [2, 3])
def test_the_search_finds_random_populations_behind_lanczos_runs(count):
    """Inverse problem: atoms a factor 2.2 to 4 apart. Found: as near as the truth is itself."""
    rng = np.random.default_rng(7)
    for seed in range(3):
        nodes = np.cumprod(rng.uniform(2.2, 4.0, count))
        weights = rng.dirichlet(np.full(count, 5.0))
        law = rm.SampleCovariance(rng.uniform(0.1, 0.4), rm.DiscreteMeasure(nodes, weights))
        measure = chains(law, 20000, seed)
        found = rm.fit(discrete_covariance(count), measure, bootstrap=0)
        instrument = instrument_of(measure)
        own = np.linalg.norm(instrument.observe() - instrument.expect(law))
        near = np.linalg.norm(instrument.observe() - instrument.expect(found.law))
        assert near < own


def test_atoms_come_in_ascending_order_from_any_start():
    truth = TRUTHS["discrete_covariance_2"]
    law = discrete_covariance(2)(**truth)
    measure = rm.DiscreteMeasure.from_eigenvalues(law.quantile(LEVELS))
    swapped = {"ratio": 0.4, "atom1": 1.6, "atom2": 0.7, "weight1": 0.6}
    found = rm.fit(discrete_covariance(2), measure, start=swapped, bootstrap=0)
    assert found.parameters == pytest.approx(truth, rel=1e-3)


def test_a_fixed_atom_stays_where_it_is():
    truth = TRUTHS["discrete_covariance_2"]
    measure = rm.DiscreteMeasure.from_eigenvalues(discrete_covariance(2)(**truth).quantile(LEVELS))
    found = rm.fit(discrete_covariance(2), measure, fixed={"atom1": 1.7}, bootstrap=0)
    wanted = {"ratio": 0.43, "atom2": 0.6, "weight1": 0.7}
    assert found.parameters == pytest.approx(wanted, rel=1e-3)


def test_eigenvalues_of_a_lognormal_covariance_give_back_its_spread():
    """Population: the 300 quantiles, one an eigenvalue; the family knows some 80 cells."""
    population = np.exp(0.8 * ndtri((np.arange(300) + 0.5) / 300))
    x = np.random.default_rng(8).standard_normal((700, 300)) * np.sqrt(population)
    measure = rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(x.T @ x / 700))
    found = rm.fit(lognormal_covariance(300), measure, axis="log", bootstrap=60)
    for name, value in (("ratio", 3 / 7), ("scale", 1.0), ("spread", 0.8)):
        assert abs(found.parameters[name] - value) < 4 * found.standard_errors[name]
    assert found.p_value > 0.01


@pytest.mark.slow
def test_a_singular_lognormal_covariance_is_found_through_lanczos():
    """Ratio 2, from no start: half of the spectrum is 0, and the rest spans three decades."""
    population = np.exp(ndtri((np.arange(400) + 0.5) / 400))
    x = np.random.default_rng(0).standard_normal((200, 400)) * np.sqrt(population)
    run = rm.lanczos(x.T @ x / 200, steps=24, probes=4)
    found = rm.fit(lognormal_covariance(400), run, bootstrap=100)
    assert found.accepted(), found
    for name, value in (("ratio", 2.0), ("scale", 1.0), ("spread", 1.0)):
        assert abs(found.parameters[name] - value) < 3 * found.standard_errors[name]


def test_cells_of_a_population_are_those_of_its_quantiles():
    """Against 1000 quantiles: log mean and log spread within a percent of the spread."""
    levels = (np.arange(1000) + 0.5) / 1000
    for cells, exact in (
        (families.lognormal_population(1.7, 0.9), 1.7 * np.exp(0.9 * ndtri(levels))),
        (families.power_law_population(1.7, 2.1), 1.7 * (1 - levels) ** (-1 / 2.1)),
    ):
        logs, wanted = np.log(cells.nodes), np.log(exact)
        mean = cells.weights @ logs
        assert mean == pytest.approx(wanted.mean(), abs=0.01 * wanted.std())
        assert np.sqrt(cells.weights @ (logs - mean) ** 2) == pytest.approx(wanted.std(), rel=0.01)
        assert cells.nodes[-1] == pytest.approx(exact[-1], rel=1e-9)


def test_any_callable_is_a_family_and_a_family_a_callable():
    assert family("wachter")(ratio1=0.43, ratio2=0.17) == rm.Wachter(0.43, 0.17)
    assert isinstance(
        families.with_noise(FAMILIES["wachter"])(noise=0.1, ratio1=0.4, ratio2=0.2), rm.Law
    )


def test_zeros_beside_another_family_are_a_family():
    """Quantiles do not see less than half an eigenvalue of the mass at 0, 0.5/400."""
    base = families.with_zeros(discrete_covariance(2))
    assert base.parameters[0] == "zeros"
    truth = {"zeros": 0.4, **TRUTHS["discrete_covariance_2"]}
    measure = rm.DiscreteMeasure.from_eigenvalues(base(**truth).quantile(LEVELS))
    found = rm.fit(base, measure, bootstrap=0)
    assert abs(found.parameters["zeros"] - 0.4) <= 0.5 / 400 + 1e-6
    assert found.parameters == pytest.approx(truth, rel=0.15)
    assert found.distance < 0.01


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_quasi_random_points_fill_every_axis_evenly(dimension):
    """300 points: on each axis no gap above 6/300, which 300 random ones leave; evenly 1/300."""
    points = np.sort(quasi_random(300, dimension), axis=0)
    assert points.min() > 0
    assert points.max() < 1
    assert np.diff(points, axis=0).max() < 5 / 300


# ------------------------------------------------------------------- refusals


def test_an_unknown_family_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown law 'pareto'; .* semicircle, marchenko_pastur,"):
        rm.family("pareto")


def test_weights_beyond_one_are_refused():
    with pytest.raises(ValueError, match="sum to at most 1"):
        discrete_covariance(3)(ratio=0.3, atom1=1, atom2=2, atom3=3, weight1=0.7, weight2=0.6)


@pytest.mark.parametrize("make", [discrete_covariance, families.fuss_catalan, lognormal_covariance])
def test_a_count_is_an_integer(make):
    with pytest.raises(ValueError, match="must be an integer of at least"):
        make(0.5)


def test_a_heavy_tail_begins_at_measured_eigenvalues():
    with pytest.raises(ValueError, match="no eigenvalue is positive"):
        rm.fit(lognormal_covariance(), rm.DiscreteMeasure.from_eigenvalues([-2.0, -1.0, -3.0]))
