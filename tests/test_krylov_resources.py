"""What a run may use: memory, orthogonalisation, waits for a device, threads of its own."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import rmthess as rm
from rmthess.krylov import chains
from rmthess.krylov.errors import LanczosError, LanczosInterrupted
from rmthess.krylov.orthogonality import Periodic
from rmthess.krylov.room import STRIDE, Room
from rmthess.operators.as_operator import as_operator
from rmthess.operators.basis import BLOCK, Basis

F64 = torch.float64
CPU = torch.device("cpu")


def random_symmetric(dim, seed=0):
    a = np.random.default_rng(seed).standard_normal((dim, dim))
    return (a + a.T) / np.sqrt(2 * dim)


def spiked(dtype=np.float64):
    spectrum = np.append(np.random.default_rng(0).random(497), [10, 20, 40])
    return np.diag(spectrum).astype(dtype)


class Diagonal:
    """diag(1, ..., 2) on torch tensors; ``product(number, vectors)`` may spoil it."""

    def __init__(self, dim=200, spoil=None):
        self.diagonal = torch.linspace(1, 2, dim, dtype=F64)[:, None]
        self.shape, self.dtype, self.device = (dim, dim), F64, CPU
        self.spoil, self.calls, self.widths = spoil, 0, []

    def matmat(self, vectors):
        self.calls += 1
        self.widths.append(vectors.shape[1])
        out = self.diagonal * vectors
        return out if self.spoil is None else self.spoil(self.calls, out)


@pytest.fixture
def ahead(monkeypatch):
    """As on a GPU: the host reads α and β only every few steps."""
    plan = Room.plan.__func__
    monkeypatch.setattr(
        Room, "plan", classmethod(lambda cls, *given: replace(plan(cls, *given), ahead=True))
    )


# ---- the basis


@pytest.mark.parametrize("resident", [None, 0, 1])
def test_a_basis_in_host_memory_removes_the_same_components(resident):
    rng = np.random.default_rng(0)
    size = 2 * BLOCK + 7
    Q = np.linalg.qr(rng.standard_normal((200, size)))[0].T
    basis = Basis(size, 200, F64, CPU, resident=resident)
    for row in Q:
        basis.append(torch.from_numpy(row))
    w = rng.standard_normal(200)
    found = torch.from_numpy(w.copy())
    length = basis.remove_from(found)
    wanted = w - Q.T @ (Q @ w)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-14)
    assert float(length) == pytest.approx(np.linalg.norm(wanted), rel=1e-14)
    assert torch.equal(basis.gather(), torch.from_numpy(Q))


def test_a_vector_in_the_span_leaves_only_rounding():
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((50, 40)))[0].T
    basis = Basis(40, 50, F64, CPU)
    for row in Q:
        basis.append(torch.from_numpy(row))
    inside = torch.from_numpy(Q.T @ np.ones(40))
    for twice in (False, True):
        assert float(basis.remove_from(inside.clone(), twice=twice)) < 1e-14


def test_a_basis_is_rotated_slice_by_slice():
    rng = np.random.default_rng(2)
    dim = (1 << 16) + 300  # more than one slice
    rows = rng.standard_normal((BLOCK + 3, dim))
    C = np.linalg.qr(rng.standard_normal((BLOCK + 3, 5)))[0]
    basis = Basis(BLOCK + 3, dim, F64, CPU)
    for row in rows:
        basis.append(torch.from_numpy(row))
    basis.combine(torch.from_numpy(C))
    np.testing.assert_allclose(basis.gather().numpy(), C.T @ rows, atol=1e-12)
    basis.append(torch.from_numpy(rows[0]))
    assert basis.size == 6


# ---- orthogonality


@pytest.mark.parametrize("method", ["full", "periodic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outliers_are_found_once_each_without_ghosts(dtype, method):
    found = rm.lanczos(spiked(dtype), steps=120, probes=4, reorthogonalize=method)
    for nodes in found.nodes:
        assert [np.sum(np.abs(nodes - spike) < 1e-2) for spike in (10, 20, 40)] == [1, 1, 1]
        # 1e-6 of 40 is 8 roundings of the matrix itself in float32
        assert np.nanmax(nodes) == pytest.approx(40, rel=1e-6 if dtype == np.float32 else 1e-14)


def test_without_reorthogonalisation_ghosts_share_the_weight_and_the_result_says_so():
    start = np.ones(500)
    found = rm.lanczos(spiked(), steps=120, start=start, reorthogonalize="none")
    copies = np.abs(found.nodes[0] - 40) < 1e-2
    assert copies.sum() > 5
    assert found.weights[0][copies].sum() == pytest.approx(1 / 500, rel=1e-10)
    assert found.provenance["reorthogonalize"] == "none"
    assert "several times" in found.provenance["caution"]
    assert "caution" not in rm.lanczos(spiked(), steps=5, probes=1).provenance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_periodic_keeps_orthogonality_at_half_precision_with_fewer_passes(dtype, monkeypatch):
    kept = []

    class Watched(Periodic):
        def __init__(self, *given):
            super().__init__(*given)
            kept.append(self)

    monkeypatch.setattr("rmthess.krylov.room.Periodic", Watched)
    found = rm.lanczos(spiked(dtype), steps=120, probes=3, reorthogonalize="periodic")
    full = rm.lanczos(spiked(dtype), steps=120, probes=3)
    eps = np.finfo(dtype).eps
    for keeper in kept:
        Q = keeper._basis.gather().to(F64)
        assert (Q @ Q.T - torch.eye(len(Q))).abs().max() < np.sqrt(eps)
        assert keeper.passes < 0.7 * 120
    # Simon's theorem: T of a semi-orthogonal basis is that of an orthonormal one, to rounding
    np.testing.assert_allclose(found.diagonals, full.diagonals, atol=40 * 20 * eps)


def test_large_operators_are_reorthogonalised_when_due_and_small_ones_always():
    def used(dim):
        operator = rm.LowRank(torch.eye(dim, 3), np.array([3.0, 2.0, 1.0]))
        return rm.lanczos(operator, steps=5, probes=1).provenance["reorthogonalize"]

    assert (used(49_999), used(50_000)) == ("full", "periodic")


@pytest.mark.parametrize("spectrum", ["outliers", "ten decades", "indefinite"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_periodic_counts_and_places_ritz_values_as_full_does(dtype, spectrum):
    n = 2000
    decades = np.logspace(-10, 0, n)
    values = {
        "outliers": np.append(np.linspace(0, 1, n - 4), [10, 20, 40, 41]),
        "ten decades": decades,
        "indefinite": np.concatenate([-decades[::-2], decades[::2]]),
    }[spectrum]
    full, periodic = (
        rm.lanczos(np.diag(values).astype(dtype), steps=100, probes=2, reorthogonalize=method)
        for method in ("full", "periodic")
    )
    eps, largest = np.finfo(dtype).eps, np.abs(values).max()
    np.testing.assert_allclose(
        np.sort(periodic.nodes), np.sort(full.nodes), atol=200 * eps * largest
    )
    for degree in (1, 2, 7):
        wanted = full.moment(degree)
        assert periodic.moment(degree) == pytest.approx(wanted, abs=200 * eps * largest**degree)


def test_an_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match=r"one of \('full', 'periodic', 'none'\), got 'some'"):
        rm.lanczos(np.eye(3), reorthogonalize="some")


# ---- waits for a device


class CountReads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def one_group(steps, probes, stride, device="cpu"):
    operator = as_operator(torch.tensor(random_symmetric(300), device=device))
    room = Room("full", steps, probes, None, ahead=stride > 1)
    starts = torch.randn(probes, 300, dtype=F64, generator=torch.Generator().manual_seed(0))
    starts /= starts.norm(dim=1, keepdim=True)
    keepers = [room.keeper(operator, None) for _ in range(probes)]
    products = chains.Products(operator, 1.0)
    return chains.Chains(products, starts.to(device), steps, 300, keepers, stride)


def test_scalars_leave_the_device_once_a_stride(monkeypatch):
    fetched = []
    fetch = chains.fetch
    monkeypatch.setattr(chains, "fetch", lambda p: fetched.append(len(p)) or fetch(p))
    group = one_group(steps=20, probes=3, stride=8)
    with CountReads() as count:
        while group.active:
            group.advance()
    assert fetched == [8, 8, 4]
    assert count.reads == 0  # tolist() inside fetch is the only way out
    wanted = one_group(steps=20, probes=3, stride=1)
    while wanted.active:
        wanted.advance()
    np.testing.assert_allclose(group.alpha, wanted.alpha, atol=1e-13)
    np.testing.assert_allclose(group.beta, wanted.beta, atol=1e-13)


@pytest.mark.usefixtures("ahead")
def test_a_breakdown_within_a_stride_is_exact():
    found = rm.lanczos(np.diag(np.repeat([1.0, 2.0, 5.0], 30)), steps=20, probes=3)
    assert found.residuals.tolist() == [0, 0, 0]
    for rule in found.quadratures():
        np.testing.assert_allclose(rule.nodes, [1, 2, 5], atol=1e-13)
    zero = rm.lanczos(np.zeros((30, 30)), steps=20, probes=2)
    assert zero.nodes[:, 0].tolist() == [0, 0]


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("k", [1, 3, STRIDE, STRIDE + 2])
def test_nan_within_a_stride_names_its_product_and_keeps_the_steps_before(k):
    def spoil(call, out):
        if call == 2 + k:
            out[3, -1] = float("nan")
        return out

    with pytest.raises(LanczosError, match=f"product {k} holds NaN or Inf for probe 1") as e:
        rm.lanczos(Diagonal(spoil=spoil), steps=20, probes=2)
    check_partial(e.value.partial, k - 1)


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("k", [1, 4, STRIDE + 2])
@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_a_stop_within_a_stride_keeps_the_steps_before(k, kind):
    def spoil(call, out):
        if call == 2 + k:
            raise kind
        return out

    with pytest.raises((LanczosError, LanczosInterrupted), match=f"{k - 1} of 20 steps") as e:
        rm.lanczos(Diagonal(spoil=spoil), steps=20, probes=2)
    check_partial(e.value.partial, k - 1)


def check_partial(partial, steps):
    if steps == 0:
        assert partial is None
        return
    wanted = rm.lanczos(Diagonal(), steps=steps, probes=2)
    assert np.array_equal(partial.diagonals, wanted.diagonals)


# ---- memory


def test_what_does_not_fit_runs_a_few_probes_at_a_time_with_the_same_result():
    operator = Diagonal()
    found = rm.lanczos(operator, steps=20, probes=5, memory=0.08e6)  # 2 times 25 vectors
    assert operator.widths[2:] == [2] * 40 + [1] * 20
    assert found.provenance["probes_at_once"] == 2
    wanted = rm.lanczos(Diagonal(), steps=20, probes=5)
    assert wanted.provenance["probes_at_once"] == 5
    np.testing.assert_allclose(found.diagonals, wanted.diagonals, atol=1e-14)
    np.testing.assert_allclose(found.residuals, wanted.residuals, atol=1e-14)


def test_a_cap_below_one_probe_is_refused_with_what_would_fit():
    with pytest.raises(MemoryError, match=r"needs 40 kB on cpu, where 32 kB may be used; 15 steps"):
        rm.lanczos(Diagonal(), steps=20, memory=20 * 200 * 8)
    found = rm.lanczos(Diagonal(), steps=20, memory=20 * 200 * 8, reorthogonalize="none")
    assert found.provenance["probes_at_once"] == 4
    with pytest.raises(ValueError, match="memory must be a positive number"):
        rm.lanczos(Diagonal(), memory=0)


@pytest.mark.parametrize("at", [1, 2, 7])
def test_out_of_memory_halves_the_probes_at_a_time(at):
    def spoil(call, out):
        if call >= 2 + at and out.shape[1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    found = rm.lanczos(Diagonal(spoil=spoil), steps=20, probes=8)
    assert found.provenance["memory"] == [
        "out of memory with 8 probes at a time; went on with 4",
        "out of memory with 4 probes at a time; went on with 2",
    ]
    wanted = rm.lanczos(Diagonal(), steps=20, probes=8)
    np.testing.assert_allclose(found.diagonals, wanted.diagonals, atol=1e-14)


def test_out_of_memory_for_a_basis_halves_the_probes_at_a_time(monkeypatch):
    allocate, alive = Basis._allocate, []

    def limited(self):
        alive[:] = [reference for reference in alive if reference() is not None]
        if len(alive) >= 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        block = allocate(self)
        alive.append(weakref.ref(block))
        return block

    monkeypatch.setattr(Basis, "_allocate", limited)
    found = rm.lanczos(Diagonal(), steps=20, probes=8)
    assert found.provenance["probes_at_once"] == 2
    assert found.probes == 8


def test_out_of_memory_with_one_probe_is_explained():
    def spoil(call, out):
        if call > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    with pytest.raises(MemoryError, match=r"one probe at a time.*in smaller batches"):
        rm.lanczos(Diagonal(spoil=spoil), steps=20, probes=8)


def test_an_interruption_keeps_the_finished_groups():
    def spoil(call, out):
        if call == 2 + 20 + 20 + 7:
            raise KeyboardInterrupt
        return out

    with pytest.raises(LanczosInterrupted, match="after 4 probes of 20 steps") as e:
        rm.lanczos(Diagonal(spoil=spoil), steps=20, probes=6, memory=2 * 25 * 200 * 8)
    assert e.value.partial.diagonals.shape == (4, 20)


def test_progress_counts_the_steps_of_all_groups():
    seen = []
    rm.lanczos(
        Diagonal(), steps=4, probes=3, memory=2 * 9 * 200 * 8, progress=lambda *a: seen.append(a)
    )
    assert seen == [(i, 8) for i in range(1, 9)]


def test_three_runs_do_not_keep_tensors():
    def alive():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    operator = Diagonal(2000)
    counts = []
    for _ in range(3):
        rm.lanczos(operator, steps=30, probes=4, deflate=2)
        counts.append(alive())
    assert counts[0] == counts[1] == counts[2]


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["full", "periodic"])
def test_a_basis_in_host_memory_gives_the_same_on_a_gpu(method):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    matrix = torch.tensor(random_symmetric(2000))
    wanted = rm.lanczos(matrix, steps=100, probes=2)
    found = rm.lanczos(
        matrix.cuda(), steps=100, probes=2, memory=70 * 2000 * 8, reorthogonalize=method
    )
    assert "host memory" in found.provenance["basis"]
    np.testing.assert_allclose(found.diagonals, wanted.diagonals, atol=1e-10)


@pytest.mark.gpu
def test_a_gpu_is_waited_for_once_a_stride():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    group = one_group(steps=20, probes=2, stride=STRIDE, device="cuda")
    group.advance()  # the first use of a kernel may wait for it to be loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STRIDE - 2):
            group.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_freed_memory_is_kept_for_the_next_product():
    code = """
import resource, sys, torch
from torch import nn
from rmthess.operators import curvature
from rmthess.operators.hessian import hessian

if sys.argv[1] == "returned":
    curvature.keep_freed_memory = lambda: None
torch.manual_seed(0)
x, y = torch.randn(512, 3, 32, 32), torch.randint(10, (512,))
layers = nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))
operator = hessian(model, nn.CrossEntropyLoss(), (x, y))
vector = torch.ones(operator.dim)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    operator @ vector
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(sorted(faults() for _ in range(7))[3])
"""

    def faults(what):
        command = [sys.executable, "-c", code, what]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 0.2 * faults("returned")
