"""`rossam train`: fine-tune on one's own annotations within a budget, and report the gain."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm.auto import tqdm

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import RUN, atomic_path, checkpoint_path, read_json, write_json
from rossam_core.settings import Recipe, TrainedMethod, merged, parse_config
from rossam_kit import config
from rossam_kit import options as opt
from rossam_kit.convert.command import START, profile_of, refuse_without_effect
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.progress import duration, track

if TYPE_CHECKING:
    import pandas as pd  # loaded by what needs it, so that --help is quick

EXAMPLES = opt.example(
    "rossam train --annotations train.json --data IMAGES --minutes 20 --out RUN",
    "rossam train --annotations train.json --val val.json --data IMAGES --views 4000 --out RUN",
    "rossam train --source nwpu-vhr10 --data DIR --out RUN",
)
BEFORE, HELD_OUT, TRIAL = "before.csv", "val.json", "speed_trial"
RULE = f"every tenth video or image by name, at least one (of a single video, its last tenth); listed in {HELD_OUT}"
MINUTES = 10.0
VALIDATION_OBJECTS = 128
VALIDATIONS = 4
"""At most, while training, the last at its end; those of a budget in minutes take a third of it at most.
The scoring before and after comes on top, and is as long as one of them."""
TRIAL_STEPS = 5
OWN_MASKS_IOU = 0.97
"""Validation IoU before training from which the masks are taken for those that the network itself made."""
OPTION_OF = {
    **{"training.samples": "--views", "training.epochs": "--views", "model.recipe": "--recipe"},
    **{"model.backbone": "--backbone", "model.sam2_backbone": "--backbone", "model.checkpoint": "--checkpoint"},
    **{"data.source": "--source", "data.root": "--data"},
}
"""Keys of the profile that are set by an option instead."""
DECODERS = {"sam": ("sam_decoder",), "sam2": ("sam_decoder",), "hq-sam": ("hq_head",)}
"""What is trained of methods other than ros-sam."""


def train_command(
    *,
    out: Annotated[Path, typer.Option(metavar="RUN", help="a new folder, or that of a run to continue")],
    annotations: opt.Annotations = None,
    data: opt.Data = None,
    val: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO file to validate on; default: a tenth is held out")
    ] = None,
    source: opt.Source = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help=f"how long it takes in all, scoring included; default {MINUTES:g}")
    ] = None,
    views: Annotated[int | None, typer.Option(metavar="N", help="training views, instead of --minutes")] = None,
    recipe: Annotated[
        Recipe, typer.Option(help="as in the paper, as in its released code, or with our corrections")
    ] = "paper",
    method: Annotated[
        TrainedMethod, typer.Option(help="of sam and sam2 the mask decoder is trained, of hq-sam the HQ head")
    ] = "ros-sam",
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="vit_t, vit_b, vit_l, vit_h; default: vit_l on a GPU that has its weights"),
    ] = None,
    checkpoint: opt.Checkpoint = None,
    device: opt.Device = None,
    box_convention: opt.Convention = None,
    keep_crowd: opt.KeepCrowd = False,
    skip_bad: opt.SkipBad = False,
    bands: opt.Bands = None,
    stretch: opt.Stretch = None,
    set: opt.Settings,
) -> int:
    """Fine-tune on your own annotated masks. Started again with the same options, it goes on where it was."""
    return run(opt.Options(**locals(), profile=str(config.OWN_DATA)), opt.read_settings(set))


def run(options: opt.Options, overrides: dict[str, Any]) -> int:
    """Train while no other process works in the run's folder."""
    from rossam_kit.cache import exclusive_folder

    with exclusive_folder(options.out):
        return _train(options, overrides)


