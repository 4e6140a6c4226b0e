"""Every way of computing a product gives the same product, and leaves the same nothing behind."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import rmthess as rm
from rmthess.operators import backends, tuning
from rmthess.operators.errors import NonDeterministicError
from rmthess.operators.fisher import fisher
from rmthess.operators.gauss_newton import gauss_newton
from rmthess.operators.hessian import hessian
from rmthess.operators.recording import NotRecordable, record
from rmthess.operators.residual_hessian import residual_hessian

F64 = torch.float64
LOSS = nn.CrossEntropyLoss()


def data(samples=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, dtype=F64, generator=g)
    return x, torch.randint(0, 3, (samples,), generator=g)


def halves(x, y):
    return [(x[:4], y[:4]), (x[4:], y[4:])]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(2, 4)
        self.norm = nn.LayerNorm(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        z = self.lift(x.view(-1, 2, 2))
        u = self.norm(z)
        return self.head((z + self.attend(u, u, u, need_weights=False)[0]).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.spare = nn.Linear(1, 1)  # not used
        self.spare.requires_grad_(False)
        self.register_buffer("permutation", torch.tensor([2, 0, 3, 1]))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x[:, self.permutation])))[:, :3]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, left, right):
        return self.layers(left * right)


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def convolutional(norm):
    shape = nn.Unflatten(1, (1, 2, 2))
    convolution = nn.Conv2d(1, 3, 2, padding=1)
    return nn.Sequential(shape, convolution, norm, nn.GELU(), nn.Flatten(), nn.Linear(27, 3))


MODELS = {
    "mlp": mlp,
    "attention and layer norm": Attention,
    "convolution and batch norm": lambda: convolutional(nn.BatchNorm2d(3)),
    "group norm": lambda: convolutional(nn.GroupNorm(1, 3)),
    "tied": Tied,
    "dict": Named,
}


def build(kind, training=True, seed=3):
    torch.manual_seed(seed)
    return MODELS[kind]().double().train(training)


def given(kind, x, y):
    return ({"left": x, "right": x}, y) if kind == "dict" else (x, y)


def by_differences(model, batches, h=1e-5):
    """The mean's Hessian by central differences of gradients that plain autograd computes."""
    names, values = zip(*((n, p.detach()) for n, p in model.named_parameters() if p.requires_grad))
    flat = torch.cat([v.reshape(-1) for v in values])
    samples = sum(len(y) for _, y in batches)

    def gradient(theta):
        parts = theta.split([v.numel() for v in values])
        leaves = [t.view(v.shape).clone().requires_grad_() for t, v in zip(parts, values)]
        total = 0.0
        for inputs, y in batches:
            state = dict(zip(names, leaves)) | {n: b.clone() for n, b in model.named_buffers()}
            args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
            output = torch.func.functional_call(model, state, args, kwargs)
            total = total + LOSS(output, y) * len(y) / samples
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, leaves)])

    steps = h * torch.eye(flat.numel(), dtype=F64)
    return torch.stack([(gradient(flat + s) - gradient(flat - s)) / (2 * h) for s in steps])


def whole(operator):
    return operator.matmat(torch.eye(operator.dim, dtype=operator.dtype))


