"""`rossam evaluate`: score a run or a method on annotated masks: CSV tables, and a page with worst, median and best."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, remove_partial, write_text
from rossam_kit import config
from rossam_kit import options as opt
from rossam_kit.convert.command import frames_of, method_of, predictor_of, profile_of, refuse_without_effect
from rossam_kit.datasets.frame_set import Drop, print_drops
from rossam_kit.progress import duration, track

EXAMPLES = opt.example(
    "rossam evaluate --annotations val.json --data IMAGES --checkpoint RUN --out SCORES",
    "rossam evaluate --annotations val.json --data IMAGES --method grabcut --out SCORES",
)
OBJECTS, SUMMARY, PAGE = "objects.csv", "summary.csv", "index.html"


def evaluate_command(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder to write to")],
    annotations: opt.Annotations = None,
    data: opt.Data = None,
    source: opt.Source = None,
    split: Annotated[config.Split | None, typer.Option(help="of --source; default: the one it is scored on")] = None,
    checkpoint: opt.Checkpoint = None,
    method: Annotated[
        opt.AnyMethod | None, typer.Option(help="default: that of the run --checkpoint; hq-sam for a weights file")
    ] = None,
    limit: opt.Limit = None,
    device: opt.Device = None,
    box_convention: opt.Convention = None,
    keep_crowd: opt.KeepCrowd = False,
    skip_bad: opt.SkipBad = False,
    bands: opt.Bands = None,
    stretch: opt.Stretch = None,
    set: opt.Settings,
) -> int:
    """Score a run or a method on annotated masks. By class and size, with intervals, tables and pictures.

    A run's images are read as those that it was trained on, unless --bands or --stretch is given.
    """
    return run(opt.Options(**locals(), profile=str(config.OWN_DATA)), opt.read_settings(set))


def run(options: opt.Options, overrides: dict[str, Any]) -> int:
    """Evaluate while no other process works in the folder of results."""
    from rossam_kit.cache import exclusive_folder

    with exclusive_folder(options.out):
        return _evaluate(options, overrides)


def _evaluate(options: opt.Options, overrides: dict[str, Any]) -> int:
    """Score every object that has a mask, write tables and page, and print the summary."""
    from rossam_kit.convert.exports import write_drops
    from rossam_kit.csv_text import guarded_table
    from rossam_kit.experiments.scoring import MASK, predict_frames, score
    from rossam_kit.report.evaluation_page import galleries, page, summarise
    from rossam_kit.report.labels import label

    if not (options.annotations or options.source):
        raise RossamError("rossam evaluate", "no data is named", "give --annotations FILE, or --source READER")
    if not (options.checkpoint or options.method):
        raise RossamError("rossam evaluate", "nothing to score is named", "give --checkpoint RUN, or --method NAME")
    _refuse_foreign(options.out)
    started, requested = time.time(), dict(overrides)
    options.method = options.method or method_of(options.checkpoint)
    profile = profile_of(options, overrides)
    refuse_without_effect(options, profile, requested, also_read=("evaluation",))
    frames, settings = frames_of(options, profile), profile.evaluation
    masks = sum(o.has_mask for frame in frames for o in frame.objects)
    if not masks:
        finding = f"none of {frames.object_count:,} objects in {len(frames):,} images has a mask to score against"
        raise RossamError(frames.name, finding, "name annotations with masks; rossam convert makes masks of boxes")
    predictor = predictor_of(options.method, profile, options.checkpoint is not None)
    predictions = track(predict_frames(predictor, frames), total=len(frames), desc=f"scoring {options.method}")
    scale = {"dilation_ratio": settings.dilation_ratio, "size_bins": settings.size_bins}
    objects = score(predictions, ("object",), **scale)
    summary = summarise(objects, settings.size_bins)
    views = galleries(objects, frames, options.method)
    remove_partial(options.out)
    for name, table in ((OBJECTS, objects.drop(columns=MASK)), (SUMMARY, summary)):
        with atomic_path(options.out / name) as temporary:
            guarded_table(table).to_csv(temporary, index=False, errors="surrogateescape")
    what = f"{label(options.method)}{f', {options.checkpoint}' if options.checkpoint else ''}"
    write_text(options.out / PAGE, page(frames.name, what, summary, objects, views))
    hidden = [c for c in summary if c.startswith("biou_fit")]
    hidden += ["videos"] if summary["images"].equals(summary["videos"]) else []
    print(summary.drop(columns=hidden).to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    bare = [(frame, item) for frame in frames for item in frame.objects if not item.has_mask]
    drops = [*frames.drops, *(Drop(f"{frame.key} object {item.object_id}", "has no mask", 1) for frame, item in bare)]
    write_drops(options.out, drops)
    if drops:
        print(f"\nnot scored (all of it in {options.out / 'drops.csv'}):")
        print_drops(drops)
    print(f"\n{masks:,} objects in {duration(time.time() - started)}; tables and pictures:\n  {options.out / PAGE}")
    return 0


def _refuse_foreign(folder: Path) -> None:
    """Raise `RossamError` where the folder holds something else than an evaluation, perhaps one cut off in writing."""
    from rossam_kit.datasets.reading import names_in

    names = names_in(folder)
    if folder.is_file() or not (names <= {OBJECTS} or names >= {OBJECTS, SUMMARY}):
        finding = "is a file" if folder.is_file() else f"is not empty, and holds no {OBJECTS} and {SUMMARY}"
        raise RossamError(folder, finding, "name a new folder, or that of an evaluation")
