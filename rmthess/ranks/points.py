"""Closed forms away from generic points: weights of stated ranks, an optimum, one block."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

from rmthess.ranks.network import Formula, LinearNetwork


def staircase(network: LinearNetwork) -> Formula:
    """rank H_o = Σ_l (a_l − a_{l-1}) b_l, a_l and b_l the ranks of what follows and precedes l."""
    a, b = ranks_after(network), ranks_before(network)
    steps = [(high - low, width) for (low, high), width in zip(pairwise([0, *a]), b)]
    value = sum(rise * width for rise, width in steps)
    terms = " + ".join(f"{rise}·{width}" for rise, width in steps)
    return value, "proved", f"Σ_l (a_l − a_{{l-1}}) b_l {network.with_numbers()}: {terms}"


def with_zero_layers(network: LinearNetwork, part: str) -> Formula | None:
    """The Hessian and its functional part where one layer, or every layer, is zero."""
    assert network.weight_ranks is not None
    s, depth, hidden = network.residual_rank, network.depth, network.widths[1:-1]
    if part == "functional" and (depth == 1 or s == 0):
        return 0, "proved", "no second derivative of the network is left: 0"
    if part == "functional" and depth == 2:
        because = f"2 s M_1 {network.with_numbers(s=s)}: 2·{s}·{hidden[0]}"
        return 2 * s * hidden[0], "proved", because
    if not any(network.weight_ranks) and depth >= 2:
        if depth > 2:
            return 0, "proved", "every path through the network passes two zero layers: 0"
        because = f"2 s M_1 at zero weights {network.with_numbers(s=s)}: 2·{s}·{hidden[0]}"
        return 2 * s * hidden[0], "proved", because
    zeros = [layer for layer, rank in enumerate(network.weight_ranks) if rank == 0]
    full = [min(pair) for pair in pairwise(network.widths)]
    others = [
        layer
        for layer, (rank, most) in enumerate(zip(network.weight_ranks, full))
        if 0 < rank < most
    ]
    if len(zeros) != 1 or others or depth == 1:
        return None
    return _one_zero_layer(network, zeros[0], part)


def _one_zero_layer(network: LinearNetwork, zero: int, part: str) -> Formula:
    s, widths = network.residual_rank, network.widths
    a = [min(widths[layer + 1 :]) for layer in range(network.depth)]
    b = [min(widths[: layer + 1]) for layer in range(network.depth)]
    chain = [
        (min(widths[zero + 1 : layer + 1]), min(a[layer], s, b[zero]))
        for layer in range(zero + 1, network.depth)
    ]
    chain += [
        (min(a[zero], s, b[layer]), min(widths[layer + 1 : zero + 1])) for layer in range(zero)
    ]
    e, whole = _area(chain), _area([*chain, (a[zero], b[zero])])
    said = f"the areas of two unions of rectangles {network.with_numbers(s=s)}"
    if part == "functional":
        return 2 * e, "verified", f"{said}: 2·{e}"
    return e + whole, "verified", f"{said}: {e} + {whole}"


def _area(rectangles: Iterable[tuple[int, int]]) -> int:
    """Of the union of [0, x] × [0, y]."""
    falling = sorted(rectangles, reverse=True)
    heights = accumulate((y for _, y in falling), max)
    edges = [x for x, _ in falling] + [0]
    return sum((x - after) * y for (x, after), y in zip(pairwise(edges), heights))


def at_an_optimum(network: LinearNetwork) -> Formula:
    """The best fit through a bottleneck: critical, of full rank q, with what it cannot fit left."""
    q, r, outputs = network.bottleneck, network.widths[0], network.widths[-1]
    because = f"q(r + K − q) at an optimum {network.with_numbers(q=q)}: {q}·({r}+{outputs}−{q})"
    return q * (r + outputs - q), "verified", because


def one_block(network: LinearNetwork, part: str) -> Formula | None:
    """The block (l, m) of H_o or H_f, where its rank is a product; not known for their sum."""
    assert network.layers is not None
    low, high = sorted(network.layers)
    a, b = ranks_after(network)[low - 1], ranks_before(network)[high - 1]
    numbers = network.with_numbers()
    if part == "outer_product" and (low == high or network.loss == "mse"):
        return a * b, "proved", f"rank A_l · rank B_m {numbers}: {a}·{b}"
    if part != "functional":
        return None
    if low == high:
        return 0, "proved", "no layer occurs twice in the network: 0"
    a, b = ranks_after(network)[high - 1], ranks_before(network)[low - 1]
    outside = min(a, network.residual_rank, b)
    inside = min([network.widths[low], *_weight_ranks(network)[low : high - 1]])
    because = f"rank(A_mᵀ Ω B_lᵀ) · rank C_ml {numbers}: {outside}·{inside}"
    return outside * inside, "proved", because


def _weight_ranks(network: LinearNetwork) -> list[int]:
    if network.weight_ranks is not None:
        return list(network.weight_ranks)
    return [min(pair) for pair in pairwise(network.widths)]


def ranks_after(network: LinearNetwork) -> list[int]:
    """Rank of W_L ⋯ W_{l+1} for l = 1..L, weights generic of their ranks."""
    falling = [network.widths[-1], *reversed(_weight_ranks(network)[1:])]
    return list(accumulate(falling, min))[::-1]


def ranks_before(network: LinearNetwork) -> list[int]:
    """Rank of W_{l-1} ⋯ W_1 X for l = 1..L."""
    return list(accumulate([network.widths[0], *_weight_ranks(network)[:-1]], min))
