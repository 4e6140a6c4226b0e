"""Lanczos on the matrices that break eigensolvers, scored as LAPACK scores itself.

A score is an error divided by |A| n eps: a few units are what rounding explains, whatever the
matrix. The matrices are those of LAPACK's own test types, of the literature on ghosts, and of the
theory of random matrices; the witnesses are closed forms, mpmath, Sturm counts, dense solvers and
laws. Breakdowns after one and two steps, and low rank, are in ``test_krylov.py``.
"""

from __future__ import annotations

from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag, circulant, hilbert
from torch import nn

import rmthess as rm

EPS = float(np.finfo(float).eps)
SCORE = 10.0  # most is below 0.2; a tiny eigenvalue lost in a breakdown makes 5

RNG_SEED = 41
DIM = 40

# ------------------------------------------------------------------- the matrices


def tridiagonal(diagonal, off_diagonal):
    return np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)


def reflected(values):
    """Q D Qᵀ with Q a product of three Householder reflections."""
    rng = np.random.default_rng(RNG_SEED)
    matrix = np.diag(values)
    for _ in range(3):
        u = rng.normal(size=len(values))
        u /= np.linalg.norm(u)
        matrix = matrix - 2 * np.outer(u, u @ matrix)
        matrix = matrix - 2 * np.outer(matrix @ u, u)
    return (matrix + matrix.T) / 2


