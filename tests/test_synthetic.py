"""Spectra whose truth is known: laws are found again, outliers are counted, other laws refused.

Matrices come from ``revealed.py`` up to side 10⁶, or are built entry by entry and diagonalised; the
package's own samplers appear only in the bootstrap of its fits.
"""

from __future__ import annotations

import numpy as np
import pytest
from revealed import Wigner, Wishart, jacobi_ensemble, lanczos, runs
from scipy.linalg import eigh

import rmthess as rm
from rmthess.families import family

MILLION = 10**6
BOTH = ("marchenko_pastur", "semicircle")


def through_lanczos(make, groups, seed, steps=24, probes=4):
    a, b, residuals = runs(make, groups, steps, probes, seed)
    return rm.LanczosMeasure(a, b, residuals, round(sum(groups)))


def wigner(variance, atoms=(0.0,)):
    """√variance GOE + diagonal matrix with these entries."""

    def make(space):
        noise, diagonal = Wigner(space), space.diagonal(atoms)
        return lambda x: diagonal * x + np.sqrt(variance) * noise(x)

    return make


def covariance(samples, variances=(1.0,), noise=0.0):
    """T^(1/2) XᵀX T^(1/2)/samples + √noise GOE, T diagonal with these entries."""

    def make(space):
        white, root = Wishart(space, samples), space.diagonal(np.sqrt(variances))
        wide = Wigner(space)
        if noise:
            return lambda x: root * white(root * x) + np.sqrt(noise) * wide(x)
        return lambda x: root * white(root * x)

    return make


def wachter(dim, seed, ratio1=0.4, ratio2=0.25):
    a, b, residual = jacobi_ensemble(24, dim, dim / ratio1, dim / ratio2, seed)
    return rm.LanczosMeasure(a[None], b[None], [residual], dim)


def spiked(dim, seed):
    return through_lanczos(
        covariance(2.5 * dim, (8.0, 5.0, 1.7)), [1, 1, dim - 2], seed, steps=32, probes=4
    )


# name: family, true parameters, measurement (dim, seed), options of the fit
TRUE = {
    "semicircle": (
        "semicircle", {"variance": 1.7, "mean": 0.43},
        lambda dim, seed: through_lanczos(wigner(1.7, (0.43,)), [dim], seed), {},
    ),
    "marchenko_pastur": (
        "marchenko_pastur", {"ratio": 0.4, "variance": 1.7},
        lambda dim, seed: through_lanczos(covariance(2.5 * dim, (1.7,)), [dim], seed), {},
    ),
    "marchenko_pastur_wide": (
        "marchenko_pastur", {"ratio": 2.5, "variance": 1.7},
        lambda dim, seed: through_lanczos(covariance(0.4 * dim, (1.7,)), [dim], seed), {},
    ),
    "two_variances": (
        "discrete_covariance_2", {"ratio": 0.4, "atom1": 1.0, "atom2": 3.0, "weight1": 0.6},
        lambda dim, seed: through_lanczos(
            covariance(2.5 * dim, (1.0, 3.0)), [0.6 * dim, 0.4 * dim], seed
        ), {},
    ),
    "deformed_wigner": (
        "discrete_wigner_2", {"atom1": -1.0, "atom2": 1.5, "weight1": 0.7, "variance": 0.6},
        lambda dim, seed: through_lanczos(wigner(0.6, (-1.0, 1.5)), [0.7 * dim, 0.3 * dim], seed),
        {},
    ),
    "bulk_and_two_outliers": (
        "marchenko_pastur", {"ratio": 0.4, "variance": 1.7}, spiked, {"window": (0.0, 4.8)},
    ),
    "atom_at_zero": (
        "marchenko_pastur_with_zeros", {"zeros": 0.3, "ratio": 0.5, "variance": 1.7},
        lambda dim, seed: through_lanczos(
            covariance(1.4 * dim, (0.0, 1.7)), [0.3 * dim, 0.7 * dim], seed
        ), {},
    ),
    "wishart_and_wigner": (
        "marchenko_pastur_with_noise", {"noise": 0.3, "ratio": 0.5, "variance": 1.0},
        lambda dim, seed: through_lanczos(covariance(2 * dim, noise=0.3), [dim], seed), {},
    ),
    "wachter": ("wachter", {"ratio1": 0.4, "ratio2": 0.25}, wachter, {}),
}  # fmt: skip
SHORT_CUT = ("semicircle", "marchenko_pastur", "marchenko_pastur_wide", "bulk_and_two_outliers")


# ------------------------------------------------------------------- the matrices themselves


def coefficients(matrix, rng):
    return np.concatenate(lanczos(lambda x: matrix @ x, rng.standard_normal(len(matrix)), 6)[:2])


