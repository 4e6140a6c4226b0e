"""The indefinite part of a one-hidden-layer ReLU Hessian, from data (theory/one_hidden_relu.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess.arithmetic import check_positive
from rmthess.measure import DiscreteMeasure, check_order
from rmthess.predictions.prediction import Prediction
from rmthess.predictions.relu_classifier import (
    Labels,
    Layers,
    check_cross_entropy,
    check_fit,
    checked_data,
    draw_layers,
    read_relu_classifier,
)
from rmthess.ranks.network import RankBound

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float64]

NEURONS = 1024  # behind an average over initialisations: its second moment to about 1%
_TOGETHER = 8  # neurons taken from one drawn network


def one_hidden_relu(
    inputs: ArrayLike,
    labels: ArrayLike,
    network: int | nn.Module,
    *,
    scale: float = 1.0,
    loss: Any = "cross_entropy",
    seed: int = 0,
) -> Prediction:
    """S = H - G has the eigenvalues ±σ_k(B_j), B_j = Σ_i r_i (x_i, 1)ᵀ [unit j is on at x_i].

    H is the Hessian of softmax cross-entropy, G its Gauss-Newton matrix, r_i = (p_i - y_i)/samples.
    B_j (C, d + 1) has rank at most C - 1, so S has at most h(C - 1) negative eigenvalues, and so
    has H, because G is positive. All other eigenvalues of S are 0.

    Parameters
    ----------
    inputs : (samples, d), as the network sees them; constant features are fine.
    labels : (samples,) integers 0..C-1.
    network : the number of hidden units h: the average over networks as ``torch.nn.Linear`` draws
        them, uniform within ±1/√fan-in, weights and biases, each times ``scale``; or a
        ``Sequential`` of Linear, ReLU, Linear, which may be trained: S of that network, exactly.
    loss : "cross_entropy" or torch's own, without weights, smoothing or sums.
    seed : of the drawn networks.

    One network scatters about the average: on the digits by a Kolmogorov distance of 0.2/√h, and of
    0.01 to 0.02 from h = 256 on.

    Source
    ------
    Derived on the theory page.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((40, 3)), np.arange(40) % 4
    >>> print(one_hidden_relu(x, y, 5).rank)
    rank ≤ 30, nullity ≥ 14 (bound)
    2h·min(C − 1, columns, samples) with h = 5, C = 4, 4 columns: H has at most 15 negative \
eigenvalues
    """
    check_cross_entropy(loss)
    check_positive("scale", scale, "the factor of torch's initial weights")
    x, y = checked_data(inputs, labels)
    if isinstance(network, bool) or not isinstance(network, int | np.integer):
        layers = read_relu_classifier(network)
        check_fit(layers, x, y)
        return _at(layers, x, y)
    hidden = check_order("network, the number of hidden units,", network)
    return _average(hidden, float(scale), x, y, np.random.default_rng(seed))


def _at(layers: Layers, x: Array, y: Labels) -> Prediction:
    on, residual = _pattern(layers, x, y)
    values = block_singular_values(x, on, residual, bias=layers.b is not None)
    zeros = np.zeros(layers.parameters - 2 * values.size)
    eigenvalues = np.concatenate([-values.ravel(), zeros, values.ravel()])
    sizes = (len(layers.W), len(layers.A), x.shape[1] + (layers.b is not None), len(x))
    return Prediction(
        dim=layers.parameters,
        bulk=DiscreteMeasure.from_eigenvalues(eigenvalues),
        spikes=(),
        rank=_rank(*sizes, layers.parameters),
        assumptions=(*_ASSUMED, "these weights"),
        status="theorem",
    )


def _average(
    hidden: int, scale: float, x: Array, y: Labels, rng: np.random.Generator
) -> Prediction:
    classes = int(y.max()) + 1
    together = min(hidden, _TOGETHER)
    found = []
    for _ in range(-(-NEURONS // together)):
        drawn = draw_layers(x.shape[1], hidden, classes, rng, scale)
        on, residual = _pattern(drawn, x, y)  # the units are exchangeable: any few will do
        found.append(block_singular_values(x, on[:, :together], residual))
    values = np.concatenate(found)
    parameters, each = drawn.parameters, values.shape[1]
    share = hidden * each / parameters / values.size
    nodes = np.concatenate([-values.ravel(), [0.0], values.ravel()])
    weights = np.full(nodes.size, share)
    weights[values.size] = 1 - 2 * hidden * each / parameters
    return Prediction(
        dim=parameters,
        bulk=DiscreteMeasure(nodes, weights, parameters),
        spikes=(),
        rank=_rank(hidden, classes, x.shape[1] + 1, len(x), parameters),
        assumptions=(*_ASSUMED, f"weights as torch.nn.Linear draws them, times {scale:g}"),
        status="asymptotic",
    )


_ASSUMED = (
    "one hidden layer of ReLU units",
    "mean softmax cross-entropy",
    "the indefinite part H - G of the Hessian alone",
)


def _rank(hidden: int, classes: int, columns: int, samples: int, parameters: int) -> RankBound:
    value = 2 * hidden * min(classes - 1, columns, samples)
    return RankBound(
        value=value,
        nullity=parameters - value,
        parameters=parameters,
        status="bound",
        because=(
            f"2h·min(C − 1, columns, samples) with h = {hidden}, C = {classes}, {columns} columns: "
            f"H has at most {value // 2} negative eigenvalues"
        ),
    )


def block_singular_values(
    x: Array, on: NDArray[np.bool_], residual: Array, bias: bool = True
) -> Array:
    """(h, min(C - 1, d + 1)): σ_k(B_j) of every unit, without the one that is always 0.

    ``on`` (samples, h) booleans, ``residual`` (samples, C) with rows of sum 0, which the basis of
    the C - 1 other directions takes out without a threshold.
    """
    classes = residual.shape[1]
    basis = np.linalg.qr(np.eye(classes)[:, :-1] - 1 / classes)[0]
    r = (residual @ basis).T
    columns = np.column_stack([x, np.ones(len(x))]) if bias else x
    found = []
    for start in range(0, on.shape[1], _TOGETHER):
        some = on[:, start : start + _TOGETHER].T
        masked = (some[:, None, :] * r).reshape(-1, len(x))
        blocks = (masked @ columns).reshape(len(some), classes - 1, -1)
        found.append(np.linalg.svd(blocks, compute_uv=False))
    return np.concatenate(found)


def _pattern(layers: Layers, x: Array, y: Labels) -> tuple[NDArray[np.bool_], Array]:
    """Which units are on (samples, h), and (p - y)/samples (samples, C)."""
    before = x @ layers.W.T + (0.0 if layers.b is None else layers.b)
    logits = np.maximum(before, 0.0) @ layers.A.T + (0.0 if layers.c is None else layers.c)
    residual = np.exp(logits - logits.max(axis=1, keepdims=True))
    residual /= residual.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    residual[rows, y] = 0.0  # p_y - 1 = -Σ of the others, to all digits where p_y is almost 1
    residual[rows, y] = -residual.sum(axis=1)
    return before > 0, residual / len(x)
