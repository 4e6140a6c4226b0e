"""What Lanczos finds on random matrices of a law, from random vectors, without their products.

Lanczos reads the spectral measure Σ_i w_i δ(λ_i) of its start vector, and for a uniformly random
one the weights are w_i = g_i²/Σ_j g_j², g standard normal, whatever the matrix. The eigenvalues of
a random matrix deviate from the law's quantiles by about the local mean spacing, at every size: so
a small matrix of the law's ensemble shows how a large one's eigenvalues deviate. The weights
scatter by O(1/√dim); but all depths of a run see the same edges, and without the deviations the
errors of what is fitted to a run would come out two to four times too small (semicircle, sides 300
and 1200, four probes). With them they come out right at these sides, and 1.4 times too large at
5000, where a stretch of levels moves as one.

For GOE and Wishart matrices ``sample_jacobi`` of the law is exact and needs none of this.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.jacobi import Coefficients
from rmthess.laws.law import Law

Array = NDArray[np.float64]

SIDE = 256  # of the small matrices
_SINGLE = 4000  # eigenvalues up to here are drawn one by one
_CELLS = 24  # quadrature nodes a step beyond: cells far finer than m steps resolve


def limit_chain(law: Law, steps: int, dim: float | None) -> Coefficients:
    """law.jacobi(steps); at side ``dim``, where some interval holds next to no eigenvalue, that of
    the dim quantiles.

    A heavy-tailed law ends in intervals of less than one eigenvalue. Its own coefficients know
    them, and are those of no matrix. Of a law about to split the last digits may be missing: their
    1e-6 is far below what any matrix scatters.
    """
    if dim is None or not _thin(law, steps, dim):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Jacobi coefficients converged to")
            return law.jacobi(steps)
    sizes, levels = _cells(law, steps, dim)
    return jacobi.from_quadrature(law.quantile(levels), sizes / sizes.sum(), steps)


def _thin(law: Law, steps: int, dim: float) -> bool:
    """Whether some interval of the support expects fewer eigenvalues than steps."""
    if len(law.support) == 1:
        return False
    ends = np.array(law.support, float)
    masses = np.asarray(law.cdf(ends[:, 1])) - np.asarray(law.cdf(ends[:, 0]))
    return bool(masses.min() * dim < steps)


def _cells(law: Law, steps: int, dim: float) -> tuple[Array, Array]:
    """Sizes and levels of single eigenvalues; beyond 4000 of the cells of a quadrature.

    Where intervals are thin, of the 1000 least and largest singly, and of 2000 cells between.
    """
    if dim <= _SINGLE:
        return np.ones(round(dim)), (np.arange(round(dim)) + 0.5) / round(dim)
    if _thin(law, steps, dim):
        single, cells = np.ones(_SINGLE // 4), _SINGLE // 2
        sizes = np.concatenate([single, np.full(cells, (dim - 2 * single.size) / cells), single])
        return sizes, (np.cumsum(sizes) - sizes / 2) / dim
    nodes, masses = law.quadrature(_CELLS * steps)
    order = np.argsort(nodes)
    masses = masses[order][masses[order] > 0]
    masses /= masses.sum()
    return dim * masses, np.cumsum(masses) - masses / 2


def sample_spectra(law: Law, levels: Array, dim: float, count: int, seed: int) -> Array:
    """Eigenvalues (count, n) at the ``levels`` (n,) of ``count`` random matrices of side ``dim``.

    Quantiles of the law plus deviations: those of a matrix of side at most 256 at the nearest
    level, in units of the local mean spacing 1/(dim ρ), or in ranks where an eigenvalue has crossed
    a gap. Where that is the true side they are exact. (Interpolated between levels they would lose
    variance: 16 sample covariances of side 400 lay 10% farther from their fits than expected, now
    3 ± 4%.) Raises NotImplementedError for a law without an ensemble.
    """
    side = min(round(dim), SIDE)
    own = (np.arange(side) + 0.5) / side
    center, nodes = (np.asarray(law.quantile(p), float) for p in (own, levels))
    at = np.minimum((levels * side).astype(int), side - 1)
    gaps = _gaps(law)
    unit, spacing = _spacing(law, own, side), _spacing(law, levels, dim)
    spectra = np.empty((count, levels.size))
    exact = levels.size == side == dim
    for row, child in zip(spectra, np.random.SeedSequence(seed).spawn(count), strict=True):
        values = law.sample(side, np.random.default_rng(child))
        if exact:
            row[:] = values
            continue
        moved = np.divide(values - center, unit, out=np.zeros(side), where=unit > 0)  # no atoms
        row[:] = nodes + spacing * moved[at]
        across = np.searchsorted(gaps, values) != np.searchsorted(gaps, center)
        if across.any():  # a gap is no multiple of a spacing: these move by eigenvalues
            rank = np.zeros(side)
            rank[across] = side * (np.asarray(law.cdf(values[across])) - own[across]) / dim
            there = across[at]
            row[there] = nodes[_nearest_of(levels, levels[there] + rank[at][there])]
    return spectra


def _nearest_of(levels: Array, wanted: Array) -> NDArray[np.intp]:
    """Index of the level nearest to each one wanted."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, wanted)