def dense(name, dim, rng):
    x = rng.standard_normal((2 * dim, dim))
    g = rng.standard_normal((dim, dim))
    goe = (g + g.T) / np.sqrt(2 * dim)
    root = np.sqrt(np.repeat([1.0, 3.0], dim // 2))
    return {
        "wigner": lambda: np.diag(np.repeat([-1.0, 1.0], dim // 2)) + goe,
        "covariance": lambda: (x * root).T @ (x * root) / (2 * dim),
        "sum": lambda: x.T @ x / (2 * dim) + goe,
    }[name]()


@pytest.mark.parametrize("name", ["wigner", "covariance", "sum"])
def test_a_revealed_matrix_has_the_coefficients_of_a_dense_one(name):
    """Mean and spread of six steps over 400 matrices of side 40; two vectors on each."""
    dim, count, rng = 40, 400, np.random.default_rng(1)
    make, groups = {
        "wigner": (wigner(1.0, (-1.0, 1.0)), [20, 20]),
        "covariance": (covariance(2 * dim, (1.0, 3.0)), [20, 20]),
        "sum": (covariance(2 * dim, noise=1.0), [dim]),
    }[name]
    ours = [np.concatenate(np.hstack(runs(make, groups, 6, 2, k)[:2])) for k in range(count)]
    theirs = []
    for _ in range(count):
        matrix = dense(name, dim, rng)
        theirs.append(np.concatenate([coefficients(matrix, rng) for _ in range(2)]))
    one, two = np.array(ours), np.array(theirs)
    error = np.sqrt((one.var(axis=0) + two.var(axis=0)) / count)
    assert np.abs(one.mean(axis=0) - two.mean(axis=0)).max() < 4 * error.max()
    assert np.abs(np.log(one.std(axis=0) / two.std(axis=0))).max() < 4 / np.sqrt(count)
    shared = [np.corrcoef(each[:, 1], each[:, 12])[0, 1] for each in (one, two)]
    assert abs(shared[0] - shared[1]) < 4 * np.sqrt(2 / count)  # a_1 of the two vectors


def test_the_jacobi_ensemble_has_the_coefficients_of_a_dense_one():
    dim, samples1, samples2, count, rng = 40, 100, 70, 400, np.random.default_rng(2)
    one = np.array(
        [np.concatenate(jacobi_ensemble(6, dim, samples1, samples2, k)[:2]) for k in range(count)]
    )
    theirs = []
    for _ in range(count):
        x, y = (rng.standard_normal((n, dim)) for n in (samples1, samples2))
        values = eigh(x.T @ x, x.T @ x + y.T @ y, eigvals_only=True)
        theirs.append(coefficients(np.diag(values), rng))
    two = np.array(theirs)
    error = np.sqrt((one.var(axis=0) + two.var(axis=0)) / count)
    assert (np.abs(one.mean(axis=0) - two.mean(axis=0)) < 4 * error).all()
    assert np.abs(np.log(one.std(axis=0) / two.std(axis=0))).max() < 4 / np.sqrt(count)


# ------------------------------------------------------------------- parameters


def scores(name, dim, seed, bootstrap=100):
    """Errors of the parameters in standard errors, and the fit."""
    known, truth, measure, options = TRUE[name]
    found = rm.fit(family(known), measure(dim, seed), bootstrap=bootstrap, seed=seed, **options)
    z = [
        (found.parameters[key] - value) / found.standard_errors[key] for key, value in truth.items()
    ]
    return np.array(z), found


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SHORT_CUT else pytest.mark.slow) for n in TRUE]
)
def test_the_law_of_a_matrix_of_side_a_million_is_found(name):
    z, found = scores(name, MILLION, seed=1)
    assert np.abs(z).max() < 3, str(found)
    assert found.accepted(), found.message
    assert max(found.standard_errors.values()) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("dim", [500, 20_000])
@pytest.mark.parametrize("name", TRUE)
def test_parameters_stay_within_three_standard_errors(name, dim):
    """Eight matrices: all but one in sixteen errors, and a law may be refused once."""
    found = [scores(name, dim, seed) for seed in range(8)]
    z = np.array([each for each, _ in found])
    assert np.count_nonzero(np.abs(z) > 3) <= z.size // 16
    assert np.sqrt(np.mean(z**2)) < 1.6
    assert sum(fit.p_value <= 0.01 for _, fit in found) <= 1


def test_deflated_outliers_leave_the_bulk_as_it_is():
    rng = np.random.default_rng(5)
    root = np.sqrt(np.append([20.0, 12.0, 8.0], np.full(597, 1.7)))
    x = rng.standard_normal((1500, 600)) * root
    measured = rm.lanczos(x.T @ x / 1500, steps=24, probes=4, deflate=3)
    found = rm.fit(rm.MarchenkoPastur, measured, bootstrap=100)
    assert found.accepted(), found.message
    for name, value in (("ratio", 597 / 1500), ("variance", 1.7)):
        assert abs(found.parameters[name] - value) < 3 * found.standard_errors[name]
    assert not rm.fit(
        rm.MarchenkoPastur, rm.lanczos(x.T @ x / 1500, steps=24, probes=4), bootstrap=100
    ).accepted()


def entries(name, dim, rng):
    """A matrix built entry by entry: its family and true parameters."""
    if name == "semicircle":
        g = rng.standard_normal((dim, dim))
        matrix = 0.43 * np.eye(dim) + np.sqrt(1.7 / (2 * dim)) * (g + g.T)
        return name, {"variance": 1.7, "mean": 0.43}, matrix
    ratio = {"narrow": 0.4, "wide": 2.5}[name]
    x = np.sqrt(1.7) * rng.standard_normal((round(dim / ratio), dim))
    return "marchenko_pastur", {"ratio": ratio, "variance": 1.7}, x.T @ x / len(x)


@pytest.mark.parametrize("name", ["semicircle", "narrow", "wide"])
def test_all_eigenvalues_of_a_matrix_of_side_500(name):
    known, truth, matrix = entries(name, 500, np.random.default_rng(6))
    values = rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(matrix))
    found = rm.fit(family(known), values, bootstrap=100)
    assert found.accepted(), found.message
    for key, value in truth.items():
        assert abs(found.parameters[key] - value) <= 3 * found.standard_errors[key]


