"""Convolutions: the same numbers as torch's, whose second derivatives are only slower."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import rmthess as rm
from rmthess.operators.convolution import Convolutions

CASES = [
    (functional.conv1d, (2, 3, 9), (4, 3, 2), {}),
    (functional.conv1d, (2, 4, 9), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    (functional.conv2d, (2, 3, 7, 6), (4, 3, 3, 2), {"stride": (2, 1), "dilation": (1, 2)}),
    (functional.conv2d, (2, 4, 5, 5), (4, 1, 3, 3), {"padding": (1, 0), "groups": 4}),
    (functional.conv3d, (1, 2, 4, 4, 4), (3, 2, 2, 2, 2), {"padding": 1}),
    (functional.conv_transpose1d, (2, 3, 5), (3, 4, 3), {"stride": 2, "output_padding": 1}),
    (functional.conv_transpose2d, (2, 4, 3, 3), (4, 2, 2, 3), {"groups": 2, "dilation": (2, 1)}),
    (functional.conv_transpose3d, (1, 2, 2, 2, 2), (2, 3, 2, 2, 2), {"stride": (1, 2, 1)}),
    (functional.conv2d, (2, 3, 6, 6), (4, 3, 3, 3), {"padding": "same"}),
    (functional.conv2d, (3, 6, 6), (4, 3, 3, 3), {}),
]


def name(case):
    return case.__name__ if callable(case) else None


@pytest.mark.parametrize(("convolve", "of_x", "of_w", "options"), CASES, ids=name)
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_value_gradient_and_second_derivative_are_those_of_torch(
    convolve, of_x, of_w, options, wanted
):
    """For whichever of input, weight and bias a derivative is asked."""
    rng = torch.Generator().manual_seed(0)
    groups = options.get("groups", 1)
    outputs = of_w[1] * groups if "transpose" in convolve.__name__ else of_w[0]
    tensors = [
        torch.randn(shape, generator=rng, dtype=torch.float64) for shape in (of_x, of_w, (outputs,))
    ]
    leaves = [tensors[k].requires_grad_() for k in wanted]
    along = [torch.randn(x.shape, generator=rng, dtype=torch.float64) for x in leaves]

    def derivatives():
        value = convolve(*tensors, **options)
        first = torch.autograd.grad(value.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(first, leaves, along, materialize_grads=True)
        return [value, *first, *second]

    wanted_values = derivatives()
    with Convolutions():
        found = derivatives()
    for ours, torchs in zip(found, wanted_values, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2)
        self.second = nn.ConvTranspose2d(3, 2, 2, bias=False)
        self.head = nn.Linear(2 * 16, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()).sigmoid().flatten(1))


def problem():
    torch.manual_seed(0)
    model = Convolutional().double()
    return model, nn.CrossEntropyLoss(), (torch.randn(5, 1, 8, 8).double(), torch.arange(5) % 3)


@pytest.mark.parametrize("backend", ["shared", "recorded", "batched", "linearized"])
def test_every_way_gives_the_dense_hessian_of_a_network(backend):
    model, loss, (x, y) = problem()
    names = dict(model.named_parameters())

    def of(flat):
        parts = flat.split([p.numel() for p in names.values()])
        state = {n: v.reshape(p.shape) for (n, p), v in zip(names.items(), parts, strict=True)}
        return loss(torch.func.functional_call(model, state, (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in names.values()])
    wanted = torch.autograd.functional.hessian(of, flat)
    operator = rm.hessian(model, loss, (x, y), backend=backend)
    found = operator.matmat(torch.eye(len(flat), dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert operator.hand_written == set()


def test_a_model_that_differentiates_inside_is_left_to_torch():
    """A penalty on the input's derivative, taken by forward mode: it needs torch's own rule."""

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Conv1d(1, 2, 2)

        def forward(self, x):
            values, slopes = torch.func.jvp(lambda z: self.inside(z).tanh(), (x,), (x.cos(),))
            with torch.autograd.forward_ad.dual_level():
                dual = torch.autograd.forward_ad.make_dual(x, x.cos())
                again = torch.autograd.forward_ad.unpack_dual(self.inside(dual).tanh()).tangent
            return (values + slopes * again).sum(dim=(1, 2))[:, None]

    torch.manual_seed(0)
    model, x = Slope().double(), torch.randn(4, 1, 5).double()
    H = rm.dense(rm.hessian(model, nn.MSELoss(), (x, x[:, :, 0])))
    torch.testing.assert_close(H, H.T)
    assert abs(H).max() > 0.01


def test_autocast_is_left_to_torch():
    x, w = torch.randn(2, 1, 5), torch.randn(3, 1, 2, requires_grad=True)
    with Convolutions(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.conv1d(x, w).dtype == torch.bfloat16
    with Convolutions():
        assert torch.conv1d(x, w).dtype == torch.float32
