"""The covariance of single-sample gradients, the matrix of mini-batch noise, as a linear map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rmthess.operators.curvature import curvature
from rmthess.operators.jacobian import Sandwich
from rmthess.operators.low_rank import LowRank
from rmthess.operators.operator import Operator
from rmthess.operators.outputs import Outputs
from rmthess.operators.parameters import Selection
from rmthess.operators.problem import Evaluation, Weight
from rmthess.operators.scores import Scores, check_rows


def linearise(evaluation: Evaluation) -> Sandwich:
    """B = w r rᵀ: its weighted mean over batches is W Σ (w/W)² g gᵀ over samples."""
    outputs = Outputs.of(evaluation)
    check_rows(outputs)
    residual = outputs.residual()[1]
    scale = evaluation.weight**0.5 if evaluation.problem.is_mean else 1.0
    return Sandwich.of(outputs, Scores([r[None] * scale for r in residual]), residual)


def gradient_covariance(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    params: Selection = None,
    weight: Weight | None = None,
    memory: int | None = None,
) -> Operator:
    """C v = 1/N Σ_i g_i (g_i·v) - g (g·v), with g_i = N × sample i's part of g = ∂L/∂θ.

    So g is the mean of the g_i, and C/B is the covariance of the gradient of a mini-batch of B
    samples drawn with replacement. For a plain mean g_i is the gradient of sample i's own loss; for
    a sum it is N times that; with class weights, ignored labels or ``weight`` the denominators are
    those of all data. A sample is an entry of dimension 0 of outputs and targets: a whole sequence,
    not a token. The divisor is N, not N - 1. Gradients of single samples are never formed.

    Arguments, errors and warnings as for ``gauss_newton``; the loss may be any that is a sum over
    samples. BatchNorm in train mode couples samples inside the model: g_i is then what reaches the
    parameters by way of output i.

    Raises ValueError where outputs, or the loss, do not split into samples.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False)
    >>> x = torch.tensor([[1.0], [4.0]])  # the gradients of the samples: of variance 1.5²
    >>> gradient_covariance(model, lambda f, y: f.mean(), (x, x)) @ torch.ones(1)
    tensor([2.2500])
    """
    moment = curvature(
        "GradientMoment",
        linearise,
        model,
        loss,
        data,
        params=params,
        weight=weight,
        memory=memory,
        zero_if="every residual ∂l/∂f is zero: the model fits the data exactly",
    )
    denominator = moment.total_weight if moment.problem.is_mean else 1.0
    return (moment.samples / denominator) * moment - LowRank(moment.gradient, [1.0])
