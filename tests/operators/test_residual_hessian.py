"""The residual Hessian: what the Gauss–Newton matrix leaves out."""

from __future__ import annotations

import pytest
import torch
from networks import CASES, F64, XY, X, build, dense, draw, labels
from torch import nn

import rmthess as rm

NETS = {
    "tanh": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
    "relu": lambda: nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "linear, deep": lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)),
    "layer norm": lambda: nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 3)
    ),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss(reduction="sum")], ids=str)
def test_hessian_is_gauss_newton_plus_residual(net, loss):
    torch.manual_seed(1)
    model = NETS[net]().double()
    x = draw((12, 4), 8)
    y = labels((12,)) if isinstance(loss, nn.CrossEntropyLoss) else draw((12, 3), 9)
    data = [(x[:8], y[:8]), (x[8:], y[8:])]
    v = draw((sum(p.numel() for p in model.parameters()), 3), 4)
    kinds = (rm.hessian, rm.gauss_newton, rm.residual_hessian)
    whole, linear, rest = (kind(model, loss, data) @ v for kind in kinds)
    assert (whole - linear - rest).norm() <= 1e-14 * (linear.norm() + rest.norm())
    assert rest.norm() > 1e-3 * whole.norm()


def test_it_has_the_gradient_and_the_loss_of_the_hessian():
    case, model = build("tokens, padding")
    one = rm.hessian(model, case.loss, case.batches)
    other = rm.residual_hessian(model, case.loss, case.batches)
    assert other.loss == one.loss
    assert (other.gradient - one.gradient).norm() <= 1e-14 * one.gradient.norm()


def test_it_is_zero_where_the_network_fits_exactly():
    """Squared error against the network's own outputs: r = 0, bit for bit."""
    _, model = build("mlp")
    y = model(X).detach()
    found = dense(rm.residual_hessian(model, nn.MSELoss(), (X, y)))
    assert not found.any()


def test_it_is_zero_with_a_warning_for_a_linear_model():
    model = nn.Linear(4, 3).double()
    with pytest.warns(UserWarning, match="ResidualHessian is zero: the outputs of the model are"):
        found = rm.residual_hessian(model, nn.CrossEntropyLoss(), XY)
    assert not dense(found).any()


def test_a_relu_network_has_blocks_of_zeros_on_the_diagonal():
    """Piecewise linear in every single layer: ∂²f/∂W_l² = 0, all of it is between layers."""
    torch.manual_seed(1)
    model = NETS["relu"]().double()
    found = dense(rm.residual_hessian(model, nn.CrossEntropyLoss(), XY))
    sizes = [
        sum(p.numel() for p in layer.parameters())
        for layer in model
        if len(list(layer.parameters()))
    ]
    start = 0
    for size in sizes:
        block = slice(start, start + size)
        assert not found[block, block].any()
        start += size
    assert found.norm() > 0.1


def test_eigenvalues_of_a_two_layer_linear_chain_come_in_pairs():
    """f = ba x: ∂²(r f)/∂(a, b)² = r x [[0, 1], [1, 0]], eigenvalues ±r x."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    x = torch.tensor([[1.7]], dtype=F64)
    found = rm.residual_hessian(model, lambda f, y: 0.43 * f.sum(), (x, x))
    assert rm.eigenvalues(found) == pytest.approx([-0.43 * 1.7, 0.43 * 1.7], rel=1e-15)


@pytest.mark.parametrize("name", ["mlp", "dicts"])
def test_blocks_of_several_layers_are_blocks_of_the_whole(name):
    case, model = build(name)
    assert case is CASES[name]
    names = [n for n, _ in model.named_parameters()][:3]
    whole = dense(rm.residual_hessian(model, case.loss, case.batches))
    block = dense(rm.residual_hessian(model, case.loss, case.batches, params=names))
    assert (block - whole[: len(block), : len(block)]).norm() <= 1e-14 * whole.norm()
