"""B = ∂²l/∂f², the Hessian of a loss in its model's outputs: never larger than the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rmthess.operators.jacobian import OutputMap
from rmthess.operators.outputs import Outputs
from rmthess.operators.weights import class_axis


@dataclass(frozen=True, eq=False)
class Diagonal:
    """B u = h ∘ u, for a loss that is a sum over the elements of its only output."""

    entries: Tensor

    @property
    def is_zero(self) -> bool:
        return not bool(self.entries.any())

    def product(self, tangents: list[Tensor]) -> list[Tensor]:
        (u,) = tangents
        return [(self.entries * u).to(u.dtype)]


@dataclass(frozen=True, eq=False)
class Softmax:
    """B u = κ p ∘ (u - p·u), the cross-entropy of p = softmax(f) being - Σ_c t_c log p_c.

    κ = Σ_c t_c (``masses``): class weights, smoothing, ignored labels and the mean are in it.
    """

    probabilities: Tensor
    masses: Tensor
    axis: int

    @property
    def is_zero(self) -> bool:
        return not bool(self.masses.any())

    def product(self, tangents: list[Tensor]) -> list[Tensor]:
        (u,) = tangents
        p, kappa = self.probabilities, self.masses.unsqueeze(self.axis)
        mean = (p * u).sum(self.axis, keepdim=True)
        return [(u - mean).mul_(p).mul_(kappa).to(u.dtype)]


@dataclass(frozen=True, eq=False)
class Differentiated:
    """B u = ∂(r·u)/∂f with the residual r = ∂l/∂f as a graph on ``values`` of f."""

    values: list[Tensor]
    residual: list[Tensor]

    @property
    def is_zero(self) -> bool:
        return not any(r.requires_grad for r in self.residual)

    def product(self, tangents: list[Tensor]) -> list[Tensor]:
        live = [(r, u) for r, u in zip(self.residual, tangents, strict=True) if r.requires_grad]
        if not live:
            return [torch.zeros_like(u) for u in tangents]
        found = torch.autograd.grad(
            [r for r, _ in live],
            self.values,
            [u for _, u in live],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return list(found)


def output_hessian(outputs: Outputs) -> tuple[OutputMap, list[Tensor]]:
    """B and the residual r = ∂l/∂f, in closed form where the loss is one of torch's own."""
    known = outputs.evaluation.known
    if known is None:
        values, residual = outputs.residual(differentiable=True)
        return Differentiated(values, residual), [r.detach() for r in residual]
    if known.name == "cross_entropy":
        f, (target,) = outputs.single.detach(), outputs.evaluation.batch.targets
        axis = class_axis(f)
        masses = known.masses(f, target)
        return Softmax(torch.softmax(f, axis, masses.dtype), masses, axis), outputs.residual()[1]
    # The other losses of torch are sums over elements, so B is diagonal: B 1 is all of it.
    values, residual = outputs.residual(differentiable=True)
    ones = [torch.ones_like(value) for value in values]
    (entries,) = Differentiated(values, residual).product(ones)
    return Diagonal(entries), [r.detach() for r in residual]
