"""Densities of laws, timed on one thread, with the error beside every time.

    python benchmarks/laws.py        prints a table, writes benchmarks/results/laws-<cpu>.md

Two errors: the residual of the defining equation at every point, relative to the size of its terms,
and the distance from 40 digits of mpmath at sampled points. A time is the least of several runs of
everything a first call does, set-up included: laws are built anew. It is processor time, which on
one thread is the time of a machine that has nothing else to do. The peer is freealg, at its default
distance from the axis, where it is installed.
"""

# ruff: noqa: E402 - the number of threads is set before NumPy is loaded

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

import rmthess as rm

RESULTS = Path(__file__).parent / "results"
SAMPLED = 40


@dataclass(frozen=True)
class Case:
    """A law to build, its number of points, and the target in milliseconds."""

    name: str
    make: Callable[[], Any]
    points: int
    target: float | None
    peer: Callable[[Any, Any], Any] | None = None
    thin: int = 1  # the peer gets every thin-th point
    inverse: Callable[[Any], Any] | None = None  # G -> z, for a law without transform in mpmath


def three() -> Any:
    return rm.SampleCovariance(0.3, rm.DiscreteMeasure([1.0, 3.0, 10.0], np.full(3, 1 / 3)))


def hundred() -> Any:
    t = np.linspace(0.5, 10.4, 100)
    return rm.SampleCovariance(0.1, rm.DiscreteMeasure(t, np.full(100, 0.01)))


def wishart_plus_wigner() -> Any:
    return rm.boxplus(rm.MarchenkoPastur(0.25), rm.Semicircle(1.0))


def uniform_plus_wishart() -> Any:
    return rm.boxplus(rm.Uniform(0.0, 1.0), rm.MarchenkoPastur(0.3))


def inverse_of_uniform_plus_wishart(g: Any) -> Any:
    """z = R₁(G) + R₂(G) + 1/G with R₁ = 1/2 + coth(G/2)/2 - 1/G and R₂ = 1/(1 - 0.3 G)."""
    ratio, cosh, sinh = 0.3, *((np.cosh, np.sinh) if isinstance(g, np.ndarray) else HYPERBOLIC)
    return (1 + cosh(g / 2) / sinh(g / 2)) / 2 + 1 / (1 - ratio * g)


HYPERBOLIC = mpmath.cosh, mpmath.sinh


def peer_three(freealg: Any, x: Any) -> Any:
    law = freealg.distributions.DeformedMarchenkoPastur
    return law([1.0, 3.0, 10.0], [1 / 3] * 3, 0.3).density(x)


def peer_hundred(freealg: Any, x: Any) -> Any:
    law = freealg.distributions.DeformedMarchenkoPastur
    return law(list(np.linspace(0.5, 10.4, 100)), [0.01] * 100, 0.1).density(x)


def peer_wishart_plus_wigner(freealg: Any, x: Any) -> Any:
    return freealg.distributions.FreeLevy([0.25], [1.0], 4.0, sigma=1.0).density(x)


def peer_marchenko_pastur(freealg: Any, x: Any) -> Any:
    return freealg.distributions.MarchenkoPastur(0.2).density(x)


CASES = [
    Case("sample covariance, 100 atoms", hundred, 10_000, 100, peer_hundred, 20),
    Case("sample covariance, 3 atoms", three, 1000, 5, peer_three),
    Case("Marchenko–Pastur ⊞ semicircle", wishart_plus_wigner, 1000, 10, peer_wishart_plus_wigner),
    Case(
        "Uniform ⊞ Marchenko–Pastur, no kernel",
        uniform_plus_wishart,
        1000,
        10,
        inverse=inverse_of_uniform_plus_wishart,
    ),
    Case("Marchenko–Pastur", lambda: rm.MarchenkoPastur(0.2), 10_000, None, peer_marchenko_pastur),
]


