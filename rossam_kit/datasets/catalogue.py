"""The catalogue of datasets and checkpoints: `rossam_core/weights/downloads.yaml`, checked, and lookups in it."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field
from tqdm import tqdm

from rossam_core.errors import RossamError
from rossam_core.files import DOWNLOADS, cache_dir, checkpoint_path
from rossam_core.settings import Config, parse_config


class Source(Config):
    """One file to fetch."""

    name: str
    urls: tuple[str, ...] = ()
    """Addresses of the same file, tried in this order; none of a checkpoint that is got by hand."""
    bytes: int
    """Rounded where no source states it, 0 where it is not known: for the user and the disk; the hash decides."""
    md5: str | None = None
    sha256: str | None = None

    @property
    def known_hash(self) -> str:
        """`sha256:…` or `md5:…`, as pooch takes it; empty where it is not known."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else ""


class Rule(Config):
    """Something a dataset's folder must hold."""

    what: str
    globs: tuple[str, ...]
    """Patterns below the dataset's folder; `../` at the start means beside it."""
    count: int | None = None
    """How many there are, where it is published; otherwise at least one is expected."""
    md5: str | None = None
    needed: bool = True
    """False: counted, but may be absent."""


class Entry(Config):
    """A dataset or checkpoint of the catalogue."""

    title: str
    kind: Literal["checkpoint", "dataset"]
    licence: str
    page: str
    backbone: str | None = None
    """The backbone whose default checkpoint this is."""
    hq: bool = False
    """Whether it is that of methods with HQ-SAM's decoder."""
    files: tuple[Source, ...] = ()
    zenodo: str | None = None
    """Number of a Zenodo record whose listing names the files."""
    by_hand: tuple[str, ...] = ()
    """What to do where no address serves the files."""
    anchors: tuple[str, ...] = ()
    """Patterns any of which, matching below a folder, makes it the dataset's."""
    layout: tuple[Rule, ...] = ()

    @property
    def bytes(self) -> int | None:
        """Size of all files; None where a listing elsewhere or the steps by hand name them."""
        return sum(source.bytes for source in self.files) or None


class _Catalogue(Config):
    entries: dict[str, Entry] = Field(default_factory=dict)


@functools.cache
def catalogue() -> dict[str, Entry]:
    """All entries by name, in the order of the file."""
    values = yaml.safe_load(DOWNLOADS.read_text(encoding="utf-8"))
    return parse_config(_Catalogue, {"entries": values}, where=DOWNLOADS).entries


def entry_named(name: str) -> Entry:
    """The entry of that name; an unknown one is a `RossamError` that names the nearest."""
    entries = catalogue()
    if name not in entries:
        near = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RossamError(
            f"fetch {name}", "no dataset or checkpoint of that name", f"{hint}known: {', '.join(entries)}"
        )
    return entries[name]


def steps_by_hand(name: str, data: Path | None = None) -> list[str]:
    """What to do, one step each, for an entry that is not served by address; empty for all others."""
    entry = entry_named(name)
    if not entry.by_hand:
        return []
    return [f"Page: {entry.page}", *(step.replace("{place}", str(place_of(name, data))) for step in entry.by_hand)]


def place_of(name: str, data: Path | None = None) -> Path:
    """Where an entry is, or is to go: in the cache, a dataset in `data` where that is given."""
    entry = entry_named(name)
    if entry.kind == "checkpoint":
        return checkpoint_path(entry.files[0].name)
    return (data or cache_dir() / "data") / name


def size_text(size: int | None) -> str:
    """`1249524607` → `1.25GB`."""
    return "size unknown" if size is None else f"{tqdm.format_sizeof(size)}B"
