"""Blocks of one-hidden-layer ReLU networks against Hessians by autograd; the digits, slowly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import rmthess as rm
from rmthess.demo.problems import Digits

LOSS = nn.CrossEntropyLoss()


def problem(samples=40, inputs=5, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, inputs)) + 0.3
    return x, np.arange(samples) % classes


def network(*sizes, seed=0, bias=(True, True)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        d, h, C = sizes
        layers = nn.Linear(d, h, bias=bias[0]), nn.ReLU(), nn.Linear(h, C, bias=bias[1])
        return nn.Sequential(*layers).double()


def hessian_and_gauss_newton(model, x, y):
    """H by two backward passes, G = Jᵀ(diag p - ppᵀ)J/samples from per-sample Jacobians."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    H = rm.dense(rm.hessian(model, LOSS, (x, y)))
    weights = {name: part.detach() for name, part in model.named_parameters()}

    def outputs(weights, sample):
        return torch.func.functional_call(model, weights, (sample[None],))[0]

    J = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))(weights, x)
    J = torch.cat([part.reshape(*part.shape[:2], -1) for part in J.values()], dim=2)
    p = model(x).softmax(dim=1).detach()
    root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    flat = torch.einsum("nij,nip->njp", root, J).reshape(-1, J.shape[2])
    return H, (flat.T @ flat / len(x)).numpy()


def negative(measure):
    """The negative half, as |x|, of a symmetric measure."""
    kept = measure.nodes < 0
    return rm.DiscreteMeasure(
        -measure.nodes[kept], measure.weights[kept] / measure.weights[kept].sum()
    )


def second_moment(found):
    return found.dim * found.bulk.moment(2)


def train(model, x, y, steps, rate=0.01):
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        LOSS(model(x), y).backward()
        optimiser.step()


