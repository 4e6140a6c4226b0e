"""Make the environment in .venv, then do a job in it: ``python3 tools/bootstrap.py demo``.

Standard library only, and no syntax newer than Python 3.6, so that an old interpreter meets a
sentence instead of a traceback. The stamp is written last: an environment without a valid stamp
is unfinished or out of date, and is made anew.
"""

import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
CANDIDATES = ("python3.13", "python3.12", "python3.11")
REQUIREMENTS = ("pyproject.toml", "constraints.txt")
INSTALL = ["install", "-c", "constraints.txt"]
MARKER = "made-by-bootstrap"  # written first: this folder is ours to replace
STAMP = "bootstrap-stamp"  # written last: this environment is complete
DRIVER = (
    "/proc/driver/nvidia/version",
    "/usr/lib/wsl/lib/libcuda.so.1",
    "/etc/nv_tegra_release",
)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "build", "dist")
HELP = """\
make setup   the environment in .venv alone (also done first by the others, once)
make demo    theory beside measurement on a real network; writes rmthess-report/
make test    the fast tests
make check   lint, types, layers, theory pages, notebooks, the slow tests
make clean   remove .venv, caches and build outputs (rmthess-report/ stays)

Without make: python3 tools/bootstrap.py setup|demo|test|check|clean
"""


class Refusal(Exception):
    """A reason not to go on, in words for the person at the terminal."""


def say(text):
    print(text, flush=True)


# --- which Python ---------------------------------------------------------------------------


def runs_and_is_new_enough(python):
    # Version managers put names on PATH that fail when called, so finding one is not enough.
    code = f"import sys; sys.exit(sys.version_info < {OLDEST!r})"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.call([python, "-c", code], **quiet) == 0


def newer_python():
    """The first interpreter on PATH that will do, or None."""
    for name in CANDIDATES:
        path = shutil.which(name)
        if path and runs_and_is_new_enough(path):
            return path
    return None


def old_python_sentence(version):
    return (
        f"rmthess needs Python {OLDEST[0]}.{OLDEST[1]} or newer, this is {version} "
        f"({sys.executable}), and none of {', '.join(CANDIDATES)} runs here: install one, "
        "or name it with `make PYTHON=/path/to/python3.12 demo`."
    )


# --- is the environment there ---------------------------------------------------------------


def fingerprint(root, version):
    """What the environment was made from. The folder counts: an environment cannot be moved."""
    digest = hashlib.sha256()
    for name in REQUIREMENTS:
        digest.update((root / name).read_bytes())
    digest.update(f"{version[0]}.{version[1]} {root}".encode())
    return digest.hexdigest()


def is_finished(root, version):
    venv = root / ".venv"
    try:
        stamp = (venv / STAMP).read_text()
    except OSError:
        return False
    # A link to an interpreter that was uninstalled does not "exist".
    return stamp == fingerprint(root, version) and (venv / "bin" / "python").exists()


def is_foreign(venv):
    """Whether somebody else installed packages there: it is then theirs, and stays."""
    if (venv / MARKER).exists() or (venv / STAMP).exists():
        return False
    installed = venv.glob("lib*/python*/site-packages/*.dist-info")
    return any(not i.name.startswith(("pip-", "setuptools-", "wheel-")) for i in installed)


