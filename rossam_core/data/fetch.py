"""Datasets and checkpoints: what there is, bringing it here, and saying what is here (`rossam fetch`).

In: names from `configs/downloads.yaml`. Out: checkpoints in `ROSSAM_CACHE/checkpoints`, datasets unpacked in
`ROSSAM_CACHE/data/NAME`, each with a record of what was fetched, `.fetched.json`; for what its authors serve by
page only, the steps to do by hand. Nothing is written into the repository.

A dataset appears under its name only when all of its files are there, checked and unpacked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from ..errors import ProblemList, RossamError
from ..files import cache_dir, read_json, write_json
from .catalogue import Entry, Rule, Source, catalogue, entry_named, place_of, size_text, steps_by_hand
from .download import Patience, download, hash_of, local_path, read_text, side_file
from .unpack import FOREIGN, check_space, is_archive, unpack

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


# ---- what is here


def check(names: Sequence[str] = (), data: Path | None = None) -> list[Status]:
    """Look at what is on disk; nothing is fetched and nothing changed.

    Args:
        names: entries; none means all.
        data: folder that holds the datasets (or one of them), looked through before the cache.
    """
    if data is not None and not data.is_dir():
        raise RossamError(data, "no such folder", "name the folder that holds the datasets")
    return [_check_one(name, entry_named(name), data) for name in names or catalogue()]


def locate(name: str, data: Path | None = None) -> Path | None:
    """The folder a dataset of the catalogue lies in: in or below `data`, else in the cache; None where in neither."""
    return _find(name, entry_named(name), data)


def _check_one(name: str, entry: Entry, data: Path | None) -> Status:
    if entry.kind == "checkpoint":
        return _check_checkpoint(name, entry)
    base = _find(name, entry, data)
    if base is None:
        place = place_of(name, data)
        waiting = cache_dir() / "downloads" / name
        parts = tuple(f"{p.name}: {p.stat().st_size:,} bytes so far" for p in sorted(waiting.glob("*.part")))
        if place.is_dir() and any(place.iterdir()):
            return Status(name, "broken", place, (f"holds none of {', '.join(entry.anchors)}", *parts))
        return Status(name, "missing", place, parts)
    problems, details = False, []
    for rule in entry.layout:
        right, line = _check_rule(rule, base)
        problems |= not right
        details.append(line)
    for line in _check_record(base):
        problems = True
        details.append(line)
    return Status(name, "broken" if problems else "ok", base, tuple(details))


def _check_checkpoint(name: str, entry: Entry) -> Status:
    (source,) = entry.files
    path = cache_dir() / "checkpoints" / source.name
    if not path.is_file():
        part = path.with_name(path.name + ".part")
        begun = (f"{part.stat().st_size:,} bytes so far; `rossam fetch {name}` goes on",) if part.is_file() else ()
        return Status(name, "missing", path, begun)
    known = source.known
    if not known.hashed and side_file(path).is_file():
        known = replace(known, sha256=side_file(path).read_text(encoding="utf-8").split()[0])
    mismatch = known.mismatch(path)
    if mismatch:
        return Status(name, "broken", path, (mismatch,))
    return Status(
        name, "ok", path, (f"{path.stat().st_size:,} bytes, hash {'as stated' if known.hashed else 'unknown'}",)
    )


def _check_rule(rule: Rule, base: Path) -> tuple[bool, str]:
    paths = list(_matches(rule, base))
    empty = [path for path in paths if path.is_file() and path.stat().st_size == 0]
    expected = f" of {rule.count:,}" if rule.count else ""
    line, right = f"{len(paths):,}{expected} {rule.what}", True
    if rule.needed and (len(paths) != rule.count if rule.count else not paths):
        right, line = False, f"{line}  <- {rule.globs[0]}"
    if empty:
        right, line = False, f"{line}; {len(empty):,} empty, e.g. {empty[0].relative_to(base)}"
    if rule.md5 and paths:
        measured = hash_of(paths[0], "md5")
        right &= measured == rule.md5
        line += ", md5 as stated" if measured == rule.md5 else f"; md5 is {measured}, expected {rule.md5}"
    return right, line


def _matches(rule: Rule, base: Path) -> Iterator[Path]:
    for pattern in rule.globs:
        above = pattern.startswith("../")
        yield from sorted((base.parent if above else base).glob(pattern.removeprefix("../")))


def _check_record(base: Path) -> Iterator[str]:
    """What is no longer as it was unpacked."""
    folder = next((f for f in [base, *base.parents][: SEARCH_DEPTH + 1] if (f / RECORD).is_file()), None)
    if folder is None:
        return
    wrong = []
    for name, size in read_json(folder / RECORD)["members"]:
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is gone")
        elif path.stat().st_size != size:
            wrong.append(f"{name} holds {path.stat().st_size:,} bytes, {size:,} were unpacked")
    if wrong:
        yield f"{len(wrong):,} files are not as unpacked: {wrong[0]}" + (", …" if len(wrong) > 1 else "")


def _find(name: str, entry: Entry, data: Path | None) -> Path | None:
    """The dataset's folder: below one of its name, or, in `data`, wherever an anchor matches."""
    roots = [folder for folder in (data, cache_dir() / "data") if folder is not None and folder.is_dir()]
    named = [folder for root in roots for folder in sorted(root.iterdir()) if _plain(folder.name) == _plain(name)]
    others = {_plain(other) for other in catalogue() if other != name}
    for start in [*named, *([data] if data is not None and data.is_dir() else [])]:
        for depth in range(SEARCH_DEPTH + 1):
            for folder in [start] if depth == 0 else sorted(start.glob("/".join("*" * depth))):
                if others & {_plain(part) for part in folder.relative_to(start).parts} or not folder.is_dir():
                    continue
                if any(next(folder.glob(anchor), None) for anchor in entry.anchors):
                    return folder
    return None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


