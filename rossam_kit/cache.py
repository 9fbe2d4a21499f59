"""The cache folder: keys of results, writing that may fail, and locks between processes."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import cv2
import filelock

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, stable_hash
from rossam_kit.progress import waiting

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "peft", "scipy", "segment-anything")
"""Packages besides OpenCV, which has several names, whose version may move a number."""


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
