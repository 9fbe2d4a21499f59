"""Checklist of a profile: what it needs, what of it is here, what would be computed and why.

Nothing is fetched, rendered or trained. Datasets that are here are read, and their indices are cached for the run.
"""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from rossam_core.errors import RossamError
from rossam_core.model.weights import SHIPPED
from rossam_kit.config import OWN_SOURCES, DataConfig, Profile
from rossam_kit.datasets import fetch
from rossam_kit.datasets.catalogue import catalogue, entry_named, size_text, steps_by_hand
from rossam_kit.datasets.loading import load_frames, scored_split
from rossam_kit.datasets.synthetic.video import is_generated
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.experiments.planning import (
    datasets,
    datasets_of_tables,
    goes_without,
    missing_datasets,
    needs,
    planned_runs,
    reason_to_compute,
    shown_tables,
    source_of,
    waits_for,
)
from rossam_kit.report import runner

MARKS = {"ok": "[x]", "broken": "[!]", "missing": "[ ]"}
WIDTH, NAME_WIDTH = 110, 24


@dataclass
class Checklist:
    """Lines in order, and what is left to do."""

    lines: list[str] = field(default_factory=list)
    to_fetch: list[str] = field(default_factory=list)
    """Names for `rossam fetch`."""
    by_hand: list[str] = field(default_factory=list)
    """Datasets that must be placed by hand."""
    problems: list[str] = field(default_factory=list)
    """Anything else that stands in the way, one line each."""

    @property
    def is_complete(self) -> bool:
        return not (self.to_fetch or self.by_hand or self.problems)

    def add(self, *lines: str) -> None:
        """Add lines, long ones broken; what follows a break is indented further."""
        for line in lines:
            self.lines += _wrapped(line, len(line) - len(line.lstrip()) + 3) if len(line) > WIDTH else [line]

    def item(self, state: str, name: str, text: str, *details: str) -> None:
        head = f"  {MARKS[state]} {name:<{NAME_WIDTH}}"
        self.lines += _wrapped(head + text, len(head))
        self.add(*(f"      {line}" for line in details))


def _wrapped(line: str, indent: int) -> list[str]:
    """Lines of at most `WIDTH`, paths and names whole; all but the first begin with `indent` blanks."""
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def checklist(profile: Profile, *, command: str = "") -> Checklist:
    """All that stands between this machine and the profile's report.

    Args:
        command: the options that name the profile, for the commands shown (`--profile paper --data /data`).
    """
    page, experiments = Checklist(), Experiments(profile)
    page.add(f"Dry run of the profile {profile.name}: {profile.title}", "", "Data")
    frames = _data(page, experiments)
    page.add("", "Weights")
    _weights(page, experiments)
    page.add("", f"Disk ({experiments.cache})")
    _disk(page, experiments.cache)
    page.add("", "Notebooks, in this order")
    _notebooks(page, profile)
    page.add("", "Fine-tuning runs, each once for all tables that share it")
    _runs(page, experiments, frames)
    page.add("", "Rows of tables, and why they would be computed")
    _rows(page, experiments, frames)
    page.add("", "To do")
    missing = missing_datasets(profile)
    _to_do(
        page, command, any(not waits_for(profile, name, missing) for name in profile.notebooks if needs(profile, name))
    )
    return page


# --- what is here -----------------------------------------------------------------------------------------------------


def _data(page: Checklist, experiments: Experiments) -> dict[str, int]:
    """List every dataset; returns the number of training frames of those that are here and shown in tables."""
    trains, counts = datasets_of_tables(experiments.profile), {}
    for name, data in datasets(experiments.profile).items():
        splits = ("train", "val", "test") if trains.get(name) else (scored_split(data),)
        if data.source == "synthetic":
            is_here = all(is_generated(data.synthetic, split, experiments.cache / "synthetic") for split in splits)
            text = "rendered in the cache" if is_here else "rendered at the first use, nothing to get"
            page.item("ok", "generated frames", f"{text} (for {name})")
        else:
            is_here = data.source in OWN_SOURCES or _catalogued(page, data.source, data.root)
        if is_here and name in trains:
            _read_dataset(page, name, data, trains[name], counts)
    return counts