def _train(options: opt.Options, overrides: dict[str, Any]) -> int:
    """Check the data, fix the budget, train, and print validation IoU before and after and what to do next."""
    from rossam_core.model.build import build_base, load_run
    from rossam_core.training.train import fit
    from rossam_kit.cache import load_table
    from rossam_kit.convert.exports import write_drops
    from rossam_kit.datasets.frame_set import print_drops
    from rossam_kit.datasets.reading import names_in
    from rossam_kit.datasets.splits import check_split, size_text, spread_objects

    folder = options.out
    names = names_in(folder)
    if folder.is_file() or (names and not names & {RUN, BEFORE}):
        raise RossamError(
            folder, "is not empty, and holds no run of `rossam train`", "name a new folder, or that of one"
        )
    if RUN in names and (missing := sorted({BEFORE, START} - names)):
        raise RossamError(folder, f"is a run, but lacks {' and '.join(missing)} of `rossam train`", "name a new folder")
    profile, choice = _profile(options, overrides)
    train, val, rule = _frames(options, profile)
    notes = check_split(train, val, is_strict=rule != RULE)
    chosen = spread_objects(val, profile.training.get("validation_objects", VALIDATION_OBJECTS))
    print(f"train on {size_text(train)}; validate on {size_text(chosen)}: {rule}")
    print(f"network: {options.method} {choice}; recipe {options.recipe}")
    for note in notes:
        print(f"note: {note}")
    if drops := list(dict.fromkeys((*train.drops, *val.drops))):
        print(f"left out (all of it in {folder / 'drops.csv'}):")
        print_drops(drops)
    run_config = _run_config(options, profile, chosen.object_count)
    if not (folder / RUN).exists():
        with atomic_path(folder / BEFORE) as temporary:
            scores = _scores(run_config, build_base(run_config.model_dump()), chosen)
            scores.to_csv(temporary, index=False, errors="surrogateescape")
        if rule == RULE:
            _write_held_out(val, folder / HELD_OUT, _image_folder(options, profile))
        write_drops(folder, drops)
    before = load_table(folder / BEFORE)
    run_config = _with_budget(run_config, options, train, before.pop("seconds").iloc[0], overrides)
    reporter = _reporter(run_config.training.total_samples(len(train)), run_config.training.batch, before["iou"].mean())
    log = fit(run_config, folder, train, chosen, on_event=reporter)
    after = _scores(run_config, load_run(folder), chosen).drop(columns="seconds")
    _print_result(run_config.training, log[log["kind"] == "validation"], before, after)
    print("\n".join(["\nUse it:", *_commands(options, (folder / HELD_OUT).exists(), profile)]))
    return 0


# --- settings ---------------------------------------------------------------------------------------------------------


def _profile(options: opt.Options, overrides: dict[str, Any]) -> tuple[config.Profile, str]:
    """Settings of the run, and its backbone with the reason for it."""
    problems = ProblemList("rossam train")
    refused = {
        "data: none is named; give --annotations FILE, or --source READER": not (options.annotations or options.source),
        "--val: has no effect; a reader has its own split": options.val and not options.annotations,
        "--views and --minutes: are two budgets": options.views is not None and options.minutes is not None,
        "--views: expected 1 or more": options.views is not None and options.views < 1,
        "--minutes: expected more than 0": options.minutes is not None and not options.minutes > 0,
    }
    problems.extend(problem.split(": ", 1) for problem, is_there in refused.items() if is_there)
    problems.extend(
        (f"--set {key}", f"use {OPTION_OF[key]}")
        for key, value in overrides.items()
        if key in OPTION_OF and value is not None
    )
    for key in overrides:
        if key == "notice":
            problems.add(f"--set {key}", "has no effect on training")
        if key in ("inference.mask_source", "inference.precision"):
            problems.add(f"--set {key}", "has no effect: the mask that is trained is scored, in training.precision")
        if key.startswith("recipe_changes") and options.recipe != "paper":
            problems.add(f"--set {key}", f"has no effect: it changes the recipe paper, not {options.recipe}")
    problems.raise_if_any("correct these; see `rossam train --help`")
    name, reason = _backbone(options)
    chosen = {"model.recipe": options.recipe, f"model.{'sam2_' * (options.method == 'sam2')}backbone": name}
    profile = profile_of(options, overrides | chosen)
    refuse_without_effect(options, profile, overrides, also_read=("training", "recipe_changes"))
    objects = profile.training.get("validation_objects", VALIDATION_OBJECTS)
    if not isinstance(objects, int) or objects < 1:
        finding = f"is {objects!r}, expected a number of 1 or more: the best checkpoint is chosen by these objects"
        raise RossamError("training.validation_objects", finding, f"leave it out ({VALIDATION_OBJECTS}), or correct it")
    return profile, f"{name} ({reason})"


