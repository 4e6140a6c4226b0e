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
from collections.abc import Hashable
from functools import cache, lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dst

from rmthess import jacobi
from rmthess.jacobi import Coefficients
from rmthess.laws.law import AffineLaw, Law
from rmthess.laws.sample_covariance import SampleCovariance
from rmthess.measure import DiscreteMeasure

Array = NDArray[np.float64]

SIDE = 256  # of the small matrices
_WHOLE = 512  # side up to which matrices are drawn as they are: 10 to 20 ms each
_FEW = 8  # variances of a population: each is a group of eigenvalues
_SINGLE = 4000  # eigenvalues up to here are drawn one by one
_FEWER = 1000  # where some intervals are thin
_CELLS = 24  # quadrature nodes a step beyond: cells far finer than m steps resolve


def limit_chain(law: Law, steps: int, dim: float | None) -> Coefficients:
    """law.jacobi(steps); at side ``dim``, where some interval holds next to no eigenvalue, that of
    the dim quantiles, beyond 1000 in cells.

    A heavy-tailed law ends in intervals of less than one eigenvalue. Its own coefficients know
    them, and are those of no matrix. Of a law about to split the last digits may be missing: their
    1e-6 is far below what any matrix scatters.
    """
    if isinstance(law, AffineLaw) and law.scale > 0:  # a descent asks for multiples of one law
        known = isinstance(law.base, Hashable)
        a, b = (_known_chain if known else limit_chain)(law.base, steps, dim)
        return law.scale * a + law.offset, law.scale * b
    if dim is None or not _thin(law, steps, dim):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Jacobi coefficients converged to")
            return law.jacobi(steps)
    sizes, levels = _cells(law, steps, dim)
    return jacobi.from_quadrature(law.quantile(levels), sizes / sizes.sum(), steps)


@lru_cache(maxsize=4)
def _known_chain(law: Law, steps: int, dim: float | None) -> Coefficients:
    return limit_chain(law, steps, dim)


def _thin(law: Law, steps: int, dim: float) -> bool:
    """Whether some interval of the support expects fewer eigenvalues than steps."""
    if len(law.support) == 1:
        return False
    ends = np.array(law.support, float)
    masses = np.asarray(law.cdf(ends[:, 1])) - np.asarray(law.cdf(ends[:, 0]))
    return bool(masses.min() * dim < steps)


def _cells(law: Law, steps: int, dim: float) -> tuple[Array, Array]:
    """Sizes and levels of single eigenvalues; beyond 4000 of the cells of a quadrature, or, where
    intervals are thin, beyond 1000 of cells that grow inwards."""
    bulk = Continuum(law)
    many = dim * bulk.mass
    if many <= _FEWER:
        return _with_atoms(bulk, _singles(many), dim)
    if _thin(law, steps, dim):
        return _with_atoms(bulk, _graded(many, steps), dim)
    if many <= _SINGLE:
        return _with_atoms(bulk, _singles(many), dim)
    nodes, masses = law.quadrature(_CELLS * steps)
    order = np.argsort(nodes)
    masses = masses[order][masses[order] > 0]
    masses /= masses.sum()
    return dim * masses, np.cumsum(masses) - masses / 2


def _singles(many: float) -> Array:
    """Cells of one eigenvalue; what is over a whole number goes to the middle: no jump at the next
    one."""
    left = int(many) // 2
    over = many - int(many)
    middle = [over] if over > 1e-9 else []
    return np.concatenate([np.ones(left), middle, np.ones(int(many) - left)])


