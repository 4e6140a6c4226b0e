"""A report is replaced as a whole, and files of others are never lost."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rmthess.report.directory import DirectoryError, check_writable, write
from rmthess.report.document import Document, Section

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
OLD, NEW = (Document(title, "", [Section("Where")]) for title in ("Old", "New"))


def files(**more: bytes) -> dict[str, bytes]:
    summary = json.dumps({"generator": "rmthess", "seed": 0}).encode()
    return {"summary.json": summary, **{f"{k}.safetensors": v for k, v in more.items()}}


def contents(directory: Path) -> dict[str, bytes | None]:
    return {p.name: p.read_bytes() if p.is_file() else None for p in directory.iterdir()}


def title(directory: Path) -> str:
    return (directory / "index.html").read_text("utf-8").split("<title>")[1].split("<")[0]


def test_a_report_is_its_page_its_files_and_their_checksums(tmp_path: Path) -> None:
    page = write(OLD, tmp_path / "my report", files(initial=b"spectrum"))
    assert page == tmp_path / "my report" / "index.html"
    found = contents(page.parent)
    assert found.keys() == {"index.html", "summary.json", "initial.safetensors", "SHA256SUMS"}
    assert found["initial.safetensors"] == b"spectrum"
    for line in (page.parent / "SHA256SUMS").read_text().splitlines():
        checksum, _, name = line.partition("  ")
        assert hashlib.sha256(found.pop(name) or b"").hexdigest() == checksum
    assert found.keys() == {"SHA256SUMS"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["my report"]


@pytest.mark.skipif(not os.path.exists("/usr/bin/sha256sum"), reason="no sha256sum here")
def test_sha256sum_accepts_the_list(tmp_path: Path) -> None:
    write(OLD, tmp_path / "report", {**files(), "two words λ.npz": b"x"})
    subprocess.run(["/usr/bin/sha256sum", "--check", "--strict", "--status", "SHA256SUMS"],
                   cwd=tmp_path / "report", check=True)  # fmt: skip


def test_the_same_report_has_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write(OLD, tmp_path / name, files(initial=b"spectrum"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_our_own_report_is_replaced_with_no_trace_of_the_old(tmp_path: Path) -> None:
    write(OLD, tmp_path / "report", files(old=b"1"))
    write(NEW, tmp_path / "report", files(new=b"2"))
    assert title(tmp_path / "report") == "New"
    assert contents(tmp_path / "report").keys() == {
        "index.html", "summary.json", "new.safetensors", "SHA256SUMS"
    }  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_an_empty_directory_is_taken_with_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report").chmod(0o750)
    write(NEW, tmp_path / "report", files())
    assert title(tmp_path / "report") == "New"
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o750


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    for summary in (None, "{", "[]", '{"generator": "other"}', "[" * 20000):
        if summary is not None:
            (tmp_path / "summary.json").write_text(summary)
        before = contents(tmp_path)
        for attempt in (lambda: check_writable(tmp_path), lambda: write(NEW, tmp_path, files())):
            with pytest.raises(DirectoryError, match="exists and is not a report of ours; choose"):
                attempt()
        assert contents(tmp_path) == before


def test_force_keeps_every_file_that_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run").write_text("mine")
    check_writable(tmp_path, force=True)
    write(OLD, tmp_path, files(old=b"1"), force=True)
    assert title(tmp_path) == "Old"
    write(NEW, tmp_path, files(new=b"2"))  # it is a report of ours by now
    assert title(tmp_path) == "New"
    assert contents(tmp_path).keys() == {
        "index.html", "summary.json", "SHA256SUMS", "new.safetensors", "thesis.tex", "data"
    }  # fmt: skip
    assert (
        (tmp_path / "thesis.tex").read_text() == (tmp_path / "data" / "run").read_text() == "mine"
    )


def test_notes_that_a_reader_put_into_our_report_stay(tmp_path: Path) -> None:
    write(OLD, tmp_path / "report", files(old=b"1"))
    (tmp_path / "report" / "notes.txt").write_text("mine")
    write(NEW, tmp_path / "report", files(new=b"2"))
    assert title(tmp_path / "report") == "New"
    assert (tmp_path / "report" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "report" / "old.safetensors").exists()


def test_a_list_of_checksums_cannot_reach_out_of_its_directory(tmp_path: Path) -> None:
    write(OLD, tmp_path / "report", files())
    (tmp_path / "precious").write_text("mine")
    with (tmp_path / "report" / "SHA256SUMS").open("a") as sums:
        sums.write(f"0  ../precious\n0  {tmp_path / 'precious'}\n0  ..\n0  .\n0  \n")
    write(NEW, tmp_path / "report", files())
    assert (tmp_path / "precious").read_text() == "mine"
    assert title(tmp_path / "report") == "New"


def test_the_working_directory_is_not_pulled_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(OLD, tmp_path, files(old=b"1"))
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    write(NEW, ".", files(new=b"2"))
    assert tmp_path.stat().st_ino == before
    assert title(tmp_path) == "New"
    assert not (tmp_path / "old.safetensors").exists()


def test_a_link_to_a_report_stays_a_link(tmp_path: Path) -> None:
    write(OLD, tmp_path / "real", files())
    (tmp_path / "latest").symlink_to("real", target_is_directory=True)
    write(NEW, tmp_path / "latest", files())
    assert (tmp_path / "latest").is_symlink()
    assert title(tmp_path / "real") == "New"


def test_places_where_no_report_can_be_are_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    cases = {
        tmp_path / "file": "is a file; a report is a directory",
        tmp_path / "file" / "report": "there is no directory",
        tmp_path / "absent" / "report": "there is no directory .*absent",
    }
    for place, why in cases.items():
        for force in (False, True):
            with pytest.raises(DirectoryError, match=why) as caught:
                check_writable(place, force)
            assert caught.value.path == str(place)
            with pytest.raises(DirectoryError, match=why):
                write(NEW, place, files(), force=force)
    check_writable(tmp_path / "report")
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_directories_without_the_right_to_write_are_found_before_any_work(tmp_path: Path) -> None:
    write(OLD, tmp_path / "report", files())
    tmp_path.chmod(0o500)
    with pytest.raises(DirectoryError, match="cannot be written to: Permission denied"):
        check_writable(tmp_path / "other")
    write(NEW, tmp_path / "report", files())  # in place: its own directory may still be written
    assert title(tmp_path / "report") == "New"
    (tmp_path / "report").chmod(0o500)
    with pytest.raises(DirectoryError, match="cannot be written to: Permission denied"):
        check_writable(tmp_path / "report")
    (tmp_path / "report").chmod(0o700)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", "/etc/a", "a\\b", "a\nb", "a\x1b", "index.html", "SHA256SUMS"],
)
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="files must have"):
        write(NEW, tmp_path / "report", {**files(), name: b""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("summary", [{}, {"summary.json": b"{}"}, {"summary.json": b"\xff"}])
def test_without_our_summary_nothing_is_written(tmp_path: Path, summary: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"files must hold summary\.json"):
        write(NEW, tmp_path / "report", summary)
    assert not list(tmp_path.iterdir())


class Failing:
    """Raises at the n-th step that writes, and lets all others through."""

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.fail_at, self.error, self.calls, self.failed = fail_at, error, 0, False

    def __call__(self, call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += call.__name__ != "open" or "xb" in args
            if self.calls == self.fail_at and not self.failed:
                self.failed = True
                raise self.error
            return call(*args, **kwargs)

        return wrapped


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("notes", [False, True], ids=["swapped", "in place"])
def test_a_failed_write_leaves_every_file_whole_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, notes: bool
) -> None:
    report = tmp_path / "report"
    write(NEW, report, files(same=b"2"))
    new = contents(report)
    write(OLD, report, files(same=b"1"))
    if notes:
        (report / "notes.txt").write_text("mine")
    old = contents(report)
    expected = DirectoryError if isinstance(error, OSError) else type(error)
    for fail_at in range(1, 40):
        failing = Failing(fail_at, error)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync))
            for name in ("open", "rename", "replace"):
                patch.setattr(Path, name, failing(getattr(Path, name)))
            with suppress(expected):
                write(NEW, report, files(same=b"2"))
        if not failing.failed:
            break
        after = contents(report)
        assert [entry.name for entry in tmp_path.iterdir()] == ["report"]
        if notes:
            assert after.keys() == old.keys()
            assert all(data in (old[name], new.get(name)) for name, data in after.items())
        else:
            assert after == old
    # four files opened and synced; then four replaced, or two directories renamed
    assert fail_at == 4 + 4 + (4 if notes else 2) + 1
    assert contents(report) == (new | {"notes.txt": b"mine"} if notes else new)


def test_a_directory_in_the_place_of_a_file_is_refused_before_anything_is_replaced(
    tmp_path: Path,
) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(DirectoryError, match=r"'summary\.json' in it is a directory"):
        write(NEW, tmp_path, files(), force=True)
    assert contents(tmp_path) == {"summary.json": None}
