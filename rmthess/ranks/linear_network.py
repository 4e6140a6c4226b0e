"""The rank of a linear network's Hessian, in closed form from the widths alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

LOSSES = ("mse", "cross_entropy")
PARTS = ("hessian", "outer_product", "functional")


@dataclass(frozen=True)
class RankBound:
    """A rank that theory gives: the value, how well it is known, and the formula with its numbers.

    ``value + nullity == parameters``.  ``status`` says what the value is worth:

    * ``proved``: an upper bound at every parameter and every data set of the stated input rank
      (and of at most the stated residual rank), attained at all parameters and targets outside a
      set of measure zero (one-hot targets: attained in every case checked, which is no proof);
      the proof is in ``theory/linear_network_rank.md``;
    * ``verified``: found from the structure of the problem and confirmed without exception by
      exact elimination at random points, but not proved.
    """

    value: int
    nullity: int
    parameters: int
    status: str
    because: str

    def __str__(self) -> str:
        at_most, at_least = ("≤ ", "≥ ") if self.status == "proved" else ("", "")
        return (
            f"rank {at_most}{self.value}, nullity {at_least}{self.nullity} ({self.status})\n"
            f"{self.because}"
        )


@dataclass(frozen=True)
class _Network:
    """What the formulas see: M_0 = r, hidden widths, M_L = K (K − 1 under softmax)."""

    widths: tuple[int, ...]
    biased: frozenset[int]
    residual_rank: int
    largest_residual_rank: int
    remarks: tuple[str, ...]

    @property
    def depth(self) -> int:
        return len(self.widths) - 1

    @property
    def bottleneck(self) -> int:
        return min(self.widths)

    def with_numbers(self, **numbers: int) -> str:
        said = [f"{name} = {number}" for name, number in numbers.items()]
        return "with " + ", ".join(said + list(self.remarks))


def linear_network_rank(
    widths: Sequence[int],
    input_rank: int | None = None,
    bias: bool | Iterable[int] = False,
    loss: str = "mse",
    part: str = "hessian",
    residual_rank: int | None = None,
) -> RankBound:
    """Rank of the Hessian of x ↦ loss(W_L ⋯ W_1 x), and of the two parts that it is the sum of.

    With q = min(r, M_1, …, M_{L-1}, K), M_0 = r, M_L = K and M = M_1 + … + M_{L-1}::

        hessian         Σ_l q(M_l + M_{l-1} − q)
        outer_product   q(r + K − q)                              the Gauss-Newton matrix JᵀSJ
        functional      Σ_l q'(M_l + M_{l-1} − q'),  M_0 = M_L = s,  q' = min(s, M_1, …, M_{L-1})

    where Ω = Σ_n ∂loss/∂f_n x_nᵀ is the residual and s its rank.  A residual of rank s < q lowers
    the rank of the Hessian to q(r + K − q) + 2sM − (L−1)s²; s = 0 is a minimum that fits the data.
    Softmax cross-entropy sees the outputs up to a common shift: K − 1 stands in place of K.

    Parameters
    ----------
    widths : [d, M_1, …, M_{L-1}, K], inputs first, outputs last; depth L ≥ 1.
    input_rank : rank r of the d × n matrix of inputs, of the centred inputs if any layer has a
        bias; default d.
    bias : False, True (every layer) or the set of the layers 1..L that have one.
    loss : "mse" or "cross_entropy" (softmax, from logits).
    part : "hessian", "outer_product" or "functional".
    residual_rank : rank s of Ω, at most min(r, K); with biases that of [Ω_centred, Σ_n ∂loss/∂f_n],
        at most min(r + 1, K).  Default: the largest one, which is the generic one.

    Source
    ------
    Singh, Bachmann, Hofmann, "Analytic Insights into Structure and Rank of Neural Network Hessian
    Maps" (2021), arXiv 2106.16225: the generic values without biases, as upper bounds.  Derived
    here: equality at generic points, the bound at every point, the dependence on s
    (``theory/linear_network_rank.md``), the formulas with biases in a subset of the layers.

    >>> print(linear_network_rank([7, 5, 3, 4, 6]))
    rank ≤ 75, nullity ≥ 11 (proved)
    Σ_l q(M_l + M_{l-1} − q) with q = 3: 3·(5+7−3) + 3·(3+5−3) + 3·(4+3−3) + 3·(6+4−3) = 75 \