def assert_same(found, wanted, tolerance=1e-12):
    assert wanted.norm() > 1e-6
    assert (found - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize(
    ("kind", "training"),
    [*((kind, True) for kind in MODELS), ("convolution and batch norm", False)],
)
def test_every_backend_gives_the_dense_hessian(kind, training):
    model = build(kind, training)
    x, y = data()
    one, two = given(kind, x, y), [given(kind, *part) for part in halves(x, y)]
    # Central differences: 1e-9 off by h² and by eps/h.
    wanted = by_differences(model, [one])
    reference = whole(hessian(model, LOSS, one, backend="shared"))
    assert_same(reference, wanted, 1e-8)
    in_two = whole(hessian(model, LOSS, two, backend="shared"))
    for backend in ("recorded", "linearized", "batched"):
        assert_same(whole(hessian(model, LOSS, one, backend=backend)), reference)
        for memory in (None, 0):
            operator = hessian(model, LOSS, two, backend=backend, memory=memory)
            assert operator.backend == backend
            assert operator.shared is (memory is None)
            assert_same(whole(operator), in_two)


@pytest.mark.slow
def test_the_compiled_backend_gives_the_same_hessian():
    model, (x, y) = build("mlp"), data()
    reference = whole(hessian(model, LOSS, (x, y), backend="shared"))
    operator = hessian(model, LOSS, (x, y), backend="compiled")
    assert operator.backend == "compiled"
    assert_same(whole(operator), reference)


def test_batches_that_weigh_nothing_and_sums_are_the_same_recorded():
    model, (x, y) = build("mlp"), data()
    loss = nn.CrossEntropyLoss(ignore_index=1, reduction="mean")
    batches = [(x, torch.ones_like(y)), *halves(x, y)]
    total = nn.CrossEntropyLoss(reduction="sum")
    for backend in ("recorded", "linearized"):
        for memory in (None, 0):
            wanted = whole(hessian(model, loss, batches, backend="shared"))
            found = whole(hessian(model, loss, batches, backend=backend, memory=memory))
            assert_same(found, wanted)
        wanted = whole(hessian(model, total, batches, backend="shared"))
        assert_same(whole(hessian(model, total, batches, backend=backend)), wanted)


@pytest.mark.parametrize("kind", [gauss_newton, residual_hessian, fisher])
@pytest.mark.parametrize("memory", [None, 0])
def test_other_curvature_can_be_recorded_and_batched_and_has_no_forward_mode(kind, memory):
    model, (x, y) = build("convolution and batch norm"), data()
    for backend in ("recorded", "batched"):
        operator = kind(model, LOSS, halves(x, y), memory=memory)
        before = whole(operator)
        assert set(operator.engine.ways) == {"shared", "recorded", "compiled", "batched"}
        with operator.problem.isolated():
            tuning.adopt(operator.engine, backend)
        assert_same(whole(operator), before)


@pytest.mark.parametrize("kind", MODELS)
def test_a_record_of_the_shared_graph_gives_the_same_numbers(kind):
    """Operation by operation; only their order in sums of three or more terms may change."""
    model, (x, y) = build(kind), data()
    shared, recorded = (
        whole(hessian(model, LOSS, given(kind, x, y), backend=backend))
        for backend in ("shared", "recorded")
    )
    assert_same(recorded, shared, 1e-15)


@pytest.mark.parametrize("backend", ["recorded", "linearized"])
def test_the_squared_error_is_recorded(backend):
    """Its derivative multiplies zeros without memory by a number, of which torch 2.13 dies."""
    model, (x, _) = build("mlp"), data()
    wanted = whole(hessian(model, nn.MSELoss(), (x, x[:, :3])))
    assert_same(whole(hessian(model, nn.MSELoss(), (x, x[:, :3]), backend=backend)), wanted)


def test_parameters_without_curvature_are_recorded_as_zero():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.spare = mlp(), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.layers(x)

    model, (x, y) = Spare().double(), data()
    found = []
    for backend in ("shared", "recorded"):
        with pytest.warns(UserWarning, match=r"does not depend on \['spare'\]"):
            found.append(whole(hessian(model, LOSS, (x, y), backend=backend)))
    assert_same(*found)


class Opaque(torch.autograd.Function):
    """tanh without a rule for forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 - torch.tanh(x) ** 2)


class NoForwardMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return Opaque.apply(self.layer(x))


def test_a_backend_that_cannot_be_used_says_why():
    model, (x, y) = NoForwardMode().double(), data()
    with pytest.raises(ValueError, match=r"'linearized' cannot compute .* RuntimeError: .*; leave"):
        hessian(model, LOSS, (x, y), backend="linearized")
    with pytest.raises(ValueError, match=r"one of \['batched', .*'shared'\] or None, got 'fast'"):
        hessian(model, LOSS, (x, y), backend="fast")
    with pytest.raises(ValueError, match="compiling anew for every product"):
        hessian(mlp().double(), LOSS, halves(x, y), memory=0, backend="compiled")


def test_the_memory_budget_is_respected():
    model, (x, y) = build("mlp"), data()
    with pytest.raises(ValueError, match=r"would keep .* kB, the memory budget is 10 B"):
        hessian(model, LOSS, (x, y), memory=10, backend="linearized")
    operator = hessian(model, LOSS, (x, y), memory=10)
    times(operator, shared=1.0, recorded=0.1)
    assert operator.backend.startswith("shared (")
    assert "recorded refused: it would keep" in operator.backend


def times(operator, **seconds):
    """Tune as if these had been measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "WORTHWHILE", 0.0)
        patch.setattr(
            tuning, "race", lambda engine, ways, total: {w.name: seconds[w.name] for w in ways}
        )
        operator.tuned(64, 4)


