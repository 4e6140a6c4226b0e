"""The Hessian of a network's loss as a linear map."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rmthess.operators.batches import Batches
from rmthess.operators.errors import NonDeterministicError, NonFiniteError
from rmthess.operators.graph import Graph, build_graph
from rmthess.operators.parameters import Selection, select
from rmthess.operators.problem import Problem, Weight
from rmthess.operators.survey import Survey, repeat
from rmthess.operators.weights import infer


@dataclass(frozen=True, eq=False)
class Hessian:
    """H = ∂²L/∂θ∂θᵀ,  L = Σ_b w_b l_b / Σ_b w_b,  as a map v -> H v. Made by ``hessian``.

    ``names`` of the parameters in flat order, tied ones once; ``unused`` those on which the loss
    does not depend (zero blocks); ``loss`` and ``gradient`` (dim,) at this point; ``batches`` their
    number; ``shared`` whether their graphs are kept between products.
    """

    problem: Problem = field(repr=False)
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
    def dim(self) -> int:
        return self.problem.parameters.dim

    @property
    def shape(self) -> tuple[int, int]:
        return self.dim, self.dim

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
            f"Hessian(dim={self.dim}, parameters={len(self.names)}, batches={self.batches}, "
            f"loss={name}, dtype={str(self.dtype).removeprefix('torch.')}, device={self.device})"
        )

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """H times (dim,) or (dim, k)."""
        if vectors.ndim == 1:
            return self.matmat(vectors[:, None])[:, 0]
        return self.matmat(vectors)

    def matmat(self, vectors: Tensor) -> Tensor:
        """H times the columns of ``vectors`` (dim, k); the same shape, columns contiguous.

        Every batch's graph serves all columns: kept from the construction, or built here once and
        dropped. Columns are looped over: ``is_grads_batched`` was slower wherever a product takes
        more than a millisecond, and needs the memory of k products.

        Raises NonFiniteError that names the batch and the parameter of the first NaN.
        """
        self._check(vectors)
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
                self._accumulate(out, rows, build_graph(loss), batch.index)
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
                f"a Hessian-vector product is not finite in batch {batch}, first in parameter "
                f"{parameters.name_of_entry(entry)!r}: the loss has no second derivative there "
                "(square root or norm at 0?) or overflows"
            )

    def _share(self, weight: float) -> float:
        return weight / self.total_weight if self.problem.is_mean else 1.0

    def _check(self, vectors: Tensor) -> None:
        if getattr(vectors, "dtype", None) is not self.dtype:
            given = getattr(vectors, "dtype", type(vectors).__name__)
            raise TypeError(f"vectors must be a torch tensor of dtype {self.dtype}, got {given}")
        if vectors.ndim != 2 or vectors.shape[0] != self.dim:
            raise ValueError(f"vectors must have shape ({self.dim}, k), got {tuple(vectors.shape)}")


def hessian(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    params: Selection = None,
    weight: Weight | None = None,
    memory: int | None = None,
) -> Hessian:
    """H v = ∂(g·v)/∂θ with g = ∂L/∂θ, exact, for any loss that torch can differentiate twice.

    ``model`` a torch module, taken in the train/eval mode it is in and left as it is; ``loss`` maps
    (output, *targets) to a scalar; ``data`` is one batch if it is a tuple whose first item is a
    tensor or a dict, else an iterable of batches that can be read again (see ``batches``).
    ``params``: None for all that require a gradient, names, or a predicate on the name.
    ``weight(batch)``: denominator of that batch's mean loss. It is inferred for torch's own losses
    (class weights, ignored labels and ``reduction="sum"`` included); any other loss is taken as a
    mean over samples, counted by the first dimension of the targets.
    ``memory``: bytes that kept graphs may take, by default a quarter of what is free. The graphs
    of several batches are kept if their estimated sum is below it, else rebuilt once a product.

    The operator is a snapshot of parameters, buffers and modes. BatchNorm in train mode makes L the
    mean of losses that each normalise over their own batch. Construction costs two gradients a
    batch: the repetition finds dropout and other randomness.

    Raises ValueError, TypeError, NonFiniteError or NonDeterministicError that say which batch,
    parameter or module is at fault. Warns if the loss is linear in the parameters (H = 0).

    Source: Pearlmutter, Neural Computation 6 (1994), 147-160; here as reverse over reverse.
    Reverse over forward, and torch.func.hessian too, are wrong through layer_norm and train-mode
    batch_norm in torch 2.13 (pytorch#196700).

    >>> model = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> hessian(model, nn.MSELoss(), (x, x[:, :1])) @ x[0]
    tensor([10., 20.], dtype=torch.float64)
    """
    with torch.inference_mode(False):  # the copies must be tensors that autograd accepts
        problem = _pose(model, loss, data, params, weight)
    with problem.isolated():
        found = Survey(problem)
        kept = repeat(problem, found, memory)
    if found.is_linear:
        warnings.warn(
            "the loss is linear in the chosen parameters, so its Hessian is zero; "
            "was another loss meant?",
            stacklevel=2,
        )
    totals = found.totals
    scale = 1 / totals.weight if problem.is_mean else 1.0
    return Hessian(
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
