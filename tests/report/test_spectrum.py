"""One spectrum, one page: what it says, that it is safe, small and the same twice, and renders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rmthess as rm
from rmthess.families import FAMILIES
from rmthess.report.document import render
from rmthess.report.provenance import without_directories
from rmthess.report.reading import Reading, read
from rmthess.report.spectrum import document, files

NASTY = "<script>alert('x')</script>\x1b[2J&"
COMMAND = "rmthess report run.safetensors"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def run() -> rm.LanczosMeasure:
    """Gaussian data of ratio 0.5, with one spike far outside."""
    x = np.random.default_rng(4).standard_normal((240, 120))
    u = np.full((120, 1), 120**-0.5)
    return rm.lanczos(x.T @ x / 240 + 9 * u * u.T, steps=24, probes=4, deflate=1)


@pytest.fixture(scope="module")
def reading(run: rm.LanczosMeasure) -> Reading:
    laws = {name: FAMILIES[name] for name in ("marchenko_pastur", "semicircle")}
    return read(run, laws, bootstrap=100)


@pytest.fixture(scope="module")
def page(reading: Reading) -> str:
    return render(document(reading, "run", COMMAND, 0))


def test_the_true_law_is_not_refused_the_wrong_one_is_and_one_outlier_is_found(
    reading: Reading,
) -> None:
    right, wrong = reading.laws
    assert right.fit is not None
    assert wrong.fit is not None
    assert right.fit.accepted()
    assert wrong.fit.p_value <= 0.01
    assert len(reading.outliers) == 1
    assert reading.outliers.rules[0].name == "edge"  # type: ignore[union-attr]


def test_figures_come_first_and_provenance_last(page: str) -> None:
    order = [page.index(mark) for mark in ("<figure", 'id="contents"', "<table", "Provenance</h2>")]
    assert order == sorted(order)
    assert "<section" not in page[page.index("Provenance</h2>") :]
    for word in ("threads", "device", "backend", "versions torch", "seed", COMMAND):
        assert word in page[order[-1] :], word


def test_the_page_says_what_the_summary_says(reading: Reading, page: str) -> None:
    told = json.loads(files(reading, "run", 0)["summary.json"])
    law = told["laws"][0]
    assert law["law"] == "marchenko_pastur"
    assert law["parameters"] == pytest.approx(dict(reading.laws[0].fit.parameters))  # type: ignore[union-attr]
    assert law["accepted"] is True
    assert f"{law['parameters']['ratio']:.6g}" in page
    assert f"{told['outliers']['items'][0]['location']:.6g}" in page
    assert "not refused" in page


def test_two_runs_give_the_same_bytes(run: rm.LanczosMeasure) -> None:
    laws = {"semicircle": FAMILIES["semicircle"]}
    one, two = (read(run, laws, bootstrap=10, seed=3) for _ in range(2))
    assert render(document(one, "a", "c", 3)) == render(document(two, "a", "c", 3))
    assert files(one, "a", 3) == files(two, "a", 3)


def test_names_are_escaped_and_nothing_is_fetched_or_run(run: rm.LanczosMeasure) -> None:
    told = {**run.provenance, "operator": NASTY, "data": "/home/someone/data/x.pt"}
    named = rm.LanczosMeasure(
        run.diagonals, run.off_diagonals, run.residuals, run.dim, told, run.deflated
    )
    page = render(document(read(named, {}), NASTY, NASTY, 0))
    bare = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|@import|url\((?!#)|[\x00-\x08\x0b-\x1f]", bare)
    assert "/home" not in page
    assert "x.pt" in page
    for tag, attributes in Tags(page).found:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "form"}
        assert not [key for key in attributes if key.startswith("on") or key == "src"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/a b", "a b"),
        ("opened /srv/x/y.pt, then C:\\Users\\me\\z.pt", "opened y.pt, then z.pt"),
        ("float64 and/or a/b", "float64 and/or a/b"),
    ],
)
def test_absolute_paths_are_cut_to_their_names(text: str, left: str) -> None:
    assert without_directories(text) == left


@pytest.mark.parametrize(
    "measure",
    [
        rm.DiscreteMeasure.from_eigenvalues([2.0, 2.0, 2.0]),
        rm.DiscreteMeasure.from_eigenvalues([1.0, 2.0]),
        rm.DiscreteMeasure.from_eigenvalues(-np.linspace(1, 2, 30)),
        rm.DiscreteMeasure([0.0, 1.0], [0.3, 0.7]),
        rm.LanczosMeasure([[1.0]], [[]], [0.0], dim=5),
        rm.LanczosMeasure([[0.0, 1.0]], [[0.5]], [0.1], dim=50),
    ],
    ids=["one atom", "two", "negative", "weights", "one step", "one probe"],
)
def test_a_poor_spectrum_has_a_page_too(measure: Any) -> None:
    reading = read(measure, {"semicircle": FAMILIES["semicircle"]}, bootstrap=5)
    page = render(document(reading, "poor", "c", 0))
    assert "<figure" in page
    json.loads(files(reading, "poor", 0)["summary.json"])


@pytest.mark.slow
def test_a_hundred_thousand_outliers_are_a_page_under_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    a, b = rm.Semicircle().sample_jacobi(40, 2000, rng, probes=4)
    known = rng.uniform(5, 50, 100_000)
    run = rm.LanczosMeasure(a, b, np.full(4, 0.9), 102_000, {}, known)
    reading = read(run, {})
    page = render(document(reading, "many", "c", 0))
    assert len(reading.outliers) == 100_000
    assert len(page) < 5_000_000
    assert "The 200 largest in modulus" in page


# ---- in a browser


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WATCH = """<script>
const broken = [];
document.addEventListener('securitypolicyviolation', e => broken.push('policy ' + e.blockedURI));
addEventListener('error', e => broken.push('error ' + e.message));
function luminance(colour) {
  const c = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
}
onload = () => {
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  let least = 99, texts = 0;
  for (const e of document.querySelectorAll('p,h1,h2,td,th,dd,dt,figcaption,a,svg text')) {
    if (!e.getClientRects().length || e.classList.contains('skip')) continue;
    const style = getComputedStyle(e);
    const ink = luminance(e.closest('svg') && e.tagName == 'text' ? style.fill : style.color);
    least = Math.min(least, (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05));
    texts += 1;
  }
  document.title = JSON.stringify({least, texts, paper, broken,
    requests: performance.getEntriesByType('resource').length,
    shown: [...document.querySelectorAll('.drawing svg')].filter(s => s.getClientRects().length
      && s.getBoundingClientRect().height > 100).length,
    wide: document.documentElement.scrollWidth - innerWidth});
};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 500])  # headless Chromium has no narrower window
def test_the_page_renders_is_readable_and_asks_for_nothing(
    tmp_path: Path, page: str, scheme: str, width: int
) -> None:
    """A script of the test, let in by widening the policy for inline scripts only, looks around."""
    policy = "style-src 'unsafe-inline'"
    watched = page.replace(policy, f"{policy}; script-src 'unsafe-inline'", 1)
    watched = watched.replace("<style>", f"{WATCH}<style>", 1)
    (tmp_path / "page.html").write_text(watched, "utf-8")
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
            "--enable-logging=stderr", *(f"--{flag}" for flag in quiet.split()),
            *(["--force-dark-mode"] if scheme == "dark" else []), f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    if title is None:
        pytest.skip(f"Chromium does not run here: {done.stderr[-300:]}")
    seen = json.loads(title[1])
    assert "CONSOLE" not in done.stderr
    assert (seen["broken"], seen["requests"]) == ([], 0)
    assert (seen["paper"] < 0.1) == (scheme == "dark")
    assert seen["least"] >= 4.5  # WCAG 2.2 AA
    assert seen["texts"] > 100
    assert seen["shown"] == page.count("<figure")
    assert seen["wide"] <= 0
