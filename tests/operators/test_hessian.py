"""The Hessian operator against torch.func.hessian, finite differences, and everything users do."""

from __future__ import annotations

import functools
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import rmthess as rm
from rmthess.operators.errors import NonDeterministicError, NonFiniteError
from rmthess.operators.hessian import hessian

# torch 2.13 loads its own forward-mode rules through the deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

F64 = torch.float64
CLASSES = 3


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def batch(samples=10, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, dtype=F64, generator=g)
    return x, torch.randint(0, CLASSES, (samples,), generator=g)


def exact(model, loss, x, y, names=None):
    """Dense Hessian by torch.func, forward over reverse: no line shared with ours."""
    chosen = [(n, p) for n, p in model.named_parameters() if names is None or n in names]
    shapes = [p.shape for _, p in chosen]
    flat = torch.cat([p.detach().reshape(-1) for _, p in chosen])
    buffers = {n: b.clone() for n, b in model.named_buffers()}

    def value(theta):
        pieces = theta.split([s.numel() for s in shapes])
        state = {n: t.view(s) for (n, _), t, s in zip(chosen, pieces, shapes)}
        state |= {n: b.clone() for n, b in buffers.items()}
        return loss(torch.func.functional_call(model, state, (x,)), y)

    return torch.func.hessian(value)(flat)


def by_differences(model, loss, x, y, h=1e-5):
    """Columns (g(θ + h e_i) - g(θ - h e_i))/2h; about 1e-9 off by h² and by eps/h."""
    names = [n for n, _ in model.named_parameters()]
    values = [p.detach() for p in model.parameters()]
    flat = torch.cat([v.reshape(-1) for v in values])

    def gradient(theta):
        pieces = theta.split([v.numel() for v in values])
        leaves = [t.view(v.shape).clone().requires_grad_() for t, v in zip(pieces, values)]
        state = dict(zip(names, leaves)) | {n: b.clone() for n, b in model.named_buffers()}
        value = loss(torch.func.functional_call(model, state, (x,)), y)
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, leaves)])

    steps = h * torch.eye(flat.numel(), dtype=F64)
    return torch.stack([(gradient(flat + s) - gradient(flat - s)) / (2 * h) for s in steps])


def whole(operator):
    return operator.matmat(torch.eye(operator.dim, dtype=operator.dtype))


def assert_same(found, wanted, tolerance=1e-12):
    assert wanted.norm() > 1e-6
    assert (found - wanted).norm() <= tolerance * wanted.norm()


class Attention(nn.Module):
    def __init__(self, normalise=True):
        super().__init__()
        self.lift = nn.Linear(2, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4) if normalise else nn.Identity()
        self.head = nn.Linear(4, CLASSES)

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
        return self.second(torch.tanh(self.first(x[:, self.permutation])))[:, :CLASSES]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x):
        return self.lstm(x.view(-1, 2, 2))[0][:, -1]


def convolutional(norm):
    shape = nn.Unflatten(1, (1, 2, 2))
    return nn.Sequential(
        shape, nn.Conv2d(1, 3, 2, padding=1), norm, nn.Softplus(), nn.Flatten(), nn.Linear(27, 3)
    )


MODELS = {
    "mlp": mlp,
    "attention and layer norm": Attention,
    "convolution and batch norm": lambda: convolutional(nn.BatchNorm2d(3)),
    "group norm": lambda: convolutional(nn.GroupNorm(1, 3)),
    "tied weights and an integer buffer": Tied,
    "lstm": Recurrent,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_products_equal_the_dense_hessian(kind, training):
    torch.manual_seed(3)
    model = MODELS[kind]().double().train(training)
    x, y = batch(6)
    operator = hessian(model, nn.CrossEntropyLoss(), (x, y))
    found = whole(operator)
    wanted = by_differences(model, nn.CrossEntropyLoss(), x, y)
    assert operator.shape == tuple(wanted.shape)
    assert_same(found, wanted, 1e-8)
    assert_same(found, found.T)
    if "norm" not in kind:  # torch.func.hessian itself is wrong through layer and batch norm
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            assert_same(found, exact(model, nn.CrossEntropyLoss(), x, y))


def test_relu_products_equal_finite_differences_of_the_gradient():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)).double()
    x, y = batch()
    operator = hessian(model, nn.CrossEntropyLoss(), (x, y))
    v = torch.randn(operator.dim, dtype=F64, generator=torch.Generator().manual_seed(0))
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient(at):
        nn.utils.vector_to_parameters(at, model.parameters())
        loss = functional.cross_entropy(model(x), y)
        return nn.utils.parameters_to_vector(torch.autograd.grad(loss, model.parameters()))

    h = 1e-6
    difference = (gradient(theta + h * v) - gradient(theta - h * v)) / (2 * h)
    # Central differences: h² in truncation, eps/h = 2e-10 in rounding.
    assert_same(operator @ v, difference, 1e-8)