# ------------------------------------------------------------------- other laws


WRONG = [
    ("two_variances", "marchenko_pastur"), ("two_variances", "semicircle"),
    ("deformed_wigner", "semicircle"), ("semicircle", "marchenko_pastur"),
    ("marchenko_pastur", "semicircle"), ("wachter", "marchenko_pastur"),
    ("atom_at_zero", "marchenko_pastur"), ("wishart_and_wigner", "semicircle"),
    ("wishart_and_wigner", "marchenko_pastur"), ("bulk_and_two_outliers", "marchenko_pastur"),
]  # fmt: skip


# two outliers among a million weigh less than the noise: only the outlier rules see them there
PAIRS = [(*pair, dim) for pair in WRONG for dim in (2000, MILLION)][:-1]


@pytest.mark.parametrize(("truth", "wrong", "dim"), PAIRS)
def test_another_family_is_refused(truth, wrong, dim):
    found = rm.fit(family(wrong), TRUE[truth][2](dim, 7), bootstrap=100)
    assert not found.accepted(), str(found)


# ------------------------------------------------------------------- outliers


def spike(kind, share, dim, seed):
    """Outliers of a matrix whose spike is ``share`` times the threshold, by the law's edge."""
    if kind == "wigner":  # threshold 1
        make, law = wigner(1.0, (share, 0.0)), rm.Semicircle()
    else:  # threshold 1 + √q
        ratio = 0.4
        strength = share * (1 + np.sqrt(ratio))
        make, law = covariance(dim / ratio, (strength, 1.0)), rm.MarchenkoPastur(ratio)
    measured = through_lanczos(make, [1, dim - 1], seed, steps=64, probes=1)
    return rm.outliers(measured, law)


@pytest.mark.parametrize("kind", ["wigner", "covariance"])
def test_a_spike_above_the_threshold_is_counted_and_one_below_is_not(kind):
    """Side 10⁵, where an outlier at 1.2 times the threshold is 8 standard deviations outside."""
    assert [len(spike(kind, 1.2, 100_000, seed)) for seed in range(6)] == [1] * 6
    assert [len(spike(kind, 0.8, 100_000, seed)) for seed in range(6)] == [0] * 6


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dim"), [("wigner", 10_000), ("covariance", 3000)])
def test_spikes_are_counted_in_95_of_100_matrices(kind, dim):
    """The sides are the smallest at which theory allows it.

    GOE, strength 1.2: the outlier is at 2 + 1/30 ± 0.78/√dim, and a pure bulk reaches
    2 + 2.4 dim^(-2/3) once in 200: at side 10⁴ that is 3.6 standard deviations inside, at side 1000
    less than half of the spikes would show. Covariance: 1.2 (1 + √q) lies farther out.
    """
    above = [len(spike(kind, 1.2, dim, seed)) for seed in range(100)]
    below = [len(spike(kind, 0.8, dim, seed)) for seed in range(100)]
    assert above.count(1) >= 95
    assert below.count(0) >= 95
