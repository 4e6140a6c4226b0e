"""Fisher matrices: exact, by drawn labels, by the data's labels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from networks import F64, WEIGHTS, XY, X, Y, build, dense, draw
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import rmthess as rm
from rmthess.operators.errors import NonDeterministicError
from rmthess.operators.noise import uniforms

drawn = partial(rm.fisher, estimate="monte_carlo")
empirical = partial(rm.fisher, estimate="empirical")


def assert_same(found, wanted, tolerance=1e-13):
    assert wanted.norm() > 1e-6
    assert (found - wanted).norm() <= tolerance * wanted.norm()


SOFT = torch.softmax(draw((7, 3), 3), 1)
LOSSES = {
    "categorical": (nn.CrossEntropyLoss(), Y),
    "weighted, ignored": (nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=1), Y),
    "summed": (nn.CrossEntropyLoss(reduction="sum"), Y),
    "probabilities": (nn.CrossEntropyLoss(weight=WEIGHTS), SOFT),
    "gaussian": (nn.MSELoss(), SOFT),
    "bernoulli": (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), SOFT),
}


def parts(y):
    return [(X[:4], y[:4]), (X[4:], y[4:])]


@pytest.mark.parametrize("kind", LOSSES)
def test_of_natural_parameters_fisher_is_gauss_newton(kind):
    """And of no others: the witness of sums over all labels is in test_models."""
    loss, y = LOSSES[kind]
    _, model = build("mlp")
    assert_same(
        dense(rm.fisher(model, loss, parts(y))), dense(rm.gauss_newton(model, loss, parts(y)))
    )


@pytest.mark.parametrize("estimate", ["exact", "empirical", "monte_carlo"])
def test_fisher_does_not_depend_on_the_coordinates_of_the_outputs(estimate):
    """log p is the same whether the model or the loss takes the logarithm of the softmax."""
    _, model = build("mlp")
    matrix = partial(rm.fisher, estimate=estimate)
    one = dense(matrix(model, nn.CrossEntropyLoss(weight=WEIGHTS), XY))
    two = dense(matrix(nn.Sequential(model, nn.LogSoftmax(1)), nn.NLLLoss(weight=WEIGHTS), XY))
    assert_same(two, one, 1e-12)


def test_drawn_labels_are_the_outer_products_of_their_scores():
    """The labels are read from the operator, the gradients of their losses taken one by one."""
    _, model = build("mlp")
    operator = drawn(model, nn.CrossEntropyLoss(weight=WEIGHTS), (X, Y), samples=5, seed=3)
    chosen = operator.engine.kept[0].middle.labels
    assert chosen.shape == (7, 5)
    assert len(chosen.unique()) == 3
    total = 0
    for i, row in enumerate(chosen):
        for label in row:
            loss = functional.cross_entropy(model(X[i : i + 1]), label[None])
            score = torch.cat(
                [g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]
            )
            total += WEIGHTS[Y[i]] / WEIGHTS[Y].sum() * torch.outer(score, score) / 5
    assert_same(dense(operator), total)


@pytest.mark.parametrize("kind", LOSSES)
def test_drawn_labels_do_not_depend_on_the_batches(kind):
    loss, y = LOSSES[kind]
    _, model = build("mlp")
    matrix = partial(drawn, model, loss, samples=3, seed=5)
    whole = dense(matrix((X, y)))
    for cut in (1, 4):
        pieces = [(X[:cut], y[:cut]), (X[cut:], y[cut:])]
        for memory in (None, 0):
            assert_same(dense(matrix(pieces, memory=memory)), whole)


def test_drawn_labels_are_those_of_the_seed_and_leave_the_global_one():
    case, model = build("tokens, padding")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = dense(drawn(model, case.loss, case.batches, seed=0))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(dense(drawn(model, case.loss, case.batches, seed=0)), first)
    other = dense(drawn(model, case.loss, case.batches, seed=1))
    assert (other - first).norm() > 0.1 * first.norm()


def test_more_draws_contain_the_fewer():
    """Draw k of a sample is the same however many there are: F_2 = (F_1 + F_1')/2."""
    _, model = build("mlp")
    one = drawn(model, nn.CrossEntropyLoss(), (X, Y), samples=1).engine.kept[0].middle.labels
    two = drawn(model, nn.CrossEntropyLoss(), (X, Y), samples=2).engine.kept[0].middle.labels
    assert torch.equal(one, two[:, :1])


def test_the_error_of_the_drawn_fisher_falls_like_the_root_of_the_draws():
    _, model = build("mlp")
    v = draw((27, 2), 4)
    for loss, y in (LOSSES["categorical"], LOSSES["gaussian"], LOSSES["bernoulli"]):
        wanted = rm.fisher(model, loss, (X, y)) @ v
        errors = [
            [
                float((drawn(model, loss, (X, y), samples=k, seed=s) @ v - wanted).norm())
                for k in (20, 2000)
            ]
            for s in range(6)
        ]
        few, many = np.mean(errors, axis=0)
        assert 5 < few / many < 20  # 10, and the spread of six norms


def test_saturated_outputs_draw_what_they_are_sure_of():
    """p = 1 in float32: no draw may land on another label, and nothing overflows."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[200.0], [-200.0]]))
    x, sure = torch.ones(50, 1), torch.tensor([[1.0, 0.0]]).expand(50, 2)
    found = drawn(model, nn.CrossEntropyLoss(), (x, sure.argmin(1)), samples=100)
    assert not dense(found).any()
    with pytest.warns(UserWarning, match="is zero: every score"):
        found = drawn(model, nn.BCEWithLogitsLoss(), (x, sure), samples=100)
    assert not dense(found).any()


def test_places_have_independent_uniform_numbers():
    """Mean, variance and correlations of neighbours along all three axes, at 4 standard errors."""
    u = uniforms(7, 0, (50, 40, 30)) - 0.5
    bound = 4 / u.size**0.5
    assert 0 < u.min() + 0.5 < 1e-4
    assert abs(u.mean()) < bound / 12**0.5
    assert abs(12 * u.var() - 1) < bound * (9 / 5 - 1) ** 0.5
    for axis in range(3):
        a, b = np.delete(u, 0, axis), np.delete(u, -1, axis)
        assert abs(12 * (a * b).mean()) < bound
    assert abs(12 * (u * (uniforms(8, 0, (50, 40, 30)) - 0.5)).mean()) < bound


def test_a_shuffling_loader_is_refused_where_labels_are_drawn():
    _, model = build("mlp")
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True)
    with pytest.raises(NonDeterministicError, match="pass shuffle=False"):
        drawn(model, nn.CrossEntropyLoss(), loader)
    for estimate in ("exact", "empirical"):
        matrix = partial(rm.fisher, estimate=estimate)
        wanted = dense(matrix(model, nn.CrossEntropyLoss(), (X, Y)))
        assert_same(dense(matrix(model, nn.CrossEntropyLoss(), loader, memory=0)), wanted)


def test_a_shuffled_single_batch_is_noticed():
    _, model = build("mlp")
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
    with pytest.raises(NonDeterministicError, match="batch 0 holds other samples"):
        drawn(model, nn.CrossEntropyLoss(), loader)


def test_where_the_labels_are_true_empirical_and_exact_agree_on_average():
    """Labels drawn from the model itself make the empirical Fisher a Monte Carlo one."""
    _, model = build("mlp")
    x, v = draw((40, 4), 8), draw((27, 2), 4)
    loss, p = nn.CrossEntropyLoss(), torch.softmax(model(x), 1).detach()
    wanted = rm.fisher(model, loss, (x, p.argmax(1))) @ v
    y = torch.multinomial(p, 40, replacement=True, generator=torch.Generator().manual_seed(0))
    found = torch.stack([empirical(model, loss, (x, labels)) @ v for labels in y.T])
    noise = found.std(0).norm() / 40**0.5
    assert noise < 0.1 * wanted.norm()
    assert (found.mean(0) - wanted).norm() < 2 * noise
    # And at the least likely labels it is another matrix.
    off = empirical(model, loss, (x, p.argmin(1))) @ v
    assert (off - wanted).norm() > 0.5 * wanted.norm()


def test_the_empirical_fisher_of_any_loss_over_samples_is_of_their_gradients():
    _, model = build("mlp")

    def loss(f, y):
        return (f - y).abs().pow(1.5).sum(1).mean()

    total = 0
    for i in range(7):
        g = torch.autograd.grad(loss(model(X[i : i + 1]), SOFT[i]), list(model.parameters()))
        g = torch.cat([part.reshape(-1) for part in g])
        total += torch.outer(g, g) / 7
    assert_same(dense(empirical(model, loss, parts(SOFT))), total)


def test_losses_without_known_likelihood_are_refused():
    _, model = build("mlp")
    for estimate in ("exact", "monte_carlo"):
        for loss, y in ((nn.HuberLoss(), SOFT), (lambda f, y: f.sum(), Y)):
            with pytest.raises(ValueError, match=r"the likelihood .* is not known"):
                rm.fisher(model, loss, (X, y), estimate=estimate)


def test_losses_that_couple_samples_have_no_empirical_fisher():
    _, model = build("mlp")
    for matrix in (empirical, rm.gradient_covariance):
        with pytest.raises(ValueError, match="couples its samples"):
            matrix(model, lambda f, y: f.exp().sum().log(), (X, Y))
        with pytest.raises(ValueError, match="do not split into its 7 samples"):
            matrix(model, lambda f, y: f.square().mean(), (X[:5], Y))


def test_wrong_arguments_are_named():
    _, model = build("mlp")
    with pytest.raises(ValueError, match="estimate must be one of"):
        rm.fisher(model, nn.CrossEntropyLoss(), XY, estimate="mc")
    for samples in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"samples must be a positive integer, got {samples}"):
            drawn(model, nn.CrossEntropyLoss(), XY, samples=samples)


def test_the_fisher_of_one_linear_layer_is_known_in_closed_form():
    """f = W x, one sample: F = (diag p - p pᵀ) ⊗ x xᵀ."""
    model = nn.Linear(4, 3, bias=False).double()
    p = torch.softmax(model(X[:1]), 1)[0].detach()
    wanted = torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(X[0], X[0]))
    assert_same(dense(rm.fisher(model, nn.CrossEntropyLoss(), (X[:1], Y[:1]))), wanted)
    assert wanted.dtype is F64
