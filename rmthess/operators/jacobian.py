"""The Jacobian of a model's outputs, and the sandwiches JᵀBJ made with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from rmthess.operators.graph import Pieces
from rmthess.operators.outputs import Outputs


class OutputMap(Protocol):
    """A symmetric linear map B in the space of one batch's outputs, given by its products."""

    @property
    def is_zero(self) -> bool: ...

    def product(self, tangents: list[Tensor]) -> list[Tensor]: ...


@dataclass(frozen=True, eq=False)
class Jacobian:
    """J = ∂f/∂θ of one batch from one forward pass, for any number of products.

    ``outputs`` are the places of f in the graph, without the values. ``pulled`` is Jᵀu as a graph
    on ``cotangents`` u = 0. It is linear in u, so its transposed derivative is J itself, at any u.
    Compared with forward mode, the forward pass is not repeated.
    """

    outputs: list[GradientEdge]
    leaves: list[Tensor]
    cotangents: list[Tensor]
    pulled: Pieces

    @classmethod
    def of(cls, outputs: Outputs) -> Jacobian:
        leaves = outputs.evaluation.leaves
        # A single zero, spread over the shape: no memory as large as the outputs.
        cotangents = [f.new_zeros(()).expand(f.shape).requires_grad_() for f in outputs.tensors]
        pulled: Pieces = torch.autograd.grad(
            outputs.tensors, leaves, cotangents, create_graph=True, allow_unused=True
        )
        places = [get_gradient_edge(f) for f in outputs.tensors]
        return cls(places, leaves, cotangents, pulled)

    def push(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """J v in the shapes of the outputs."""
        live = [(w, v) for w, v in zip(self.pulled, pieces, strict=True) if w is not None]
        found = torch.autograd.grad(
            [w for w, _ in live],
            self.cotangents,
            [v for _, v in live],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return list(found)

    def pull(self, cotangents: list[Tensor]) -> Pieces:
        """Jᵀ u in the shapes of the parameters."""
        found: Pieces = torch.autograd.grad(
            self.outputs, self.leaves, cotangents, retain_graph=True, allow_unused=True
        )
        return found


@dataclass(frozen=True, eq=False)
class Sandwich:
    """One batch of JᵀBJ; ``residual`` is ∂l/∂f, of which the gradient is made when asked for."""

    jacobian: Jacobian
    middle: OutputMap
    residual: list[Tensor]
    weight: float

    @classmethod
    def of(cls, outputs: Outputs, middle: OutputMap, residual: list[Tensor]) -> Sandwich:
        return cls(Jacobian.of(outputs), middle, residual, outputs.evaluation.weight)

    @property
    def gradient(self) -> Pieces:
        return self.jacobian.pull(self.residual)

    @property
    def is_zero(self) -> bool:
        return self.middle.is_zero

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        return self.jacobian.pull(self.middle.product(self.jacobian.push(pieces)))
