"""The spectrum of a Hessian by Lanczos, beside bare Hessian-vector products and other packages.

    python benchmarks/estimator.py                    three rounds, a quarter of an hour
    python benchmarks/estimator.py --rounds 1         one round
    python benchmarks/estimator.py --quick            seconds: small models, few steps

Prints tables and writes benchmarks/results/estimator-<cpu>.md (not with --quick). Every run is a
process of its own, which first times bare products: all times are CPU times and are compared
within one process, because the load of the machine changes from one to the next. (Not afterwards:
rmthess has the allocator keep freed memory, of which what comes later profits as well.) The
runs of a round are interleaved over rounds; the medians are reported. The clock includes making
the operator, and no imports: a tiny problem is run before.

Peers are used where they can be imported, else said to be missing. They are best installed apart:

    pip install --no-deps --target peers pyhessian==0.1 hessian-eigenthings==1.0.0a5 tqdm \
        curvlinops-for-pytorch==3.0.1 backpack-for-pytorch einconv einops jaxtyping \
        linear_operator opt-einsum unfoldNd wadler_lindig
    PYTHONPATH=peers python benchmarks/estimator.py
"""

# ruff: noqa: E402 - the number of threads is set before torch is loaded

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import ctypes
import gc
import json
import math
import platform
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rmthess as rm
from rmthess.operators import recording
from rmthess.operators.memory import count_saved_bytes

RESULTS = Path(__file__).parent / "results"
STEPS, PROBES, CHUNKS = 64, 4, 8
MODELS = ("mlp", "conv", "gpt")
MODES = ("in memory", "streamed")
MOST_OF_FRESH = {"mlp": 0.70, "conv": 0.70, "gpt": 0.80}
MIB = 2.0**20
Nodes = list[tuple[Any, Any]]  # one (nodes, weights) a probe