def test_reverse_over_forward_is_wrong_through_layer_norm_and_ours_is_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, CLASSES)).double()
    x, y = batch()
    names = [n for n, _ in model.named_parameters()]
    theta = tuple(p.detach() for p in model.parameters())
    v = tuple(torch.randn_like(p) for p in theta)

    def value(*params):
        output = torch.func.functional_call(model, dict(zip(names, params)), (x,))
        return functional.cross_entropy(output, y)

    wanted = torch.autograd.functional.vhp(value, theta, v)[1]
    wanted = torch.cat([w.reshape(-1) for w in wanted])
    operator = hessian(model, nn.CrossEntropyLoss(), (x, y))
    flat = torch.cat([p.reshape(-1) for p in v])
    assert_same(operator @ flat, wanted)

    def slope(*params):
        return torch.func.jvp(value, params, v)[1]

    wrong = torch.func.grad(slope, argnums=tuple(range(len(theta))))(*theta)
    wrong = torch.cat([w.reshape(-1) for w in wrong])
    through_func = exact(model, nn.CrossEntropyLoss(), x, y) @ flat
    if torch.__version__.startswith("2.13"):
        assert (wrong - wanted).norm() > 1e-3 * wanted.norm()
        assert (through_func - wanted).norm() > 1e-3 * wanted.norm()


LOSSES = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0], dtype=F64)),
    "ignored labels": nn.CrossEntropyLoss(ignore_index=1),
    "smoothing, weights, ignored": nn.CrossEntropyLoss(
        weight=torch.tensor([0.2, 1.0, 3.0], dtype=F64), ignore_index=1, label_smoothing=0.1
    ),
    "function": functional.cross_entropy,
    "partial": functools.partial(
        functional.cross_entropy, weight=torch.tensor([2.0, 1.0, 0.5], dtype=F64), ignore_index=0
    ),
    "unknown mean": lambda output, y: functional.cross_entropy(output, y),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("memory", [None, 0])
def test_uneven_batches_weigh_like_one_batch(kind, memory):
    model, loss, (x, y) = mlp(), LOSSES[kind], batch(10)
    whole_batch = hessian(model, loss, (x, y))
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    split = hessian(model, loss, batches, memory=memory)
    assert split.shared is (memory is None)
    assert_same(whole(split), whole(whole_batch))
    assert split.loss == pytest.approx(whole_batch.loss, rel=1e-13)
    assert_same(split.gradient, whole_batch.gradient)
    assert_same(whole(whole_batch), exact(model, loss, x, y))


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(),
        nn.MSELoss(reduction="sum"),
        nn.HuberLoss(),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0], dtype=F64)),
        nn.KLDivLoss(reduction="batchmean"),
        nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0], dtype=F64)),  # soft labels
    ],
    ids=str,
)
def test_uneven_batches_of_real_targets_weigh_like_one_batch(loss):
    model, (x, _) = mlp(), batch(10)
    y = torch.softmax(torch.randn(10, CLASSES, dtype=F64), 1)
    split = hessian(model, loss, [(x[:8], y[:8]), (x[8:], y[8:])])
    assert_same(whole(split), exact(model, loss, x, y))


def test_a_batch_of_ignored_labels_weighs_nothing():
    model, (x, y) = mlp(), batch(6)
    loss = nn.CrossEntropyLoss(ignore_index=1)
    blank = (x, torch.ones_like(y))
    assert_same(whole(hessian(model, loss, [blank, (x, y)])), whole(hessian(model, loss, (x, y))))
    with pytest.raises(ValueError, match="total weight of the data is 0"):
        hessian(model, loss, [blank])