def test_the_fastest_is_chosen_recorded_and_frees_the_other():
    def graphs():
        gc.collect()
        found = gc.get_objects()
        return {id(item) for item in found if type(item).__name__ == "HessianGraph"}

    model, (x, y) = build("attention and layer norm"), data()
    others = graphs()
    operator = hessian(model, LOSS, halves(x, y))
    before = whole(operator)
    assert operator.backend == "shared"
    times(operator, shared=0.104, recorded=0.09)
    assert operator.backend == "recorded (a product of one batch: shared 104 ms, recorded 90 ms)"
    assert_same(whole(operator), before)
    assert operator.shared
    assert graphs() <= others
    times(operator, shared=0.001, recorded=0.09)  # settled: not tried again
    assert operator.backend.startswith("recorded")


def test_where_no_graph_is_kept_evaluations_are_recorded_as_well():
    model, (x, y) = build("attention and layer norm"), data(13)
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:12], y[8:12]), (x[12:], y[12:])]
    calls = []
    model.register_forward_hook(lambda *_: calls.append(0))
    operator = hessian(model, LOSS, batches, memory=0)
    before = whole(operator)
    times(operator, shared=0.104, recorded=0.09)
    assert operator.backend == "recorded (a product of one batch: shared 104 ms, recorded 90 ms)"
    assert not operator.shared
    calls.clear()
    assert_same(whole(operator), before, 1e-13)
    assert not calls
    with torch.no_grad():
        batches[1][0].mul_(2)  # read again at every product, like batches that autograd evaluates
    changed = hessian(model, LOSS, batches, memory=0, backend="shared")
    assert_same(whole(operator), whole(changed), 1e-13)
    batches.pop()
    with pytest.raises(NonDeterministicError, match="weigh 12 in this pass and weighed 13"):
        whole(operator)


def test_what_is_hardly_faster_or_slower_is_not_chosen():
    model, (x, y) = build("mlp"), data()
    for recorded in (0.99, 1.5):
        operator = hessian(model, LOSS, (x, y))
        before = whole(operator)
        times(operator, shared=1.0, recorded=recorded)
        assert operator.backend.startswith("shared (a product of one batch: shared 1e+03 ms")
        assert torch.equal(whole(operator), before)


def test_a_backend_that_gives_another_product_is_refused(monkeypatch):
    class Wrong(backends.Recorded):
        def product(self, pieces):
            return [1.001 * part for part in super().product(pieces)]

    monkeypatch.setitem(backends._OF_THE_GRAPH, "recorded", Wrong)
    model, (x, y) = build("mlp"), data()
    operator = hessian(model, LOSS, halves(x, y))
    before = whole(operator)
    times(operator, shared=1.0, recorded=0.1)
    assert "recorded refused: its products differ by 1.0e-03" in operator.backend
    assert operator.shared
    assert torch.equal(whole(operator), before)


def test_short_runs_and_given_backends_are_left_as_they_are(monkeypatch):
    model, (x, y) = build("mlp"), data()
    operator = hessian(model, LOSS, (x, y))
    first, second = (rm.lanczos(operator, steps=20, probes=3, seed=0) for _ in range(2))
    assert first.provenance["backend"] == "shared"
    assert (first.nodes == second.nodes).all()
    monkeypatch.setattr(tuning, "WORTHWHILE", 0.0)
    monkeypatch.setattr(tuning, "race", lambda *_: pytest.fail("nothing is to be tried"))
    for backend in ("shared", "batched", "recorded", "linearized"):
        given_one = hessian(model, LOSS, (x, y), backend=backend)
        assert given_one.tuned(64, 4).backend == backend


