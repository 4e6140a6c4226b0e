"""The Gauss–Newton matrix: the output Hessian of every loss, and models of every form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from networks import F64, WEIGHTS, XY, X, Y, build, dense, draw, labels
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import rmthess as rm


class Free(nn.Module):
    """f = θ: then G = B, the Hessian of the loss in the outputs."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = nn.Parameter(outputs.clone())

    def forward(self, x):
        return self.outputs


def assert_same(found, wanted, tolerance=1e-13):
    assert wanted.norm() > 1e-6
    assert (found - wanted).norm() <= tolerance * wanted.norm()


def softmax_hessian(f, y, loss):
    """Σ_c t_c (diag p - p pᵀ) position by position, t from torch's definition of the loss."""
    classes = f.shape[1] if f.ndim > 1 else len(f)
    weights = torch.ones(classes, dtype=F64) if loss.weight is None else loss.weight
    smoothing = loss.label_smoothing
    whole = torch.zeros(f.numel(), f.numel(), dtype=F64)
    index = torch.arange(f.numel()).view(f.shape)
    rows = (index if f.ndim > 1 else index[None]).movedim(1, -1).reshape(-1, classes)
    hard = not y.is_floating_point()
    total = torch.zeros((), dtype=F64)
    targets = y.reshape(-1) if hard else y.movedim(1, -1).reshape(-1, classes)
    for row, target in zip(rows, targets, strict=True):
        if hard and target == loss.ignore_index:
            continue
        q = functional.one_hot(target, classes).to(F64) if hard else target
        total += weights[target] if hard else 1
        t = weights * ((1 - smoothing) * q + smoothing / classes)
        p = torch.softmax(f.reshape(-1)[row], 0)
        whole[row[:, None], row] = t.sum() * (torch.diag(p) - torch.outer(p, p))
    return whole if loss.reduction == "sum" else whole / total


SOFT = torch.softmax(draw((7, 3), 3), 1)
IGNORED = torch.where(labels((7,), 3, 6) == 2, -100, Y)
CLASSIFIED = {
    "labels": (draw((7, 3)), Y),
    "ignored labels": (draw((7, 3)), IGNORED),
    "probabilities": (draw((7, 3)), SOFT),
    "tokens": (draw((2, 3, 4)), labels((2, 4))),
    "pixels": (draw((2, 3, 2, 2)), labels((2, 2, 2))),
    "token probabilities": (draw((2, 3, 4)), torch.softmax(draw((2, 3, 4), 3), 1)),
}
LOSSES = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weights": nn.CrossEntropyLoss(weight=WEIGHTS),
    "all": nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", CLASSIFIED)
def test_softmax_output_hessian_is_diag_p_minus_p_p(kind, loss):
    f, y = CLASSIFIED[kind]
    found = dense(rm.gauss_newton(Free(f), LOSSES[loss], (f, y)))
    assert_same(found, softmax_hessian(f, y, LOSSES[loss]))
    by_torch = torch.autograd.functional.hessian(lambda f: LOSSES[loss](f, y), f)
    assert_same(found, by_torch.view(found.shape))


def test_a_single_sample_may_come_without_a_batch_dimension():
    f, y = draw((3,)), torch.tensor(1)
    found = dense(rm.gauss_newton(Free(f), nn.CrossEntropyLoss(), (f, y)))
    assert_same(found, softmax_hessian(f, y, nn.CrossEntropyLoss()))


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(),
        nn.MSELoss(reduction="sum"),
        nn.HuberLoss(),
        nn.SmoothL1Loss(beta=2.0),
        nn.BCEWithLogitsLoss(pos_weight=WEIGHTS),
        nn.PoissonNLLLoss(),
        partial(functional.binary_cross_entropy_with_logits, weight=WEIGHTS),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_elementwise_losses_have_the_diagonal_that_torch_says(loss):
    f = draw((7, 3))
    found = dense(rm.gauss_newton(Free(f), loss, (f, SOFT)))
    wanted = torch.autograd.functional.hessian(lambda f: loss(f, SOFT), f)
    assert_same(found, wanted.view(found.shape))


def test_the_bernoulli_diagonal_is_p_times_one_minus_p():
    f = draw((7, 3))
    loss = nn.BCEWithLogitsLoss(pos_weight=WEIGHTS, reduction="sum")
    p = f.sigmoid()
    wanted = (WEIGHTS * SOFT + 1 - SOFT) * p * (1 - p)
    assert_same(dense(rm.gauss_newton(Free(f), loss, (f, SOFT))), torch.diag(wanted.reshape(-1)))


def test_an_unknown_loss_is_differentiated_twice_in_the_outputs():
    _, model = build("mlp")
    known = dense(rm.gauss_newton(model, nn.CrossEntropyLoss(), (X, Y)))
    found = rm.gauss_newton(model, lambda f, y: -f.log_softmax(1)[range(7), y].mean(), (X, Y))
    assert_same(dense(found), known)


def test_a_nonconvex_loss_gives_an_indefinite_matrix():
    f = draw((4, 3))
    found = dense(rm.gauss_newton(Free(f), lambda f, y: f.sin().sum(), (f, f)))
    assert_same(found, torch.diag(-f.sin().reshape(-1)))
    assert found.diagonal().min() < 0 < found.diagonal().max()


def test_gauss_newton_of_a_linear_network_is_its_hessian():
    model = nn.Linear(4, 3).double()
    loss = nn.CrossEntropyLoss()
    assert_same(dense(rm.gauss_newton(model, loss, XY)), dense(rm.hessian(model, loss, XY)))