class Block(nn.Module):
    """Pre-norm attention and MLP, the attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (t.view(shape).transpose(1, 2) for t in self.mix(self.before(x)).split(width, 2))
        scores = q @ k.transpose(-1, -2) / math.sqrt(shape[-1])
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.between(x))


class Transformer(nn.Module):
    """Two layers, width 64, 4 heads, 64 tokens out of 256; logits (batch, vocabulary, length)."""

    def __init__(self, vocabulary: int = 256, width: int = 64, length: int = 64) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(tokens) + self.place))).transpose(1, 2)


def convolutional() -> nn.Module:
    layers: list[nn.Module] = []
    for inward, outward in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inward, outward, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 10))


def perceptron(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inward, outward in pairwise(widths):
        layers += [nn.Linear(inward, outward), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def problem(name: str, scale: int = 1) -> tuple[nn.Module, Tensor, Tensor]:
    """A model after ten steps of gradient descent, its inputs and labels; 1/scale of the data."""
    torch.manual_seed(0)
    if name == "gpt":
        model: nn.Module = Transformer()
        tokens = torch.randint(256, (32 // scale, 65))
        x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    else:
        widths, samples = ((784, 128, 128, 10), 2048) if name == "mlp" else ((32, 40, 20, 10), 512)
        model = convolutional() if name == "conv" else perceptron(*widths)
        samples //= scale
        x = torch.randn(samples, 3, 32, 32) if name == "conv" else torch.randn(samples, widths[0])
        y = torch.randint(10, (samples,))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(10):
        optimiser.zero_grad()
        cross_entropy(model(x), y).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model, x, y


def ours(model: nn.Module, batches: list[Any], steps: int, probes: int, seed: int) -> Nodes:
    single = len(batches) == 1
    data, memory = (batches[0], None) if single else (batches, 0)
    operator = rm.hessian(model, cross_entropy, data, memory=memory)
    found = rm.lanczos(operator, steps=steps, probes=probes, seed=seed)
    print(json.dumps({"backend": operator.backend}))
    nodes, weights = np.asarray(found.nodes), np.asarray(found.weights)
    return [(n[~np.isnan(n)], w[~np.isnan(n)]) for n, w in zip(nodes, weights, strict=True)]


def eigenthings(model: nn.Module, batches: list[Any], steps: int, probes: int, seed: int) -> Nodes:
    from hessian_eigenthings.algorithms.spectral_density import spectral_density
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators.hessian import HessianOperator

    operator = HessianOperator(model, batches, supervised_loss(cross_entropy))
    found = spectral_density(operator, num_runs=probes, lanczos_steps=steps, seed=seed)
    return list(zip(found.raw_eigenvalues.numpy(), found.raw_weights.numpy(), strict=True))


def curvlinops(model: nn.Module, batches: list[Any], steps: int, probes: int, seed: int) -> Nodes:
    import curvlinops as package
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the peer draws from it
    parameters = [p for p in model.parameters() if p.requires_grad]
    operator = package.HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, batches)
    found = []
    for _ in range(probes):
        nodes, vectors = fast_lanczos(operator, steps)
        found.append((np.asarray(nodes), np.asarray(vectors)[0] ** 2))
    return found


def pyhessian(model: nn.Module, batches: list[Any], steps: int, probes: int, seed: int) -> Nodes:
    """0.1 calls torch.eig, which torch removed; the same is put in its place for the run."""
    from pyhessian import hessian

    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    torch.manual_seed(seed)
    torch.eig = eig
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    found = hessian(model, nn.CrossEntropyLoss(), **data, cuda=False)
    nodes, weights = found.density(iter=steps, n_v=probes)
    return [(np.asarray(n), np.asarray(w)) for n, w in zip(nodes, weights, strict=True)]


@dataclass(frozen=True)
class Contender:
    """Who is measured, the distribution to be installed, and probes in a timed run.

    Peers run one probe after another, so that one probe says it all; ours runs them together.
    """

    name: str
    run: Callable[[nn.Module, list[Any], int, int, int], Nodes]
    package: str
    probes: int = 1


CONTENDERS = {
    "rmthess": Contender("rmthess", ours, "torch", PROBES),
    "pyhessian": Contender("PyHessian, eigen call mended", pyhessian, "pyhessian"),
    "eigenthings": Contender("hessian-eigenthings", eigenthings, "hessian-eigenthings"),
    "curvlinops": Contender("curvlinops", curvlinops, "curvlinops-for-pytorch"),
}


def installed(contender: Contender) -> str | None:
    try:
        return version(contender.package)
    except PackageNotFoundError:
        return None


def warm_up() -> tuple[nn.Module, list[Any]]:
    """A tiny problem, so that what a package imports late is not on the clock."""
    return perceptron(4, 3, 2), [(torch.randn(5, 4), torch.randint(2, (5,)))]


class Bare:
    """Products of double backward and nothing else: a fresh graph for each, or one for all."""

    def __init__(self, model: nn.Module, batches: list[Any]) -> None:
        self._model, self._batches = model, batches
        self._parameters = list(model.parameters())
        self._direction = [torch.randn_like(p) for p in self._parameters]

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        loss = cross_entropy(self._model(x), y)
        return torch.autograd.grad(loss, self._parameters, create_graph=True)

    def product(self, gradient: tuple[Tensor, ...]) -> None:
        torch.autograd.grad(gradient, self._parameters, self._direction, retain_graph=True)

    def times(self, repeats: int) -> dict[str, list[float]]:
        graphs = [self.gradient(x, y) for x, y in self._batches]
        found: dict[str, list[float]] = {"fresh": [], "floor": []}
        for _ in range(repeats):
            start = time.process_time()
            for x, y in self._batches:
                self.product(self.gradient(x, y))
            between = time.process_time()
            for graph in graphs:
                self.product(graph)
            found["fresh"].append(between - start)
            found["floor"].append(time.process_time() - between)
        return found


def resident() -> float:
    """MiB that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * resource.getpagesize() / MIB


def forget_peak() -> float:
    """Give freed memory back, start the high-water mark anew, and return where it starts."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "utf-8")
    return resident()


def peak() -> float:
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) * 1024 / MIB


def child(who: str, name: str, mode: str, quick: bool) -> dict[str, Any]:
    """One run: seconds a product of ours or a peer's, of bare products around it, and memory."""
    contender, steps = CONTENDERS[who], 8 if quick else STEPS
    model, x, y = problem(name, 8 if quick else 1)
    count = 1 if mode == "in memory" else min(CHUNKS, len(x))
    batches = list(zip(x.chunk(count), y.chunk(count), strict=True))
    bare, repeats = Bare(model, batches), 2 if quick else 12
    bare.times(1)  # warm
    times = bare.times(repeats)
    base = forget_peak()
    bare.times(1)
    bare_peak = peak() - base
    contender.run(*warm_up(), 3, 1, 0)
    with count_saved_bytes() as saved:
        bare.gradient(*batches[0])
    base = forget_peak()
    start = time.process_time()
    contender.run(model, batches, steps, contender.probes, 0)
    seconds = (time.process_time() - start) / (steps * contender.probes)
    return {
        "seconds": seconds,
        "fresh": median(times["fresh"]),
        "floor": median(times["floor"]),
        "peak": peak() - base,
        "bare peak": bare_peak,
        "graph": saved.total / MIB,
        "dim": sum(p.numel() for p in model.parameters()),
    }


