"""Reading widths, biases, input rank and loss off a torch model: the third witness of the ranks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rmthess as rm
from rmthess.operators.linear_network import heuristic_rank, read_linear_network

Data = tuple[torch.Tensor, torch.Tensor]


def network(widths: list[int], biased: set[int], seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(n, m, bias=l in biased) for l, (n, m) in enumerate(pairwise(widths), 1)]  # noqa: E741
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
            if parameter.ndim == 2:
                parameter /= parameter.shape[1] ** 0.5
    return model


def draw_data(
    inputs: int, outputs: int, rank: int, samples: int = 40, loss: str = "mse", mean: float = 1.0
) -> Data:
    draw = torch.Generator().manual_seed(samples + rank)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    x = normal(samples, rank) @ normal(rank, inputs) + mean * normal(1, inputs)
    y = normal(samples, outputs)
    return x, y.argmax(1) if loss == "cross_entropy" else y


LOSS: dict[str, nn.Module] = {"mse": nn.MSELoss(), "cross_entropy": nn.CrossEntropyLoss()}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_hessian_of_a_module_has_the_rank_that_is_read_off_it(data: st.DataObject) -> None:
    widths = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4), "widths")
    biased = data.draw(st.sets(st.integers(1, len(widths) - 1)), "biased")
    loss = data.draw(st.sampled_from(["mse", "cross_entropy"] if widths[-1] > 1 else ["mse"]))
    rank = data.draw(st.integers(1, widths[0]), "rank")
    model = network(widths, biased)
    batch = draw_data(widths[0], widths[-1], rank, loss=loss, mean=float(1 in biased))
    read = read_linear_network(model, LOSS[loss], batch)
    assert read == {"widths": widths, "input_rank": rank, "bias": biased, "loss": loss}
    bound = rm.linear_network_rank(**read)
    measured = rm.numerical_rank(rm.eigenvalues(rm.hessian(model, LOSS[loss], batch)))
    # A draw of few weights may be badly conditioned; what is decided must agree.
    assert measured.verdict(bound) in ("equal", "undecided"), measured.explain(bound)
    assert rm.exact_rank(**read).value == bound.value


def test_a_module_is_read_through_nesting_identity_and_flatten() -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(6, 4), nn.Identity()),
        nn.Sequential(nn.Linear(4, 3, bias=False)),
    )
    x, y = draw_data(6, 3, rank=6)
    read = read_linear_network(model, nn.functional.mse_loss, [(x.reshape(-1, 2, 3).float(), y)])
    assert read == {"widths": [6, 4, 3], "input_rank": 6, "bias": {1}, "loss": "mse"}
    assert read_linear_network(nn.Linear(6, 3), "mse", (x, y))["widths"] == [6, 3]


@pytest.mark.parametrize("batches", [1, 3, 40])
@pytest.mark.parametrize(("biased", "rank"), [(set(), 4), ({1, 2}, 3)])
def test_the_rank_of_the_inputs_does_not_depend_on_the_batches(
    batches: int, biased: set[int], rank: int
) -> None:
    x, y = draw_data(7, 3, rank=3)  # off the origin: uncentred the rank is one more
    data = list(zip(x.tensor_split(batches), y.tensor_split(batches), strict=True))
    read = read_linear_network(network([7, 5, 3], biased), nn.MSELoss(), data)
    assert read["input_rank"] == rank


def test_few_samples_give_the_rank_of_the_centred_inputs() -> None:
    batch = draw_data(6, 3, rank=6, samples=3)
    model = network([6, 8, 3], {1, 2})
    read = read_linear_network(model, nn.MSELoss(), batch)
    assert read["input_rank"] == 2
    measured = rm.numerical_rank(rm.eigenvalues(rm.hessian(model, nn.MSELoss(), batch)))
    assert measured.verdict(rm.linear_network_rank(**read)) == "equal"


def test_a_logistic_loss_of_one_output_has_the_ranks_of_squared_error() -> None:
    x, y = draw_data(5, 1, rank=5)
    model, batch = network([5, 4, 1], set()), (x, (y > 0).double())
    read = read_linear_network(model, nn.BCEWithLogitsLoss(), batch)
    measured = rm.numerical_rank(rm.eigenvalues(rm.hessian(model, nn.BCEWithLogitsLoss(), batch)))
    assert measured.verdict(rm.linear_network_rank(**read)) == "equal"


def test_reading_leaves_the_model_as_it_was() -> None:
    model = network([4, 3, 2], {1})
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    read_linear_network(model, nn.MSELoss(), draw_data(4, 2, rank=4))
    assert not model.training
    assert all((before[name] == value).all() for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.ReLU(), "ReLU"), (nn.Dropout(0.1), "Dropout"), (nn.BatchNorm1d(4), "BatchNorm1d")],
)
def test_the_first_layer_that_is_not_linear_is_named(layer: nn.Module, name: str) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(5, 4), layer), nn.Tanh(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=rf"layer '0\.1' is a {name}, which is not linear"):
        read_linear_network(model, nn.MSELoss(), draw_data(5, 2, rank=5))


def shared() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, layer)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("model", "loss", "shape", "message"),
    [
        (shared(), "mse", (9, 4), "'model' holds a layer twice"),
        (tied(), "mse", (9, 4), "weight of layer '1' is shared with an earlier layer"),
        (frozen(), "mse", (9, 4), "bias of layer '1' does not require a gradient"),
        (nn.Sequential(nn.Identity()), "mse", (9, 4), "no Linear layer"),
        (nn.Linear(4, 2), nn.L1Loss(), (9, 4), "the loss L1Loss are not known here"),
        (nn.Linear(4, 2), nn.functional.huber_loss, (9, 4), "the loss huber_loss are not known"),
        (nn.Linear(4, 2), "mse", (9, 3, 4), r"inputs must have shape \(samples, d\), got shape"),
        (
            nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2)),
            "mse",
            (3, 4),
            "a combination of the inputs is constant over the data",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(
    model: nn.Module, loss: Any, shape: tuple[int, ...], message: str
) -> None:
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=message):
        read_linear_network(model, loss, (torch.randn(*shape, generator=draw), torch.zeros(1)))


def test_inputs_without_a_clear_rank_are_refused() -> None:
    x = torch.diag(torch.logspace(0, -15, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match="the rank of the inputs cannot be decided"):
        read_linear_network(nn.Linear(16, 2, bias=False), "mse", (x, torch.zeros(16, 2)))


# --- the heuristic ----------------------------------------------------------------------------


def tanh_network(scale: float) -> nn.Sequential:
    linear = network([6, 8, 8, 4], set(), seed=3)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter *= scale
    return nn.Sequential(linear[0], nn.Tanh(), linear[1], nn.Tanh(), linear[2])


def large(model: nn.Module, batch: Data, threshold: float) -> int:
    sizes = abs(rm.eigenvalues(rm.hessian(model, nn.MSELoss(), batch)))
    return int((sizes > threshold * sizes.max()).sum())


def test_the_heuristic_is_not_a_bound_and_cannot_be_taken_for_one() -> None:
    batch = draw_data(6, 4, rank=6, samples=60, mean=0.0)
    guess = heuristic_rank(tanh_network(1.0), nn.MSELoss(), batch, part="hessian")
    assert guess.count == rm.linear_network_rank([6, 8, 8, 4]).value
    assert "a heuristic, not a bound" in str(guess)
    assert not hasattr(guess, "value")
    assert not hasattr(guess, "status")
    # Nor is it one: more eigenvalues than that are far from zero.
    assert large(tanh_network(1.0), batch, 1e-6) > guess.count


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_the_heuristic_needs_a_threshold(threshold: float) -> None:
    batch = draw_data(6, 4, rank=6)
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        heuristic_rank(tanh_network(1.0), nn.MSELoss(), batch, threshold=threshold)


def test_the_heuristic_leaves_out_activations_and_nothing_else() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="layer '2' is a Dropout"):
        heuristic_rank(model, nn.MSELoss(), draw_data(6, 2, rank=6))