class Lock:
    """Shared while a job runs in .venv, exclusive while .venv is made.

    The kernel drops it with the last process that holds it. pip inherits it, so a pip that
    outlives a killed set-up still keeps the next one out.
    """

    def __init__(self, path):
        import fcntl  # not on Windows, where main() has refused already

        self.fcntl = fcntl
        self.file = path.open("a")
        os.set_inheritable(self.file.fileno(), True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def take(self, mode):
        self.fcntl.flock(self.file, self.fcntl.LOCK_UN)  # or two upgrades would wait for each other
        try:
            self.fcntl.flock(self.file, mode | self.fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another run is at work in this folder's .venv; waiting for it to end.")
            self.fcntl.flock(self.file, mode)

    def shared(self):
        self.take(self.fcntl.LOCK_SH)

    def exclusive(self):
        self.take(self.fcntl.LOCK_EX)


# --- running things -------------------------------------------------------------------------


def environment(**more):
    """The user's variables without those that would let other packages into .venv."""
    foreign = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_PYTHON")
    env = {name: value for name, value in os.environ.items() if name not in foreign}
    env.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", **more)
    return env


def run(command, **more):
    """Exit status. On Ctrl-C the child, which got it too, is given the time to tidy up."""
    child = subprocess.Popen(command, cwd=str(ROOT), env=environment(**more), close_fds=False)
    interrupted = False
    while True:
        try:
            status = child.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return status


def must(command):
    status = run(command)
    if status:
        quoted = " ".join(shlex.quote(word) for word in command)
        raise Refusal(
            f"the set-up stopped, because this command failed (status {status}; its own words are "
            f"above):\n  {quoted}\nOnce the cause is gone, the same command starts over."
        )


# --- CUDA -----------------------------------------------------------------------------------


def has_nvidia_driver():
    return bool(shutil.which("nvidia-smi")) or any(os.path.exists(path) for path in DRIVER)


def torch_metadata(report):
    return next(
        item["metadata"] for item in report["install"] if item["metadata"]["name"] == "torch"
    )


def cuda_packages(report):
    """Names of the CUDA packages that pip's report says torch would bring to this machine."""
    here = {
        "platform_system": platform.system(),
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "extra": None,  # we ask for none
    }
    found = []
    for requirement in torch_metadata(report).get("requires_dist", []):
        name = re.match(r"[\w.-]+", requirement).group()
        conditions = re.findall(r"(\w+)\s*==\s*['\"]([^'\"]*)['\"]", requirement.partition(";")[2])
        applies = all(here.get(key, value) == value for key, value in conditions)
        if applies and name.startswith(("nvidia-", "cuda-")):
            found.append(name)
    return found


def torch_decision(report, driver, allowed):
    """``install``, ``refuse`` (CUDA without a driver) or ``prefer-cuda`` (a CPU build with one)."""
    version = torch_metadata(report)["version"]
    cuda = bool(cuda_packages(report)) or "+cu" in version
    if cuda and not driver and not allowed:
        return "refuse"
    if version.endswith("+cpu") and driver:
        return "prefer-cuda"
    return "install"


def cuda_sentence(report):
    version, count = torch_metadata(report)["version"], len(cuda_packages(report))
    return (
        f"pip would download torch {version} with {count} CUDA packages (several GB), but this "
        "machine has no NVIDIA driver: run `PIP_EXTRA_INDEX_URL=<index> make setup` with the index "
        "address that https://pytorch.org/get-started/locally/ shows for CPU, or, if CUDA is what "
        "you want, `RMTHESS_CUDA=1 make setup`."
    )


def ask_pip(pip, requirement):
    """pip's report on what it would take for torch: metadata only, a second or two."""
    path = ROOT / ".venv" / "torch-report.json"
    only_ask = ["--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", str(path)]
    must([*pip, *INSTALL, *only_ask, requirement])
    return json.loads(path.read_text(encoding="utf-8"))


def torch_requirement(pip):
    """The torch to install: never CUDA by surprise, never a CPU build where there is a GPU."""
    report = ask_pip(pip, "torch")
    decision = torch_decision(report, has_nvidia_driver(), "RMTHESS_CUDA" in os.environ)
    if decision == "refuse":
        raise Refusal(cuda_sentence(report))
    if decision == "install":
        return "torch"
    # 2.13.0+cpu sorts above 2.13.0 wherever both are on offer; === takes the string as it is.
    plain = "torch===" + torch_metadata(report)["version"].replace("+cpu", "")
    try:
        report = ask_pip(pip, plain)
    except Refusal:
        say(
            "This machine has an NVIDIA driver, but pip finds no torch with CUDA: taking a CPU one."
        )
        return "torch"
    say(f"NVIDIA driver found: {len(cuda_packages(report))} CUDA packages, several GB.")
    return plain


# --- making it ------------------------------------------------------------------------------


def discard(venv):
    # Renamed first: a deletion that is cut short leaves no half environment without its marker.
    trash = venv.with_name(".venv.discarded")
    shutil.rmtree(str(trash), ignore_errors=True)
    if venv.is_symlink() or venv.is_file():
        venv.unlink()
    elif venv.exists():
        venv.rename(trash)
        shutil.rmtree(str(trash))


def create(venv):
    """An environment with pip in it, also where Python was packaged without ensurepip."""
    have = {m: importlib.util.find_spec(m) is not None for m in ("venv", "ensurepip", "pip")}
    if not have["venv"] or not (have["ensurepip"] or have["pip"]):
        lacking = "both ensurepip and pip" if have["venv"] else "venv"
        raise Refusal(
            f"{sys.executable} lacks {lacking} and cannot make an environment: install its venv "
            "package (on Debian and Ubuntu `apt install python3-venv`)."
        )
    python = str(venv / "bin" / "python")
    if have["ensurepip"]:
        must([sys.executable, "-m", "venv", str(venv)])
    else:
        must([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        must([sys.executable, "-m", "pip", "--python", python, *INSTALL, "--quiet", "pip"])
    return [python, "-m", "pip"]


def make_environment():
    venv = ROOT / ".venv"
    if is_foreign(venv):
        raise Refusal(
            f"{venv} was not made by this script and holds packages: move it away or delete it, "
            "then run the same command again."
        )
    began = time.time()
    count = len((ROOT / "constraints.txt").read_text().split())
    say(
        f"Making .venv with Python {platform.python_version()}: about {count} packages, torch the "
        "largest. About 0.5 GB to download and 1.5 GB on disk (several GB more with an NVIDIA "
        "driver), one to three minutes; pip is silent for a minute while it unpacks."
    )
    discard(venv)
    venv.mkdir()
    (venv / MARKER).write_text("tools/bootstrap.py replaces this folder when it is out of date.\n")
    pip = create(venv)
    install = [*pip, *INSTALL, *([] if sys.stdout.isatty() else ["--quiet"])]
    must([*install, "--upgrade", "pip", "hatchling"])  # an older pip knows no --group
    torch = torch_requirement(pip)
    groups = ["--group", "test", "--group", "dev"]
    must([*install, "--no-build-isolation", *groups, torch, "-e", ".[demo]"])
    # Written aside and renamed, so that it is there whole or not at all.
    stamp = venv / (STAMP + ".new")
    stamp.write_text(fingerprint(ROOT, sys.version_info))
    stamp.replace(venv / STAMP)
    say(f"The environment is ready ({time.time() - began:.0f} s).")


def setup(lock):
    """Return, with the lock shared, once .venv is finished."""
    lock.shared()
    while not is_finished(ROOT, sys.version_info):
        lock.exclusive()
        if not is_finished(ROOT, sys.version_info):  # another run may have made it meanwhile
            make_environment()
        lock.shared()


# --- jobs -----------------------------------------------------------------------------------


def become(arguments, **more):
    """Turn into the job, so that Ctrl-C, signals and the exit status are the job's own."""
    python = str(ROOT / ".venv" / "bin" / "python")
    sys.stdout.flush()
    os.execve(python, [python, *arguments], environment(**more))


def one_thread_each():
    return dict.fromkeys(THREADS, "1")


def check():
    python = [str(ROOT / ".venv" / "bin" / "python"), "-m"]
    pytest = [*python, "pytest", "-q"]
    pages = ["tests/test_theory.py", "tests/test_notebooks.py"]
    steps = (
        ("lint", [*python, "ruff", "check", "."]),
        ("format", [*python, "ruff", "format", "--check", "."]),
        ("types", [*python, "mypy"]),
        ("layers", [*pytest, "tests/test_layers.py"]),
        ("theory pages", [*pytest, "-n", "2", pages[0]]),
        ("notebooks", [*pytest, "-n", "2", pages[1]]),
        ("slow tests", [*pytest, "-n", "2", "-m", "slow"] + ["--ignore=" + page for page in pages]),
    )
    failed = []
    for name, command in steps:
        say(f"\n=== {name} ===")
        if run(command, **one_thread_each()):
            failed.append(name)
    say("\ncheck: " + ("failed: " + ", ".join(failed) if failed else "all passed"))
    return 1 if failed else 0


def clean():
    if is_foreign(ROOT / ".venv"):
        say("Left alone: .venv, which this script did not make.")
    else:
        discard(ROOT / ".venv")
    for folder in [ROOT / name for name in CACHES]:
        shutil.rmtree(str(folder), ignore_errors=True)
    for part in ("rmthess", "tests", "tools", "theory", "benchmarks"):
        for folder in (ROOT / part).glob("**/__pycache__"):
            shutil.rmtree(str(folder), ignore_errors=True)


def main(arguments):
    job, rest = (arguments or ["help"])[0], arguments[1:]
    if job not in ("setup", "demo", "test", "check", "clean"):
        print(HELP, end="")
        return 0 if job == "help" else 2
    if sys.version_info < OLDEST:
        newer = newer_python()
        if newer is None:
            raise Refusal(old_python_sentence(platform.python_version()))
        os.execv(newer, [newer, os.path.abspath(__file__), *arguments])
    if os.name != "posix":
        raise Refusal(
            "this script needs Linux, macOS or WSL; on Windows make an environment yourself and "
            'run `pip install -c constraints.txt ".[demo]"` in it, then `rmthess demo`.'
        )
    os.chdir(str(ROOT))
    with Lock(ROOT / ".venv.lock") as lock:
        if job == "clean":
            lock.exclusive()
            clean()
            return 0
        setup(lock)
        if job == "demo":
            become(["-m", "rmthess", "demo", *rest])
        if job == "test":
            fast = ["-m", "not slow", "--ignore=tests/test_notebooks.py"]
            become(["-m", "pytest", "-n", "2", *fast, *rest], **one_thread_each())
        return check() if job == "check" else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refusal as refusal:
        sys.exit(f"bootstrap: {refusal}")
    except OSError as error:
        sys.exit(f"bootstrap: cannot go on in {ROOT}: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted; the same command starts again.", file=sys.stderr)
        sys.exit(130)
