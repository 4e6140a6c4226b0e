"""What is shipped: the wheel holds the package and nothing else, the sdist what tests it."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import rmthess

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Names in the wheel and in the sdist, built offline by the hatchling installed here."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return {
        "wheel": zipfile.ZipFile(wheel).namelist(),
        "sdist": tarfile.open(sdist).getnames(),
    }


def test_the_wheel_holds_the_package_and_its_metadata_only(built):
    metadata = f"rmthess-{rmthess.__version__}.dist-info"
    assert {PurePosixPath(name).parts[0] for name in built["wheel"]} == {"rmthess", metadata}


def test_the_wheel_holds_python_the_type_marker_and_the_report_s_templates(built):
    inside = [PurePosixPath(name) for name in built["wheel"] if name.startswith("rmthess/")]
    assert PurePosixPath("rmthess/py.typed") in inside
    assert PurePosixPath("rmthess/__main__.py") in inside
    data = [path for path in inside if path.suffix != ".py" and path.name != "py.typed"]
    assert data, "the report needs its template"
    assert all(path.parts[1] == "report" for path in data)
    assert {path.suffix for path in data} <= {".jinja", ".css"}


def test_the_wheel_holds_every_module(built):
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("rmthess/**/*.py")}
    assert modules <= set(built["wheel"])


def test_the_sdist_holds_sources_and_no_environment_cache_or_report(built):
    top = {PurePosixPath(name).parts[1] for name in built["sdist"] if "/" in name}
    assert {"rmthess", "tests", "theory", "tools", "LICENSE", "pyproject.toml"} <= top
    unwanted = {".venv", ".git", ".ci", "rmthess-report", "dist", "build"}
    assert not top & unwanted
    assert not [name for name in built["sdist"] if "__pycache__" in name]
