"""``rmthess predict``: what the functions predict, and one sentence where they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from commands import refused

import rmthess as rm
from rmthess.demo.problems import Digits


def invoke(*arguments: object) -> Any:
    return commands.invoke("predict", *arguments)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 8)), np.arange(60) % 3
    path = tmp_path / "data.npz"
    np.savez(path, X=x, y=y)
    return path, x, y


W = np.eye(1, 100).ravel()
TEACHER = 2 * (0.6 * W + 0.8 * np.eye(1, 100, 1).ravel())


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("p_spin", 3, "--spins", 500, "--", -1.0), lambda: rm.p_spin(3, -1.0, 500)),
        (
            ("deep_linear_minimum", 5, 4, 3, "--singular", 2.0, "--singular", 1.0),
            lambda: rm.deep_linear_minimum([2.0, 1.0], [5, 4, 3]),
        ),
        (("shallow_relu", 4, "--inputs", 6), lambda: rm.shallow_relu(4, 6)),
        (
            ("wishart_plus_wigner", 16, 16, 16, "--samples", 64, "--energy", 0.3),
            lambda: rm.wishart_plus_wigner([16, 16, 16], 64, 0.3),
        ),
        (
            ("glm", "logistic", "--dim", 100, "--samples", 1000, "--length", 3),
            lambda: rm.glm("logistic", 3 * W, 1000),
        ),
        (
            ("glm", "tanh_neuron", "--dim", 100, "--samples", 400, "--teacher", 2, "--cosine", 0.6),
            lambda: rm.glm("tanh_neuron", W, 400, teacher=TEACHER),
        ),
        (
            ("softmax_glm", "--classes", 3, "--dim", 60, "--samples", 240, "--length", 2),
            lambda: rm.softmax_glm(2 * np.eye(3, 60), 240),
        ),
    ],
)
def test_predictions_from_numbers_are_those_of_the_functions(arguments: Any, wanted: Any) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{wanted()}\n")
    assert "Assumes " in result.stdout


def test_the_share_of_negative_eigenvalues_is_said() -> None:
    result = invoke("p_spin", 3, "--", 0)
    assert result.stdout.endswith("share of negative eigenvalues in the bulk 0.5\n")
    assert "share" not in invoke("shallow_relu", 4).stdout


def test_predictions_from_a_file_are_those_of_the_functions(data: Any) -> None:
    path, x, y = data
    result = invoke("one_hidden_relu", 5, "--data", path, "--scale", 2, "--seed", 3)
    assert result.stdout.startswith(f"{rm.one_hidden_relu(x, y, 5, scale=2.0, seed=3)}\n")
    result = invoke("init_cluster", 900, "--data", path)
    assert result.stdout.startswith(f"{rm.init_cluster(x, y, 900)}\n")


def test_a_head_on_features_of_a_file_is_predicted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 31)), np.arange(300) % 4
    x[:, 3] = 1.0  # constant: left out
    np.savez(tmp_path / "features.npz", X=x, y=y)
    more = ("--positive", 2, "--length", 0.5, "--samples", 600)
    result = invoke("glm_classes", "--data", tmp_path / "features.npz", *more)
    assert result.exit_code == 0, result.stderr
    x = np.delete(x, 3, axis=1)
    step = x[y >= 2].mean(axis=0) - x[y < 2].mean(axis=0)
    statistics = rm.ClassStatistics.of(x, y)
    weights = 0.5 * step / np.linalg.norm(step)
    assert result.stdout.startswith(f"{rm.glm_classes('logistic', weights, 600, statistics)}\n")
    refused(invoke("glm_classes", "--data", tmp_path / "features.npz", "--positive", 9), "0..3")


PROBLEM = """
import torch
from torch import nn

def made():
    torch.manual_seed(0)
    x = torch.randn(60, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    return model, nn.CrossEntropyLoss(), (x, torch.arange(60) % 2)

def half():
    return made()[:2]
"""


def test_predictions_of_a_model_are_those_of_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "predicted_problem.py").write_text(PROBLEM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    options = ("--allow-cwd", "--size", 20, "--sets", 8, "--count", 2)
    result = invoke("batch", "predicted_problem:made", *options)
    assert result.exit_code == 0, result.stderr
    made = sys.modules.pop("predicted_problem").made()
    assert result.stdout == f"{rm.batch_extrapolation(*made, size=20, sets=8, count=2)}\n"
    noise = rm.batch_noise(*made)
    result = invoke("batch_noise", "predicted_problem:made", "--allow-cwd", "--size", 50)
    assert result.stdout == f"{noise}\nlargest in 50 samples {noise.largest(50):.4g}\n"
    result = invoke("kronecker", "predicted_problem:made", "--allow-cwd")
    parts = [f"layer {name}: {found}\n" for name, found in rm.kronecker(*made).items()]
    assert result.stdout == "".join(parts)
    refused(invoke("batch", "predicted_problem:half", "--allow-cwd"), "(model, loss, data)")
    refused(invoke("batch", "predicted_problem:made", "--allow-cwd", "--size", 7), "even")
    refused(invoke("kronecker", "predicted_problem:none", "--allow-cwd"), "has no 'none'")


def test_a_warning_goes_to_standard_error(data: Any) -> None:
    result = invoke("init_cluster", 3, "--data", data[0])
    assert result.exit_code == 0
    assert "3 hidden units are few" in result.stderr
    assert "side 39" in result.stdout


def test_the_digits_are_at_hand() -> None:
    digits = Digits.load()
    result = invoke("one_hidden_relu", 4)
    assert result.stdout.startswith(str(rm.one_hidden_relu(digits.inputs, digits.labels, 4)))


def test_what_cannot_be_predicted_is_one_sentence(data: Any, tmp_path: Path) -> None:
    refused(invoke("shallow_relu", 4, "--inputs", 3), "4 orthonormal neurons need 4 inputs")
    refused(invoke("glm", "hinge", "--dim", 50, "--samples", 500), "hinge")
    refused(invoke("glm", "logistic", "--dim", 1, "--samples", 9), "dim must be at least 2")
    refused(invoke("one_hidden_relu", 4, "--data", "data.csv"), "digits or a file .npz")
    refused(invoke("one_hidden_relu", 4, "--data", tmp_path / "none.npz"), "none.npz")
    np.savez(tmp_path / "odd.npz", X=np.ones(3))
    refused(invoke("init_cluster", 4, "--data", tmp_path / "odd.npz"), "has no 'y'")
    refused(invoke("init_cluster", 400, "--data", data[0], "--activation", "gelu"), "gelu")


def test_predict_alone_lists_what_it_can_predict() -> None:
    said = invoke("--help").stdout
    for name in (
        "p_spin", "deep_linear_minimum", "shallow_relu", "wishart_plus_wigner", "glm",
        "softmax_glm", "glm_classes", "batch", "batch_noise", "kronecker",
        "one_hidden_relu", "init_cluster",
    ):  # fmt: skip
        assert name in said
