"""Curvature of a network's loss: a sum over batches of linear maps that all vectors share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmthess.operators.backends import Engine, backends
from rmthess.operators.batches import Batches
from rmthess.operators.graph import Linearise
from rmthess.operators.memory import explain_exhaustion, keep_freed_memory
from rmthess.operators.operator import Operator
from rmthess.operators.parameters import Parameters, Selection, select
from rmthess.operators.problem import Problem, Weight
from rmthess.operators.survey import Survey, repeat
from rmthess.operators.tuning import Refused, adopt, tune
from rmthess.operators.weights import infer


@dataclass(frozen=True, eq=False, repr=False)
class Curvature(Operator):
    """A = Σ_b w_b A_b / Σ_b w_b (or Σ_b A_b for a summed loss); ``engine`` computes it.

    ``names`` of the parameters in flat order, tied ones once; ``unused`` those on which the loss
    does not depend (zero blocks); ``loss`` and ``gradient`` (dim,) at this point; ``batches`` and
    ``samples``, their numbers; ``shared`` whether the graphs of batches are kept between products;
    ``hand_written`` the autograd functions in the graph that are not torch's own.
    """

    kind: str
    problem: Problem
    loss: float
    gradient: Tensor
    unused: tuple[str, ...]
    hand_written: set[str]
    batches: int
    samples: int
    engine: Engine

    @property
    def parameters(self) -> Parameters:
        return self.problem.parameters

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
    def total_weight(self) -> float:
        return self.engine.total_weight

    @property
    def shared(self) -> bool:
        return self.engine.kept is not None

    def __repr__(self) -> str:
        loss = self.problem.loss
        name = getattr(loss, "__name__", type(loss).__name__)
        return (
            f"{self.kind}(dim={self.dim}, parameters={len(self.names)}, batches={self.batches}, "
            f"loss={name}, dtype={str(self.dtype).removeprefix('torch.')}, device={self.device})"
        )

    @property
    def eps(self) -> float:
        return max(float(torch.finfo(value.dtype).eps) for value in self.parameters.values)

    @property
    def backend(self) -> str:
        return self.engine.label

    def tuned(self, products: int, columns: int) -> Curvature:
        """This operator, from now on computed the way that is fastest for so many products.

        Once found, or given by ``backend=``, the way stays. See ``tuning``.
        """
        if not self.engine.is_settled:
            with self.problem.isolated():
                tune(self.engine, products, columns)
        return self

    def matmat(self, vectors: Tensor) -> Tensor:
        """A times the columns of ``vectors`` (dim, k); the same shape, columns contiguous.

        Raises NonFiniteError that names the batch and the parameter of the first NaN, MemoryError
        if the graph of a batch does not fit.
        """
        self.check(vectors)
        with self.problem.isolated(), explain_exhaustion():
            rows = vectors.detach().T.contiguous()
            out = self.engine.multiply(rows)
            # A tenth of the time of looking at every entry. The sum can overflow without them.
            if not bool(torch.isfinite(out.sum())) and not bool(torch.isfinite(out).all()):
                self.engine.explain(rows, self.kind)
        return out.to(self.dtype).T


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
    backend: str | None = None,
    of_the_loss: bool = False,
    zero_if: str = "the loss is linear in the chosen parameters; was another loss meant?",
) -> Curvature:
    """The operator named ``kind`` whose batches are ``linearise``d; the rest as for ``hessian``.

    ``of_the_loss``: whether it is the Hessian of the loss itself, for which there is forward mode.
    ``zero_if``: what it means that the operator vanishes, for the warning.
    """
    keep_freed_memory()
    with torch.inference_mode(False):  # the copies must be tensors that autograd accepts
        problem = _pose(model, loss, data, params, weight)
    ways = backends(linearise, of_the_loss=of_the_loss)
    if backend is not None and backend not in ways:
        raise ValueError(f"backend must be one of {sorted(ways)} or None, got {backend!r}")
    with problem.isolated(), explain_exhaustion():
        found = Survey(problem, linearise)
        kept = repeat(problem, linearise, found, memory)
    if found.is_zero:
        warnings.warn(f"the {kind} is zero: {zero_if}", stacklevel=3)
    totals = found.totals
    if totals.unused:
        warnings.warn(
            f"the loss does not depend on {list(totals.unused)}: their rows and columns are zero; "
            "leave them out with params=",
            stacklevel=3,
        )
    scale = 1 / totals.weight if problem.is_mean else 1.0
    engine = Engine(
        problem, ways, None if kept is None else [*kept], memory, totals.batches, totals.weight
    )
    if backend is not None:
        _fix(engine, backend)
    return Curvature(
        kind=kind,
        problem=problem,
        loss=totals.loss * scale,
        gradient=(totals.gradient * scale).to(problem.parameters.dtype),
        unused=totals.unused,
        hand_written=found.hand_written,
        batches=totals.batches,
        samples=found.samples,
        engine=engine,
    )


def _fix(engine: Engine, backend: str) -> None:
    if backend == "shared":
        engine.settle(backend)
        return
    try:
        with engine.problem.isolated():
            adopt(engine, backend)
    except Refused as reason:
        raise ValueError(
            f"backend={backend!r} cannot compute this operator: {reason}; leave backend out"
        ) from reason


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
