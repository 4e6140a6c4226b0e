"""Faults of operators, models and data, each staged once, with what must happen.

The names are those of the catalogue; what is not here is in test_hessian.py and test_krylov.py.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import rmthess as rm
from rmthess.krylov.errors import LanczosError
from rmthess.operators.as_operator import as_operator
from rmthess.operators.check import check_operator
from rmthess.operators.errors import (
    NonDeterministicError,
    NonFiniteError,
    NotLinearError,
    NotSymmetricError,
)

F64 = torch.float64
LOSS = nn.CrossEntropyLoss()


def mlp(*extra):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *extra, nn.Tanh(), nn.Linear(5, 3)).double()


def batch(samples=12, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 4, dtype=F64, generator=g), torch.arange(samples) % 3


class Later:
    """Batches that turn to ``bad`` in pass number ``after``; the construction makes two."""

    def __init__(self, after, bad):
        self.after, self.bad, self.passes = after, bad, 0

    def __iter__(self):
        self.passes += 1
        yield batch()
        yield self.bad if self.passes > self.after else batch(seed=2)


def poisoned(place, value):
    x, y = batch(seed=2)
    x[place] = value
    return x, y


class Foreign:
    """Somebody's operator, from a function of columns."""

    def __init__(self, multiply, dim=30, dtype=F64):
        self.shape, self.dtype, self.device = (dim, dim), dtype, torch.device("cpu")
        self.matmat = multiply


DIAGONAL = torch.linspace(1, 2, 30, dtype=F64)[:, None]


# ---- 1-4: numbers that are not finite


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["1 NaN", "2 Inf"])
def test_a_product_that_is_not_finite_at_call_k_names_call_and_batch_and_keeps_the_steps(value, k):
    # Two passes at construction and two products of the self-check come before.
    data = Later(4 + k - 1, poisoned((3, 1), value))
    operator = rm.hessian(mlp(), LOSS, data, memory=0)
    with pytest.raises(
        LanczosError,
        match=rf"product {k} .*failed: NonFiniteError: batch 1: inputs.*"
        r"\(3, 1\)",
    ) as caught:
        rm.lanczos(operator, steps=8, probes=1)
    assert isinstance(caught.value.__cause__, NonFiniteError)
    steps = 0 if caught.value.partial is None else caught.value.partial.diagonals.shape[1]
    assert steps == k - 1


class Kink(nn.Module):
    """|x|^(3/2): its gradient at 0 is finite, its second derivative is not."""

    def forward(self, x):
        return x.abs().pow(1.5)