def test_tokens_are_weighted_by_their_number():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, CLASSES), nn.Unflatten(1, (CLASSES, 1))).double()
    x, y = batch(5)
    y = y[:, None].clone()
    y[3:] = -100
    loss = nn.CrossEntropyLoss()
    split = hessian(model, loss, [(x[:2], y[:2]), (x[2:], y[2:])])
    assert_same(whole(split), exact(model, loss, x, y))


def test_weight_overrides_what_is_inferred():
    model, (x, y) = mlp(), batch(10)
    parts = [(x[:8], y[:8]), (x[8:], y[8:])]
    found = hessian(
        model, nn.CrossEntropyLoss(), parts, weight=lambda b: 3.0 if len(b[1]) == 8 else 1
    )
    one, two = (exact(model, nn.CrossEntropyLoss(), *part) for part in parts)
    assert_same(whole(found), 0.75 * one + 0.25 * two)
    with pytest.raises(ValueError, match="weight of batch 0 must be finite and not negative"):
        hessian(model, nn.CrossEntropyLoss(), parts, weight=lambda b: -1.0)


def test_a_shuffling_loader_gives_the_same_operator_and_leaves_the_seed():
    model, (x, y) = mlp(), batch(10)
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for memory in (None, 0):
        found = whole(hessian(model, nn.CrossEntropyLoss(), loader, memory=memory))
        assert_same(found, exact(model, nn.CrossEntropyLoss(), x, y))
    assert torch.equal(before, torch.get_rng_state())


def test_inputs_may_be_a_dict_or_a_tuple():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = mlp()

        def forward(self, left, right):
            return self.layer(left * right)

    model, (x, y) = Pair(), batch(6)
    wanted = whole(hessian(model.layer, nn.CrossEntropyLoss(), (x * x, y)))
    loss = nn.CrossEntropyLoss()
    assert_same(whole(hessian(model, loss, ({"left": x, "right": x}, y))), wanted)
    assert_same(whole(hessian(model, loss, [((x, x), y)])), wanted)
    no_targets = [{"left": x, "right": x}]
    assert_same(whole(hessian(model, lambda o: functional.cross_entropy(o, y), no_targets)), wanted)


def test_params_choose_a_diagonal_block():
    model, (x, y) = mlp(), batch()
    full = exact(model, nn.CrossEntropyLoss(), x, y)
    assert hessian(model, nn.CrossEntropyLoss(), (x, y)).names == (
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    )
    for params in (["2.bias", "2.weight"], lambda name: name.startswith("2.")):
        block = hessian(model, nn.CrossEntropyLoss(), (x, y), params=params)
        assert block.names == ("2.weight", "2.bias")
        assert_same(whole(block), full[25:, 25:])
    model[0].requires_grad_(False)
    assert hessian(model, nn.CrossEntropyLoss(), (x, y)).dim == 18
    assert hessian(model, nn.CrossEntropyLoss(), (x, y), params=lambda n: True).dim == 18
    assert hessian(model, nn.CrossEntropyLoss(), (x, y), params="0.bias").dim == 5


def test_tied_parameters_count_once_and_answer_to_both_names():
    model, (x, y) = Tied().double(), batch()
    operator = hessian(model, nn.CrossEntropyLoss(), (x, y), params=["second.weight"])
    assert operator.names == ("first.weight",)
    assert operator.dim == 16
    assert_same(whole(operator), exact(model, nn.CrossEntropyLoss(), x, y))


def test_unused_parameters_have_a_zero_block_and_are_listed():
    model, (x, y) = mlp(), batch()
    model.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=F64)))
    with pytest.warns(UserWarning, match=r"does not depend on \['spare'\]"):
        operator = hessian(model, nn.CrossEntropyLoss(), (x, y))
    assert operator.unused == ("spare",)
    found = whole(operator)
    assert not found[:2].any()
    assert not found[:, :2].any()
    assert_same(found[2:, 2:], exact(mlp(), nn.CrossEntropyLoss(), x, y))


