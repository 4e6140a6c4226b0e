"""The Hessian of softmax regression on Gaussian inputs (theory/softmax_glm.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from rmthess.laws.law import Law
from rmthess.laws.mixture import mixture
from rmthess.measure import DiscreteMeasure
from rmthess.predictions.features import Features, features
from rmthess.predictions.glm import GLMPrediction, check_samples, finite
from rmthess.predictions.matrix_poisson import MatrixPoisson
from rmthess.ranks.network import RankBound
from rmthess.spikes import Spike

Array = NDArray[np.float64]
Walk = tuple[Array, Array, Array]

_AXIS = {0: 1, 1: 128, 2: 40, 3: 24}  # points an axis
_REACH = {0: 0.0, 1: 8.5, 2: 6.5, 3: 5.5}  # standard deviations
_SCATTERED = 4096  # points in four dimensions and more


def softmax_glm(weights: ArrayLike, samples: int) -> GLMPrediction:
    """The spectrum of (1/n) Σ_i (diag π_i - π_i π_iᵀ) ⊗ x_i x_iᵀ, π = softmax(W x), x_i ~ N(0, 1)::

        Δ = c (M - z)⁻¹,    M = E[(1 + GΔ)⁻¹ G],    m = tr Δ/(c K),    c = dim/samples

    for the cross-entropy Hessian of K classes: bulk, atom 1/K at 0 (a common shift of the logits),
    outliers with overlap.

    Parameters
    ----------
    weights : W, (K, dim), K >= 2 classes.
    samples : n, at least K.

    Errors
    ------
    One class, more classes than samples, no more samples than dimensions, values that are not
    finite, fewer than 30 dimensions; a bulk with gaps, or whose ends are a tail that the grid of
    logits does not resolve. ``resolved`` says how far the edges depend on that grid, in widths:
    1e-5 to 1e-3 up to four classes; for more the grid is scattered, and may not do.

    Source
    ------
    Derived in ``theory/softmax_glm.md``.

    >>> print(softmax_glm(np.diag([2.0, 3.0]) @ np.eye(2, 100), 800))
    side 200, bulk 0.0599457 to 0.438678 and 0.5 of it at 0
    outlier at 0.0315478, overlap 0.9465
    rank ≤ 100, nullity ≥ 100 (bound)
    800 terms of rank 1; a common shift of the logits changes nothing
    Assumes white Gaussian inputs; weights that have not seen them; softmax loss (asymptotic).
    """
    W = finite("weights", weights)
    if W.ndim != 2 or W.shape[0] < 2:
        raise ValueError(
            f"weights must have shape (classes, dim) with at least 2 classes, got {W.shape}"
        )
    classes, dim = W.shape
    n = check_samples(samples, dim)
    if classes > n:
        raise ValueError(f"{classes} classes are more than the {n} samples")
    if n <= dim:
        raise ValueError(
            f"{n} samples of {dim} dimensions: the bulk then reaches down to 0, where this solver "
            "does not follow it; it needs more samples than dimensions"
        )
    U = contrasts(classes)
    known = features(U.T @ W, np.zeros(classes - 1), np.zeros(dim), lambda v: v)
    coarse, _ = _bulk(known, U, dim / n, 0.75)
    bulk, points = _bulk(known, U, dim / n, 1.0)
    mass = float(bulk.quadrature(64)[1].sum())
    if not abs(mass - 1) < 0.02:
        raise ValueError(
            f"the bulk has the mass {mass:.3g} between its outer edges: it has gaps, or a tail too "
            "thin for the grid of logits; shorter weights or more samples would close them"
        )
    ends = np.array([law.support[0] for law in (coarse, bulk)])
    found = _outliers(bulk, points)
    rank = (classes - 1) * min(n, dim)
    because = f"{n} terms of rank {classes - 1}; a common shift of the logits changes nothing"
    whole = mixture([bulk, DiscreteMeasure([0.0], [1.0])], [1 - 1 / classes, 1 / classes])
    assert isinstance(whole, Law)
    directions = [(U @ q @ known.directions.T).ravel() for _, q in found]
    return GLMPrediction(
        dim=classes * dim,
        bulk=whole,
        spikes=tuple(spike for spike, _ in found),
        rank=RankBound(rank, classes * dim - rank, classes * dim, "bound", because),
        assumptions=("white Gaussian inputs", "weights that have not seen them", "softmax loss"),
        status="asymptotic",
        directions=np.array(directions).reshape(len(found), classes * dim),
        resolved=float(np.abs(np.diff(ends, axis=0)).max() / np.ptp(ends[1])),
    )


def contrasts(classes: int) -> Array:
    """(K, K - 1): orthonormal columns, orthogonal to the common shift."""
    whole = np.column_stack([np.ones(classes), np.eye(classes)[:, :-1]])
    return np.asarray(np.linalg.qr(whole)[0][:, 1:])


def _bulk(known: Features, U: Array, ratio: float, fineness: float) -> tuple[MatrixPoisson, Array]:
    """The law on the contrasts, and the points s of its grid."""
    points, weights = _normal_grid(known.count, fineness)
    logits = points @ (U @ known.scale).T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    G = p[:, :, None] * (np.eye(U.shape[0]) - p[:, None, :])
    return MatrixPoisson(ratio, U.T @ G @ U, weights), points


def _normal_grid(axes: int, fineness: float) -> tuple[Array, Array]:
    """Points and weights of a standard normal law: trapezoidal rule, or a Kronecker sequence.

    The sequence adds multiples of (1/a, 1/a², ...) modulo 1, a^(axes + 1) = a + 1 (Roberts); each
    point stands there with its negative.
    """
    if axes in _AXIS:
        reach = _REACH[axes]
        axis = np.linspace(-reach, reach, max(int(_AXIS[axes] * fineness), 1))
        grids = np.meshgrid(*[axis] * axes, indexing="ij")
        points = np.column_stack([g.ravel() for g in grids]) if axes else np.zeros((1, 0))
        weights = np.exp(-(points**2).sum(axis=1) / 2)
        kept = weights >= np.exp(-(reach**2) / 2)
        return points[kept], weights[kept] / weights[kept].sum()
    root = 1.5
    for _ in range(60):
        root = (1 + root) ** (1 / (axes + 1))
    count = int(_SCATTERED * fineness / 2)
    steps = root ** -np.arange(1.0, axes + 1)
    half = ndtri((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1)
    return np.concatenate([half, -half]), np.full(2 * count, 0.5 / count)


def _outliers(bulk: MatrixPoisson, points: Array) -> list[tuple[Spike, Array]]:
    """Zeros of E[F ⊗ s sᵀ] - z left and right of the bulk, with unit null vectors (d, r)."""
    found = []
    for traces, places, deltas in bulk.sides:

        def at(trace: float, walk: Walk = (traces, places, deltas)) -> tuple[Array, float]:
            k = int(np.abs(walk[0] - trace).argmin())
            delta, z, _ = bulk.at_trace(trace, walk[2][k], float(walk[1][k]))
            return delta, z

        def count(trace: float, at: Callable[[float], tuple[Array, float]] = at) -> int:
            """Outliers between infinity and the place, where all other Q⁻¹ has the sign of Δ."""
            S = _secular(bulk, points, *at(trace))
            return int((np.sign(trace) * np.linalg.eigvalsh(S) < 0).sum())

        for trace, multiplicity in _rises(count, float(traces[0]), float(traces[-1])):
            found += _spikes(bulk, points, *at(trace), multiplicity, float(traces[-1]))
    return sorted(found, key=lambda item: item[0].location or 0.0)


def _secular(bulk: MatrixPoisson, points: Array, delta: Array, z: float) -> Array:
    """Q⁻¹ on the span of the weights: E[F ⊗ s sᵀ] - z, (d r, d r)."""
    F, _ = bulk.mean(delta)
    S = np.einsum("k,kab,kr,ks->arbs", bulk.weights, F, points, points, optimize=True)
    side = S.shape[0] * S.shape[1]
    return np.asarray(S.reshape(side, side) - z * np.eye(side))


def _rises(count: Callable[[float], int], low: float, high: float) -> list[tuple[float, int]]:
    """Where a count grows on the way from ``low`` to ``high``, and by how much."""
    todo, found = [(low, count(low), high, count(high))], []
    while todo:
        a, below, b, above = todo.pop()
        if above <= below:
            continue
        middle = (a + b) / 2
        if abs(b - a) <= 1e-13 * abs(high) or middle in (a, b):
            found.append((middle, above - below))
            continue
        here = count(middle)
        todo += [(a, below, middle, here), (middle, here, b, above)]
    return found


def _spikes(
    bulk: MatrixPoisson, points: Array, delta: Array, z: float, multiplicity: int, edge: float
) -> list[tuple[Spike, Array]]:
    """Overlap 1/(1 + q·E[F Δ' F ⊗ s sᵀ]q), as for one output; strength and threshold are -1/m."""
    values, vectors = np.linalg.eigh(_secular(bulk, points, delta, z))
    F, _ = bulk.mean(delta)
    bent = F @ bulk.slope(z, delta) @ F
    scale = bulk.ratio * delta.shape[0]
    found = []
    for k in np.argsort(np.abs(values))[:multiplicity]:
        q = vectors[:, k].reshape(delta.shape[0], points.shape[1])
        seen = points @ q.T  # (N, d)
        square = float(bulk.weights @ np.einsum("ka,kab,kb->k", seen, bent, seen))
        strength, threshold = -scale / float(np.trace(delta)), -scale / edge
        found.append((Spike(strength, z, 1 / (1 + square), threshold, float("nan")), q))
    return found
