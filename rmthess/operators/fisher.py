"""Fisher matrices of a network's loss as linear maps: exact, by drawn labels, by the data's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rmthess.operators.curvature import Curvature, curvature
from rmthess.operators.errors import NonDeterministicError
from rmthess.operators.jacobian import OutputMap, Sandwich
from rmthess.operators.noise import uniforms
from rmthess.operators.output_hessian import Diagonal, output_hessian
from rmthess.operators.outputs import Outputs
from rmthess.operators.parameters import Selection
from rmthess.operators.problem import Evaluation, Weight
from rmthess.operators.scores import ClassScores, Scores, check_rows
from rmthess.operators.weights import Reduction, class_axis

Estimate = Literal["exact", "monte_carlo", "empirical"]

_LIKELIHOODS = {
    "cross_entropy": "categorical",
    "nll_loss": "categorical",
    "mse_loss": "gaussian",
    "binary_cross_entropy_with_logits": "bernoulli",
}


def exact(evaluation: Evaluation) -> Sandwich:
    """B = E[s sᵀ] in closed form; where f are natural parameters it is the Hessian of the loss."""
    outputs, known = Outputs.of(evaluation), _likelihood(evaluation)
    if known.name == "nll_loss":
        residual = outputs.residual()[1]
        p, masses, axis = _classes(outputs, known)
        return Sandwich.of(outputs, Diagonal(p * masses.unsqueeze(axis)), residual)
    return Sandwich.of(outputs, *output_hessian(outputs))


def empirical(evaluation: Evaluation) -> Sandwich:
    """B = Σ s sᵀ with the data's labels: r of the weighted mean is κ s, so that B = r rᵀ/κ."""
    outputs, known = Outputs.of(evaluation), evaluation.known
    residual = outputs.residual()[1]
    if known is not None and known.kind == "classes":
        (target,), (r,) = evaluation.batch.targets, residual
        axis = class_axis(r)
        kappa = known.masses(r, target).unsqueeze(axis)
        score = torch.where(kappa > 0, r / kappa.sqrt(), 0)
        return Sandwich.of(outputs, Scores([score[None]], axis), residual)
    check_rows(outputs)
    denominator = evaluation.weight
    if known is not None:
        denominator = known.denominator(outputs.single, evaluation.batch.targets[0])
    return Sandwich.of(outputs, Scores([r[None] * denominator**0.5 for r in residual]), residual)


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """B = 1/k Σ s sᵀ over k labels drawn from the model's own distribution.

    ``seen``: a number for each batch's outputs and their order, to notice data that come in another
    order, because a label belongs to a place in the data.
    """

    samples: int
    seed: int
    seen: dict[int, float] = field(default_factory=dict)

    def __call__(self, evaluation: Evaluation) -> Sandwich:
        outputs, known = Outputs.of(evaluation), _likelihood(evaluation)
        self._check_order(outputs)
        middle: OutputMap
        if _LIKELIHOODS[known.name] == "categorical":
            middle = self._drawn_classes(outputs, known)
        else:
            middle = self._drawn_elements(outputs, known)
        return Sandwich.of(outputs, middle, outputs.residual()[1])

    def _drawn_classes(self, outputs: Outputs, known: Reduction) -> OutputMap:
        """Labels by the inverse of each position's cdf."""
        p, masses, axis = _classes(outputs, known)
        rows = p.movedim(axis, -1)
        cdf = rows.reshape(len(p) if p.ndim > 1 else 1, -1, rows.shape[-1]).cumsum(-1)
        u = self._uniforms(outputs, cdf.shape[1]).to(cdf.dtype).movedim(1, 2)
        labels = torch.searchsorted(cdf, (u * cdf[..., -1:]).contiguous(), right=True)
        labels = labels.clamp_(max=rows.shape[-1] - 1)  # u rounds to 1 in float32
        labels = labels.view(*rows.shape[:-1], self.samples).movedim(-1, axis)
        if known.name == "cross_entropy":
            return ClassScores(p, masses, labels, axis)
        share = masses.unsqueeze(axis) / self.samples  # f = log p has the score e_s
        return Diagonal(torch.zeros_like(p).scatter_add_(axis, labels, share.expand(labels.shape)))

    def _drawn_elements(self, outputs: Outputs, known: Reduction) -> OutputMap:
        """s = sqrt(h) ∘ z, h the exact variance of the scores and z one of unit variance."""
        check_rows(outputs)
        f = outputs.single.detach()
        middle, _ = output_hessian(outputs)
        assert isinstance(middle, Diagonal)
        u = self._uniforms(outputs, f[0].numel()).movedim(1, 0).reshape(self.samples, *f.shape)
        if _LIKELIHOODS[known.name] == "gaussian":
            z = torch.special.ndtri(u)
        else:
            wide = f.to(torch.float64)
            z = torch.where(u < wide.sigmoid(), -(-wide / 2).exp(), (wide / 2).exp())
        return Scores([(middle.entries / self.samples).sqrt() * z.to(f.dtype)])

    def _uniforms(self, outputs: Outputs, entries: int) -> Tensor:
        batch, f = outputs.evaluation.batch, outputs.single
        samples = f.shape[0] if f.ndim > 1 or batch.samples == f.numel() else 1
        drawn = uniforms(self.seed, batch.start, (samples, self.samples, entries))
        return torch.from_numpy(drawn).to(f.device)

    def _check_order(self, outputs: Outputs) -> None:
        batch, f = outputs.evaluation.batch, outputs.single.detach()
        means = f.reshape(len(f), -1).mean(1, dtype=torch.float64)
        places = torch.from_numpy(uniforms(self.seed, 0, (len(f), 1, 1))).to(f.device).view(-1)
        found, scale = float(places @ means), float(means.norm())
        before = self.seen.setdefault(batch.index, found)
        if abs(found - before) > torch.finfo(f.dtype).eps ** 0.5 * scale:
            raise NonDeterministicError(
                f"batch {batch.index} holds other samples than before, or the same in another "
                "order; a Monte Carlo Fisher matrix draws one label for each place in the data, so "
                "pass shuffle=False"
            )


