"""Times of the closed form, the exact rank and a numerical rank; writes results/ranks.md.

python benchmarks/ranks.py
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flint
import numpy as np

import rmthess as rm
from rmthess.ranks.elimination import matrix, random_point
from rmthess.ranks.network import linear_network
from rmthess.ranks.residues import PRIME

RESULTS = Path(__file__).parent / "results" / "ranks.md"
DEPTHS = (2, 10, 100, 1000)
NETWORKS = ([20, 16, 18, 20], [24, 30, 26, 19], [40, 40, 35, 30])  # about 1000, 2000, 4000


def best_of(repeats: int, call: Callable[[], Any]) -> tuple[float, Any]:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        value = call()
        times.append(time.process_time() - start)
    return min(times), value


def closed_form() -> list[str]:
    rows = ["| depth | closed form |", "|---|---|"]
    for depth in DEPTHS:
        widths = [50, *[60 + layer % 7 for layer in range(depth - 1)], 40]
        seconds, _ = best_of(5, lambda widths=widths: rm.linear_network_rank(widths))
        rows.append(f"| {depth} | {seconds * 1e6:.0f} µs |")
    return rows


def counted() -> list[str]:
    rows = [
        "| widths | parameters | rank | exact rank | of this, forming the matrix | numpy eigvalsh "
        "and numerical_rank |",
        "|---|---|---|---|---|---|",
    ]
    for widths in NETWORKS:
        bound = rm.linear_network_rank(widths)
        exact_seconds, exact = best_of(1, lambda widths=widths: rm.exact_rank(widths))
        assert exact.value == bound.value
        point = random_point(linear_network(widths), 0, PRIME)
        forming, _ = best_of(1, lambda point=point: matrix(point, "hessian"))
        rng = np.random.default_rng(0)
        basis = rng.standard_normal((bound.parameters, bound.value)) / bound.parameters**0.5
        symmetric = (basis * rng.choice([-1.0, 1.0], bound.value)) @ basis.T
        seconds, found = best_of(1, lambda m=symmetric: rm.numerical_rank(np.linalg.eigvalsh(m)))
        assert found.value == bound.value
        rows.append(
            f"| {widths} | {bound.parameters} | {bound.value} | {exact_seconds:.1f} s | "
            f"{forming:.1f} s | {seconds:.1f} s |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    text = [
        "# Ranks",
        "",
        f"python {platform.python_version()}, numpy {np.__version__}, python-flint "
        f"{flint.__version__}, {platform.machine()}, one thread, CPU time. The machine has two "
        "cores and was shared with other work, which slows these too. The numerical rank is that "
        "of a "
        "random matrix of the same size and rank, already formed.",
        "",
        *closed_form(),
        "",
        *counted(),
        "",
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
