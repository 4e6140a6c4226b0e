"""Jacobi matrices as plain arrays: the coordinates in which Lanczos sees a measure.

A probability measure and its Jacobi matrix (diagonal a_0, a_1, ..., off-diagonal b_0, b_1, ... > 0)
determine each other:  m(z) = 1/(a_0 - z - b_0^2 m_1(z)),  m_1(z) = 1/(a_1 - z - b_1^2 m_2(z)), ...
Coefficients after a breakdown (b = 0: the measure has no further atom) are NaN.

Sources: Golub & Meurant, *Matrices, Moments and Quadrature* (2010), chapters 2-6; Haydock, *Solid
State Physics* 35 (1980) for the terminator; Dumitriu & Edelman, J. Math. Phys. 43 (2002) for the
tridiagonal ensembles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse import diags_array
from scipy.special import poch

Array = NDArray[np.float64]
Coefficients = tuple[Array, Array]


def leading_block(diagonal: ArrayLike, off_diagonal: ArrayLike) -> Coefficients:
    """The coefficients before the breakdown: up to the first off-diagonal that is zero or NaN."""
    a, b = np.asarray(diagonal, float), np.asarray(off_diagonal, float)
    if a.ndim != 1 or b.shape != (a.size - 1,):
        raise ValueError(
            f"a Jacobi matrix has shapes (steps,) and (steps - 1,), got {a.shape} and {b.shape}"
        )
    stops = np.flatnonzero(~(b > 0))
    steps = int(stops[0]) + 1 if stops.size else a.size
    return a[:steps], b[: steps - 1]


def gauss_quadrature(diagonal: ArrayLike, off_diagonal: ArrayLike) -> tuple[Array, Array]:
    """Nodes and weights of the Gauss rule: eigenvalues and squared first eigenvector entries.

    The rule with ``steps`` nodes integrates polynomials up to degree 2 steps - 1 exactly
    (Golub & Welsch, Math. Comp. 23, 1969).

    >>> gauss_quadrature([0.0, 0.0], [1.0])
    (array([-1.,  1.]), array([0.5, 0.5]))
    """
    nodes, vectors = _eigensystem(*leading_block(diagonal, off_diagonal))
    return nodes, vectors[0] ** 2


def ritz(
    diagonal: ArrayLike, off_diagonal: ArrayLike, residual: float
) -> tuple[Array, Array, Array]:
    """Ritz values, weights and error bounds residual * |last eigenvector entry|.

    Each bound is the norm of the residual of its Ritz pair: an eigenvalue of the operator lies
    within it (Parlett, *The Symmetric Eigenvalue Problem*, section 13.2).
    """
    nodes, vectors = _eigensystem(*leading_block(diagonal, off_diagonal))
    return nodes, vectors[0] ** 2, abs(residual) * np.abs(vectors[-1])


def markov_stieltjes(
    diagonal: ArrayLike, off_diagonal: ArrayLike, residual: float, x: ArrayLike
) -> tuple[Array, Array]:
    """σ(-∞, x) and σ(-∞, x] of the Gauss–Radau rule σ with a node at x.

    Whatever measure μ has these coefficients, with ``residual`` for the next off-diagonal one,
    σ(-∞, x) <= μ(-∞, x) <= μ(-∞, x] <= σ(-∞, x]; and σ is such a measure, so that no better bounds
    follow from them. σ belongs to the Jacobi matrix bordered by ``residual`` and that diagonal
    entry which makes x an eigenvalue. At a node of the Gauss rule that entry is infinite and σ the
    Gauss rule itself; so it is for ``residual`` 0 and after a breakdown, where μ is known.

    ``x`` of any shape; both results have it. O(steps²) operations a point.

    Sources: Akhiezer, *The Classical Moment Problem* (1965), chapter 2; Golub, SIAM Rev. 15 (1973),
    for the border; derived in theory/lanczos.md. One step is Cantelli's inequality:

    >>> markov_stieltjes([0.0], [], 1.0, [-1.0, 0.0, 1.0])
    (array([0. , 0. , 0.5]), array([0.5, 1. , 1. ]))
    """
    a, b = leading_block(diagonal, off_diagonal)
    nodes, vectors = _eigensystem(a, b)
    point = np.asarray(x, float)
    total = np.concatenate([[0.0], np.cumsum(vectors[0] ** 2)])
    total /= total[-1]
    below, up_to = (
        np.where(np.isnan(point), np.nan, total[np.searchsorted(nodes, point, side)])
        for side in ("left", "right")
    )
    if residual == 0 or a.size < np.size(diagonal):
        return below, up_to
    tails = residual * vectors[-1]
    farthest = max(np.abs(nodes).max(), residual) / np.finfo(float).eps
    for place in np.ndindex(point.shape):
        left = int(np.searchsorted(nodes, point[place]))  # nodes of σ interlace those of Gauss
        with np.errstate(divide="ignore", invalid="ignore"):
            last = point[place] + np.sum(tails * (tails / (nodes - point[place])))
        if abs(last) < farthest:  # else, as for NaN, σ is the Gauss rule to rounding
            # The default, stemr, would drop off-diagonals that are small beside a large entry.
            _, vectors = _eigensystem(np.append(a, last), np.append(b, residual), "stev")
            total = np.cumsum(vectors[0] ** 2)
            below[place] = total[left - 1] / total[-1] if left else 0.0
            up_to[place] = total[left] / total[-1]
    return below, up_to


def _eigensystem(a: Array, b: Array, driver: str = "auto") -> tuple[Array, Array]:
    # LAPACK's stemr loses its thresholds for entries near 1e-150; a power of two costs no digit.
    top = max(np.abs(a).max(), np.abs(b).max(initial=0.0))
    scale = 2.0 ** np.round(np.log2(top)) if top > 0 else 1.0
    values, vectors = eigh_tridiagonal(a / scale, b / scale, lapack_driver=driver)
    return values * scale, vectors


def chains(
    apply: Callable[[Array], Array], starts: Array, steps: int, reach: int | None = None
) -> Coefficients:
    """Lanczos on a symmetric map from each row of ``starts`` (probes, n), side by side.

    ``apply`` maps (probes, n) to (probes, n) row by row. Returns diagonals (probes, steps) and
    off-diagonals (probes, steps - 1), NaN after a breakdown; two passes of Gram-Schmidt a step
    (twice is enough: Kahan, in Parlett, section 6.9). ``reach`` is the bandwidth of a banded map
    whose starts are zero past their first ``reach`` entries: then only the rows reached are
    touched.
    """
    probes, side = starts.shape
    a, b = np.full((probes, steps), np.nan), np.full((probes, max(steps - 1, 0)), np.nan)
    basis = np.zeros((probes, min(steps, side), side))
    vector = starts / np.linalg.norm(starts, axis=1, keepdims=True)
    alive, scale = np.ones(probes, bool), np.zeros(probes)
    for step in range(basis.shape[1]):
        rows = side if reach is None else min(side, reach * (step + 2))
        basis[:, step] = vector
        known = basis[:, : step + 1, :rows]
        image = apply(vector)
        a[alive, step] = np.einsum("pn,pn->p", vector, image)[alive]
        scale = np.maximum(scale, np.abs(image).max(axis=1))
        rest = image[:, :rows, None]
        for _ in range(2):
            rest = rest - known.transpose(0, 2, 1) @ (known @ rest)
        norm = np.linalg.norm(rest[..., 0], axis=1)
        alive = alive & (norm > 1e-14 * np.sqrt(side) * scale)
        if step + 1 == basis.shape[1] or not alive.any():
            break
        b[alive, step] = norm[alive]
        vector = np.zeros_like(vector)
        vector[alive, :rows] = rest[alive, :, 0] / norm[alive, None]
    return a, b


def from_quadrature(nodes: ArrayLike, weights: ArrayLike, steps: int) -> Coefficients:
    """First ``steps`` Jacobi coefficients of the measure sum_i weights_i delta(nodes_i).

    Lanczos on diag(nodes) from the start vector sqrt(weights); NaN from the step where the atoms
    are used up.

    >>> from_quadrature([-1.0, 1.0], [0.5, 0.5], 2)
    (array([0., 0.]), array([1.]))
    """
    x, w = np.asarray(nodes, float), np.asarray(weights, float)
    x, w = x[w > 0], w[w > 0]
    center, radius = 0.5 * (x.min() + x.max()), 0.5 * (x.max() - x.min())
    unit = (x - center) / (radius if radius > 0 else 1.0)
    a, b = chains(lambda v: unit * v, np.sqrt(w)[None, :], steps)
    return center + radius * a[0], radius * b[0]


def stieltjes(
    diagonal: ArrayLike,
    off_diagonal: ArrayLike,
    z: ArrayLike,
    tail: tuple[float, ...] | None = None,
) -> NDArray[np.complex128]:
    """m(z) = 1/(a_0 - z - b_0^2/(a_1 - z - ...)), vectorised in z.

    Without ``tail`` the fraction stops: the transform of the Gauss rule. With ``tail = (a, b)``, or
    a :class:`Tail`, it is closed by the transform of the constant coefficients a, b, a semicircle
    on a ± 2b. That is the square-root terminator: a smooth density on [a - 2b, a + 2b] without any
    bandwidth.
    """
    a, b = leading_block(diagonal, off_diagonal)
    point = np.asarray(z, complex)
    if tail is None:
        m = 1 / (a[-1] - point)
        remaining = zip(a[-2::-1], b[::-1], strict=True)
    else:
        center, half = tail[:2]
        y = point - center
        m = -2 / (y + np.sqrt(y - 2 * half) * np.sqrt(y + 2 * half))
        remaining = zip(a[::-1], np.append(b, half)[::-1], strict=True)
    for a_k, b_k in remaining:
        m = 1 / (a_k - point - b_k**2 * m)
    return np.asarray(m)


class Tail(NamedTuple):
    """Limits a, b of the coefficients, their standard errors, and whether they have settled."""

    center: float
    half: float
    center_error: float
    half_error: float
    converged: bool

    @property
    def edges(self) -> tuple[float, float]:
        """a ± 2b: the edges of a one-cut bulk."""
        return self.center - 2 * self.half, self.center + 2 * self.half


def tail(diagonal: ArrayLike, off_diagonal: ArrayLike, tolerance: float = 0.05) -> Tail:
    """Limits of the coefficients, read from the second half of those that are given.

    For a one-cut measure with square-root edges a_k -> a and b_k -> b (Nevai class), and the bulk
    is [a - 2b, a + 2b]. ``converged`` says that within that half neither coefficient drifts nor
    scatters by more than ``tolerance`` times b; where it is False (two cuts: oscillation; heavy
    tails: drift) the edges mean nothing.
    """
    a, b = leading_block(diagonal, off_diagonal)
    if b.size < 4:
        raise ValueError(f"a tail needs at least 5 steps before a breakdown, got {a.size}")
    late_a, late_b = a[a.size // 2 :], b[b.size // 2 :]
    center, half = float(late_a.mean()), float(late_b.mean())
    scatter = max(_spread(late_a), _spread(late_b))
    return Tail(
        center,
        half,
        float(late_a.std(ddof=1) / np.sqrt(late_a.size)),
        float(late_b.std(ddof=1) / np.sqrt(late_b.size)),
        bool(scatter <= tolerance * half),
    )


def _spread(values: Array) -> float:
    """Larger of the scatter and the drift from first to second half."""
    middle = values.size // 2
    drift = abs(values[:middle].mean() - values[middle:].mean())
    return float(max(drift, values.std()))


def hermite_chains(
    steps: int, dim: float, rng: np.random.Generator, probes: int = 1
) -> Coefficients:
    """Lanczos coefficients of one GOE matrix of side ``dim`` and unit limit variance.

    Shapes (probes, steps) and (probes, steps - 1): what Lanczos from ``probes`` uniformly random
    start vectors returns, in law. For one probe a_k ~ N(0, 2/dim), b_k ~ chi(dim - 1 -
    k)/sqrt(dim), all independent (Dumitriu & Edelman 2002, beta = 1), in O(steps) at any ``dim``.
    For several, the block form of the same reduction is a band matrix of side probes * steps, on
    which each probe runs; coefficients of different probes are correlated because they see the same
    matrix. Past ``dim`` steps the chain has broken down.
    """
    if probes == 1:
        diagonal = rng.normal(scale=np.sqrt(2 / dim), size=steps)
        off_diagonal = _chi(dim - 1 - np.arange(steps - 1), rng) / np.sqrt(dim)
        return diagonal[None, :], off_diagonal[None, :]
    side = min(probes * steps, int(dim))
    bands = [rng.normal(scale=np.sqrt(1 / 2), size=side)]  # half the diagonal: added twice below
    bands += [rng.normal(size=side - d) for d in range(1, min(probes, side))]
    if probes < side:
        bands.append(_chi(dim - probes - np.arange(side - probes), rng))
    upper = diags_array(bands, offsets=list(range(len(bands))), shape=(side, side)).tocsr()
    matrix = (upper + upper.T) / np.sqrt(dim)
    return chains(lambda v: (matrix @ v.T).T, _starts(probes, side, dim, rng), steps, probes)


def laguerre_chains(
    steps: int, dim: float, samples: float, rng: np.random.Generator, probes: int = 1
) -> Coefficients:
    """Lanczos coefficients of one X^T X/samples, X (samples, dim) with standard normal entries.

    As :func:`hermite_chains`, with T = B^T B/samples: for one probe B is upper bidiagonal with
    diagonal chi(samples - k) and superdiagonal chi(dim - 1 - k) (Dumitriu & Edelman 2002);
    for several it is upper banded. ``samples`` may be any positive real number.
    """
    if probes == 1:
        upright = _chi(samples - np.arange(steps), rng)
        sideways = _chi(dim - 1 - np.arange(steps - 1), rng)
        diagonal = upright**2
        diagonal[1:] += sideways**2
        return diagonal[None, :] / samples, (upright[:-1] * sideways)[None, :] / samples
    side = min(probes * steps, int(dim))
    left = samples - np.arange(side)  # rows of X not yet used
    bands = [_chi(left, rng)]
    for d in range(1, min(probes, side)):
        bands.append(np.where(left[: side - d] > 0, rng.normal(size=side - d), 0.0))
    if probes < side:
        last = _chi(dim - probes - np.arange(side - probes), rng)
        bands.append(np.where(left[: side - probes] > 0, last, 0.0))
    factor = diags_array(bands, offsets=list(range(len(bands))), shape=(side, side)).tocsr()
    factor /= np.sqrt(samples)
    adjoint = factor.T.tocsr()
    starts = _starts(probes, side, dim, rng)
    return chains(lambda v: (adjoint @ (factor @ v.T)).T, starts, steps, probes)


def _starts(probes: int, side: int, dim: float, rng: np.random.Generator) -> Array:
    """Gaussian vectors of length ``dim`` in the basis of their own QR factorisation."""
    count = min(probes, side)
    triangle = np.triu(rng.normal(size=(count, probes)), 1)
    triangle[np.arange(count), np.arange(count)] = _chi(dim - np.arange(count), rng)
    rows = np.zeros((probes, side))
    rows[:, :count] = triangle.T
    return rows


def mean_hermite_chain(steps: int, dim: float) -> Coefficients:
    """Expectation of one row of :func:`hermite_chains`; b_k falls below 1 by about k/(2 dim)."""
    return np.zeros(steps), _mean_chi(dim - 1 - np.arange(steps - 1)) / np.sqrt(dim)


def mean_laguerre_chain(steps: int, dim: float, samples: float) -> Coefficients:
    """Expectation of one row of :func:`laguerre_chains`."""
    upright, sideways = samples - np.arange(steps), dim - np.arange(steps)  # degrees of freedom
    diagonal = np.maximum(upright, 0.0)
    diagonal[1:] += np.maximum(sideways[1:], 0.0)
    off_diagonal = _mean_chi(upright[:-1]) * _mean_chi(sideways[1:])
    return diagonal / samples, off_diagonal / samples


def _mean_chi(freedom: ArrayLike) -> Array:
    left = np.maximum(np.asarray(freedom, float), 0.0)
    mean = np.sqrt(2) * poch(np.where(left > 0, left, 1.0) / 2, 0.5)
    return np.where(left > 0, mean, 0.0)


def _chi(freedom: ArrayLike, rng: np.random.Generator) -> Array:
    """chi variables; 0 where no degree of freedom is left."""
    left = np.asarray(freedom, float)
    return np.where(left > 0, np.sqrt(rng.chisquare(np.where(left > 0, left, 1.0))), 0.0)