def fisher(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    estimate: Estimate = "exact",
    samples: int = 1,
    seed: int = 0,
    params: Selection = None,
    weight: Weight | None = None,
    memory: int | None = None,
) -> Curvature:
    """F v = Σ_i κ_i J_iᵀ E[s sᵀ] J_i v, s = -∂ log p(y|f_i)/∂f_i, κ_i the share of term i in L.

    The loss is read as - log p(y|f): cross-entropy and NLLLoss (f = log p) as a categorical label
    at every position, so a token is a sample of its own; BCEWithLogitsLoss as a Bernoulli, and
    MSELoss as a Gaussian variable of variance 1/2, for every element. Class weights, ignored labels
    and the mean weigh the terms as the data's labels say.

    ``estimate``: "exact" takes E over p(y|f), which for the natural parameters of these families
    is the Gauss–Newton matrix; "monte_carlo" averages over ``samples`` labels drawn from p(y|f),
    each a function of ``seed`` and of its place in the data, whatever the batches; "empirical"
    takes the data's labels. It is no estimate of the others, even with infinite data, unless the
    model is true (Kunstner, Balles & Hennig, NeurIPS 2019). It exists for every loss that is a sum
    over samples: one is a position for the categorical losses, for all others an entry of dimension
    0 with the loss's other weights as part of it. Gradients of single samples are never formed.

    Arguments, errors and warnings otherwise as for ``gauss_newton``. Raises ValueError for a loss
    whose likelihood is not known, or that does not split into samples, and NonDeterministicError
    for data whose order changes where labels are drawn.

    >>> model = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> fisher(model, nn.MSELoss(), (x, x[:, :1])) @ x[0]
    tensor([10., 20.], dtype=torch.float64)
    """
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a positive integer, got {samples!r}")
    named: dict[str, tuple[str, Callable[[Evaluation], Sandwich]]] = {
        "exact": ("Fisher", exact),
        "monte_carlo": ("MonteCarloFisher", MonteCarlo(samples, seed)),
        "empirical": ("EmpiricalFisher", empirical),
    }
    if estimate not in named:
        raise ValueError(f"estimate must be one of {sorted(named)}, got {estimate!r}")
    kind, linearise = named[estimate]
    return curvature(
        kind,
        linearise,
        model,
        loss,
        data,
        params=params,
        weight=weight,
        memory=memory,
        zero_if="every score ∂l/∂f is zero: the likelihood is saturated, or fits the data exactly",
    )


def _likelihood(evaluation: Evaluation) -> Reduction:
    known = evaluation.known
    if known is None or known.name not in _LIKELIHOODS:
        raise ValueError(
            f"the likelihood p(y|f) behind {evaluation.problem.loss!r} is not known, only that of "
            f"torch's {', '.join(_LIKELIHOODS)} of one output and one target; use one of these, "
            'gauss_newton, or estimate="empirical"'
        )
    return known


def _classes(outputs: Outputs, known: Reduction) -> tuple[Tensor, Tensor, int]:
    """Probabilities, the weights of the positions in the loss, and the axis of the classes."""
    f, (target,) = outputs.single.detach(), outputs.evaluation.batch.targets
    axis, masses = class_axis(f), known.masses(f, target)
    wide = f.to(masses.dtype)
    return wide.exp() if known.name == "nll_loss" else wide.softmax(axis), masses, axis
