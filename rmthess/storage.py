"""A measured spectrum on disk: one safetensors file, with a JSON header and checksums.

    tensors               the arrays of the measure, float64
    metadata "rmthess"    JSON: checksum, format, schema, class, dim, provenance, version of
                          rmthess, and the sha256 of each array's bytes (little-endian)

``checksum`` is the sha256 of the whole file with 64 zeros in its own place, so that a bit flipped
anywhere is noticed. Any safetensors reader opens the file; nothing in it can run code. A write
leaves either the old file or the new one, never half of one; a read returns what was saved or
raises `StorageError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from rmthess import __version__
from rmthess.adapters import from_csv
from rmthess.measure import Array, DiscreteMeasure, LanczosMeasure

Path = str | os.PathLike[str]

FORMAT = "rmthess measure"
SCHEMA = 2  # 1 had no deflated eigenvalues
HEADER_LIMIT = 16 * 2**20  # bytes; a provenance may take a quarter, as JSON in JSON is escaped
_LENGTH = 8  # bytes at the start of the file: the length of its header
_BLANK = "0" * 64

_ARRAYS: dict[type[DiscreteMeasure | LanczosMeasure], dict[str, int]] = {
    DiscreteMeasure: {"nodes": 1, "weights": 1},
    LanczosMeasure: {"diagonals": 2, "off_diagonals": 2, "residuals": 1, "deflated": 1},
}
_CLASSES = {cls.__name__: cls for cls in _ARRAYS}


class StorageError(ValueError):
    """A file that cannot be read or written: its ``path``, and ``why`` with what to do about it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path = os.fsdecode(path)
        self.why = why

    def __str__(self) -> str:
        return f"{self.path!r}: {self.why}"


def save(measure: DiscreteMeasure | LanczosMeasure, path: Path) -> None:
    """Write ``measure`` to ``path``, which then holds all of it or what it held before.

    By custom the name ends in ``.safetensors``. See `write_atomically` for links and permissions.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(DiscreteMeasure([1.0, 3.0], [0.25, 0.75]), f"{folder}/two atoms.safetensors")
    ...     load(f"{folder}/two atoms.safetensors").moment(1)
    2.5
    """
    write_atomically(path, encode(measure))


