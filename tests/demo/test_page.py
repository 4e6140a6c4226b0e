"""The demo's page and summary, from a study of tiny networks: complete, finite, closed, escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markupsafe import Markup

import rmthess as rm
from rmthess.demo import page, problems, study
from rmthess.demo.study import Study
from rmthess.krylov.errors import LanczosInterrupted
from rmthess.report.directory import write
from rmthess.report.document import Document, Figure, render

COMMAND = "rmthess demo --seed 7 --output 'a </title><script>alert(1)</script> & b'"
VOID = {"meta", "link", "br", "hr", "img", "input"}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def small(patch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """The real study at sizes that take seconds."""
    covariance = problems.gaussian_covariance
    patch.setattr(problems, "HIDDEN", 3)
    patch.setattr(problems, "LINEAR_WIDTHS", (3, 10))
    patch.setattr(problems, "gaussian_covariance", lambda d, s, seed: covariance(120, 300, seed))
    patch.setattr(study, "EPOCHS", 1)
    patch.setattr(study, "fit", partial(rm.fit, bootstrap=20))
    for module in (study, page):
        patch.setattr(module, "STEPS", 24)
        patch.setattr(module, "PROBES", 2)

    def run(progress: Any = lambda stage, share: None) -> Study:
        done = Study(7)
        study.run(done, progress)
        return done

    return run


@pytest.fixture(scope="module")
def done(small: Callable[..., Study]) -> Study:
    return small()


@pytest.fixture(scope="module")
def again(small: Callable[..., Study]) -> tuple[Study, dict[str, list[float]]]:
    """A second run with the same seed, and what it told of its progress."""
    told: dict[str, list[float]] = {}
    return small(lambda stage, share: told.setdefault(stage, []).append(share)), told


@pytest.fixture(scope="module")
def document(done: Study) -> Document:
    return page.document(done, COMMAND)


@pytest.fixture(scope="module")
def html(document: Document) -> str:
    return render(document)


@pytest.fixture(scope="module")
def summary(done: Study) -> dict[str, Any]:
    """As a reader of the file gets it; NaN and Infinity are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"summary.json holds {constant}")

    return json.loads(page.files(done)["summary.json"], parse_constant=refuse)


class Page(HTMLParser):
    """Tags that close where they should, attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


# ---- summary.json


def test_the_summary_has_the_keys_of_the_contract(summary: dict[str, Any]) -> None:
    assert summary["generator"] == "rmthess"
    assert summary["version"] == rm.__version__
    assert summary["seed"] == 7
    assert [network["name"] for network in summary["networks"]] == ["initial", "trained"]
    pairs = [(found["spectrum"], found["law"]) for found in summary["fits"]]
    spectra = ("initial", "trained", "gaussian_covariance", "relu_features")
    assert pairs == [(s, law) for s in spectra for law in ("semicircle", "marchenko_pastur")]
    for found in summary["fits"]:
        assert type(found["accepted"]) is bool
        assert found["p_value"] is None or 0 < found["p_value"] <= 1
        assert found["parameters"].keys() == found["standard_errors"].keys()
    assert {"bound", "numerical", "verdict"} <= summary["rank"].keys()
    assert isinstance(summary["outliers"], list)


def test_every_number_is_finite_or_null(summary: dict[str, Any]) -> None:
    numbers = [leaf for leaf in leaves(summary) if isinstance(leaf, (int, float))]
    assert len(numbers) > 60
    assert np.isfinite(numbers).all()


def test_undefined_numbers_become_null(done: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite gap (rank 0 of a zero matrix) and fits without a p-value."""
    zero = rm.numerical_rank(np.zeros(5))
    rank = study.Rank(done.rank.widths, np.zeros(5), done.rank.bound, zero)
    bare = study.examine
    monkeypatch.setattr(study, "fit", partial(rm.fit, bootstrap=0))
    spectra = {name: bare(measured, 7) for name, measured in done.measured.items()}
    other = Study(7, done.networks, spectra, done.measured, rank)
    found = json.loads(page.files(other)["summary.json"])
    assert found["rank"]["gap"] is None
    assert {each["p_value"] for each in found["fits"]} == {None}
    assert not any(each["accepted"] for each in found["fits"])


