"""What a rank is asked of: a linear network, a loss and a kind of point, checked and reduced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

LOSSES = ("mse", "cross_entropy")
PARTS = ("hessian", "outer_product", "functional")

Formula = tuple[int, str, str]  # value, status, the formula with its numbers


@dataclass(frozen=True)
class RankBound:
    """A rank that theory gives: the value, how well it is known, and the formula with its numbers.

    ``value + nullity == parameters``.  ``status`` says what the value is worth:

    * ``proved``: an upper bound at every parameter and every data set of the stated input rank
      (and of at most the stated residual rank and weight ranks), attained at all parameters and
      targets outside a set of measure zero (one-hot targets: attained in every case checked, which
      is no proof); the proof is in ``theory/``;
    * ``verified``: found from the structure of the problem and confirmed without exception by
      exact elimination at random points, but not proved;
    * ``bound``: an upper bound that is proved, and not claimed to be attained;
    * ``computed``: counted by exact elimination at one random point; ``because`` says when that
      point proves more.
    """

    value: int
    nullity: int
    parameters: int
    status: str
    because: str

    def __str__(self) -> str:
        at_most, at_least = ("≤ ", "≥ ") if self.status in ("proved", "bound") else ("", "")
        return (
            f"rank {at_most}{self.value}, nullity {at_least}{self.nullity} ({self.status})\n"
            f"{self.because}"
        )


@dataclass(frozen=True)
class LinearNetwork:
    """What the formulas see: M_0 = r, hidden widths, M_L = K (K − 1 under softmax).

    ``sizes`` are the widths as they were given.  ``weight_ranks`` are those of the reduced
    matrices, or None: full.  ``layers`` names a single block (l, m) of the matrix, or None: all.
    """

    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    biased: frozenset[int]
    loss: str
    residual_rank: int
    largest_residual_rank: int
    remarks: tuple[str, ...]
    weight_ranks: tuple[int, ...] | None = None
    optimum: bool = False
    layers: tuple[int, int] | None = None

    @property
    def depth(self) -> int:
        return len(self.widths) - 1

    @property
    def bottleneck(self) -> int:
        return min(self.widths)

    @property
    def parameters(self) -> int:
        """All of them, or those of the layer that owns the columns of the block."""
        return sum(_parameters_by_layer(self.sizes, self.biased)[self.owners])

    @property
    def reduced_parameters(self) -> int:
        """Without the ones that no input or no output sees."""
        return sum(_parameters_by_layer(self.widths, self.biased)[self.owners])

    @property
    def owners(self) -> slice:
        return slice(None) if self.layers is None else slice(self.layers[1] - 1, self.layers[1])

    def with_numbers(self, **numbers: int) -> str:
        said = [f"{name} = {number}" for name, number in numbers.items()]
        return "with " + ", ".join(said + list(self.remarks))


def _parameters_by_layer(widths: tuple[int, ...], biased: frozenset[int]) -> list[int]:
    return [
        out * (inputs + (layer in biased))
        for layer, (inputs, out) in enumerate(pairwise(widths), start=1)
    ]


def linear_network(
    widths: Sequence[int],
    input_rank: int | None = None,
    bias: bool | Iterable[int] = False,
    loss: str = "mse",
    residual_rank: int | None = None,
    *,
    weight_ranks: Sequence[int] | None = None,
    optimum: bool = False,
    layers: tuple[int, int] | None = None,
) -> LinearNetwork:
    """The arguments of ``linear_network_rank``, each refused with a sentence if impossible."""
    sizes = _checked_widths(widths)
    depth = len(sizes) - 1
    biased = _checked_bias(bias, depth)
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
    if not is_integer(rank) or not 0 <= rank <= sizes[0]:
        raise ValueError(
            f"input_rank must be an integer from 0 to the input dimension {sizes[0]}, got {rank!r}"
        )
    if rank < sizes[0]:
        remarks.append(f"r = {rank} of {sizes[0]} inputs")
    reduced = (int(rank), *sizes[1:-1], outputs)
    ranks = _checked_weight_ranks(weight_ranks, sizes, reduced)
    if ranks is not None:
        remarks.append(f"weights of the ranks {', '.join(map(str, ranks))}")
    rows, what = outputs, f"{outputs} independent rows"
    columns = rank + 1 if biased else rank
    if optimum:
        rows, columns = outputs - min(reduced), rank - min(reduced)
        what = f"{rows} independent rows orthogonal to the network"
        if ranks is not None:
            raise ValueError("weight_ranks says of which ranks the weights are; optimum does too")
    largest = max(0, min(rows, columns))
    residual = largest if residual_rank is None else residual_rank
    if not is_integer(residual) or not 0 <= residual <= largest:
        raise ValueError(
            f"residual_rank must be an integer from 0 to {largest}, got {residual!r}; "
            f"the residual has {what} and the inputs have rank {rank}"
        )
    return LinearNetwork(
        sizes=sizes,
        widths=reduced,
        biased=biased,
        loss=loss,
        residual_rank=int(residual),
        largest_residual_rank=int(largest),
        remarks=tuple(remarks),
        weight_ranks=ranks,
        optimum=bool(optimum),
        layers=_checked_layers(layers, depth),
    )


def check_part(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    return part


def _checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(widths)
    if len(sizes) < 2:
        raise ValueError(
            f"widths needs at least two numbers, inputs and outputs, got {list(sizes)}"
        )
    for width in sizes:
        if not is_integer(width) or width < 1:
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
        if not is_integer(layer) or not 1 <= layer <= depth:
            raise ValueError(
                f"bias names layer {layer!r}, which is not there; the layers are 1 to {depth}"
            )
    return frozenset(int(layer) for layer in layers)


def _checked_weight_ranks(
    ranks: Sequence[int] | None, sizes: tuple[int, ...], reduced: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Ranks of the reduced matrices; None where they are full anyway."""
    if ranks is None:
        return None
    if len(ranks) != len(sizes) - 1:
        raise ValueError(
            f"weight_ranks needs a rank a layer, {len(sizes) - 1} of them, got {list(ranks)}"
        )
    for layer, (rank, (inputs, out)) in enumerate(zip(ranks, pairwise(sizes)), start=1):
        if not is_integer(rank) or not 0 <= rank <= min(inputs, out):
            raise ValueError(
                f"weight_ranks must be integers, in layer {layer} from 0 to {min(inputs, out)}, "
                f"got {rank!r}"
            )
    full = [min(pair) for pair in pairwise(reduced)]
    kept = tuple(min(int(rank), most) for rank, most in zip(ranks, full))
    return None if kept == tuple(full) else kept


def _checked_layers(layers: tuple[int, int] | None, depth: int) -> tuple[int, int] | None:
    if layers is None:
        return None
    pair = tuple(layers)
    if len(pair) != 2 or not all(is_integer(x) and 1 <= x <= depth for x in pair):
        raise ValueError(
            f"layers must be two layers (l, m) from 1 to {depth}, the rows and columns of a block, "
            f"got {layers!r}"
        )
    return int(pair[0]), int(pair[1])


def is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