def grid(law: Any, count: int) -> Any:
    """Evenly spaced over the support; every tenth within 1e-6 of the width of an edge."""
    edges = np.ravel(law.support).astype(float)
    x = np.linspace(edges[0], edges[-1], count)
    signs = np.where(np.arange(edges.size) % 2 == 0, 1e-6, -1e-6)
    chosen = np.arange(count // 10) % edges.size
    x[::10][: chosen.size] = edges[chosen] + signs[chosen] * (edges[-1] - edges[0])
    return np.sort(x)


def least_time(run: Callable[[], Any], repeats: int = 21) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def residual(case: Case, law: Any, x: Any) -> float:
    """Backward error at every point: of K(ω) = x, of z(G) = x, or of the law's quadratic."""
    if case.inverse is not None:
        return float(np.max(np.abs(case.inverse(-law.stieltjes(x)) - x) / (1 + np.abs(x))))
    if hasattr(law, "kernel"):
        kernel = law.kernel
        omega = kernel.solve(x)
        size = np.abs(kernel.slope * omega) + abs(kernel.offset)
        for pole, weight in zip(kernel.poles, kernel.residues, strict=True):
            size += weight / np.abs(omega - pole)
        return float(np.max(np.abs(kernel(omega) - x) / size))
    m = law.stieltjes(x)
    size = np.max([np.abs(law.equation(m * np.exp(1j * turn), x)) for turn in (1, 2, 3)], axis=0)
    return float(np.max(np.abs(law.equation(m, x)) / size))


def exact_density(case: Case, law: Any, x: float) -> float:
    """At 40 digits: from m in mpmath, or G by Newton's method on z(G) = x from its double."""
    with mpmath.workdps(40):
        if case.inverse is None:
            return float(mpmath.im(law.stieltjes(mpmath.mpf(x))) / mpmath.pi)
        start = mpmath.mpmathify(-complex(law.stieltjes(x)))
        inverse = case.inverse
        root = mpmath.findroot(lambda g: inverse(g) - x, start)
        return float(-mpmath.im(root) / mpmath.pi)


def error(case: Case, law: Any, x: Any, density: Any) -> tuple[float, float]:
    """Against 40 digits at sampled points: away from edges, and within 1e-6 of the width of one."""
    edges = np.ravel(law.support).astype(float)
    distance = np.abs(x[:, None] - edges).min(axis=1) / (edges[-1] - edges[0])
    found = []
    for some in (
        np.flatnonzero(distance > 1e-3),
        np.flatnonzero((distance > 5e-7) & (distance < 2e-6)),
    ):
        some = some[np.unique(np.linspace(0, some.size - 1, SAMPLED).astype(int))]
        exact = [exact_density(case, law, float(x[k])) for k in some.tolist()]
        found.append(float(np.max(np.abs(density[some] - exact))))
    return found[0], found[1]


def peer_column(case: Case, x: Any, density: Any) -> str:
    if case.peer is None:
        return "—"
    try:
        import freealg
    except ImportError:
        return "not installed"
    try:
        start = time.process_time()
        found = np.asarray(case.peer(freealg, x[:: case.thin]))
        elapsed = 1e3 * (time.process_time() - start)
    except Exception as failure:
        return f"failed: {type(failure).__name__}"
    error = np.max(np.abs(found - density[:: case.thin]))
    points = f" for {found.size} points" if case.thin > 1 else ""
    return f"{elapsed:.3g} ms{points}, error {error:.0e}"


def row(case: Case) -> str:
    law = case.make()
    x = grid(law, case.points)
    density = np.asarray(law.density(x))
    assert np.isfinite(density).all()
    elapsed = least_time(lambda: case.make().density(x))
    inner, outer = error(case, law, x, density)
    target = "—" if case.target is None else f"{case.target:g}"
    return (
        f"| {case.name} | {case.points} | {elapsed:.2f} | {target} | {inner:.0e} | {outer:.0e} | "
        f"{residual(case, law, x):.0e} | {peer_column(case, x, density)} |"
    )


def processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def main() -> None:
    name = processor()
    lines = [
        f"# Laws on one thread of {name}",
        "",
        f"NumPy {np.__version__}, Python {platform.python_version()}. Load of the machine at the "
        f"start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, shared with other work.",
        "",
        "Processor times in ms: set-up and density of all points, the least of 21 runs. Errors of "
        f"the density against 40 digits at {SAMPLED} points away from edges and {SAMPLED} at 1e-6 "
        "of the width from one; residual: backward error at all points.",
        "",
        "| law | points | ms | target | error | at edges | residual | freealg |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for case in CASES:
        lines.append(row(case))
        print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    (RESULTS / f"laws-{slug}.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