def _read_dataset(page: Checklist, name: str, data: DataConfig, trains: bool, counts: dict[str, int]) -> None:
    """Read a dataset's splits, list them, and add its number of training frames to `counts`."""
    scored = scored_split(data)
    names = dict.fromkeys(("train", scored) if trains else (scored,))
    try:
        splits = {split: load_frames(data, split) for split in names}
    except RossamError as error:
        page.problems.append(f"{data.source}: {error}")
        page.add(f"      cannot be read: {error.finding.splitlines()[0]}")
        return
    for split, frames in splits.items():
        videos, objects = len(frames.videos), frames.object_count
        page.add(f"      {split}: {len(frames):,} frames of {videos:,} videos or images, {objects:,} objects")
    train = len(splits.get("train", ()))
    counts[name] = train if scored == "test" else round(0.9 * train)  # a tenth is held out


def _catalogued(page: Checklist, name: str, root: Path | None = None) -> bool:
    """List an entry of the catalogue, and how to get it; returns whether anything of it is there."""
    here = root if root is not None and root.is_dir() else None
    (status,) = fetch.check([name], here)
    if root is not None and here is None:
        status = fetch.Status(name, "missing", root, ("no such folder",))
    entry, steps = entry_named(name), steps_by_hand(name, root)
    words = {"ok": "here", "broken": "here, but not as published", "missing": "missing"}[status.state]
    page.item(status.state, name, f"{words}: {entry.title}", f"{status.path}", *status.details)
    if status.state == "ok":
        return True
    if status.state == "broken" and entry.kind == "dataset":
        page.add("      if more was meant to be there, complete or replace it:")
    if steps:
        page.by_hand.append(name)
        page.add(*(f"      {number}. {step}" for number, step in enumerate(steps, start=1)))
    else:
        page.to_fetch.append(name)
        size = size_text(entry.bytes) if entry.bytes else "size shown before it starts"
        page.add(f"      get it: rossam fetch {name}   ({size}; {entry.licence})")
    return status.state == "broken"


def _weights(page: Checklist, experiments: Experiments) -> None:
    """List the weights that networks start from."""
    settings = experiments.profile.model
    methods = {row.method for table in experiments.tables for row in experiments.specs[table].rows}
    others = {"sam2": settings.sam2_backbone, "sam3": "sam3"}
    for backbone in [settings.backbone, *(name for method, name in others.items() if method in methods)]:
        own_file = Path(settings.checkpoint or "") if backbone == settings.backbone else Path("default")
        if settings.checkpoint is None:
            page.item("ok", backbone, "fresh weights (model.checkpoint is null): no prior to be had")
        elif own_file != Path("default"):
            page.item("ok" if own_file.exists() else "missing", backbone, settings.checkpoint)
            if not own_file.exists():
                page.problems.append(f"{settings.checkpoint}: no such weights file; correct model.checkpoint")
        elif backbone in SHIPPED:
            there = SHIPPED[backbone].is_file()
            page.item("ok" if there else "missing", backbone, "shipped with the package", str(SHIPPED[backbone]))
            page.problems += [] if there else [f"{SHIPPED[backbone]} is not there: install the package anew"]
        else:
            names = [name for name, entry in catalogue().items() if entry.backbone == backbone]
            for name in names:
                if not _catalogued(page, name) and backbone == "sam3":
                    page.by_hand.remove(name)
                    page.add("      not needed: without it, its row is left out, with the reason")
            if not names:
                page.problems.append(f"model: {backbone} has no official weights; name another, or model.checkpoint")


