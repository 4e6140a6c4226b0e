"""The largest Hessian eigenvalues of a network that was just drawn (theory/init_cluster.md)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.sparse.linalg import eigsh

from rmthess.arithmetic import check_positive
from rmthess.measure import DiscreteMeasure
from rmthess.predictions.prediction import Prediction
from rmthess.predictions.relu_classifier import (
    Labels,
    check_cross_entropy,
    checked_data,
)
from rmthess.predictions.tangent_kernel import tangent_kernel, torch_layer
from rmthess.predictions.wide_network import (
    Widths,
    activation_and_slope,
    draw_outputs,
    read_widths,
)
from rmthess.spikes import Spike

Array = NDArray[np.float64]

NETWORKS = 32  # drawn for their outputs: the mean of an eigenvalue to 1%
UNITS = 128  # drawn for each of them, for the indefinite part
FEW = 32  # hidden units
CLEAR = 1.25  # times the edge of S, below which the prediction is less accurate
_OUTSIDE = 1.02  # times the edge, below which an eigenvalue is one of S
_MODES = 16  # of the kernel: the others move the cluster by less than 1e-3
_LOWER_MODES = 80  # of the kernel below, nine tenths of its trace on the digits
_MOST_SAMPLES = 12_000  # the kernels are square matrices of that side
_MOST_SIDE = 4_000  # modes times classes


def init_cluster(
    inputs: ArrayLike,
    labels: ArrayLike,
    network: int | Sequence[int] | Any,
    *,
    activation: str = "relu",
    scale: float = 1.0,
    loss: Any = "cross_entropy",
    seed: int = 0,
) -> Prediction:
    """The C - 1 largest eigenvalues λ = λ_k(B^½ K(λ) B^½/N) of H, on average over initialisations.

    B = diag p - ppᵀ at each sample, p the softmax of the outputs of drawn networks. K(λ) is the
    tangent kernel Θ ⊗ 1 of the wide network, dressed by the indefinite part S of the Hessian, unit
    by unit of the last hidden layer (h units, outputs φ_j, C × C matrices M_j)::

        K(λ) = Θ ⊗ 1 + h E[φ_j φ_jᵀ ⊗ M_j (λ² - M_j)⁻¹]
        M_j  = Σ_ik r_i φ'_j(x_i) Θ₋(x_i, x_k) φ'_j(x_k) r_kᵀ,   r_i = (p_i - y_i)/N

    with Θ₋ the tangent kernel one layer below; for one hidden ReLU layer M_j = B_jB_jᵀ of
    ``one_hidden_relu``. Without S the largest would be low by 13% at 128 units.

    Parameters
    ----------
    inputs : (samples, d), as the network sees them.
    labels : (samples,) integers 0..C-1.
    network : hidden units: a number, or one for each hidden layer; or a ``Sequential`` of Linear
        layers and ReLU or Tanh between them, of which sizes and activation are read. Weights beyond
        ±scale/√fan-in are refused: the prediction is that of a fresh network.
    activation : "relu" or "tanh", where ``network`` is numbers.
    scale : a factor of ``torch.nn.Linear``'s own weights and biases.
    loss : "cross_entropy" or torch's own, without weights, smoothing or sums.
    seed : of the drawn networks.

    The ± of an outlier is the standard deviation from one network to another. Eigenvalues that S
    absorbs have no location. Warns where the answer is less accurate than a few percent: in narrow
    networks, and with several hidden layers, of which only the last one's part of S is known.

    Source
    ------
    Derived on the theory page; Θ is that of Jacot, Gabriel & Hongler.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((60, 8)), np.arange(60) % 3
    >>> found = init_cluster(x, y, 1000)
    >>> found.locations.size, found.dim, found.status
    (2, 12003, 'asymptotic')
    """
    check_cross_entropy(loss)
    check_positive("scale", scale, "the factor of torch's initial weights")
    x, y = checked_data(inputs, labels)
    widths = read_widths(network, activation, float(scale), x.shape[1], int(y.max()) + 1)
    _check_sizes(x, widths)
    rng = np.random.default_rng(seed)
    data = _Data.of(x, y, widths, float(scale))
    found = [_cluster(data, rng) for _ in range(NETWORKS)]
    _warn(widths, found)
    parameters = sum(o * (i + 1) for i, o in pairwise(widths.sizes))
    return Prediction(
        dim=parameters,
        bulk=_bulk(found, widths.hidden[-1], parameters),
        spikes=_spikes(found, parameters),
        rank=None,
        assumptions=(
            f"{' and '.join(map(str, widths.hidden))} hidden units of {widths.activation}, wide "
            "enough for the mean of their gradients",
            f"weights as torch.nn.Linear draws them, times {scale:g}",
            "mean softmax cross-entropy",
            "the other eigenvalues those of the indefinite part H - G alone",
            *(("no couplings among the lower layers",) if len(widths.hidden) > 1 else ()),
        ),
        status="asymptotic",
    )


@dataclass(frozen=True, eq=False)
class Modes:
    """A kernel UΛUᵀ: ``values`` (modes,), ``vectors`` (samples, modes)."""

    values: Array
    vectors: Array

    @classmethod
    def of(cls, kernel: Array, most: int) -> Modes:
        if len(kernel) <= 2 * most:
            values, vectors = np.linalg.eigh(kernel)
            return cls(np.maximum(values[-most:], 0.0), vectors[:, -most:])
        return cls(*eigsh(kernel, k=most, v0=np.ones(len(kernel))))


@dataclass(frozen=True, eq=False)
class _Data:
    """Inputs, one-hot labels, sizes, the modes of Θ, and F (samples, columns) with FFᵀ = Θ₋."""

    x: Array
    onehot: Array
    widths: Widths
    scale: float
    modes: Modes
    below: Array

    @classmethod
    def of(cls, x: Array, y: Labels, widths: Widths, scale: float) -> _Data:
        layers = [torch_layer(size, scale) for size in widths.sizes[:-1]]
        modes = Modes.of(tangent_kernel(x, layers, widths.activation).tangent, _MODES)
        below = np.column_stack([x, np.ones(len(x))])
        if len(layers) > 2:
            lower = tangent_kernel(x, layers[:-1], widths.activation).tangent
            largest = Modes.of(lower, _LOWER_MODES)
            below = largest.vectors * np.sqrt(largest.values)
        return cls(x, np.eye(widths.outputs)[y], widths, scale, modes, below)


@dataclass(frozen=True, eq=False)
class Cluster:
    """One network: eigenvalues of G ``bare``, and ``dressed`` by S (at ``edge`` where absorbed).

    ``variances``: of one network's from the finite number of its units. All (C - 1,), descending.
    ``singular`` (units, C - 1): √ of the eigenvalues of M_j.
    """

    bare: Array
    dressed: Array
    variances: Array
    singular: Array

    @property
    def edge(self) -> float:
        return float(self.singular.max())


def _cluster(data: _Data, rng: np.random.Generator) -> Cluster:
    count = data.widths.outputs - 1
    p = _softmax(draw_outputs(data.x, data.widths, data.scale, rng))
    bare, basis = _ritz(data.modes, p, 4 * count)
    units = _units(data, (p - data.onehot) / len(p), basis, rng)
    singular = np.sqrt(units.squares[:, 1:])  # Σ_c r_c = 0: one of each unit's is 0
    edge = float(singular.max())
    above = edge * (1 + 1e-9)
    enhanced = units.eigh(bare, above)[0][:count]
    dressed, variances = np.full(count, edge), np.zeros(count)
    for k in np.flatnonzero(enhanced > above):
        # eigenvalue k of the right side falls with λ, and lies above λ at the edge
        dressed[k] = brentq(
            lambda lam, k=k: units.eigh(bare, lam)[0][k] - lam,
            above,
            enhanced[k] + above,
            rtol=1e-5,
        )
        variances[k] = units.variance(dressed[k], units.eigh(bare, dressed[k])[1][:, k])
    return Cluster(bare[:count], dressed, variances, singular)


def _ritz(modes: Modes, p: Array, most: int) -> tuple[Array, Array]:
    """Eigenvalues of Θ^½BΘ^½/N in the modes, descending, and R with Rᵀ(X ⊗ 1)R = B^½XB^½/N."""
    q, classes = modes.values.size, p.shape[1]
    curvature = -p[:, :, None] * p[:, None, :]
    curvature[:, np.arange(classes), np.arange(classes)] += p
    pairs = np.einsum("nq,nr->nqr", modes.vectors, modes.vectors).reshape(len(p), -1)
    B = (pairs.T @ curvature.reshape(len(p), -1)).reshape(q, q, classes, classes) / len(p)
    B = B.transpose(0, 2, 1, 3).reshape(q * classes, -1)
    values, vectors = np.linalg.eigh(B)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    theta = np.repeat(modes.values, classes)
    found, turn = np.linalg.eigh(root.T @ (theta[:, None] * root))
    return found[::-1][:most], (root @ turn[:, ::-1])[:, :most]


@dataclass(frozen=True, eq=False)
class Units:
    """Drawn units: eigenvalues of M_j (units, C), and √h Rᵀ(Uᵀφ_j ⊗ v_jk) (units, C, ritz)."""

    squares: Array
    features: Array
    hidden: int

    def eigh(self, bare: Array, lam: float) -> tuple[Array, Array]:
        """Descending eigenvalues and vectors of B^½ K(λ) B^½/N."""
        flat = self.features.reshape(-1, self.features.shape[2])
        weights = (self.squares / (lam**2 - self.squares)).ravel()
        values, vectors = np.linalg.eigh(np.diag(bare) + (flat.T * weights) @ flat)
        return values[::-1], vectors[:, ::-1]

    def variance(self, lam: float, vector: Array) -> float:
        """Of λ, if h units are drawn: λ is a sum over units."""
        parts = (self.features @ vector) ** 2 * lam**2 / (lam**2 - self.squares)
        return float(parts.sum(axis=1).var() * len(parts) ** 2 / self.hidden)


def _units(data: _Data, residual: Array, basis: Array, rng: np.random.Generator) -> Units:
    hidden, classes = data.widths.hidden[-1], data.widths.outputs
    drawn = Widths((*data.widths.sizes[:-2], UNITS), data.widths.activation)
    value, slope = activation_and_slope(
        draw_outputs(data.x, drawn, data.scale, rng), data.widths.activation
    )
    masked = (slope.T[:, None, :] * residual.T).reshape(-1, len(data.x))
    blocks = (masked @ data.below).reshape(UNITS, classes, -1)
    squares, vectors = np.linalg.eigh(blocks @ blocks.transpose(0, 2, 1))
    along = data.modes.vectors.T @ value
    by_class = np.einsum("qm,qcr->mcr", along, basis.reshape(len(along), classes, -1))
    features = vectors.transpose(0, 2, 1) @ by_class * np.sqrt(hidden / UNITS)
    return Units(np.maximum(squares, 0.0), features, hidden)


def _bulk(found: list[Cluster], hidden: int, parameters: int) -> DiscreteMeasure:
    """±σ of each unit's block, and zeros."""
    values = np.stack([one.singular for one in found])
    each = hidden * values.shape[2] / parameters
    nodes = np.concatenate([-values.ravel(), [0.0], values.ravel()])
    weights = np.full(nodes.size, each / values.size)
    weights[values.size] = 1 - 2 * each
    return DiscreteMeasure(nodes, weights, parameters)