def _backbone(options: opt.Options) -> tuple[str, str]:
    """The backbone, and why it is that: the large one on a GPU where its weights are, else the small one."""
    from rossam_core.devices import resolve_device
    from rossam_core.model.build import read_run
    from rossam_core.model.weights import official_files

    if options.backbone is not None:
        return options.backbone, "as asked for"
    for place in (options.out, *([Path(options.checkpoint).expanduser()] if options.checkpoint else [])):
        if (place / RUN).is_file():
            return read_run(place).get("backbone", "vit_t"), f"that of the run {place}"
    large, small = ("hiera_large", "hiera_t") if options.method == "sam2" else ("vit_l", "vit_t")
    if options.checkpoint is not None and not Path(options.checkpoint).expanduser().exists():
        raise RossamError(options.checkpoint, "no such file or folder", "name a weights file or the folder of a run")
    if options.checkpoint is not None:
        raise RossamError(options.checkpoint, "is no run; of which network, its name does not say", "add --backbone")
    if resolve_device(options.device or "auto").type == "cpu":
        return small, f"no GPU is used; {large} is for GPUs"
    is_hq = options.method in ("hq-sam", "ros-sam") and options.recipe != "released"  # its HQ head is fresh
    file = next(file for file in official_files() if (file.backbone, file.hq) == (large, is_hq))
    if checkpoint_path(file.name).is_file():
        return large, f"a GPU and {file.name} are there"
    return small, f"for {large} fetch its weights first: rossam fetch {file.fetch_name}"


def _frames(options: opt.Options, profile: config.Profile) -> tuple[FrameSet, FrameSet, str]:
    """Frames to train on, to validate on, and where the latter come from."""
    from rossam_kit.datasets.loading import load_frames, read_annotations
    from rossam_kit.datasets.splits import hold_out
    from rossam_kit.experiments.experiments import Experiments

    data = profile.data
    if options.val:
        train = read_annotations(data, options.annotations)
        return train, read_annotations(data, options.val, train[0].reading if len(train) else None), str(options.val)
    if not options.annotations and not (data.source == "coco" and not (data.root / "val.json").exists()):
        return *Experiments(profile).training_frames, f"what {data.source} holds out of training"
    train = read_annotations(data, options.annotations) if options.annotations else load_frames(data, "train")
    return *hold_out(train), RULE


def _write_held_out(val: FrameSet, path: Path, images: Path) -> None:
    """List the frames that are held out; any other file of that name is refused, as it is not this run's."""
    from rossam_kit.datasets.coco import write_coco_index

    with atomic_path(path) as temporary:
        write_coco_index(val, temporary, images)
        if path.exists() and path.read_bytes() != temporary.read_bytes():
            raise RossamError(path, "is not what this run holds out", "move it away, or name a new folder")


def _image_folder(options: opt.Options, profile: config.Profile) -> Path:
    return profile.data.root if options.annotations else profile.data.root / "images"