def load(path: Path) -> DiscreteMeasure | LanczosMeasure:
    """The measure that `save` wrote to ``path``, bit for bit; `StorageError` for anything else.

    A name that ends in .csv is read as a table of eigenvalues, see `adapters.from_csv`.
    """
    try:
        if os.fsdecode(path).lower().endswith(".csv"):
            table: DiscreteMeasure | LanczosMeasure = from_csv(path)
            return table
        return _decode(*_read(path))
    except FileNotFoundError as error:
        raise StorageError(path, "there is no such file") from error
    except OSError as error:
        raise StorageError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StorageError(path, str(error)) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` by ``content``: all of it, or nothing and `StorageError`.

    A new file in the same directory is written, synced and renamed over ``path``. A replaced file
    keeps its permissions; a symbolic link is replaced, and what it pointed to stays as it is.
    """
    target = os.fsdecode(path)
    directory = os.path.dirname(target) or os.curdir
    mode = _check_target(target, directory)
    temporary = os.path.join(directory, f".rmthess-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            why = f"cannot be written: {error.strerror}; what was there before is untouched"
            raise StorageError(path, why) from error
        raise
    # The file is in place and whole. Where a directory cannot be synced, a power cut within the
    # next seconds may bring back the old file, which is whole too.
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_target(target: str, directory: str) -> int | None:
    """Permissions of the file to be replaced, None where there is none; or `StorageError`."""
    if not os.path.isdir(directory):
        raise StorageError(target, f"there is no directory {directory!r}; create it first")
    mode = os.stat(target).st_mode if os.path.exists(target) else None
    if mode is not None and not stat.S_ISREG(mode):
        raise StorageError(target, f"is {_kind(mode)}; give the name of a file")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StorageError(target, f"the directory {directory!r} is not writable")
    if mode is None or os.path.islink(target):
        return None
    if not os.access(target, os.W_OK):
        raise StorageError(target, "is write-protected; choose another name")
    return stat.S_IMODE(mode)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def encode(measure: DiscreteMeasure | LanczosMeasure) -> bytes:
    """The bytes that ``save`` writes; the same measure gives the same bytes."""
    cls = type(measure)
    if cls not in _ARRAYS:
        raise TypeError(
            f"save takes a {' or a '.join(_CLASSES)}, got a {cls.__name__}; "
            "a law is kept as the line of code that makes it"
        )
    arrays = {
        name: np.ascontiguousarray(getattr(measure, name), dtype="<f8") for name in _ARRAYS[cls]
    }
    header = {
        "checksum": _BLANK,  # first, so that nothing in the provenance can be taken for it
        "format": FORMAT,
        "schema": SCHEMA,
        "class": cls.__name__,
        "dim": measure.dim,
        "provenance": getattr(measure, "provenance", {}),
        "rmthess": __version__,
        "sha256": {name: _sha256(array.tobytes()) for name, array in arrays.items()},
    }
    try:
        text = json.dumps(header, allow_nan=False, default=_as_dict)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must hold JSON values only: {error}") from error
    if len(text) > HEADER_LIMIT // 4:
        raise ValueError(
            f"provenance must fit into {HEADER_LIMIT // 4} bytes of JSON, got {len(text)}; "
            "keep a checksum of what is long"
        )
    # One metadata key only: safetensors writes several in an order that changes from run to run.
    content = safetensors.save(arrays, {"rmthess": text})
    return _replace_checksum(content, _BLANK, _sha256(content))


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"got a {type(value).__name__}, {value!r}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace_checksum(content: bytes, old: str, new: str) -> bytes:
    before, after = (rf"{{\"checksum\": \"{checksum}\"".encode() for checksum in (old, new))
    return content.replace(before, after, 1)


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The whole file and our header in it; what is not ours is refused by its header alone."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"is {_kind(mode)}; name a saved spectrum")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ValueError("is empty; restore a copy, or measure again")
        start = file.read(_LENGTH)
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH or length > min(size - _LENGTH, HEADER_LIMIT):
            raise ValueError(
                f"is not a saved spectrum or was cut short: it has {size} bytes and announces a "
                f"header of {length} (at most {HEADER_LIMIT} are read)"
            )
        outline = file.read(length)
        header, end = _parse(outline)
        expected = _LENGTH + length + end
        if size != expected:
            what = "was cut short" if size < expected else "had something appended"
            raise ValueError(
                f"{what}: it has {size} bytes, its header announces {expected}; "
                "restore a copy, or measure again"
            )
        return start + outline + file.read(), header


def _parse(outline: bytes) -> tuple[dict[str, Any], int]:
    """Our header out of the safetensors header, and the number of bytes of data after it."""
    try:
        entries = json.loads(outline)
        header = json.loads(entries.pop("__metadata__")["rmthess"])
        end = max(int(entry["data_offsets"][1]) for entry in entries.values())
        name, schema = header["format"], header["schema"]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        name = schema = None
    if name != FORMAT or type(schema) is not int or schema < 1:
        raise ValueError("is not a spectrum that rmthess saved, or its header is damaged")
    if schema > SCHEMA:
        raise ValueError(
            f"was written by a newer rmthess (schema {schema}); upgrade, as version {__version__} "
            f"reads up to schema {SCHEMA}"
        )
    return header, end


def _decode(content: bytes, header: dict[str, Any]) -> DiscreteMeasure | LanczosMeasure:
    try:
        name = header["class"]
        if name not in _CLASSES:
            raise ValueError(f"the class {name!r} is none of {', '.join(_CLASSES)}")
        cls = _CLASSES[name]
        tensors = safetensors.load(content)
        arrays = {
            key: _check(tensors, key, ndim, header)
            for key, ndim in _ARRAYS[cls].items()
            if not (key == "deflated" and header["schema"] == 1)
        }
        checksum = header["checksum"]
        if _sha256(_replace_checksum(content, checksum, _BLANK)) != checksum:
            raise ValueError("the header does not match its checksum")
        if cls is LanczosMeasure:
            return LanczosMeasure(**arrays, dim=header["dim"], provenance=header["provenance"])
        return DiscreteMeasure(**arrays, dim=header["dim"])
    except KeyError as error:
        raise ValueError(f"is damaged: {error} is missing; restore a copy") from error
    except (TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"is damaged: {error}; restore a copy") from error


def _check(tensors: dict[str, Any], name: str, ndim: int, header: dict[str, Any]) -> Array:
    array: np.ndarray[Any, np.dtype[Any]] = tensors[name]
    if array.dtype != np.float64 or array.ndim != ndim:
        raise ValueError(
            f"the array {name!r} must be float64 with {ndim} axes, "
            f"got {array.dtype} with {array.ndim}"
        )
    if _sha256(array.astype("<f8").tobytes()) != header["sha256"][name]:
        raise ValueError(f"the array {name!r} does not match its checksum")
    return array
