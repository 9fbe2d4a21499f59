"""What a profile needs, what of it is here, what would run, and for how long: a checklist, before anything runs.

In: a profile. Out: a `Checklist` of lines to follow from top to bottom. Nothing is fetched; datasets that are here are
read (their indices are kept for the run), and two steps of the profile's own network are timed once.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir
from rossam_kit.config import OWN_SOURCES, DataConfig, Profile
from rossam_kit.datasets import fetch
from rossam_kit.datasets.catalogue import entry_named, size_text, steps_by_hand
from rossam_kit.datasets.loading import load_frames, scored_split
from rossam_kit.experiments.experiments import Experiments, RowSpec
from rossam_kit.experiments.planning import (
    Work,
    can_run,
    datasets,
    datasets_of_tables,
    goes_without,
    missing_datasets,
    needs,
    source_of,
    waits_for,
    work,
)
from rossam_kit.experiments.probe import BUSY, Probe, probe
from rossam_kit.progress import duration
from rossam_kit.report import notebooks

if TYPE_CHECKING:
    from rossam_kit.datasets.frame_set import FrameSet

MARKS = {"ok": "[x]", "broken": "[!]", "missing": "[ ]"}
WIDTH, NAME_WIDTH = 110, 24


@dataclass
class Checklist:
    """Lines in order, and what is left to do.

    Attributes:
        lines: what to print.
        to_fetch: names for `rossam fetch`.
        by_hand: datasets that must be placed by hand.
        problems: anything else that stands in the way, one line each.
    """

    lines: list[str] = field(default_factory=list)
    to_fetch: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

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


def checklist(
    profile: Profile,
    *,
    command: str = "",
    measure: Callable[..., Probe] | None = None,
    cache: Path | None = None,
) -> Checklist:
    """All that stands between this machine and the profile's report.

    Args:
        command: the options that name the profile, for the commands told (`--profile paper --data /data`).
        measure: times the network; None = `evaluation.probe.probe`.
        cache: folder of results and generated data; None = `files.cache_dir()`.
    """
    cache, told = cache or cache_dir(), Checklist()
    experiments = Experiments(profile, cache)
    told.add(f"Dry run of the profile {profile.name}: {profile.title}", "", "Data")
    frames = _data(told, profile, cache)
    told.add("", "Weights")
    _weights(told, experiments)
    told.add("", f"Disk ({cache})")
    _disk(told, cache)
    told.add("", "Notebooks, in this order")
    _notebooks(told, profile)
    told.add("", "Fine-tuning runs, each once for all tables that share it")
    amount = work(experiments, frames)
    _runs(told, profile, amount)
    told.add("", "Time")
    _time(told, experiments, amount, measure, cache)
    told.add("", "To do")
    missing = missing_datasets(profile)
    _to_do(told, command, any(can_run(profile, name, missing) for name in profile.notebooks if needs(profile, name)))
    return told


# --- what is here -----------------------------------------------------------------------------------------------------


def _data(told: Checklist, profile: Profile, cache: Path) -> dict[str, dict[str, FrameSet]]:
    """Tell of every dataset; frames by dataset and split of those here that tables ask for."""
    wanted = datasets_of_tables(profile)
    read: dict[str, dict[str, FrameSet]] = {}
    for name, data in datasets(profile).items():
        if data.source == "synthetic":
            told.item("ok", "generated frames", f"made at the first use, nothing to get (for {name})")
            continue
        if data.source not in OWN_SOURCES and not _published_data(told, data):
            continue
        if name in wanted:
            try:
                splits = dict.fromkeys(("train", scored_split(data)) if wanted[name] else (scored_split(data),))
                read[name] = {split: load_frames(data, split, cache) for split in splits}
            except RossamError as error:
                told.problems.append(f"{data.source}: {error}")
                told.add(f"      cannot be read: {error.finding.splitlines()[0]}")
            else:
                told.add(*(f"      {split}: {_counts(frames)}" for split, frames in read[name].items()))
    return read


def _counts(frames: FrameSet) -> str:
    return f"{len(frames):,} frames of {len(frames.videos):,} videos or images, {frames.object_count:,} objects"


def _published_data(told: Checklist, data: DataConfig) -> bool:
    """Tell of a dataset of the catalogue; whether its folder is there."""
    name = data.source
    here = data.root if data.root is not None and data.root.is_dir() else None
    (status,) = fetch.check([name], here)
    if data.root is not None and here is None:
        status = fetch.Status(name, "missing", data.root, ("no such folder",))
    words = {"ok": "here", "broken": "here, but not as published", "missing": "missing"}
    title = entry_named(name).title
    told.item(status.state, name, f"{words[status.state]}: {title}", f"{status.path}", *status.details)
    if status.state == "ok":
        return True
    steps = steps_by_hand(name, data.root)
    if status.state == "broken":
        told.add("      if more was meant to be there, complete or replace it:")
    if steps:
        told.by_hand.append(name)
        told.add(*(f"      {number}. {step}" for number, step in enumerate(steps, start=1)))
    else:
        told.to_fetch.append(name)
        told.add(f"      get it: rossam fetch {name}   ({_weight(name)}; {entry_named(name).licence})")
    return status.state == "broken"


def _weight(name: str) -> str:
    weight = entry_named(name).bytes
    return size_text(weight) if weight else "size told before it starts"


def _weights(told: Checklist, experiments: Experiments) -> None:
    from rossam_core.model.weights import SHIPPED, official_files

    settings = experiments.profile.model
    methods = {row.method for table in experiments.tables for row in experiments.specs[table].rows} | {"sam", "hq-sam"}
    for backbone, wanted in ((settings.backbone, True), (settings.sam2_backbone, "sam2" in methods)):
        own = backbone == settings.backbone
        if not wanted:
            continue
        if settings.checkpoint is None:
            told.item("ok", backbone, "fresh weights (model.checkpoint is null): no prior to be had")
        elif own and settings.checkpoint != "default":
            there = Path(settings.checkpoint).exists()
            told.item("ok" if there else "missing", backbone, settings.checkpoint)
            told.problems += [] if there else [f"{settings.checkpoint}: no such weights file; correct model.checkpoint"]
        elif backbone in SHIPPED:
            there = SHIPPED[backbone].is_file()
            told.item("ok" if there else "missing", backbone, "shipped with the package", str(SHIPPED[backbone]))
            told.problems += [] if there else [f"{SHIPPED[backbone]} is not there: install the package anew"]
        else:
            files = [file for file in official_files() if file.backbone == backbone]
            for file in files:
                _official(told, file.fetch_name)
            if not files:
                told.problems.append(f"model: {backbone} has no official weights; name another, or model.checkpoint")


def _official(told: Checklist, name: str) -> None:
    (status,) = fetch.check([name])
    words = {"ok": "here", "broken": "here, but damaged", "missing": "missing"}[status.state]
    told.item(status.state, name, f"{words}: {entry_named(name).title}", f"{status.path}", *status.details)
    if status.state != "ok":
        told.to_fetch.append(name)
        told.add(f"      get it: rossam fetch {name}   ({_weight(name)}; {entry_named(name).licence})")


def _disk(told: Checklist, cache: Path) -> None:
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    entries = {name: entry_named(name) for name in [*told.to_fetch, *told.by_hand]}
    sizes = {name: fetch.disk_needed(entry.files) if entry.bytes else None for name, entry in entries.items()}
    known = sum(size or 0 for size in sizes.values())
    unknown = [name for name, size in sizes.items() if size is None]
    told.add(
        f"  {size_text(free)} free; about {size_text(known)} to fetch and unpack what is missing and has a known size"
    )
    if unknown:
        told.add(f"  not counted, since nobody states their size: {', '.join(unknown)}")
    if known > free:
        told.problems.append(
            f"disk: {size_text(known)} needed, {size_text(free)} free; ROSSAM_CACHE names a folder on another disk"
        )


# --- what would run ---------------------------------------------------------------------------------------------------


def _notebooks(told: Checklist, profile: Profile) -> None:
    missing = missing_datasets(profile)
    for name in profile.notebooks:
        if not (notebooks.NOTEBOOKS / f"{name}.ipynb").exists():
            told.item("missing", name, "no such notebook")
            told.problems.append(f"notebooks: {name} is not in {notebooks.NOTEBOOKS}; correct the profile's list")
        elif can_run(profile, name, missing):
            without = goes_without(profile, name, missing)
            told.item("ok", name, "its data is here" + (f", but for {', '.join(without)}" if without else ""))
        else:
            told.item("missing", name, f"waits for {', '.join(waits_for(profile, name, missing))}")


def _runs(told: Checklist, profile: Profile, amount: Work) -> None:
    if not amount.runs:
        told.add("  none: no notebook of this profile shows a fine-tuned row")
        return
    for run, where, name, size in amount.runs:
        views = f"{run.training.total_samples(size):,} views" if size else "views unknown until the data is here"
        told.add(f"  {where:<58}{source_of(profile, name)}, {size:,} frames, {views}")
    source = "counted here" if amount.counted else "partly as published, since not all data is here"
    told.add(f"  {len(amount.runs)} runs, {amount.views:,} views in all (seeds {', '.join(map(str, profile.seeds))})")
    told.add(f"  frames: {source}")


def _time(
    told: Checklist, experiments: Experiments, amount: Work, measure: Callable[..., Probe] | None, cache: Path
) -> None:
    run = next((run for run, *_ in amount.runs if run.method == "ros-sam"), None)
    run = run or experiments.run_config(RowSpec(label="probe", method="ros-sam", training={}), 0)
    try:
        found = (measure or probe)(run, experiments.profile.inference, cache)
    except RossamError as error:
        told.add(f"  not measured: {error.finding}; {error.remedy}")
        return
    part = ""
    if found.share < 1:  # the decoder does not grow with the encoder's depth, but is multiplied with it
        part = f", with {found.share:.0%} of its blocks, all times multiplied by {1 / found.share:.0f}: rather too long"
    told.add(
        f"  measured on {found.device}: ROS-SAM {run.backbone}, {len(found.view_seconds)} steps of {found.batch} "
        f"view{'s' * (found.batch > 1)}{part}, and {len(found.window_seconds)} predictions",
        f"  a training view takes {_span(found.view_seconds, 's')}, a predicted window "
        f"{_span(found.window_seconds, 's')}; peak memory {found.peak_gib:.1f} GiB",
    )
    training = [amount.views * s for s in (min(found.view_seconds), max(found.view_seconds))]
    windows = [
        n * s for n, s in zip(amount.windows, (min(found.window_seconds), max(found.window_seconds)), strict=True)
    ]
    told.add(
        f"  fine-tuning: about {_hours(training)} ({amount.views:,} views)",
        f"  predictions: about {_hours(windows)} ({amount.windows[0]:,.0f} to {amount.windows[1]:,.0f} windows, "
        "SAM2's taken to cost as SAM's)",
        f"  in all about {_hours([a + b for a, b in zip(training, windows, strict=True)])} on one such device: these "
        "seconds times these views and windows; figures, disturbances and viewers come on top, a few per cent",
    )
    told.add(*(f"  {line}" for line in _reservations(found)))
    folder = found.trained * 4 * 5  # float32: weights, two moments; last and best weights
    told.add(f"  run folders: about {size_text(len(amount.runs) * folder)} of disk")


def _reservations(found: Probe) -> list[str]:
    """What makes the measured times others than those of the run."""
    lines = []
    if found.on_processor:
        lines.append("these are hours of this processor, not of a GPU: ask again on the machine that is to train")
    if found.busy > BUSY:
        lines.append(
            f"other work held the processor while this was measured ({found.busy:.1f} processes a core): alone it is "
            "faster, and the next dry run measures again"
        )
    return lines


def _span(values: tuple[float, ...], unit: str) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _hours(seconds: list[float]) -> str:
    low, high = sorted(seconds)
    if high < 3600:
        return f"{duration(low)} to {duration(high)} (m:s)" if high >= 60 else "a minute"
    texts = [f"{value / 3600:,.1f}" if value < 36000 else f"{value / 3600:,.0f}" for value in (low, high)]
    return f"{texts[0]} hours" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]} hours"


def _to_do(told: Checklist, command: str, is_any_here: bool) -> None:
    run = f"./run_all.sh{' ' if command else ''}{command}"
    steps: list[str] = []
    if told.to_fetch:
        steps.append(f"rossam fetch {' '.join(dict.fromkeys(told.to_fetch))}")
    if told.by_hand:
        steps.append(f"follow the steps above for {', '.join(told.by_hand)}")
    steps += told.problems
    if steps:
        steps.append(f"look again: {run} --dry-run")
    if is_any_here:
        steps.append(f"try it with what is here, two steps a run: {run} --two-steps")
    if told.is_complete:
        steps.append(f"run it: {run}")
    told.add(*(f"  {number}. {step}" for number, step in enumerate(steps, start=1)))
    told.add("", "Everything is there." if told.is_complete else "Not everything is there yet.")