def test_the_operator_is_a_snapshot():
    x, y = batch()
    for memory in (None, 0):
        model = convolutional(nn.BatchNorm2d(3)).double()
        operator = hessian(model, nn.CrossEntropyLoss(), [(x, y)], memory=memory)
        before = whole(operator)
        model.eval()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.mul_(3)
        assert torch.equal(whole(operator), before)


def state_of(model):
    return {
        "tensors": [
            (t.clone(), t._version, id(t)) for t in (*model.parameters(), *model.buffers())
        ],
        "grads": [p.grad for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "flags": (
            torch.is_grad_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cudnn.enabled,
            torch.get_default_dtype(),
            torch.is_inference_mode_enabled(),
        ),
    }


def assert_untouched(before, after):
    for key in before:
        if key == "tensors":
            for (a, va, ia), (b, vb, ib) in zip(before[key], after[key], strict=True):
                assert torch.equal(a, b)
                assert (va, ia) == (vb, ib)
        elif key == "torch":
            assert torch.equal(before[key], after[key])
        else:
            assert before[key] == after[key], key


class Restless(nn.Module):
    """Batch norm, attention, a counter, a cache, and draws from three generators."""

    def __init__(self, fail=False):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.body = Attention()
        self.calls, self.fail = 0, fail

    def forward(self, x):
        self.calls += 1
        self.cache = self.norm(x)
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        self.eval()
        if self.fail:
            raise RuntimeError("broken model")
        return self.body(self.cache)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("surrounding", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_and_all_global_state_are_untouched(memory, surrounding):
    model, (x, y) = Restless().double(), batch()
    model.body.eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = state_of(model)
    with surrounding():
        operator = hessian(model, nn.CrossEntropyLoss(), [(x, y)], memory=memory)
        whole(operator)
    assert_untouched(before, state_of(model))


def test_the_model_is_untouched_after_an_exception():
    model, (x, y) = Restless(fail=True).double(), batch()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="broken model") as caught:
        hessian(model, nn.CrossEntropyLoss(), (x, y))
    assert "batch 0" in caught.value.__notes__[0]
    assert_untouched(before, state_of(model))


def test_attention_default_backend_has_no_second_derivative_but_ours_works():
    model, (x, y) = Attention().double(), batch()
    loss = functional.cross_entropy(model(x), y)
    g = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(sum(t.sum() for t in g), list(model.parameters()))
    operator = hessian(model, nn.CrossEntropyLoss(), (x, y))
    assert torch.isfinite(operator @ torch.ones(operator.dim, dtype=F64)).all()


def test_one_column_and_many_agree():
    model, (x, y) = mlp(), batch()
    operator = rm.hessian(model, nn.CrossEntropyLoss(), (x, y))
    vectors = torch.randn(operator.dim, 3, dtype=F64)
    block = operator @ vectors
    assert block.shape == vectors.shape
    assert torch.equal(block[:, 1], operator @ vectors[:, 1])
    with pytest.raises(ValueError, match=r"must have shape \(43, k\), got \(5, 2\)"):
        operator.matmat(torch.ones(5, 2, dtype=F64))
    with pytest.raises(TypeError, match=r"dtype torch.float64, got torch.float32"):
        operator.matmat(torch.ones(43, 2))
    assert repr(operator) == (
        "Hessian(dim=43, parameters=4, batches=1, loss=CrossEntropyLoss, dtype=float64, device=cpu)"
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's process table")
@pytest.mark.parametrize("memory", [None, 0])
def test_operators_that_are_dropped_free_their_graphs(memory):
    model = nn.Sequential(nn.Linear(50, 400), nn.Tanh(), nn.Linear(400, CLASSES))
    x, y = torch.randn(2000, 50), torch.arange(2000) % CLASSES

    def resident_after(runs):
        for _ in range(runs):
            hessian(model, nn.CrossEntropyLoss(), [(x, y)], memory=memory).matmat(
                torch.ones(21603, 1)
            )
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # A leaked graph would hold at least 2000 * 400 floats, twice.
    before = resident_after(5)
    assert resident_after(10) - before < 20e6


# ---- bad input


def test_dropout_in_train_mode_is_named():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, CLASSES)).double()
    for data in (batch(), [batch()]):
        with pytest.raises(NonDeterministicError, match=r"1 \(Dropout\).*model.eval\(\)"):
            hessian(model, nn.CrossEntropyLoss(), data)
    hessian(model.eval(), nn.CrossEntropyLoss(), batch())


