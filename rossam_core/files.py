"""Atomic writing of files, reading of JSON, hashes, and the cache folder."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from rossam_core.errors import RossamError

DOWNLOADS = Path(__file__).parent / "weights" / "downloads.yaml"
"""The catalogue of datasets and checkpoints to fetch; those used by default name their backbone."""

RUN = "run.json"
"""The file by which a folder is known as that of a fine-tuning run."""
PARTIAL = "-partial-"
"""Part of the name of temporary files, which begins with a dot."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block succeeds and removed otherwise.

    The temporary name keeps the suffix, since writers such as `cv2.imwrite` choose the format by it.
    Raises `RossamError` where the folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}{PARTIAL}", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())  # written to the disk before renaming, so that a power cut leaves the old file
        os.replace(temporary, path)
    except OSError as error:
        home = Path(os.path.abspath(path)).parent
        name = error.filename2 or error.filename  # where a file was copied, the copy
        at = Path(os.path.abspath(name)) if isinstance(name, str) else home
        if at.parent != home and at not in (home, *home.parents):
            raise  # about another file, which the block uses
        remedy = "free some disk space or choose a folder you may write to; nothing was left half-written"
        if isinstance(error, FileNotFoundError):
            remedy = "another program removed a file or folder while it was written: start the same command again"
        raise RossamError(path, f"cannot be written: {error.strerror or error}", remedy) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_partial(folder: str | os.PathLike, *, recursive: bool = False) -> None:
    """Remove what killed processes left half-written in a folder (and below) to which no other process writes."""
    folder = Path(folder)
    for leftover in (folder.rglob if recursive else folder.glob)(f".*{PARTIAL}*"):
        leftover.unlink()


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically; bytes of file names that are no UTF-8 as escapes, `\\udcfc`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike, value, indent: int | None = 1) -> None:
    """Write `value` as JSON with sorted keys, atomically; compressed, with a checksum, where `path` ends in `.gz`."""
    data = (json.dumps(value, indent=indent, sort_keys=True, allow_nan=True) + "\n").encode("utf-8")
    write_bytes(path, gzip.compress(data, 1, mtime=0) if str(path).endswith(".gz") else data)


def read_json(path: str | os.PathLike):
    """Parse what `write_json` wrote; a missing or malformed file is a `RossamError` with line and column."""
    path = Path(path)
    try:
        data = path.read_bytes()
        return json.loads((gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise RossamError(path, "no such file", "check the path, or create the file first") from error
    except OSError as error:
        reason = error.strerror or error
        raise RossamError(path, f"cannot be read ({reason})", "name a whole file that you may read") from error
    except (ValueError, RecursionError, EOFError, zlib.error) as error:  # ValueError: also a number of 5,000 digits
        raise RossamError(path, f"is not valid JSON ({error})", "write the file anew; it may be truncated") from error


def write_sealed(path: str | os.PathLike, values: Mapping[str, Any]) -> None:
    """Write a JSON object with the hash of its values, by which `read_sealed` notices damage."""
    write_json(path, {**values, "sha256": stable_hash(values)})


def read_sealed(path: str | os.PathLike) -> dict[str, Any]:
    """The values that `write_sealed` wrote, or of an object without a hash; `RossamError` where they do not fit it."""
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("sha256", None) not in (None, stable_hash(values)):
        raise RossamError(path, "is damaged: its values do not fit its checksum", "delete it: it is made anew")
    return values


def sha256_of(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stable_hash(value) -> str:
    """Hex SHA-256 of `value`'s canonical JSON: the same on every machine and Python version."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def cache_dir() -> Path:
    """Folder of generated data, finished runs and checkpoints: `ROSSAM_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("ROSSAM_CACHE") or platformdirs.user_cache_dir("rossam")).expanduser().absolute()


def is_run(path: str | os.PathLike) -> bool:
    """Whether this is the folder of a fine-tuning run."""
    return (Path(path) / RUN).is_file()


def checkpoint_path(name: str) -> Path:
    """Path of the official checkpoint of that file name in the cache."""
    return cache_dir() / "checkpoints" / name