def test_a_relu_network_is_right_although_its_hessian_misses_the_kinks():
    """G needs no second derivative of the network: the witness differs by finite steps only."""
    _, model = build("relu, one batch")
    operator = rm.gauss_newton(model, nn.MSELoss(), (X, SOFT))
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    v = draw((operator.dim,), 4)

    def outputs(at):
        nn.utils.vector_to_parameters(at, model.parameters())
        return model(X).detach()

    h = 1e-6
    slope = (outputs(theta + h * v) - outputs(theta - h * v)) / (2 * h)
    # Central differences: h² in truncation, eps/h in rounding; squared in vᵀGv.
    assert v @ (operator @ v) == pytest.approx(2 * float(slope.square().mean()), rel=1e-8)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


@pytest.mark.parametrize(
    "operator",
    [
        rm.gauss_newton,
        rm.residual_hessian,
        *(partial(rm.fisher, estimate=e) for e in ("exact", "empirical")),
        partial(rm.fisher, estimate="monte_carlo", samples=3),
        rm.gradient_covariance,
    ],
    ids=["gauss_newton", "residual", "exact", "empirical", "monte carlo", "covariance"],
)
def test_nothing_is_larger_than_the_logits_whatever_the_vocabulary(operator):
    vocabulary, tokens = 5_000, 30
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 2), nn.Tanh(), nn.Linear(2, vocabulary))
    ids = labels((tokens,), 7)
    with Largest() as largest:
        found = operator(model, nn.CrossEntropyLoss(), (ids, labels((tokens,), vocabulary)))
        product = found @ torch.ones(found.dim)
    assert torch.isfinite(product).all()
    assert largest.elements == vocabulary * tokens


# ---- outputs that are not one tensor


@dataclass
class Opaque:
    logits: torch.Tensor


class Wrapping(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.body, self.wrap = build("mlp")[1], wrap

    def forward(self, x):
        return self.wrap(self.body(x))


WRAPPED = {
    "tuple": (lambda f: (f, f.argmax(1)), lambda o: o[0]),
    "list in a dict": (lambda f: {"all": [f[:, :2], f[:, 2:]]}, lambda o: torch.cat(o["all"], 1)),
    "named tuple": (lambda f: torch.max(f[..., None], 2), lambda o: o.values),
    "unused": (lambda f: (f, f.exp()), lambda o: o[0]),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_outputs_may_be_containers(kind):
    wrap, unwrap = WRAPPED[kind]
    wanted = dense(rm.gauss_newton(build("mlp")[1], nn.CrossEntropyLoss(), XY))
    found = rm.gauss_newton(Wrapping(wrap), lambda o, y: functional.cross_entropy(unwrap(o), y), XY)
    assert_same(dense(found), wanted)


@pytest.mark.parametrize(
    "operator", [rm.gauss_newton, rm.residual_hessian, rm.fisher, rm.gradient_covariance]
)
def test_tensors_hidden_in_an_object_are_refused(operator):
    def loss(output, y):
        return functional.cross_entropy(getattr(output, "logits", output), y)

    with pytest.raises(TypeError, match="a Opaque; let the model return a tensor"):
        operator(Wrapping(Opaque), loss, XY)


def test_a_tensor_reached_past_the_outputs_is_refused():
    def loss(output, y):
        return functional.cross_entropy(output[1].logits, y) + output[0].square().mean()

    with pytest.raises(TypeError, match="cannot be taken out of it"):
        rm.gauss_newton(Wrapping(lambda f: (f, Opaque(f))), loss, XY)


def test_complex_outputs_are_refused():
    with pytest.raises(TypeError, match="view_as_real"):
        rm.gauss_newton(Wrapping(lambda f: torch.complex(f, f)), lambda o, y: o.abs().sum(), XY)


def test_a_loss_computed_inside_the_model_is_warned_of():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = build("mlp")[1]

        def forward(self, x, y):
            return {"loss": functional.cross_entropy(self.body(x), y)}

    with pytest.warns(UserWarning, match="GaussNewton is zero: the loss is linear in the outputs"):
        found = rm.gauss_newton(Inside(), lambda o: o["loss"], [{"x": X, "y": Y}])
    assert not dense(found).any()


def test_a_model_that_ends_in_log_softmax_has_all_its_curvature_in_the_residual_part():
    model = nn.Sequential(build("mlp")[1], nn.LogSoftmax(1))
    with pytest.warns(UserWarning, match="GaussNewton is zero"):
        assert not dense(rm.gauss_newton(model, nn.NLLLoss(), XY)).any()
    found = dense(rm.residual_hessian(model, nn.NLLLoss(), XY))
    assert_same(found, dense(rm.hessian(model, nn.NLLLoss(), XY)), 1e-12)
    assert_same(found, dense(rm.hessian(model[0], nn.CrossEntropyLoss(), XY)), 1e-12)


def test_single_precision_agrees_with_double():
    case, model = build("attention, layer norm")
    v = draw((rm.gauss_newton(model, case.loss, case.batches).dim,), 4)
    wanted = rm.gauss_newton(model, case.loss, case.batches) @ v
    batches = [(x.float(), y) for x, y in case.batches]
    found = rm.gauss_newton(model.float(), case.loss, batches) @ v.float()
    assert found.dtype is torch.float32
    assert_same(found.double(), wanted, 1e-5)
