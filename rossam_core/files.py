"""Writing files so that a reader never sees half of one, and naming their contents by hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import cv2
import filelock
import platformdirs

from rossam_core.errors import RossamError
from rossam_core.progress import waiting

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "peft", "scipy", "segment-anything")
"""Packages besides OpenCV, which has several names, whose version may move a number."""
DOWNLOADS = Path(__file__).parent / "weights" / "downloads.yaml"
"""The catalogue of datasets and checkpoints to fetch; those used by default name their backbone."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well and removed otherwise.

    The temporary name keeps the suffix, since writers such as `cv2.imwrite` choose the format by it.
    Raises `RossamError` where the folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())  # on the disk before it takes the name: a power cut leaves the old file
        os.replace(temporary, path)
    except OSError as error:
        home = Path(os.path.abspath(path)).parent
        at = Path(os.path.abspath(error.filename)) if isinstance(error.filename, str) else home
        if at.parent != home and at not in (home, *home.parents):
            raise  # about another file, which the block uses
        raise RossamError(
            path,
            f"cannot be written: {error.strerror or error}",
            "free some disk space or choose a folder you may write to; nothing was left half-written",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def caching() -> Iterator[None]:
    """Write into the cache inside the block; where it cannot be written, warn and go on without.

    For what is only a copy, and is computed again next time.
    """
    try:
        yield
    except (OSError, RossamError) as error:
        warnings.warn(f"not kept for next time, since the cache {cache_dir()} is not usable: {error}", stacklevel=3)


@contextlib.contextmanager
def exclusive(path: str | os.PathLike) -> Iterator[None]:
    """Have `path`, a file or folder that may not exist yet, to oneself: others who ask for it wait for the block's end.

    The system holds the lock, on an empty file `.NAME.lock` beside `path`, and frees it when the process dies. Whoever
    has waited looks again whether there is still something to do. Not to be nested for one path. Where the folder
    cannot be written, or its file system knows no locks, nobody waits.
    """
    path = Path(path)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            with waiting(f"waiting for another process to make {path.name[:16]}"):
                lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike, value, indent: int | None = 1) -> None:
    """Write `value` as JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=indent, sort_keys=True, allow_nan=True) + "\n")


def read_json(path: str | os.PathLike):
    """Parse a JSON file; a missing or malformed one is a `RossamError` with line and column."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise RossamError(path, "no such file", "check the path, or create the file first") from error
    except OSError as error:
        raise RossamError(path, f"cannot be read ({error.strerror})", "name a file that you may read") from error
    except RecursionError as error:
        raise RossamError(path, "is nested too deeply to be read", "write the file anew") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RossamError(path, f"is not valid JSON ({error})", "write the file anew; it may be truncated") from error


def sha256_of(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stable_hash(value) -> str:
    """Hex SHA-256 of `value`'s canonical JSON: the same on every machine and Python version."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def result_key(parts, version: str) -> str:
    """Name of a cached result: hash of what it depends on.

    Args:
        parts: settings and fingerprints of the inputs, JSON-serialisable.
        version: names the code that computes it; raised by hand with each change that moves the result, so that a
            corrected docstring keeps it.

    The versions of the libraries that move numbers are part of the hash.
    """
    libraries = {name: metadata.version(name) for name in LIBRARIES}
    return stable_hash([parts, version, libraries, cv2.__version__])


def cache_dir() -> Path:
    """Where generated data, finished runs and fetched checkpoints live: `ROSSAM_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("ROSSAM_CACHE") or platformdirs.user_cache_dir("rossam")).expanduser().absolute()


def checkpoint_path(name: str) -> Path:
    """Where the official checkpoint of that file name is, or is to go."""
    return cache_dir() / "checkpoints" / name
