"""The theory book runs, has the form it promises, and lists itself."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTENTS = ROOT / "theory" / "README.md"
PAGES = sorted(path for path in CONTENTS.parent.glob("*.md") if path != CONTENTS)
HEADINGS = [
    "Claim",
    "Status",
    "Assumptions",
    "Derivation",
    "Check",
    "Where it stops holding",
    "Sources",
]
STATUSES = {"theorem", "asymptotic", "heuristic"}
SECONDS = 30.0

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@dataclass(frozen=True)
class Block:
    """One fenced block of Python: its text, the page's line it starts on, the section it is in."""

    code: str
    line: int
    section: str


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    inside: list[str] | None = None
    language, start, section = "", 0, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if inside is None:
                inside, start, language = [], number + 1, line.removeprefix("```").strip()
                continue
            if language == "python":
                blocks.append(Block("\n".join(inside) + "\n", start, section))
            inside = None
        elif inside is not None:
            inside.append(line)
        elif line.startswith("## "):
            section = line.removeprefix("## ").strip()
    assert inside is None, f"{page}:{start - 1}: this block is never closed"
    return blocks


def run(page: Path) -> None:
    """All blocks of the page in one namespace, each compiled at its own line of the page."""
    namespace: dict[str, Any] = {"__name__": f"theory.{page.stem}", "__file__": str(page)}
    for block in blocks_of(page):
        padding = "\n" * (block.line - 1)
        exec(compile(padding + block.code, str(page), "exec"), namespace)


def sections_of(page: Path) -> dict[str, str]:
    """Text under each second-level heading, fenced code included."""
    parts = re.split(r"^## +(.+?) *$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def status_of(page: Path) -> str:
    """First word of the page's Status section: theorem, asymptotic or heuristic."""
    word = re.search(r"[A-Za-z]+", sections_of(page)["Status"])
    return word.group().lower() if word else ""


def contents() -> dict[str, str]:
    """Page name -> status, from the rows | [name](name.md) | claim | status | ... |"""
    rows = re.findall(
        r"^\| *\[(\w+)\]\((\w+)\.md\) *\|[^|]+\| *(\w+) *\|",
        CONTENTS.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert all(name == target for name, target, _ in rows)
    return {name: status for name, _, status in rows}


@each_page
def test_page_runs(page: Path) -> None:
    start = time.process_time()
    run(page)
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"{page.name} took {seconds:.0f} s of CPU, {SECONDS:.0f} are allowed"


@each_page
def test_page_has_the_headings_of_every_page_in_their_order(page: Path) -> None:
    assert list(sections_of(page)) == HEADINGS


@each_page
def test_page_derives_before_it_imports_the_package(page: Path) -> None:
    blocks = blocks_of(page)
    early = [block for block in blocks if HEADINGS.index(block.section) < HEADINGS.index("Check")]
    checks = [block for block in blocks if block.section == "Check"]
    assert not any("rmthess" in block.code for block in early)
    assert any("import rmthess" in block.code for block in checks)
    assert any("assert" in block.code for block in checks)


@each_page
def test_page_opens_as_a_notebook_with_the_same_code(page: Path) -> None:
    notebook = jupytext.reads(page.read_text(encoding="utf-8"), fmt="md")
    cells = [cell.source.strip() for cell in notebook.cells if cell.cell_type == "code"]
    assert cells == [block.code.strip() for block in blocks_of(page)]


@each_page
def test_page_closes_its_displayed_formulas_and_writes_them_portably(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert text.count("$$") % 2 == 0
    # Some forges unescape Markdown inside a formula, so "\," or "\{" would lose its backslash.
    formulas = re.findall(r"\$\$.+?\$\$|\$[^$\n]+?\$", text, flags=re.S)
    assert [formula for formula in formulas if re.search(r"\\[,;:!{}|_#]", formula)] == []
    # And a line of it that begins like a list, a heading or a quotation would become one.
    assert [formula for formula in formulas if re.search(r"^ *[-+*=#>]", formula, re.M)] == []


@each_page
def test_page_is_listed_with_the_status_it_claims(page: Path) -> None:
    assert status_of(page) in STATUSES
    assert contents().get(page.stem) == status_of(page)


def test_every_page_in_the_contents_is_there() -> None:
    assert sorted(contents()) == [page.stem for page in PAGES]


DEFINES_A_LAW = re.compile(r"^class \w+\((?:.*\W)?Law\b.*\):", flags=re.MULTILINE)
LAWS = [
    path
    for path in sorted((ROOT / "rmthess" / "laws").glob("*.py"))
    if path.stem != "law" and DEFINES_A_LAW.search(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.stem)
def test_every_law_has_a_page_of_its_name(law: Path) -> None:
    assert (ROOT / "theory" / f"{law.stem}.md").exists(), f"write theory/{law.stem}.md"


def test_a_failure_points_into_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n## Check\n\n```python\nx = 1\n```\n\n```python\n\nassert x == 2\n```\n"
    )
    with pytest.raises(AssertionError) as failure:
        run(page)
    last = failure.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(page), 11)
    assert "assert x == 2" in str(last.getsource())


def test_a_block_that_is_never_closed_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("## Check\n```python\nx = 1\n")
    with pytest.raises(AssertionError, match=r"page\.md:2: this block is never closed"):
        blocks_of(page)


def test_only_python_blocks_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```text\nnot python\n```\n```python\nx = 1\n```\n")
    assert [block.code for block in blocks_of(page)] == ["x = 1\n"]