def products(name: str, quick: bool) -> dict[str, Any]:
    """Seconds of one product by itself, in turns: torch's, and the ways of ours."""
    model, x, y = problem(name, 8 if quick else 1)
    bare = Bare(model, [(x, y)])
    ways = {"shared": "shared", "recorded": "recorded", "recorded, sums not fused": "recorded"}
    operators = {}
    for label, backend in ways.items():
        fuse = recording.fuse
        recording.fuse = (lambda graph: None) if label.endswith("fused") else fuse
        operators[label] = rm.hessian(model, cross_entropy, (x, y), backend=backend)
        vector = torch.randn(operators[label].dim, 1)
        operators[label].matmat(vector)
        recording.fuse = fuse
    bare.times(1)
    found: dict[str, list[float]] = {"floor": [], **{label: [] for label in operators}}
    for _ in range(2 if quick else 12):
        found["floor"] += bare.times(1)["floor"]
        for label, operator in operators.items():
            start = time.process_time()
            operator.matmat(vector)
            found[label].append(time.process_time() - start)
    return {label: median(times) for label, times in found.items()}


def accuracy(who: str, quick: bool) -> dict[str, Any]:
    """In float32 against every eigenvalue in float64: W1 over the range, largest eigenvalue."""
    model, x, y = problem("small")
    exact = rm.eigenvalues(rm.hessian(model.double(), cross_entropy, (x.double(), y)))
    model.float()
    distances, errors, copies = [], [], []
    for seed in range(1 if quick else 5):
        found = CONTENDERS[who].run(model, [(x, y)], STEPS, PROBES, seed)
        nodes = np.concatenate([n for n, _ in found]).astype(float)
        weights = np.concatenate([w for _, w in found]).astype(float)
        distance = wasserstein_distance(nodes, exact, weights)
        distances.append(distance / (exact[-1] - exact[0]))
        errors.append(abs(nodes.max() / exact[-1] - 1))
        copies.append(sum(duplicates(n, exact) for n, _ in found))
    return {"distance": float(np.mean(distances)), "worst": max(distances), "top": max(errors),
            "copies": float(np.mean(copies))}  # fmt: skip


def duplicates(nodes: Any, exact: Any) -> int:
    """Ritz values beyond the first within 1e-4 of one of the eight largest eigenvalues."""
    near = [int(np.sum(np.abs(np.asarray(nodes) / top - 1) < 1e-4)) for top in exact[-8:]]
    return sum(max(count - 1, 0) for count in near)


def spawn(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"failed": last[0][:120]}
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def measure(rounds: int, quick: bool) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    flags = ["--quick"] if quick else []
    present = [who for who, contender in CONTENDERS.items() if installed(contender)]
    cases = [(name, mode, who) for name in MODELS for mode in MODES for who in present]
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for name, mode, who in cases:
            run = spawn("--child", who, "--model", name, "--mode", mode, *flags)
            found[name, mode, who].append(run)
            print(name, mode, who, {k: v for k, v in run.items() if k != "backend"}, flush=True)
    return found


def middle(runs: list[dict[str, Any]], top: str, bottom: str | None = None) -> float:
    return median(run[top] / (run[bottom] if bottom else 1.0) for run in runs)


def table(found: dict[tuple[str, str, str], list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| model | data | | ms a product | of fresh | of the floor | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, mode, who), runs in found.items():
        start = f"| {name} | {mode} | {CONTENDERS[who].name} |"
        if any("failed" in run for run in runs):
            lines.append(f"{start} failed: {next(r['failed'] for r in runs if 'failed' in r)} |")
            continue
        if who == "rmthess":
            fresh, floor = 1e3 * middle(runs, "fresh"), 1e3 * middle(runs, "floor")
            lines.append(f"| {name} | {mode} | bare, fresh graph | {fresh:.1f} | 1 | | |")
            lines.append(f"| {name} | {mode} | bare, shared graph: the floor | {floor:.1f} | "
                         f"{middle(runs, 'floor', 'fresh'):.2f} | 1 | |")  # fmt: skip
        lines.append(
            f"{start} {1e3 * middle(runs, 'seconds'):.1f} | {middle(runs, 'seconds', 'fresh'):.2f} "
            f"| {middle(runs, 'seconds', 'floor'):.2f} | {middle(runs, 'peak'):.0f} |"
        )
    return lines


def verdicts(found: dict[tuple[str, str, str], list[dict[str, Any]]]) -> list[str]:
    """Every target beside what was reached; a target that is missed says so."""
    lines = ["| model | data | target | reached | |", "|---|---|---|---|---|"]
    for name in MODELS:
        for mode in MODES:
            runs = {w: r for (n, m, w), r in found.items() if (n, m) == (name, mode)}
            runs = {w: r for w, r in runs.items() if not any("failed" in run for run in r)}
            for what, reached, is_good in judged(name, mode, runs) if "rmthess" in runs else []:
                verdict = "" if is_good else "missed"
                lines.append(f"| {name} | {mode} | {what} | {reached:.3g} | {verdict} |")
    return lines


def judged(
    name: str, mode: str, runs: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, float, bool]]:
    mine = runs["rmthess"]
    of_fresh, most = middle(mine, "seconds", "fresh"), MOST_OF_FRESH[name]
    most = 0.78 if mode == "streamed" else most
    rows = [(f"at most {most:.2f} of fresh", of_fresh, of_fresh <= most)]
    if mode == "in memory":
        of_floor, highest = middle(mine, "seconds", "floor"), middle(mine, "peak")
        rows.append(("at most 1.15 of the floor", of_floor, of_floor <= 1.15))
        basis = PROBES * STEPS * mine[0]["dim"] * 4 / MIB
        graph, bare = mine[0]["graph"], middle(mine, "bare peak")
        for what, most in (("one graph", graph), ("what a bare product takes", bare)):
            allowed = 1.1 * (basis + most)
            what = f"at most {allowed:.0f} MiB: basis and {what}, and 10%"
            rows.append((what, highest, highest <= allowed))
    peers = [middle(run, "seconds", "fresh") for who, run in runs.items() if who != "rmthess"]
    if peers:
        ratio = min(peers) / of_fresh
        rows.append(("1.2 times faster than the fastest peer", ratio, ratio >= 1.2))
    return rows


