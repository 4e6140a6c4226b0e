"""The rank of a linear network's Hessian, in closed form from the widths alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from rmthess.ranks import biased, points
from rmthess.ranks.elimination import elimination_rank, elimination_side
from rmthess.ranks.network import (
    LOSSES,
    PARTS,
    Formula,
    LinearNetwork,
    RankBound,
    check_part,
    linear_network,
)
from rmthess.ranks.residues import PRIME, PRIMES

__all__ = ["LOSSES", "PARTS", "RankBound", "closed_form", "linear_network_rank"]

LARGEST = 6000  # rows of a matrix that is eliminated: a minute, and a few gigabytes


def linear_network_rank(
    widths: Sequence[int],
    input_rank: int | None = None,
    bias: bool | Iterable[int] = False,
    loss: str = "mse",
    part: str = "hessian",
    residual_rank: int | None = None,
    *,
    weight_ranks: Sequence[int] | None = None,
    optimum: bool = False,
    layers: tuple[int, int] | None = None,
) -> RankBound:
    """Rank of the Hessian of x ↦ loss(W_L ⋯ W_1 x), and of the two parts that it is the sum of.

    With q = min(r, M_1, …, M_{L-1}, K), M_0 = r, M_L = K and M = M_1 + … + M_{L-1}::

        hessian         Σ_l q(M_l + M_{l-1} − q)
        outer_product   q(r + K − q)                              the Gauss-Newton matrix JᵀSJ
        functional      Σ_l q'(M_l + M_{l-1} − q'),  M_0 = M_L = s,  q' = min(s, M_1, …, M_{L-1})

    where Ω = Σ_n ∂loss/∂f_n x_nᵀ is the residual and s its rank.  A residual of rank s < q lowers
    the rank of the Hessian to q(r + K − q) + 2sM − (L−1)s²; s = 0 is a minimum that fits the data.
    Softmax cross-entropy sees the outputs up to a common shift: K − 1 stands in place of K.  Where
    no closed form is known, the rank is counted at a random point, as by ``exact_rank``.

    Parameters
    ----------
    widths : [d, M_1, …, M_{L-1}, K], inputs first, outputs last; depth L ≥ 1.
    input_rank : rank r of the d × n matrix of inputs, of the centred inputs if any layer has a
        bias; default d.
    bias : False, True (every layer) or the set of the layers 1..L that have one.
    loss : "mse" or "cross_entropy" (softmax, from logits).  A strictly convex loss of the outputs,
        logistic loss of one output too, has the ranks of "mse".
    part : "hessian", "outer_product" or "functional".
    residual_rank : rank s of Ω, at most min(r, K); with biases that of [Ω_centred, Σ_n ∂loss/∂f_n],
        at most min(r + 1, K).  Default: the largest one, which is the generic one.
    weight_ranks : ranks of W_1, …, W_L, which are generic otherwise; 0 is a layer of zeros.
        Default: full rank.
    optimum : at the best fit through a bottleneck q < min(r, K): Ω is not zero there, but
        orthogonal to what the network can change.
    layers : (l, m), the rows of layer l and the columns of layer m only; ``parameters`` are then
        the columns.  For l ≠ m "mse" is squared error alone.

    Source
    ------
    Singh, Bachmann, Hofmann, "Analytic Insights into Structure and Rank of Neural Network Hessian
    Maps" (2021), arXiv 2106.16225: the generic values without biases, as upper bounds.  Derived
    here: equality at generic points, the bound at every point, the dependence on s
    (``theory/linear_network_rank.md``), the formulas with biases in a subset of the layers
    (``theory/linear_network_rank_bias.md``).

    >>> print(linear_network_rank([7, 5, 3, 4, 6]))
    rank ≤ 75, nullity ≥ 11 (proved)
    Σ_l q(M_l + M_{l-1} − q) with q = 3: 3·(5+7−3) + 3·(3+5−3) + 3·(4+3−3) + 3·(6+4−3) = 75 \
