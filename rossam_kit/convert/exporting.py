"""Exports of a conversion, which overwrite no file that was changed since it was exported.

A format is written to a folder of its own, compared with what `exported.json` says of earlier exports, and moved.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, read_sealed, sha256_of, write_sealed
from rossam_kit.convert import editors, exports, geo_exports
from rossam_kit.convert.imports import READERS
from rossam_kit.convert.mask_records import EXPORTED, Conversion

STAGE = ".exporting"
"""Where a format is written before it is moved; as deep as the folder of a format that names images relative to it."""


def export(conversion: Conversion, formats: Iterable[str]) -> list[tuple[str, Path]]:
    """Write each format into the conversion's folder; returns names and places.

    Raises:
        RossamError: a file to be replaced was changed since it was exported; that format is left as it was.
    """
    written, stage = [], conversion.folder / STAGE
    _remove(stage)  # of a killed process
    for name in formats:
        place, write = (exports.EXPORTS | editors.EXPORTS | geo_exports.EXPORTS)[name]
        path = conversion.folder / place
        is_file = bool(path.suffix)
        try:
            write(conversion, stage / path.name if is_file else stage)
            _move(conversion.folder, stage, path.parent if is_file else path, name)
        finally:
            _remove(stage)
        written.append((name, path))
    return written


def _move(folder: Path, stage: Path, home: Path, format: str) -> None:
    """Move all files of `stage` to `home`, below the conversion's folder; those that are there already stay."""
    record = folder / EXPORTED
    known = read_sealed(record).get("files", {}) if record.exists() else {}
    staged = {home / path.relative_to(stage): path for path in sorted(stage.rglob("*")) if path.is_file()}
    new = {path: sha256_of(source) for path, source in staged.items()}
    there = {path: _hash(path) for path in staged if path.exists()}
    names = {path: path.relative_to(folder).as_posix() for path in staged}
    changed = [path for path, found in there.items() if found not in (new[path], *known.get(names[path], ()))]
    if changed:
        more = f", as were {len(changed) - 1:,} more files" if len(changed) > 1 else ""
        first = "import the corrections with `rossam import-masks` and " if format in READERS else ""
        remedy = f"leave --format {format} out; or {first}move what was changed away"
        raise RossamError(changed[0], f"was changed since it was exported{more}; it is not overwritten", remedy)
    # both hashes are noted before the first file is moved: a killed run leaves old and new files
    hashes = {names[path]: sorted({found, there.get(path, found)}) for path, found in new.items()}
    write_sealed(record, {"files": known | hashes})
    for path, source in staged.items():
        if there.get(path) != new[path]:
            with atomic_path(path) as temporary:
                os.replace(source, temporary)


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        finding = f"cannot be read ({error.strerror or error}), to see whether it was changed since it was exported"
        raise RossamError(path, finding, "make it readable, or move it away") from error


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