@pytest.mark.parametrize("bias", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("steps", [0, 60])
def test_the_blocks_have_all_eigenvalues_of_hessian_minus_gauss_newton(bias, steps):
    x, y = problem()
    model = network(5, 6, 4, bias=bias)
    train(model, torch.as_tensor(x), torch.as_tensor(y), steps, rate=0.1)
    H, G = hessian_and_gauss_newton(model, x, y)
    found = rm.one_hidden_relu(x, y, model)
    values = np.linalg.eigvalsh(H - G)
    np.testing.assert_allclose(found.eigenvalues(), values, atol=1e-13)
    assert found.dim == len(H)
    index = np.count_nonzero(np.linalg.eigvalsh(H) < -1e-12)
    assert index <= np.count_nonzero(found.eigenvalues() < 0) == 6 * 3
    assert found.rank.value == 36


@pytest.mark.parametrize(
    ("samples", "inputs", "classes", "each"),
    [(40, 2, 7, 3), (4, 9, 4, 3), (3, 9, 2, 1)],
)
def test_each_unit_has_no_more_negative_eigenvalues_than_classes_less_one_or_columns(
    samples, inputs, classes, each
):
    x, y = problem(samples, inputs, classes)
    model = network(inputs, 5, classes)
    H, G = hessian_and_gauss_newton(model, x, y)
    found = rm.one_hidden_relu(x, y, model)
    values = np.linalg.eigvalsh(H - G)
    np.testing.assert_allclose(found.eigenvalues(), values, atol=1e-13)
    assert found.rank.value == 2 * 5 * each >= 2 * np.count_nonzero(values < -1e-12)


def test_a_unit_that_is_never_on_has_no_negative_eigenvalue():
    x, y = problem()
    model = network(5, 6, 4)
    model[0].bias.data[2] = -100.0
    values = rm.one_hidden_relu(x, y, model).eigenvalues()
    assert np.count_nonzero(values < 0) == 5 * 3


def test_the_negative_curvature_is_at_most_the_loss_times_the_size_of_the_inputs():
    """|B_j| ≤ Σ |r_i| |x_i| and |p - y| ≤ √2 (1 - p_y) ≤ √2 loss."""
    x, y = problem()
    model, sizes = network(5, 6, 4), np.sqrt(1 + (x**2).sum(axis=1))
    for _ in range(3):
        outputs = model(torch.as_tensor(x)).detach()
        losses = nn.functional.cross_entropy(outputs, torch.as_tensor(y), reduction="none").numpy()
        H, _ = hessian_and_gauss_newton(model, x, y)
        least = rm.one_hidden_relu(x, y, model).eigenvalues()[0]
        assert -np.sqrt(2) * np.mean(losses * sizes) <= least <= np.linalg.eigvalsh(H)[0] + 1e-15
        train(model, torch.as_tensor(x), torch.as_tensor(y), 100, rate=0.1)


def test_the_average_over_networks_has_the_second_moment_of_the_arc_cosine_kernel():
    """At tiny weights p = 1/C and E Tr S² = 2h Σ r_i·r_j x̃_i·x̃_j (π - t_ij)/2π, up to the sum
    of many uniform numbers that a preactivation is."""
    x, y = problem(samples=60, inputs=40)
    found = rm.one_hidden_relu(x, y, 50, scale=1e-9)
    r = (0.25 - np.eye(4)[y]) / len(x)
    ones = np.column_stack([x, np.ones(len(x))])
    gram = ones @ ones.T
    sizes = np.sqrt(np.diag(gram))
    t = np.arccos(np.clip(gram / np.outer(sizes, sizes), -1, 1))
    wanted = 2 * 50 * np.sum(r @ r.T * gram * (np.pi - t) / (2 * np.pi))
    assert second_moment(found) == pytest.approx(wanted, rel=0.02)  # of 1024 drawn units


def test_the_average_is_that_of_networks_as_torch_draws_them():
    x, y = problem()
    found = rm.one_hidden_relu(x, y, 12)
    nodes = [rm.one_hidden_relu(x, y, network(5, 12, 4, seed=s)).bulk.nodes for s in range(60)]
    pooled = rm.DiscreteMeasure.from_eigenvalues(np.concatenate(nodes))
    assert rm.kolmogorov(negative(found.bulk), negative(pooled)) < 0.04  # 720 units, in fours
    assert found.dim == nodes[0].size
    # a unit that no sample switches on is rare, and has zeros
    assert found.bulk.cdf(-1e-12) == pytest.approx(12 * 3 / found.dim, rel=0.02)
    assert second_moment(found) == pytest.approx(found.dim * pooled.moment(2), rel=0.05)


def test_the_prediction_as_a_list_has_the_right_counts():
    x, y = problem()
    values = rm.one_hidden_relu(x, y, 7).eigenvalues()
    assert values.size == 7 * 6 + 4 * 8
    assert np.count_nonzero(values < 0) == np.count_nonzero(values > 0) == 7 * 3
    np.testing.assert_allclose(values, -values[::-1], rtol=1e-12)


def test_the_same_seed_gives_the_same_prediction_and_inputs_stay_as_they_were():
    x, y = problem()
    kept = x.copy(), y.copy()
    one, two = (rm.one_hidden_relu(x, y, 4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.bulk.nodes, two.bulk.nodes)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_tensors_images_and_constant_features_are_fine():
    x, y = problem()
    model = network(5, 6, 4)
    wanted = rm.one_hidden_relu(x, y, model).eigenvalues()
    images = torch.tensor(x, requires_grad=True).reshape(-1, 1, 5)
    flat = nn.Sequential(nn.Flatten(), model[0], model[1], nn.Identity(), model[2])
    found = rm.one_hidden_relu(images, torch.tensor(y), flat, loss=LOSS)
    np.testing.assert_array_equal(found.eigenvalues(), wanted)
    wider = np.column_stack([x, np.zeros((len(x), 2))])
    more = network(7, 6, 4)
    more[0].weight.data = torch.cat([model[0].weight.data, torch.ones(6, 2).double()], dim=1)
    more[0].bias, more[2] = model[0].bias, model[2]
    padded = rm.one_hidden_relu(wider, y, more).eigenvalues()
    np.testing.assert_allclose(padded[padded != 0], wanted[wanted != 0], rtol=1e-12)


def with_a(part, at):
    layers = list(network(5, 6, 4))
    layers[at:at] = [part]
    return nn.Sequential(*layers)


def frozen():
    model = network(5, 6, 4)
    model[2].bias.requires_grad_(False)
    return model


def shared():
    model = network(4, 4, 4)
    model[2].weight = model[0].weight
    return model


def broken():
    model = network(5, 6, 4)
    model[0].weight.data[1, 1] = torch.nan
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (with_a(nn.Tanh(), 1), "layer '1' is a Tanh where ReLU was expected"),
        (with_a(nn.Dropout(), 2), "layer '2' is a Dropout where Linear was expected"),
        (with_a(nn.ReLU(), 3), "layer '3' is a ReLU where the end was expected"),
        (nn.Sequential(nn.Linear(5, 4)), "each once, got 1 layers"),
        (frozen(), "bias of layer '2' does not require a gradient"),
        (broken(), "weight of layer '0' has entries that are NaN"),
        (network(3, 6, 4), "takes 3 inputs, and the data have 5"),
        (network(5, 6, 3), "has 3 outputs, and the labels go up to 3"),
        (network(5, 6, 99), "99 classes are more than the 40 samples"),
    ],
)
def test_a_network_of_another_architecture_is_refused_with_the_layer_named(model, said):
    with pytest.raises(ValueError, match=said):
        rm.one_hidden_relu(*problem(), model)


