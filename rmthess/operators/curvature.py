"""Curvature of a network's loss: a sum over batches of linear maps that all vectors share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmthess.operators.batches import Batches
from rmthess.operators.errors import NonDeterministicError, NonFiniteError
from rmthess.operators.graph import Graph, Linearise
from rmthess.operators.operator import Operator
from rmthess.operators.parameters import Selection, select
from rmthess.operators.problem import Problem, Weight
from rmthess.operators.survey import Survey, repeat
from rmthess.operators.weights import infer


@dataclass(frozen=True, eq=False, repr=False)
class Curvature(Operator):
    """A = Σ_b w_b A_b / Σ_b w_b (or Σ_b A_b for a summed loss), ``linearise`` giving the A_b.

    ``names`` of the parameters in flat order, tied ones once; ``unused`` those on which the loss
    does not depend (zero blocks); ``loss`` and ``gradient`` (dim,) at this point; ``batches`` their
    number; ``shared`` whether their graphs are kept between products.
    """

    kind: str
    linearise: Linearise
    problem: Problem
    loss: float
    gradient: Tensor
    unused: tuple[str, ...]
    batches: int
    total_weight: float
    kept: list[Graph] | None

    @property
    def names(self) -> tuple[str, ...]:
        return self.problem.parameters.names

    @property
    def shape(self) -> tuple[int, int]:
        return self.problem.parameters.dim, self.problem.parameters.dim

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.parameters.dtype

    @property
    def device(self) -> torch.device:
        return self.problem.parameters.device

    @property
    def shared(self) -> bool:
        return self.kept is not None

    def __repr__(self) -> str:
        loss = self.problem.loss
        name = getattr(loss, "__name__", type(loss).__name__)
        return (
            f"{self.kind}(dim={self.dim}, parameters={len(self.names)}, batches={self.batches}, "
            f"loss={name}, dtype={str(self.dtype).removeprefix('torch.')}, device={self.device})"
        )

    def matmat(self, vectors: Tensor) -> Tensor:
        """A times the columns of ``vectors`` (dim, k); the same shape, columns contiguous.

        Every batch's graph serves all columns: kept from the construction, or built here once and
        dropped. Columns are looped over: ``is_grads_batched`` was slower wherever a product takes
        more than a millisecond, and needs the memory of k products.

        Raises NonFiniteError that names the batch and the parameter of the first NaN.
        """
        self.check(vectors)
        # Sums over many batches lose digits in low precision, a single batch has no such sum.
        wide = self.dtype if self.batches == 1 else torch.float64
        with self.problem.isolated():
            rows = vectors.detach().T.contiguous()
            out = torch.zeros(rows.shape, dtype=wide, device=self.device)
            if self.kept is not None:
                for index, graph in enumerate(self.kept):
                    self._accumulate(out, rows, graph, index)
            else:
                self._stream(out, rows)
        return out.to(self.dtype).T

    def _stream(self, out: Tensor, rows: Tensor) -> None:
        total = 0.0
        for batch in self.problem.batches:
            loss = self.problem.evaluate(batch)
            if loss is not None:
                total += loss.weight
                self._accumulate(out, rows, self.linearise(loss), batch.index)
        if abs(total - self.total_weight) > 1e-9 * self.total_weight:
            raise NonDeterministicError(
                f"the data changed: its batches weigh {total:g} in this pass and weighed "
                f"{self.total_weight:g} at construction; pass data that stays the same, "
                "without drop_last and shuffle together"
            )

    def _accumulate(self, out: Tensor, rows: Tensor, graph: Graph, batch: int) -> None:
        scale = self._share(graph.weight)
        parameters = self.problem.parameters
        for row, target in zip(rows, out, strict=True):
            parameters.add_to(target, graph.product(parameters.split(row)), scale)
        finite = torch.isfinite(out)
        if not bool(finite.all()):
            if not bool(torch.isfinite(rows).all()):
                raise NonFiniteError("the vectors to be multiplied hold NaN or Inf")
            entry = int(torch.nonzero(~finite)[0, 1])
            raise NonFiniteError(
                f"a {self.kind}-vector product is not finite in batch {batch}, first in parameter "
                f"{parameters.name_of_entry(entry)!r}: the loss has no second derivative there "
                "(square root or norm at 0?) or overflows"
            )

    def _share(self, weight: float) -> float:
        return weight / self.total_weight if self.problem.is_mean else 1.0


def curvature(
    kind: str,
    linearise: Linearise,
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    params: Selection,
    weight: Weight | None,
    memory: int | None,
) -> Curvature:
    """The operator named ``kind`` whose batches are ``linearise``d; the rest as for ``hessian``."""
    with torch.inference_mode(False):  # the copies must be tensors that autograd accepts
        problem = _pose(model, loss, data, params, weight)
    with problem.isolated():
        found = Survey(problem, linearise)
        kept = repeat(problem, linearise, found, memory)
    if found.is_zero:
        warnings.warn(
            f"the {kind} is zero: the loss is linear in the chosen parameters; "
            "was another loss meant?",
            stacklevel=3,
        )
    totals = found.totals
    scale = 1 / totals.weight if problem.is_mean else 1.0
    return Curvature(
        kind=kind,
        linearise=linearise,
        problem=problem,
        loss=totals.loss * scale,
        gradient=(totals.gradient * scale).to(problem.parameters.dtype),
        unused=totals.unused,
        batches=totals.batches,
        total_weight=totals.weight,
        kept=kept,
    )


def _pose(
    model: nn.Module, loss: Callable[..., Any], data: Any, params: Selection, weight: Weight | None
) -> Problem:
    # A compiled module has no second derivative; the module inside it is the same function.
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"loss must be callable as loss(output, *targets), got {loss!r}")
    parameters = select(model, params)
    chosen = set(parameters.names)
    return Problem(
        model=model,
        loss=loss,
        batches=Batches(data, parameters.device),
        parameters=parameters,
        fixed={n: p.detach().clone() for n, p in model.named_parameters() if n not in chosen},
        buffers={n: b.detach().clone() for n, b in model.named_buffers()},
        modes={n: m.training for n, m in model.named_modules()},
        reduction=infer(loss),
        weight=weight,
    )
