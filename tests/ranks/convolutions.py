"""Hessians of one-dimensional linear convolutional networks modulo a prime, weight by weight.

A network is a list of weights and, for every path through it, one weight of each layer and the
entry of the linear map that their product is added to.  Nothing here knows a closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
from ranks.modular import PRIME, Ranks, Residues, rank, times

Path = tuple[tuple[int, ...], int]  # one weight a layer, one entry of the map


def convolution_and_dense(length: int, kernel: int, filters: int, outputs: int) -> list[Path]:
    positions = length - kernel + 1
    dense = np.arange(outputs * filters * positions).reshape(outputs, filters, positions)
    dense += filters * kernel
    return [
        ((j * kernel + t, int(dense[c, j, p])), c * length + p + t)
        for c, j, p, t in product(*map(range, (outputs, filters, positions, kernel)))
    ]


def convolutions_in_a_row(kernels: Sequence[int], period: int | None = None) -> list[Path]:
    """Entries are the taps of the composed kernel, taken modulo the period of a circular signal."""
    starts = np.cumsum([0, *kernels])
    return [
        (
            tuple(int(start) + tap for start, tap in zip(starts, taps)),
            sum(taps) if period is None else sum(taps) % period,
        )
        for taps in product(*map(range, kernels))
    ]


def exact_ranks_of(paths: Sequence[Path], block: int, seed: int) -> Ranks:
    """At random weights, residual and curvature I ⊗ XXᵀ, ``block`` the size of XXᵀ."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, PRIME, 1 + max(max(path) for path, _ in paths))
    entries = 1 + max(entry for _, entry in paths)
    entries += -entries % block
    residual = rng.integers(0, PRIME, entries)
    jacobian = np.zeros((entries, weights.size), dtype=np.int64)
    functional = np.zeros((weights.size,) * 2, dtype=np.int64)
    for path, entry in paths:
        for at, others in _left_out(path, 1):
            jacobian[entry, at] = (jacobian[entry, at] + _product(weights, others)) % PRIME
        for at, others in _left_out(path, 2):
            term = int(residual[entry]) * _product(weights, others)
            functional[at] = (functional[at] + term) % PRIME
    functional = (functional + functional.T) % PRIME
    inputs = rng.integers(0, PRIME, (block, block + 2))
    curvature = np.kron(np.eye(entries // block, dtype=np.int64), times(inputs, inputs.T))
    outer = times(jacobian.T, curvature, jacobian)
    return Ranks(rank(outer + functional), rank(outer), rank(functional))


def _left_out(path: tuple[int, ...], count: int) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Each choice of ``count`` weights of a path, and the rest."""
    for chosen in combinations(range(len(path)), count):
        rest = [weight for layer, weight in enumerate(path) if layer not in chosen]
        yield tuple(path[layer] for layer in chosen), rest


def _product(weights: Residues, chosen: Sequence[int]) -> int:
    value = 1
    for weight in chosen:
        value = value * int(weights[weight]) % PRIME
    return value