def ways(quick: bool) -> list[str]:
    found = {name: spawn("--products", name, *(["--quick"] if quick else [])) for name in MODELS}
    labels = [label for label in found[MODELS[0]] if label != "floor"]
    rows = [
        f"| {name} | {1e3 * times['floor']:.1f} | "
        + " | ".join(f"{times[label] / times['floor']:.2f}" for label in labels) + " |"
        for name, times in found.items()
    ]  # fmt: skip
    head = f"| model | the floor, ms | {' | '.join(labels)} |"
    return [head, "|" + "---|" * (len(labels) + 2), *rows]


def accuracies(quick: bool) -> list[str]:
    lines = [
        "| | W1 / range, mean | worst | largest eigenvalue, worst error | copies near the top 8 |",
        "|---|---|---|---|---|",
    ]
    for who, contender in CONTENDERS.items():
        if installed(contender) is None:
            lines.append(f"| {contender.name} | not installed |")
            continue
        run = spawn("--accuracy", who, *(["--quick"] if quick else []))
        if "failed" in run:
            lines.append(f"| {contender.name} | failed: {run['failed']} |")
            continue
        lines.append(f"| {contender.name} | {run['distance']:.2e} | {run['worst']:.2e} | "
                     f"{run['top']:.0e} | {run['copies']:.1f} |")  # fmt: skip
    return lines


def processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def report(rounds: int, quick: bool) -> list[str]:
    name, load = processor(), os.getloadavg()[0]
    found = measure(rounds, quick)
    peers = ", ".join(
        f"{c.name} {installed(c) or 'not installed'}" for c in list(CONTENDERS.values())[1:]
    )
    backends = [
        f"- {model}, {mode}: {runs[-1].get('backend', 'failed')}"
        for (model, mode, who), runs in found.items()
        if who == "rmthess"
    ]
    return [
        f"# The estimator on {os.environ['OMP_NUM_THREADS']} thread of {name}",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}; {peers}. {rounds} "
        f"round(s), load {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end on "
        f"{os.cpu_count()} cores, shared with other work. CPU times, operator construction "
        "included.",
        "",
        f"{STEPS} steps; {PROBES} probes at once for rmthess, one for the others, whose further "
        "probes repeat the first. Ratios are to bare double-backward products timed before in the "
        f"same process. Streamed: {CHUNKS} batches, no graph kept; the floor has all eight kept. "
        "Peak: resident memory above model and data. A graph is what autograd saves for it; a bare "
        "product, of one fresh and one shared graph, takes in addition what it computes with.",
        "",
        *table(found),
        "",
        "What rmthess chose:",
        "",
        *backends,
        "",
        *verdicts(found),
        "",
        "One product of all data by itself, of the floor: the shared graph with our convolutions, "
        "its record, and the record as autograd wrote it.",
        "",
        *ways(quick),
        "",
        f"Accuracy on a tanh perceptron of 2350 parameters, 512 samples, {STEPS} steps, {PROBES} "
        "probes, five seeds, float32 against all eigenvalues in float64:",
        "",
        *accuracies(quick),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    for hidden in ("--child", "--accuracy", "--products", "--model", "--mode"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.child:
        print(json.dumps(child(given.child, given.model, given.mode, given.quick)))
    elif given.products:
        print(json.dumps(products(given.products, given.quick)))
    elif given.accuracy:
        print(json.dumps(accuracy(given.accuracy, given.quick)))
    else:
        lines = report(1 if given.quick else given.rounds, given.quick)
        print("\n".join(lines))
        if not given.quick:
            RESULTS.mkdir(exist_ok=True)
            slug = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
            (RESULTS / f"estimator-{slug}.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