def _graded(many: float, steps: int) -> Array:
    """Sizes of cells that grow inwards by an octave in steps/2 of them, after as many singles.

    Quantiles of the Gauss rules of log-normal and power-law covariances (sides 400 to 1e5, 64 and
    100 steps) are off by at most 3e-4 decades; matrices scatter by 1e-2.
    """
    few = max(32, steps // 2)
    sizes = 2.0 ** (np.maximum(np.arange(100 * few) - few + 1, 0) / few)
    upto = np.minimum(np.cumsum(sizes), many / 2)
    half = np.diff(upto, prepend=0.0)
    half = half[half > 1e-9]
    return np.concatenate([half, half[::-1]])


def _with_atoms(bulk: Continuum, sizes: Array, dim: float) -> tuple[Array, Array]:
    """Sizes and levels of cells of the continuous part and of the atoms, ascending.

    An atom is one cell of its mass: a count would stand still between two whole numbers.
    """
    levels = bulk.whole((np.cumsum(sizes) - sizes / 2) / sizes.sum())
    order = np.argsort(np.concatenate([levels, bulk.middles]))
    both = np.concatenate([sizes, dim * bulk.masses]), np.concatenate([levels, bulk.middles])
    return both[0][order], both[1][order]


class Continuum:
    """A law without its atoms: their ``masses``, the ``mass`` that is left, and its own levels.

    >>> from rmthess import MarchenkoPastur
    >>> bulk = Continuum(MarchenkoPastur(2.0))
    >>> bulk.mass, bulk.whole(np.array([0.5])), bulk.own(np.array([0.25, 0.75]))
    (0.5, array([0.75]), array([nan, 0.5]))
    """

    def __init__(self, law: Law) -> None:
        self.law = law
        self.places = np.array([float(place) for place, _ in law.atoms])
        self.masses = np.array([float(mass) for _, mass in law.atoms])
        self.mass = 1 - float(self.masses.sum())
        self._top = np.asarray(law.cdf(self.places), float)  # levels that the atoms reach up to

    @property
    def middles(self) -> Array:
        """Levels of the law in the middle of each atom."""
        return self._top - self.masses / 2

    def whole(self, own: Array) -> Array:
        """Levels of the law at levels of its continuous part."""
        below = self._top - np.cumsum(self.masses)  # of the continuous part, below each atom
        passed = self.mass * own[..., None] > below + 1e-12
        return np.asarray(np.minimum(self.mass * own + passed @ self.masses, 1.0))

    def own(self, levels: Array) -> Array:
        """Levels of the continuous part at levels of the law; NaN within an atom."""
        over = levels[..., None] - (self._top - self.masses)
        passed = over >= self.masses - 1e-12
        within = ((over > 1e-12) & ~passed).any(axis=-1)
        inside = np.clip((levels - passed @ self.masses) / self.mass, 0.0, 1.0)
        return np.where(within, np.nan, inside)

    def quantile(self, own: Array) -> Array:
        """Quantiles of the continuous part."""
        first, last = float(self.law.support[0][0]), float(self.law.support[-1][1])
        values = np.asarray(self.law.quantile(self.whole(own)), float)
        return np.where(own <= 0, first, np.where(own >= 1, last, values))

    def apart(self, values: Array) -> Array:
        """Those of ``values`` that lie at no atom."""
        near = 1e-9 * float(np.ptp(self.law.breakpoints))
        far = (np.abs(values[:, None] - self.places) > near).all(axis=1)
        return np.asarray(values[far])


def sample_spectra(
    law: Law, levels: Array, dim: float, count: int, seed: int, single: bool = True
) -> Array:
    """Eigenvalues (count, n) at the ``levels`` (n,) of ``count`` random matrices of side ``dim``.

    Exact up to a side of 512. Beyond it quantiles of the law plus deviations: those of a matrix of
    side 256 at the nearest level, in units of the local mean spacing 1/(dim ρ), or in ranks where
    an eigenvalue has crossed a gap; an atom stays where it is. ``single`` eigenvalues also move by
    what a small matrix does not know. (At a side of 400 a first 500 sample covariances lay 3.2 ±
    0.6% farther from their fits than such draws do; than exact ones -0.5 ± 0.6%.) Raises
    NotImplementedError for a law without an ensemble.
    """
    bulk = Continuum(law)
    side = _small_side(bulk, dim)
    children = np.random.SeedSequence(seed).spawn(count)
    if levels.size == side == dim:
        return np.array([law.sample(side, np.random.default_rng(child)) for child in children])
    nodes, own = np.asarray(law.quantile(levels), float), bulk.own(levels)
    moving = np.flatnonzero(~np.isnan(own))
    nodes[moving] = bulk.quantile(own[moving])
    own, nodes_moving = own[moving], nodes[moving]
    spacing, many = _spacing(bulk, own, dim * bulk.mass), dim * bulk.mass
    frame = cache(partial(_frame, bulk))  # matrices of one law have nearly always one rank
    spectra = np.empty((count, levels.size))
    for place, (row, child) in enumerate(zip(spectra, children, strict=True)):
        values = bulk.apart(law.sample(side, np.random.default_rng(child)))
        moved, rank = _deviations(bulk, values, *frame(values.size))
        at = np.minimum((own * values.size).astype(int), values.size - 1)
        there = np.isfinite(rank[at])
        short = np.zeros(own.size)
        if single and own.size > 2 * values.size:
            rng = np.random.default_rng([seed, place])
            short = _ripples(own.size, values.size, many, rng)
        row[:] = nodes
        row[moving] += spacing * (moved[at] + short)
        if there.any():  # a gap is no multiple of a spacing: these move by eigenvalues
            wanted = own[there] + rank[at][there] / many
            row[moving[there]] = nodes_moving[_nearest_of(own, wanted)]
        row.sort()
    return spectra


def _small_side(bulk: Continuum, dim: float) -> int:
    """The true side up to 512; beyond it one below 256, of nearly as whole numbers as the true one.

    Of eigenvalues in atoms and intervals, of samples, and of each variance of a population. Off by
    0.4 of an eigenvalue (256 for 400, shares 0.6 and 0.4) draws of a law with a gap lay half of
    their scatter aside, and its parameters scattered by a tenth too little.
    """
    if round(dim) <= _WHOLE:
        return round(dim)
    law = bulk.law
    population = getattr(law, "population", None)
    groups = np.zeros(0)
    if isinstance(population, DiscreteMeasure) and population.nodes.size <= _FEW:
        groups = np.cumsum(population.weights)[:-1]
    shares = np.concatenate([
        bulk.masses,
        np.asarray(law.cdf(_gaps(law)), float),
        groups,
        [1 / law.ratio] if isinstance(law, SampleCovariance) else [],
    ])  # fmt: skip
    if shares.size == 0:
        return SIDE
    sides = np.arange(SIDE, 3 * SIDE // 4, -1)
    counts = sides[:, None] * shares
    return int(sides[np.argmin(np.abs(counts - np.rint(counts)).max(axis=1).round(2))])


def _ripples(shown: int, known: int, many: float, rng: np.random.Generator) -> Array:
    """What eigenvalues of a small matrix do not know of a large one, in spacings, (shown,).

    Σ_k g_k √(2/(π² k)) sin(π k u), k = known .. many, g_k standard normal, at evenly spaced levels
    u: the waves too short for ``known`` eigenvalues. Of real matrices the variance in the bulk then
    is log(n)/π² + O(1) at every side n, and log(i)/π² of the i-th from an edge (Gustavsson, Ann.
    Inst. H. Poincaré 41, 2005; O'Rourke, J. Stat. Phys. 138, 2010). Waves shorter than the levels
    shown are white.
    """
    k = np.arange(1, shown + 1)
    sizes = np.where(k > known, np.sqrt(2 / (np.pi**2 * k)), 0.0)
    white = np.sqrt(max(np.log(many / shown), 0.0)) / np.pi
    waves = dst(sizes * rng.standard_normal(shown) / 2, type=3)
    return np.asarray(waves + white * rng.standard_normal(shown))


def _frame(bulk: Continuum, side: int) -> tuple[Array, Array, Array]:
    """Levels, quantiles and spacings of ``side`` eigenvalues of the continuous part."""
    levels = (np.arange(side) + 0.5) / side
    return levels, bulk.quantile(levels), _spacing(bulk, levels, side)


def _deviations(
    bulk: Continuum, values: Array, levels: Array, center: Array, unit: Array
) -> tuple[Array, Array]:
    """How far eigenvalues lie off their quantiles, in spacings; in ranks those across a gap.

    The ranks of all others are NaN.
    """
    moved = np.divide(values - center, unit, out=np.zeros(values.size), where=unit > 0)
    rank = np.full(values.size, np.nan)
    gaps = _gaps(bulk.law)
    across = np.searchsorted(gaps, values) != np.searchsorted(gaps, center)
    if across.any():
        reached = bulk.own(np.asarray(bulk.law.cdf(values[across]), float))
        rank[across] = values.size * (np.nan_to_num(reached) - levels[across])
    return moved, rank


def _nearest_of(levels: Array, wanted: Array) -> NDArray[np.intp]:
    """Index of the level nearest to each one wanted."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, wanted)


def _gaps(law: Law) -> Array:
    """The middle of each gap of the support."""
    ends = np.array(law.support, float)
    return np.asarray((ends[:-1, 1] + ends[1:, 0]) / 2)


def _spacing(bulk: Continuum, levels: Array, dim: float) -> Array:
    """What one eigenvalue of ``dim`` takes up at each level, half to each side.

    1/(dim ρ) inside a bulk, and finite at its edges; towards a gap as much as away from it.
    """
    half, gaps = 0.5 / dim, _gaps(bulk.law)
    low, middle, high = (
        bulk.quantile(np.clip(levels + step, 0.0, 1.0)) for step in (-half, 0.0, half)
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
    spectra = sample_spectra(law, levels, dim, count, seed, single=bool(sizes.max() <= 1))
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
