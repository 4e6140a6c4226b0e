"""Kernels of wide random networks, layer by layer: outputs, gradients and second derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import roots_hermitenorm

Array = NDArray[np.float64]

ACTIVATIONS = ("relu", "tanh")

_NODES = 200  # of the quadrature over one preactivation
_TERMS = 150  # of Mehler's series, of which tanh at unit variance needs about 60
_TAIL = 1e-6  # of E φ², beyond which the series has not converged


@dataclass(frozen=True)
class Layer:
    """z = W φ + b with ``variance`` = fan-in · Var W and ``bias`` = Var b.

    ``gain`` is fan-in · (∂z/∂θ)² of one weight in units of φ², ``bias_gain`` that of b.
    """

    variance: float
    bias: float
    gain: float
    bias_gain: float


def torch_layer(fan_in: int, scale: float = 1.0) -> Layer:
    """W and b uniform within ±scale/√fan-in: torch.nn.Linear's own law."""
    return Layer(scale**2 / 3, scale**2 / (3 * fan_in), float(fan_in), 1.0)


def ntk_layer(bias: float = 0.0) -> Layer:
    """z = W φ/√fan-in + bias · b with standard normal W and b: Jacot, Gabriel and Hongler's."""
    return Layer(1.0, bias**2, 1.0, bias**2)


@dataclass(frozen=True, eq=False)
class TangentKernels:
    """Of one output f, at pairs of samples (samples, samples), to leading order in the widths.

    ``outputs`` E f f', ``tangent`` Σ_θ ∂f/∂θ ∂f'/∂θ, ``curvature`` Σ_θη ∂²f/∂θ∂η ∂²f'/∂θ∂η.
    """

    outputs: Array
    tangent: Array
    curvature: Array


def tangent_kernel(
    inputs: ArrayLike, layers: Sequence[Layer], activation: str = "relu"
) -> TangentKernels:
    """Kernels of f = W_L φ(… φ(W_1 x + b_1) …) + b_L::

        K_l = v S + v_b,                   S  = E φ(z)φ(z'), z ~ N(0, K_(l-1))
        Θ_l = g S + g_b + v S' Θ_(l-1),    S' = E φ'(z)φ'(z'), S'' = E φ''(z)φ''(z')
        Υ_l = 2g S' Θ_(l-1) + v S' Υ_(l-1) + v S'' Θ_(l-1)²

    and S = x·x'/d, Θ_0 = Υ_0 = 0 for the first layer. With residuals r_i the part
    Σ r_i ∇²f_i of the Hessian has the squared Frobenius norm rᵀΥr. For ReLU S and S' are
    the arc-cosine kernels and S'' = 0; for tanh they are series in the correlation.

    Parameters
    ----------
    inputs : (samples, d).
    layers : one ``Layer`` for each weight matrix; ``torch_layer(fan_in)`` or ``ntk_layer()``.
    activation : "relu" or "tanh".

    Source
    ------
    Jacot, Gabriel & Hongler, ICLR 2020 (Θ, Υ; the indices are derived again in
    theory/init_cluster.md); Cho & Saul, NIPS 2009 (arc-cosine kernels).

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> tangent_kernel(x, [ntk_layer(), ntk_layer()]).tangent.round(4)
    array([[0.5   , 0.0796],
           [0.0796, 0.5   ]])
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if not layers:
        raise ValueError("layers must hold at least one")
    x = np.asarray(inputs, float)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"inputs must be finite, of shape (samples, d), got {x.shape}")
    moments = relu_moments if activation == "relu" else tanh_moments
    first, *rest = layers
    S = x @ x.T / x.shape[1]
    K = first.variance * S + first.bias
    tangent = first.gain * S + first.bias_gain
    curvature = np.zeros_like(K)
    for layer in rest:
        S, slopes, bends = moments(K)
        K = layer.variance * S + layer.bias
        curvature = (
            2 * layer.gain * slopes * tangent
            + layer.variance * slopes * curvature
            + layer.variance * bends * tangent**2
        )
        tangent = layer.gain * S + layer.bias_gain + layer.variance * slopes * tangent
    return TangentKernels(K, tangent, curvature)


def relu_moments(K: Array) -> tuple[Array, Array, Array]:
    """E φφ' = σσ'(sin t + (π - t) cos t)/2π and E φ'φ' = (π - t)/2π, t the angle of the pair.

    φ'' is a delta function, which no sample meets.
    """
    size = np.sqrt(np.diag(K))
    product = np.outer(size, size)
    cos = np.clip(K / np.where(product > 0, product, 1.0), -1.0, 1.0)
    np.fill_diagonal(cos, 1.0)
    t = np.arccos(cos)
    both = (np.pi - t) / (2 * np.pi)
    return product * (np.sin(t) / (2 * np.pi) + both * cos), both, np.zeros_like(K)


def tanh_moments(K: Array) -> tuple[Array, Array, Array]:
    """E ψ(z)ψ(z') = Σ_k a_k(σ) a_k(σ') ρ^k for ψ = φ, φ', φ'', a_k(σ) = E ψ(σ g) he_k(g)/√k!.

    Mehler's series. What it leaves out is at most E ψ² - Σ a_k², in which ρ = 1.
    """
    size = np.sqrt(np.diag(K))
    nodes, weights = roots_hermitenorm(_NODES)
    weights /= weights.sum()
    z = np.outer(size, nodes)
    value = np.tanh(z)
    slope = 1 - value**2
    functions = np.stack([value, slope, -2 * value * slope])
    product = np.outer(size, size)
    rho = np.clip(K / np.where(product > 0, product, 1.0), -1.0, 1.0)
    found, left = np.zeros((3, *K.shape)), functions**2 @ weights
    whole = np.maximum(left.max(axis=1), np.finfo(float).tiny)
    power, before, hermite = np.ones_like(K), np.zeros(_NODES), np.ones(_NODES)
    for k in range(_TERMS):
        a = functions @ (weights * hermite)
        left -= a**2
        for total, coefficients in zip(found, a, strict=True):
            if np.abs(coefficients).max() > 1e-12:  # tanh is odd: half of them vanish
                total += np.outer(coefficients, coefficients) * power
        if (left.max(axis=1) < 1e-12 * whole).all():
            break
        before, hermite = hermite, (nodes * hermite - np.sqrt(k) * before) / np.sqrt(k + 1)
        power *= rho
    if (left.max(axis=1) > _TAIL * whole).any():
        warnings.warn(
            f"kernels of tanh are known to {(left.max(axis=1) / whole).max():.1e} only: "
            f"preactivations of standard deviation {size.max():.3g} are nearly signs",
            stacklevel=3,
        )
    for total, psi in zip(found, functions, strict=True):
        np.fill_diagonal(total, psi**2 @ weights)
    return found[0], found[1], found[2]
