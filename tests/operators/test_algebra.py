"""Sums, deflation, blocks and preconditioning, each against the dense matrices it stands for."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import rmthess as rm
from rmthess.operators import deflated
from rmthess.operators.errors import NonFiniteError
from rmthess.operators.operator import Operator

F64 = torch.float64


def symmetric(dim=12, seed=0):
    a = np.random.default_rng(seed).standard_normal((dim, dim))
    return (a + a.T) / np.sqrt(2 * dim)


def with_spectrum(values, seed=0):
    """Q diag(values) Qᵀ and its Q."""
    g = np.random.default_rng(seed).standard_normal((len(values), len(values)))
    q = np.linalg.qr(g)[0]
    return (q * values) @ q.T, q


def network(dtype=F64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    x = torch.randn(20, 4, dtype=dtype)
    return model, (x, torch.arange(20) % 3)


def curvature(dtype=F64, params=None):
    model, data = network(dtype)
    return rm.hessian(model, nn.CrossEntropyLoss(), data, params=params)


def assert_is(operator, matrix, tolerance=1e-13):
    assert isinstance(operator, Operator)
    np.testing.assert_allclose(rm.dense(operator), matrix, atol=tolerance * np.abs(matrix).max())
    v = torch.randn(operator.dim, 3, dtype=operator.dtype)
    kept = v.clone()
    np.testing.assert_allclose(operator @ v, matrix @ v.numpy(), atol=1e-12 * np.abs(matrix).max())
    assert torch.equal(v, kept)


# ---- sums, multiples, shifts


def test_sums_multiples_and_shifts_are_those_of_the_matrices():
    a, b = symmetric(seed=1), symmetric(seed=2)
    A, B, eye = rm.as_operator(a), rm.as_operator(b), np.eye(12)
    assert_is(A + B, a + b)
    assert_is(A - B, a - b)
    assert_is(-A, -a)
    assert_is(2.5 * A, 2.5 * a)
    assert_is(A * np.float64(2.5), 2.5 * a)
    assert_is(np.float64(2.5) * A, 2.5 * a)
    assert_is(torch.tensor(2.5) * A, 2.5 * a)
    assert_is(A.shift(-0.7), a - 0.7 * eye)
    assert_is(3 * (A - 2 * B.shift(0.5)).shift(1.0) - A, 2 * a - 6 * b)


def test_curvatures_add_like_their_matrices():
    model, data = network()
    H = rm.hessian(model, nn.CrossEntropyLoss(), data)
    G = rm.hessian(model, nn.MSELoss(), (data[0], torch.zeros(20, 3, dtype=F64)))
    assert_is(H - 0.3 * G, rm.dense(H) - 0.3 * rm.dense(G))
    assert (H + G).parameters.names == H.names


def test_eigenvalues_shift_and_scale_with_the_operator():
    a = symmetric()
    found = rm.lanczos((-1.7 * rm.as_operator(a)).shift(0.43), steps=12, probes=1)
    np.testing.assert_allclose(found.nodes[0], np.sort(0.43 - 1.7 * np.linalg.eigvalsh(a)))


def test_sums_of_sums_are_one_sum_and_read_like_it():
    A = rm.as_operator(symmetric())
    name = "Tensor(12x12, float64)"
    assert repr(A - 2 * (A + A.shift(3))) == f"{name} - 2 * {name} - 2 * {name} - 6 * I"
    assert repr(-A) == f"-{name}"
    assert repr(-0.5 * A) == f"-0.5 * {name}"


def test_a_sum_is_as_wide_as_its_widest_term_and_as_rough_as_its_roughest():
    H = curvature(torch.float32)
    total = H + rm.LowRank(np.ones(43), [2.0])
    assert total.dtype == F64
    assert total.eps == torch.finfo(torch.float32).eps
    np.testing.assert_allclose(rm.dense(total), rm.dense(H) + 2, atol=1e-15)


def test_operators_that_do_not_match_are_not_added():
    A = rm.as_operator(symmetric())
    with pytest.raises(ValueError, match="one shape and one device"):
        A + rm.as_operator(symmetric(11))
    with pytest.raises(TypeError, match=r"cannot add ndarray.*as_operator makes one"):
        A + symmetric()
    with pytest.raises(TypeError, match=r"cannot add int.*A.shift\(c\)"):
        A + 1
    with pytest.raises(TypeError, match=r"by a number, got Matrix.*cannot be multiplied"):
        A * A
    with pytest.raises(TypeError, match="by a number, got ndarray"):
        np.ones(12) * A
    with pytest.raises(ValueError, match="must be finite, got nan"):
        float("nan") * A
    with pytest.raises(ValueError, match="must be finite, got inf"):
        A.shift(np.inf)
    # Of equal size by chance: 15 weights each.
    model = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Linear(3, 5, bias=False)).double()
    data = (torch.randn(4, 5, dtype=F64), torch.randn(4, 5, dtype=F64))
    first, second = (rm.hessian(model, nn.MSELoss(), data, params=[f"{i}.weight"]) for i in (0, 1))
    with pytest.raises(ValueError, match=r"same parameters, got \['0.weight'\] and \['1.weight'\]"):
        first - second


# ---- low rank


def test_low_rank_is_the_sum_of_its_outer_products():
    rng = np.random.default_rng(0)
    u, s = rng.standard_normal((12, 3)), np.array([2.0, -1.0, 0.5])
    assert_is(rm.LowRank(u, s), (u * s) @ u.T)
    assert_is(rm.LowRank(torch.tensor(u[:, 0]), [4]), 4 * np.outer(u[:, 0], u[:, 0]))
    assert repr(rm.LowRank(u, s)) == "LowRank(dim=12, rank=3, float64)"


def test_subtracting_an_eigenpair_moves_it_to_zero():
    a, q = with_spectrum([1.0, 2.0, 3.0, 50.0])
    rest = rm.as_operator(a) - rm.LowRank(q[:, 3], [50.0])
    np.testing.assert_allclose(rm.eigenvalues(rest), [0, 1, 2, 3], atol=1e-13)


def test_low_rank_refuses_what_does_not_match():
    with pytest.raises(ValueError, match=r"values must have shape \(2,\).* got \(3,\)"):
        rm.LowRank(np.ones((5, 2)), [1, 2, 3])
    with pytest.raises(ValueError, match=r"vectors must have shape \(dim, k\), got \(5, 0\)"):
        rm.LowRank(np.ones((5, 0)), [])
    with pytest.raises(NonFiniteError, match="vectors holds NaN"):
        rm.LowRank([1.0, np.nan], [1.0])
    with pytest.raises(NonFiniteError, match="values holds NaN"):
        rm.LowRank([1.0, 0.0], [np.inf])
    with pytest.raises(TypeError, match="complex"):
        rm.LowRank([1j, 0], [1.0])


# ---- deflation


OUTLIERS = np.append(np.random.default_rng(0).random(37), [10.0, 20.0, 40.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_deflation_removes_eigenvectors_and_leaves_the_rest(dtype):
    a, q = with_spectrum(OUTLIERS)
    eps = np.finfo(dtype).eps
    # Any basis of their span: neither orthogonal, nor of one length, nor in order.
    mixed = q[:, [39, 37, 38]] @ np.array([[1.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 1.0, 1.0]])
    found = rm.deflate(a.astype(dtype), (mixed * [1e3, 1.0, 1e-3]).astype(dtype))
    np.testing.assert_allclose(found.values, [10, 20, 40], rtol=100 * eps)
    assert (found.residuals < 1e4 * eps).all()
    Q = found.vectors.double().numpy()
    np.testing.assert_allclose(np.abs(Q.T @ q[:, 37:]), np.eye(3), atol=1e4 * eps)
    p = np.eye(40) - q[:, 37:] @ q[:, 37:].T
    np.testing.assert_allclose(rm.dense(found), p @ a @ p, atol=100 * eps)
    expected = np.sort(np.append(OUTLIERS[:37], [0, 0, 0]))
    np.testing.assert_allclose(rm.eigenvalues(found), expected, atol=100 * eps)
    assert found.operator.shape == found.shape == (40, 40)
    assert repr(found) == f"deflate({found.operator!r}, 3 vectors)"


def test_projection_is_orthogonal_and_idempotent():
    a, q = with_spectrum(OUTLIERS)
    found = rm.deflate(a, q[:, 37:])
    v = torch.randn(40, 2, dtype=F64)
    once = found.project(v)
    assert float((found.vectors.T @ once).abs().max()) < 1e-13
    np.testing.assert_allclose(found.project(once), once, atol=1e-14)
    np.testing.assert_allclose(found.project(v.float()), once.float(), atol=1e-5)


@pytest.mark.parametrize("angle", [1e-1, 1e-3])
def test_eigenvalues_are_off_by_at_most_the_residual_and_by_its_square_over_the_gap(angle):
    a, q = with_spectrum(OUTLIERS)
    noise = np.random.default_rng(1).standard_normal((40, 3))
    vectors = q[:, 37:] + angle * noise / np.linalg.norm(noise, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if angle == 1e-1 else "error")
        found = rm.deflate(a, vectors)
    Q = found.vectors.numpy()
    residual = np.linalg.norm(a @ Q - Q * found.values, 2)
    np.testing.assert_allclose(np.linalg.norm(a @ Q - Q * found.values, axis=0), found.residuals)
    complement = scipy.linalg.null_space(Q.T)
    rest = np.linalg.eigvalsh(complement.T @ a @ complement)
    union = np.sort(np.append(rest, found.values))
    off = np.abs(union - np.sort(OUTLIERS)).max()
    gap = found.values[0] - rest[-1]
    assert off <= min(residual, residual**2 / gap) + 1e-13
    assert residual > angle  # the bound is of use: the vectors are off by the angle


def test_vectors_that_are_no_eigenvectors_are_warned_of_with_the_residual():
    a, _ = with_spectrum(OUTLIERS)
    with pytest.warns(UserWarning, match=r"no eigenvectors of .*\|Aq - λq\| is up to \d"):
        found = rm.deflate(a, np.random.default_rng(0).standard_normal((40, 2)))
    assert (found.residuals > 0.1).all()


@pytest.mark.parametrize("dim", [20, 300])
def test_what_is_left_when_all_is_deflated_is_zero_and_passes_the_check(dim):
    q = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, dim)))[0]
    a = (q[:, :2] * [5.0, 3.0]) @ q[:, :2].T
    found = rm.deflate(a, rm.eigenpairs(a, 2))
    np.testing.assert_allclose(found.values, [3.0, 5.0], rtol=1e-14)
    assert np.nanmax(np.abs(rm.lanczos(found, steps=10, probes=2).nodes)) < 1e-14


def test_what_is_all_deflated_but_rounding_is_not_warned_of():
    a, q = with_spectrum(np.append(np.zeros(37), [10.0, 20.0, 40.0]))
    found = rm.deflate(a, q[:, 37:])
    assert float(found.matmat(torch.eye(40, dtype=F64)).abs().max()) < 1e-13


@pytest.mark.parametrize("scale", [1e160, 1e-160])
def test_deflation_at_extreme_scales(scale):
    a, q = with_spectrum(OUTLIERS)
    found = rm.deflate(a * scale, q[:, 37:] / scale)
    np.testing.assert_allclose(found.values / scale, [10, 20, 40], rtol=1e-13)
    assert (found.residuals / scale < 1e-12).all()
    np.testing.assert_allclose(rm.eigenvalues(found)[-1] / scale, OUTLIERS[:37].max(), rtol=1e-12)


def test_dependent_vectors_are_refused():
    a, q = with_spectrum(OUTLIERS)
    for bad in (q[:, [1, 1]], np.stack([q[:, 0], 1e9 * q[:, 0] + q[:, 1]], 1), np.zeros((40, 1))):
        with pytest.raises(ValueError, match=r"linearly dependent: .* singular value is"):
            rm.deflate(a, bad)
    with pytest.raises(ValueError, match="40 vectors to deflate leave nothing"):
        rm.deflate(a, q)
    with pytest.raises(ValueError, match=r"vectors must have shape \(40, k\), got \(39, 2\)"):
        rm.deflate(a, np.ones((39, 2)))


def test_a_basis_that_does_not_fit_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(deflated, "free_memory", lambda device: 5000)
    with pytest.raises(MemoryError, match=r"deflating 4 vectors of dim 40 needs about 6.4 kB"):
        rm.deflate(with_spectrum(OUTLIERS)[0], np.eye(40)[:, :4])


def linear_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Linear(6, 4, bias=False)).double()
    x, y = torch.randn(30, 5, dtype=F64), torch.randn(30, 4, dtype=F64)
    weights = [layer.weight.detach().numpy() for layer in model]
    gradients = (model(x) - y).detach().numpy()
    H = rm.hessian(model, nn.MSELoss(), (x, y))
    return H, rm.null_space(weights, x.numpy(), gradients)


def test_a_null_space_is_projected_out_without_a_basis():
    H, null = linear_network()
    assert null.dim == 2
    found = rm.deflate(H, null)
    assert found.values.tolist() == [0, 0]
    assert (found.residuals < 1e-13).all()
    by_basis = rm.deflate(H, null.basis())
    np.testing.assert_allclose(rm.dense(found), rm.dense(by_basis), atol=1e-13)
    np.testing.assert_allclose(rm.dense(found), rm.dense(H), atol=1e-13)
    np.testing.assert_allclose(found.vectors, null.basis(), atol=1e-15)


def test_a_null_space_of_another_network_or_point_is_told():
    _, null = linear_network()
    with pytest.raises(ValueError, match=r"of shapes \[\(6, 5\), \(4, 6\)\], the operator's are"):
        rm.deflate(curvature(), null)
    with pytest.raises(ValueError, match="of shapes 54, the operator's are 12"):
        rm.deflate(symmetric(), null)
    with pytest.warns(UserWarning, match="no eigenvectors"):
        rm.deflate(symmetric(54), null)


# ---- blocks


def test_diagonal_blocks_by_name_are_what_params_gives():
    H = curvature()
    whole, names = rm.dense(H), H.names
    assert names == ("0.weight", "0.bias", "2.weight", "2.bias")
    entries = {"0.weight": range(20), "0.bias": range(20, 25), "2.weight": range(25, 40)}
    entries["2.bias"] = range(40, 43)
    cases = {
        "2.weight": ["2.weight"],
        "2": ["2.weight", "2.bias"],
        "*.bias": ["0.bias", "2.bias"],
        ("2", "0.bias"): ["0.bias", "2.weight", "2.bias"],
        (lambda name: "weight" in name): ["0.weight", "2.weight"],
    }
    for given, wanted in cases.items():
        index = np.concatenate([entries[name] for name in wanted])
        found = rm.block(H, given)
        assert_is(found, whole[np.ix_(index, index)])
        assert_is(found, rm.dense(curvature(params=wanted)))
    assert repr(rm.block(H, "2")) == f"block({H!r}, 18 entries)"


def test_diagonal_blocks_by_index_keep_the_order_given():
    a = symmetric()
    mask = np.arange(12) % 3 == 0
    for given in (slice(2, 9, 2), [5, 1, -1], torch.tensor([5, 1, 11]), mask, range(4)):
        index = np.arange(12)[given if isinstance(given, slice) else np.asarray(given)]
        assert_is(rm.block(a, given), a[np.ix_(index, index)])


def test_the_dilation_of_an_off_diagonal_block_has_plus_and_minus_its_singular_values():
    H = curvature()
    B = rm.dense(H)[:25, 25:]
    found = rm.block(H, "0", "2")
    zero = np.zeros
    assert_is(found, np.block([[zero((25, 25)), B], [B.T, zero((18, 18))]]))
    sigma = np.linalg.svd(B, compute_uv=False)
    wanted = np.sort(np.concatenate([sigma, -sigma, np.zeros(7)]))
    np.testing.assert_allclose(rm.eigenvalues(found), wanted, atol=1e-14)
    assert repr(found) == f"block({H!r}, 25 x 18 entries)"


def test_rows_and_columns_may_overlap():
    a = symmetric()
    found = rm.block(a, slice(0, 8), slice(4, 12))
    B = a[:8, 4:]
    assert_is(found, np.block([[np.zeros((8, 8)), B], [B.T, np.zeros((8, 8))]]))


def test_blocks_of_sums_and_deflations_keep_the_names():
    H = curvature()
    total = rm.deflate(2 * H.shift(0.1), np.linalg.eigh(rm.dense(H))[1][:, -2:])
    assert_is(rm.block(total, "2.bias"), rm.dense(total)[40:, 40:])


def test_blocks_that_choose_nothing_or_the_unknown_are_refused():
    H, a = curvature(), symmetric()
    with pytest.raises(
        ValueError, match=r"rows 'weight' is no parameter, module or pattern.*0.bia"
    ):
        rm.block(H, "weight")
    with pytest.raises(ValueError, match="columns 'head' is no"):
        rm.block(H, "0", ["2", "head"])
    with pytest.raises(ValueError, match="rows chooses no entry of an operator of dim 43"):
        rm.block(H, lambda name: False)
    with pytest.raises(ValueError, match="chooses no entry"):
        rm.block(a, slice(5, 5))
    with pytest.raises(ValueError, match=r"names parameters, but Tensor.* has no names"):
        rm.block(a, "0.weight")
    with pytest.raises(ValueError, match="rows holds 12, outside an operator of dim 12"):
        rm.block(a, [3, 12])
    with pytest.raises(ValueError, match="names an entry twice"):
        rm.block(a, [3, 3])
    with pytest.raises(ValueError, match=r"mask of shape \(3,\); it must be \(12,\)"):
        rm.block(a, np.array([True, False, True]))
    with pytest.raises(ValueError, match=r"list of integers, got torch.float64 of shape \(1,\)"):
        rm.block(a, np.array([1.0]))
    with pytest.raises(ValueError, match=r"got torch.int64 of shape \(\)"):
        rm.block(a, 3)


# ---- preconditioning


def test_preconditioned_eigenvalues_are_those_of_the_generalised_problem():
    a = symmetric()
    d = np.random.default_rng(3).random(12) + 0.1
    found = rm.precondition(a, d)
    assert_is(found, a / np.sqrt(np.outer(d, d)))
    wanted = scipy.linalg.eigh(a, np.diag(d), eigvals_only=True)
    np.testing.assert_allclose(rm.eigenvalues(found), wanted, atol=1e-13)
    assert repr(found) == f"precondition({found.operator!r})"


@pytest.mark.parametrize("settings", [{}, {"amsgrad": True}, {"betas": (0.8, 0.97), "eps": 1e-3}])
@pytest.mark.parametrize("family", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_divides_its_step_by_the_diagonal(family, settings):
    model, (x, y) = network()
    optimizer = family(model.parameters(), lr=0.01, weight_decay=0.0, **settings)
    for size in (1.0, 3.0, 0.1, 0.2):  # so that the largest second moment is not the last
        optimizer.zero_grad()
        (size * nn.functional.cross_entropy(model(x), y)).backward()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer.step()
    D = rm.adam_diagonal(optimizer, model)
    moved = before - nn.utils.parameters_to_vector(model.parameters()).detach()
    first = torch.cat([optimizer.state[p]["exp_avg"].reshape(-1) for p in model.parameters()])
    beta = settings.get("betas", (0.9, 0.999))[0]
    np.testing.assert_allclose(moved * D, 0.01 * first / (1 - beta**4), rtol=1e-9)
    H = rm.hessian(model, nn.CrossEntropyLoss(), (x, y))
    d = D.numpy()
    assert_is(rm.precondition(H, D), rm.dense(H) / np.sqrt(np.outer(d, d)))
    # The same choice of parameters as the operator's.
    np.testing.assert_array_equal(rm.adam_diagonal(optimizer, model, ["2.weight"]), D[25:40])


def test_adam_on_a_quadratic_is_stable_below_38_over_the_preconditioned_sharpness():
    a, _ = with_spectrum(np.linspace(0.1, 4, 6))
    d = np.linspace(0.5, 2, 6)
    sharpness = rm.eigenvalues(rm.precondition(a, d))[-1]
    for factor, stable in ((0.98, True), (1.02, False)):
        x, m = np.ones(6), np.zeros(6)
        for _ in range(300):
            m = 0.9 * m + 0.1 * a @ x
            x = x - factor * 38 / sharpness * m / d
        assert bool(np.linalg.norm(x) < 1) == stable


def test_missing_adam_state_is_refused_with_the_reason():
    model, (x, y) = network()
    with pytest.raises(TypeError, match=r"Adam or AdamW, got SGD"):
        rm.adam_diagonal(torch.optim.SGD(model.parameters()), model)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match=r"'0.weight' has no second moment yet: step"):
        rm.adam_diagonal(optimizer, model)
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    with pytest.raises(ValueError, match=r"'0.weight' is not in this optimizer; .*another model"):
        rm.adam_diagonal(optimizer, copy.deepcopy(model))


def test_a_diagonal_that_is_not_positive_names_the_entry():
    H, D = curvature(), np.ones(43)
    D[41] = 0.0
    with pytest.raises(ValueError, match=r"positive, got 0 at entry 41 \(parameter '2.bias'\)"):
        rm.precondition(H, D)
    with pytest.raises(ValueError, match=r"got -1 at entry 0; add"):
        rm.precondition(symmetric(3), [-1, 1, 1])
    with pytest.raises(NonFiniteError, match="diagonal holds NaN"):
        rm.precondition(symmetric(3), [np.nan, 1, 1])
    with pytest.raises(ValueError, match=r"diagonal must have shape \(12,\), got \(12, 2\)"):
        rm.precondition(symmetric(), np.ones((12, 2)))


# ---- all together


def composites():
    H, q = curvature(), np.linalg.eigh(rm.dense(curvature()))[1]
    return {
        "sum": H.shift(1.0) - 0.5 * H,
        "deflated": rm.deflate(H, q[:, -2:]),
        "block": rm.block(H, "2"),
        "dilation": rm.block(H, "0", "2"),
        "preconditioned": rm.precondition(H, np.linspace(1, 2, 43)),
    }


@pytest.mark.parametrize("kind", composites())
def test_composites_are_tuned_and_recorded_like_what_they_are_made_of(kind):
    made = composites()[kind]
    tuned = made.tuned(10, 2)
    assert type(tuned) is type(made)
    np.testing.assert_allclose(rm.dense(tuned), rm.dense(made), atol=1e-13)
    H = curvature()
    assert made.backend == H.backend
    assert made.dtype == H.dtype
    assert made.device == H.device
    assert made.eps == H.eps
    with pytest.raises(ValueError, match=rf"must have shape \({made.dim}, k\)"):
        made.matmat(torch.ones(3, 1, dtype=F64))
    assert rm.lanczos(made, steps=5, probes=1).provenance["operator"] == repr(made)