def test_the_choice_is_in_the_provenance(monkeypatch):
    monkeypatch.setattr(tuning, "WORTHWHILE", 0.0)
    model, (x, y) = build("mlp"), data()
    measured = rm.lanczos(hessian(model, LOSS, (x, y)), steps=20, probes=3, seed=0)
    assert "(a product of one batch: shared " in measured.provenance["backend"]
    reference = rm.lanczos(hessian(model, LOSS, (x, y), backend="shared"), steps=20, probes=3)
    assert measured.moment(2) == pytest.approx(reference.moment(2), rel=1e-12)


def state(model):
    return (
        [(t.clone(), t._version) for t in (*model.parameters(), *model.buffers())],
        [p.grad for p in model.parameters()],
        [m.training for m in model.modules()],
        torch.get_rng_state(),
    )


@pytest.mark.parametrize("backend", ["recorded", "linearized", "batched"])
def test_the_model_is_untouched(backend):
    model, (x, y) = build("convolution and batch norm"), data()
    before = state(model)
    whole(hessian(model, LOSS, (x, y), backend=backend))
    operator = hessian(model, LOSS, halves(x, y), memory=0)
    times(operator, shared=1.0, recorded=0.5)
    whole(operator)
    after = state(model)
    for (a, va), (b, vb) in zip(before[0], after[0]):
        assert torch.equal(a, b)
        assert va == vb
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])


def test_three_runs_do_not_grow_memory():
    model, (x, y) = build("attention and layer norm"), data()

    def tensors():
        operator = hessian(model, LOSS, (x, y))
        times(operator, shared=1.0, recorded=0.5)
        whole(operator)
        del operator
        gc.collect()
        return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())

    first = tensors()
    assert tensors() == first
    assert tensors() == first


@pytest.mark.parametrize("backend", ["recorded", "linearized"])
def test_data_changed_in_place_are_noticed(backend):
    model, (x, y) = build("mlp"), data()
    operator = hessian(model, LOSS, (x, y), backend=backend)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified in place since"):
        operator @ torch.ones(operator.dim, dtype=F64)


def test_exhausted_memory_is_explained():
    def greedy(output, y):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(MemoryError, match="pass the data as more, smaller batches"):
        hessian(build("mlp"), greedy, data())


def test_a_recording_repeats_what_depends_on_its_argument_and_only_that():
    x = torch.tensor([0.3, -0.7], dtype=F64)
    calls = []

    def function(tensors):
        (v,) = tensors
        calls.append(0)
        table = torch.zeros(2, 2, dtype=F64)
        table.copy_(v.expand(2, 2) * x.exp())  # a constant that becomes dependent
        low, high = table.t().split(1)
        high.mul_(2.0)  # through a view of a dependent tensor
        return [table.sum(0), low[0], torch.ones(1, dtype=F64)]

    u, v = torch.tensor([[1.0, 2.0], [5.0, -3.0]], dtype=F64)
    at_u, recording = record(function, [u])
    for found, wanted in zip(at_u, function([u]), strict=True):
        assert torch.equal(found, wanted)
    calls.clear()
    at_v = recording.run([v])
    assert not calls
    for found, wanted in zip(at_v, function([v]), strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(v, torch.tensor([5.0, -3.0], dtype=F64))


def test_what_cannot_be_recorded_is_refused():
    def number(tensors):
        return [tensors[0] * float(tensors[0].sum())]

    def hidden_view(tensors):
        table = torch.zeros(4, dtype=F64)
        seen = table[:2]
        table.copy_(tensors[0])
        return [seen * 2]

    ones = torch.ones(4, dtype=F64)
    with pytest.raises(NotRecordable, match="takes a number out"):
        record(number, [ones])
    with pytest.raises(NotRecordable, match="overwritten through a view"):
        record(hidden_view, [ones])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MODELS)
def test_every_backend_gives_the_same_on_a_gpu(kind):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, y = data()
    wanted = whole(hessian(build(kind), LOSS, given(kind, x, y), backend="shared"))
    for backend in ("shared", "recorded", "linearized", "batched"):
        operator = hessian(build(kind).cuda(), LOSS, given(kind, x, y), backend=backend)
        found = operator.matmat(torch.eye(operator.dim, dtype=F64, device="cuda")).cpu()
        assert_same(found, wanted, 1e-10)
    operator = hessian(build(kind).cuda(), LOSS, given(kind, x, y))
    times(operator, shared=1.0, recorded=0.9, batched=0.1)
    assert operator.backend.startswith("batched (")
