"""One page, complete in itself: escaped, balanced, deterministic, and never wider than a phone."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from rmthess.report import document as module
from rmthess.report.document import (
    Column,
    Document,
    Facts,
    Figure,
    Section,
    Table,
    Text,
    Verdict,
    render,
)

NASTY = "<script>alert('x')</script> & \"$λ$\" `code <b>`\x00\x1b[2J\ud800"
VOID = {"meta", "link", "br", "hr", "img", "input"}
DRAWING = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 500 300"><defs><clipPath id="a">'
    '<rect width="500" height="300" /></clipPath></defs><text x="9" y="20">λ</text>'
    '<path clip-path="url(#a)" d="M 0 0 L 500 300" /></svg>'
)


class Page(HTMLParser):
    """Collects what a page holds and insists that every tag is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def sample(word: str = "λ", title: str = "Outliers") -> Document:
    table = Table(
        columns=[Column(word), Column("value", numeric=True), Column("verdict")],
        rows=[[word, "0.43", Verdict("refused", word)], ["second", "−1.70", Verdict("holds")]],
        caption=word,
    )
    return Document(
        title=word,
        lead=word,
        items=[Figure(DRAWING, word, alt=word)],
        sections=[
            Section(
                title,
                word,
                Verdict("undecided", word, word="open"),
                [
                    Figure(DRAWING, word, alt=word, narrow=DRAWING),
                    table,
                    Text(word),
                    Facts({word: word}),
                ],
                source="rmthess/comparison.py",
            ),
            Section(title, verdict=Verdict("missing", word)),
        ],
        provenance={"seed": "0", word: word},
    )


@pytest.mark.parametrize("word", ["plain", NASTY])
def test_the_page_parses_with_balanced_tags(word: str) -> None:
    page = Page(render(sample(word)))
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == len(page.named("main")) == len(page.named("title")) == 1


def test_names_are_escaped_wherever_they_stand() -> None:
    page = render(sample(NASTY, title=NASTY))
    parsed = Page(page)
    assert not parsed.named("script")
    assert not parsed.named("b") or "<b>`" not in page
    assert "alert('x')</script>" not in page
    assert "".join(parsed.text).count("<script>alert('x')</script>") >= 14
    assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]", page)
    page.encode()


