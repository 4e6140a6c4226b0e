"""Random spectra of a law and what Lanczos finds on them, against the real thing."""

from __future__ import annotations

import numpy as np
import pytest

import rmthess as rm
from rmthess import families, jacobi
from rmthess.families import lognormal_covariance
from rmthess.sampling import (
    _by_moments,
    _by_rotations,
    limit_chain,
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


ATOMS = rm.DiscreteMeasure
SAMPLED = {
    "free sum": rm.boxplus(rm.Uniform(0.0, 1.7), rm.MarchenkoPastur(0.43)),
    "free product": rm.boxtimes(rm.Uniform(0.43, 1.7), ATOMS([1, 3], [0.5, 0.5])),
    "signed free product": rm.boxtimes(ATOMS([-1, 3], [0.5, 0.5]), rm.Uniform(0.43, 1.7)),
    "Wishart plus Wigner": rm.WishartPlusWigner(0.43, 0.17),
    "free Levy": rm.boxplus(rm.MarchenkoPastur(1.7, 0.43).dilate(-1.0), rm.Semicircle(0.3)),
    "compound Poisson": rm.FreeCompoundPoisson(0.43, ATOMS([-1.7, 0.43, 1], [0.2, 0.3, 0.5])),
    "mixture": rm.mixture(
        [rm.Semicircle(0.43), rm.MarchenkoPastur(1.7), ATOMS([0.0, 2.9], [0.3, 0.7])],
        [0.43, 0.4, 0.17],
    ),
    "compression": rm.compress(ATOMS([-1.7, 0.43, 1.7], [0.15, 0.65, 0.2]), 0.7),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_matrices_of_an_ensemble_approach_its_law_like_one_over_dim(name):
    """From 100 to 300 W_1 falls threefold; its spread is near 15% a draw, 8% a mean of four."""
    law, mean = SAMPLED[name], {}
    for dim in (100, 300):
        draws = [law.sample(dim, np.random.default_rng([dim, seed])) for seed in range(4)]
        assert all(values.shape == (dim,) and np.all(np.diff(values) >= 0) for values in draws)
        near = [rm.wasserstein(law, ATOMS.from_eigenvalues(values)) for values in draws]
        mean[dim] = np.mean(near)
    assert 1.8 < mean[100] / mean[300] < 4.8
    assert mean[300] < 0.01 * np.ptp(law.breakpoints)


def test_a_heavy_tail_is_expected_as_a_matrix_of_its_side_shows_it():
    """The top interval of this law expects a fifth of an eigenvalue: its chain is none of a
    matrix's; that of the 300 quantiles is what 300 eigenvalues show on average."""
    levels = np.array([1.0, 40.0])
    law = rm.SampleCovariance(0.1, rm.DiscreteMeasure(levels, [1 - 0.2 / 300, 0.2 / 300]))
    found = limit_chain(law, 6, 300)
    nodes = law.quantile((np.arange(300) + 0.5) / 300)
    wanted = jacobi.from_quadrature(nodes, np.full(300, 1 / 300), 6)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    assert law.jacobi(6)[0].max() > 10 > found[0].max()
    np.testing.assert_array_equal(limit_chain(law, 6, None)[0], law.jacobi(6)[0])


@pytest.mark.parametrize("dim", [1001, 30_000])
@pytest.mark.parametrize(
    ("family", "shape"), [("lognormal", {"spread": 1.5}), ("power_law", {"exponent": 1.5})]
)
def test_cells_of_a_heavy_tail_stand_for_its_quantiles(family, shape, dim):
    """Quantiles of log10 of the Gauss rule of 64 steps, of its upper half: to 3e-4."""
    law = getattr(families, f"{family}_covariance")(dim)(ratio=0.3, scale=1.0, **shape)
    wanted = jacobi.from_quadrature(
        law.quantile((np.arange(dim) + 0.5) / dim), np.full(dim, 1 / dim), 64
    )
    rules = [jacobi.gauss_quadrature(*chain) for chain in (limit_chain(law, 64, dim), wanted)]
    levels = np.linspace(0.5, 0.999, 64)
    found, exact = (
        np.interp(levels, np.cumsum(weights) - weights / 2, np.log10(nodes))
        for nodes, weights in rules
    )
    assert np.sqrt(np.mean((found - exact) ** 2)) < 3e-4


def test_a_heavy_tailed_law_can_be_drawn():
    """Where modified moments would break down, rotations do not."""
    levels = np.exp(np.linspace(-2.0, 3.0, 12))
    law = rm.SampleCovariance(0.2, rm.DiscreteMeasure(levels, [*[0.0905] * 11, 0.0045]))
    a, b = sample_chains(law, 16, 600, 2, 3, seed=0)
    assert np.isfinite(a).all()
    assert (b > 0).all()
    assert a.max() < law.breakpoints[-1]


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


@pytest.mark.parametrize("law", [rm.Semicircle(0.7, 0.2), rm.MarchenkoPastur(0.4, 1.7)], ids=repr)
def test_spectra_of_a_large_side_lie_as_far_from_their_law_as_real_ones(law):
    """Side 2000 out of matrices of 256: W_2 of 60 each, of relative scatter 0.15."""
    levels = (np.arange(2000) + 0.5) / 2000
    center = law.quantile(levels)
    ours = sample_spectra(law, levels, 2000, 60, seed=1)
    real = [law.sample(2000, np.random.default_rng([4, k])) for k in range(20)]
    one, two = (np.linalg.norm(np.array(x) - center, axis=1) for x in (ours, real))
    assert one.mean() == pytest.approx(two.mean(), rel=0.12)


def test_the_chain_of_a_singular_heavy_law_moves_evenly_with_its_ratio():
    """Zeros count by their mass: the slope over 1e-6 is that over 1e-2, to 1e-2 of it."""
    family = lognormal_covariance(500)

    def chain(ratio):
        return np.concatenate(limit_chain(family(ratio=ratio, scale=1.0, spread=1.0), 24, 500))

    near, far = (
        (chain(2.61 * (1 + step)) - chain(2.61 * (1 - step))) / (2 * step) for step in (1e-6, 1e-2)
    )
    np.testing.assert_allclose(near, far, atol=0.02 * np.abs(far).max())


def test_draws_beside_a_gap_are_centred_and_scatter_as_matrices_do():
    """Shares 0.6 and 0.4 of side 400: the eigenvalues at both ends of the gap, 150 matrices."""
    law = rm.DeformedWigner(rm.DiscreteMeasure([-1.0, 1.0], [0.6, 0.4]), 0.3)
    levels = (np.arange(400) + 0.5) / 400
    ours = sample_spectra(law, levels, 400, 150, seed=7)
    real = np.array([law.sample(400, np.random.default_rng([9, k])) for k in range(150)])
    beside = slice(230, 250)
    shift = (ours.mean(axis=0) - real.mean(axis=0)) / real.std(axis=0)
    assert abs(shift[beside].mean()) < 0.15  # 0.4 with 256 for a side
    quotient = ours.std(axis=0)[beside] / real.std(axis=0)[beside]
    assert quotient.mean() == pytest.approx(1, abs=0.1)


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
