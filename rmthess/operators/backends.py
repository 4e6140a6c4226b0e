"""Ways to compute one and the same product, and the sum of it over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rmthess.operators.batches import Batch
from rmthess.operators.errors import NonDeterministicError, NonFiniteError
from rmthess.operators.graph import Linear, Linearise, Pieces
from rmthess.operators.linearized import ForwardOverReverse, Recorded
from rmthess.operators.problem import Problem
from rmthess.operators.program import Programs

_FEW = 16

Open = Callable[[Problem, Batch], Linear | None]  # None: the batch weighs nothing


class Batched:
    """All columns at once through ``torch.func.vmap``: k times the memory, one k-th of the calls.

    On a CPU it took 1.5 times as long as one column after the other. On a GPU, where the products
    of a small network take as long as it takes to launch them, it is tried.
    """

    def __init__(self, graph: Linear) -> None:
        self._graph = graph

    @property
    def weight(self) -> float:
        return self._graph.weight

    def products(self, columns: Iterable[Sequence[Tensor]]) -> Iterator[Pieces]:
        stacked = [torch.stack(pieces) for pieces in zip(*columns, strict=True)]
        found = torch.func.vmap(self.product)(stacked)
        return iter(list(zip(*found, strict=True)))

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        found = zip(self._graph.product(pieces), pieces, strict=True)
        return [torch.zeros_like(v) if part is None else part for part, v in found]


_OF_THE_GRAPH: dict[str, Callable[[Linear], Linear]] = {
    "batched": Batched,
    "recorded": Recorded,
    "compiled": lambda graph: Recorded(graph, compile=True),
}


def backends(linearise: Linearise, *, of_the_loss: bool) -> dict[str, Open]:
    """Every way to open a batch; the first is for all kinds of curvature and checks the others.

    Of graphs that are kept, those in ``_OF_THE_GRAPH`` are made instead.

    ``of_the_loss``: whether the curvature is the Hessian of the loss itself, for which there is
    forward mode.
    """

    def shared(problem: Problem, batch: Batch) -> Linear | None:
        evaluation = problem.evaluate(batch)
        return None if evaluation is None else linearise(evaluation)

    def of_the_graph(make: Callable[[Linear], Linear]) -> Open:
        def opened(problem: Problem, batch: Batch) -> Linear | None:
            graph = shared(problem, batch)
            return None if graph is None else make(graph)

        return opened

    def linearized(problem: Problem, batch: Batch) -> Linear:
        return Recorded(ForwardOverReverse(problem, batch))

    found: dict[str, Open] = {"shared": shared}
    found |= {name: of_the_graph(make) for name, make in _OF_THE_GRAPH.items()}
    found["recorded"] = Programs(linearise)
    return found | {"linearized": linearized} if of_the_loss else found


@dataclass(eq=False)
class Engine:
    """Σ_b w_b A_b V / Σ_b w_b, or Σ_b A_b V for a summed loss.

    This is what may change about an operator: by which of the ``ways`` the A_b V are computed, and
    what is ``kept`` for it between products, None if every product sets up its own. ``memory``: the
    budget for what is kept, None for the default; ``label``: which way was taken and why.
    """

    problem: Problem
    ways: Mapping[str, Open]
    kept: list[Linear] | None
    memory: int | None
    batches: int
    total_weight: float
    name: str = "shared"
    label: str = "shared"
    is_settled: bool = False

    def by(self, name: str, first: Linear | None = None) -> Engine:
        """The same sum another way, keeping if this one keeps; ``first`` is opened already.

        What was kept goes over: two ways at once would take twice the memory. See ``reopen``.
        """
        if self.kept is None:
            if name == "compiled":
                raise ValueError("compiling anew for every product is slower than anything")
            return replace(self, name=name)
        graphs, self.kept = self.kept, []
        kept: list[Linear]
        if name in _OF_THE_GRAPH:
            kept = [_OF_THE_GRAPH[name](graph) for graph in graphs]
        else:
            graphs.clear()
            kept = list(self.opened(name))
        if first is not None:
            kept[0] = first
        return replace(self, kept=kept, name=name)

    def reopen(self) -> None:
        """Have again what ``by`` took."""
        if self.kept == []:
            self.kept = list(self.opened(self.name))

    def settle(self, label: str, other: Engine | None = None) -> None:
        """Stay as it is, or go on as ``other`` does; what was kept for the old way is freed."""
        if other is not None:
            self.name, self.kept = other.name, other.kept
        self.label, self.is_settled = label, True

    def first(self, name: str) -> Linear:
        """A_b of the first batch that weighs something: the one kept, if it is of this way."""
        if self.kept is not None and name == self.name:
            return self.kept[0]
        if self.kept is not None and name in _OF_THE_GRAPH:
            return _OF_THE_GRAPH[name](self.kept[0])
        return next(self.opened(name))

    def opened(self, name: str) -> Iterator[Linear]:
        """The A_b, batch by batch; none is held while the next is made."""
        for batch in self.problem.batches:
            graph = self.ways[name](self.problem, batch)
            if graph is not None:
                yield graph
            del graph

    def multiply(self, rows: Tensor) -> Tensor:
        """The products of the rows (k, dim), as rows; float64 if there are many batches.

        Sums over many lose digits in low precision. A few in float32 lose less than each product,
        itself a sum over samples; widening them took 4% of the time of a small network.
        """
        few = self.batches == 1 or (self.batches <= _FEW and rows.dtype.itemsize >= 4)
        wide = rows.dtype if few else torch.float64
        out = torch.zeros(rows.shape, dtype=wide, device=rows.device)
        total = 0.0
        columns, targets = self.columns(rows), self.targets(out)
        for graph in self.opened(self.name) if self.kept is None else self.kept:
            self.add(graph, columns, targets)
            total += graph.weight
            del graph
        if abs(total - self.total_weight) > 1e-9 * self.total_weight:
            raise NonDeterministicError(
                f"the data changed: its batches weigh {total:g} in this pass and weighed "
                f"{self.total_weight:g} at construction; pass data that stays the same, "
                "without drop_last and shuffle together"
            )
        return out

    def explain(self, rows: Tensor, kind: str) -> None:
        """Raise NonFiniteError that names the batch and the parameter of the first NaN."""
        if not bool(torch.isfinite(rows).all()):
            raise NonFiniteError("the vectors to be multiplied hold NaN or Inf")
        for batch in self.problem.batches:
            batch.check_finite()  # they may have become so after the first pass
            graph = self.ways["shared"](self.problem, batch)
            if graph is None:
                continue
            out = torch.zeros_like(rows)
            self.add(graph, self.columns(rows), self.targets(out))
            if not bool(torch.isfinite(out).all()):
                entry = int(torch.nonzero(~torch.isfinite(out))[0, 1])
                raise NonFiniteError(
                    f"a {kind}-vector product is not finite in batch {batch.index}, first in "
                    f"parameter {self.problem.parameters.name_of_entry(entry)!r}: the loss has no "
                    "second derivative there (square root or norm at 0?) or overflows"
                )
        raise NonFiniteError(
            f"the sum of the {kind}-vector products of {self.batches} batches is not finite"
        )

    def columns(self, rows: Tensor) -> list[list[Tensor]]:
        """The rows (k, dim) in the parameters' shapes."""
        return [self.problem.parameters.split(row) for row in rows]

    def targets(self, out: Tensor) -> list[list[Tensor]]:
        """The rows of ``out`` (k, dim) in the parameters' shapes, to be written through."""
        return [self.problem.parameters.views(row) for row in out]

    def add(
        self, graph: Linear, columns: Sequence[Sequence[Tensor]], targets: Sequence[list[Tensor]]
    ) -> None:
        """targets += the share of one batch; see ``columns`` and ``targets``."""
        products = (
            graph.products(columns) if isinstance(graph, Batched) else map(graph.product, columns)
        )
        for target, pieces in zip(targets, products, strict=True):
            # The weight is known after a product.
            share = graph.weight / self.total_weight if self.problem.is_mean else 1.0
            self.problem.parameters.add_to(target, pieces, share)