# ---- bringing it here


def fetch(
    names: Sequence[str],
    *,
    mirror: str | None = None,
    confirm: Callable[[str], bool] = lambda question: True,
    patience: Patience | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Fetch what is not here yet, after telling size and licence.

    Args:
        names: entries of the catalogue.
        mirror: a folder or an address that holds the files under their own names, or below folders named as the
            entries; asked instead of the entries' own addresses. Hashes hold all the same.
        confirm: asked once with the total size; False stops before anything is fetched.
        say: takes lines for the user.

    Returns:
        Whether everything named is here now. False where steps by hand remain (they are told) or `confirm` said no.

    Raises:
        RossamError: unknown name, too little disk space, no address that gives the file, unsafe or damaged archive.
    """
    entries = {name: entry_named(name) for name in dict.fromkeys(names)}
    here = {status.name: status for status in check(list(entries))} if entries else {}
    wanted, failures, complete = {}, [], True
    for name, entry in entries.items():
        if here[name].state == "ok":
            say(f"{name}: already here, {here[name].path}")
        elif entry.by_hand:
            complete = False
            _tell_steps(name, entry, say)
        else:
            with _kept_in(failures):
                wanted[name] = _sources(name, entry, mirror, patience)
    if wanted:
        total = _tell_plan(entries, wanted, say)
        if not confirm(f"Fetch {total}?"):
            say("Nothing was fetched.")
            return False
        needed = sum(_disk_needed(source) for files in wanted.values() for source in files)
        check_space(cache_dir(), needed, "fetch this")
    for name, sources in wanted.items():
        with _kept_in(failures):
            if entries[name].kind == "checkpoint":
                path = place_of(name)
                download(sources[0].urls, path, sources[0].known, patience=patience, say=say)
            else:
                path = _fetch_dataset(name, sources, patience, say)
            say(f"{name}: here, {path}")
    _raise_all(failures)
    datasets = [name for name in wanted if entries[name].kind == "dataset"]  # checkpoints were hashed on their way
    unsound = [status for status in (check(datasets) if datasets else []) if status.state != "ok"]
    for status in unsound:
        say(f"{status.name}: fetched, but not as expected: " + "; ".join(status.details))
    return complete and not unsound


@contextlib.contextmanager
def _kept_in(failures: list[RossamError]) -> Iterator[None]:
    """One entry's failure waits until the others have been fetched."""
    try:
        yield
    except RossamError as error:
        failures.append(error)


def _raise_all(failures: Sequence[RossamError]) -> None:
    if len(failures) == 1:
        raise failures[0]
    problems = ProblemList("fetch")
    problems.extend((failure.where, f"{failure.found}; {failure.remedy}") for failure in failures)
    problems.raise_if_any("what is named above is not here; all else is")


def _tell_steps(name: str, entry: Entry, say: Callable[[str], None]) -> None:
    say(f"{name}: {entry.title}; licence: {entry.licence}")
    say("  Its authors serve it from a page only:")
    for number, step in enumerate(steps_by_hand(name), start=1):
        say(f"  {number}. {step}")
    say(f"  Then look at what is there: rossam fetch --check {name}")


def _tell_plan(entries: dict[str, Entry], wanted: dict[str, list[Source]], say: Callable[[str], None]) -> str:
    for name, sources in wanted.items():
        sizes = [source.weight for source in sources]
        about = "" if all(source.bytes for source in sources) else "about "
        text = size_text(None) if None in sizes else about + size_text(sum(sizes))
        say(f"{name}: {entries[name].title}\n  {text}; licence: {entries[name].licence}\n  {entries[name].page}")
        say("  " + ", ".join(source.name for source in sources))
        say(f"  to {place_of(name)}")
    sizes = [source.weight for sources in wanted.values() for source in sources]
    return size_text(sum(size or 0 for size in sizes)) + (" and what has no known size" if None in sizes else "")


def disk_needed(name: str) -> int | None:
    """Bytes that fetching and unpacking an entry takes; None where a file's size is not known before."""
    files = entry_named(name).files
    return sum(_disk_needed(file) for file in files) if entry_named(name).weight else None


def _disk_needed(source: Source) -> int:
    weight = source.weight or 0
    return int(weight * (1 + UNPACKED_SHARE)) if is_archive(source.name) else weight


def _sources(name: str, entry: Entry, mirror: str | None, patience: Patience | None) -> list[Source]:
    """The files of an entry with the addresses to ask."""
    folder = _mirror_folder(mirror)
    if entry.zenodo is not None and folder is not None:
        return _files_of(folder, name, entry)
    sources = list(entry.files)
    if entry.zenodo is not None:
        url = f"{mirror.rstrip('/')}/{entry.zenodo}.json" if mirror else ZENODO_RECORD.format(entry.zenodo)
        sources = _zenodo_files(read_text(url, patience), url)
    if mirror is None:
        return sources
    root = folder.resolve().as_uri() if folder is not None else mirror.rstrip("/")
    return [
        s.model_copy(update={"urls": (f"{root}/{quote(s.name)}", f"{root}/{name}/{quote(s.name)}")}) for s in sources
    ]


def _mirror_folder(mirror: str | None) -> Path | None:
    if mirror is None or (local_path(mirror) is None and "://" in mirror):
        return None
    return local_path(mirror) or Path(mirror).expanduser()


def _files_of(folder: Path, name: str, entry: Entry) -> list[Source]:
    """The files lying in a mirror's folder, for an entry whose own listing is out of reach."""
    folder = folder / name if (folder / name).is_dir() else folder
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [p for p in paths if p.is_file() and (is_archive(p.name) or p.suffix == ".xlsx")]
    if not paths:
        raise RossamError(folder, "no such folder, or no archive in it", f"put what {entry.page} holds there")
    return [Source(name=p.name, urls=(p.resolve().as_uri(),), bytes=p.stat().st_size) for p in paths]


def _zenodo_files(text: str, where: str) -> list[Source]:
    """Names, sizes, md5 and addresses from a record's listing (InvenioRDM's JSON)."""
    try:
        files = json.loads(text)["files"]
        sources = [
            Source(
                name=file["key"],
                urls=(file["links"]["self"],),
                bytes=file["size"],
                md5=file["checksum"].removeprefix("md5:"),
            )
            for file in files
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RossamError(
            where, f"is not the listing of a record ({error!r})", "fetch its files by hand and use --from FOLDER"
        ) from error
    for source in sources:
        if PurePosixPath(source.name).name != source.name or source.name.startswith(".") or "\\" in source.name:
            raise RossamError(where, f"lists {source.name!r}, which is no plain file name", "do not use this source")
    if not sources:
        raise RossamError(where, "lists no files", "fetch them by hand and use --from FOLDER")
    return sources


def _fetch_dataset(name: str, sources: Sequence[Source], patience: Patience | None, say: Callable[[str], None]) -> Path:
    """Download all files, unpack them aside, and let the folder take its name."""
    target = cache_dir() / "data" / name
    if target.exists() and any(target.iterdir()) and not (target / RECORD).is_file():
        raise RossamError(
            target, "exists, but was not made by `rossam fetch`", "move it away, or complete it by hand and use --check"
        )
    waiting = cache_dir() / "downloads" / name
    hashes = {
        source.name: download(source.urls, waiting / source.name, source.known, patience=patience, say=say)
        for source in sources
        if not _already(waiting / source.name, source)
    }
    staging = target.with_name(f".{name}-unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for source in sources:
            if is_archive(source.name):
                unpack(waiting / source.name, staging)
            else:
                staging.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(waiting / source.name, staging / source.name)
            if source.name.lower().endswith(FOREIGN):
                say(f"{source.name} is of a kind that is not opened here; unpack it by hand in {target}")
        members = sorted(path for path in staging.rglob("*") if path.is_file())
        record = {
            "files": [
                {"name": s.name, "urls": s.urls, "sha256": hashes.get(s.name) or hash_of(waiting / s.name, "sha256")}
                for s in sources
            ],
            "members": [[path.relative_to(staging).as_posix(), path.stat().st_size] for path in members],
        }
        write_json(staging / RECORD, record, indent=None)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
    except OSError as error:
        raise RossamError(target, f"cannot be written: {error.strerror or error}", "free some disk space") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for path in waiting.iterdir():
        if path.suffix != ".sha256":  # which stays as the only word on files whose hash nobody states
            path.unlink()
    return target


def _already(path: Path, source: Source) -> bool:
    """Whether an earlier, interrupted run has fetched this file."""
    return path.is_file() and (source.known.hashed or source.bytes is not None) and source.known.mismatch(path) is None
