"""One cache for everything that is computed once: frames, indices, statistics, scores.

A cached file appears whole or not at all. Processes that need the same file wait for the one that computes it. A
damaged file is computed again, with a warning. Where the cache cannot be written, results are computed each time.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import cv2
import pandas as pd

from rossam_core.files import LIBRARIES, atomic_path, caching, exclusive

T = TypeVar("T")
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error)
"""Raised while a damaged file is read; `ValueError` includes `RossamError`."""


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
    """A table of scores from a compressed CSV file."""
    return pd.read_csv(path, dtype={"video": str, "status": str}, compression="gzip")


def save_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of scores as a compressed CSV file."""
    table.to_csv(path, index=False, compression="gzip")


def versions(code: str) -> dict[str, str]:
    """Versions of the computing code and of the libraries that may change a number."""
    return {"code": code, "opencv": cv2.__version__} | {name: metadata.version(name) for name in LIBRARIES}
