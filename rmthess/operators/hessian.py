"""The Hessian of a network's loss as a linear map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmthess.operators.curvature import Curvature, curvature
from rmthess.operators.graph import Pieces
from rmthess.operators.hand_written import check_hand_written
from rmthess.operators.parameters import Selection
from rmthess.operators.problem import Evaluation, Weight


@dataclass(frozen=True, eq=False)
class HessianGraph:
    """g = ∂l/∂θ as a graph on ``leaves``; an entry is None where l does not depend on that leaf."""

    gradient: Pieces
    leaves: list[Tensor]
    weight: float

    @property
    def is_zero(self) -> bool:
        """Whether l is linear in the parameters: then g has no graph."""
        return not any(g is not None and g.requires_grad for g in self.gradient)

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        """H v = ∂(g·v)/∂θ."""
        live = [i for i, g in enumerate(self.gradient) if g is not None and g.requires_grad]
        if not live:
            return [None] * len(self.leaves)
        found: Pieces = torch.autograd.grad(
            [g for g in self.gradient if g is not None and g.requires_grad],
            self.leaves,
            [pieces[i] for i in live],
            retain_graph=True,
            allow_unused=True,
        )
        return found


def differentiate(evaluation: Evaluation) -> HessianGraph:
    """Differentiate once and keep what a second differentiation needs."""
    found = torch.autograd.grad(
        evaluation.value, evaluation.leaves, create_graph=True, allow_unused=True
    )
    return HessianGraph(found, evaluation.leaves, evaluation.weight)


def hessian(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    params: Selection = None,
    weight: Weight | None = None,
    memory: int | None = None,
    backend: str | None = None,
) -> Curvature:
    """H v = ∂(g·v)/∂θ with g = ∂L/∂θ, exact, for any loss that torch can differentiate twice.

    ``model`` a torch module, taken in the train/eval mode it is in and left as it is; ``loss`` maps
    (output, *targets) to a scalar; ``data`` is one batch if it is a tuple whose first item is a
    tensor or a dict, else an iterable of batches that can be read again (see ``batches``).
    ``params``: None for all that require a gradient, names, or a predicate on the name.
    ``weight(batch)``: denominator of that batch's mean loss. It is inferred for torch's own losses
    (class weights, ignored labels and ``reduction="sum"`` included); any other loss is taken as a
    mean over samples, counted by the first dimension of the targets.
    ``memory``: bytes that kept graphs may take, by default a quarter of what is free. The graphs
    of several batches are kept if their estimated sum is below it, else rebuilt once a product, and
    serve all columns of it.
    ``backend``: how products are computed. "shared" differentiates the kept gradient, reverse over
    reverse; "recorded" writes that down once and repeats what depends on v, or, where graphs are
    not kept, what depends on the batch or on v, without running the model again; "compiled" is the
    first of these through ``torch.compile``; "linearized" records forward over reverse; "batched"
    is "shared" for all columns at once. All are exact and agree to rounding. None is "shared",
    until ``lanczos`` finds that a run will take more than two seconds and tries, in about six
    products, whether "recorded", or on a GPU "batched", is faster: the clock may then decide on the
    last bits. What is chosen was compared with "shared" over all data. A model that acts on its
    data otherwise than by operations on tensors (``item``, shapes that depend on values) is not
    recorded. A backend that is given is never changed.

    The operator is a snapshot of parameters, buffers and modes. BatchNorm in train mode makes L the
    mean of losses that each normalise over their own batch. Construction costs two gradients a
    batch: the repetition finds dropout and other randomness.

    Raises ValueError, TypeError, NonFiniteError or NonDeterministicError that say which batch,
    parameter or module is at fault, or why ``backend`` cannot be used. Warns if the loss is linear
    in the parameters (H = 0).

    Source: Pearlmutter, Neural Computation 6 (1994), 147-160; here as reverse over reverse.
    Reverse over forward, and torch.func.hessian too, are wrong through layer_norm and train-mode
    batch_norm in torch 2.13 (pytorch#196700).

    >>> model = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> hessian(model, nn.MSELoss(), (x, x[:, :1])) @ x[0]
    tensor([10., 20.], dtype=torch.float64)
    """
    found = curvature(
        "Hessian",
        differentiate,
        model,
        loss,
        data,
        params=params,
        weight=weight,
        memory=memory,
        backend=backend,
        of_the_loss=True,
    )
    if found.hand_written:
        check_hand_written(found)
    return found
