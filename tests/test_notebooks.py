"""The notebooks run from a clean kernel, say again what they said, and are fit to be committed.

After a change of a notebook or of what it shows, run it again in place and commit the outcome:

    .venv/bin/python tests/test_notebooks.py            # all of them
    .venv/bin/python tests/test_notebooks.py lanczos    # one
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

try:
    import resource  # not on Windows: then no time is taken
except ImportError:
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
BYTES = 500_000
SECONDS = 60.0  # of CPU; each is written to take half of it on a free core
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook as a clean kernel in ``folder`` leaves it; errors are kept as outputs."""
    fresh: NotebookNode = nbformat.from_dict(notebook)
    for cell in code_cells(fresh):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        fresh,
        kernel_name="python3",
        timeout=300,
        allow_errors=True,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of TCP on the loopback
        resources={"metadata": {"path": str(folder)}},
    )
    environment = {
        **os.environ,
        **dict.fromkeys(THREADS, "1"),
        # The user's own profile is no part of a clean kernel.
        "IPYTHONDIR": str(folder / "ipython"),
    }
    for name in ("MPLBACKEND", "PYTHONWARNINGS"):
        environment.pop(name, None)
    client.execute(env=environment)
    fresh.metadata = nbformat.from_dict(METADATA)
    return fresh


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output: NotebookNode) -> str:
    """What an output says in words: a stream, a traceback, or every representation but pictures."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return "\n".join(text for kind, text in sorted(output.data.items()) if kind.startswith("text/"))


def kinds_of(cell: NotebookNode) -> list[Any]:
    """stdout, or the representations of what was displayed, for each output."""
    return [
        output.name if output.output_type == "stream" else sorted(output.get("data", ["error"]))
        for output in cell.outputs
    ]


def failures(notebook: NotebookNode) -> list[str]:
    """Errors, and anything written to stderr: warnings above all."""
    return [
        f"{cell.id}: {text_of(output)}"
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


PATH = re.compile(r"(?:^|[\s'\"(=:,])(?:/|~/|[A-Za-z]:\\)[\w.-]+[/\\]", flags=re.MULTILINE)


def private(notebook: NotebookNode, user: str) -> list[str]:
    """Outputs with an absolute path, or with a user name that the notebook's own text lacks."""
    name = re.compile(rf"(?<!\w){re.escape(user)}(?!\w)")
    named = any(name.search(cell.source) for cell in notebook.cells)
    return [
        f"{cell.id}: {text}"
        for cell in code_cells(notebook)
        for text in map(text_of, cell.outputs)
        if PATH.search(text) or (not named and name.search(text))
    ]


NUMBER = re.compile(r"-?\d+(?:\.(\d*))?(?:e([-+]?\d+))?")


def same_text(one: str, other: str) -> bool:
    """Equal but for white space within lines and the last digits of numbers.

    Numbers may differ by 1e-3 of their size, or by one in their last decimal; without a decimal
    point they are counts, and only the former holds.
    """

    def words(text: str) -> list[list[str]]:
        return [NUMBER.sub("#", line).split() for line in text.strip().splitlines()]

    if words(one) != words(other):
        return False
    return all(map(_same_number, NUMBER.finditer(one), NUMBER.finditer(other)))


def _same_number(one: re.Match[str], other: re.Match[str]) -> bool:
    x, y = float(one.group()), float(other.group())
    units = [
        10.0 ** (int(found.group(2) or 0) - len(found.group(1)))
        for found in (one, other)
        if found.group(1)
    ]
    return abs(x - y) <= max(1e-3 * max(abs(x), abs(y)), 1.001 * max(units, default=0.0))


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an account
        return "nobody"


def cpu_of_children() -> float:
    if resource is None:
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- the committed files ----------------------------------------------------------------------


def test_there_are_notebooks() -> None:
    assert {"lanczos", "marchenko_pastur"} <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_notebook_is_valid_and_small(path: Path) -> None:
    nbformat.validate(read(path))
    assert path.stat().st_size < BYTES


@each_notebook
def test_notebook_begins_with_title_and_objectives_and_ends_with_exercises(path: Path) -> None:
    first, *_, last = read(path).cells
    assert first.cell_type == last.cell_type == "markdown"
    assert re.match(r"# \S.*\n\n\*\*Objectives\.\*\* [^.]+\.", first.source)
    assert last.source.startswith("## Exercises\n")
    assert len(re.findall(r"^\d\. ", last.source, flags=re.MULTILINE)) >= 3


