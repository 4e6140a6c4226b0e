"""Ranks of a linear network's Hessian at a random point over GF(p), by exact elimination.

Nothing here knows a closed form: the blocks of the Hessian are written down from the chain rule
and handed to python-flint.  A rank over GF(p) never exceeds that over the rationals at the same
integer point, and misses the generic one with a chance of about (number of parameters) / p.

A layer h ↦ W h + b is the matrix [[W, b], [0, 1]] acting on (h, 1).  So the network with biases is
one without, of widths M_l + 1, of which only some entries are parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import flint
import numpy as np
from numpy.typing import NDArray

PRIME = 8388593  # the largest below 2^23: a product of two residues and 2^17 such sums fit int64

Residues = NDArray[np.int64]


def rank(matrix: Residues) -> int:
    rows, columns = matrix.shape
    return int(flint.nmod_mat(rows, columns, (matrix % PRIME).ravel().tolist(), PRIME).rank())


def times(first: Residues, *others: Residues) -> Residues:
    """The product of matrices, reduced after every factor."""
    product = first % PRIME
    for factor in others:
        product = product @ (factor % PRIME) % PRIME
    return product


@dataclass(frozen=True)
class Ranks:
    hessian: int
    outer_product: int
    functional: int


def exact_ranks(
    widths: Sequence[int],
    input_rank: int | None = None,
    biased: Collection[int] = (),
    loss: str = "mse",
    residual_rank: int | None = None,
    seed: int = 0,
    weights: Sequence[Residues] | None = None,
) -> Ranks:
    """Ranks of H, of JᵀSJ and of H − JᵀSJ; weights (M_l, M_{l-1}) are random unless given."""
    rng = np.random.default_rng(seed)
    depth = len(widths) - 1
    if weights is None:
        weights = [rng.integers(0, PRIME, (out, inputs)) for inputs, out in pairwise(widths)]
    inputs = _inputs(rng, widths[0], input_rank, centred=1 in biased)
    curvature, residual = _loss(rng, widths[-1], inputs, loss, residual_rank, bool(biased))
    augmented = []
    free = []
    for layer, weight in enumerate(weights, start=1):
        out, before = weight.shape
        with_constant = np.zeros((out + 1, before + 1), dtype=np.int64)
        with_constant[:out, :before] = weight
        with_constant[out, before] = 1
        is_parameter = np.zeros(with_constant.shape, dtype=bool)
        is_parameter[:out, :before] = True
        if layer in biased:
            with_constant[:out, before] = rng.integers(0, PRIME, out)
            is_parameter[:out, before] = True
        augmented.append(with_constant)
        free.append(is_parameter.ravel())
    samples = inputs.shape[1]
    points = np.vstack([inputs, np.ones((1, samples), dtype=np.int64)])
    chosen = np.concatenate(free)
    outer = _outer_product(augmented, points, curvature)[np.ix_(chosen, chosen)]
    functional = _functional(augmented, times(residual, points.T))[np.ix_(chosen, chosen)]
    assert depth > 1 or not functional.any()
    return Ranks(rank(outer + functional), rank(outer), rank(functional))


def _inputs(
    rng: np.random.Generator, dimension: int, input_rank: int | None, centred: bool
) -> Residues:
    """(dimension, samples) of the given rank; of that rank after centring, with a mean outside."""
    inner = dimension if input_rank is None else input_rank
    samples = inner + 2
    inputs = times(
        rng.integers(0, PRIME, (dimension, inner)), rng.integers(0, PRIME, (inner, samples))
    )
    mean = rng.integers(0, PRIME, (dimension, 1))
    return (inputs + mean) % PRIME if centred else inputs


def _loss(
    rng: np.random.Generator,
    outputs: int,
    inputs: Residues,
    loss: str,
    residual_rank: int | None,
    has_bias: bool,
) -> tuple[Residues, Residues]:
    """Output Hessians (samples, K + 1, K + 1) and output gradients (K + 1, samples)."""
    samples = inputs.shape[1]
    curvature = np.zeros((samples, outputs + 1, outputs + 1), dtype=np.int64)
    independent = outputs if loss == "mse" else outputs - 1
    if residual_rank is None:
        residual_rank = min(rank(inputs) + has_bias, independent)
    gradient = times(
        rng.integers(0, PRIME, (independent, residual_rank)),
        rng.integers(0, PRIME, (residual_rank, samples)),
    )
    if loss == "mse":
        curvature[:, :outputs, :outputs] = np.eye(outputs, dtype=np.int64)
    else:
        gradient = np.vstack([gradient, -gradient.sum(axis=0, keepdims=True)])
        odds = rng.integers(0, PRIME, (samples, outputs))
        odds[:, -1] = (1 - odds[:, :-1].sum(axis=1)) % PRIME
        for sample, p in enumerate(odds):
            curvature[sample, :outputs, :outputs] = np.diag(p) - np.outer(p, p) % PRIME
    constant = np.zeros((1, samples), dtype=np.int64)
    return curvature, np.vstack([gradient, constant]) % PRIME


def _products(weights: Sequence[Residues]) -> tuple[list[Residues], list[Residues]]:
    """A_l = W_L ⋯ W_{l+1} and B_l = W_{l-1} ⋯ W_1 for l = 1..L."""
    after = [np.eye(weights[-1].shape[0], dtype=np.int64)]
    for weight in reversed(weights[1:]):
        after.insert(0, times(after[0], weight))
    before = [np.eye(weights[0].shape[1], dtype=np.int64)]
    for weight in weights[:-1]:
        before.append(times(weight, before[-1]))
    return after, before


def _outer_product(weights: Sequence[Residues], points: Residues, curvature: Residues) -> Residues:
    """Σ_n J_nᵀ D_n J_n with J_n = [A_l ⊗ (B_l x_n)ᵀ]_l."""
    after, before = _products(weights)
    seen = [times(matrix, points) for matrix in before]
    total = np.zeros((sum(w.size for w in weights),) * 2, dtype=np.int64)
    for sample, output_hessian in enumerate(curvature):
        jacobian = np.hstack(
            [
                np.kron(matrix, values[:, sample][None, :]) % PRIME
                for matrix, values in zip(after, seen, strict=True)
            ]
        )
        total = (total + times(jacobian.T, output_hessian, jacobian)) % PRIME
    return total


def _functional(weights: Sequence[Residues], residual: Residues) -> Residues:
    """Second derivative of tr(Ωᵀ W_L ⋯ W_1) in the weights, Ω of shape (outputs, inputs)."""
    after, before = _products(weights)
    offsets = np.cumsum([0] + [w.size for w in weights])
    total = np.zeros((offsets[-1],) * 2, dtype=np.int64)
    for low in range(len(weights)):
        between = np.eye(weights[low].shape[0], dtype=np.int64)
        for high in range(low + 1, len(weights)):
            outside = times(after[high].T, residual, before[low].T)
            block = np.einsum("ae,bc->abce", outside, between) % PRIME
            rows = slice(offsets[high], offsets[high + 1])
            columns = slice(offsets[low], offsets[low + 1])
            total[rows, columns] = block.reshape(weights[high].size, weights[low].size)
            total[columns, rows] = total[rows, columns].T
            between = times(weights[high], between)
    return total
