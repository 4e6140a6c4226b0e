"""The Hessian of a generalised linear model on Gaussian inputs (theory/glm.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess.measure import check_order
from rmthess.predictions.equivalent import Equivalent, outliers
from rmthess.predictions.features import CurvatureLaw, Features, Labels, curvature_law, features
from rmthess.predictions.losses import Loss, as_loss
from rmthess.predictions.prediction import Prediction
from rmthess.predictions.white import white_bulk
from rmthess.ranks.network import RankBound

Array = NDArray[np.float64]

LEAST = 30  # samples or dimensions, below which fluctuations are as large as what is predicted


@dataclass(frozen=True, eq=False)
class GLMPrediction(Prediction):
    """A prediction with ``directions`` (outliers, dim): unit vectors, in the order of ``spikes``.

    An outlier's eigenvector has the squared overlap ``spike.overlap`` with its direction, and with
    any other unit vector u that times (direction·u)². ``resolved`` is how far the edges of the bulk
    moved, in widths of it, when the grid of g was last doubled.
    """

    directions: Array
    resolved: float


def glm(
    loss: Loss | str | Callable[..., Any],
    weights: ArrayLike,
    samples: int,
    *,
    teacher: ArrayLike | None = None,
    noise: float = 0.0,
    labels: Labels | None = None,
    covariance: ArrayLike | None = None,
    mean: ArrayLike | None = None,
) -> GLMPrediction:
    """The spectrum of (1/n) Σ_i g_i x_i x_iᵀ, g_i = ∂²ℓ/∂h² at h_i = w·x_i, x_i ~ N(mean, C)::

        Q⁻¹(z) = E[g x xᵀ/(1 + g δ)] - z,      δ = tr CQ/n,      m = tr Q/dim

    bulk with every edge, outliers with overlap and (C a multiple of 1) fluctuation.

    Parameters
    ----------
    loss : "logistic", "squared", "huber", "cauchy", "phase_retrieval", "tanh_neuron", a ``Loss``,
        or the second derivative g(h) or g(h, t) as a vectorised function.
    weights : w, (dim,).
    samples : n.
    teacher : w*, (dim,), of a loss that depends on t = w*·x + noise.
    noise : standard deviation of the noise in t.
    labels : label law t ↦ [(y, probability), ...]: g(h, y) instead of g(h, t).
    covariance : C: None for 1, variances (dim,), or a matrix (dim, dim).
    mean : (dim,), default 0.

    Errors
    ------
    An input that is not finite, a covariance that is not positive semidefinite, a loss that is not
    covered, fewer than 30 samples or dimensions. On a side where g is unbounded no outlier is
    named, and the assumptions say so.

    Source
    ------
    Liao & Mahoney, NeurIPS 2021, theorem 4, in the form derived in ``theory/glm.md``.

    >>> w = np.zeros(800)
    >>> w[0] = 2.0
    >>> print(glm("logistic", w, 8000))
    side 800, bulk 0.0642074 to 0.280473
    outlier at 0.0520934 ± 0.000465, overlap 0.8519
    rank ≤ 800, nullity ≥ 0 (bound)
    8000 terms of rank one, side 800
    Assumes white Gaussian inputs; weights that have not seen them; logistic loss (asymptotic).
    """
    loss = as_loss(loss)
    inputs = gaussian_inputs(weights, teacher, covariance, mean)
    n = check_samples(samples, inputs.spectrum.size)
    known = _features(loss, inputs, noise, labels)
    ratio, spectrum = inputs.spectrum.size / n, inputs.spectrum
    variance = float(spectrum[0]) if np.ptp(spectrum) == 0 else 1.0

    def grid(nodes: int) -> CurvatureLaw:
        return curvature_law(loss, known, nodes, labels)

    white = white_bulk(loss, grid, known.count, ratio, variance, tail=0.5 / n)
    columns = np.column_stack([known.directions, inputs.mean])
    basis = None
    if np.ptp(spectrum) == 0:  # then the span of W is all that matters
        basis, columns = np.linalg.qr(columns)
        spectrum = np.full(columns.shape[0], variance)
    model = Equivalent(white.law, ratio, spectrum, columns, white.bulk)
    found = outliers(model, *white.sharp)
    directions = np.array([q for _, q in found]).reshape(len(found), spectrum.size)
    directions = directions if basis is None else directions @ basis.T
    return GLMPrediction(
        dim=inputs.spectrum.size,
        bulk=model.bulk,
        spikes=tuple(spike for spike, _ in found),
        rank=_rank(inputs, n),
        assumptions=_assumptions(loss, n, white.sharp, covariance, mean),
        status="asymptotic",
        directions=directions if inputs.basis is None else directions @ inputs.basis.T,
        resolved=white.change,
    )


@dataclass(frozen=True, eq=False)
class Inputs:
    """N(mean, C) in an eigenbasis of C (None: the given one), with w and w* in it."""

    spectrum: Array
    basis: Array | None
    weights: Array
    teacher: Array | None
    mean: Array


def gaussian_inputs(
    weights: ArrayLike,
    teacher: ArrayLike | None,
    covariance: ArrayLike | None,
    mean: ArrayLike | None,
) -> Inputs:
    w = finite("weights", weights)
    if w.ndim != 1:
        raise ValueError(f"weights must have shape (dim,), got {w.shape}")
    rest = []
    for name, vector in (("teacher", teacher), ("mean", mean)):
        one = np.zeros(w.size) if vector is None else finite(name, vector)
        if one.shape != w.shape:
            raise ValueError(f"{name} must have shape {w.shape}, that of weights, got {one.shape}")
        rest.append(one)
    spectrum, basis = principal_axes(covariance, w.size)
    vectors = [w, *rest] if basis is None else [basis.T @ v for v in (w, *rest)]
    return Inputs(spectrum, basis, vectors[0], None if teacher is None else vectors[1], vectors[2])


def principal_axes(covariance: ArrayLike | None, dim: int) -> tuple[Array, Array | None]:
    """Eigenvalues (dim,) and eigenvectors of C; None where C is diagonal."""
    if covariance is None:
        return np.ones(dim), None
    C = finite("covariance", covariance)
    if C.shape not in ((dim,), (dim, dim)):
        raise ValueError(f"covariance must have shape ({dim},) or ({dim}, {dim}), got {C.shape}")
    if C.ndim == 2 and not np.allclose(C, C.T, rtol=1e-8, atol=1e-10 * np.abs(C).max()):
        raise ValueError("covariance must be symmetric; pass (C + C.T)/2")
    values, vectors = (C.copy(), None) if C.ndim == 1 else np.linalg.eigh(C)
    largest = float(np.abs(values).max())
    if values.min() < -1e-10 * largest or largest == 0:
        raise ValueError(
            f"covariance must be positive semidefinite and not 0, got eigenvalues from "
            f"{values.min():.3g} to {values.max():.3g}"
        )
    return np.where(values < 1e-14 * largest, 0.0, values), vectors


def finite(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, float)
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite values")
    return array


def check_samples(samples: int, dim: int) -> int:
    n = check_order("samples", samples)
    if min(n, dim) < LEAST:
        raise ValueError(
            f"{n} samples of {dim} dimensions are too few: the formula is the limit of both large, "
            f"and below {LEAST} the fluctuations are as large as what it predicts"
        )
    return n


def _features(loss: Loss, inputs: Inputs, noise: float, labels: Labels | None) -> Features:
    """The features that ``loss.of`` names, as rows of a matrix."""
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be a standard deviation, got {noise!r}")
    if labels is not None and loss.of != "both":
        raise ValueError(f"labels need a curvature g(h, y); that of {loss.name} has one argument")
    if inputs.teacher is None and loss.of != "output" and loss.low != loss.high:
        raise ValueError(
            f"the curvature of {loss.name} depends on the labels: give the teacher's weights"
        )
    w = inputs.weights
    t = np.zeros(w.size) if inputs.teacher is None else inputs.teacher
    rows, spread = {
        "output": ([w], [0.0]),
        "teacher": ([t], [noise]),
        "residual": ([w - t], [noise]),
        "both": ([w, t], [0.0, noise]),
    }[loss.of]
    C = inputs.spectrum[:, None]
    return features(np.array(rows), np.array(spread), inputs.mean, lambda v: C * v)


def _rank(inputs: Inputs, samples: int) -> RankBound:
    """At most n terms of rank one, in a space of rank C dimensions and the mean."""
    dim = inputs.spectrum.size
    seen = int(np.count_nonzero(inputs.spectrum)) + int(inputs.mean.any())
    value = min(samples, dim, seen)
    because = f"{samples} terms of rank one, side {dim}"
    return RankBound(value, dim - value, dim, "bound", because)


def _assumptions(
    loss: Loss,
    samples: int,
    sharp: tuple[bool, bool],
    covariance: ArrayLike | None,
    mean: ArrayLike | None,
) -> tuple[str, ...]:
    given = [name for name, x in (("covariance", covariance), ("mean", mean)) if x is not None]
    known = (
        f"Gaussian inputs of the given {' and '.join(given)}" if given else "white Gaussian inputs"
    )
    found = [known, "weights that have not seen them", f"{loss.name} loss"]
    for side, bound, ends in (("below", loss.low, sharp[0]), ("above", loss.high, sharp[1])):
        if not ends:
            why = "is unbounded" if np.isinf(bound) else "has a thin tail"
            found.append(
                f"no outlier {side}, where g {why} and the bulk ends where {samples} samples do"
            )
    return tuple(found)
