"""What a report says, as small values, and `render`, which makes one HTML page of them.

A `Section` reads question, answer, evidence: its lead, its verdict, its items. Every string is
plain text and is escaped; `backticks` in a sentence set code. Only `Figure.svg` is markup.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import ClassVar, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from rmthess.report.svg import clean, with_prefix

Status = Literal["holds", "refused", "undecided", "missing"]
WORDS: Mapping[Status, str] = {
    "holds": "holds",
    "refused": "refused",
    "undecided": "undecided",
    "missing": "not measured",
}


@dataclass(frozen=True)
class Verdict:
    """An answer: ``status`` gives the mark and its colour, ``word`` may replace the usual word.

    As a cell of a table it is its badge, followed by the sentence if there is one.

    >>> Verdict("refused", "The bulk is not a semicircle.").word
    'refused'
    """

    status: Status
    sentence: str = ""
    word: str = ""

    def __post_init__(self) -> None:
        if self.status not in WORDS:
            raise ValueError(f"status must be one of {', '.join(WORDS)}, got {self.status!r}")
        object.__setattr__(self, "word", self.word or WORDS[self.status])


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    kind: ClassVar[str] = "text"
    paragraph: str


@dataclass(frozen=True)
class Figure:
    """A drawing: ``alt`` says in words what it shows, ``narrow`` is the same drawn for a phone."""

    kind: ClassVar[str] = "figure"
    svg: Markup
    caption: str
    alt: str
    narrow: Markup | None = None

    def __post_init__(self) -> None:
        for svg in (self.svg, self.narrow):
            if svg is not None and not isinstance(svg, Markup):
                raise TypeError(
                    f"svg must be Markup, as to_svg returns it, got {type(svg).__name__}"
                )
        if not self.alt:
            raise ValueError(f"alt must say what the figure {self.caption!r} shows, got nothing")


@dataclass(frozen=True)
class Column:
    """A title; the cells of a ``numeric`` column are flush right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of strings or verdicts; the first cell of a row names it. ``most`` rows are shown."""

    kind: ClassVar[str] = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Verdict]]
    caption: str
    most: int = 200

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of the table {self.caption!r} must have {len(self.columns)} "
                    f"cells, got {len(row)}"
                )


@dataclass(frozen=True)
class Facts:
    """Names and their values, in the order given."""

    kind: ClassVar[str] = "facts"
    entries: Mapping[str, str]


Item = Figure | Table | Text | Facts


@dataclass(frozen=True)
class Section:
    """A question (``title``, ``lead``), its answer (``verdict``) and the evidence (``items``).

    ``source`` names the file that computed it, so that a reader finds the room of any number.
    """

    title: str
    lead: str = ""
    verdict: Verdict | None = None
    items: Sequence[Item] = ()
    source: str = ""


@dataclass(frozen=True)
class Document:
    """A page: its ``items`` come first, then the contents, the sections and the provenance."""

    title: str
    lead: str
    sections: Sequence[Section]
    provenance: Mapping[str, str] = field(default_factory=dict)
    items: Sequence[Item] = ()


def render(document: Document) -> str:
    """The page, complete in itself: no script, nothing that is fetched; same document, same page.

    >>> page = render(Document("Two atoms", "A <small> example.", [Section("Where they are")]))
    >>> "A &lt;small&gt; example." in page, "://" in page
    (True, False)
    """
    files = resources.files(__package__)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters["prose"] = _prose
    environment.filters["with_prefix"] = with_prefix
    template = environment.from_string(files.joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        document=document,
        anchors=_anchors([section.title for section in document.sections]),
        style=Markup(files.joinpath("style.css").read_text("utf-8")),
        next_figure=itertools.count(1).__next__,
        next_table=itertools.count(1).__next__,
    )


def _prose(text: str) -> Markup:
    """Escaped, with `backticks` set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(clean(text)))))


def _anchors(titles: Sequence[str]) -> list[str]:
    """One readable id a title, each once, and none that another part of the page may have.

    >>> _anchors(["Rank bound", "Rank bound", "λ"])
    ['s-rank-bound', 's-rank-bound-2', 's-3']
    """
    anchors: list[str] = []
    for number, title in enumerate(titles, start=1):
        words = re.findall(r"[a-z0-9]+", title.lower())
        anchor = "-".join(["s", *words]) if words else f"s-{number}"
        anchors.append(anchor if anchor not in anchors else f"{anchor}-{number}")
    return anchors
