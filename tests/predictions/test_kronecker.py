"""Kronecker factors against exact blocks of the Gauss–Newton matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import rmthess as rm
from rmthess.demo.problems import Digits

MSE, LOSS = nn.MSELoss(), nn.CrossEntropyLoss()


def network(*layers, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*[layer() for layer in layers]).double()


def digits_network(seed, steps):
    digits = Digits.load()
    model = network(
        lambda: nn.Linear(64, 32), nn.ReLU, lambda: nn.Linear(32, 10), seed=seed
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        LOSS(model(digits.inputs), digits.labels).backward()
        optimiser.step()
    return model, (digits.inputs, digits.labels)


def exact(model, loss, data, layer):
    block = rm.gauss_newton(model, loss, data, params=lambda name: name.startswith(f"{layer}."))
    return rm.eigenvalues(block)


def inputs(samples=30, dim=5, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal((samples, dim)))


def test_a_linear_network_with_squared_error_has_exact_factors():
    """No sample's curvature differs from another's: independence holds."""
    x = inputs()
    model = network(lambda: nn.Linear(5, 4), lambda: nn.Linear(4, 3))
    found = rm.kronecker(model, MSE, (x, x[:, :3]))
    assert list(found) == ["0", "1"]
    for name, prediction in found.items():
        wanted = exact(model, MSE, (x, x[:, :3]), name)
        np.testing.assert_allclose(prediction.eigenvalues(), wanted, atol=1e-13)


@pytest.mark.parametrize(("loss", "targets"), [(MSE, None), (LOSS, "labels")])
def test_one_sample_has_exact_factors(loss, targets):
    x = inputs(samples=1)
    y = x[:, :3] if targets is None else torch.tensor([1])
    model = network(lambda: nn.Linear(5, 4), nn.Tanh, lambda: nn.Linear(4, 3, bias=False))
    for name, prediction in rm.kronecker(model, loss, (x, y)).items():
        wanted = exact(model, loss, (x, y), name)
        np.testing.assert_allclose(prediction.eigenvalues(), wanted, atol=1e-12)


def test_dimensions_ranks_and_what_is_assumed():
    x, y = inputs(), torch.arange(30) % 3
    model = network(lambda: nn.Linear(5, 4), nn.ReLU, lambda: nn.Linear(4, 3))
    found = rm.kronecker(model, LOSS, (x, y))
    assert [prediction.dim for prediction in found.values()] == [24, 15]
    for name, prediction in found.items():
        block = exact(model, LOSS, (x, y), name)
        assert np.count_nonzero(block > 1e-10 * block.max()) <= prediction.rank.value
        assert prediction.status == "heuristic"
        assert "fails after training" in str(prediction)
    assert found["2"].rank.value == 5 * 2  # softmax: one direction of three is flat


def test_the_model_keeps_no_hook_also_after_an_error():
    model = network(lambda: nn.Linear(5, 3))
    rm.kronecker(model, MSE, (inputs(), inputs(dim=3)))
    with pytest.raises(RuntimeError, match="shapes"):
        rm.kronecker(model, MSE, (inputs(dim=4), inputs(dim=3)))
    assert not model[0]._forward_hooks


class Twice(nn.Module):
    def __init__(self, unused=False):
        super().__init__()
        self.shared = nn.Linear(5, 5).double()
        self.other = nn.Linear(5, 5).double() if unused else nn.Identity()

    def forward(self, x):
        return self.shared(x) if isinstance(self.other, nn.Linear) else self.shared(self.shared(x))


def broken():
    model = network(lambda: nn.Linear(5, 3))
    model[0].weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Twice(), "layer 'shared' is called twice"),
        (Twice(unused=True), "layer 'other' is not used"),
        (network(lambda: nn.Linear(5, 3), lambda: nn.LayerNorm(3)), "layer '1' is a LayerNorm"),
        (network(nn.ReLU), "no Linear layer"),
        (broken(), "weight of layer '0' has entries that are NaN"),
        (
            nn.Sequential(nn.Unflatten(1, (5, 1)), nn.Linear(1, 2).double(), nn.Flatten()),
            r"layer '1' has outputs of shape \(30, 5, 2\)",
        ),
    ],
)
def test_other_architectures_are_refused_with_the_layer_named(model, said):
    with pytest.raises(ValueError, match=said):
        rm.kronecker(model, MSE, (inputs(), inputs()))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (nn.L1Loss(), "got L1Loss"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "got CrossEntropyLoss"),
        (nn.MSELoss(reduction="sum"), "got MSELoss"),
    ],
)
def test_other_losses_are_refused(loss, said):
    with pytest.raises(ValueError, match=said):
        rm.kronecker(network(lambda: nn.Linear(5, 5)), loss, (inputs(), inputs()))


@pytest.mark.slow
def test_digits_factors_are_good_at_initialisation_and_a_baseline_afterwards():
    """Median distance in decades from the exact block, over three networks."""

    def distance(model, data):
        found = {}
        for name, prediction in rm.kronecker(model, LOSS, data).items():
            wanted, values = exact(model, LOSS, data, name), prediction.eigenvalues()
            kept = (wanted > 1e-8 * wanted[-1]) & (values > 1e-8 * values[-1])
            found[name] = float(np.median(np.abs(np.log10(values[kept] / wanted[kept]))))
        return found

    for seed in range(3):
        fresh = distance(*digits_network(seed, 0))
        later = distance(*digits_network(seed, 600))
        assert fresh["0"] < 0.15
        assert fresh["2"] < 0.01
        assert later["0"] > 0.8
        assert later["2"] > 0.25