def test_backticks_set_code_and_nothing_else() -> None:
    page = render(Document("t", "run `rm.fit(<law>)` and `", []))
    assert "run <code>rm.fit(&lt;law&gt;)</code> and `" in page


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = render(sample())
    parsed = Page(page)
    bare = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", bare)
    for name, attributes in parsed.tags:
        assert name not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not [key for key in attributes if key.startswith("on") or key == "src"]
        assert (attributes.get("href") or "#").startswith("#")
    policy = {"http-equiv": "Content-Security-Policy"}.items()
    (meta,) = [found for found in parsed.named("meta") if policy <= found.items()]
    assert meta["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_two_renders_give_the_same_page() -> None:
    assert render(sample()) == render(sample())


def test_ids_are_unique_and_every_reference_resolves() -> None:
    parsed = Page(render(sample()))
    ids = [str(attributes["id"]) for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in parsed.tags:
        for key in ("href", "aria-labelledby", "clip-path"):
            reference = re.sub(r"^(#|url\(#)|\)$", "", attributes.get(key) or "")
            assert not reference or reference in ids


def test_a_title_cannot_take_the_id_of_another_part() -> None:
    titles = [
        "Contents",
        "Main",
        "Figure 1",
        "Table 1",
        "Provenance",
        "Outliers",
        "outliers",
        "谱",
        "f1-a",
    ]
    parsed = Page(render(Document("t", "", [Section(title) for title in titles], {"seed": "0"})))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_contents_lead_to_every_section_with_its_verdict() -> None:
    parsed = Page(render(sample()))
    links = [found["href"] for found in parsed.named("a")]
    assert links == ["#main", "#s-outliers", "#s-outliers-2"]
    text = "".join(parsed.text)
    assert text.count("open") == 1
    assert text.count("Open.") == 1
    assert text.count("not measured") == 1


def test_figures_and_tables_are_numbered_captioned_and_described() -> None:
    page = render(sample())
    parsed = Page(page)
    assert re.findall(r"<b>(Figure \d|Table \d)\.</b>", page) == ["Figure 1", "Figure 2", "Table 1"]
    drawings = [found for found in parsed.named("div") if found.get("role") == "img"]
    assert [found["aria-label"] for found in drawings] == ["λ"] * 3
    assert len(parsed.named("caption")) == len(parsed.named("table")) == 1
    assert [found["scope"] for found in parsed.named("th")] == ["col"] * 3 + ["row"] * 2


def test_numeric_columns_are_flush_right() -> None:
    page = render(sample())
    assert page.count('class="numeric"') == 3
    assert '<td class="numeric">−1.70</td>' in page


def test_a_verdict_is_a_word_and_a_mark() -> None:
    for status in module.WORDS:
        page = render(Document("t", "", [Section("s", verdict=Verdict(status, "Because."))]))
        (badge,) = re.findall(
            r'<span class="badge \w+">(<svg.*?</svg>)([^<]+)</span> Because', page
        )
        assert "<path" in badge[0]
        assert badge[1] == module.WORDS[status].capitalize() + "."


def test_a_section_names_the_file_that_computed_it() -> None:
    assert "Computed in <code>rmthess/comparison.py</code>" in render(sample())


def test_a_long_table_is_cut_and_says_so() -> None:
    table = Table([Column("k", numeric=True)], [[str(k)] for k in range(100_000)], "Outliers.")
    page = render(Document("t", "", [Section("s", items=[table])]))
    assert "The first 200 of 100000 rows." in page
    assert page.count("<tr>") == 201


def test_values_that_make_no_page_are_refused() -> None:
    with pytest.raises(
        ValueError, match="status must be one of holds, refused, undecided, missing, got"
    ):
        Verdict("green")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="svg must be Markup"):
        Figure("<svg/>", "c", "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alt must say"):
        Figure(DRAWING, "c", "")
    with pytest.raises(ValueError, match="row 1 of the table 'c' must have 2 cells, got 1"):
        Table([Column("a"), Column("b")], [["1", "2"], ["3"]], "c")


def test_a_missing_name_in_the_template_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untitled:
        lead, items, sections = "", (), ()
        provenance: dict[str, str] = {}  # noqa: RUF012

    with pytest.raises(UndefinedError, match="title"):
        render(Untitled())  # type: ignore[arg-type]


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_no_page_is_wider_than_its_screen(tmp_path: Path) -> None:
    """Frames of three widths inside one page; a script of that page, not of ours, measures them."""
    word = "a_very_long_name_without_any_space.layers.0.attention.weight" * 2
    wide = Table([Column(f"column {k}") for k in range(30)], [[word] * 30], "Wide.")
    document = sample(word)
    page = render(
        Document(word, word, [*document.sections, Section("s", items=[wide])], {word: word})
    )
    widths = (1280, 390, 360)
    frames = "".join(
        f'<iframe style="width:{w}px;height:800px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        for w in widths
    )
    script = (
        "onload = () => { document.title = [...document.querySelectorAll('iframe')].map(f =>"
        " f.contentWindow.innerWidth + ':' + f.contentDocument.documentElement.scrollWidth"
        " + ':' + f.contentDocument.querySelectorAll('figure').length).join(' ') }"
    )
    (tmp_path / "outer.html").write_text(
        f"<title></title>{frames}<script>{script}</script>", "utf-8"
    )
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        *(f"--{flag}" for flag in quiet.split()),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        (tmp_path / "outer.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<title>([^<]+)</title>", done.stdout)
    if found is None:
        pytest.skip(f"Chromium does not run here: {done.stderr[-300:]}")
    for width, measured in zip(widths, found[1].split(), strict=True):
        inner, scroll, figures = (int(number) for number in measured.split(":"))
        assert (inner, figures) == (width, 1)
        assert scroll <= inner
