"""Student and teacher of one ReLU layer, the exact Hessian (theory/shallow_relu.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, eigvalsh

from rmthess.measure import DiscreteMeasure, check_order
from rmthess.predictions.prediction import Prediction
from rmthess.ranks.network import RankBound

Array = NDArray[np.float64]

_Q = 1 / (2 * np.pi)


def shallow_relu(neurons: int, inputs: int | None = None) -> Prediction:
    """All eigenvalues at the global minimum, where student and teacher are orthonormal: w_i = v_i.

    With q = 1/2π, k neurons, d inputs::

        ¼ + q                                                  k(k-3)/2 times
        ¼ - q                                                  (k-1)(k-2)/2
        [[½+(k-1)q, (k-1)/4], [¼, k/4+q]]                      each once
        [[½-q, -¼, (k-1)/4], [0, ¼, q], [¼, -¼+q, k/4]]        each k-1 times
        ¼ and (k+1)/4                                          (k-1)(d-k) and d-k times

    The loss is ½ E(Σ_i relu(w_i·x) - Σ_j relu(v_j·x))², x standard normal.

    Parameters
    ----------
    neurons : k, of the student and of the teacher.
    inputs : d >= k; default k.

    Source
    ------
    Arjevani & Field, NeurIPS 2020 and 2021, for d = k; derived on the theory page, which adds
    d > k and the small k.

    >>> shallow_relu(3).eigenvalues().round(3)
    array([0.091, 0.091, 0.091, 0.331, 0.331, 0.507, 0.919, 0.919, 1.22 ])
    """
    k = check_order("neurons", neurons)
    d = k if inputs is None else check_order("inputs", inputs)
    if d < k:
        raise ValueError(f"{k} orthonormal neurons need {k} inputs, got {d}")
    outside = np.repeat([0.25, (k + 1) / 4], [(k - 1) * (d - k), d - k])
    values = np.concatenate([_in_the_span(k), outside])
    return Prediction(
        dim=k * d,
        bulk=DiscreteMeasure.from_eigenvalues(values),
        spikes=(),
        rank=RankBound(k * d, 0, k * d, "proved", "every eigenvalue is positive"),
        assumptions=(
            "one layer of ReLU units with output weights 1, equal to its orthonormal teacher",
            "standard normal inputs, infinitely many",
            "the loss half the squared error",
        ),
        status="theorem",
    )


def _in_the_span(k: int) -> Array:
    if k < 3:  # the families of diagonals, rows and columns overlap
        return np.asarray(eigvalsh(shallow_relu_hessian(np.eye(k), np.eye(k))))
    trivial = np.array([[0.5 + (k - 1) * _Q, (k - 1) / 4], [0.25, k / 4 + _Q]])
    standard = np.array([[0.5 - _Q, -0.25, (k - 1) / 4], [0, 0.25, _Q], [0.25, _Q - 0.25, k / 4]])
    gram = np.array([[1.0, 0, 0], [0, k - 1, -1], [0, -1, k - 1]])  # of the basis of `standard`
    once = eigh(np.diag([1.0, k - 1]) @ trivial, np.diag([1.0, k - 1]), eigvals_only=True)
    often = eigh(gram @ standard, gram, eigvals_only=True)
    values = np.concatenate([[0.25 + _Q, 0.25 - _Q], once, often])
    return np.repeat(values, [k * (k - 3) // 2, (k - 1) * (k - 2) // 2, 1, 1, k - 1, k - 1, k - 1])


def shallow_relu_hessian(student: ArrayLike, teacher: ArrayLike) -> Array:
    """H_ij = A(w_i, w_j) + [i = j] (Σ_{k≠i} C(w_i, w_k) - Σ_k C(w_i, v_k)), blocks d × d.

    With t the angle of w and v, p and q the unit vectors along ŵ + v̂ and ŵ - v̂, and n the unit
    part of v orthogonal to w::

        A(w, v) = E[x xᵀ; w·x > 0, v·x > 0] = ((π - t) I + sin t (p pᵀ - q qᵀ))/2π
        C(w, v) = E[relu(v·x) δ(w·x) x xᵀ] = |v| sin t/(2π|w|) (I - ŵ ŵᵀ + n nᵀ)

    Both are continuous where w and v are parallel, and no digit is lost near there.

    Parameters
    ----------
    student : (k, d), rows w_i, none of them 0: the loss has no second derivative there.
    teacher : (m, d), rows v_j.

    Returns the Hessian (k d, k d) of ½ E(Σ_i relu(w_i·x) - Σ_j relu(v_j·x))², x standard normal,
    in the order of ``student.ravel()``.

    Source
    ------
    Safran & Shamir, ICML 2018; A in the form of this file is derived on the theory page.

    >>> shallow_relu_hessian([[1.0, 0.0]], [[0.0, 2.0]]).round(4)
    array([[ 0.5   ,  0.    ],
           [ 0.    , -0.1366]])
    """
    W, V = _rows("student", student), _rows("teacher", teacher)
    if W.shape[1] != V.shape[1]:
        raise ValueError(
            f"student and teacher must see the same inputs, got {W.shape[1]} and {V.shape[1]}"
        )
    if not np.linalg.norm(W, axis=1).all():
        raise ValueError(
            f"row {int(np.argmin(np.linalg.norm(W, axis=1)))} of student is 0, where the loss has "
            "no second derivative; leave the neuron out"
        )
    V = V[np.linalg.norm(V, axis=1) > 0]
    k, d = W.shape
    H = np.empty((k, d, k, d))
    for i in range(k):
        for j in range(i, k):
            H[i, :, j] = H[j, :, i] = _active(W[i], W[j])
        for j in range(k):
            if j != i:
                H[i, :, i] += _bend(W[i], W[j])
        for v in V:
            H[i, :, i] -= _bend(W[i], v)
    return H.reshape(k * d, k * d)


def _active(w: Array, v: Array) -> Array:
    """A(w, v) = E[x xᵀ; w·x > 0, v·x > 0], symmetric."""
    half_sum, half_difference = _halves(w, v)
    cos, sin = np.linalg.norm(half_sum), np.linalg.norm(half_difference)  # of half the angle
    p, q = _unit(half_sum), _unit(half_difference)
    twist = 2 * sin * cos * (np.outer(p, p) - np.outer(q, q))
    return np.asarray(_Q * ((np.pi - 2 * np.arctan2(sin, cos)) * np.eye(w.size) + twist))


def _bend(w: Array, v: Array) -> Array:
    """C(w, v) = E[relu(v·x) δ(w·x) x xᵀ]."""
    half_sum, half_difference = _halves(w, v)
    sin = 2 * np.linalg.norm(half_sum) * np.linalg.norm(half_difference)
    u = w / np.linalg.norm(w)
    side = half_sum if half_sum @ half_sum < half_difference @ half_difference else half_difference
    n = _unit(side - (side @ u) * u)  # of the shorter one: v̂ ∓ ŵ cancels least
    size = _Q * np.linalg.norm(v) / np.linalg.norm(w) * sin
    return np.asarray(size * (np.eye(w.size) - np.outer(u, u) + np.outer(n, n)))


def _halves(w: Array, v: Array) -> tuple[Array, Array]:
    """(ŵ + v̂)/2 and (ŵ - v̂)/2: orthogonal, of lengths cos and sin of half the angle (Kahan)."""
    u, t = w / np.linalg.norm(w), v / np.linalg.norm(v)
    return (u + t) / 2, (u - t) / 2


def _unit(x: Array) -> Array:
    """x/|x|, and 0 for 0: it is multiplied by the sine of the angle, which is 0 then."""
    size = np.linalg.norm(x)
    return x / size if size > 0 else x


def _rows(name: str, matrix: ArrayLike) -> Array:
    rows = np.asarray(matrix, float)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"{name} must have shape (neurons, inputs), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} has entries that are NaN or infinite")
    return rows
