"""Lanczos against exact spectra, on matrices with known traps, and under every fault."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn

import rmthess as rm
from rmthess.krylov.errors import LanczosError, LanczosInterrupted
from rmthess.operators.errors import NonDeterministicError, NonFiniteError, NotSymmetricError


def random_symmetric(dim, seed=0):
    a = np.random.default_rng(seed).standard_normal((dim, dim))
    return (a + a.T) / np.sqrt(2 * dim)


def clement(n):
    k = np.arange(1, n)
    half = np.diag(np.sqrt(k * (n - k)), 1)
    return half + half.T


def steps_taken(measure):
    return np.sum(~np.isnan(measure.diagonals), axis=1)


class Faulty:
    """A diagonal operator whose product number ``at`` does ``what``; the self-check makes two."""

    def __init__(self, what, at, dim=30):
        self.diagonal = torch.linspace(1, 2, dim, dtype=torch.float64)[:, None]
        self.what, self.at, self.calls = what, at, 0
        self.shape, self.dtype, self.device = (dim, dim), torch.float64, torch.device("cpu")

    def matmat(self, vectors):
        self.calls += 1
        out = self.diagonal * vectors
        return self.what(out, vectors) if self.calls == self.at else out


def put_nan(out, vectors):
    out[3, -1] = float("nan")
    return out


# ---- what it must find


@pytest.mark.parametrize("steps", [20, 21, 64])
@pytest.mark.parametrize("distribution", ["sphere", "rademacher"])
def test_lanczos_is_exact_after_dim_steps(steps, distribution):
    matrix = random_symmetric(20)
    values, vectors = np.linalg.eigh(matrix)
    found = rm.lanczos(matrix, steps=steps, probes=3, distribution=distribution)
    assert found.diagonals.shape == (3, steps)
    assert (found.residuals == 0).all()
    for rule in found.quadratures():
        np.testing.assert_allclose(rule.nodes, values, atol=1e-12)
    # The weights are the squared components of the start vector.
    start = np.random.default_rng(1).standard_normal(20)
    rule = rm.lanczos(matrix, steps=steps, start=start).quadratures()[0]
    np.testing.assert_allclose(rule.weights, (vectors.T @ start) ** 2 / (start @ start), atol=1e-12)


def test_gauss_rule_has_mass_one_and_the_first_moments_of_the_operator():
    matrix, steps = random_symmetric(200), 8
    starts = np.random.default_rng(2).standard_normal((200, 3))
    found = rm.lanczos(matrix, steps=steps, start=starts)
    starts /= np.linalg.norm(starts, axis=0)
    for v, rule in zip(starts.T, found.quadratures(), strict=True):
        assert rule.weights.sum() == pytest.approx(1, abs=1e-13)
        power = v.copy()
        for order in range(2 * steps):
            assert rule.moment(order) == pytest.approx(v @ power, rel=1e-11, abs=1e-12)
            power = matrix @ power
        assert rule.moment(2 * steps) != pytest.approx(
            v @ power, rel=1e-8
        )  # the next one is out of reach


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outliers_are_found_once_each_without_ghosts(dtype):
    spectrum = np.append(np.random.default_rng(0).random(497), [10, 20, 40])
    found = rm.lanczos(np.diag(spectrum).astype(dtype), steps=120, probes=4)
    for nodes in found.nodes:
        for outlier in (10, 20, 40):
            assert np.sum(np.abs(nodes - outlier) < 1e-2) == 1
        assert np.nanmax(nodes) == pytest.approx(40, rel=1e-6 if dtype == np.float32 else 1e-14)


def test_strakos_matrix_has_no_ghosts():
    n = 48
    k = np.arange(n)
    spectrum = 0.1 + k / (n - 1) * 99.9 * 0.65 ** (n - 1 - k)
    found = rm.lanczos(np.diag(spectrum), steps=96, probes=1)
    np.testing.assert_allclose(found.quadratures()[0].nodes, spectrum, rtol=1e-10)


def test_wilkinson_spectrum_is_complete_though_its_pairs_are_at_rounding():
    off = np.ones(20)
    matrix = np.diag(np.abs(np.arange(-10.0, 11.0))) + np.diag(off, 1) + np.diag(off, -1)
    values = np.linalg.eigvalsh(matrix)
    found = rm.lanczos(matrix, steps=21, probes=2)
    for rule in found.quadratures():
        # Top pair 10.746194182903393432 and ..321832 (mpmath, 40 digits), 7e-14 apart.
        assert rule.nodes[-1] == pytest.approx(10.746194182903393, abs=1e-13)
        gaps = np.abs(rule.nodes[:, None] - values)
        assert gaps.min(axis=1).max() < 1e-12
        assert gaps.min(axis=0).max() < 1e-12


def test_clement_spectrum_is_the_odd_integers():
    found = rm.lanczos(clement(60), steps=60, probes=2)
    for rule in found.quadratures():
        np.testing.assert_allclose(rule.nodes, np.arange(-59, 60, 2), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_multiple_of_the_identity_breaks_down_after_one_step(value, dtype):
    found = rm.lanczos(value * np.eye(50, dtype=dtype), steps=64, probes=2)
    assert steps_taken(found).tolist() == [1, 1]
    assert found.residuals.tolist() == [0, 0]
    np.testing.assert_allclose(found.nodes[:, 0], value, rtol=1e-6)


def test_a_single_entry_is_its_own_spectrum():
    found = rm.lanczos(np.array([[3.0]]), probes=2)
    assert found.quadratures()[1].nodes.tolist() == [3.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_breaks_down_early_with_the_exact_answer(rank, dtype):
    factor = np.random.default_rng(0).standard_normal((200, rank))
    matrix = (factor @ factor.T).astype(dtype)
    wanted = np.linalg.eigvalsh(factor.T @ factor)
    start = np.random.default_rng(1).standard_normal(200)
    found = rm.lanczos(matrix, steps=64, start=start)
    # One step more than distinct eigenvalues where rounding splits the zero.
    assert rank + 1 <= steps_taken(found)[0] <= rank + 2
    assert found.residuals[0] == 0
    rule = found.quadratures()[0]
    large = rule.nodes > 1e-3 * wanted[-1]
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(rule.nodes[large], wanted, rtol=tolerance)
    seen = np.linalg.norm(np.linalg.qr(factor)[0].T @ start) ** 2 / (start @ start)
    assert rule.weights[~large].sum() == pytest.approx(1 - seen, abs=tolerance)


def test_hadamard_breaks_down_after_two_steps():
    h = np.ones((1, 1))
    for _ in range(6):
        h = np.block([[h, h], [h, -h]])
    found = rm.lanczos(h / 8, steps=30, probes=2)
    assert steps_taken(found).tolist() == [2, 2]
    np.testing.assert_allclose(found.nodes[:, :2], [[-1, 1], [-1, 1]], atol=1e-14)


@pytest.mark.parametrize("scale", [1e150, 1e-150, 1e160, 1e-160])
def test_spectra_of_extreme_size_are_scaled_exactly(scale):
    spectrum = np.random.default_rng(0).standard_normal(30)
    found = rm.lanczos(np.diag(spectrum * scale), steps=12, probes=2)
    wanted = rm.lanczos(np.diag(spectrum), steps=12, probes=2)
    np.testing.assert_allclose(found.nodes / scale, wanted.nodes, atol=1e-12)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-12)


def test_spectrum_shifts_and_scales_with_the_matrix():
    matrix = random_symmetric(60)
    base = rm.lanczos(matrix, steps=10, probes=2)
    moved = rm.lanczos(0.43 * np.eye(60) - 1.7 * matrix, steps=10, probes=2)
    np.testing.assert_allclose(moved.diagonals, 0.43 - 1.7 * base.diagonals, atol=1e-11)
    np.testing.assert_allclose(moved.off_diagonals, 1.7 * base.off_diagonals, atol=1e-11)
    np.testing.assert_allclose(moved.residuals, 1.7 * base.residuals, atol=1e-11)


def test_ritz_error_bounds_hold():
    matrix = random_symmetric(100)
    values = np.linalg.eigvalsh(matrix)
    found = rm.lanczos(matrix, steps=20, probes=2)
    distance = np.abs(found.nodes[..., None] - values).min(axis=-1)
    assert (distance <= found.errors + 1e-13).all()


def test_network_spectrum_equals_its_dense_eigenvalues():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 3
    operator = rm.hessian(model, nn.CrossEntropyLoss(), [(x[:15], y[:15]), (x[15:], y[15:])])
    values = rm.eigenvalues(operator)
    found = rm.lanczos(operator, steps=40, probes=2)
    for rule in found.quadratures():
        assert rule.nodes[-1] == pytest.approx(values[-1], rel=1e-11)
        assert rule.nodes[0] == pytest.approx(values[0], rel=1e-9)
    exact = rm.DiscreteMeasure.from_eigenvalues(values)
    many = rm.lanczos(operator, steps=20, probes=64)
    error = many.standard_error(lambda rule: rule.moment(1))
    assert abs(many.moment(1) - exact.moment(1)) < 4 * error


# ---- seeds and records


def test_the_same_seed_gives_the_same_bits_and_more_probes_extend_fewer():
    matrix = random_symmetric(50)
    first, again = (rm.lanczos(matrix, steps=10, probes=4, seed=3) for _ in range(2))
    assert np.array_equal(first.diagonals, again.diagonals)
    # Products of other widths round differently: equal up to rounding only.
    fewer = rm.lanczos(matrix, steps=10, probes=2, seed=3)
    np.testing.assert_allclose(fewer.diagonals, first.diagonals[:2], atol=1e-13)
    other = rm.lanczos(matrix, steps=10, probes=4, seed=4)
    assert not np.allclose(first.diagonals, other.diagonals)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    rm.lanczos(random_symmetric(20), steps=5, probes=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_provenance_is_json_without_paths_addresses_or_times():
    found = rm.lanczos(Faulty(put_nan, at=0), steps=5, probes=2, seed=7)
    record = json.loads(json.dumps(dict(found.provenance)))
    assert record["seed"] == 7
    assert record["operator"] == "Faulty(30x30, float64)"
    assert {"steps", "probes", "distribution", "dtype", "device", "threads"} <= record.keys()
    assert set(record["versions"]) == {"rmthess", "torch", "numpy", "python"}
    text = json.dumps(record)
    assert "/" not in text.replace("+cpu", "")
    assert not re.search("0x[0-9a-f]{6}", text)


def test_start_vectors_of_any_size_are_normalised():
    matrix = random_symmetric(20)
    v = np.random.default_rng(0).standard_normal((20, 2))
    plain = rm.lanczos(matrix, steps=6, start=v)
    assert plain.probes == 2
    assert plain.provenance["distribution"] == "start"
    for scale in (1e200, 1e-200):
        scaled = rm.lanczos(matrix, steps=6, start=torch.tensor(v * scale))
        np.testing.assert_allclose(scaled.diagonals, plain.diagonals, atol=1e-12)


def test_progress_counts_the_steps():
    seen = []
    rm.lanczos(random_symmetric(20), steps=4, probes=2, progress=lambda *a: seen.append(a))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_low_precision_operators_are_measured_in_float32():
    found = rm.lanczos(torch.diag(torch.arange(1.0, 9.0)).bfloat16(), steps=8, probes=1)
    np.testing.assert_allclose(found.quadratures()[0].nodes, np.arange(1, 9), rtol=2e-2)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, rmthess; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- faults


@pytest.mark.parametrize("name", ["steps", "probes"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True, None])
def test_counts_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        rm.lanczos(np.eye(3), **{name: value})


def test_unknown_distribution_lists_the_known():
    with pytest.raises(ValueError, match=r"\['rademacher', 'sphere'\], got 'cauchy'"):
        rm.lanczos(np.eye(3), distribution="cauchy")


@pytest.mark.parametrize("start", [np.ones(4), np.ones((3, 0)), np.ones((3, 1, 1))])
def test_start_of_the_wrong_shape_is_refused(start):
    with pytest.raises(ValueError, match=r"start must have shape \(3,\) or \(3, k\)"):
        rm.lanczos(np.eye(3), start=start)


@pytest.mark.parametrize("start", [np.zeros(3), np.array([1.0, np.nan, 0.0])])
def test_zero_or_nan_start_is_refused(start):
    with pytest.raises(ValueError, match="finite and have no zero column"):
        rm.lanczos(np.eye(3), start=start)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_nan_at_product_k_names_k_and_keeps_the_steps_before(k):
    with pytest.raises(
        LanczosError, match=f"product {k} holds NaN or Inf for probe 1; .* {k - 1} of 8"
    ) as e:
        rm.lanczos(Faulty(put_nan, at=2 + k), steps=8, probes=2)
    assert e.value.product == k
    check_partial(e.value.partial, k - 1)


@pytest.mark.parametrize("k", [1, 4])
def test_an_exception_at_product_k_is_chained_and_keeps_the_steps_before(k):
    def fail(out, vectors):
        raise ZeroDivisionError("kernel")

    with pytest.raises(LanczosError, match=f"product {k} failed: ZeroDivisionError") as e:
        rm.lanczos(Faulty(fail, at=2 + k), steps=8, probes=2)
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    check_partial(e.value.partial, k - 1)


@pytest.mark.parametrize("k", [1, 4])
def test_ctrl_c_keeps_the_steps_before(k):
    def interrupt(out, vectors):
        raise KeyboardInterrupt

    with pytest.raises(LanczosInterrupted, match=f"after {k - 1} of 8 steps") as e:
        rm.lanczos(Faulty(interrupt, at=2 + k), steps=8, probes=2)
    check_partial(e.value.partial, k - 1)


def check_partial(partial, steps):
    if steps == 0:
        assert partial is None
        return
    wanted = rm.lanczos(Faulty(put_nan, at=0), steps=steps, probes=2)
    assert np.array_equal(partial.diagonals, wanted.diagonals)
    assert np.array_equal(partial.residuals, wanted.residuals)
    assert {**partial.provenance, "stopped": None} == {**wanted.provenance, "stopped": None}


def test_an_asymmetric_operator_is_refused_with_the_residual():
    upper = np.triu(np.random.default_rng(0).standard_normal((40, 40)))
    with pytest.raises(NotSymmetricError, match=r"\|u'Av - v'Au\| is .*e[-+]0\d relative"):
        rm.lanczos(LinearOperator((40, 40), matvec=lambda v: upper @ v, dtype=float))


def test_a_slightly_asymmetric_operator_warns_with_the_residual():
    matrix = random_symmetric(40)
    matrix = matrix + 3e-7 * np.triu(matrix)
    with pytest.warns(UserWarning, match="symmetric only to .*e-0[678]"):
        found = rm.lanczos(LinearOperator((40, 40), matvec=lambda v: matrix @ v, dtype=float))
    assert found.provenance["asymmetry"] > 1e-8


def test_a_random_operator_is_refused():
    rng = np.random.default_rng(0)
    noisy = LinearOperator((9, 9), matvec=lambda v: (1 + rng.random()) * v, dtype=float)
    with pytest.raises(NonDeterministicError, match="repeated differs by"):
        rm.lanczos(noisy)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (put_nan, NonFiniteError, "NaN or Inf on a random vector"),
        (lambda out, v: v.mul_(2), ValueError, "modifies its input"),
        (lambda out, v: out[:-1], ValueError, r"maps shape \(30, 2\).*to \(29, 2\)"),
        (lambda out, v: out.float(), ValueError, "float64 to .*float32"),
        (lambda out, v: None, ValueError, "to None and .*NoneType"),
    ],
)
def test_the_self_check_finds(what, error, message):
    with pytest.raises(error, match=message):
        rm.lanczos(Faulty(what, at=1))


def test_bases_that_do_not_fit_are_refused_with_numbers():
    huge = LinearOperator((10**9, 10**9), matvec=lambda v: v, dtype=float)
    with pytest.raises(MemoryError, match=r"one probe of 64 steps at dim 1000000000 needs 552 GB"):
        rm.lanczos(huge)


@pytest.mark.gpu
def test_gpu_equals_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    matrix = torch.tensor(random_symmetric(100))
    on_cpu = rm.lanczos(matrix, steps=20, probes=3)
    on_gpu = rm.lanczos(matrix.cuda(), steps=20, probes=3)
    np.testing.assert_allclose(on_gpu.diagonals, on_cpu.diagonals, atol=1e-11)
