"""The Gauss–Newton matrix of a network's loss as a linear map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rmthess.operators.curvature import Curvature, curvature
from rmthess.operators.jacobian import Sandwich
from rmthess.operators.output_hessian import output_hessian
from rmthess.operators.outputs import Outputs
from rmthess.operators.parameters import Selection
from rmthess.operators.problem import Evaluation, Weight


def linearise(evaluation: Evaluation) -> Sandwich:
    """One forward pass, from which every product takes J v and Jᵀu."""
    outputs = Outputs.of(evaluation)
    return Sandwich.of(outputs, *output_hessian(outputs))


def gauss_newton(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    params: Selection = None,
    weight: Weight | None = None,
    memory: int | None = None,
) -> Curvature:
    """G v = Jᵀ B J v with J = ∂f/∂θ and B = ∂²l/∂f², f the outputs of the model.

    The Hessian is H = G + Σ_i ∂l/∂f_i ∂²f_i/∂θ²; ``residual_hessian`` is the second term. G depends
    on where the model ends and the loss begins: a model that ends in log-softmax has f = log p, and
    ``NLLLoss`` is linear in it, so that G = 0 and all curvature is in the second term.

    Arguments, errors and warnings as for ``hessian``. ``model`` may return tuples, lists or dicts
    of tensors. B is exact and as large as f: softmax cross-entropy in closed form (class weights,
    ignored labels, smoothing, class probabilities, further dimensions), torch's elementwise losses
    as a diagonal, any other loss by differentiating it twice in f. G is positive semidefinite where
    the loss is convex in f; for other losses it is as indefinite as B.

    Source: Schraudolph, Neural Computation 14 (2002), 1723-1738. J v is the transpose of a
    transpose (double backward), so that its forward pass is shared by all products.

    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> gauss_newton(model, nn.MSELoss(), (x, x[:, :1])) @ x[0]
    tensor([10., 20.], dtype=torch.float64)
    """
    return curvature(
        "GaussNewton",
        linearise,
        model,
        loss,
        data,
        params=params,
        weight=weight,
        memory=memory,
        zero_if="the loss is linear in the outputs of the model (computed inside it?), so that all "
        "curvature is in the residual Hessian; let the model end, and the loss begin, earlier",
    )