def test_dropout_inside_attention_is_named():
    model = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True).double()
    x = torch.randn(3, 2, 4, dtype=F64)
    with pytest.raises(NonDeterministicError, match=r"self_attn \(MultiheadAttention\)"):
        hessian(model, nn.MSELoss(), (x, x))


def test_random_augmentation_is_refused():
    class Noisy:
        def __iter__(self):
            x, y = batch()
            yield x + torch.from_numpy(np.random.randn(*x.shape)), y  # noqa: NPY002

    with pytest.raises(NonDeterministicError, match="augmentation"):
        hessian(mlp(), nn.CrossEntropyLoss(), Noisy())


def test_data_that_can_be_read_only_once_are_refused():
    with pytest.raises(TypeError, match=r"generator, which is exhausted.*list\(data\)"):
        hessian(mlp(), nn.CrossEntropyLoss(), (batch() for _ in range(2)))

    class Once:
        def __init__(self):
            self.inner = iter([batch()])

        def __iter__(self):
            return self.inner

    with pytest.raises(ValueError, match="read only once"):
        hessian(mlp(), nn.CrossEntropyLoss(), Once())


def test_data_that_shrink_between_passes_are_refused():
    class Shrinking:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            yield from [batch()] * (3 if self.passes <= 2 else 2)

    operator = hessian(mlp(), nn.CrossEntropyLoss(), Shrinking(), memory=0)
    with pytest.raises(NonDeterministicError, match="the data changed"):
        operator @ torch.ones(operator.dim, dtype=F64)


def test_empty_data_are_refused():
    x, y = batch()
    with pytest.raises(ValueError, match="data is empty"):
        hessian(mlp(), nn.CrossEntropyLoss(), [])
    with pytest.raises(ValueError, match="batch 1 is empty"):
        hessian(mlp(), nn.CrossEntropyLoss(), [(x, y), (x[:0], y[:0])])


def test_data_of_the_wrong_form_are_refused():
    x, y = batch()
    loss = nn.CrossEntropyLoss()
    with pytest.raises(TypeError, match="data is a Tensor"):
        hessian(mlp(), loss, x)
    with pytest.raises(TypeError, match="batch 0 is a Tensor"):
        hessian(mlp(), loss, [x, y])
    with pytest.raises(TypeError, match="wrap it: DataLoader"):
        hessian(mlp(), loss, TensorDataset(x, y))
    with pytest.raises(TypeError, match="iterable of batches"):
        hessian(mlp(), loss, 3)
    with pytest.raises(TypeError, match=r"torch.nn.Module, got function"):
        hessian(lambda x: x, loss, (x, y))
    with pytest.raises(TypeError, match="loss must be callable"):
        hessian(mlp(), "mse", (x, y))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_the_data_names_batch_and_place(value):
    x, y = batch()
    bad = x.clone()
    bad[2, 3] = value
    with pytest.raises(NonFiniteError, match=r"batch 1: inputs holds 1 values.*\(2, 3\)"):
        hessian(mlp(), nn.CrossEntropyLoss(), [(x, y), (bad, y)])
    with pytest.raises(NonFiniteError, match=r"batch 0: targets\[0\]"):
        hessian(mlp(), nn.MSELoss(), (x, bad[:, 1:]))


def test_nan_in_the_parameters_names_the_first():
    model = mlp()
    with torch.no_grad():
        model[2].bias[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"'2.bias' holds 1 values"):
        hessian(model, nn.CrossEntropyLoss(), batch())