def _gaps(law: Law) -> Array:
    """The middle of each gap of the support."""
    ends = np.array(law.support, float)
    return np.asarray((ends[:-1, 1] + ends[1:, 0]) / 2)


def _spacing(law: Law, levels: Array, dim: float) -> Array:
    """What one eigenvalue of ``dim`` takes up at each level, half to each side.

    1/(dim ρ) inside a bulk, and finite at its edges; towards a gap as much as away from it.
    """
    half, gaps = 0.5 / dim, _gaps(law)
    low, middle, high = (
        np.asarray(law.quantile(np.clip(levels + step, 0.0, 1.0)), float)
        for step in (-half, 0.0, half)
    )
    below, above = middle - low, high - middle
    place = np.searchsorted(gaps, middle)
    left = np.searchsorted(gaps, low) == place
    right = np.searchsorted(gaps, high) == place
    return np.where(left, below, np.where(right, above, 0.0)) + np.where(
        right, above, np.where(left, below, 0.0)
    )


def sample_chains(
    law: Law, steps: int, dim: float, probes: int, count: int, seed: int
) -> Coefficients:
    """Jacobi coefficients (count, probes, steps) and (count, probes, steps - 1).

    ``count`` random matrices of side ``dim``, each from ``probes`` uniformly random vectors. Above
    4000 eigenvalues those of one quadrature cell of the law share its node and a Gamma weight:
    exact but for the width of a cell, a small part of what ``steps`` steps resolve.

    >>> from rmthess import DiscreteMeasure, SampleCovariance
    >>> law = SampleCovariance(0.25, DiscreteMeasure([1.0, 3.0], [0.5, 0.5]))
    >>> a, b = sample_chains(law, 6, 1000, probes=2, count=20, seed=0)
    >>> a.shape, b.shape, bool(abs(a[..., 0].mean() - 2) < 0.05)
    ((20, 2, 6), (20, 2, 5), True)
    """
    sizes, levels = _cells(law, steps, dim)
    spectra = sample_spectra(law, levels, dim, count, seed)
    ascending = np.sort(spectra[0])  # zeros differ by rounding
    distinct = 1 + np.count_nonzero(np.diff(ascending) > 1e-12 * np.ptp(ascending))
    if distinct < steps:
        raise ValueError(
            f"{steps} steps need as many distinct eigenvalues; this law has {distinct} at side "
            f"{dim:g}"
        )
    rng = np.random.default_rng(seed)
    weights = rng.gamma(sizes / 2, size=(count, probes, sizes.size))
    weights /= weights.sum(axis=-1, keepdims=True)
    if steps**2 <= dim and not _thin(law, steps, dim):
        alpha, beta = limit_chain(law, 2 * steps, dim)
        with np.errstate(invalid="ignore", over="ignore"):
            pairs = [_by_moments(alpha, beta, *pair) for pair in zip(spectra, weights, strict=True)]
        a, b = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
        if _as_lanczos_finds(spectra, weights, a):
            return a, b
    return _by_rotations(spectra[:, None, :], weights, steps)


