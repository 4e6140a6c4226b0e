"""``rmthess compare``, ``report`` and ``law``: what is printed, written, and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import invoke, refused

import rmthess as rm


@pytest.fixture(scope="module")
def spectrum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).standard_normal((300, 129)) * np.sqrt(1.7)
    path = tmp_path_factory.mktemp("spectra") / "gaussian.safetensors"
    rm.save(rm.lanczos(x.T @ x / 300, steps=16, probes=3), path)
    return path


# ---- compare


def test_compare_prints_the_table_at_given_parameters(spectrum: Path) -> None:
    result = invoke("compare", spectrum, "--parameters", "ratio=0.43, variance=1.7")
    assert result.exit_code == 0, result.stderr
    found = rm.compare(rm.MarchenkoPastur(0.43, 1.7), rm.load(spectrum))
    assert result.stdout.startswith(str(found))
    assert "outliers: 0" in result.stdout


def test_without_parameters_the_law_is_fitted_first(spectrum: Path) -> None:
    result = invoke("compare", spectrum, "--law", "semicircle", "--bootstrap", 5)
    fitted = rm.fit(rm.Semicircle, rm.load(spectrum), bootstrap=5)
    assert result.stdout.startswith(str(fitted))
    assert str(rm.compare(fitted.law, rm.load(spectrum))) in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--law", "wigner"], ["unknown law 'wigner'", "semicircle, marchenko_pastur"]),
        (["--parameters", "ratio=0.4"], ["needs the parameters ratio, variance; got ratio"]),
        (["--parameters", "ratio=0.4,variance"], ["name=number", "'variance'"]),
        (["--parameters", "ratio=1,ratio=2"], ["each once", "'ratio=2'"]),
        (
            ["--parameters", "ratio=-1,variance=1"],
            ["ratio must be a positive finite number, got -1.0"],
        ),
        (["--level", "2"], ["level must lie between 0 and 1"]),
    ],
)
def test_compare_refuses_in_one_sentence(
    spectrum: Path, options: list[str], words: list[str]
) -> None:
    parameters = [] if "--parameters" in options else ["--parameters", "ratio=1,variance=1"]
    refused(invoke("compare", spectrum, *parameters, *options), *words)


def test_a_table_of_eigenvalues_is_read(tmp_path: Path) -> None:
    values = rm.Semicircle().sample(80, np.random.default_rng(1))
    table = tmp_path / "values.csv"
    table.write_text("eigenvalue\n" + "\n".join(map(repr, map(float, values))), encoding="utf-8")
    result = invoke("fit", table, "--law", "semicircle", "--bootstrap", 10)
    direct = rm.fit(
        rm.family("semicircle"), rm.DiscreteMeasure.from_eigenvalues(values), bootstrap=10
    )
    assert result.stdout.strip() == str(direct)
    table.write_text("eigenvalue\nnan\n", encoding="utf-8")
    refused(invoke("fit", table), "values.csv")
    refused(invoke("fit", tmp_path / "none.csv"), "none.csv")


def test_a_logarithmic_fit_says_so_and_where_the_steps_resolve_nothing(
    spectrum: Path, tmp_path: Path
) -> None:
    refused(invoke("fit", spectrum, "--log"), "16 steps know the cdf", "pass floor=")
    values = rm.DiscreteMeasure.from_eigenvalues(
        rm.MarchenkoPastur(0.5).sample(60, np.random.default_rng(2))
    )
    rm.save(values, place := tmp_path / "all.safetensors")
    result = invoke("fit", place, "--log", "--bootstrap", 0)
    assert result.exit_code == 0, result.stderr
    assert "On the logarithmic axis" in result.stdout


def test_a_spectrum_from_a_future_version_is_refused(tmp_path: Path, spectrum: Path) -> None:
    future = tmp_path / "future.safetensors"
    future.write_bytes(spectrum.read_bytes().replace(b'schema\\": 2', b'schema\\": 9'))
    for command in ("fit", "compare", "report"):
        refused(invoke(command, future), "newer rmthess (schema 9)")


# ---- report


def test_report_writes_the_page_the_numbers_and_the_spectrum(
    spectrum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--law", "marchenko_pastur", "--bootstrap", 5)
    result = invoke("report", spectrum, *options, "--output", "one")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(Path("one/index.html"))
    assert "fit: marchenko_pastur" in result.stderr
    told = json.loads((tmp_path / "one" / "summary.json").read_text("utf-8"))
    assert (told["generator"], told["spectrum"], len(told["laws"])) == ("rmthess", "gaussian", 1)
    again = rm.load(tmp_path / "one" / "spectrum.safetensors")
    np.testing.assert_array_equal(again.nodes, rm.load(spectrum).nodes)
    page = (tmp_path / "one" / "index.html").read_text("utf-8")
    assert "rmthess report gaussian.safetensors --law marchenko_pastur" in page
    assert str(tmp_path) not in page
    assert str(spectrum.parent) not in page
    assert invoke("report", spectrum, *options, "--output", "one").exit_code == 0
    assert (tmp_path / "one" / "index.html").read_text("utf-8") == page


def test_report_refuses_before_any_work(
    spectrum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rmthess.report import reading

    monkeypatch.setattr(reading, "read", lambda *a, **k: pytest.fail("work was begun"))
    (tmp_path / "mine.txt").write_text("x")
    refused(invoke("report", spectrum, "--output", tmp_path), "not a report of ours")
    refused(invoke("report", spectrum, "--output", tmp_path / "a" / "b"), "no directory")
    refused(invoke("report", spectrum, "--law", "wigner"), "unknown law 'wigner'", "uniform")
    refused(invoke("report", tmp_path / "none.safetensors"), "there is no such file")


def test_report_needs_no_torch(spectrum: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.argv = ['rmthess', 'report', {str(spectrum)!r}, '--law', 'semicircle',"
        f" '--bootstrap', '2', '--output', {str(tmp_path / 'out')!r}]\n"
        "from rmthess.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- law


def test_law_prints_support_atoms_moments_and_a_table() -> None:
    """Marchenko–Pastur at ratio 4: edges (1 ± 2)², an atom 3/4, moments 1, 1 + 4, 1 + 12 + 16."""
    result = invoke("law", "marchenko_pastur", "--parameters", "ratio=4,variance=1", "--points", 3)
    support, atom, moments, head, *rows = result.stdout.splitlines()
    assert support.split() == ["support", "1", "to", "9"]
    assert atom.split() == ["atom", "0.75", "at", "0"]
    assert moments.split()[1:4] == ["1", "5", "29"]
    assert head.split() == ["x", "density", "cdf"]
    assert [float(row.split()[0]) for row in rows] == [0, 4.5, 9]
    law = rm.MarchenkoPastur(4.0)
    assert float(rows[1].split()[1]) == pytest.approx(float(law.density(4.5)), rel=1e-5)
    assert float(rows[1].split()[2]) == pytest.approx(float(law.cdf(4.5)), rel=1e-5)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_law_draws_the_same_picture_twice(tmp_path: Path, suffix: str) -> None:
    pictures = []
    for name in ("one", "two"):
        place = tmp_path / f"{name}.{suffix}"
        result = invoke("law", "semicircle", "--parameters", "variance=2,mean=-1", "--plot", place)
        assert result.stdout.endswith(f"figure: {place}\n")
        pictures.append(place.read_bytes())
    assert pictures[0] == pictures[1]


def test_law_refuses_in_one_sentence(tmp_path: Path) -> None:
    given = ("--parameters", "variance=1,mean=0")
    refused(invoke("law", "wigner", *given), "unknown law 'wigner'", "semicircle")
    refused(invoke("law", "semicircle", "--parameters", "variance=-1,mean=0"), "variance")
    refused(invoke("law", "semicircle", *given, "--plot", tmp_path / "a" / "b.svg"), "directory")
    refused(invoke("law", "semicircle", *given, "--plot", tmp_path / "b.txt"), "FILE.svg")
