"""The covariance of single-sample gradients, against gradients taken one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import F64, WEIGHTS, XY, X, Y, build, dense, draw, labels
from torch import nn
from torch.nn import functional

import rmthess as rm


def assert_same(found, wanted, tolerance=1e-12):
    assert wanted.norm() > 1e-6
    assert (found - wanted).norm() <= tolerance * wanted.norm()


def gradients(model, loss, x, y):
    """(samples, dim): of every sample's own loss."""
    rows = []
    for i in range(len(x)):
        g = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in g]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(), lambda f, y: functional.nll_loss(f.log_softmax(1), y)],
    ids=["known", "unknown"],
)
def test_it_is_the_covariance_of_the_gradients(loss):
    _, model = build("mlp")
    wanted = torch.cov(gradients(model, loss, X, Y).T, correction=0)
    assert_same(dense(rm.gradient_covariance(model, loss, XY)), wanted)
    assert_same(dense(rm.gradient_covariance(model, loss, (X, Y))), wanted)


def test_it_is_the_noise_of_mini_batches():
    """All 49 ordered pairs drawn with replacement: their mean gradients have covariance C/2."""
    _, model = build("mlp")
    g = gradients(model, nn.CrossEntropyLoss(), X, Y)
    pairs = ((g[:, None] + g[None]) / 2).reshape(49, -1)
    found = dense(rm.gradient_covariance(model, nn.CrossEntropyLoss(), XY))
    assert_same(found / 2, torch.cov(pairs.T, correction=0))


def test_a_sum_scales_like_the_square_of_the_number_of_samples():
    _, model = build("mlp")
    mean = dense(rm.gradient_covariance(model, nn.CrossEntropyLoss(), XY))
    total = dense(rm.gradient_covariance(model, nn.CrossEntropyLoss(reduction="sum"), XY))
    assert_same(total, 49 * mean)


def test_class_weights_divide_by_the_sum_over_all_data():
    _, model = build("mlp")
    loss = nn.CrossEntropyLoss(weight=WEIGHTS)
    g = gradients(model, nn.CrossEntropyLoss(), X, Y)
    g = 7 * WEIGHTS[Y][:, None] * g / WEIGHTS[Y].sum()
    found = dense(rm.gradient_covariance(model, loss, XY))
    assert_same(found, torch.cov(g.T, correction=0))


def test_a_sample_of_tokens_is_a_sequence():
    case, model = build("tokens, padding")
    ids = torch.cat([x for x, _ in case.batches])
    y = torch.cat([y for _, y in case.batches])
    summed = nn.CrossEntropyLoss(reduction="sum")
    g = len(y) * gradients(model, summed, ids, y) / (y >= 0).sum()
    found = dense(rm.gradient_covariance(model, case.loss, case.batches))
    assert_same(found, torch.cov(g.T, correction=0))


def test_samples_without_labels_count_as_zero_gradients():
    _, model = build("mlp")
    y = Y.clone()
    y[5:] = -100  # the whole second batch
    g = gradients(model, nn.CrossEntropyLoss(), X[:5], Y[:5]) * 7 / 5
    g = torch.cat([g, torch.zeros(2, g.shape[1], dtype=F64)])
    found = dense(
        rm.gradient_covariance(model, nn.CrossEntropyLoss(), [(X[:5], y[:5]), (X[5:], y[5:])])
    )
    assert_same(found, torch.cov(g.T, correction=0))


def test_with_the_square_of_the_gradient_it_is_the_empirical_fisher():
    _, model = build("mlp")
    covariance = rm.gradient_covariance(model, nn.CrossEntropyLoss(), XY)
    g = rm.hessian(model, nn.CrossEntropyLoss(), XY).gradient
    fisher = dense(rm.fisher(model, nn.CrossEntropyLoss(), XY, estimate="empirical"))
    assert_same(dense(covariance) + torch.outer(g, g), fisher)


def test_it_is_positive_and_of_rank_below_the_number_of_samples():
    _, model = build("mlp")
    found = rm.eigenvalues(rm.gradient_covariance(model, nn.CrossEntropyLoss(), XY))
    rounding = 1e-14 * found.max()
    assert found.min() > -rounding
    assert (found > rounding).sum() == 6  # seven gradients about their mean


def test_one_sample_has_no_covariance():
    _, model = build("mlp")
    found = dense(rm.gradient_covariance(model, nn.CrossEntropyLoss(), (X[:1], Y[:1])))
    g = gradients(model, nn.CrossEntropyLoss(), X[:1], Y[:1])
    assert found.norm() <= 1e-15 * g.norm() ** 2


def test_an_exact_fit_has_zero_covariance_and_a_warning():
    _, model = build("mlp")
    y = model(X).detach()
    with pytest.warns(UserWarning, match="GradientMoment is zero: every residual"):
        found = rm.gradient_covariance(model, nn.MSELoss(), (X, y))
    assert not dense(found).any()


def test_lanczos_reads_it():
    _, model = build("mlp")
    operator = rm.gradient_covariance(
        model, nn.CrossEntropyLoss(), (draw((50, 4), 8), labels((50,)))
    )
    measured = rm.lanczos(operator, steps=20, probes=2, seed=0)
    assert np.nanmax(measured.nodes) == pytest.approx(rm.eigenvalues(operator).max(), rel=1e-8)
