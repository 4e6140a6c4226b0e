"""How a loss adds up over batches: the denominator of its mean.

A mean loss over all data is  L = Σ_b w_b l_b / Σ_b w_b  with w_b what batch b's mean divided by:
samples, elements, tokens that are not ignored, or the sum of their class weights. A sum is Σ_b l_b.
The denominators are those of torch's documentation of each loss.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["classes", "elements", "divergence"]

_MODULES: dict[type[nn.Module], Kind] = {
    nn.CrossEntropyLoss: "classes",
    nn.NLLLoss: "classes",
    nn.MSELoss: "elements",
    nn.L1Loss: "elements",
    nn.SmoothL1Loss: "elements",
    nn.HuberLoss: "elements",
    nn.BCELoss: "elements",
    nn.BCEWithLogitsLoss: "elements",
    nn.SoftMarginLoss: "elements",
    nn.PoissonNLLLoss: "elements",
    nn.KLDivLoss: "divergence",
}
_FUNCTIONS: dict[Any, Kind] = {
    functional.cross_entropy: "classes",
    functional.nll_loss: "classes",
    functional.mse_loss: "elements",
    functional.l1_loss: "elements",
    functional.smooth_l1_loss: "elements",
    functional.huber_loss: "elements",
    functional.binary_cross_entropy: "elements",
    functional.binary_cross_entropy_with_logits: "elements",
    functional.soft_margin_loss: "elements",
    functional.poisson_nll_loss: "elements",
    functional.kl_div: "divergence",
}


@dataclass(frozen=True, eq=False)
class Reduction:
    """What is known of one of torch's own losses."""

    kind: Kind
    reduction: str
    class_weights: Tensor | None = None
    ignored: int = -100

    @property
    def is_sum(self) -> bool:
        return self.reduction == "sum"

    def denominator(self, outputs: Tensor, target: Tensor) -> float:
        """What the mean over this batch divides by; 1 for a sum."""
        if self.is_sum:
            return 1.0
        if self.reduction == "batchmean":
            return float(outputs.shape[0])
        if self.kind != "classes":
            return float(torch.broadcast_shapes(outputs.shape, target.shape).numel())
        if target.is_floating_point():  # class probabilities: torch divides by N, weights or not
            return outputs.numel() / _classes(outputs)
        kept = target[target != self.ignored]
        if self.class_weights is None:
            return float(kept.numel())
        return float(self.class_weights.to(kept.device)[kept].sum(dtype=torch.float64))

    def check_labels(self, batch: int, outputs: Tensor, target: Tensor) -> None:
        """Raise before a kernel does: on a GPU an assertion there ends the whole process."""
        if self.kind != "classes" or target.is_floating_point():
            return
        classes, kept = _classes(outputs), target[target != self.ignored]
        if kept.numel() == 0:
            return
        low, high = int(kept.min()), int(kept.max())
        if low < 0 or high >= classes:
            wrong = f"the largest label is {high}" if high >= classes else f"a label is {low}"
            raise ValueError(
                f"batch {batch}: {wrong}, but the model has {classes} outputs, so labels are "
                f"0..{classes - 1} (ignore_index is {self.ignored})"
            )


def infer(loss: Callable[..., Any]) -> Reduction | None:
    """The reduction of ``loss`` if it is one of torch's own (module, function or partial of one).

    >>> infer(nn.MSELoss(reduction="sum")).is_sum
    True
    >>> infer(lambda output, target: output.mean()) is None
    True
    """
    if isinstance(loss, nn.Module):
        for family, kind in _MODULES.items():
            # A subclass with its own forward may divide by anything.
            if isinstance(loss, family) and type(loss).forward is family.forward:
                return _reduction(kind, vars(loss) | dict(loss.named_buffers(recurse=False)))
        return None
    settings: dict[str, Any] = {}
    function: Any = loss
    if isinstance(loss, functools.partial):
        function, settings = loss.func, dict(loss.keywords)
        if loss.args or {"size_average", "reduce"} & settings.keys():
            return None
    try:
        known = _FUNCTIONS.get(function)
    except TypeError:  # not hashable
        return None
    if known == "elements" and function in _WEIGHTED_MEANS and "weight" in settings:
        return None
    return None if known is None else _reduction(known, settings)


# These divide by the sum of ``weight`` where it is given.
_WEIGHTED_MEANS = {functional.mse_loss, functional.l1_loss, functional.huber_loss}


def _reduction(kind: Kind, settings: dict[str, Any]) -> Reduction:
    by_class = kind == "classes"
    found = Reduction(
        kind=kind,
        reduction=str(settings.get("reduction", "mean")),
        class_weights=settings.get("weight") if by_class else None,
        ignored=int(settings.get("ignore_index", -100)),
    )
    if found.reduction == "none":
        raise ValueError(
            'the loss has reduction="none", so it is not a scalar; use "mean" or "sum"'
        )
    return found


def _classes(outputs: Tensor) -> int:
    return int(outputs.shape[1] if outputs.ndim > 1 else outputs.shape[0])