def test_the_distance_to_the_exact_spectrum_is_that_of_the_quantile_functions(
    done: Study, summary: dict[str, Any]
) -> None:
    p = (np.arange(400_000) + 0.5) / 400_000
    for network, found in zip(done.networks.values(), summary["networks"], strict=True):
        exact = np.sort(network.exact)
        theirs = exact[np.minimum((p * exact.size).astype(int), exact.size - 1)]
        distance = np.abs(network.measured.quantile(p) - theirs).mean()
        ptp = exact[-1] - exact[0]
        assert found["w1_over_range"] == pytest.approx(distance / ptp, rel=1e-2, abs=1e-6)


def test_exact_eigenvalues_are_those_of_autograds_hessian(
    small: Callable[..., Study], done: Study
) -> None:
    """The network at initialisation, written out by hand, against autograd and LAPACK."""
    model = problems.relu_classifier(7)
    digits = problems.Digits.load()
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]

    def value(flat: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2 = (p.view(s) for p, s in zip(flat.split(sizes), shapes, strict=True))
        hidden = (digits.inputs @ w1.T + b1).clamp(min=0)
        logits = hidden @ w2.T + b2
        picked = logits[torch.arange(len(logits)), digits.labels]
        return (logits.logsumexp(dim=1) - picked).mean()

    flat = torch.cat([p.detach().ravel() for p in model.parameters()])
    dense = torch.autograd.functional.hessian(value, flat).numpy()
    network = done.networks["initial"]
    np.testing.assert_allclose(network.exact, np.linalg.eigvalsh(dense), atol=1e-11)
    assert network.loss == pytest.approx(float(value(flat)))


def test_outliers_are_named_beside_the_nearest_exact_eigenvalue(done: Study) -> None:
    """Three, by stated edges: what the gap rule finds in this network is none of the page's."""
    exact = done.networks["trained"].exact
    edges = float(exact[0]) - 1, float(exact[-4] + exact[-3]) / 2
    found = rm.outliers(done.networks["trained"].measured, edges)
    spectra = dict(done.spectra)
    spectra["trained"] = replace(spectra["trained"], outliers=found)
    other = Study(7, done.networks, spectra, done.measured, done.rank)
    summary = json.loads(page.files(other)["summary.json"])
    items = [item for item in summary["outliers"] if item["network"] == "trained"]
    assert [item["exact"] for item in items] == pytest.approx(exact[-3:], rel=1e-9)
    for item in items:
        assert abs(item["exact"] - item["location"]) <= item["error"] + 1e-12
        assert item["seen_by"] >= 1
    assert summary["outlier_rules"].keys() == done.networks.keys()
    text = Page(render(page.document(other, "rmthess demo"))).text
    assert f"3 found, {problems.CLASSES} classes" in text


def test_the_rank_verdict_compares_bound_and_exact_hessian(
    done: Study, summary: dict[str, Any]
) -> None:
    rank = summary["rank"]
    assert rank["widths"] == [61, 3, 10]
    assert rank["bound"] == 3 * (61 + 10) == 213  # q(d + K) for one hidden layer of width q < K
    sizes = np.sort(np.abs(done.rank.exact))
    assert rank["numerical"] == np.count_nonzero(sizes > 1e-10 * sizes[-1])
    assert rank["verdict"] == "equal"


def test_extremes_are_the_outermost_ritz_values_beside_the_exact_ones(
    done: Study, summary: dict[str, Any]
) -> None:
    for network, found in zip(done.networks.values(), summary["networks"], strict=True):
        assert found["largest"]["exact"] == network.exact.max()
        assert found["smallest"]["exact"] == network.exact.min()
        assert found["largest"]["lanczos"] == np.nanmax(network.measured.nodes)
        assert found["smallest"]["lanczos"] == np.nanmin(network.measured.nodes)


# ---- the page


def test_the_page_parses_with_balanced_tags(html: str) -> None:
    found = Page(html)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("h1") == tags.count("title") == tags.count("main") == 1
    assert tags.count("figure") == 3
    titles = ("Does Lanczos see", "Does a law hold", "How many outliers", "The rank of a deep")
    for title in titles:
        assert title in found.text


def test_names_are_escaped(html: str) -> None:
    found = Page(html)
    assert not [tag for tag, _ in found.tags if tag == "script"]
    assert "<script" not in html
    assert COMMAND in found.text


def test_the_page_asks_for_no_external_resource(html: str) -> None:
    for tag, attributes in Page(html).tags:
        for key, value in attributes.items():
            if key in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
                assert value.startswith(("#", "data:")) or tag == "a", (tag, key, value)
            assert not key.startswith("on"), (tag, key)
    assert not re.search(r"@import|url\((?!['\"]?(#|data:))", html)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert str(Path.cwd()) not in html


def test_the_page_says_what_the_summary_says(html: str, summary: dict[str, Any]) -> None:
    text = Page(html).text
    rank = summary["rank"]
    assert f"rank {rank['numerical']} of {rank['parameters']}" in text
    assert "seed" in text
    for network in summary["networks"]:
        assert f"{network['w1_over_range']:.2e}" in text
        assert f"{network['largest']['exact']:.6g}" in text
    for found in summary["fits"]:
        assert f"{found['distance']:.3f}" in text
        assert f"{found['p_value']:.3f}" in text
    trained = [found for found in summary["fits"] if found["spectrum"] == "trained"]
    both_refused = all(found["p_value"] <= 0.01 for found in trained)
    assert ("On the trained network both laws are refused" in text) is both_refused
    assert "NaN" not in text
    assert "nan" not in text.split()


@pytest.mark.parametrize(
    ("p_value", "draws", "word"),
    [(0.5, 200, "accepted"), (0.001, 200, "refused"), (0.2, 4, "undecided"), (np.nan, 0, "undec")],
)
def test_only_a_law_that_is_refused_is_called_refused(
    done: Study, monkeypatch: pytest.MonkeyPatch, p_value: float, draws: int, word: str
) -> None:
    """The sentence about the trained network, where both laws have the same outcome."""
    monkeypatch.setattr(
        page, "_figure", lambda draws, **_: Figure(Markup("<svg></svg>"), "", "none")
    )
    spectra = dict(done.spectra)
    outcome = {"p_value": p_value, "draws": draws, "converged": True}
    fits = {name: replace(found, **outcome) for name, found in spectra["trained"].fits.items()}
    assert all(study.verdict(found).startswith(word) for found in fits.values())
    spectra["trained"] = replace(spectra["trained"], fits=fits)
    other = Study(7, done.networks, spectra, done.measured, done.rank)
    text = Page(render(page.document(other, "rmthess demo"))).text
    assert ("both laws are refused" in text) is (word == "refused")
    assert ("not every law is refused" in text) is (word != "refused")
    assert text.count("undecided") >= (2 if word.startswith("undec") else 0)


def test_a_report_holds_the_spectra_it_shows(
    done: Study, document: Document, tmp_path: Path
) -> None:
    written = write(document, tmp_path / "report", page.files(done))
    names = {f"{name}.safetensors" for name in done.measured}
    assert {path.name for path in written.parent.iterdir()} == names | {
        "index.html", "summary.json", "SHA256SUMS"
    }  # fmt: skip
    for name, measured in done.measured.items():
        back = rm.load(written.parent / f"{name}.safetensors")
        np.testing.assert_array_equal(back.diagonals, measured.diagonals)
        assert back.provenance == measured.provenance
        assert page.NAMES[name] in Page(written.read_text("utf-8")).text


# ---- the study


def test_the_same_seed_gives_the_same_bytes(
    again: tuple[Study, dict[str, list[float]]], done: Study, html: str
) -> None:
    assert page.files(again[0]) == page.files(done)
    assert render(page.document(again[0], COMMAND)) == html


def test_progress_names_every_stage_and_ends_each_lanczos_at_one(
    again: tuple[Study, dict[str, list[float]]],
) -> None:
    told = again[1]
    assert all(shares[0] == 0.0 for shares in told.values())
    for name in ("initial", "trained", "gaussian_covariance", "relu_features"):
        shares = told[f"Lanczos: {name}"]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


@pytest.mark.parametrize(("stage", "at"), [("Lanczos: trained", 0.5), ("fits: trained", 0.0)])
def test_an_interruption_keeps_what_was_measured(
    small: Callable[..., Study], done: Study, stage: str, at: float
) -> None:
    threads = torch.get_num_threads()
    partial_study = Study(7)

    def stop(name: str, share: float) -> None:
        if name == stage and share >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        study.run(partial_study, stop)
    assert torch.get_num_threads() == threads
    measured = partial_study.measured
    np.testing.assert_array_equal(measured["initial"].diagonals, done.measured["initial"].diagonals)
    if stage == "Lanczos: trained":
        assert caught.type is LanczosInterrupted
        assert list(measured) == ["initial", "trained"]
        assert measured["trained"].steps == 12
        whole = done.measured["trained"].diagonals[:, :12]
        np.testing.assert_array_equal(measured["trained"].diagonals, whole)
    else:
        assert list(measured) == list(done.measured)
    assert partial_study.rank is None
