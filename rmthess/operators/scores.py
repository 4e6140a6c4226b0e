"""Outer products of score vectors in output space: B = Σ z zᵀ, never formed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rmthess.operators.outputs import Outputs


@dataclass(frozen=True, eq=False)
class Scores:
    """B u = Σ_k z_k (z_k·u), sample by sample.

    ``vectors``: for every output f a tensor (draws, *f.shape). ``axis`` of f that one vector runs
    over, the others counting vectors; None for all but the first, over all outputs together.
    """

    vectors: list[Tensor]
    axis: int | None = None

    @property
    def is_zero(self) -> bool:
        return not any(bool(z.any()) for z in self.vectors)

    def product(self, tangents: list[Tensor]) -> list[Tensor]:
        if self.axis is not None:
            (z,), (u,) = self.vectors, tangents
            along = (z * u).sum(1 + self.axis, keepdim=True)
            return [(z * along).sum(0).to(u.dtype)]
        pairs = list(zip(self.vectors, tangents, strict=True))
        dots = torch.stack([(z * u).reshape(*z.shape[:2], -1).sum(2) for z, u in pairs]).sum(0)
        return [
            (z * dots.view(dots.shape + (1,) * (u.ndim - 1))).sum(0).to(u.dtype) for z, u in pairs
        ]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """B u = κ/k Σ_s (p - e_s)((p - e_s)·u) over k drawn labels s of each position.

    ``labels`` as p with k instead of the classes along ``axis``; ``masses`` κ without that axis.
    No vector of scores is kept, so that k costs nothing of the size of the outputs.
    """

    probabilities: Tensor
    masses: Tensor
    labels: Tensor
    axis: int

    @property
    def is_zero(self) -> bool:
        return not bool(self.masses.any())

    def product(self, tangents: list[Tensor]) -> list[Tensor]:
        (u,) = tangents
        p = self.probabilities
        wide = u.to(p.dtype)
        along = (p * wide).sum(self.axis, keepdim=True) - wide.gather(self.axis, self.labels)
        along = along * (self.masses.unsqueeze(self.axis) / self.labels.shape[self.axis])
        found = p * along.sum(self.axis, keepdim=True)
        return [found.scatter_add_(self.axis, self.labels, -along).to(u.dtype)]


def check_rows(outputs: Outputs) -> None:
    """Raise ValueError unless the outputs and the loss split into samples along dimension 0."""
    batch = outputs.evaluation.batch
    shapes = [tuple(f.shape) for f in outputs.tensors]
    if any(shape[:1] != (batch.samples,) for shape in shapes):
        raise ValueError(
            f"batch {batch.index}: outputs of shapes {shapes} do not split into its "
            f"{batch.samples} samples, so there are no gradients of single samples; the first "
            "dimension of outputs and targets must count samples"
        )
    if outputs.evaluation.known is None and batch.samples > 1:
        _check_separable(outputs)


def _check_separable(outputs: Outputs) -> None:
    """Halve the outputs of the later samples: ∂l/∂f of the earlier ones must stay."""
    batch, half = outputs.evaluation.batch, outputs.evaluation.batch.samples // 2
    values, residual = outputs.residual()
    moved = [v.detach().clone() for v in values]
    for v in moved:
        v[half:] *= 0.5
        v.requires_grad_()
    loss = outputs.loss_at(moved)
    if not loss.requires_grad:
        return
    again = torch.autograd.grad(loss, moved, allow_unused=True, materialize_grads=True)
    change = sum(float((a[:half] - r[:half]).norm()) for a, r in zip(again, residual, strict=True))
    size = sum(float(r.norm()) for r in residual)
    if not change <= torch.finfo(values[0].dtype).eps ** 0.5 * size:
        raise ValueError(
            f"batch {batch.index}: the loss couples its samples: ∂l/∂f of the first {half} changes "
            f"by {change / size if size else float('inf'):.1e} (relative) with the outputs of the "
            "others, so there are no gradients of single samples"
        )
