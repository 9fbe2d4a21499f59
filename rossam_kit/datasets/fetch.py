"""Datasets and checkpoints: fetching them (`rossam fetch`), and what of them is on disk (`rossam fetch --check`).

Checkpoints go to `ROSSAM_CACHE/checkpoints`, datasets, unpacked, to `ROSSAM_CACHE/data/NAME` with a record of what was
fetched, `.fetched.json`. Either appears under its name only when it is complete and checked.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

import pooch
from safetensors import SafetensorError, safe_open

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import cache_dir, read_json, write_json
from rossam_kit.cache import exclusive
from rossam_kit.datasets.catalogue import (
    Entry,
    Rule,
    Source,
    catalogue,
    entry_named,
    place_of,
    size_text,
    steps_by_hand,
)
from rossam_kit.datasets.download import download, local_path
from rossam_kit.datasets.reading import is_in_use, is_litter
from rossam_kit.datasets.unpack import UNSUPPORTED, check_space, is_archive, unpack
from rossam_kit.progress import track

RECORD = ".fetched.json"
SEARCH_DEPTH = 3
"""A dataset is looked for in a folder and up to this many levels below it."""
UNPACKED_SHARE = 1.2
"""Assumed size of an archive's content over the archive's own, for the check of disk space before a download;
images hardly compress. Before unpacking, the exact size is checked."""
ZENODO_RECORD = "https://zenodo.org/api/records/{}"


@dataclass(frozen=True)
class Status:
    """What is on disk of one entry.

    Attributes:
        state: `ok`; `missing`: nothing of it; `broken`: something, but not all, or not right.
        path: where it is, or is to go.
        details: one line each: counts, hashes, what is wrong.
    """

    name: str
    state: Literal["ok", "missing", "broken"]
    path: Path
    details: tuple[str, ...] = ()


def check(names: Sequence[str] = (), data: Path | None = None) -> list[Status]:
    """What is on disk; nothing is fetched and nothing changed.

    Args:
        names: entries; none means all.
        data: folder that holds the datasets (or one of them), looked through before the cache.
    """
    if data is not None and not data.is_dir():
        raise RossamError(data, "no such folder", "name the folder that holds the datasets")
    return [_check_one(name, entry_named(name), data) for name in names or catalogue()]


def locate(name: str, data: Path | None = None) -> Path | None:
    """The folder of a dataset: below one of its name, or, in `data`, wherever an anchor matches; None: nowhere."""
    anchors = entry_named(name).anchors
    roots = [folder for folder in (data, cache_dir() / "data") if folder is not None and folder.is_dir()]
    named = [folder for root in roots for folder in sorted(root.iterdir()) if _plain(folder.name) == _plain(name)]
    others = {_plain(other) for other in catalogue() if other != name}
    for start in [*named, *([data] if data in roots else [])]:
        for depth in range(SEARCH_DEPTH + 1):
            for folder in [start] if depth == 0 else sorted(start.glob("/".join("*" * depth))):
                parts = folder.relative_to(start).parts
                if others & set(map(_plain, parts)) or any(map(is_litter, parts)) or not folder.is_dir():
                    continue
                if any(next(folder.glob(anchor), None) for anchor in anchors):
                    return folder
    return None


def disk_needed(sources: Sequence[Source]) -> int:
    """Bytes that fetching and unpacking files takes, about."""
    return sum(int(source.bytes * (1 + UNPACKED_SHARE * is_archive(source.name))) for source in sources)


def fetch(names: Sequence[str], *, mirror: str | None = None, confirm: Callable[[str], bool] | None = None) -> bool:
    """Fetch what is not here yet, after printing size and licence.

    Args:
        names: entries of the catalogue.
        mirror: a folder or an address that holds the files under their own names, or below folders named as the
            entries; used instead of the entries' own addresses. Hashes hold all the same.
        confirm: called once with the total size; False stops before anything is fetched.

    Returns:
        Whether everything named is here now. False where steps by hand remain (printed) or `confirm` said no.

    Raises:
        RossamError: unknown name, too little disk space, no address that gives the file, unsafe or damaged archive;
            one entry's failure waits until the others have been fetched.
    """
    wanted, failures, complete = {}, [], True
    for name in dict.fromkeys(names):
        (status,) = check([name])
        if status.state == "ok":
            print(f"{name}: already here, {status.path}")
        elif entry_named(name).by_hand and not (mirror and entry_named(name).files):
            complete = False
            _print_steps(name)
        else:
            try:
                wanted[name] = _sources(name, mirror)
            except RossamError as error:
                failures.append(error)
    if wanted:
        total = _print_plan(wanted)
        if confirm is not None and not confirm(f"Fetch {total}?"):
            print("Nothing was fetched.")
            return False
        check_space(cache_dir(), sum(map(disk_needed, wanted.values())), "fetch this")
    for name, sources in wanted.items():
        try:
            with exclusive(place_of(name)):
                complete &= _fetch_one(name, sources)
        except RossamError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    problems = ProblemList("fetch")
    problems.extend((failure.where, f"{failure.finding}; {failure.remedy}") for failure in failures)
    problems.raise_if_any("what is named above is not here; all else is")
    return complete


def _fetch_one(name: str, sources: Sequence[Source]) -> bool:
    """Fetch an entry into place, unless another process has; whether it is as expected."""
    (status,) = check([name])
    if status.state != "ok":
        waiting, place = cache_dir() / "downloads" / name, place_of(name)
        is_dataset = entry_named(name).kind == "dataset"
        if is_dataset and is_in_use(place) and not (place / RECORD).is_file():
            raise RossamError(place, "was not made by `rossam fetch`", "move it away, or complete it by hand")
        try:
            paths = [download(source.urls, waiting / source.name, source.known_hash or None) for source in sources]
            if is_dataset:
                _unpack_all(sources, paths, place)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(paths[0], place)
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            raise RossamError(place, reason, "free some disk space or set ROSSAM_CACHE elsewhere") from error
        shutil.rmtree(waiting, ignore_errors=True)
        (status,) = check([name])
    text = f"here, {status.path}" if status.state == "ok" else "fetched, but not as expected: "
    print(f"{name}: {text}" + ("" if status.state == "ok" else "; ".join(status.details)))
    return status.state == "ok"


def _unpack_all(sources: Sequence[Source], paths: Sequence[Path], place: Path) -> None:
    """Unpack a dataset's files aside, and rename the folder to `place` when it is complete."""
    staging = place.with_name(f".{place.name}-unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for path in paths:
            if is_archive(path.name):
                unpack(path, staging)
            else:
                staging.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, staging / path.name)
            if path.name.lower().endswith(UNSUPPORTED):
                print(f"{path.name} cannot be opened here; unpack it by hand in {place}")
        files = [{"name": source.name, "urls": source.urls, "hash": source.known_hash} for source in sources]
        members = sorted(path for path in staging.rglob("*") if path.is_file())
        sizes = [[path.relative_to(staging).as_posix(), path.stat().st_size] for path in members]
        write_json(staging / RECORD, {"files": files, "members": sizes}, indent=None)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# ---- what is here


