"""The decisions of tools/bootstrap.py, without network: no test here installs anything."""

import ast
import importlib.util
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "bootstrap.py"


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """The script as a module, at work in a folder with a space in its name."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a clone"
    root.mkdir()
    for name in module.REQUIREMENTS:
        (root / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(module, "ROOT", root)
    return module


@pytest.fixture
def lock(bootstrap):
    with bootstrap.Lock(bootstrap.ROOT / ".venv.lock") as lock:
        yield lock


@pytest.fixture
def commands(bootstrap, monkeypatch):
    """Commands that would have been run; ``python -m venv`` leaves an interpreter behind."""
    seen = []

    def run(command, **more):
        seen.append(command)
        if "venv" in command:
            python = bootstrap.ROOT / ".venv" / "bin" / "python"
            python.parent.mkdir()
            python.touch()
        if "--report" in command:
            path = Path(command[command.index("--report") + 1])
            path.write_text('{"install": [{"metadata": {"name": "torch", "version": "2.13.0"}}]}')
        return 0

    monkeypatch.setattr(bootstrap, "run", run)
    return seen


def report(version, *requirements):
    metadata = {"name": "torch", "version": version, "requires_dist": list(requirements)}
    return {"install": [{"metadata": metadata}]}


ON_LINUX = "; platform_system == 'Linux'"
CUDA = report(
    "2.13.0",
    "filelock",
    "sympy>=1.13.3",
    f"nvidia-cudnn-cu13==9.1{ON_LINUX}",
    f"cuda-bindings<14,>=13{ON_LINUX}",
    "opt-einsum>=3.3; extra == 'opt-einsum'",
    "nvidia-made-up; extra == 'made-up'",
)
CPU = report("2.13.0+cpu", "filelock", "sympy>=1.13.3")


# --- which Python ---


def test_the_script_parses_on_python_3_6():
    source = SCRIPT.read_text()
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__" not in source  # annotations came with 3.7


def test_an_old_python_is_refused_in_one_sentence(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(bootstrap, "newer_python", lambda: None)
    with pytest.raises(bootstrap.Refusal, match=r"needs Python 3\.11 or newer.*install one") as why:
        bootstrap.main(["demo"])
    assert "\n" not in str(why.value)


def test_an_old_python_hands_over_to_a_newer_one_on_the_path(bootstrap, monkeypatch):
    class HandedOverError(Exception):
        pass

    def execv(path, arguments):
        raise HandedOverError(path, arguments[0], arguments[2:])

    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(bootstrap, "newer_python", lambda: "/usr/local/bin/python3.12")
    monkeypatch.setattr(bootstrap.os, "execv", execv)
    with pytest.raises(HandedOverError) as handed:
        bootstrap.main(["demo", "--seed", "3"])
    assert handed.value.args == (
        "/usr/local/bin/python3.12",
        "/usr/local/bin/python3.12",
        ["demo", "--seed", "3"],
    )


def test_a_name_on_the_path_that_does_not_run_is_passed_over(bootstrap, monkeypatch, tmp_path):
    for name, body in (("python3.13", "exit 127"), ("python3.12", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bootstrap.newer_python() == str(tmp_path / "python3.12")


@pytest.mark.parametrize(("arguments", "status"), [(["help"], 0), ([], 0), (["dmeo"], 2)])
def test_help_lists_the_jobs(arguments, status):
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == status
    assert all(f"make {job}" in done.stdout for job in ("setup", "demo", "test", "check", "clean"))


# --- is the environment there ---


@pytest.fixture
def finished(bootstrap, commands):
    bootstrap.make_environment()
    assert bootstrap.is_finished(bootstrap.ROOT, (3, 12))
    return bootstrap


@pytest.fixture(autouse=True)
def same_python(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 12))


def test_a_finished_environment_is_left_as_it_is(finished, commands, lock):
    commands.clear()
    finished.setup(lock)
    assert commands == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_put_the_environment_out_of_date(finished, name):
    (finished.ROOT / name).write_text("# changed")
    assert not finished.is_finished(finished.ROOT, (3, 12))


def test_another_python_puts_the_environment_out_of_date(finished):
    assert not finished.is_finished(finished.ROOT, (3, 13))


def test_a_moved_environment_is_out_of_date(finished, tmp_path):
    moved = finished.ROOT.rename(tmp_path / "moved")
    assert not finished.is_finished(moved, (3, 12))


def test_an_environment_whose_interpreter_was_uninstalled_is_out_of_date(finished):
    python = finished.ROOT / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.12")
    assert not finished.is_finished(finished.ROOT, (3, 12))


def test_a_half_made_environment_starts_over(finished, lock):
    venv = finished.ROOT / ".venv"
    (venv / finished.STAMP).unlink()
    (venv / "leftover").touch()
    finished.setup(lock)
    assert finished.is_finished(finished.ROOT, (3, 12))
    assert not (venv / "leftover").exists()


def test_a_folder_without_packages_counts_as_half_made(bootstrap, commands, lock):
    (bootstrap.ROOT / ".venv" / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    bootstrap.setup(lock)
    assert bootstrap.is_finished(bootstrap.ROOT, (3, 12))


def test_somebody_else_s_environment_is_refused_and_stays(bootstrap, commands, lock):
    theirs = bootstrap.ROOT / ".venv/lib/python3.12/site-packages/numpy-2.3.0.dist-info"
    theirs.mkdir(parents=True)
    with pytest.raises(bootstrap.Refusal, match="not made by this script"):
        bootstrap.setup(lock)
    assert theirs.exists()
    assert commands == []


@pytest.mark.parametrize("stop_at", range(4))
@pytest.mark.parametrize("how", [KeyboardInterrupt, "fails"])
def test_a_set_up_that_is_cut_short_leaves_no_stamp(
    bootstrap, commands, monkeypatch, stop_at, how, lock
):
    through = bootstrap.run

    def run(command, **more):
        if len(commands) < stop_at:
            return through(command, **more)
        if how is KeyboardInterrupt:
            raise KeyboardInterrupt
        return 1

    monkeypatch.setattr(bootstrap, "run", run)
    with pytest.raises(KeyboardInterrupt if how is KeyboardInterrupt else bootstrap.Refusal):
        bootstrap.setup(lock)
    assert (bootstrap.ROOT / ".venv" / bootstrap.MARKER).exists()
    assert not (bootstrap.ROOT / ".venv" / bootstrap.STAMP).exists()


def test_a_failed_command_is_shown_ready_to_paste(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "run", lambda command, **more: 7)
    with pytest.raises(bootstrap.Refusal, match=r"status 7.*\n  '/a b/python' -m pip install x\n"):
        bootstrap.must(["/a b/python", "-m", "pip", "install", "x"])


def test_a_second_set_up_waits_for_the_first(bootstrap, lock):
    lock.exclusive()
    with bootstrap.Lock(bootstrap.ROOT / ".venv.lock") as second:
        waiting = threading.Thread(target=second.shared)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        lock.shared()  # made; both may now work in it
        waiting.join(5)
        assert not waiting.is_alive()


# --- what is installed ---


def test_every_pip_install_is_constrained(finished, commands):
    installs = [command for command in commands if "install" in command]
    assert len(installs) == 3
    assert all(c[c.index("-c") :][:2] == ["-c", "constraints.txt"] for c in installs)


def test_without_ensurepip_the_pip_of_the_interpreter_is_used(bootstrap, commands, monkeypatch):
    found = {"venv": True, "pip": True}
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", found.get)
    bootstrap.make_environment()
    python = str(bootstrap.ROOT / ".venv" / "bin" / "python")
    assert "--without-pip" in commands[0]
    assert commands[1][:6] == [sys.executable, "-m", "pip", "--python", python, "install"]


@pytest.mark.parametrize("found", [{"pip": True}, {"venv": True}])
def test_without_venv_or_any_pip_the_package_to_install_is_named(bootstrap, monkeypatch, found):
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", found.get)
    with pytest.raises(bootstrap.Refusal, match=r"lacks .* install its venv package"):
        bootstrap.make_environment()


def test_cuda_packages_are_those_that_apply_here(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    assert bootstrap.cuda_packages(CUDA) == ["nvidia-cudnn-cu13", "cuda-bindings"]
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Darwin")
    assert bootstrap.cuda_packages(CUDA) == []


@pytest.mark.parametrize(
    ("offered", "driver", "allowed", "decision"),
    [
        (CUDA, False, False, "refuse"),
        (report("2.13.0+cu130"), False, False, "refuse"),
        (CUDA, False, True, "install"),
        (CUDA, True, False, "install"),
        (CPU, False, False, "install"),
        (CPU, True, False, "prefer-cuda"),
    ],
)
def test_torch_is_neither_cuda_by_surprise_nor_cpu_on_a_gpu_machine(
    bootstrap, monkeypatch, offered, driver, allowed, decision
):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    assert bootstrap.torch_decision(offered, driver, allowed) == decision


def test_cuda_without_a_driver_stops_before_the_download(bootstrap, monkeypatch, commands, lock):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(bootstrap, "ask_pip", lambda pip, requirement: CUDA)
    monkeypatch.delenv("RMTHESS_CUDA", raising=False)
    with pytest.raises(bootstrap.Refusal, match=r"2 CUDA packages.*PIP_EXTRA_INDEX_URL") as why:
        bootstrap.setup(lock)
    assert "\n" not in str(why.value)
    assert not [command for command in commands if "-e" in command]


def test_with_a_driver_the_plain_version_is_asked_for_where_there_is_one(bootstrap, monkeypatch):
    offers = {"torch": CPU, "torch===2.13.0": CUDA}
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(bootstrap, "ask_pip", lambda pip, requirement: offers[requirement])
    assert bootstrap.torch_requirement([]) == "torch===2.13.0"


def test_with_a_driver_and_nothing_but_a_cpu_build_that_is_said(bootstrap, monkeypatch, capsys):
    def ask_pip(pip, requirement):
        if requirement == "torch":
            return CPU
        raise bootstrap.Refusal("no matching distribution")

    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(bootstrap, "ask_pip", ask_pip)
    assert bootstrap.torch_requirement([]) == "torch"
    assert "taking a CPU one" in capsys.readouterr().out


def test_other_packages_cannot_leak_into_the_environment(bootstrap, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "kept")
    env = bootstrap.environment(OMP_NUM_THREADS="1")
    assert not {"PYTHONPATH", "PIP_TARGET"} & set(env)
    assert (env["PIP_INDEX_URL"], env["OMP_NUM_THREADS"]) == ("kept", "1")


def test_every_requirement_that_make_installs_has_a_constraint_above_its_floor():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    named = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["demo"],
        *groups["test"],
        *groups["dev"],
        *project["build-system"]["requires"],
    ]
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {name.lower(): version for name, version in (line.split("==") for line in lines)}
    for requirement in map(Requirement, named):
        assert pins[requirement.name] in requirement.specifier


# --- jobs ---


def test_check_goes_on_after_a_failure_and_says_at_the_end_what_failed(
    bootstrap, monkeypatch, capsys
):
    monkeypatch.setattr(bootstrap, "run", lambda command, **more: int("mypy" in command))
    assert bootstrap.check() == 1
    out = capsys.readouterr().out
    headings = [line.strip("= ") for line in out.splitlines() if line.startswith("===")]
    assert headings == [
        "lint",
        "format",
        "types",
        "layers",
        "theory pages",
        "notebooks",
        "slow tests",
    ]
    assert out.splitlines()[-1] == "check: failed: types"


def test_check_succeeds_when_every_step_does(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "run", lambda command, **more: 0)
    assert bootstrap.check() == 0


def test_clean_leaves_somebody_else_s_environment_alone(bootstrap, capsys):
    theirs = bootstrap.ROOT / ".venv/lib/python3.12/site-packages/numpy-2.3.0.dist-info"
    theirs.mkdir(parents=True)
    bootstrap.clean()
    assert theirs.exists()
    assert "Left alone" in capsys.readouterr().out


def test_clean_removes_our_environment_and_the_caches(finished):
    (finished.ROOT / ".mypy_cache").mkdir()
    finished.clean()
    assert not (finished.ROOT / ".venv").exists()
    assert not (finished.ROOT / ".mypy_cache").exists()
