"""Small networks of every kind, and the matrices of their losses built sample by sample."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

F64 = torch.float64
WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=F64)


# ---- models


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(2, 2)
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        z = self.lift(x.view(-1, 2, 2))
        z = z + self.attend(z, z, z, need_weights=False)[0]
        return self.head(self.norm(z).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("permutation", torch.tensor([2, 0, 3, 1]))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x[:, self.permutation])))[:, :3]


class Tokens(nn.Module):
    """Logits (N, C, T) of a language model."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, ids):
        z = self.embed(ids)
        return self.head(torch.tanh(z + z.cumsum(1))).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x):
        return self.lstm(x.view(-1, 2, 2))[0][:, -1]


class Spare(nn.Module):
    """A parameter that nothing uses, and one that is frozen."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))
        self.body = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
        self.body[0].bias.requires_grad_(False)

    def forward(self, x):
        return self.body(x)


class TwoHeads(nn.Module):
    """Keyword inputs and a dict of outputs, one of them computed from the other, one an integer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, left, right):
        hidden = torch.tanh(self.body(left * right))
        logits = self.head(hidden)
        return OrderedDict(hidden=hidden, logits=logits, guess=logits.argmax(1))


class Product(nn.Module):
    """Two positional inputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 3))

    def forward(self, left, right):
        return self.body(left * right)


def mlp(activation=nn.Tanh):
    return lambda: nn.Sequential(nn.Linear(4, 3), activation(), nn.Linear(3, 3))


def convolution(training):
    def make():
        return nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)),
            nn.Conv2d(1, 2, 2, padding=1),
            nn.BatchNorm2d(2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(18, 3),
        ).train(training)

    return make


# ---- data and losses; ``terms`` gives the losses ℓ of all terms and their weights ω:
# a batch's loss is Σ ωℓ / Σ ω, or Σ ωℓ for a sum


def draw(shape, seed=1):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def labels(shape, classes=3, seed=2):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


X, Y = draw((7, 4)), labels((7,))
SOFT = torch.softmax(draw((7, 3), 3), 1)
IDS = labels((5, 4), 5)
NEXT = labels((5, 4), 3, 5)
NEXT[0, 2:] = NEXT[3, 1:] = -100


def cross_entropy(outputs, y):
    return functional.cross_entropy(outputs, y, reduction="none"), (y >= 0).to(F64)


def weighted(outputs, y):
    return functional.cross_entropy(outputs, y, reduction="none"), WEIGHTS[y]


def elements(function):
    def terms(outputs, y):
        losses = function(outputs, y, reduction="none")
        return losses, torch.ones_like(losses)

    return terms


def two_heads(outputs, y):
    """Coupled through both heads, nonconvex, a mean over samples."""
    losses = functional.cross_entropy(outputs["logits"], y, reduction="none")
    losses = losses + outputs["hidden"].sin().prod(1) * outputs["logits"].sum(1)
    return losses, torch.ones_like(losses)


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    loss: Callable[..., Any]
    batches: list[Any]
    terms: Callable[..., Any]
    is_sum: bool = False
    likelihood: str | None = "categorical"


XY = [(X[:5], Y[:5]), (X[5:], Y[5:])]
CE = nn.CrossEntropyLoss()

CASES = {
    "mlp": Case(mlp(), CE, XY, cross_entropy),
    "relu, one batch": Case(mlp(nn.ReLU), CE, [(X, Y)], cross_entropy),
    "summed": Case(mlp(), nn.CrossEntropyLoss(reduction="sum"), XY, cross_entropy, is_sum=True),
    "class weights": Case(mlp(), nn.CrossEntropyLoss(weight=WEIGHTS), XY, weighted),
    "attention, layer norm": Case(Attention, CE, XY, cross_entropy),
    "batch norm, eval": Case(convolution(training=False), CE, XY, cross_entropy),
    "batch norm, train": Case(convolution(training=True), CE, XY, cross_entropy),
    "tied, integer buffer": Case(Tied, CE, XY, cross_entropy),
    "lstm": Case(Recurrent, CE, XY, cross_entropy),
    "unused, frozen": Case(Spare, CE, XY, cross_entropy),
    "tokens, padding": Case(Tokens, CE, [(IDS[:3], NEXT[:3]), (IDS[3:], NEXT[3:])], cross_entropy),
    "squared error": Case(
        mlp(),
        nn.MSELoss(),
        [(X[:5], SOFT[:5]), (X[5:], SOFT[5:])],
        elements(functional.mse_loss),
        likelihood="gaussian",
    ),
    "bernoulli": Case(
        mlp(),
        nn.BCEWithLogitsLoss(),
        [(X[:5], SOFT[:5]), (X[5:], SOFT[5:])],
        elements(functional.binary_cross_entropy_with_logits),
        likelihood="bernoulli",
    ),
    "tuple of inputs": Case(
        Product, CE, [((X[:5], X[:5]), Y[:5]), ((X[5:], X[5:]), Y[5:])], cross_entropy
    ),
    "dicts": Case(
        TwoHeads,
        lambda o, y: two_heads(o, y)[0].mean(),
        [({"left": X[:5], "right": X[:5]}, Y[:5]), ({"left": X[5:], "right": X[5:]}, Y[5:])],
        two_heads,
        likelihood=None,
    ),
}


# ---- witnesses: explicit Jacobians, one row of reverse mode at a time


def drawn_labels(likelihood, f, y):
    """(probability, targets, mask of one term): all labels, or the two-point rule of a Gaussian."""
    if likelihood == "categorical":
        p = torch.softmax(f, 1)
        for place in np.ndindex(y.shape):
            mask = torch.zeros(y.shape, dtype=F64)
            mask[place] = 1
            for label in range(f.shape[1]):
                probability = p.movedim(1, -1)[place][label]
                yield probability, torch.full_like(y, label), mask
        return
    for place in np.ndindex(f.shape):
        mask = torch.zeros(f.shape, dtype=F64)
        mask[place] = 1
        one = f.sigmoid()[place]
        if likelihood == "bernoulli":
            yield from ((one, torch.ones_like(f), mask), (1 - one, torch.zeros_like(f), mask))
        else:
            yield from ((0.5, f + 0.5**0.5, mask), (0.5, f - 0.5**0.5, mask))


class Witness:
    """The dense matrices of a case, from its terms and none of the package's code."""

    def __init__(self, case, model):
        self.case, self.model = case, model
        self.chosen = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.theta = torch.cat([p.detach().reshape(-1) for _, p in self.chosen])
        weights = [case.terms(self.outputs(b, self.theta), b[1])[1].sum() for b in case.batches]
        self.total = 1.0 if case.is_sum else float(sum(weights))
        self.samples = sum(len(b[1]) for b in case.batches)

    def outputs(self, batch, theta):
        pieces = theta.split([p.numel() for _, p in self.chosen])
        state = {n: t.view(p.shape) for (n, p), t in zip(self.chosen, pieces)}
        state |= {n: b.clone() for n, b in self.model.named_buffers()}
        x = batch[0]
        args, kwargs = ((), x) if isinstance(x, dict) else ((x,), {})
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.functional_call(
                self.model, state, x if isinstance(x, tuple) else args, kwargs
            )

    def flat(self, batch, theta):
        """The outputs as one vector, and the function that undoes it."""
        found = self.outputs(batch, theta)
        if isinstance(found, torch.Tensor):
            return found.reshape(-1), lambda f: f.view(found.shape)
        hidden, logits = found["hidden"], found["logits"]

        def back(f):
            parts = f.split([hidden.numel(), logits.numel()])
            return {"hidden": parts[0].view_as(hidden), "logits": parts[1].view_as(logits)}

        return torch.cat([hidden.reshape(-1), logits.reshape(-1)]), back

    def linear(self, batch):
        """f, the function that unflattens it, and J = ∂f/∂θ."""
        f, back = self.flat(batch, self.theta)
        rows = torch.autograd.functional.jacobian(lambda t: self.flat(batch, t)[0], self.theta)
        return f, back, rows

    def share(self, batch, outputs):
        losses, weights = self.case.terms(outputs, batch[1])
        return (losses * weights).sum() / self.total

    @cached_property
    def hessian(self):
        def whole(theta):
            return sum(self.share(b, self.outputs(b, theta)) for b in self.case.batches)

        return torch.autograd.functional.hessian(whole, self.theta)

    @cached_property
    def gauss_newton(self):
        total = 0
        for batch in self.case.batches:
            f, back, rows = self.linear(batch)
            middle = torch.autograd.functional.hessian(
                lambda f, batch=batch, back=back: self.share(batch, back(f)), f
            )
            total = total + rows.T @ middle @ rows
        return total

    @cached_property
    def residual_hessian(self):
        return self.hessian - self.gauss_newton

    @cached_property
    def fisher(self):
        total = 0
        for batch in self.case.batches:
            f, back, rows = self.linear(batch)
            weights = self.case.terms(back(f), batch[1])[1]
            for p, targets, mask in drawn_labels(self.case.likelihood, back(f), batch[1]):
                leaf = f.clone().requires_grad_()
                loss = (self.case.terms(back(leaf), targets)[0] * mask).sum()
                s = rows.T @ torch.autograd.grad(loss, leaf)[0]
                total = total + p * (weights * mask).sum() / self.total * torch.outer(s, s)
        return total

    def gradients(self, batch, *, by_position):
        """(gradient of Σ ωℓ, mean ω) for every term, or for all terms of a sample together."""
        f, back, rows = self.linear(batch)
        leaf = f.clone().requires_grad_()
        losses, weights = self.case.terms(back(leaf), batch[1])
        parts = (losses * weights).reshape(losses.numel() if by_position else len(losses), -1)
        sizes = weights.reshape(parts.shape).mean(1)
        for part, size in zip(parts.sum(1), sizes):
            (r,) = torch.autograd.grad(part, leaf, retain_graph=True)
            yield rows.T @ r, size

    @cached_property
    def empirical(self):
        total = 0
        for batch in self.case.batches:
            by_position = self.case.likelihood == "categorical"
            for g, weight in self.gradients(batch, by_position=by_position):
                if weight > 0:  # g is ω times the score
                    total = total + torch.outer(g, g) / (weight * self.total)
        return total

    @cached_property
    def covariance(self):
        found = [
            self.samples / self.total * g
            for batch in self.case.batches
            for g, _ in self.gradients(batch, by_position=False)
        ]
        return torch.cov(torch.stack(found).T, correction=0)


@cache
def witness(name):
    """The dense matrices of a case."""
    return Witness(*build(name))


def build(name):
    """A case and its model at fixed random weights."""
    case = CASES[name]
    torch.manual_seed(3)
    return case, case.make().double()


def dense(operator):
    return operator.matmat(torch.eye(operator.dim, dtype=operator.dtype))