def test_a_second_derivative_that_is_not_finite_names_the_layer_and_the_batch():
    """1 layer of the first NaN; 3 NaN only in one batch."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), Kink(), nn.Linear(4, 3)).double()
    x, y = batch()
    operator = rm.hessian(model, LOSS, [(x, y), (torch.zeros_like(x), y)])
    with pytest.raises(NonFiniteError, match=r"product is not finite in batch 1, .*'0.weight'"):
        operator @ torch.ones(operator.dim, dtype=F64)


def test_3_an_infinity_in_one_batch_names_the_batch():
    with pytest.raises(NonFiniteError, match=r"batch 1: inputs holds 1 values"):
        rm.hessian(mlp(), LOSS, [batch(), poisoned((0, 0), np.inf)])


def test_4_a_loss_that_is_nan_from_the_start_is_refused_at_once():
    with pytest.raises(NonFiniteError, match=r"loss of batch 0 is nan .*log\(0\)"):
        rm.hessian(mlp(), lambda o, y: (o * 0).sum() / 0, batch())


# ---- 5-6: asymmetry


def test_5_an_operator_that_is_not_symmetric_is_refused_even_in_low_precision():
    upper = torch.triu(torch.randn(30, 30, generator=torch.Generator().manual_seed(0))).bfloat16()
    with pytest.raises(NotSymmetricError, match=r"\|u'Av - v'Au\| is \d"):
        check_operator(as_operator(Foreign(lambda v: upper @ v, dtype=torch.bfloat16)))


def test_6_a_bfloat16_hessian_is_slightly_asymmetric_and_its_result_says_so():
    x, y = batch()
    with pytest.warns(UserWarning, match=r"bfloat16.*8e-03 relative rounding"):
        operator = rm.hessian(mlp().bfloat16(), LOSS, (x.bfloat16(), y))
    found = rm.lanczos(operator, steps=4, probes=1)
    assert 1e-4 < found.provenance["asymmetry"] < 0.1


# ---- 7-10: what changes between products


def test_8_train_mode_batch_norm_under_a_shuffling_loader_is_named():
    data = DataLoader(TensorDataset(*batch(40)), batch_size=8, shuffle=True)
    model = mlp(nn.BatchNorm1d(5))
    buffers = [b.clone() for b in model.buffers()]
    with pytest.raises(NonDeterministicError, match=r"1 \(BatchNorm1d\).*model.eval\(\)"):
        rm.hessian(model, LOSS, data)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers()))
    rm.hessian(model.eval(), LOSS, data)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_9_a_shuffling_loader_is_no_fault(dtype):
    x, y = batch(40)
    data = DataLoader(TensorDataset(x.to(dtype), y), batch_size=8, shuffle=True)
    operator = rm.hessian(mlp().to(dtype), LOSS, data, memory=0)
    assert check_operator(operator).asymmetry < torch.finfo(dtype).eps ** 0.5


def test_10_random_augmentation_that_starts_late_is_found_by_the_self_check():
    rng = np.random.default_rng(0)

    class Augmented:
        passes = 0

        def __iter__(self):
            self.passes += 1
            x, y = batch()
            noise = 0.1 * torch.from_numpy(rng.standard_normal(x.shape))
            yield x + noise * (self.passes > 2), y

    operator = rm.hessian(mlp(), LOSS, Augmented(), memory=0)
    with pytest.raises(NonDeterministicError, match="the same product repeated differs by"):
        rm.lanczos(operator)


def test_an_operator_evaluated_at_the_vector_instead_of_the_weights_is_not_linear():
    model, (x, y) = mlp(), batch()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def at_the_vector(v):
        def loss(theta):
            pieces = theta.split([s.numel() for s in shapes])
            state = {n: t.view(s) for n, t, s in zip(names, pieces, shapes)}
            return LOSS(torch.func.functional_call(model, state, (x,)), y)

        columns = [torch.autograd.functional.vhp(loss, c, c)[1] for c in v.T.contiguous()]
        return torch.stack(columns, 1)

    with pytest.raises(NotLinearError, match=r"A\(u \+ 2v\) differs .* at the weights, or at the"):
        rm.lanczos(Foreign(at_the_vector, dim=43))


def test_an_affine_map_is_not_linear():
    with pytest.raises(NotLinearError, match="not linear"):
        check_operator(as_operator(Foreign(lambda v: DIAGONAL * v + 1e-3)))


# ---- 11-15: parameters and graphs


def test_11_a_parameter_that_the_loss_does_not_use_is_warned_of_by_name():
    model = mlp()
    model.register_parameter("spare", nn.Parameter(torch.ones(6, dtype=F64)))
    with pytest.warns(UserWarning, match=r"depend on \['spare'\].*params="):
        operator = rm.hessian(model, LOSS, batch())
    assert operator.dim == 49
    assert rm.numerical_rank(rm.eigenvalues(operator)).value <= 43


def test_12_a_loss_linear_in_the_parameters_and_13_one_without_graph_are_told_apart():
    linear = nn.Linear(4, 1).double()
    with pytest.warns(UserWarning, match="zero"):
        operator = rm.hessian(linear, lambda o, y: o.mean(), batch())
    assert rm.lanczos(operator, probes=1).nodes[0, 0] == 0
    with pytest.raises(ValueError, match=r"has no graph.*no_grad"):
        rm.hessian(linear, lambda o, y: o.detach().pow(2).mean(), batch())


# ---- 16-20: what torch cannot differentiate twice


def compiled_inside(model):
    model[0] = torch.compile(model[0], backend="aot_eager")
    return model


def compiled_in_place(model):
    model.compile(backend="aot_eager")
    return model


COMPILED = {
    "the whole model": lambda model: torch.compile(model, backend="aot_eager"),
    "a module in it": compiled_inside,
    "in place": compiled_in_place,
}


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
@pytest.mark.parametrize("kind", COMPILED)
def test_18_a_compiled_model_has_the_hessian_of_the_original(kind):
    data = batch()
    wanted = rm.dense(rm.hessian(mlp(), LOSS, data))
    model = COMPILED[kind](mlp())
    model(data[0])  # compiled now, so that its code is there to be run
    np.testing.assert_allclose(rm.dense(rm.hessian(model, LOSS, data)), wanted, atol=1e-14)


@pytest.mark.filterwarnings("ignore")
def test_18_a_compiled_loss_is_run_as_it_was_written():
    data = batch()
    loss = torch.compile(lambda o, y: nn.functional.cross_entropy(o, y), backend="aot_eager")
    wanted = rm.dense(rm.hessian(mlp(), LOSS, data))
    np.testing.assert_allclose(rm.dense(rm.hessian(mlp(), loss, data)), wanted, atol=1e-14)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Detaching(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.x**2 * g


class Proper(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Failing(torch.autograd.Function):
    """x³ by a second function, which has no derivative: a common idiom of kernels."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return Slope.apply(ctx.saved_tensors[0], g)


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g):
        return 3 * x**2 * g

    @staticmethod
    def backward(ctx, g):
        raise NotImplementedError("no kernel")