def _run_config(options: opt.Options, profile: config.Profile, objects: int):
    from rossam_core.training.recipes import RunConfig, recipe
    from rossam_kit.experiments.experiments import Experiments

    changes: dict[str, Any] = dict(profile.recipe_changes) if options.recipe == "paper" else {}
    changes |= {"trained_groups": DECODERS[options.method]} if options.method in DECODERS else {}
    base = Experiments(profile).base(options.method)
    if base["backbone"] not in ("vit_t", "hiera_t"):
        changes["micro_batch"] = 1  # a frame at a time fits more GPUs; only rounding differs
    training = recipe(options.recipe, **merged(changes, profile.training) | {"validation_objects": objects})
    values = {"method": options.method, "recipe": options.recipe, "training": training, "device": profile.device}
    values |= {"inference": profile.inference} | base
    values |= {"checkpoint": profile.model.checkpoint} if options.checkpoint else {}
    return parse_config(RunConfig, values, where="rossam train")


# --- budget and scores ------------------------------------------------------------------------------------------------


def _scores(run_config, model, val: FrameSet) -> pd.DataFrame:
    """Scores of the mask that the run trains, in its windows; `seconds`: what scoring all of them took."""
    from rossam_core.inference.predictor import Predictor
    from rossam_core.model.build import trained_mask
    from rossam_kit.experiments.scoring import evaluate

    started, training = time.perf_counter(), run_config.training
    mask = trained_mask(run_config.method, training.trained_groups, training.alternate)
    own = {"mask_source": mask, "precision": training.precision}
    predictor = Predictor(model, run_config.inference.model_copy(update=own), run_config.device)
    table = evaluate(predictor, val, progress=lambda frames, total: track(frames, total, "validation"))
    return table.assign(seconds=round(time.perf_counter() - started, 2))


def _with_budget(run_config, options: opt.Options, train: FrameSet, validation_seconds: float, overrides):
    """The run with its number of views: as asked for, or as many as fit into the minutes; decided once and kept."""
    training, path = run_config.training, options.out / START
    requested = {"views": options.views} if options.views else {"minutes": options.minutes or MINUTES}
    begun = (options.out / RUN).exists()
    new = {"budget": requested, "views": options.views, "validations": VALIDATIONS}
    start = read_json(path) if begun else new | {"reading": train[0].reading.model_dump(mode="json")}
    if start["budget"] != requested:
        there, now = (" ".join(f"--{key} {value:g}" for key, value in b.items()) for b in (start["budget"], requested))
        finding = f"the run was begun with {there}, not {now}"
        raise RossamError(path, finding, "keep that, or use a new folder")
    if start["views"] is None:
        budget, started = 60 * requested["minutes"], time.perf_counter()
        seconds = _seconds_per_view(run_config, options.out / TRIAL, train, budget / 10)
        start["validations"] = min(max(int(budget / 3 / validation_seconds), 1), VALIDATIONS)
        scorings = start["validations"] + 2  # before and after
        left = budget - (time.perf_counter() - started) - scorings * validation_seconds
        start["views"] = max(int(left / seconds), 2 * training.batch)
        needed = duration(budget - left + start["views"] * seconds)
        print(f"{1 / seconds:.2f} views per second: {start['views']:,} views, about {needed} in all")
    write_json(path, start)
    every = max(math.ceil(start["views"] / start["validations"]), training.batch)
    saved = min(max(math.ceil(start["views"] / 8), training.batch), 1000)
    values = {"validate_every": every, "checkpoint_every": saved}
    values = {key: value for key, value in values.items() if f"training.{key}" not in overrides}
    update = {"training": training.model_copy(update=values | {"samples": start["views"]})}
    return run_config.model_copy(update=update)


class _Measured(Exception):
    """Ends the trial."""