of 86 parameters
    """
    sizes = _checked_widths(widths)
    biased = _checked_bias(bias, depth=len(sizes) - 1)
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    network = _checked_network(sizes, input_rank, biased, loss, residual_rank)
    formula = {
        "hessian": _hessian_with_biases if biased else _hessian,
        "outer_product": _outer_product_with_biases if biased else _outer_product,
        "functional": _functional_with_biases if biased else _functional,
    }[part]
    value, status, because = formula(network)
    parameters = sum(
        out * (inputs + (layer in biased))
        for layer, (inputs, out) in enumerate(pairwise(sizes), start=1)
    )
    return RankBound(
        value=value,
        nullity=parameters - value,
        parameters=parameters,
        status=status,
        because=f"{because} = {value} of {parameters} parameters",
    )


def _hessian(network: _Network) -> tuple[int, str, str]:
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


def _outer_product(network: _Network) -> tuple[int, str, str]:
    q, r, outputs = network.bottleneck, network.widths[0], network.widths[-1]
    because = f"q(r + K − q) {network.with_numbers(q=q)}: {q}·({r}+{outputs}−{q})"
    return q * (r + outputs - q), "proved", because


def _functional(network: _Network) -> tuple[int, str, str]:
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


def _hessian_with_biases(network: _Network) -> tuple[int, str, str]:
    if network.residual_rank == 0:
        value, status, because = _outer_product_with_biases(network)
        return value, status, f"without a residual the outer product alone: {because}"
    if network.residual_rank < network.largest_residual_rank:
        raise NotImplementedError(
            f"residual_rank = {network.residual_rank} of a network with biases is not covered yet; "
            f"give 0, {network.largest_residual_rank} (generic) or None, or bias=False"
        )
    q, widths, biased = network.bottleneck, network.widths, network.biased
    value, terms = 0, []
    for layer in range(1, network.depth + 1):
        inputs, out, has_bias = widths[layer - 1], widths[layer], layer in biased
        leaving, entering = _strands_leaving(network, layer), inputs + has_bias
        free = (out - leaving) * (entering - _strands_entering(network, layer))
        value += out * entering - free
        terms.append(f"({out}·{entering}−{free})")
    return (
        value,
        "verified",
        f"Σ_l [M_l(M_{{l-1}} + bias_l) − free_l] {network.with_numbers(q=q)}: {' + '.join(terms)}",
    )


def _strands_leaving(network: _Network, layer: int) -> int:
    """Rank of what layer passes on: q, and the constant that an earlier bias carries through."""
    earlier = [b for b in network.biased if b < layer]
    if not earlier:
        return network.bottleneck
    return min(network.bottleneck + 1, *network.widths[max(earlier) :])


def _strands_entering(network: _Network, layer: int) -> int:
    q = network.bottleneck
    if layer not in network.biased:
        return _strands_leaving(network, layer)
    return q + 1 if layer == network.depth else min(q + 1, *network.widths[layer:])


def _outer_product_with_biases(network: _Network) -> tuple[int, str, str]:
    q, r, outputs = network.bottleneck, network.widths[0], network.widths[-1]
    last = max(network.biased)
    # The constant function reaches every output unless the bottleneck lies behind the last bias.
    constant = outputs if min(network.widths[last:]) > q else q
    return (
        q * (r + outputs - q) + constant,
        "verified",
        f"q(r + K − q) + (dimension of the constants) {network.with_numbers(q=q)}: "
        f"{q}·({r}+{outputs}−{q}) + {constant}",
    )


def _functional_with_biases(network: _Network) -> tuple[int, str, str]:
    s = network.residual_rank
    if network.depth == 1 or s == 0:
        return _functional(network)
    if network.depth == 2 and 1 in network.biased:
        hidden = network.widths[1]
        because = f"2 M_1 s {network.with_numbers(s=s)}: 2·{hidden}·{s}"
        return 2 * hidden * s, "proved", because
    raise NotImplementedError(
        f"the functional part with biases in layers {sorted(network.biased)} of {network.depth} is "
        'not covered yet: ask for part="hessian" or "outer_product", or give bias=False'
    )


def _sum_over_layers(widths: tuple[int, ...], q: int) -> tuple[int, str]:
    """Σ_l q(M_l + M_{l-1} − q), the dimensions of the rank-q matrices of each layer's shape."""
    value = sum(q * (out + inputs - q) for inputs, out in pairwise(widths))
    return value, " + ".join(f"{q}·({out}+{inputs}−{q})" for inputs, out in pairwise(widths))


def _checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(widths)
    if len(sizes) < 2:
        raise ValueError(
            f"widths needs at least two numbers, inputs and outputs, got {list(sizes)}"
        )
    for width in sizes:
        if not _is_integer(width) or width < 1:
            raise ValueError(
                f"widths must be positive integers, got {width!r} in {list(sizes)}; "
                "they are [inputs, hidden..., outputs]"
            )
    return tuple(int(width) for width in sizes)


def _checked_bias(bias: object, depth: int) -> frozenset[int]:
    if isinstance(bias, bool):
        return frozenset(range(1, depth + 1)) if bias else frozenset()
    if not isinstance(bias, Iterable) or isinstance(bias, str):
        raise ValueError(f"bias must be True, False or a set of layers, got {bias!r}")
    layers = list(bias)
    for layer in layers:
        if not _is_integer(layer) or not 1 <= layer <= depth:
            raise ValueError(
                f"bias names layer {layer!r}, which is not there; the layers are 1 to {depth}"
            )
    return frozenset(int(layer) for layer in layers)


def _checked_network(
    sizes: tuple[int, ...],
    input_rank: int | None,
    biased: frozenset[int],
    loss: str,
    residual_rank: int | None,
) -> _Network:
    remarks = []
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    outputs = sizes[-1]
    if loss == "cross_entropy":
        if outputs == 1:
            raise ValueError(
                "cross_entropy needs at least two outputs, got widths ending in 1: "
                "the softmax of one output is constant"
            )
        outputs -= 1
        remarks.append(f"K − 1 = {outputs} for K")
    rank = sizes[0] if input_rank is None else input_rank
    if not _is_integer(rank) or not 0 <= rank <= sizes[0]:
        raise ValueError(
            f"input_rank must be an integer from 0 to the input dimension {sizes[0]}, got {rank!r}"
        )
    if rank < sizes[0]:
        remarks.append(f"r = {rank} of {sizes[0]} inputs")
    largest = min(rank + 1 if biased else rank, outputs)
    residual = largest if residual_rank is None else residual_rank
    if not _is_integer(residual) or not 0 <= residual <= largest:
        raise ValueError(
            f"residual_rank must be an integer from 0 to {largest}, got {residual!r}; "
            f"the residual has {outputs} independent rows and the inputs have rank {rank}"
        )
    return _Network(
        widths=(int(rank), *sizes[1:-1], outputs),
        biased=biased,
        residual_rank=int(residual),
        largest_residual_rank=int(largest),
        remarks=tuple(remarks),
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