def _as_lanczos_finds(spectra: Array, weights: Array, a: Array) -> bool:
    """Whether the diagonals of some draws are to 1e-4 of the width those of Lanczos itself.

    A long thin tail, in which a moment's polynomials find no eigenvalue, spoils them.
    """
    for k in range(0, len(spectra), max(1, len(spectra) // 4)):
        exact, _ = jacobi.from_quadrature(spectra[k], weights[k, 0], a.shape[-1])
        if not np.abs(exact - a[k, 0]).max() <= 1e-4 * np.ptp(spectra[k]):
            return False
    return True


def modified_moments(diagonals: Array, off_diagonals: Array, alpha: Array, beta: Array) -> Array:
    """c_k = e_1ᵀ p_k(T) e_1 = ∫ p_k dν, k = 1 .. K, for tridiagonal T of measures ν.

    p_k: the orthonormal polynomials of the coefficients ``alpha`` (K,) and ``beta`` (K,). Of ν's
    with ``steps`` coefficients (..., steps) they are exact for K < 2 steps; shape (..., K). Where
    p_k belong to ν itself all are 0; from a random vector of side dim, if the law holds, they are
    nearly independent with variance 2/dim each, whatever the law.
    """
    before, now = np.zeros_like(diagonals), np.zeros_like(diagonals)
    now[..., 0] = 1.0
    found = []
    for k in range(alpha.size):
        applied = (diagonals - alpha[k]) * now
        applied[..., 1:] += off_diagonals * now[..., :-1]
        applied[..., :-1] += off_diagonals * now[..., 1:]
        if k:
            applied -= beta[k - 1] * before
        before, now = now, applied / beta[k]
        found.append(now[..., 0])
    return np.stack(found, axis=-1)


def _by_moments(alpha: Array, beta: Array, nodes: Array, weights: Array) -> Coefficients:
    """The chains of Σ_i w_i δ(nodes_i), weights (probes, n), close to the law of alpha and beta.

    c_l = Σ_i w_i p_l(λ_i) in the law's orthonormal polynomials, then σ_k,l = ∫ q_k p_l dν with q_k
    orthonormal for ν: it obeys the recurrences of both families and vanishes for l < k (modified
    Chebyshev algorithm: Gautschi, *Orthogonal Polynomials* (2004), section 2.1.7; here with both
    families orthonormal). Well conditioned while the cell at an edge, of mass 1/steps², holds an
    eigenvalue: errors stay below 1e-6 of the width for steps² <= dim and grow fast beyond.
    """
    steps = alpha.size // 2
    values = np.empty((2 * steps, nodes.size))
    values[0] = 1.0
    for k in range(2 * steps - 1):
        values[k + 1] = (nodes - alpha[k]) * values[k]
        if k:
            values[k + 1] -= beta[k - 1] * values[k - 1]
        values[k + 1] /= beta[k]
    sigma, before = weights @ values.T, np.zeros((weights.shape[0], 2 * steps))
    below = np.concatenate([[0.0], beta])  # beta_{l-1} at l
    a, b = np.empty((weights.shape[0], steps)), np.empty((weights.shape[0], steps - 1))
    for k in range(steps):
        at = slice(k, 2 * steps - 1 - k)  # where both families still have their terms
        after = slice(k + 1, 2 * steps - k)
        pivot = sigma[:, k]
        applied = beta[at] * sigma[:, after] + alpha[at] * sigma[:, at]
        if k:  # sigma vanishes left of k
            applied[:, 1:] += below[at][1:] * sigma[:, at][:, :-1]
            applied -= b[:, k - 1 : k] * before[:, at]
        else:
            applied[:, 1:] += below[1 : 2 * steps - 1] * sigma[:, : 2 * steps - 2]
        a[:, k] = applied[:, 0] / pivot
        if k + 1 == steps:
            break
        applied -= a[:, k : k + 1] * sigma[:, at]
        following = np.sqrt(applied[:, 1] * pivot / beta[k])
        b[:, k] = beta[k] * following / pivot
        before, sigma = sigma, np.zeros_like(sigma)
        sigma[:, at] = applied / b[:, k : k + 1]
    return a, b


def _by_rotations(nodes: Array, weights: Array, steps: int) -> Coefficients:
    """One node after the other, each by a row of Givens rotations; nodes broadcast to weights.

    The Rutishauser–Kahan–Pal–Walker algorithm: Gragg & Harwood, Numer. Math. 44 (1984), 317-335;
    cut off after ``steps`` rows, which later nodes reach through earlier rows only.
    """
    shape = weights.shape[:-1]
    x = np.moveaxis(np.broadcast_to(nodes, weights.shape), -1, 0).reshape(-1, *shape)
    diagonal, square = np.zeros((steps, *shape)), np.zeros((steps, *shape))
    diagonal[0], square[0] = x[0], weights[..., 0]
    for n in range(1, weights.shape[-1]):
        mass, cosine = weights[..., n], np.ones(shape)
        sine, carried = np.zeros(shape), np.zeros(shape)
        if n < steps:
            diagonal[n] = x[n]
        for k in range(min(n + 1, steps)):
            total = square[k] + mass
            rotated, limit = cosine * total, sine * square[k]
            some = total > 0  # nothing is left to pass down once a node repeats another
            cosine = np.divide(square[k], total, out=np.ones(shape), where=some)
            sine = np.divide(mass, total, out=np.zeros(shape), where=some)
            passed = sine * (diagonal[k] - x[n]) - cosine * carried
            diagonal[k] += carried - passed
            carried = passed
            mass = np.divide(carried**2, sine, out=limit, where=sine > 0)
            square[k] = rotated
    return np.moveaxis(diagonal, 0, -1), np.sqrt(np.moveaxis(square[1:], 0, -1))