def _unreadable(path: Path) -> str | None:
    """What is wrong with a weights file whose hash is not known, by its header; None: nothing."""
    try:
        with safe_open(path, framework="np"):
            return None
    except (OSError, SafetensorError) as error:
        return f"{path.name}: is no safetensors file, or cut off ({error})"


def _check_one(name: str, entry: Entry, data: Path | None) -> Status:
    place = place_of(name, data)
    begun = sorted((cache_dir() / "downloads" / name).glob("*.part"))
    parts = tuple(f"{path.name}: {path.stat().st_size:,} bytes so far" for path in begun)
    if entry.kind == "checkpoint":
        if not place.is_file():
            return Status(name, "missing", place, parts)
        known = entry.files[0].known_hash
        wrong = _wrong_hash(place, known) if known else _unreadable(place)
        right = f"{place.stat().st_size:,} bytes, {'hash as stated' if known else 'its hash is not known'}"
        return Status(name, "broken" if wrong else "ok", place, (wrong or right,))
    base = locate(name, data)
    if base is None:
        if is_in_use(place):
            return Status(name, "broken", place, (f"holds none of {', '.join(entry.anchors)}", *parts))
        return Status(name, "missing", place, parts)
    results = [_check_rule(rule, base) for rule in entry.layout]
    changed = tuple(_changed_members(base))
    is_right = all(right for right, _ in results) and not changed
    return Status(name, "ok" if is_right else "broken", base, (*(line for _, line in results), *changed))


def _check_rule(rule: Rule, base: Path) -> tuple[bool, str]:
    """Whether a folder follows a rule of the layout, and a line about it."""
    paths = list(_matches(rule, base))
    empty = [path for path in paths if path.is_file() and path.stat().st_size == 0]
    expected = f" of {rule.count:,}" if rule.count else ""
    line, right = f"{len(paths):,}{expected} {rule.what}", True
    if rule.needed and (len(paths) != rule.count if rule.count else not paths):
        right, line = False, f"{line}  <- {rule.globs[0]}"
    if empty:
        right, line = False, f"{line}; {len(empty):,} empty, e.g. {empty[0].relative_to(base)}"
    if rule.md5 and paths:
        wrong = _wrong_hash(paths[0], f"md5:{rule.md5}")
        right, line = right and not wrong, line + (f"; {wrong}" if wrong else ", md5 as stated")
    return right, line


