"""A loss at one point: the model, its copied parameters and the data, evaluated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmthess.operators.batches import Batch, Batches
from rmthess.operators.convolution import Convolutions
from rmthess.operators.errors import NonFiniteError
from rmthess.operators.isolation import eager, untouched
from rmthess.operators.parameters import Parameters
from rmthess.operators.weights import Reduction

Weight = Callable[[Any], float]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One batch's loss ``value``, a scalar with a graph down to ``leaves`` by way of ``outputs``.

    ``weight``: its weight in the total; ``known``: the reduction where the loss is one of torch's
    own of one tensor and one target; ``problem`` and ``batch`` it is of.
    """

    value: Tensor
    outputs: Any
    leaves: list[Tensor]
    weight: float
    known: Reduction | None
    batch: Batch
    problem: Problem


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything an operator needs to rebuild a graph: a snapshot, except for the data.

    ``fixed`` holds the other parameters, ``buffers`` the buffers, ``modes`` train/eval of each
    module, all as they were at construction.
    """

    model: nn.Module
    loss: Callable[..., Any]
    batches: Batches
    parameters: Parameters
    fixed: dict[str, Tensor]
    buffers: dict[str, Tensor]
    modes: dict[str, bool]
    reduction: Reduction | None
    weight: Weight | None

    @property
    def is_mean(self) -> bool:
        """Whether the losses of batches are averaged with their weights, or added."""
        return self.weight is not None or self.reduction is None or not self.reduction.is_sum

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Restore the user's model, random states and switches on leaving."""
        with untouched(self.model, {v.device for v in self.parameters.values}):
            yield

    def evaluate(
        self, batch: Batch, leaves: list[Tensor] | None = None, weight: float | None = None
    ) -> Evaluation | None:
        """The loss of one batch at ``leaves``, by default fresh ones; None if it weighs nothing.

        ``weight``: of a batch that was evaluated before; no number is looked at then.
        """
        if leaves is None:
            leaves = [value.detach().requires_grad_() for value in self.parameters.values]
        state = dict(zip(self.parameters.names, leaves, strict=True)) | self.fixed
        # BatchNorm in train mode writes its running statistics: into these copies.
        state |= {name: buffer.clone() for name, buffer in self.buffers.items()}
        for name, module in self.model.named_modules():
            module.training = self.modes[name]
        try:
            with eager(), Convolutions():
                outputs = _call(self.model, state, batch.inputs)
            known = self._known(batch, outputs)
            is_new = weight is None
            if weight is None:
                weight = self.weigh(batch, outputs, known)
            if weight == 0:  # every label ignored: the mean would be 0/0
                return None
            with eager(), Convolutions():
                value = self.loss(outputs, *batch.targets)
        except Exception as error:
            error.add_note(f"while evaluating the loss of batch {batch.index}")
            raise
        value = _scalar(batch, value) if is_new else value.reshape(())
        return Evaluation(value, outputs, leaves, weight, known, batch, self)

    def _known(self, batch: Batch, outputs: Any) -> Reduction | None:
        tensors = [x for x in (outputs, *batch.targets) if isinstance(x, Tensor)]
        return self.reduction if len(tensors) == len(batch.targets) + 1 == 2 else None

    def weigh(self, batch: Batch, outputs: Any, known: Reduction | None) -> float:
        """The weight of a batch; of the ``outputs`` only the shape matters."""
        weight: float
        if known is not None:
            known.check_labels(batch.index, outputs, batch.targets[0])
        if self.weight is not None:
            weight = float(self.weight(batch.given))
        elif known is not None:
            weight = known.denominator(outputs, batch.targets[0])
        else:
            weight = float(batch.samples)
        if not 0 <= weight < float("inf"):
            raise ValueError(
                f"the weight of batch {batch.index} must be finite and not negative, got {weight}; "
                "it is the denominator of its mean loss"
            )
        return weight


def _call(model: nn.Module, state: dict[str, Tensor], inputs: Any) -> Any:
    args: tuple[Any, ...]
    args, kwargs = (inputs,), {}
    if isinstance(inputs, dict):
        args, kwargs = (), inputs
    elif isinstance(inputs, (tuple, list)):
        args = tuple(inputs)
    return torch.func.functional_call(model, state, args, kwargs)


def _scalar(batch: Batch, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"loss of batch {batch.index} must be a tensor, got {type(value).__name__}; "
            "return it without .item()"
        )
    if value.numel() != 1:
        raise ValueError(
            f"loss of batch {batch.index} must be a scalar, got shape {tuple(value.shape)}; "
            "take its mean or its sum"
        )
    if value.is_complex():
        raise TypeError(f"loss of batch {batch.index} must be real, got {value.dtype}")
    if not bool(torch.isfinite(value)):
        batch.check_finite()  # they may have become so after the first pass
        raise NonFiniteError(
            f"loss of batch {batch.index} is {float(value.detach())} although data and parameters "
            "are finite; look for log(0), overflow or a division by zero in the model or the loss"
        )
    if not value.requires_grad:
        raise ValueError(
            f"loss of batch {batch.index} has no graph: it does not depend on the chosen "
            "parameters, or was built under torch.no_grad(), .detach() or .item()"
        )
    return value.reshape(())