def test_nan_in_loss_gradient_and_product_are_told_apart():
    model, data = nn.Linear(4, 1).double(), batch()
    with pytest.raises(NonFiniteError, match="loss of batch 0 is nan"):
        hessian(model, lambda o, y: (o - o.max() - 1).log().sum(), data)
    with pytest.raises(NonFiniteError, match=r"gradient of batch 0 is not finite.*'weight'"):
        hessian(model, lambda o, y: (o - o.detach()).abs().sqrt().sum(), data)
    operator = hessian(model, lambda o, y: (o - o.detach()).abs().pow(1.5).sum(), [data, data])
    with pytest.raises(NonFiniteError, match=r"product is not finite in batch 0.*'weight'"):
        operator @ torch.ones(5, dtype=F64)
    fine = hessian(model, lambda o, y: o.pow(2).sum(), data)
    with pytest.raises(NonFiniteError, match="vectors to be multiplied"):
        fine @ torch.full((5,), float("nan"), dtype=F64)


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(), nn.NLLLoss(), functional.cross_entropy],
    ids=["CrossEntropyLoss", "NLLLoss", "cross_entropy"],
)
def test_labels_out_of_range_are_named_before_the_kernel_sees_them(loss):
    x, y = batch()
    wrong = y.clone()
    wrong[4] = 7
    with pytest.raises(ValueError, match=r"batch 1: the largest label is 7, but .* 3 outputs"):
        hessian(mlp(), loss, [(x, y), (x, wrong)])
    wrong[4] = -1
    with pytest.raises(ValueError, match="a label is -1"):
        hessian(mlp(), loss, (x, wrong))


def test_losses_that_are_no_scalar_or_have_no_graph_are_refused():
    model, data = mlp(), batch()
    with pytest.raises(ValueError, match="scalar, got shape"):
        hessian(model, lambda o, y: o.pow(2), data)
    with pytest.raises(ValueError, match='reduction="none"'):
        hessian(model, nn.CrossEntropyLoss(reduction="none"), data)
    with pytest.raises(TypeError, match="must be a tensor, got float"):
        hessian(model, lambda o, y: o.pow(2).sum().item(), data)
    with pytest.raises(ValueError, match="has no graph"):
        hessian(model, torch.no_grad()(nn.CrossEntropyLoss()), data)


def test_a_loss_linear_in_the_parameters_has_a_zero_hessian_and_warns():
    model = nn.Linear(4, 1).double()
    with pytest.warns(UserWarning, match="linear in the chosen parameters"):
        operator = hessian(model, lambda o, y: o.mean(), batch())
    assert not whole(operator).any()


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameters: all 4"):
        hessian(mlp().requires_grad_(False), nn.CrossEntropyLoss(), batch())
    with pytest.raises(ValueError, match="the model has no parameters"):
        hessian(nn.ReLU(), nn.MSELoss(), batch())
    with pytest.raises(ValueError, match="selects none of the 4"):
        hessian(mlp(), nn.CrossEntropyLoss(), batch(), params=lambda n: False)
    with pytest.raises(ValueError, match=r"no parameter of the model: \['weights'\]"):
        hessian(mlp(), nn.CrossEntropyLoss(), batch(), params=["weights"])


def test_parameters_of_unsuitable_dtype_are_refused_or_warned_of():
    x, y = batch()
    model = mlp()
    model.register_parameter("phase", nn.Parameter(torch.tensor([1j])))
    with pytest.raises(TypeError, match=r"'phase' has dtype torch.complex64"):
        hessian(model, nn.CrossEntropyLoss(), (x, y))
    model = mlp()
    model.register_parameter("count", nn.Parameter(torch.tensor([1]), requires_grad=False))
    assert hessian(model, nn.CrossEntropyLoss(), (x, y)).dim == 43
    with pytest.raises(TypeError, match=r"'count' has dtype torch.int64"):
        hessian(model, nn.CrossEntropyLoss(), (x, y), params=["count"])
    with pytest.warns(UserWarning, match=r"bfloat16.*8e-03 relative rounding"):
        hessian(mlp().bfloat16(), nn.CrossEntropyLoss(), (x.bfloat16(), y))
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(TypeError, match="run the model once"):
        hessian(lazy, nn.CrossEntropyLoss(), (x.float(), y))


@pytest.mark.gpu
def test_gpu_products_equal_cpu_products():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for make in MODELS.values():
        torch.manual_seed(3)
        model, (x, y) = make().double(), batch(6)
        on_cpu = whole(hessian(model, nn.CrossEntropyLoss(), (x, y)))
        on_gpu = hessian(model.cuda(), nn.CrossEntropyLoss(), (x, y))  # data are moved
        found = on_gpu.matmat(torch.eye(on_gpu.dim, dtype=F64, device="cuda")).cpu()
        assert_same(found, on_cpu, 1e-10)
