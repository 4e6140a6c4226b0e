"""``rmthess measure``: runs the code that it is told to, keeps what it has, refuses the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import rmthess as rm
from rmthess.cli import app

MODULE = """
import time
import numpy as np, torch
from torch import nn
from scipy.sparse.linalg import LinearOperator

def matrix():
    return np.diag(np.arange(1.0, 31.0))

def problem():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    return model, nn.MSELoss(), (torch.randn(20, 3).double(), torch.randn(20, 2).double())

def slow():
    count = 0
    def product(x):
        nonlocal count
        count += 1
        if count == 12:
            print("halfway", flush=True)
        time.sleep(0.02 if count < 12 else 60)
        return np.arange(1.0, 31.0)[:, None] * np.reshape(x, (30, -1))
    return LinearOperator((30, 30), matvec=product, matmat=product, dtype=float)

def nothing():
    return None

def broken():
    raise RuntimeError("no data here")

def interrupted():
    raise KeyboardInterrupt

number = 3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty working directory with a module of the user in it, imported anew by each test."""
    (tmp_path / "userproblem.py").write_text(MODULE, "utf-8")
    (tmp_path / "userbroken.py").write_text("import nowhere_at_all", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("userproblem", "userbroken"):
        sys.modules.pop(name, None)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["measure", *map(str, arguments)])


def refused(result: Any, *words: str) -> None:
    assert result.exit_code == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("rmthess: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in last


def test_a_matrix_is_measured_and_saved_with_its_origin(place: Path) -> None:
    result = invoke(
        "userproblem:matrix", "--output", "run.safetensors", "--steps", 30, "--probes", 2,
        "--seed", 5, "--deflate", 1, "--allow-cwd",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "run.safetensors\n"
    assert "Lanczos" in result.stderr
    found = rm.load("run.safetensors")
    direct = rm.lanczos(np.diag(np.arange(1.0, 31.0)), steps=30, probes=2, seed=5, deflate=1)
    assert isinstance(found, rm.LanczosMeasure)
    np.testing.assert_array_equal(found.diagonals, direct.diagonals)
    assert found.deflated == pytest.approx([30.0])
    assert found.provenance["problem"] == "userproblem:matrix"


def test_a_model_a_loss_and_data_are_their_hessian(place: Path) -> None:
    """Of a linear layer under the mean squared error: [x 1]ᵀ[x 1]/20, once for each output."""
    import torch

    result = invoke("userproblem:problem", "--output", "h.safetensors", "--steps", 8, "--allow-cwd")
    assert result.exit_code == 0, result.stderr
    torch.manual_seed(0)
    torch.nn.Linear(3, 2)
    x = torch.randn(20, 3).double().numpy()
    exact = np.linalg.eigvalsh((z := np.hstack([x, np.ones((20, 1))])).T @ z / 20)
    found = rm.load("h.safetensors").nodes  # type: ignore[union-attr]
    np.testing.assert_allclose(np.sort(found[0][np.isfinite(found[0])]), exact, atol=1e-9)


def test_the_current_directory_is_searched_only_when_allowed(place: Path) -> None:
    refused(
        invoke("userproblem:matrix", "--output", "run.safetensors"),
        "no module 'userproblem' on the path", "--allow-cwd",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "rmthess", "measure", "userproblem:matrix", "--output", "r"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--allow-cwd" in done.stderr
    assert sorted(path.name for path in place.iterdir()) == ["userbroken.py", "userproblem.py"]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("userproblem", ["package.module:function", "'userproblem'"]),
        ("userproblem:", ["package.module:function"]),
        ("userproblem:none", ["has no 'none'"]),
        ("userproblem:number", ["is a int", "function of no arguments"]),
        ("userproblem:nothing", ["returned None", "(model, loss, data)"]),
        ("userproblem:broken", ["RuntimeError: no data here"]),
        ("userbroken:matrix", ["cannot be imported", "nowhere_at_all"]),
        ("usermissing:matrix", ["no module 'usermissing' on the path"]),
    ],
)
def test_what_makes_no_problem_is_refused_in_one_sentence(
    place: Path, problem: str, words: list[str]
) -> None:
    refused(invoke(problem, "--output", "run.safetensors", "--allow-cwd"), *words)


def test_an_unwritable_output_is_found_before_the_code_runs(place: Path) -> None:
    for output, word in (("a/b.safetensors", "no directory"), (".", "is a directory")):
        refused(invoke("userproblem:broken", "--output", output, "--allow-cwd"), word)


def test_an_interruption_before_the_first_step_keeps_nothing(place: Path) -> None:
    result = invoke("userproblem:interrupted", "--output", "run.safetensors", "--allow-cwd")
    assert result.exit_code == 130
    assert "interrupted; nothing was measured yet" in result.stderr
    assert not list(place.glob("*.safetensors"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_partial_result(place: Path, number: int, status: int) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-m", "rmthess", "measure", "userproblem:slow", "--allow-cwd",
            "--output", "run.safetensors", "--steps", "25", "--probes", "2",
        ],
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        time.sleep(0.2)
        process.send_signal(number)
        _, complained = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status, complained
    assert "Traceback" not in complained
    assert "kept in run.partial.safetensors" in complained
    kept = rm.load(place / "run.partial.safetensors")
    assert isinstance(kept, rm.LanczosMeasure)
    assert 2 <= kept.steps < 12
    assert not (place / "run.safetensors").exists()