def _seconds_per_view(run_config, folder: Path, train: FrameSet, most_seconds: float) -> float:
    """Mean time of a view over a few steps but the first, or over two if they take `most_seconds`; nothing is kept."""
    from rossam_core.training.train import fit

    seconds: list[float] = []

    def on_event(kind: str, row: Mapping[str, Any]) -> None:
        seconds.extend([row["seconds"]] if kind == "step" else [])
        if len(seconds) == TRIAL_STEPS or (len(seconds) > 2 and sum(seconds) > most_seconds):
            raise _Measured

    update = {"samples": 2 * TRIAL_STEPS * run_config.training.batch, "validation_objects": 0}
    trial = run_config.model_copy(update={"training": run_config.training.model_copy(update=update)})
    shutil.rmtree(folder, ignore_errors=True)
    try:
        fit(trial, folder, train[:: max(len(train) // 64, 1)], on_event=on_event)
    except _Measured:
        return sum(seconds[1:]) / len(seconds[1:]) / run_config.training.batch
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- screen -----------------------------------------------------------------------------------------------------------


def _reporter(views: int, batch: int, before: float) -> Callable[[str, Mapping[str, Any]], None]:
    """Prints each validation, and where no bar is shown the progress twice a minute, with the time left."""
    at = {"start": time.monotonic(), "printed": time.monotonic()}

    def on_event(kind: str, row: Mapping[str, Any]) -> None:
        now, is_validation = time.monotonic(), kind == "validation"
        if kind == "step":
            at.setdefault("begun", row["samples"] - batch)  # views of earlier processes, in a run that goes on
        if not is_validation and (kind != "step" or sys.stderr.isatty() or now - at["printed"] < 30):
            return
        seconds = (now - at["start"]) / (row["samples"] - at["begun"]) * (views - row["samples"])
        score = f"validation IoU {row['iou']:.3f}, {before:.3f} before, " if is_validation else ""
        tqdm.write(f"{row['samples']:,} of {views:,} views: {score}{duration(seconds)} left", file=sys.stdout)
        at["printed"] = now

    return on_event


def _print_result(training, validations: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> None:
    from rossam_kit.experiments.statistics import paired_difference

    gain = paired_difference(after, before)
    ends = f" ({gain.low:+.3f} to {gain.high:+.3f})" if math.isfinite(gain.low) else ""
    best = validations.loc[validations["iou"].idxmax()]
    print(
        f"\nvalidation IoU {before['iou'].mean():.3f} before, {after['iou'].mean():.3f} after: {gain.mean:+.3f}{ends}"
    )
    print(
        f"kept: the best of {len(validations)} checkpoints by these {gain.n:,} objects, after {best['samples']:,} views"
    )
    if before["iou"].mean() > OWN_MASKS_IOU:
        print("These masks are what the network makes already: correct more of them, or train on masks drawn by hand.")
    elif gain.mean <= 0:
        rates = {group: training.groups[group].learning_rate for group in training.trained_groups}
        first, rate = next(iter(rates.items()))
        listed = ", ".join(f"{group} {value:g}" for group, value in rates.items())
        print(f"Training did not help: try more data, a longer budget, or lower learning rates (here {listed}), e.g.")
        print(f"  --set training.groups.{first}.learning_rate={rate / 4:g}")


def _commands(options: opt.Options, is_held_out: bool, profile: config.Profile) -> list[str]:
    """Command lines that use the result, quoted for a shell."""
    boxes = [f"--box-convention={options.box_convention}"] if options.box_convention else []
    boxes += [f"--{name}" for name in ("keep-crowd", "skip-bad") if getattr(options, name.replace("-", "_"))]
    scored = ["--annotations", options.val, "--data", profile.data.root, *boxes]
    if is_held_out:
        scored = ["--annotations", options.out / HELD_OUT, "--data", _image_folder(options, profile)]
    elif not options.annotations:
        scored = ["--source", options.source, *(["--data", options.data] if options.data else []), *boxes]
    evaluate = ["evaluate", "--checkpoint", options.out, *scored, "--out", "SCORES"]
    convert = ["convert", "--checkpoint", options.out, "--annotations", "BOXES.json", "--data", "IMAGES"]
    return [f"  {shlex.join(['rossam', *map(str, words)])}" for words in (evaluate, [*convert, "--out", "MASKS"])]