@each_notebook
def test_notebook_gives_small_diffs(path: Path) -> None:
    """Ids that mean something, no time stamps, no versions."""
    notebook = read(path)
    assert notebook.metadata == METADATA
    assert [cell.id for cell in notebook.cells if cell.metadata] == []
    ids = [cell.id for cell in notebook.cells]
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name)] == []
    assert len(set(ids)) == len(ids)


@each_notebook
def test_committed_outputs_come_from_one_run_from_top_to_bottom(path: Path) -> None:
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_notebook
def test_committed_outputs_are_free_of_errors_warnings_and_paths(path: Path) -> None:
    notebook = read(path)
    assert failures(notebook) == []
    assert private(notebook, user_name()) == []


@each_notebook
def test_links_between_notebooks_and_pages_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


# --- run again --------------------------------------------------------------------------------


@each_notebook
def test_notebook_runs_and_says_again_what_is_committed(path: Path, tmp_path: Path) -> None:
    committed = read(path)
    before = cpu_of_children()
    fresh = execute(committed, tmp_path)
    seconds = cpu_of_children() - before
    assert failures(fresh) == []
    assert private(fresh, user_name()) == []
    for old, new in zip(code_cells(committed), code_cells(fresh), strict=True):
        assert kinds_of(old) == kinds_of(new), f"cell {old.id} shows something else than committed"
        for was, now in zip(old.outputs, new.outputs, strict=True):
            assert same_text(text_of(was), text_of(now)), (
                f"cell {old.id} said\n{text_of(was)}\nand now says\n{text_of(now)}"
            )
    assert seconds < SECONDS, f"{path.name} took {seconds:.0f} s of CPU, {SECONDS:.0f} are allowed"


# --- the checks themselves --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ratio 0.4001 ± 0.0011", "ratio 0.4002 ± 0.0010", True),
        ("ratio 0.4001 ± 0.0011", "ratio 0.4101 ± 0.0011", False),
        ("1.7e-06", "1.8e-06", True),
        ("1.7e-06", "1.7e-05", False),
        ("2 outliers", "3 outliers", False),
        ("Refused", "Not refused", False),
        ("a\nb", "a b", False),
        ("x   -0.00", "x 0.00", True),
    ],
)
def test_texts_agree_up_to_last_digits(one: str, other: str, same: bool) -> None:
    assert same_text(one, other) is same


@pytest.mark.parametrize(
    ("text", "user", "found"),
    [
        ("saved to /some/where/x.npz", "ada", True),
        ("x = '/home/ada/x'", "eve", True),
        ("hello ada", "ada", True),
        ("ada, the language", "ada", True),
        ("adagio", "ada", False),
        ("2/(z - a) and 1/d", "ada", False),
    ],
)
def test_private_text_is_found(text: str, user: str, found: bool) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(text)")])
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    assert bool(private(notebook, user)) is found


def test_an_error_and_a_warning_are_failures(tmp_path: Path) -> None:
    sources = ["import warnings; warnings.warn('beware')", "1 / 0", "print(1)"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    fresh = execute(nbformat.v4.new_notebook(cells=cells), tmp_path)
    first, second = failures(fresh)
    assert "beware" in first
    assert "ZeroDivisionError" in second
    assert kinds_of(fresh.cells[2]) == ["stdout"]


def main(names: list[str]) -> int:
    """Run the named notebooks, or all, again in place; one with failures is left as it was."""
    from tempfile import TemporaryDirectory

    unknown = sorted(set(names) - {path.stem for path in NOTEBOOKS})
    if unknown:
        print(f"no notebook {unknown[0]!r}; there are {', '.join(p.stem for p in NOTEBOOKS)}")
        return 2
    status = 0
    for path in NOTEBOOKS:
        if names and path.stem not in names:
            continue
        with TemporaryDirectory() as folder:
            fresh = execute(read(path), Path(folder))
        trouble = failures(fresh) + private(fresh, user_name())
        if trouble:
            print(f"{path.name}: left as it was\n" + "\n".join(trouble))
            status = 1
            continue
        partial = path.with_suffix(".partial")
        nbformat.write(fresh, partial)
        partial.replace(path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
