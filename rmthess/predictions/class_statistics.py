"""What a prediction for real features knows of them: a Gaussian a class (theory/glm_classes.md)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess.predictions.glm import finite

Array = NDArray[np.float64]

_ROUNDS, _DRAWS = 32, 2
_LEAST = 1e-12  # of the largest eigenvalue


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """shares (K,) of sum 1, means (K, dim), covariances (K, dim, dim) of K classes of features."""

    shares: Array
    means: Array
    covariances: Array

    def __post_init__(self) -> None:
        shares, means, covariances = (
            finite(name, getattr(self, name)) for name in ("shares", "means", "covariances")
        )
        if means.ndim != 2 or shares.shape != means.shape[:1]:
            raise ValueError(
                f"means must have shape (classes, dim) and shares (classes,), got {means.shape} "
                f"and {shares.shape}"
            )
        if covariances.shape != (*means.shape, means.shape[1]):
            raise ValueError(
                f"covariances must have shape {(*means.shape, means.shape[1])}, "
                f"got {covariances.shape}"
            )
        if shares.min() <= 0 or abs(shares.sum() - 1) > 1e-8:
            raise ValueError(f"shares must be positive and sum to 1, got {shares}")
        for k, C in enumerate(covariances):
            low, high = np.linalg.eigvalsh(C)[[0, -1]]
            if low < -1e-10 * abs(high) or high <= 0:
                raise ValueError(
                    f"covariance of class {k} must be positive semidefinite and not 0, got "
                    f"eigenvalues from {low:.3g} to {high:.3g}"
                )

    @classmethod
    def of(
        cls, features: ArrayLike, classes: ArrayLike, *, shrinkage: float = 0.5
    ) -> ClassStatistics:
        """From features (samples, dim) and a class label each (samples,).

        The covariance of a class is ``shrinkage`` times the pooled one within classes plus the rest
        of its own: with few samples a class its own alone is of low rank. The eigenvalues of the
        pooled one are then put back to where a sample of this size would have moved them from,
        see ``unspread``. Warns where there are no more samples than features to do that with.

        >>> x = np.random.default_rng(0).standard_normal((90, 3))
        >>> ClassStatistics.of(x, np.repeat([0, 1, 2], 30)).means.shape
        (3, 3)
        """
        x, labels = finite("features", features), np.asarray(classes)
        if x.ndim != 2 or labels.shape != x.shape[:1]:
            raise ValueError(
                f"features must have shape (samples, dim) and classes (samples,), got {x.shape} "
                f"and {labels.shape}"
            )
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must lie in [0, 1], got {shrinkage}")
        names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
        _check(x, names, counts)
        means = np.array([x[index == k].mean(axis=0) for k in range(names.size)])
        own = np.array([np.cov(x[index == k].T, bias=True) for k in range(names.size)])
        shares = counts / labels.size
        pooled = np.einsum("k,kab->ab", shares, own)
        mixed = (1 - shrinkage) * own + shrinkage * pooled
        degrees = labels.size - names.size
        if degrees <= x.shape[1]:
            warnings.warn(
                f"{labels.size} samples for {x.shape[1]} features: their covariance is of low rank "
                "and its eigenvalues spread by sampling; a prediction from it spreads them twice",
                stacklevel=2,
            )
            return cls(shares, means, mixed)
        turn = unspread(pooled, degrees)
        mixed = turn @ mixed @ turn
        return cls(shares, means, (mixed + mixed.transpose(0, 2, 1)) / 2)


def unspread(covariance: Array, samples: int) -> Array:
    """T = U diag(√(t/s)) Uᵀ, of which T S T has a population's eigenvalues t, not a sample's s.

    s and U are those of S = ``covariance``, and t solves s = E λ(ZᵀZ/samples), the rows of Z normal
    of variances t: the fixed point of t ← t (s/E λ)^0.6, in draws whose last half is averaged.

    >>> z = np.random.default_rng(0).standard_normal((400, 100))
    >>> S = z.T @ z / 400
    >>> T = unspread(S, 400)
    >>> spread = [float(np.linalg.eigvalsh(C).std()) for C in (S, T @ S @ T)]
    >>> spread[0] > 0.45, spread[1] < 0.1
    (True, True)
    """
    seen, vectors = np.linalg.eigh(covariance)
    seen = np.maximum(seen, _LEAST * seen[-1])
    rng = np.random.default_rng(0)
    t, last = seen.copy(), []
    for _ in range(_ROUNDS):
        rows = rng.standard_normal((_DRAWS, samples, t.size)) * np.sqrt(t)
        drawn = np.linalg.eigvalsh(rows.transpose(0, 2, 1) @ rows / samples).mean(axis=0)
        t = np.sort(t * (seen / np.maximum(drawn, _LEAST * seen[-1])) ** 0.6)
        last.append(np.log(t))
    t = np.exp(np.mean(last[_ROUNDS // 2 :], axis=0))
    return np.asarray((vectors * np.sqrt(t / seen)) @ vectors.T)


def _check(x: Array, names: NDArray[np.generic], counts: NDArray[np.intp]) -> None:
    if names.size < 2:
        raise ValueError(
            f"one class only, {names.tolist()}: rm.glm is the prediction for a single Gaussian"
        )
    if names.size > x.shape[0] / 2 or counts.min() < 2:
        raise ValueError(
            f"{names.size} classes of {x.shape[0]} samples, the smallest of {counts.min()}: every "
            "class needs at least 2 for a covariance"
        )
    still = np.flatnonzero(np.ptp(x, axis=0) == 0)
    if still.size:
        shown = ", ".join(map(str, still[:8])) + (", ..." if still.size > 8 else "")
        raise ValueError(
            f"{still.size} features have zero variance: columns {shown}; leave them out, they are "
            "zeros of the Hessian or a bias"
        )
