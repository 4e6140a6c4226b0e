"""The Hessian of a generalised linear model on Gaussian inputs (theory/glm.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess.laws.mixture import mixture
from rmthess.measure import DiscreteMeasure, check_order
from rmthess.predictions.equivalent import Equivalent, outliers
from rmthess.predictions.features import CurvatureLaw, Features, Labels, curvature_law, features
from rmthess.predictions.losses import Loss, as_loss
from rmthess.predictions.prediction import Prediction
from rmthess.predictions.white import white_bulk
from rmthess.ranks.network import RankBound

Array = NDArray[np.float64]

_NULL = 1e-6  # of the largest eigenvalue of C: below it the free product misses an interval
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
    covariance : C: None for 1, variances (dim,), or a matrix (dim, dim), singular ones included:
        all is then said on its range, and the rest of the bulk is an atom at 0.
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
    known = _features(loss, inputs, noise, labels)
    spectrum, columns, side, back = _on_the_range(inputs, known)
    dim, n = inputs.spectrum.size, check_samples(samples, side)
    ratio, scales = side / n, np.unique(spectrum[spectrum > 0])
    variance = float(scales[0]) if scales.size == 1 else 1.0

    def grid(nodes: int) -> CurvatureLaw:
        return curvature_law(loss, known, nodes, labels)

    white = white_bulk(loss, grid, known.count, ratio, variance, tail=0.5 / n)
    model = Equivalent(white.law, ratio, spectrum, columns, white.bulk, side / dim)
    found = outliers(model, *white.sharp)
    directions = back(np.array([q for _, q in found]).reshape(len(found), spectrum.size))
    zero = DiscreteMeasure([0.0], [1.0])
    shares = [model.range, 1 - model.range]
    return GLMPrediction(
        dim=dim,
        bulk=model.bulk if side == dim else mixture([model.bulk, zero], shares),
        spikes=tuple(spike for spike, _ in found),
        rank=_rank(inputs, n),
        assumptions=_assumptions(loss, n, white.sharp, covariance, mean)
        + _taken_as_zero(inputs.spectrum, dim - side),
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


def _on_the_range(
    inputs: Inputs, known: Features
) -> tuple[Array, Array, int, Callable[[Array], Array]]:
    """Spectrum and W in the coordinates that matter, rank C, and the way back from them.

    These are the range of C, of which the span of W is enough where C is constant there; then, if
    the mean reaches beyond the range, the direction of that part, of variance 0.
    """
    seen = inputs.spectrum > _NULL * inputs.spectrum.max()
    spectrum, beyond = inputs.spectrum[seen], np.where(seen, 0.0, inputs.mean)
    columns = np.column_stack([known.directions, inputs.mean])[seen]
    side, length, basis = spectrum.size, _length_beyond(beyond, inputs.mean), None
    if np.ptp(spectrum) == 0:
        basis, columns = np.linalg.qr(columns)
        spectrum = spectrum[: columns.shape[0]]
    inner = spectrum.size
    if length > 0:
        spectrum = np.append(spectrum, 0.0)
        columns = np.vstack([columns, length * np.eye(columns.shape[1])[-1]])

    def back(q: Array) -> Array:
        whole = np.outer(q[:, inner:].sum(axis=1), beyond / (length or 1.0))
        whole[:, seen] = q[:, :inner] if basis is None else q[:, :inner] @ basis.T
        return whole

    return spectrum, columns, side, back


def _length_beyond(part: Array, whole: Array) -> float:
    """The length of a part of a vector, 0 where that is rounding."""
    length = float(np.linalg.norm(part))
    return length if length > 1e-10 * float(np.linalg.norm(whole)) else 0.0


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
    if vectors is not None:  # in ascending order: one value where they differ by rounding
        groups = np.cumsum(np.diff(values, prepend=values[0]) > 1e-12 * largest)
        values = (np.bincount(groups, values) / np.bincount(groups))[groups]
    return np.where(values < 1e-12 * largest, 0.0, values), vectors


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
    null = inputs.spectrum == 0
    seen = dim - int(null.sum()) + (_length_beyond(inputs.mean[null], inputs.mean) > 0)
    value = min(samples, dim, seen)
    because = f"{samples} terms of rank one, side {dim}"
    return RankBound(value, dim - value, dim, "bound", because)


def _taken_as_zero(spectrum: Array, left_out: int) -> tuple[str, ...]:
    tiny = left_out - np.count_nonzero(spectrum == 0)
    return (f"{tiny} variances below {_NULL:g} of the largest taken as 0",) if tiny else ()


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
