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

_KINDS: dict[str, Kind] = {
    "cross_entropy": "classes",
    "nll_loss": "classes",
    "mse_loss": "elements",
    "l1_loss": "elements",
    "smooth_l1_loss": "elements",
    "huber_loss": "elements",
    "binary_cross_entropy": "elements",
    "binary_cross_entropy_with_logits": "elements",
    "soft_margin_loss": "elements",
    "poisson_nll_loss": "elements",
    "kl_div": "divergence",
}
_FUNCTIONS = {getattr(functional, name): name for name in _KINDS}
_MODULES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.MSELoss: "mse_loss",
    nn.L1Loss: "l1_loss",
    nn.SmoothL1Loss: "smooth_l1_loss",
    nn.HuberLoss: "huber_loss",
    nn.BCELoss: "binary_cross_entropy",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    nn.SoftMarginLoss: "soft_margin_loss",
    nn.PoissonNLLLoss: "poisson_nll_loss",
    nn.KLDivLoss: "kl_div",
}


@dataclass(frozen=True, eq=False)
class Reduction:
    """What is known of one of torch's own losses, called ``name`` in torch.nn.functional."""

    name: str
    reduction: str
    class_weights: Tensor | None = None
    ignored: int = -100
    smoothing: float = 0.0

    @property
    def kind(self) -> Kind:
        """What one term of the loss is: the label of a position, or an element of the outputs."""
        return _KINDS[self.name]

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
        return float(self._kept(target).sum(dtype=torch.float64))

    def _kept(self, target: Tensor) -> Tensor:
        """What each label weighs: 0 where it is ignored."""
        kept = target != self.ignored
        if self.class_weights is None:
            return kept
        return self.class_weights.to(target.device)[target.where(kept, 0)].where(kept, 0)

    def masses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Σ_c t_c of each position where the loss is - Σ_c t_c log p_c, divided like the mean.

        ``outputs`` (N, C, d1, ...) or (C,); returns what remains without C. t holds class weights,
        smoothing and ignored labels; its sum is how much a position weighs in the loss.
        """
        classes, dtype = _classes(outputs), torch.promote_types(outputs.dtype, torch.float32)
        weights = torch.ones(classes, dtype=dtype, device=outputs.device)
        if self.class_weights is not None:
            weights = self.class_weights.to(weights)
        smooth = self.smoothing / classes
        if target.is_floating_point():
            t = target.to(dtype) * (1 - self.smoothing) + smooth
            mass = torch.tensordot(t, weights, dims=([class_axis(outputs)], [0]))
        else:
            kept = target != self.ignored
            own = weights[target.where(kept, 0)]
            mass = ((1 - self.smoothing) * own + smooth * weights.sum()).where(kept, 0)
        share: Tensor
        if self.is_sum or target.is_floating_point():
            share = mass / self.denominator(outputs, target)
        else:  # the same without a number taken out
            share = mass / self._kept(target).sum(dtype=torch.float64)
        return share

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
        for family, name in _MODULES.items():
            # A subclass with its own forward may divide by anything.
            if isinstance(loss, family) and type(loss).forward is family.forward:
                return _reduction(name, vars(loss) | dict(loss.named_buffers(recurse=False)))
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
    if known in _WEIGHTED_MEANS and "weight" in settings:
        return None
    return None if known is None else _reduction(known, settings)


# These divide by the sum of ``weight`` where it is given.
_WEIGHTED_MEANS = {"mse_loss", "l1_loss", "huber_loss"}


def _reduction(name: str, settings: dict[str, Any]) -> Reduction:
    found = Reduction(
        name=name,
        reduction=str(settings.get("reduction", "mean")),
        class_weights=settings.get("weight") if _KINDS[name] == "classes" else None,
        ignored=int(settings.get("ignore_index", -100)),
        smoothing=float(settings.get("label_smoothing", 0.0)),
    )
    if found.reduction == "none":
        raise ValueError(
            'the loss has reduction="none", so it is not a scalar; use "mean" or "sum"'
        )
    return found


def class_axis(outputs: Tensor) -> int:
    """Where torch's classification losses keep the classes: (C,) or (N, C, d1, ...)."""
    return 1 if outputs.ndim > 1 else 0


def _classes(outputs: Tensor) -> int:
    return int(outputs.shape[class_axis(outputs)])
