"""The cache: everything that is computed once (frames, indices, statistics, scores), its keys and its locks.

A cached file appears whole or not at all. Processes that need the same file wait for the one that computes it. A
damaged file is computed again, with a warning. Where the cache cannot be written, results are computed each time.
"""

from __future__ import annotations

import contextlib
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import cv2
import filelock
import pandas as pd

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, cache_dir, stable_hash
from rossam_kit.progress import waiting

T = TypeVar("T")
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "peft", "scipy", "segment-anything")
"""Packages besides OpenCV, which has several names, whose version may move a number."""
TEXTS = ("protocol", "video", "category", "size_bin", "status", "mask", "disturbance")
"""Columns of a table of scores that hold texts, whatever they look like."""
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error)
"""Raised while a damaged file is read; `ValueError` includes `RossamError`."""


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
def exclusive(path: str | os.PathLike, reason: str = "") -> Iterator[None]:
    """Hold an exclusive lock on `path`, a file or folder that may not exist yet.

    The operating system holds the lock, on an empty file `.NAME.lock` beside `path`, and releases it when the process
    dies. A process that has waited must check whether there is still something to do. A thread that holds the lock may
    take it again. There is no lock where the folder cannot be written or its file system has no locks.

    Args:
        reason: what a process that waits says.
    """
    path = Path(path)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            with waiting(reason or f"waiting for another process to make {path.name[:16]}"):
                lock.acquire()
    try:
        yield
    finally:
        lock.release()


def exclusive_folder(folder: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """Hold an exclusive lock on a user's folder of results; its file is in the cache, so that the folder has no other
    files than the results."""
    place = Path(os.path.realpath(folder))
    return exclusive(cache_dir() / "locks" / stable_hash(str(place)), f"waiting: another process works in {place}")


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


def versions(code: str) -> dict[str, str]:
    """Versions of the computing code and of the libraries that may change a number."""
    return {"code": code, "opencv": cv2.__version__} | {name: metadata.version(name) for name in LIBRARIES}


def cached(path: Path, compute: Callable[[], T], *, load: Callable[[Path], T], save: Callable[[Path, T], Any]) -> T:
    """The value stored at `path`, computed and stored first where it is missing or damaged.

    Args:
        path: names everything that the value depends on, as a rule by a hash.
        compute: makes the value.
        load: reads it; raises one of `DAMAGE` if the file is not usable.
        save: writes it to a temporary path, which is then renamed.
    """
    if path.exists() and (content := _intact(path, load)) is not None:
        return content
    with exclusive(path):
        if path.exists() and (content := _intact(path, load, quiet=True)) is not None:  # another process made it
            return content
        value = compute()
        with caching():
            with atomic_path(path) as temporary:
                save(temporary, value)
            return load(path)  # so that the first call returns the same as later ones
        return value


def _intact(path: Path, load: Callable[[Path], T], quiet: bool = False) -> T | None:
    try:
        return load(path)
    except DAMAGE as error:
        if not quiet:
            warnings.warn(f"{path} is damaged and is computed again: {error}", stacklevel=3)
        return None


def load_table(path: Path) -> pd.DataFrame:
    """A table of scores from a CSV file, compressed where its name ends in `.gz`.

    Only an empty cell is a missing value: a video may be called NA.
    """
    texts = dict.fromkeys(TEXTS, str)
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""], encoding_errors="surrogateescape")


def save_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of scores as a compressed CSV file."""
    table.to_csv(path, index=False, compression="gzip", errors="surrogateescape")