def _spikes(found: list[Cluster], parameters: int) -> tuple[Spike, ...]:
    """Strength: the eigenvalue of G. Beyond the edge of S it is an outlier for certain."""
    spikes = []
    edge = float(np.mean([one.edge for one in found]))
    for k in range(found[0].bare.size):
        bare = float(np.mean([one.bare[k] for one in found]))
        values = np.array([one.dressed[k] for one in found])
        if values.mean() < _OUTSIDE * edge:
            spikes.append(Spike(bare, None, 0.0, edge, float("nan")))
            continue
        spread = np.sqrt(values.var(ddof=1) + np.mean([one.variances[k] for one in found]))
        fluctuation = float(spread * np.sqrt(parameters))
        spikes.append(Spike(bare, float(values.mean()), float("nan"), edge, fluctuation))
    return tuple(spikes)


def _warn(widths: Widths, found: list[Cluster]) -> None:
    if len(widths.hidden) > 1:
        warnings.warn(
            f"{len(widths.hidden)} hidden layers: the indefinite part couples the lower ones too, "
            "which is left out, and the kernel fluctuates more; measured on digits the prediction "
            "is 7% low for two layers of 256 or 512 ReLU units and 24% low for two of 256 tanh. "
            "Of one hidden layer it is within 6% from 200 units on",
            stacklevel=3,
        )
    edge = np.mean([one.edge for one in found])
    least = np.mean([one.dressed for one in found], axis=0).min()
    if min(widths.hidden) < FEW:
        warnings.warn(
            f"{min(widths.hidden)} hidden units are few: gradients of networks below {FEW} are far "
            "from their mean, of which this is the prediction",
            stacklevel=3,
        )
    elif least < CLEAR * edge:
        warnings.warn(
            f"with {widths.hidden[-1]} hidden units the cluster reaches down to {least:.3g}, and "
            f"the indefinite part of the Hessian up to {edge:.3g}: eigenvalues below "
            f"{CLEAR * edge:.3g} are predicted less accurately",
            stacklevel=3,
        )


def _check_sizes(x: Array, widths: Widths) -> None:
    if len(x) > _MOST_SAMPLES:
        raise ValueError(
            f"{len(x)} samples make kernels of that side; pass a random {_MOST_SAMPLES} of them, "
            "which have nearly the same largest eigenvalues"
        )
    if _MODES * widths.outputs > _MOST_SIDE:
        raise ValueError(
            f"{widths.outputs} classes are more than the {_MOST_SIDE // _MODES} covered"
        )


def _softmax(logits: Array) -> Array:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))
