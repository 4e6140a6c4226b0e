"""A saved spectrum comes back bit for bit, or `StorageError` says why it cannot."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import numpy as safetensors
from safetensors import safe_open

from rmthess import storage
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.storage import StorageError, load, save, write_atomically

ATOMS = DiscreteMeasure([-1.7, 0.43, 2.0], [0.25, 0.5, 0.25], dim=12)
LANCZOS = LanczosMeasure(
    diagonals=[[0.1, 0.2, 0.3], [0.4, np.nan, np.nan]],
    off_diagonals=[[1.0, 2.0], [np.nan, np.nan]],
    residuals=[0.5, 0.0],
    dim=9,
    provenance={"seed": 0, "model": "Réseau <b>$x$", "widths": [7, 5, 3], "checksum": "0" * 64},
    deflated=[7.5, -3.0],
)


def contents(measure: Any) -> dict[str, Any]:
    """All that a measure holds, arrays as bytes: NaN equals NaN and 0.0 differs from -0.0."""
    names = {DiscreteMeasure: ("nodes", "weights")}.get(
        type(measure), ("diagonals", "off_diagonals", "residuals", "deflated")
    )
    arrays = {
        name: (getattr(measure, name).tobytes(), getattr(measure, name).shape) for name in names
    }
    return {**arrays, "dim": measure.dim, "provenance": getattr(measure, "provenance", None)}


def header_of(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(
        json.loads(content[8 : 8 + length])["__metadata__"]["rmthess"]
    )
    return header


def forged(tensors: dict[str, np.ndarray[Any, Any]], **changes: Any) -> bytes:
    """A file with valid checksums all over and the changed entries in its header."""
    header = {
        **header_of(storage.encode(ATOMS)),
        "checksum": "0" * 64,
        "sha256": {name: storage._sha256(array.tobytes()) for name, array in tensors.items()},
        **changes,
    }
    content = safetensors.save(tensors, {"rmthess": json.dumps(header)})
    return storage._replace_checksum(content, "0" * 64, storage._sha256(content))


@pytest.mark.parametrize("measure", [ATOMS, LANCZOS], ids=["discrete", "lanczos"])
@pytest.mark.parametrize("name", ["a.safetensors", "with space", "Größe µ(λ) 谱", "-dash", ".dot"])
def test_what_was_saved_is_loaded(tmp_path: Path, measure: Any, name: str) -> None:
    save(measure, tmp_path / name)
    loaded = load(tmp_path / name)
    assert type(loaded) is type(measure)
    assert contents(loaded) == contents(measure)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


coefficients = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | coefficients | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def lanczos_measures(draw: Any) -> LanczosMeasure:
    probes, steps = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    a = draw(hnp.arrays(float, (probes, steps), elements=coefficients))
    b = draw(hnp.arrays(float, (probes, steps - 1), elements=positive))
    for probe in range(probes):
        stop = draw(st.integers(1, steps))
        a[probe, stop:], b[probe, stop - 1 :] = np.nan, np.nan
    residuals = draw(hnp.arrays(float, probes, elements=positive))
    deflated = draw(st.lists(coefficients, max_size=2))
    provenance = draw(st.dictionaries(st.text(), json_values, max_size=3))
    return LanczosMeasure(a, b, residuals, draw(st.integers(3, 2**62)), provenance, deflated)


@settings(deadline=None)
@given(measure=lanczos_measures())
def test_round_trip_is_bit_for_bit(tmp_path_factory: Any, measure: LanczosMeasure) -> None:
    path = tmp_path_factory.getbasetemp() / "round trip"
    save(measure, path)
    assert contents(load(path)) == contents(measure)


@settings(deadline=None)
@given(nodes=hnp.arrays(float, st.integers(1, 6), elements=coefficients))
def test_atoms_keep_the_sign_of_zero_and_subnormals(tmp_path_factory: Any, nodes: Any) -> None:
    measure = DiscreteMeasure(nodes, np.full(nodes.size, 1 / nodes.size))
    path = tmp_path_factory.getbasetemp() / "atoms"
    save(measure, path)
    assert contents(load(path)) == contents(measure)


def test_two_saves_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(LANCZOS, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_spectrum_is_readable_without_rmthess(tmp_path: Path) -> None:
    save(LANCZOS, tmp_path / "spectrum.safetensors")
    with safe_open(tmp_path / "spectrum.safetensors", framework="numpy") as file:
        header = json.loads(file.metadata()["rmthess"])
        np.testing.assert_array_equal(file.get_tensor("diagonals"), LANCZOS.diagonals)
        np.testing.assert_array_equal(file.get_tensor("residuals"), LANCZOS.residuals)
    assert header["dim"] == 9
    assert header["provenance"] == LANCZOS.provenance


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    save(ATOMS, tmp_path / "atoms")
    code = (
        "import sys; from rmthess.storage import load; load(sys.argv[1]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "atoms")], check=True)


@pytest.mark.parametrize("measure", [ATOMS, LANCZOS], ids=["discrete", "lanczos"])
def test_a_flipped_bit_is_never_silent(tmp_path: Path, measure: Any) -> None:
    path = tmp_path / "flipped"
    save(measure, path)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(StorageError):
            load(path)
    for position, bit in ((p, b) for p in range(8, 200) for b in range(8)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(StorageError):
            load(path)


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    save(ATOMS, path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(StorageError, match="empty" if length == 0 else "cut short"):
            load(path)


def test_appended_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "long"
    save(ATOMS, path)
    os.truncate(path, 2**36)  # sparse: 64 GiB on paper
    with pytest.raises(StorageError, match="had something appended"):
        load(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"hello", "not a saved spectrum or was cut short"),
        (b"hello, this is a letter", "not a saved spectrum"),
        ((2**62).to_bytes(8, "little") + b"{}", "announces a header of 4611686018427387904"),
        ((2).to_bytes(8, "little") + b"{}", "not a spectrum that rmthess saved"),
        ((2).to_bytes(8, "little") + b"[]", "not a spectrum that rmthess saved"),
        ((9).to_bytes(8, "little") + b"\xff" * 9, "not a spectrum that rmthess saved"),
        ((20000).to_bytes(8, "little") + b"[" * 20000, "not a spectrum that rmthess saved"),
        (
            safetensors.save({"a": np.ones(3)}, {"format": "pt"}),
            "not a spectrum that rmthess saved",
        ),
        (pickle.dumps(os.getcwd), "not a saved spectrum"),
    ],
)
def test_foreign_content_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=why) as caught:
        load(path)
    assert caught.value.path == str(path)


NODES, WEIGHTS = np.array([1.0, 2.0]), np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (forged({"nodes": NODES}), "'weights' is missing"),
        (forged({"nodes": NODES, "weights": WEIGHTS}, sha256={}), "'nodes' is missing"),
        (
            forged({"nodes": NODES.astype(np.float32), "weights": WEIGHTS}),
            "'nodes' must be float64 with 1 axes, got float32",
        ),
        (forged({"nodes": NODES[None], "weights": WEIGHTS}), "1 axes, got float64 with 2"),
        (forged({"nodes": NODES, "weights": WEIGHTS[:1]}), r"shapes \(2,\) and \(1,\)"),
        (forged({"nodes": NODES, "weights": 2 * WEIGHTS}), "must sum to 1"),
        (forged({"nodes": NODES * np.nan, "weights": WEIGHTS}), "must be finite"),
        (forged({"nodes": NODES, "weights": WEIGHTS}, dim=-3), "dim must be"),
        (forged({"nodes": NODES, "weights": WEIGHTS}, dim="9"), "dim must be"),
        (
            forged({"nodes": NODES, "weights": WEIGHTS}, **{"class": "Law"}),
            "class 'Law' is none of",
        ),
        (forged({"nodes": NODES, "weights": WEIGHTS}, **{"class": []}), "is damaged"),
        (
            forged({"nodes": NODES, "weights": WEIGHTS}, schema=7),
            r"written by a newer rmthess \(schema 7\); upgrade",
        ),
        (forged({"nodes": NODES, "weights": WEIGHTS}, schema=0), "not a spectrum that rmthess"),
        (forged({"nodes": NODES, "weights": WEIGHTS}, schema=True), "not a spectrum that rmthess"),
        (
            forged({"nodes": NODES, "weights": WEIGHTS}, format="other"),
            "not a spectrum that rmthess",
        ),
        (forged({"nodes": NODES, "weights": WEIGHTS}, checksum=3), "header does not match"),
        (
            forged({"nodes": NODES, "weights": WEIGHTS}, sha256={"nodes": "0"}),
            "'nodes' does not match",
        ),
    ],
)
def test_a_valid_file_with_wrong_content_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "forged"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=why):
        load(path)


def test_the_forger_of_these_tests_can_forge(tmp_path: Path) -> None:
    (tmp_path / "forged").write_bytes(forged({"nodes": NODES, "weights": WEIGHTS}, dim=5))
    assert load(tmp_path / "forged").dim == 5


def test_a_file_from_before_deflation_holds_none(tmp_path: Path) -> None:
    """Schema 1 had three arrays; a file of schema 2 with three has lost one."""
    tensors = {
        name: np.ascontiguousarray(getattr(LANCZOS, name))
        for name in ("diagonals", "off_diagonals", "residuals")
    }
    entries = {"class": "LanczosMeasure", "dim": 9, "provenance": {"seed": 0}}
    (tmp_path / "old").write_bytes(forged(tensors, schema=1, **entries))
    loaded = load(tmp_path / "old")
    assert isinstance(loaded, LanczosMeasure)
    assert (loaded.deflated.size, loaded.provenance) == (0, {"seed": 0})
    np.testing.assert_array_equal(loaded.diagonals, LANCZOS.diagonals)
    (tmp_path / "new").write_bytes(forged(tensors, schema=2, **entries))
    with pytest.raises(StorageError, match="'deflated' is missing"):
        load(tmp_path / "new")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no such file"):
        load(tmp_path / "absent")
    with pytest.raises(StorageError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(StorageError, match="is a directory"):
        save(ATOMS, tmp_path)
    with pytest.raises(StorageError, match="cannot be read"):
        load(tmp_path / ("x" * 300))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is a pipe"):
        load(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is a pipe"):
        save(ATOMS, tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null here")
def test_a_device_is_never_replaced() -> None:
    with pytest.raises(StorageError, match="is a device"):
        save(ATOMS, "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_unwritable_place_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="there is no directory"):
        save(ATOMS, tmp_path / "file" / "spectrum")
    with pytest.raises(StorageError, match="there is no directory"):
        save(ATOMS, tmp_path / "absent" / "spectrum")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_write_protection_is_respected(tmp_path: Path) -> None:
    save(ATOMS, tmp_path / "kept")
    (tmp_path / "kept").chmod(0o400)
    with pytest.raises(StorageError, match="write-protected"):
        save(LANCZOS, tmp_path / "kept")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="is not writable"):
        save(ATOMS, tmp_path / "new")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_a_normal_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save(ATOMS, tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o600)
    save(LANCZOS, tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to("precious")
    (tmp_path / "dangling").symlink_to("absent")
    for name in ("link", "dangling"):
        save(ATOMS, tmp_path / name)
        assert not (tmp_path / name).is_symlink()
        assert contents(load(tmp_path / name)) == contents(ATOMS)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "absent").exists()


def test_a_link_to_a_saved_spectrum_is_followed_when_read(tmp_path: Path) -> None:
    save(ATOMS, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert contents(load(tmp_path / "link")) == contents(ATOMS)


class Failing:
    """Raises at the n-th system call of a write and lets all others through."""

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.fail_at, self.error, self.calls = fail_at, error, 0

    def __call__(self, call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.fail_at:
                raise self.error
            return call(*args, **kwargs)

        return wrapped

    @contextmanager
    def open(self, *args: Any) -> Iterator[Any]:
        with self(builtins.open)(*args) as file:
            yield FailingFile(file, self)


class FailingFile:
    def __init__(self, file: Any, failing: Failing) -> None:
        self.write, self.flush, self.fileno = failing(file.write), failing(file.flush), file.fileno


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "spectrum"
    save(ATOMS, path)
    expected = StorageError if isinstance(error, OSError) else type(error)
    failures = 0
    for fail_at in range(1, 20):
        failing = Failing(fail_at, error)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "open", failing.open, raising=False)
            for name in ("fsync", "chmod", "replace"):
                patch.setattr(os, name, failing(getattr(os, name)))
            try:
                save(LANCZOS, path)
            except expected:
                failures += 1
            else:
                break
        assert [entry.name for entry in tmp_path.iterdir()] == ["spectrum"]
        if failing.calls <= 6:
            assert contents(load(path)) == contents(ATOMS)
    # open, write, flush, fsync, chmod, replace; the directory's fsync may fail without harm, but
    # is not deaf to Ctrl-C
    assert failures == (6 if isinstance(error, OSError) else 7)
    assert contents(load(path)) == contents(LANCZOS)


def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def measure(provenance: Any) -> LanczosMeasure:
        return LanczosMeasure([[0.0]], [[]], [0.0], 3, provenance)

    for value in (np.nan, np.inf, {1, 2}, np.ones(2), b"bytes"):
        with pytest.raises(ValueError, match="provenance must hold JSON values only"):
            save(measure({"value": value}), tmp_path / "spectrum")
    with pytest.raises(ValueError, match="provenance must fit into 4194304 bytes"):
        save(measure({"value": "x" * storage.HEADER_LIMIT}), tmp_path / "spectrum")
    with pytest.raises(TypeError, match="got a list"):
        save([1.0, 2.0], tmp_path / "spectrum")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_longest_provenance_is_read_back(tmp_path: Path) -> None:
    provenance = {"value": '"' * (storage.HEADER_LIMIT // 8 - 500)}  # each quote becomes four bytes
    save(LanczosMeasure([[0.0]], [[]], [0.0], 3, provenance), tmp_path / "spectrum")
    assert load(tmp_path / "spectrum").provenance == provenance  # type: ignore[union-attr]


def test_mappings_in_the_provenance_are_kept_as_dictionaries(tmp_path: Path) -> None:
    inner = MappingProxyType({"a": 1})
    save(LanczosMeasure([[0.0]], [[]], [0.0], 3, MappingProxyType({"x": inner})), tmp_path / "s")
    assert load(tmp_path / "s").provenance == {"x": {"a": 1}}  # type: ignore[union-attr]


def test_bytes_are_replaced_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically("checkpoint", b"one")
    write_atomically("checkpoint", b"two")
    assert (tmp_path / "checkpoint").read_bytes() == b"two"


def test_the_error_names_the_path_without_control_characters() -> None:
    error = StorageError("a\x1b[2Jb\n", "is empty")
    assert str(error) == r"'a\x1b[2Jb\n': is empty"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
