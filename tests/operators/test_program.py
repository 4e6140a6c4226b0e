"""Evaluations written down once: the same products, other data, and what cannot be written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rmthess.operators import program, tuning
from rmthess.operators.errors import NonDeterministicError, NonFiniteError
from rmthess.operators.fisher import fisher
from rmthess.operators.gauss_newton import gauss_newton
from rmthess.operators.gradient_covariance import gradient_covariance
from rmthess.operators.hessian import hessian
from rmthess.operators.recording import NotRecordable, record
from rmthess.operators.residual_hessian import residual_hessian

F64 = torch.float64
LOSS = nn.CrossEntropyLoss()
SIDE = 3


def draw(seed, *shapes):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=rng, dtype=F64) for shape in shapes]


def random_function(seed):
    """Linear in two directions; data, directions and constants mixed, read and written over."""
    plan = np.random.default_rng(seed).integers(0, 10**6, size=(30, 4))
    constants = draw(seed, (SIDE, SIDE))

    def run(tensors):
        data, along = [*tensors[:2], *constants], [*tensors[2:]]
        for what, first, second, third in plan:
            a, b = data[first % len(data)], data[second % len(data)]
            x, y = along[first % len(along)], along[third % len(along)]
            if what % 3 == 0:
                made = (
                    lambda a=a, b=b: a @ b / SIDE,
                    lambda a=a: a.tanh(),
                    lambda a=a, b=b: a + b,
                    lambda a=a: a.t(),
                    lambda a=a, b=b: a.clone().mul_(b),
                    lambda a=a: torch.zeros(SIDE, SIDE, dtype=F64).copy_(a),
                )[first % 6]()
                data.append(made)
                if second % 4 == 0 and not any(shares(made, t) for t in (*tensors, *constants)):
                    made.add_(b.clone())
                continue
            made = (
                lambda x=x, a=a: x @ a,
                lambda x=x, a=a: a * x,
                lambda x=x, y=y: x - y,
                lambda x=x: x.t(),
                lambda x=x, y=y, a=a: y + x @ a,
                lambda x=x, a=a: a.new_zeros(SIDE, SIDE).copy_(x),
                lambda x=x, a=a: torch.ops.aten.tanh_backward(x, a),
            )[second % 7]()
            along.append(made)
            if third % 4 == 0 and not any(shares(made, t) for t in tensors):
                made.mul_(a.clone())
        return [x.clone() for x in along[-3:]]

    return run


def shares(a, b):
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def test_random_functions_are_repeated_for_other_data_and_directions():
    """Some write over what is needed later and are refused, every eighth at most."""
    refused = 0
    for seed in range(300):
        run = random_function(seed)
        first, second = (draw(seed + k, *[(SIDE, SIDE)] * 4) for k in (1000, 2000))
        try:
            value, recording = record(run, first[2:], first[:2])
        except NotRecordable:
            refused += 1
            continue
        wanted = run([x.clone() for x in first])
        for found, exact in zip(value, wanted, strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
        for data in (second, first, second):
            prepared = recording.prepare(data[:2])
            for along in (first, second, first):
                wanted = run([x.clone() for x in (*data[:2], *along[2:])])
                for found, exact in zip(recording.run(along[2:], prepared), wanted, strict=True):
                    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)
    assert refused <= 37


def mlp(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def data(samples, seed=1):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, dtype=F64, generator=rng)
    return x, torch.randint(0, 3, (samples,), generator=rng)


def batches(*sizes):
    x, y = data(sum(sizes))
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def whole(operator):
    return operator.matmat(torch.eye(operator.dim, dtype=F64))


def recorded(operator):
    with operator.problem.isolated():
        tuning.adopt(operator.engine, "recorded")
    assert operator.backend == "recorded"
    return operator


def assert_same(found, wanted):
    assert wanted.norm() > 1e-6
    assert (found - wanted).norm() <= 1e-13 * wanted.norm()


WEIGHTED = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5], dtype=F64), ignore_index=2)


@pytest.mark.parametrize("kind", [hessian, gauss_newton, residual_hessian, fisher])
@pytest.mark.parametrize("loss", [LOSS, WEIGHTED, nn.CrossEntropyLoss(reduction="sum")])
def test_every_kind_and_weighting(kind, loss):
    given = batches(4, 4, 4, 3)
    given.insert(1, (given[0][0], torch.full((4,), 2)))  # with WEIGHTED it weighs nothing
    operator = kind(mlp(), loss, given, memory=0)
    before = whole(operator)
    assert_same(whole(recorded(operator)), before)


def test_a_batch_of_other_length_has_a_program_of_its_own_up_to_a_number(monkeypatch):
    monkeypatch.setattr(program, "_MOST", 2)
    model, calls = mlp(), []
    model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    operator = hessian(model, LOSS, batches(4, 3, 2, 1, 4, 3), memory=0)
    before = whole(operator)
    recorded(operator)
    calls.clear()
    assert_same(whole(operator), before)
    assert calls == [2, 1]


def test_one_tensor_as_input_and_target_is_two():
    """The first batch reconstructs itself, the second something else."""
    x, other = draw(0, (5, 4), (5, 4))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 4)).double()
    operator = hessian(model, nn.MSELoss(), [(x, x), (x, other)], memory=0)
    before = whole(operator)
    assert_same(whole(recorded(operator)), before)


class Keyed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, x, power):
        return self.layers(x**power)


def test_what_a_batch_holds_besides_tensors_is_part_of_its_form():
    (x, y), (z, t) = batches(4, 4)
    given = [({"x": x, "power": 1}, y), ({"x": z, "power": 2}, t)]
    operator = hessian(Keyed(), LOSS, given, memory=0)
    before = whole(operator)
    assert_same(whole(recorded(operator)), before)


def test_a_weight_of_ones_own_is_asked_for_at_every_product():
    given, asked = batches(4, 4), []

    def weight(batch):
        asked.append(0)
        return 1.0 + float(batch[0][0, 0] > given[1][0][0, 0])

    operator = hessian(mlp(), lambda f, y: LOSS(f, y), given, memory=0, weight=weight)
    before = whole(operator)
    recorded(operator)
    asked.clear()
    assert_same(whole(operator), before)
    assert len(asked) == 2


class Odd(nn.Module):
    """A layer, and something that is done with its results."""

    def __init__(self, act):
        super().__init__()
        self.layers, self.act = mlp(), act

    def forward(self, x):
        return self.act(self.layers(x), x)


REFUSED = {
    "a number": (lambda f, x: f * float(x.abs().max()), "takes a number out of a tensor"),
    "a branch": (lambda f, x: f if x.sum() > 0 else -f, "takes a number out of a tensor"),
    "a list": (lambda f, x: f * x.abs().max().tolist(), "tolist takes numbers out"),
    "an array": (lambda f, x: f * x.detach().numpy().max(), "numpy takes numbers out"),
    "a shape": (
        lambda f, x: f + f[x[:, 0] > x[:, 0].min()].mean(),
        "of a shape that depends on the data",
    ),
    "noise": (lambda f, x: f + 0 * torch.randn(3, dtype=F64), "draws random numbers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_looks_at_its_data_stays_with_autograd(kind):
    act, reason = REFUSED[kind]
    operator = hessian(Odd(act), LOSS, batches(4, 4), memory=0)
    before = whole(operator)
    with pytest.raises(tuning.Refused, match=reason):
        recorded(operator)
    assert torch.equal(whole(operator), before)
    with pytest.raises(ValueError, match=rf"'recorded' cannot compute .*{reason}.*; leave backend"):
        hessian(Odd(act), LOSS, batches(4, 4), memory=0, backend="recorded")


def test_what_no_record_sees_is_found_by_the_products():
    """A counter instead of the data: the model scales every other batch."""
    calls = []

    def act(f, x):
        calls.append(0)
        return f * (1 + len(calls) % 2)

    operator = hessian(Odd(act), LOSS, batches(4, 4), memory=0)
    with pytest.raises(tuning.Refused, match="its products differ by"):
        recorded(operator)


def test_a_later_form_that_cannot_be_written_is_left_to_autograd():
    def act(f, x):
        return f if len(x) == 4 else f * float(x.abs().max())

    operator = hessian(Odd(act), LOSS, batches(4, 3, 4), memory=0)
    before = whole(operator)
    assert_same(whole(recorded(operator)), before)


def test_gradients_of_samples_and_drawn_labels(monkeypatch):
    given = batches(4, 4, 3)
    covariance = gradient_covariance(mlp(), LOSS, given, memory=0)
    before = whole(covariance)
    monkeypatch.setattr(tuning, "WORTHWHILE", 0.0)
    monkeypatch.setattr(tuning, "race", lambda *_: {"shared": 1.0, "recorded": 0.1})
    assert covariance.tuned(64, 4).backend.startswith("recorded (")
    assert_same(whole(covariance), before)
    drawn = fisher(mlp(), LOSS, given, estimate="monte_carlo", memory=0)
    before = whole(drawn)
    with pytest.raises(tuning.Refused, match="takes a"):
        recorded(drawn)
    assert torch.equal(whole(drawn), before)


def test_changed_data_are_noticed():
    given = batches(4, 4, 3)
    operator = recorded(hessian(mlp(), LOSS, given, memory=0))
    given[0][0][0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="batch 0: inputs holds 1 values that are not finite"):
        whole(operator)
    given[0][0][0, 0] = 0.0
    given[1][1][0] = 7
    with pytest.raises(ValueError, match="batch 1: the largest label is 7"):
        whole(operator)
    given.pop(1)
    with pytest.raises(NonDeterministicError, match="weigh 7 in this pass and weighed 11"):
        whole(operator)
