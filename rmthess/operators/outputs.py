"""The outputs of a model as tensors, and the loss as a function of them alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from rmthess.operators.problem import Evaluation


@dataclass(frozen=True, eq=False)
class Outputs:
    """The output tensors f_1, ..., f_k that depend on the parameters.

    Found in tensors, tuples, lists, dicts, named tuples and whatever is registered with torch's
    pytree (Hugging Face's ModelOutput is). Other leaves, integer tensors too, are constants.
    """

    evaluation: Evaluation
    tensors: list[Tensor]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Outputs:
        """Raise TypeError where no differentiable tensor is found, or a complex one is."""
        found, _ = tree_flatten(evaluation.outputs)
        tensors = [x for x in found if isinstance(x, Tensor) and x.requires_grad]
        batch = evaluation.batch.index
        if not tensors:
            raise TypeError(
                f"batch {batch}: no tensor that depends on the chosen parameters was found in the "
                f"model's output, a {type(evaluation.outputs).__name__}; let the model return a "
                "tensor, or a tuple, list or dict of tensors"
            )
        if any(x.is_complex() for x in tensors):
            raise TypeError(
                f"batch {batch}: the model's output is complex; return torch.view_as_real of it"
            )
        return cls(evaluation, tensors)

    @property
    def single(self) -> Tensor:
        """The only output of a model whose loss is one of torch's own."""
        (tensor,) = self.tensors
        return tensor

    def loss_at(self, values: list[Tensor]) -> Tensor:
        """The loss of these values in place of the outputs."""
        found, layout = tree_flatten(self.evaluation.outputs)
        rest = iter(values)
        replaced = [next(rest) if isinstance(x, Tensor) and x.requires_grad else x for x in found]
        outputs = tree_unflatten(replaced, layout)
        loss: Tensor = self.evaluation.problem.loss(outputs, *self.evaluation.batch.targets)
        return loss.reshape(())

    def residual(self, *, differentiable: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        """f as fresh leaves, and r = ∂l/∂f there, zero where l does not depend on f_j.

        Every f_j is a variable of its own, also where the model computes one from another.
        ``differentiable``: r is a graph on those leaves.

        Raises TypeError where the loss reaches the parameters by another way than the outputs.
        """
        values = [tensor.detach().requires_grad_() for tensor in self.tensors]
        loss = self.loss_at(values)
        if not loss.requires_grad:
            return values, [torch.zeros_like(v) for v in values]
        found = torch.autograd.grad(
            loss,
            [*values, *self.evaluation.leaves],
            create_graph=differentiable,
            allow_unused=True,
        )
        if any(g is not None for g in found[len(values) :]):
            raise TypeError(
                f"batch {self.evaluation.batch.index}: the loss uses tensors inside the model's "
                f"output, a {type(self.evaluation.outputs).__name__}, that cannot be taken out of "
                "it; let the model return a tensor, or a tuple, list or dict of tensors"
            )
        pairs = zip(values, found[: len(values)], strict=True)
        return values, [torch.zeros_like(v) if g is None else g for v, g in pairs]
