"""Random spectra of a law and what Lanczos finds on them, against the real thing."""

from __future__ import annotations

import numpy as np
import pytest

import rmthess as rm
from rmthess import jacobi
from rmthess.sampling import (
    _by_moments,
    _by_rotations,
    modified_moments,
    sample_chains,
    sample_spectra,
)

TWO = rm.SampleCovariance(0.3, rm.DiscreteMeasure([1.0, 4.0], [0.5, 0.5]))
LAWS = [rm.Semicircle(0.7, 0.2), rm.MarchenkoPastur(0.4, 1.7), rm.MarchenkoPastur(2.5, 1.7), TWO]


def spectra_and_weights(law, side, count, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.5, size=(count, side))
    nodes = np.asarray(law.quantile((np.arange(side) + 0.5) / side), float)
    return nodes, weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_moments_and_rotations_give_the_chains_of_lanczos(law):
    """Rotations to rounding; moments to 1e-6 of the width where steps² <= dim."""
    nodes, weights = spectra_and_weights(law, 625, 3)
    wanted = [jacobi.from_quadrature(nodes, w, 25) for w in weights]
    for found, tolerance in (
        (_by_rotations(nodes, weights, 25), 1e-12),
        (_by_moments(*law.jacobi(50), nodes, weights), 1e-6),
    ):
        for k in (0, 1):
            gap = np.abs(np.array([pair[k] for pair in wanted]) - found[k]).max()
            assert gap < tolerance * np.ptp(nodes)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_modified_moments_are_integrals_of_orthonormal_polynomials(law):
    """Of a measure with atoms: Σ w p_k by the recurrence itself, while a Gauss rule is exact."""
    nodes, weights = spectra_and_weights(law, 80, 2)
    alpha, beta = law.jacobi(8)
    values = [np.ones(80), (nodes - alpha[0]) / beta[0]]
    for k in range(1, 7):
        values.append(((nodes - alpha[k]) * values[k] - beta[k - 1] * values[k - 1]) / beta[k])
    chains = [jacobi.from_quadrature(nodes, w, 4) for w in weights]
    a, b = (np.array([chain[k] for chain in chains]) for k in (0, 1))
    found = modified_moments(a, b, alpha[:7], beta)
    np.testing.assert_allclose(found, weights @ np.array(values[1:]).T, atol=1e-11)


def test_modified_moments_of_random_vectors_are_independent_of_variance_two_over_dim():
    a, b = sample_chains(TWO, 10, 2000, 1, 1500, seed=1)
    alpha, beta = TWO.jacobi(7)
    moments = modified_moments(a[:, 0], b[:, 0], alpha[:6], beta)
    covariance = np.cov(moments.T) * 2000 / 2
    # 1500 draws scatter by √(2/1500); orthonormality makes it the identity
    np.testing.assert_allclose(covariance, np.eye(6), atol=5 * np.sqrt(2 / 1500))


def test_spectra_at_the_side_of_the_small_matrix_are_its_eigenvalues():
    levels = (np.arange(60) + 0.5) / 60
    found = sample_spectra(TWO, levels, 60, 2, seed=3)
    child = np.random.SeedSequence(3).spawn(2)[1]
    np.testing.assert_allclose(found[1], TWO.sample(60, np.random.default_rng(child)), atol=1e-9)


def test_chains_scatter_like_those_of_the_ensemble():
    """GOE of side 1200, four probes: means within 0.15 of a standard deviation, and these within
    15%; the mean of all 2 b_k, which measures the edges, within a factor 1.4."""
    law, count = rm.Semicircle(1.0), 300
    a, b = sample_chains(law, 24, 1200, 4, count, seed=0)
    exact = [law.sample_jacobi(24, 1200, np.random.default_rng([5, i]), 4) for i in range(count)]
    for found, wanted in ((a, [c[0] for c in exact]), (b, [c[1] for c in exact])):
        wanted = np.array(wanted)
        spread = wanted.std(axis=(0, 1))
        assert (
            np.abs(found.mean(axis=(0, 1)) - wanted.mean(axis=(0, 1))).max() < 0.15 * spread.max()
        )
        assert found.std(axis=(0, 1)) / spread == pytest.approx(np.ones(spread.size), abs=0.15)
    edges = [2 * chain.mean(axis=(1, 2)) for chain in (b, np.array([c[1] for c in exact]))]
    assert 1 / 1.4 < edges[0].std() / edges[1].std() < 1.4


def test_large_matrices_are_drawn_by_cells():
    """The cells of side 4001 scatter like the single eigenvalues of side 4000."""
    single, cells = (sample_chains(TWO, 12, dim, 2, 150, seed=4) for dim in (4000, 4001))
    for one, other in zip(single, cells, strict=True):
        spread = one.std(axis=(0, 1))
        assert np.abs(one.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max() < 0.35 * spread.max()
        assert other.std(axis=(0, 1)) / spread == pytest.approx(np.ones(spread.size), abs=0.25)


def test_a_law_without_ensemble_cannot_be_drawn():
    with pytest.raises(NotImplementedError):
        sample_chains(rm.Uniform(0.0, 1.0), 4, 100, 1, 2, seed=0)


def test_more_steps_than_eigenvalues_are_refused():
    with pytest.raises(ValueError, match="40 steps need as many distinct eigenvalues"):
        sample_chains(rm.SampleCovariance(4.0, rm.DiscreteMeasure([1.0], [1.0])), 40, 100, 1, 2, 0)
