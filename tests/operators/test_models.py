"""Every curvature operator on every kind of model, against matrices built sample by sample."""

from __future__ import annotations

import random
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from networks import CASES, CE, XY, Attention, build, dense, draw, witness
from torch import nn

import rmthess as rm

# torch 2.13 loads its own forward-mode rules through the deprecated torch.jit.script.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:the loss does not depend on"),
]

OPERATORS = {
    "hessian": (rm.hessian, "hessian"),
    "gauss_newton": (rm.gauss_newton, "gauss_newton"),
    "residual_hessian": (rm.residual_hessian, "residual_hessian"),
    "fisher": (rm.fisher, "fisher"),
    "empirical fisher": (partial(rm.fisher, estimate="empirical"), "empirical"),
    "gradient_covariance": (rm.gradient_covariance, "covariance"),
}


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", CASES)
def test_operators_equal_the_matrices_built_sample_by_sample(name, kind):
    case, model = build(name)
    operator, matrix = OPERATORS[kind]
    if matrix == "fisher" and case.likelihood is None:
        with pytest.raises(ValueError, match="the likelihood"):
            operator(model, case.loss, case.batches)
        return
    wanted = getattr(witness(name), matrix)
    assert wanted.norm() > 1e-3
    found = dense(operator(model, case.loss, case.batches))
    assert (found - wanted).norm() <= 1e-12 * wanted.norm()
    assert (found - found.T).norm() <= 1e-14 * found.norm()
    v = draw((len(wanted), 2), 4)
    streamed = operator(model, case.loss, case.batches, memory=0) @ v
    assert (streamed - found @ v).norm() <= 1e-14 * streamed.norm()


@pytest.mark.parametrize("kind", OPERATORS)
def test_params_choose_a_diagonal_block(kind):
    case, model = build("mlp")
    operator = OPERATORS[kind][0]
    whole = dense(operator(model, case.loss, case.batches))
    block = dense(operator(model, case.loss, case.batches, params=["0.weight", "0.bias"]))
    # The same sums in another order.
    assert (block - whole[:15, :15]).norm() <= 1e-14 * whole.norm()


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.likelihood])
def test_monte_carlo_fisher_is_right_on_average(name):
    """Four seeds tell the noise; their mean is off by no more than it. All seeds are fixed."""
    case, model = build(name)
    v = draw((rm.fisher(model, case.loss, case.batches).dim, 2), 5)
    wanted = rm.fisher(model, case.loss, case.batches) @ v
    draws = partial(rm.fisher, estimate="monte_carlo", samples=400)
    found = torch.stack([draws(model, case.loss, case.batches, seed=s) @ v for s in range(4)])
    noise = found.std(0).norm() / 2
    assert 0 < noise < 0.1 * wanted.norm()
    assert (found.mean(0) - wanted).norm() < 3 * noise


# ---- the user's model is left as it was


class Restless(nn.Module):
    """Batch norm, attention, a counter, a cache, draws from three generators, gradients, modes."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.body = Attention()
        self.calls, self.fail_at = 0, fail_at

    def forward(self, x):
        self.calls += 1
        self.cache = self.norm(x)
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        self.eval()
        if self.fail_at is not None and len(x) == self.fail_at:
            raise RuntimeError("broken model")
        return self.body(self.cache)


def snapshot(model):
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    return {
        "tensors": [(t.detach().numpy().tobytes(), t._version, id(t)) for t in tensors],
        "requires": [p.requires_grad for p in model.parameters()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "modes": [m.training for m in model.modules()],
        "calls": model.calls,
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "flags": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
    }


ALL = {kind: operator for kind, (operator, _) in OPERATORS.items()} | {
    "monte carlo fisher": partial(rm.fisher, estimate="monte_carlo", samples=3)
}


def restless(fail_at=None):
    torch.manual_seed(0)
    model = Restless(fail_at).double()
    model.body.attend.eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.body.lift.bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("memory", "surrounding"),
    [(None, torch.enable_grad), (None, torch.no_grad), (0, torch.inference_mode)],
)
def test_the_model_and_all_global_state_are_untouched(kind, memory, surrounding):
    model = restless()
    before = snapshot(model)
    with surrounding():
        operator = ALL[kind](model, CE, XY, memory=memory)
        operator @ torch.ones(operator.dim, 2, dtype=torch.float64)
    assert snapshot(model) == before


@pytest.mark.parametrize("kind", ALL)
def test_the_model_is_untouched_after_an_exception(kind):
    model = restless(fail_at=2)  # in the second batch
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="broken model"):
        ALL[kind](model, CE, XY)
    assert snapshot(model) == before


@pytest.mark.parametrize("kind", ALL)
def test_the_model_is_untouched_after_an_exception_in_a_product(kind):
    model = restless()
    operator = ALL[kind](model, CE, XY, memory=0)
    model.fail_at = 2
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="broken model"):
        operator @ torch.ones(operator.dim, 2, dtype=torch.float64)
    assert snapshot(model) == before


def test_reverse_over_forward_is_wrong_through_layer_norm_and_no_operator_uses_it():
    """By reverse over forward the residual Hessian of a layer-norm net is off by percents."""
    case, model = build("attention, layer norm")
    matrices = witness("attention, layer norm")
    v = draw(len(matrices.theta), 7)
    residuals = []
    for batch in case.batches:
        leaf = matrices.outputs(batch, matrices.theta).requires_grad_()
        residuals += torch.autograd.grad(matrices.share(batch, leaf), leaf)

    def slope(theta):
        def paired(t):
            pairs = zip(case.batches, residuals)
            return sum((matrices.outputs(b, t) * r).sum() for b, r in pairs)

        return torch.func.jvp(paired, (theta,), (v,))[1]

    wanted = matrices.residual_hessian @ v
    wrong = torch.func.grad(slope)(matrices.theta)
    if torch.__version__.startswith("2.13"):
        assert (wrong - wanted).norm() > 1e-3 * wanted.norm()
    found = rm.residual_hessian(model, case.loss, case.batches) @ v
    assert (found - wanted).norm() <= 1e-12 * wanted.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ALL)
def test_gpu_products_equal_cpu_products(kind):
    """Drawn labels too: they are drawn on the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for name, case in CASES.items():
        if "fisher" in kind and case.likelihood is None:
            continue
        model = build(name)[1]
        on_cpu = ALL[kind](model, case.loss, case.batches)
        v = draw((on_cpu.dim, 2), 4)
        wanted = on_cpu @ v
        loss = deepcopy(case.loss).cuda() if isinstance(case.loss, nn.Module) else case.loss
        found = ALL[kind](model.cuda(), loss, case.batches) @ v.cuda()  # data are moved
        assert (found.cpu() - wanted).norm() <= 1e-10 * wanted.norm(), name