def _disk(page: Checklist, cache: Path) -> None:
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    entries = {name: entry_named(name) for name in [*page.to_fetch, *page.by_hand]}
    sizes = {name: fetch.disk_needed(entry.files) if entry.bytes else None for name, entry in entries.items()}
    needed = sum(size or 0 for size in sizes.values())
    unknown = [name for name, size in sizes.items() if size is None]
    to_get = f"about {size_text(needed)} to fetch and unpack what is missing and has a known size"
    page.add(f"  {size_text(free)} free; {to_get}")
    if unknown:
        page.add(f"  not counted, since their size is not published: {', '.join(unknown)}")
    if needed > free:
        lack = f"{size_text(needed)} needed, {size_text(free)} free"
        page.problems.append(f"disk: {lack}; ROSSAM_CACHE names a folder on another disk")


# --- what would run ---------------------------------------------------------------------------------------------------


def _notebooks(page: Checklist, profile: Profile) -> None:
    missing = missing_datasets(profile)
    for name in profile.notebooks:
        if not (runner.NOTEBOOKS / f"{name}.ipynb").exists():
            page.item("missing", name, "no such notebook")
            page.problems.append(f"notebooks: {name} is not in {runner.NOTEBOOKS}; correct the profile's list")
        elif lacking := waits_for(profile, name, missing):
            page.item("missing", name, f"waits for {', '.join(lacking)}")
        else:
            without = goes_without(profile, name, missing)
            page.item("ok", name, "its data is here" + (f", but for {', '.join(without)}" if without else ""))


def _runs(page: Checklist, experiments: Experiments, frames: dict[str, int]) -> None:
    runs, profile = planned_runs(experiments, frames), experiments.profile
    for run in runs:
        views = f"{run.views:,} views" if run.views else "views unknown until the data is here"
        page.add(f"  {run.label:<58}{source_of(profile, run.dataset)}, {run.frames:,} frames, {views}")
    if not runs:
        page.add("  none: no notebook of this profile shows a fine-tuned row")
        return
    seeds = ", ".join(map(str, profile.seeds))
    page.add(f"  {len(runs)} runs, {sum(run.views for run in runs):,} views in all (seeds {seeds})")
    sources = {data.source for name, data in datasets(profile).items() if name not in frames}
    if sources - {"synthetic"}:
        page.add("  frames: as published where the data is not here")


def _rows(page: Checklist, experiments: Experiments, frames: dict[str, int]) -> None:
    """Count cached rows of each table, and list the others with the reason to compute them."""
    for table, spec, name in shown_tables(experiments):
        rows = [row for row in spec.rows if row.label not in experiments.left_out(table)]
        if name not in frames:
            page.add(f"  {table}: {len(rows)} rows to compute: its frames are not here yet")
            continue
        try:
            reasons = {row.label: reason_to_compute(experiments.on(spec.dataset), row) for row in rows}
        except RossamError as error:
            page.add(f"  {table}: {len(rows)} rows to compute ({error.where}: {error.finding.splitlines()[0]})")
            continue
        missing = {label: reason for label, reason in reasons.items() if reason}
        page.add(f"  {table}: {len(rows) - len(missing)} of {len(rows)} rows cached")
        page.add(*(f"      {label}: {reason}" for label, reason in missing.items()))


def _to_do(page: Checklist, command: str, is_any_here: bool) -> None:
    run = f"./run_all.sh{' ' if command else ''}{command}"
    steps: list[str] = []
    if page.to_fetch:
        steps.append(f"rossam fetch {' '.join(dict.fromkeys(page.to_fetch))}")
    if page.by_hand:
        steps.append(f"follow the steps above for {', '.join(page.by_hand)}")
    steps += page.problems
    if steps:
        steps.append(f"look again: {run} --dry-run")
    if is_any_here:
        steps.append(f"try it with what is here, two steps per run: {run} --two-steps")
    if page.is_complete:
        steps.append(f"run it: {run}")
    page.add(*(f"  {number}. {step}" for number, step in enumerate(steps, start=1)))
    page.add("", "Everything is there." if page.is_complete else "Not everything is there yet.")
