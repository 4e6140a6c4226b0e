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

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.jacobi import Coefficients
from rmthess.laws.law import AffineLaw, Law
from rmthess.laws.mixture import Mixture

Array = NDArray[np.float64]

SIDE = 256  # of the small matrices
_SINGLE = 4000  # eigenvalues up to here are drawn one by one
_CELLS = 24  # quadrature nodes a step beyond: cells far finer than m steps resolve
_TABLE = 128  # points of the cdf on each interval that bracket a quantile


def quantiles(law: Law, levels: Array) -> Array:
    """law.quantile(levels) (n,): Newton's method from a table of the cdf.

    To rounding, and 1e-5 of the width next to an edge where the density is infinite. Ten times
    faster than ``Law.quantile``, which bisects (500 levels of a sample covariance of two atoms:
    3 ms instead of 30): of what a fit to eigenvalues costs it is nearly all.
    """
    if isinstance(law, AffineLaw) and law.scale > 0:
        return np.asarray(law.offset + law.scale * quantiles(law.base, levels), float)
    if type(law).quantile not in (Law.quantile, Mixture.quantile):  # a closed form
        return np.asarray(law.quantile(levels), float)
    share = np.sin(np.linspace(0, np.pi / 2, _TABLE + 1)) ** 2
    inside = [float(a) + (float(b) - float(a)) * share for a, b in law.support]
    points = np.unique(np.concatenate([law.breakpoints, *inside]))
    reached = np.asarray(law.cdf(points), float)
    k = np.clip(np.searchsorted(reached, levels), 1, points.size - 1)
    low, high = points[k - 1], points[k]
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = (levels - reached[k - 1]) / (reached[k] - reached[k - 1])
        found = low + (high - low) * np.clip(rise, 0.0, 1.0)
        rest = np.arange(levels.size)
        for _ in range(5):
            here = found[rest]
            step = (levels[rest] - np.asarray(law.cdf(here))) / np.asarray(law.density(here), float)
            step = np.where(np.isfinite(step), step, 0.0)
            found[rest] = np.clip(here + step, low[rest], high[rest])
            rest = rest[np.abs(step) > 1e-9 * (high - low)[rest]]  # the next step is below rounding
            if rest.size == 0:
                break
    for location, mass in law.atoms:
        top = float(law.cdf(float(location)))
        found = np.where((levels <= top) & (levels > top - float(mass)), float(location), found)
    return np.asarray(found)


def limit_chain(law: Law, steps: int, dim: float | None) -> Coefficients:
    """law.jacobi(steps); at side ``dim``, where some interval holds next to no eigenvalue, that of
    the dim quantiles.

    A heavy-tailed law ends in intervals of less than one eigenvalue. Its own coefficients know
    them, and are those of no matrix.
    """
    if dim is None or not _thin(law, steps, dim):
        return law.jacobi(steps)
    sizes, levels = _cells(law, steps, dim)
    return jacobi.from_quadrature(quantiles(law, levels), sizes / sizes.sum(), steps)


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

    Quantiles of the law plus deviations: those of a matrix of side at most 256 at the same level,
    in units of the local mean spacing 1/(dim ρ). Where that is the true side they are exact. Raises
    NotImplementedError for a law without an ensemble.
    """
    side = min(round(dim), SIDE)
    own = (np.arange(side) + 0.5) / side
    center, nodes = quantiles(law, own), quantiles(law, levels)
    spectra = np.empty((count, levels.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        unit, spacing = side * law.density(center), 1 / (dim * law.density(nodes))
        for row, child in zip(spectra, np.random.SeedSequence(seed).spawn(count), strict=True):
            deviation = unit * (law.sample(side, np.random.default_rng(child)) - center)
            moved = spacing * np.interp(levels, own, np.nan_to_num(deviation))
            row[:] = nodes + np.where(np.isfinite(moved), moved, 0.0)  # an atom has no spacing
    return spectra


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
    if np.unique(spectra[0]).size < steps:
        raise ValueError(
            f"{steps} steps need as many distinct eigenvalues; this law has "
            f"{np.unique(spectra[0]).size} at side {dim:g}"
        )
    rng = np.random.default_rng(seed)
    weights = rng.gamma(sizes / 2, size=(count, probes, sizes.size))
    weights /= weights.sum(axis=-1, keepdims=True)
    if steps**2 <= dim and not _thin(law, steps, dim):
        alpha, beta = law.jacobi(2 * steps)
        pairs = [_by_moments(alpha, beta, *pair) for pair in zip(spectra, weights, strict=True)]
        return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    a, b = _by_rotations(spectra[:, None, :], weights, steps)
    return a, b


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
