"""A report on disk: a directory that is replaced as a whole, and that never costs a file of others.

What is ours is listed in ``SHA256SUMS``; a directory is a report of ours if its ``summary.json``
says ``"generator": "rmthess"``. A directory that holds nothing but our files is swapped for the
new one. Where there are other files beside ours, each of our files is replaced on its own and the
others stay.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rmthess.report.document import Document, render

GENERATOR = "rmthess"
PAGE, SUMMARY, SUMS = "index.html", "summary.json", "SHA256SUMS"


class DirectoryError(ValueError):
    """A place where no report can be written: its ``path``, and ``why`` with what to do."""

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        super().__init__(path, why)
        self.path = os.fsdecode(path)
        self.why = why

    def __str__(self) -> str:
        return f"{self.path!r}: {self.why}"


def check_writable(directory: str | os.PathLike[str], force: bool = False) -> None:
    """`DirectoryError` unless `write` can put a report there; to be asked before any work."""
    target = Path(os.path.realpath(directory))
    if target.is_dir():
        if any(target.iterdir()) and not _is_report(target) and not force:
            raise DirectoryError(
                directory,
                "exists and is not a report of ours; choose another directory, or --force to write "
                "the report among the files there (they stay, those of the same name are replaced)",
            )
        _probe(directory, target)
    elif os.path.lexists(target):
        raise DirectoryError(directory, "is a file; a report is a directory, choose another name")
    elif not target.parent.is_dir():
        raise DirectoryError(
            directory, f"there is no directory {str(target.parent)!r} to put it in"
        )
    else:
        _probe(directory, target.parent)


def write(
    document: Document,
    directory: str | os.PathLike[str],
    files: Mapping[str, bytes],
    *,
    force: bool = False,
) -> Path:
    """Write the page and ``files`` to ``directory``; the path of the page.

    ``files`` maps plain names to contents; ``summary.json`` must be among them. A report of ours is
    replaced, with no trace of its old files; any other directory that is not empty is refused
    unless ``force``. Files that are not ours stay, also with ``force``, except those that bear the
    name of a file of the report.
    """
    contents = _contents(document, files)
    check_writable(directory, force)
    target = Path(os.path.realpath(directory))
    try:
        if _is_ours_alone(target):
            _swap(target, contents)
        else:
            _replace_in_place(target, contents)
    except OSError as error:
        raise DirectoryError(directory, f"cannot be written: {error.strerror}") from error
    return Path(directory) / PAGE


def _contents(document: Document, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files of the report by name, the list of their checksums last."""
    for name in files:
        if name != os.path.basename(name) or name in ("", ".", "..", PAGE, SUMS) or "\\" in name:
            raise ValueError(
                f"files must have plain names other than {PAGE} and {SUMS}, got {name!r}"
            )
        if not name.isprintable():
            raise ValueError(f"files must have printable names, got {name!r}")
    if not _is_summary(files.get(SUMMARY, b"")):
        raise ValueError(
            f'files must hold {SUMMARY}, a JSON object with "generator": "{GENERATOR}"'
        )
    contents = {PAGE: render(document).encode(), **files}
    sums = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items())
    return {**contents, SUMS: "".join(sums).encode()}


def _is_summary(content: bytes) -> bool:
    try:
        summary = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(summary, dict) and summary.get("generator") == GENERATOR


def _is_report(target: Path) -> bool:
    try:
        return _is_summary((target / SUMMARY).read_bytes())
    except OSError:
        return False


def _ours(target: Path) -> set[str]:
    """Names of the files there that an earlier `write` made."""
    if not _is_report(target):
        return set()
    try:
        lines = (target / SUMS).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return {SUMMARY}
    return {SUMS, *(line.partition("  ")[2] for line in lines)}


def _is_ours_alone(target: Path) -> bool:
    """Whether the directory may be renamed away: only our files in it, and nobody stands in it."""
    if not target.exists():
        return True
    return (
        set(os.listdir(target)) <= _ours(target)
        and not target.is_mount()
        and not Path.cwd().is_relative_to(target)
        and os.access(target.parent, os.W_OK | os.X_OK)
    )


def _swap(target: Path, contents: Mapping[str, bytes]) -> None:
    """Build the new directory beside the old one, then rename the two."""
    new, old = _sibling(target), _sibling(target)
    try:
        new.mkdir()
        for name, data in contents.items():
            _write_file(new / name, data)
        try:
            if target.exists():
                shutil.copymode(target, new)
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if old.exists():
        _discard(old, _ours(old))
        with suppress(OSError):  # not empty: somebody put a file there meanwhile
            old.rmdir()


def _replace_in_place(target: Path, contents: Mapping[str, bytes]) -> None:
    """Replace our files one by one, each at once, and drop those of the old report."""
    obsolete = _ours(target) - set(contents)
    for name in contents:
        if (target / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{name!r} in it is a directory")
    written: dict[str, Path] = {}
    try:
        for name, data in contents.items():
            written[name] = _sibling(target / name)
            _write_file(written[name], data)
        for name, temporary in written.items():
            temporary.replace(target / name)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
    _discard(target, obsolete)


def _discard(directory: Path, names: set[str]) -> None:
    for name in names & set(os.listdir(directory)):
        if not (directory / name).is_dir():
            (directory / name).unlink()


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sibling(path: Path) -> Path:
    return path.with_name(f".rmthess-{secrets.token_hex(8)}.tmp")


def _probe(directory: str | os.PathLike[str], place: Path) -> None:
    """Make and remove a directory in ``place``: rights and read-only discs show only in the act."""
    attempt = _sibling(place / PAGE)
    try:
        attempt.mkdir()
        attempt.rmdir()
    except OSError as error:
        why = f"the directory {str(place)!r} cannot be written to: {error.strerror}"
        raise DirectoryError(directory, why) from error