def lapack_types():
    """Modes of xLATMS: the spectra on which LAPACK tests its symmetric eigensolvers."""
    k = np.arange(DIM)
    signs = np.random.default_rng(RNG_SEED).choice([-1.0, 1.0], DIM)
    geometric = 10.0 ** (-16 * k / (DIM - 1))
    return {
        "integers": k + 1.0,
        "arithmetic": 1 - k / (DIM - 1) * (1 - 1e-16),
        "geometric, condition 1e16": geometric,
        "geometric, random signs": geometric * signs,
        "one large, the rest 1e-16": np.where(k == 0, 1.0, 1e-16),
        "one small, the rest 1": np.where(k == 0, 1e-16, 1.0),
        "three clusters 1e-9 wide": (k % 3) + 1e-9 * k / DIM,
        "plus minus": np.where(k % 2, -1.0, 1.0) * (k // 2 + 1),
        "near the root of overflow": 1e153 * (k + 1) / DIM,
        "near the root of underflow": 1e-153 * (k + 1) / DIM,
    }


def glued_wilkinson(copies=3, glue=1e-8):
    """Clusters of ``copies`` eigenvalues, each of them a near-degenerate pair at the top."""
    one = tridiagonal(np.abs(np.arange(-10.0, 11.0)), np.ones(20))
    matrix = block_diag(*[one] * copies)
    for k in range(1, copies):
        matrix[21 * k - 1, 21 * k] = matrix[21 * k, 21 * k - 1] = glue
    return matrix, np.linalg.eigvalsh(matrix)


def toeplitz(n=DIM):
    values = 2 - 2 * np.cos(np.arange(1, n + 1) * np.pi / (n + 1))
    return tridiagonal(np.full(n, 2.0), np.full(n - 1, -1.0)), values


def laplacian(side=7):
    """Five-point Laplacian on a square: symmetry makes most eigenvalues double."""
    one, values = toeplitz(side)
    eye = np.eye(side)
    return np.kron(one, eye) + np.kron(eye, one), np.add.outer(values, values).ravel()


def circular():
    row = np.random.default_rng(RNG_SEED).normal(size=DIM)
    row = row + np.roll(row[::-1], 1)
    return circulant(row), np.fft.fft(row).real


def kac(n=DIM):
    k = np.arange(1, n)
    return tridiagonal(np.zeros(n), np.sqrt(k * (n - k))), np.arange(1.0 - n, n, 2)


def strakos(rho):
    k = np.arange(48)
    values = 0.1 + k / 47 * 99.9 * rho ** (47 - k)
    return np.diag(values), values


def smaller_index(n=DIM):
    """min(i, j), Frank's matrix in its symmetric form."""
    i = np.arange(1.0, n + 1)
    return np.minimum.outer(i, i), 1 / (2 * np.sin((i - 0.5) * np.pi / (2 * n + 1))) ** 2


def in_sixty_digits(matrix):
    """The matrix of doubles as it is, diagonalised by mpmath."""
    with mpmath.workdps(60):
        values = mpmath.eigsy(mpmath.matrix(matrix.tolist()), eigvals_only=True)
        return matrix, np.array([float(value) for value in values])


def lehmer(n=12):
    i = np.arange(1.0, n + 1)
    return in_sixty_digits(np.minimum.outer(i, i) / np.maximum.outer(i, i))


MATRICES = {
    **{name: lambda v=values: (np.diag(v), v) for name, values in lapack_types().items()},
    **{
        f"{name}, rotated": lambda v=values: (reflected(v), v)
        for name, values in lapack_types().items()
    },
    "2 x 2": lambda: (np.array([[1.0, 2.0], [2.0, -2.0]]), np.array([-3.0, 2.0])),
    "glued Wilkinson": glued_wilkinson,
    "Toeplitz": toeplitz,
    "Laplacian": laplacian,
    "circulant": circular,
    "Kac": kac,
    **{f"Strakos {rho}": lambda rho=rho: strakos(rho) for rho in (0.6, 0.8, 0.9)},
    "Hilbert": lambda: in_sixty_digits(hilbert(12)),
    "Lehmer": lehmer,
    "min(i, j)": smaller_index,
}
matrices = pytest.mark.parametrize("build", MATRICES.values(), ids=MATRICES)


def score(error, values):
    """In units of |A| n eps."""
    return np.max(error) / (np.abs(values).max() * len(values) * EPS)


# ------------------------------------------------------------------- every matrix


@matrices
def test_a_full_run_finds_every_eigenvalue_and_nothing_else(build):
    matrix, values = build()
    for rule in rm.lanczos(matrix, steps=len(values), probes=2).quadratures():
        apart = np.abs(rule.nodes[:, None] - values)
        assert score(apart.min(axis=1), values) < SCORE
        assert score(apart.min(axis=0), values) < SCORE


@matrices
def test_the_first_2m_moments_are_those_of_the_start_vector(build):
    """In Chebyshev polynomials of A/|A|, whose moments are at most 1 and lose no digits."""
    matrix, values = build()
    steps, unit = 6, matrix / np.abs(values).max()
    start = np.random.default_rng(RNG_SEED).normal(size=len(values))
    start /= np.linalg.norm(start)
    (rule,) = rm.lanczos(matrix, steps=steps, start=start).quadratures()
    before, vector = start, unit @ start
    for degree in range(1, 2 * steps):
        x = np.clip(rule.nodes / np.abs(values).max(), -1, 1)
        moment = np.cos(degree * np.arccos(x)) @ rule.weights
        # arccos near ± 1 turns eps into √eps, and the cosine of it back into degree² eps
        assert abs(moment - start @ vector) < SCORE * EPS * (len(values) + degree**2)
        before, vector = vector, 2 * unit @ vector - before


@matrices
def test_sturm_counts_find_the_nodes_where_they_are_said_to_be(build):
    """The number of negative pivots of T - x: no eigensolver has a part in it."""
    matrix, values = build()
    measure = rm.lanczos(matrix, steps=max(2, len(values) // 2), probes=1)
    nodes = measure.nodes[0][np.isfinite(measure.nodes[0])]
    a, b = measure.diagonals[0][: nodes.size], measure.off_diagonals[0][: nodes.size - 1]
    top = np.abs(values).max()
    reach = SCORE * top * len(values) * EPS
    for j, node in enumerate(nodes):
        assert sturm_count(a / top, b / top, (node - reach) / top) <= j
        assert sturm_count(a / top, b / top, (node + reach) / top) >= j + 1


def sturm_count(a, b, x):
    """How many eigenvalues of the tridiagonal matrix lie below x, by its LDLᵀ."""
    count, pivot = 0, 1.0
    for diagonal, off_diagonal in zip(a, [0.0, *b], strict=True):
        pivot = diagonal - x - off_diagonal**2 / pivot
        pivot = pivot if abs(pivot) > 1e-300 else 1e-300
        count += pivot < 0
    return count


@matrices
def test_the_error_bounds_hold_before_convergence(build):
    matrix, values = build()
    measure = rm.lanczos(matrix, steps=max(1, len(values) // 3), probes=2)
    apart = np.abs(measure.nodes[..., None] - values).min(axis=-1)
    beyond = np.nan_to_num(apart - measure.errors)
    assert score(beyond, values) < SCORE


@matrices
def test_the_bracket_holds_the_cdf_of_every_start_vector(build):
    """Between the eigenvalues: how the weight is shared within a cluster, rounding decides."""
    matrix, values = build()
    values = np.sort(values)
    exact, vectors = np.linalg.eigh(matrix)
    start = np.random.default_rng(RNG_SEED).normal(size=len(values))
    weights = (vectors.T @ start) ** 2 / (start @ start)
    measure = rm.lanczos(matrix, steps=max(1, len(values) // 4), start=start)
    wide = np.diff(values) > 1e-6 * np.abs(values).max()
    x = ((values[1:] + values[:-1]) / 2)[wide]
    lower, upper = measure.cdf_bounds(x)
    cdf = rm.DiscreteMeasure(exact, weights / weights.sum()).cdf(x)
    assert np.all(lower <= cdf + 1e-9)
    assert np.all(cdf <= upper + 1e-9)


# ------------------------------------------------------------------- metamorphic


few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def random_matrix_and_start(seed, n=24):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n))
    return x + x.T, rng.normal(size=n)


def coefficients(matrix, start):
    measure = rm.lanczos(matrix, steps=7, start=start)
    return np.concatenate([measure.diagonals[0], measure.off_diagonals[0], measure.residuals])


@few
@given(seeds, st.integers(-60, 60), st.floats(-3, 3))
def test_coefficients_scale_and_shift_with_the_matrix(seed, exponent, shift):
    """Powers of two bit by bit; a shift and a reflection up to rounding."""
    matrix, start = random_matrix_and_start(seed)
    base = coefficients(matrix, start)
    np.testing.assert_array_equal(coefficients(2.0**exponent * matrix, start), 2.0**exponent * base)
    diagonal = np.repeat([1.0, 0.0], 7)
    moved = coefficients(shift * np.eye(24) - matrix, start)
    np.testing.assert_allclose(moved, shift * diagonal + base * (1 - 2 * diagonal), atol=1e-10)


@few
@given(seeds)
def test_coefficients_do_not_depend_on_the_basis(seed):
    matrix, start = random_matrix_and_start(seed)
    rng = np.random.default_rng(seed)
    base = coefficients(matrix, start)
    order = rng.permutation(24)
    permuted = coefficients(matrix[np.ix_(order, order)], start[order])
    np.testing.assert_allclose(permuted, base, atol=1e-10)
    q = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    turned = q @ matrix @ q.T
    np.testing.assert_allclose(coefficients((turned + turned.T) / 2, q @ start), base, atol=1e-10)


@few
@given(seeds, st.floats(0.1, 1.4))
def test_a_block_diagonal_matrix_mixes_the_measures_of_its_blocks(seed, angle):
    """From (cos v, sin w): the moments up to 2m - 1 are cos² and sin² of those of the blocks."""
    one, v = random_matrix_and_start(seed, 10)
    two, w = random_matrix_and_start(seed + 1, 14)
    v, w = v / np.linalg.norm(v), w / np.linalg.norm(w)
    start = np.concatenate([np.cos(angle) * v, np.sin(angle) * w])
    both, first, second = (
        rm.lanczos(matrix, steps=5, start=s)
        for matrix, s in ((block_diag(one, two), start), (one, v), (two, w))
    )
    for order in range(10):
        mixed = np.cos(angle) ** 2 * first.moment(order) + np.sin(angle) ** 2 * second.moment(order)
        scale = both.integrate(lambda x, order=order: np.abs(x) ** order)
        assert abs(both.moment(order) - mixed) < 1e-11 * scale


# ------------------------------------------------------------------- precision


def test_single_precision_agrees_with_double_to_single_precision():
    """Converged nodes, and all moments that the steps know, to a few times |A| √n 2⁻²³."""
    spectrum = np.append(np.random.default_rng(0).random(297), [10, 20, 40])
    matrix = reflected(spectrum)
    double = rm.lanczos(matrix, steps=40, probes=3)
    single = rm.lanczos(matrix.astype(np.float32), steps=40, probes=3)
    unit = 40 * np.sqrt(300) * 2.0**-23
    for nodes, wanted in zip(single.nodes, double.nodes, strict=True):
        np.testing.assert_allclose(nodes[-3:], wanted[-3:], atol=unit)
    assert np.all(single.errors >= np.abs(single.nodes[..., None] - spectrum).min(axis=-1))
    for order in range(1, 6):
        assert single.moment(order) == pytest.approx(double.moment(order), rel=2e-6)


def network(dtype, batches):
    """A tanh network and its data, whole or split."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    x, y = torch.randn(60, 6).to(dtype), torch.arange(60) % 3
    ends = np.linspace(0, 60, batches + 1).astype(int) if batches < 4 else [0, 1, 30, 31, 60]
    data = [(x[i:j], y[i:j]) for i, j in pairwise(ends)]
    return rm.hessian(model, nn.CrossEntropyLoss(), data)


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float64, 2.0**-52), (torch.float32, 2.0**-23)])
def test_how_the_data_are_split_into_batches_does_not_matter(dtype, eps):
    whole = rm.lanczos(network(dtype, 1), steps=12, probes=2)
    for batches in (2, 3, 4):
        split = rm.lanczos(network(dtype, batches), steps=12, probes=2)
        # interior nodes are not converged: there rounding grows by |A|/gap, about 1e3
        np.testing.assert_allclose(
            split.nodes, whole.nodes, atol=1e4 * eps * np.abs(whole.nodes).max()
        )
        np.testing.assert_allclose(split.nodes[:, -1], whole.nodes[:, -1], rtol=100 * eps)


@pytest.mark.slow
def test_a_network_of_2350_parameters_beside_all_its_eigenvalues():
    """Top eigenvalue to 1e-11 and 1e-6; W_1 as small as 4 probes and 64 steps let it be.

    A rule's atoms stand for what is within half a spacing, a quarter of it away on average; probes
    scatter the cdf by √(2 F(1 - F)/(4 (n + 2))), of which W_1 adds up the mean absolute value.
    """
    operators = {}
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(32, 40), nn.Tanh(), nn.Linear(40, 20), nn.Tanh(), nn.Linear(20, 10)
        ).to(dtype)
        x, y = torch.randn(512, 32).to(dtype), torch.arange(512) % 10
        operators[dtype] = rm.hessian(model, nn.CrossEntropyLoss(), (x, y))
    exact = rm.eigenvalues(operators[torch.float64])
    assert exact.size == 2350
    truth = rm.DiscreteMeasure.from_eigenvalues(exact)
    mass = np.arange(1, 2350) / 2350
    scatter = np.sqrt(2 / np.pi * 2 * mass * (1 - mass) / (4 * 2352)) @ np.diff(exact)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-6)):
        measure = rm.lanczos(operators[dtype], steps=64, probes=4)
        tops = measure.nodes[:, -1]
        np.testing.assert_allclose(tops, exact[-1], rtol=tolerance)
        assert rm.wasserstein(measure, truth) < scatter + measure.resolution / 4


# ------------------------------------------------------------------- standard errors


@pytest.mark.parametrize("distribution", ["sphere", "rademacher"])
def test_z_scores_of_the_trace_have_the_spread_of_student_t(distribution):
    """200 runs of 16 probes: √(15/13) = 1.07, known to 1/√400 = 5%."""
    matrix = random_matrix_and_start(3, 60)[0]
    scores = []
    for seed in range(200):
        run = rm.lanczos(matrix, steps=1, probes=16, seed=seed, distribution=distribution)
        error = run.standard_error(lambda rule: rule.moment(1))
        scores.append((run.moment(1) - np.trace(matrix) / 60) / error)
    assert abs(np.mean(scores)) < 4 * 1.07 / np.sqrt(200)
    assert abs(np.std(scores) - 1.07) < 3 * 0.05


# ------------------------------------------------------------------- random matrices


N = 400


def goe(rng):
    x = rng.normal(size=(N, N))
    return (x + x.T) / np.sqrt(2 * N)


def wishart(rng, ratio, top=1.0):
    x = rng.normal(size=(round(N / ratio), N))
    x[:, 0] *= np.sqrt(top)
    return x.T @ x / len(x)


def spiked(top, ratio=0.4):
    spike = rm.spikes.covariance(top, ratio)
    place = None if spike.location is None else (float(spike.location), spike.std(N))
    return lambda rng: wishart(rng, ratio, top), rm.MarchenkoPastur(ratio), place


LEVELS = rm.DiscreteMeasure([-3.0, 1.0], [0.25, 0.75])

ENSEMBLES = {
    "GOE": (goe, rm.Semicircle(), None),
    "Wishart, ratio 0.4": (lambda rng: wishart(rng, 0.4), rm.MarchenkoPastur(0.4), None),
    "Wishart, ratio 2.5": (lambda rng: wishart(rng, 2.5), rm.MarchenkoPastur(2.5), None),
    "spike above the transition": spiked(3.0),
    "spike below the transition": spiked(1.3),
    "deformed": (
        lambda rng: np.diag(np.repeat([-3.0, 1.0], [N // 4, 3 * N // 4])) + 0.7 * goe(rng),
        rm.boxplus(LEVELS, rm.Semicircle(0.49)),
        None,
    ),
}


@pytest.mark.parametrize(("draw", "law", "spike"), ENSEMBLES.values(), ids=ENSEMBLES)
def test_a_random_matrix_through_forty_steps_looks_like_its_law(draw, law, spike):
    """Its outlier where it should be, nothing else beyond the edges, and the cdf within its bounds.

    Eigenvalues are rigid to O(1/N), the largest scatters by N^(-2/3), and 8 probes of N numbers add
    √(F(1 - F) 2/(8 N)) < 0.013 to the cdf.
    """
    measure = rm.lanczos(draw(np.random.default_rng(RNG_SEED)), steps=40, probes=8)
    left, right = float(law.support[0][0]), float(law.support[-1][1])
    reach = 4 * (right - left) * N ** (-2 / 3)
    nodes = measure.nodes[np.isfinite(measure.nodes)]
    beyond = nodes[nodes > right + reach]
    if spike is None:
        assert beyond.size == 0
    else:
        location, deviation = spike
        assert beyond.size == measure.probes  # once in each probe
        assert np.abs(beyond - location).max() < 4 * deviation
    assert law.atoms or nodes.min() > left - reach
    x = np.linspace(left, right, 60)
    lower, upper = measure.cdf_bounds(x)
    noise = 4 * 0.013 + 4 / N
    assert np.all(lower <= law.cdf(x) + noise)
    assert np.all(law.cdf(x) <= upper + noise)
    for order in (1, 2, 3):
        error = measure.standard_error(lambda rule, order=order: rule.moment(order))
        outlier = 0.0 if spike is None else (spike[0] ** order - law.moment(order)) / N
        finite = 4 * abs(right) ** order / N  # traces of powers fluctuate by O(1/N)
        assert abs(measure.moment(order) - law.moment(order) - outlier) < 4 * error + finite
