"""The whole job as a user runs it: twice, in processes of their own, with the same seed."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rmthess as rm

pytestmark = pytest.mark.slow

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """Two reports with the seed 0, and what each run printed; side by side, to save a minute."""
    places = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "rmthess", "demo", "--seed", "0"],
            cwd=place, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for place in places
    ]  # fmt: skip
    found = []
    try:
        for place, process in zip(places, processes, strict=True):
            said, complained = process.communicate(timeout=600)
            assert process.returncode == 0, complained
            assert "Warning" not in complained
            found.append((place, said))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


@pytest.fixture(scope="module")
def report(runs: list[tuple[Path, str]]) -> Path:
    return runs[0][0] / "rmthess-report"


@pytest.fixture(scope="module")
def summary(report: Path) -> dict[str, Any]:
    return json.loads((report / "summary.json").read_bytes())


def test_the_last_line_is_the_path_of_the_page(runs: list[tuple[Path, str]]) -> None:
    for place, said in runs:
        page = place / said.splitlines()[-1]
        assert page == place / "rmthess-report" / "index.html"
        assert page.is_file()
        assert [path.name for path in place.iterdir()] == ["rmthess-report"]


def test_the_same_seed_gives_the_same_bytes(runs: list[tuple[Path, str]]) -> None:
    first, second = (
        {path.name: path.read_bytes() for path in (place / "rmthess-report").iterdir()}
        for place, _ in runs
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert runs[0][1] == runs[1][1]


def test_lanczos_sees_the_exact_spectrum(summary: dict[str, Any]) -> None:
    assert [network["name"] for network in summary["networks"]] == ["initial", "trained"]
    for network in summary["networks"]:
        assert network["dim"] == 1810
        assert 0 < network["w1_over_range"] < 0.01
        size = network["largest"]["exact"] - network["smallest"]["exact"]
        for end in ("largest", "smallest"):
            assert abs(network[end]["lanczos"] - network[end]["exact"]) < 1e-9 * size
    initial, trained = summary["networks"]
    assert initial["accuracy"] < 0.3
    assert trained["accuracy"] > 0.95
    assert trained["loss"] < initial["loss"] / 10


def test_laws_are_refused_and_accepted_where_theory_says(summary: dict[str, Any]) -> None:
    found = {(fit["spectrum"], fit["law"]): fit for fit in summary["fits"]}
    laws = ("semicircle", "marchenko_pastur")
    assert len(found) == 8
    for spectrum in ("trained", "relu_features"):
        for law in laws:
            fit = found[spectrum, law]
            assert fit["accepted"] is False
            assert fit["p_value"] is None or fit["p_value"] <= 0.01
            assert fit["distance"] > 2 * fit["expected_distance"]
    true = found["gaussian_covariance", "marchenko_pastur"]
    assert true["accepted"] is True
    assert 0.01 < true["p_value"] <= 1
    for name, value in (("ratio", 0.4), ("variance", 1.0)):
        assert abs(true["parameters"][name] - value) < 4 * true["standard_errors"][name]
    assert found["gaussian_covariance", "semicircle"]["accepted"] is False


def test_the_rank_is_that_of_the_widths(summary: dict[str, Any], report: Path) -> None:
    rank = summary["rank"]
    assert rank["verdict"] == "equal"
    assert rank["bound"] == rank["numerical"] == 970
    assert rank["gap"] > 1e6
    assert rank["widths"] == [61, 16, 12, 10]
    q, L = 10, 3  # smallest width and depth: q(2 Σ M - d - K) - L q² (Singh et al., 2021)
    assert rank["bound"] == q * (2 * sum(rank["widths"]) - 61 - 10) - L * q**2


def test_no_eigenvalue_stands_apart_and_the_rule_says_by_what_chance(
    summary: dict[str, Any],
) -> None:
    """The trained network's widest gap is one that a heavy tail shows every third time."""
    assert summary["classes"] == 10
    assert summary["outliers"] == []
    for rule in summary["outlier_rules"].values():
        assert rule.startswith("gap: ")
        assert "right: no clear gap" in rule
    assert re.search(r"right: .* resolved, by chance \d\d%\)", summary["outlier_rules"]["trained"])


def test_the_spectra_beside_the_page_are_the_ones_measured(
    summary: dict[str, Any], report: Path
) -> None:
    for line in (report / "SHA256SUMS").read_text("utf-8").splitlines():
        checksum, _, name = line.partition("  ")
        assert hashlib.sha256((report / name).read_bytes()).hexdigest() == checksum
    for network in summary["networks"]:
        measured = rm.load(report / f"{network['name']}.safetensors")
        assert (measured.probes, measured.steps) == (summary["probes"], summary["steps"])
        assert measured.dim == network["dim"]
        assert np.nanmax(measured.nodes) == network["largest"]["lanczos"]
    gaussian = rm.load(report / "gaussian_covariance.safetensors")
    (stated,) = (
        fit
        for fit in summary["fits"]
        if (fit["spectrum"], fit["law"]) == ("gaussian_covariance", "marchenko_pastur")
    )
    again = rm.fit(rm.MarchenkoPastur, gaussian, seed=summary["seed"])
    assert again.p_value == pytest.approx(stated["p_value"], abs=0.02)
    assert again.parameters == pytest.approx(stated["parameters"], rel=1e-6)


# ---- in a browser


def chromium(profile: Path, address: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
    return subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
            *(f"--{flag}" for flag in quiet.split()), f"--user-data-dir={profile}", *flags,
            "--dump-dom", address.as_uri(),
        ],
        capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_opens_without_a_complaint_of_the_browser(report: Path, tmp_path: Path) -> None:
    logging = "--enable-logging=stderr"
    control = tmp_path / "control.html"
    control.write_text("<script>console.error('heard')</script>", "utf-8")
    if "heard" not in chromium(tmp_path / "profile", control, logging).stderr:
        pytest.skip("this Chromium does not run, or does not log its console")
    shown = chromium(tmp_path / "profile", report / "index.html", logging)
    assert "The Hessian of a small network" in shown.stdout
    assert not [line for line in shown.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_fits_a_phone_and_a_desk(report: Path, tmp_path: Path) -> None:
    """Frames of several widths inside one page; a script of that page, not of ours, measures."""
    widths = (390, 360, 1280)
    page = html.escape((report / "index.html").read_text("utf-8"))
    frames = "".join(
        f'<iframe style="width:{w}px;height:800px;border:0" srcdoc="{page}"></iframe>'
        for w in widths
    )
    script = (
        "onload = () => { document.title = [...document.querySelectorAll('iframe')].map(f =>"
        " f.contentWindow.innerWidth + ':' + f.contentDocument.documentElement.scrollWidth"
        " + ':' + [...f.contentDocument.querySelectorAll('figure > svg, figure svg')].filter("
        "s => s.getBoundingClientRect().width > 100).length).join(' ') }"
    )
    outer = tmp_path / "outer.html"
    outer.write_text(f"<title></title>{frames}<script>{script}</script>", "utf-8")
    shown = chromium(tmp_path / "profile", outer)
    found = re.search(r"<title>([^<]+)</title>", shown.stdout)
    if found is None:
        pytest.skip(f"Chromium does not run here: {shown.stderr[-300:]}")
    for width, measured in zip(widths, found[1].split(), strict=True):
        inner, scroll, drawings = (int(number) for number in measured.split(":"))
        assert inner == width
        assert scroll <= inner, f"{scroll - inner} px too wide at {width} px"
        assert drawings == 3, "each figure shows either its wide or its narrow drawing"