def _matches(rule: Rule, base: Path) -> Iterator[Path]:
    for pattern in rule.globs:
        folder = base.parent if pattern.startswith("../") else base
        paths = sorted(folder.glob(pattern.removeprefix("../")))
        yield from (path for path in paths if not any(map(is_litter, path.relative_to(folder).parts)))


def _changed_members(base: Path) -> Iterator[str]:
    """A line about files that are no longer as they were unpacked."""
    folder = next((f for f in [base, *base.parents][: SEARCH_DEPTH + 1] if (f / RECORD).is_file()), None)
    changed = []
    for name, size in read_json(folder / RECORD)["members"] if folder else ():
        path = folder / name
        if not path.is_file():
            changed.append(f"{name} is gone")
        elif path.stat().st_size != size:
            changed.append(f"{name} holds {path.stat().st_size:,} bytes, {size:,} were unpacked")
    if changed:
        yield f"{len(changed):,} files are not as unpacked: {changed[0]}" + (", …" if len(changed) > 1 else "")


def _wrong_hash(path: Path, known_hash: str) -> str | None:
    algorithm, expected = known_hash.split(":")
    measured = pooch.file_hash(path, alg=algorithm)
    size = f"{path.stat().st_size:,} bytes"
    return None if measured == expected else f"{algorithm} is {measured}, expected {expected} ({size})"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


# ---- what there is to fetch


def _print_steps(name: str) -> None:
    entry = entry_named(name)
    print(f"{name}: {entry.title}; licence: {entry.licence}\n  Its authors serve it from a page only:")
    for number, step in enumerate(steps_by_hand(name), start=1):
        print(f"  {number}. {step}")
    print(f"  Then check what is there: rossam fetch --check {name}")


def _print_plan(wanted: dict[str, list[Source]]) -> str:
    """Print what will be fetched; the total size as text."""
    for name, sources in wanted.items():
        entry, size = entry_named(name), size_text(sum(source.bytes for source in sources))
        print(f"{name}: {entry.title}\n  {size}; licence: {entry.licence}\n  {entry.page}")
        print(f"  {', '.join(source.name for source in sources)}\n  to {place_of(name)}")
    return size_text(sum(source.bytes for sources in wanted.values() for source in sources))


def _sources(name: str, mirror: str | None) -> list[Source]:
    """The files of an entry with the addresses to use."""
    entry, folder = entry_named(name), None
    if mirror is not None and (local_path(mirror) is not None or "://" not in mirror):
        folder = (local_path(mirror) or Path(mirror).expanduser()).resolve()
    sources, root = list(entry.files), folder.as_uri() if folder is not None else (mirror or "").rstrip("/")
    if entry.zenodo is not None:
        if folder is not None:
            return _files_of(folder / name if (folder / name).is_dir() else folder, entry)
        sources = _zenodo_files(f"{root}/{entry.zenodo}.json" if mirror else ZENODO_RECORD.format(entry.zenodo))
    if mirror is None:
        return sources
    return [
        source.model_copy(update={"urls": (f"{root}/{quote(source.name)}", f"{root}/{name}/{quote(source.name)}")})
        for source in sources
    ]


def _files_of(folder: Path, entry: Entry) -> list[Source]:
    """The files in a mirror's folder, for an entry whose own listing is out of reach."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [path for path in paths if path.is_file() and not is_litter(path.name)]
    paths = [path for path in paths if is_archive(path.name) or path.suffix == ".xlsx"]
    if not paths:
        raise RossamError(folder, "no such folder, or no archive in it", f"put what {entry.page} holds there")
    return [
        Source(name=path.name, urls=(path.as_uri(),), bytes=path.stat().st_size, sha256=pooch.file_hash(path))
        for path in track(paths, desc=f"hash files in {folder}")
    ]


def _zenodo_files(url: str) -> list[Source]:
    """Names, sizes, md5 and addresses from a record's listing (InvenioRDM's JSON)."""
    remedy = "fetch its files by hand and use --from FOLDER"
    with tempfile.TemporaryDirectory() as folder:
        text = download([url], Path(folder) / "record.json", None).read_text(encoding="utf-8", errors="replace")
    try:
        sources = [
            Source(
                name=file["key"],
                urls=(file["links"]["self"],),
                bytes=file["size"],
                md5=file["checksum"].removeprefix("md5:"),
            )
            for file in json.loads(text)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RossamError(url, f"is not the listing of a record ({error!r})", remedy) from error
    for source in sources:
        if PurePosixPath(source.name).name != source.name or source.name.startswith(".") or "\\" in source.name:
            raise RossamError(url, f"lists {source.name!r}, which is no plain file name", "do not use this source")
    if not sources:
        raise RossamError(url, "lists no files", remedy)
    return sources