def test_shared_weights_and_what_is_no_sequence_of_layers_are_refused():
    x, y = problem(inputs=4)
    with pytest.raises(ValueError, match="layers '0' and '2' share their weight"):
        rm.one_hidden_relu(x, y, shared())
    with pytest.raises(TypeError, match="got Linear"):
        rm.one_hidden_relu(x, y, nn.Linear(4, 4))
    with pytest.raises(TypeError, match="got bool"):
        rm.one_hidden_relu(x, y, True)


X, Y = problem()


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((X, np.zeros(40, int), 3), {}, "labels hold the one class 0"),
        ((X[:3], np.array([0, 1, 7]), 3), {}, "8 classes are more than the 3 samples"),
        ((np.where(X > 2, np.nan, X), Y, 3), {}, "sample .* has NaN or infinite features"),
        ((X, Y[:-1], 3), {}, r"labels must have shape \(40,\)"),
        ((X, np.eye(4)[Y], 3), {}, r"labels must have shape \(40,\)"),
        ((X, Y + 0.5, 3), {}, "integers from 0 on, got float64"),
        ((X, Y - 1, 3), {}, "integers from 0 on, got int64 from -1"),
        ((X[:, 0], Y, 3), {}, r"inputs must have shape \(samples, d\)"),
        ((X, Y, 0), {}, "number of hidden units, must be an integer of at least 1"),
        ((X, Y, 3), {"scale": 0}, "scale must be a positive"),
        ((X, Y, 3), {"loss": "mse"}, "must be softmax cross-entropy, got mse"),
        ((X, Y, 3), {"loss": nn.MSELoss()}, "got MSELoss"),
        ((X, Y, 3), {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "label_smoothing=0.1"),
        ((X, Y, 3), {"loss": nn.CrossEntropyLoss(reduction="sum")}, "reduction='sum'"),
    ],
)
def test_bad_data_and_losses_that_are_not_covered_are_refused(arguments, options, said):
    with pytest.raises(ValueError, match=said):
        rm.one_hidden_relu(*arguments, **options)


@pytest.mark.slow
def test_the_spectrum_of_digits_networks_is_predicted_from_the_digits_alone():
    """Five fresh networks a width; the bounds are about 1.5 times what other seeds showed."""
    digits = Digits.load()
    for hidden, scale, one, five, trace in [
        (16, 1.0, 0.09, 0.04, 0.05),
        (64, 1.0, 0.05, 0.03, 0.05),
        (256, 1.0, 0.03, 0.02, 0.03),
        (64, 3.0, 0.07, 0.04, 0.1),
    ]:
        predicted = rm.one_hidden_relu(digits.inputs, digits.labels, hidden, scale=scale)
        found = []
        for seed in range(1000, 1005):
            model = network(64, hidden, 10, seed=seed)
            for part in model.parameters():
                part.data *= scale
            found.append(rm.one_hidden_relu(digits.inputs, digits.labels, model))
            distance = rm.kolmogorov(negative(found[-1].bulk), negative(predicted.bulk))
            assert distance < one, (hidden, seed, distance)
            assert abs(found[-1].eigenvalues()[0] / predicted.eigenvalues()[0] - 1) < 0.25 * scale
        pooled = rm.DiscreteMeasure.from_eigenvalues(np.concatenate([f.bulk.nodes for f in found]))
        assert rm.kolmogorov(negative(pooled), negative(predicted.bulk)) < five
        mean = np.mean([second_moment(f) for f in found])
        assert mean == pytest.approx(second_moment(predicted), rel=trace), hidden


@pytest.mark.slow
def test_through_training_the_index_of_digits_networks_stays_and_the_size_follows_the_loss():
    digits = Digits.load()
    x, y = digits.inputs, digits.labels
    model = network(64, 16, 10, seed=2000)
    for steps, fewest in ((0, 144), (150, 130), (450, 130)):
        train(model, x, y, steps)
        value = float(LOSS(model(x), y).detach())
        found = rm.one_hidden_relu(x, y, model)
        assert np.count_nonzero(found.eigenvalues() < 0) == 144
        values = rm.eigenvalues(rm.hessian(model, LOSS, (x, y)))
        index = np.count_nonzero(values < -1e-10 * values[-1])
        assert fewest <= index <= 144, (steps, index)
        assert 0.2 < found.eigenvalues()[-1] / value < 0.5
    assert value < 2e-3