def test_19_a_custom_function_without_double_backward_is_named():
    with pytest.raises(
        RuntimeError, match=r"second derivative .* fails \(no kernel\).* Failing: w"
    ):
        rm.hessian(mlp(Apply(Failing.apply)), LOSS, batch())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("function", [Once, Detaching])
def test_19_a_custom_function_with_a_wrong_double_backward_is_named(function, dtype):
    x, y = batch()
    model = mlp(Apply(function.apply)).to(dtype)
    named = rf"differs by \d\d% from .* hand-written {function.__name__} seems"
    with pytest.warns(UserWarning, match=named):
        operator = rm.hessian(model, LOSS, (x.to(dtype), y))
    if function is Detaching:  # wrong and yet symmetric: nothing else could have found it
        assert check_operator(operator).asymmetry < 1e-4
    else:
        with pytest.raises(NotSymmetricError):
            check_operator(operator)


def test_19_the_residual_hessian_is_warned_of_as_the_hessian_is():
    with pytest.warns(UserWarning, match="hand-written Detaching seems"):
        rm.residual_hessian(mlp(Apply(Detaching.apply)), LOSS, batch())


@pytest.mark.parametrize("make", [rm.gauss_newton, rm.fisher, rm.gradient_covariance])
def test_19_what_needs_first_derivatives_only_is_right_with_detached_ones(make):
    found = make(mlp(Apply(Detaching.apply)), LOSS, batch())
    wanted = make(mlp(Apply(lambda x: x**3)), LOSS, batch())
    np.testing.assert_allclose(rm.dense(found), rm.dense(wanted), atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_19_a_proper_custom_function_is_not_complained_of(dtype):
    x, y = batch()
    data = (x.to(dtype), y)
    found = rm.hessian(mlp(Apply(Proper.apply)).to(dtype), LOSS, data)
    wanted = rm.hessian(mlp(Apply(lambda x: x**3)).to(dtype), LOSS, data)
    assert found.hand_written == {"Proper"}
    assert wanted.hand_written == set()
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(rm.dense(found), rm.dense(wanted), atol=10 * eps)


def test_20_a_relu_network_works():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    assert rm.lanczos(rm.hessian(model, LOSS, batch()), steps=4, probes=1).probes == 1


# ---- 22-24: parameters that have no curvature


def test_22_sparse_parameters_are_refused_by_name():
    model = mlp()
    model.register_parameter("lookup", nn.Parameter(torch.eye(3, dtype=F64).to_sparse()))
    with pytest.raises(TypeError, match=r"'lookup' is torch.sparse_coo; pass a dense one"):
        rm.hessian(model, LOSS, batch())


def test_23_parameters_on_a_device_without_data_are_refused_by_name():
    model = mlp()
    model[2].to("meta")
    with pytest.raises(TypeError, match=r"'2.weight' is on the meta device, .*load"):
        rm.hessian(model, LOSS, batch())


@pytest.mark.gpu
def test_23_parameters_on_two_devices_work():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()
            self.body[2].cuda()

        def forward(self, x):
            return self.body[2](torch.tanh(self.body[0](x)).cuda())

    wanted = rm.dense(rm.hessian(mlp(), LOSS, batch()))
    x, y = batch()
    found = rm.hessian(Split(), LOSS, (x, y.cuda()))
    np.testing.assert_allclose(rm.dense(found), wanted, atol=1e-13)


def test_24_a_model_of_integer_parameters_has_no_hessian():
    model = mlp()
    model[0].weight = nn.Parameter(torch.ones(5, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"'0.weight' has dtype torch.int8; .* convert it"):
        rm.hessian(model, LOSS, batch(), params=["0.weight"])


# ---- 26: data that are gone


def test_26_data_that_are_gone_at_the_second_product_are_told():
    class Twice:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([batch()] if self.passes <= 3 else [])

    operator = rm.hessian(mlp(), LOSS, Twice(), memory=0)
    v = torch.ones(operator.dim, dtype=F64)
    assert torch.isfinite(operator @ v).all()
    with pytest.raises(ValueError, match="it yielded no batch"):
        operator @ v


# ---- 32-37: foreign operators


def test_32_an_operator_that_lies_about_its_shape_is_told_at_the_first_product():
    liar = Foreign(lambda v: DIAGONAL[:-1] * v)
    with pytest.raises(RuntimeError, match="must match") as caught:
        rm.lanczos(liar)
    assert (
        "Foreign(30x30, float64) multiplied vectors of shape (30, 2)" in caught.value.__notes__[0]
    )


@pytest.mark.parametrize(
    "multiply",
    [
        lambda v: (DIAGONAL * v)[:1],
        lambda v: (DIAGONAL * v).float(),
        lambda v: (DIAGONAL * v)[:, 0],
    ],
    ids=["one row", "float32", "one column"],
)
def test_32_a_lie_is_found_inside_a_sum_too(multiply):
    total = 2 * as_operator(Foreign(multiply)) + as_operator(torch.eye(30, dtype=F64))
    with pytest.raises(ValueError, match=r"Foreign\(30x30, float64\) maps shape \(30, 2\)"):
        rm.lanczos(total)


@pytest.mark.parametrize("wrap", [as_operator, lambda a: 2 * as_operator(a)], ids=["it", "a sum"])
def test_33_an_operator_that_modifies_its_input_is_caught(wrap):
    with pytest.raises(ValueError, match="modifies its input"):
        rm.lanczos(wrap(Foreign(lambda v: v.mul_(DIAGONAL))))


def test_33_a_numpy_operator_that_modifies_its_input_cannot_reach_it():
    def multiply(v):
        v *= DIAGONAL.numpy()
        return v

    operator = as_operator(LinearOperator((30, 30), matvec=multiply, matmat=multiply, dtype=float))
    v = torch.ones(30, 2, dtype=F64)
    assert torch.equal(operator @ v, DIAGONAL * v)
    assert torch.equal(v, torch.ones(30, 2, dtype=F64))


def test_34_an_exception_inside_a_product_keeps_its_type_and_says_whose_it_was():
    def fail(v):
        raise ZeroDivisionError("kernel")

    with pytest.raises(ZeroDivisionError) as caught:
        rm.dense(Foreign(fail))
    assert "while Foreign(30x30, float64) multiplied" in caught.value.__notes__[0]


def test_35_a_product_that_hangs_is_announced_with_the_one_before(capsys):
    calls = []

    def multiply(v):
        calls.append(time.sleep(0.2 if len(calls) == 6 else 0))
        return DIAGONAL * v

    measured = rm.lanczos(Foreign(multiply), steps=8, probes=1, timeout=0.05)
    assert measured.steps == 8
    said = capsys.readouterr().err
    assert "product 5 has not returned in 0.05 s (the last took " in said
    assert said.count("\n") == 1
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds, got 0"):
        rm.lanczos(np.eye(3), timeout=0)


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_36_a_loss_of_extreme_scale_has_a_scaled_hessian(scale):
    data = batch()
    plain = rm.dense(rm.hessian(mlp(), LOSS, data))
    found = rm.hessian(mlp(), lambda o, y: scale * LOSS(o, y), [data, data])
    np.testing.assert_allclose(rm.dense(found) / scale, plain, atol=1e-13)
    values = rm.eigenvalues(found)
    top = rm.lanczos(found, steps=43, probes=1).quadratures()[0].nodes[-1]
    assert top == pytest.approx(values[-1], rel=1e-11)


def test_37_a_start_orthogonal_to_an_eigenvector_misses_it_and_random_probes_do_not():
    spectrum = np.append(np.linspace(0, 1, 29), 7.0)
    blind = np.append(np.ones(29), 0.0)
    missed = rm.lanczos(np.diag(spectrum), steps=30, start=blind)
    assert missed.quadratures()[0].nodes.max() == pytest.approx(1)
    seen = rm.lanczos(np.diag(spectrum), steps=30, probes=3)
    for rule in seen.quadratures():
        assert rule.nodes.max() == pytest.approx(7)
    assert "A probe orthogonal to an eigenspace cannot see it" in rm.lanczos.__doc__