of 86 parameters
    """
    check_part(part)
    network = linear_network(
        widths,
        input_rank,
        bias,
        loss,
        residual_rank,
        weight_ranks=weight_ranks,
        optimum=optimum,
        layers=layers,
    )
    found = closed_form(network, part)
    if found is None and elimination_side(network, part) <= LARGEST:
        value = elimination_rank(network, part, seed=0, prime=PRIME)
        said = f"counted modulo {PRIMES[PRIME]} at a random point, seed 0; no closed form is known"
        return rank_bound(network, value, "computed", f"{said}: {value}")
    value, status, because = _bound(network, part) if found is None else found
    return rank_bound(network, value, status, f"{because} = {value}")


def rank_bound(network: LinearNetwork, value: int, status: str, because: str) -> RankBound:
    return RankBound(
        value=value,
        nullity=network.parameters - value,
        parameters=network.parameters,
        status=status,
        because=f"{because} of {network.parameters} parameters",
    )


def closed_form(network: LinearNetwork, part: str) -> Formula | None:
    """Value, status and formula, or None where none is known."""
    elsewhere = network.weight_ranks is not None or network.layers is not None
    if network.biased and (elsewhere or (network.optimum and part == "functional")):
        return None
    if network.biased and network.optimum:
        value, status, because = biased.outer_product(network)
        return value, status if part == "outer_product" else "verified", because
    if network.biased:
        of = {
            "hessian": biased.hessian,
            "outer_product": biased.outer_product,
            "functional": biased.functional,
        }
        return of[part](network)
    if network.layers is not None:
        return None if network.optimum else points.one_block(network, part)
    if network.optimum and part != "outer_product":
        return _at_an_optimum(network, part)
    if network.weight_ranks is not None:
        return _of_weight_ranks(network, network.weight_ranks, part)
    return _generic(network, part)


def _generic(network: LinearNetwork, part: str) -> Formula:
    return {"hessian": _hessian, "outer_product": _outer_product, "functional": _functional}[part](
        network
    )


def _at_an_optimum(network: LinearNetwork, part: str) -> Formula | None:
    if network.residual_rank == 0:
        return _generic(network, part)
    return points.at_an_optimum(network) if part == "hessian" else None


def _of_weight_ranks(network: LinearNetwork, ranks: tuple[int, ...], part: str) -> Formula | None:
    if part == "outer_product":
        return points.staircase(network)
    if part == "hessian" and min(ranks) >= network.bottleneck:
        return _hessian(network)  # the product has rank q: all that the proof asks of the weights
    if part == "hessian" and (network.residual_rank == 0 or network.depth == 1):
        return points.staircase(network)
    return points.with_zero_layers(network, part)


def _hessian(network: LinearNetwork) -> Formula:
    q, s, inner = network.bottleneck, network.residual_rank, network.widths[1:-1]
    r, outputs = network.widths[0], network.widths[-1]
    if s >= q:
        value, terms = _sum_over_layers(network.widths, q)
        return value, "proved", f"Σ_l q(M_l + M_{{l-1}} − q) {network.with_numbers(q=q)}: {terms}"
    value = q * (r + outputs - q) + 2 * s * sum(inner) - (network.depth - 1) * s**2
    hidden = "+".join(str(width) for width in inner) or "0"
    return (
        value,
        "proved",
        f"q(r + K − q) + 2s Σ_hidden M_l − (L−1)s² {network.with_numbers(q=q, s=s)}: "
        f"{q}·({r}+{outputs}−{q}) + 2·{s}·({hidden}) − {network.depth - 1}·{s}²",
    )


def _outer_product(network: LinearNetwork) -> Formula:
    q, r, outputs = network.bottleneck, network.widths[0], network.widths[-1]
    because = f"q(r + K − q) {network.with_numbers(q=q)}: {q}·({r}+{outputs}−{q})"
    return q * (r + outputs - q), "proved", because


def _functional(network: LinearNetwork) -> Formula:
    s = network.residual_rank
    if network.depth == 1:
        return 0, "proved", "a network of one layer is linear in its parameters: 0"
    if s == 0:
        return 0, "proved", "Ω = 0 leaves no second derivative of the network: 0"
    reduced = (s, *network.widths[1:-1], s)
    value, terms = _sum_over_layers(reduced, q=min(reduced))
    numbers = network.with_numbers(q=min(reduced), s=s)
    because = f"Σ_l q(M_l + M_{{l-1}} − q), M_0 = M_L = s, {numbers}: {terms}"
    return value, "proved", because


def _bound(network: LinearNetwork, part: str) -> Formula:
    """No closed form, and too large to count: an upper bound that holds everywhere.

    A layer with a bias is some entries of a matrix that acts on (h, 1), so H is a part of the
    Hessian of a network of widths M_l + 1 without biases.
    """
    extra = int(bool(network.biased))
    r, *hidden, outputs = network.widths
    larger = replace(
        network,
        widths=(r + extra, *(width + extra for width in hidden), outputs),
        biased=frozenset(),
        weight_ranks=None,
        optimum=False,
        layers=None,
    )
    value, _, because = _generic(larger, part)
    sides = [network.reduced_parameters]
    if network.layers is not None:
        sides.append(replace(network, layers=network.layers[::-1]).reduced_parameters)
    if min(sides) < value:
        return min(sides), "bound", f"no closed form is known, all of the matrix: {min(sides)}"
    how = "that of widths M_l + 1 without biases" if extra else "that of a generic point"
    return value, "bound", f"no closed form is known; at most {how}, {because}"


def _sum_over_layers(widths: tuple[int, ...], q: int) -> tuple[int, str]:
    """Σ_l q(M_l + M_{l-1} − q), the dimensions of the rank-q matrices of each layer's shape."""
    value = sum(q * (out + inputs - q) for inputs, out in pairwise(widths))
    return value, " + ".join(f"{q}·({out}+{inputs}−{q})" for inputs, out in pairwise(widths))
