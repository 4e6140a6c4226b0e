"""The Hessian of a linear network at a random point over a prime field, and its rank.

Nothing here knows a closed form.  A layer h ↦ W h + b is the matrix [[W, b], [0, 1]] acting on
(h, 1): a network with biases is one without, of which only some entries are parameters.  With
A_l = W_L ⋯ W_{l+1}, B_l = W_{l-1} ⋯ W_1, C_ml = W_{m-1} ⋯ W_{l+1} the blocks are::

    outer product   Σ_t (A_lᵀ D_t A_m) ⊗ (B_l Σ_t B_mᵀ),   S = Σ_t D_t ⊗ Σ_t
    functional      (A_mᵀ Ω B_lᵀ)[a, e] · C_ml[b, c]         at (δ_m)_ab, (δ_l)_ce, l < m

Directions that no input has and the common shift of logits are left out: r stands for d, K − 1 for
K.  Every residue of the point stands for an integer or a fraction, so the point is a real one: the
rank over the field is at most that of a real Hessian, and hence at most any bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rmthess.ranks.network import LinearNetwork
from rmthess.ranks.residues import Residues, kron, null_space, random, rank, times


@dataclass(frozen=True)
class Point:
    """A_l and B_l on the parameters of layer l, the layers between, S as a sum, Ω."""

    prime: int
    after: list[Residues]
    before: list[Residues]
    steps: list[Residues]
    biased: frozenset[int]
    curvature: list[tuple[Residues, Residues]]
    residual: Residues

    def between(self, low: int) -> list[Residues]:
        """C_ml for m = low + 1, …, L: from the outputs of layer ``low`` to the inputs of m."""
        out = self.after[low].shape[1]
        chain = np.eye(self.steps[low].shape[0], out, dtype=np.int64)
        found = []
        for high in range(low + 1, len(self.steps)):
            found.append(chain[self._inputs(high)])
            chain = times(self.prime, self.steps[high], chain)
        return found

    def _inputs(self, layer: int) -> slice:
        return slice(self.before[layer].shape[0])


def elimination_rank(network: LinearNetwork, part: str, seed: int, prime: int) -> int:
    """Rank of one part, or of one block of it, at the random point of that seed."""
    point = random_point(network, seed, prime)
    if network.layers is not None:
        return rank(prime, block(point, part, *network.layers))
    if part == "outer_product" and _seen(network) < network.reduced_parameters:
        return rank(prime, jacobian_gram(point))
    return rank(prime, matrix(point, part))


def elimination_side(network: LinearNetwork, part: str) -> int:
    """Rows of the matrix that ``elimination_rank`` forms."""
    if part == "outer_product" and network.layers is None:
        return min(_seen(network), network.reduced_parameters)
    return network.reduced_parameters


def _seen(network: LinearNetwork) -> int:
    return network.widths[-1] * (network.widths[0] + bool(network.biased))


def matrix(point: Point, part: str) -> Residues:
    """All blocks."""
    layers = range(1, len(point.after) + 1)
    upper = {
        (low, high): block(point, part, low, high)
        for low in layers
        for high in layers
        if low <= high
    }
    return np.block(
        [
            [upper[low, high] if low <= high else upper[high, low].T for high in layers]
            for low in layers
        ]
    )


def block(point: Point, part: str, low: int, high: int) -> Residues:
    """The block of layers low, high (rows, columns)."""
    if low > high:
        return block(point, part, high, low).T
    prime, shape = point.prime, [a.shape[1] * b.shape[0] for a, b in zip(point.after, point.before)]
    total = np.zeros((shape[low - 1], shape[high - 1]), dtype=np.int64)
    if part != "functional":
        total += _outer_product(point, low - 1, high - 1)
    if part != "outer_product" and low < high:
        outside = times(prime, point.after[high - 1].T, point.residual, point.before[low - 1].T)
        inside = point.between(low - 1)[high - low - 1]
        products = np.einsum("ae,bc->ceab", outside, inside) % prime
        total += products.reshape(total.shape)
    return total % prime


def _outer_product(point: Point, low: int, high: int) -> Residues:
    prime = point.prime
    outs, ins = [], []
    for curvature, moment in point.curvature:
        outs.append(times(prime, point.after[low].T, curvature, point.after[high]))
        ins.append(times(prime, point.before[low], moment, point.before[high].T))
    shape = (outs[0].shape[0], ins[0].shape[0], outs[0].shape[1], ins[0].shape[1])
    first = np.reshape(outs, (len(outs), -1)).T
    total = times(prime, first, np.reshape(ins, (len(ins), -1)))
    ordered = total.reshape(shape[0], shape[2], shape[1], shape[3]).transpose(0, 2, 1, 3)
    return ordered.reshape(shape[0] * shape[1], shape[2] * shape[3])


def jacobian_gram(point: Point) -> Residues:
    """J Jᵀ: of the rank of Jᵀ S J, as S is positive definite, and without S and wide blocks."""
    outputs, inputs = point.after[0].shape[0], point.before[0].shape[1]
    total = np.zeros((outputs * inputs,) * 2, dtype=np.int64)
    for after, before in zip(point.after, point.before):
        out = times(point.prime, after, after.T)
        total += kron(point.prime, out, times(point.prime, before.T, before))
    return total % point.prime


def random_point(network: LinearNetwork, seed: int, prime: int) -> Point:
    rng = np.random.default_rng(seed)
    constant = int(bool(network.biased))
    steps = []
    for layer, (inputs, out) in enumerate(pairwise(network.widths), start=1):
        of_rank = None if network.weight_ranks is None else network.weight_ranks[layer - 1]
        step = np.zeros((out + constant, inputs + constant), dtype=np.int64)
        step[:out, :inputs] = random(prime, rng, out, inputs, of_rank)
        if constant:
            step[out, inputs] = 1
        if layer in network.biased:
            step[:out, inputs] = rng.integers(0, prime, out)
        steps.append(step)
    after, before = _products(prime, steps)
    outputs = network.widths[-1]
    residual = (
        _residual_at_an_optimum(network, rng, prime, steps)
        if network.optimum
        else random(prime, rng, outputs, before[0].shape[1], network.residual_rank)
    )
    points = _points(network, rng, prime)
    return Point(
        prime=prime,
        after=[a[:outputs, : w.shape[0] - constant] for a, w in zip(after, steps)],
        before=[
            b[: b.shape[0] - constant + (layer in network.biased)]
            for layer, b in enumerate(before, start=1)
        ],
        steps=steps,
        biased=network.biased,
        curvature=_curvature(network, rng, prime, points),
        residual=residual,
    )


def _products(prime: int, steps: list[Residues]) -> tuple[list[Residues], list[Residues]]:
    after = [np.eye(steps[-1].shape[0], dtype=np.int64)]
    for step in reversed(steps[1:]):
        after.insert(0, times(prime, after[0], step))
    before = [np.eye(steps[0].shape[1], dtype=np.int64)]
    for step in steps[:-1]:
        before.append(times(prime, step, before[-1]))
    return after, before


def _points(network: LinearNetwork, rng: np.random.Generator, prime: int) -> Residues:
    """Inputs (r, samples), a row of ones below if there are biases; of full rank."""
    rows = network.widths[0]
    inputs = random(prime, rng, rows, rows + 2)
    return np.vstack([inputs, np.ones((int(bool(network.biased)), rows + 2), dtype=np.int64)])


def _curvature(
    network: LinearNetwork, rng: np.random.Generator, prime: int, points: Residues
) -> list[tuple[Residues, Residues]]:
    """S as Σ_t D_t ⊗ Σ_t: I ⊗ XXᵀ, or for softmax a term a sample, in the first K − 1 logits."""
    outputs = network.widths[-1]
    if network.loss == "mse":
        return [(np.eye(outputs, dtype=np.int64), times(prime, points, points.T))]
    terms = []
    for x in points.T:
        odds = [int(odd) for odd in rng.integers(1, 1 << 20, outputs + 1)]
        total = pow(sum(odds), -1, prime)
        p = np.array([odd * total % prime for odd in odds[:-1]], dtype=np.int64)
        terms.append(((np.diag(p) - np.outer(p, p) % prime) % prime, np.outer(x, x) % prime))
    return terms


def _residual_at_an_optimum(
    network: LinearNetwork, rng: np.random.Generator, prime: int, steps: list[Residues]
) -> Residues:
    """Ω with A_lᵀ Ω B_lᵀ = 0 for every l: orthogonal to the network's column and row space."""
    outputs, inputs = network.widths[-1], network.widths[0]
    product = times(prime, steps[-1], *reversed(steps[:-1]))[:outputs, :inputs]
    columns, rows = null_space(prime, product.T), null_space(prime, product)
    inner = random(prime, rng, columns.shape[1], rows.shape[1], network.residual_rank)
    found = np.zeros((outputs, inputs + bool(network.biased)), dtype=np.int64)
    if inner.size:
        found[:, :inputs] = times(prime, columns, inner, rows.T)
    return found
