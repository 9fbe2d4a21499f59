"""`rossam convert`: boxes of a tracking dataset to masks, with exports and a review page.

Writes a folder of masks (`mask_records`) that holds exports and review, and prints a short table.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from tqdm.auto import tqdm

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import cache_dir, is_run, read_json
from rossam_core.settings import parse_config
from rossam_kit import config
from rossam_kit import options as opt
from rossam_kit.datasets.frame_set import Drop, FrameSet, by_reason, print_drops
from rossam_kit.progress import duration

BASELINES = ("box", "ellipse", "grabcut")
FORMATS = ("coco", "coco-polygons", "youtube-vis", "mots", "png", "authors", "yolo", "cvat", "label-studio", "labelme")
SCENE_FORMATS = ("gpkg", "geojson", "label-map")
Format = StrEnum("Format", {name: name for name in (*FORMATS, *SCENE_FORMATS)})
READ_GROUPS = ("data", "model", "inference", "device", "notice")
"""Groups of a profile that move a mask."""
WORST = 5
START = "start.json"
"""Of the folder of a run of `rossam train`: how it was begun, and how its images were read."""


EXAMPLES = opt.example(
    "rossam convert --source viso --data DIR --out masks --format coco --format png",
    "rossam convert --annotations boxes.json --data IMAGES --out masks --checkpoint RUN",
    "rossam convert --annotations boxes.geojson --data scene.tif --bands 4,3,2 --out masks --format gpkg",
)


def convert_command(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="a new folder, or that of a conversion to resume")],
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="demo (default: generated video), nwpu, …, or a YAML file")
    ] = "demo",
    source: opt.Source = None,
    data: opt.Data = None,
    annotations: opt.Annotations = None,
    box_convention: opt.Convention = None,
    keep_crowd: opt.KeepCrowd = False,
    skip_bad: opt.SkipBad = False,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="boxes of a GeoJSON, GeoPackage or shapefile are in pixels of the raster")
    ] = False,
    class_field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="attribute with the class; default: class, category, label, name, type"),
    ] = None,
    boxes: Annotated[
        Literal["seg", "hbb", "obb", "mot"] | None,
        typer.Option(help="boxes of sat-mtb: seg of polygons (default), hbb upright, obb oriented, mot of tracks"),
    ] = None,
    clip_oriented: Annotated[
        bool,
        typer.Option("--clip-oriented", help="cut masks off at oriented boxes (ootb, dota, --boxes obb, GIS polygons)"),
    ] = False,
    split: Annotated[config.Split | None, typer.Option(help="default: the split the source is scored on")] = None,
    bands: opt.Bands = None,
    stretch: opt.Stretch = None,
    limit: opt.Limit = None,
    method: Annotated[
        opt.AnyMethod | None, typer.Option(help="default: that of the run named by --checkpoint, else hq-sam")
    ] = None,
    checkpoint: opt.Checkpoint = None,
    format: Annotated[
        list[Format],
        typer.Option(
            default_factory=list,
            show_default=False,
            metavar="NAME",
            help=f"export as {', '.join(FORMATS)}, or of a raster {', '.join(SCENE_FORMATS)}; may be repeated",
        ),
    ],
    jitter: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="moved boxes predicted to judge each mask (default 4); 0: fastest, judges less well"
        ),
    ] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="this machine, or a Ray cluster")] = "local",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="processes; default: one per processor core, or one per GPU")
    ] = None,
    device: opt.Device = None,
    set: opt.Settings,
) -> int:
    """Make a mask for every box of a dataset. An interrupted conversion resumes.

    With a run, images are read as those that it was trained on, unless --bands or --stretch is given.
    """
    return run(opt.Options(**locals()), opt.read_settings(set))


def run(options: opt.Options, overrides: dict[str, Any]) -> int:
    """Convert, export, write the review, and print a summary; returns 1 if no box has a mask."""
    from rossam_kit.cache import exclusive_folder
    from rossam_kit.convert import exports, geo, geo_exports
    from rossam_kit.convert.convert import boxes_only, convert
    from rossam_kit.convert.exporting import export
    from rossam_kit.convert.review import write_review

    if geo.is_scene(options.data, options.annotations) and None in (options.data, options.annotations):
        remedy = "name both: --data scene.tif --annotations boxes.geojson"
        raise RossamError("rossam convert", "a scene is a raster and a file of its boxes", remedy)
    started, requested = time.time(), dict(overrides)
    options.method = options.method or method_of(options.checkpoint)
    profile = profile_of(options, overrides)
    refuse_without_effect(options, profile, requested)
    _refuse_misplaced(options, profile, requested)
    frames = boxes_only(_frames(options, profile))
    if not frames.object_count:
        _refuse_nothing(frames)
    formats = dict.fromkeys(options.format)
    exports.check(frames, formats)
    geo_exports.check(frames, formats)
    if geo.is_scene(options.data, options.annotations):
        print(geo.describe(frames) + "\n")
    predictor = predictor_of(options.method, profile, options.checkpoint is not None)
    settings = _settings(options, frames)
    workers = _workers(options, predictor, len(frames))
    with exclusive_folder(options.out):
        with tqdm(total=len(frames), desc="frames", leave=False, disable=None) as bar:
            conversion = convert(
                predictor, frames, options.out, settings, engine=options.engine, workers=workers, progress=bar.update
            )
        review = write_review(conversion, notice=profile.notice if options.data is None else "")
        written = export(conversion, formats)
    _print_result(conversion, written, review, time.time() - started)
    return 0 if (conversion.table["area"] > 0).any() else 1


def _refuse_nothing(frames: FrameSet) -> None:
    """Raise the error that says why there is no box to convert."""
    if not frames.input_boxes:
        raise RossamError(frames.name, f"{len(frames)} frames hold no box", "name another split or a higher --limit")
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count, _ in by_reason(frames.drops) if count)
    finding = f"each of the {frames.input_boxes:,} boxes is left out ({reasons})"
    is_crowd = any(drop.reason.startswith("iscrowd") for drop in frames.drops)
    remedy = "take such regions as objects with --keep-crowd" if is_crowd else "correct the annotations"
    raise RossamError(frames.name, finding, remedy)


def profile_of(options: opt.Options, overrides: dict[str, Any]) -> config.Profile:
    """The profile with the options over it; generated data is no longer than the limit asks for."""
    if options.limit is not None and options.limit < 1:
        raise RossamError(f"--limit {options.limit}", "is no number of frames", "use 1 or more")
    if options.annotations:
        overrides["data.source"] = "coco"
        overrides["data.root"] = options.data or str(options.annotations.parent)
    elif options.data:
        overrides["data.root"] = options.data
    if options.source and not options.annotations:
        overrides["data.source"] = options.source
    for key in ("box_convention", "keep_crowd", "skip_bad"):
        if getattr(options, key):
            overrides[f"data.{key}"] = getattr(options, key)
    if options.checkpoint:
        overrides["model.checkpoint"] = options.checkpoint
    overrides |= {f"data.{k}": v for k in ("bands", "stretch") if (v := getattr(options, k)) is not None}
    if options.device:
        overrides["device"] = options.device
    given = config.load_profile(options.profile, overrides).inference.model_fields_set
    windows = {f"inference.{key}": value for key, value in _windows(options.checkpoint).items() if key not in given}
    profile = config.load_profile(options.profile, overrides | windows)
    made = profile.data.synthetic
    if options.limit and profile.data.source == "synthetic":
        split = options.split or "test"
        videos = min(getattr(made, f"{split}_videos"), -(-options.limit // len(made.moments)))
        made = made.model_copy(update={f"{split}_videos": videos})
    return profile.model_copy(update={"data": profile.data.model_copy(update={"synthetic": made})})


def _windows(checkpoint: str | None) -> dict[str, Any]:
    """Inference settings where neither the profile's file nor `--set` has any: those a run was trained with, in which
    its masks are best; but windows that cut no object."""
    run = _run_of(checkpoint)
    own = ("mask_source", "precision", "batch_size", "prompt_batch_size")
    settings = {key: value for key, value in run.get("inference", {}).items() if key not in own}
    return settings | ({"growth": "context"} if settings.get("growth", "none") == "none" else {})


def frames_of(options: opt.Options, profile: config.Profile) -> FrameSet:
    """The frames that the options name, at most `--limit` of them; the others are in the drop log."""
    from rossam_kit.datasets.loading import load_frames, read_annotations, scored_split

    data, shown = profile.data, _shown(options, profile)
    if options.annotations:
        frames = read_annotations(data, options.annotations, shown)
    else:
        frames = load_frames(data, options.split or scored_split(data), cache_dir(), shown)
    return _limited(frames, options)


def _shown(options: opt.Options, profile: config.Profile) -> config.ImageOptions:
    """Bands and stretch: those given, else with a run of `rossam train` those of its training images."""
    from rossam_kit.datasets.images import DatasetReading

    start = Path(options.checkpoint).expanduser() / START if _names_run(options.checkpoint) else None
    stored = read_json(start).get("reading") if start is not None and start.is_file() else None
    if stored is None:
        return profile.data
    trained = parse_config(DatasetReading, stored, where=start)
    if not profile.data.model_fields_set & {"bands", "stretch"}:
        return trained
    if trained.limits or (profile.data.bands, profile.data.stretch) != (trained.bands, trained.stretch):
        bands = ",".join(map(str, trained.bands or ())) or "the first"
        limits = "".join(f", {dtype} {low:g} to {high:g}" for dtype, (low, high) in trained.limits.items())
        print(f"note: images are read otherwise than in training (bands {bands}, stretch {trained.stretch}{limits})")
    return profile.data


def _limited(frames: FrameSet, options: opt.Options) -> FrameSet:
    beyond = frames.frames[options.limit :] if options.limit else ()
    drops = [
        Drop(f"{f.key} object {o.object_id}", f"beyond --limit {options.limit}", 1) for f in beyond for o in f.objects
    ]
    return frames.subset(frames.frames[: options.limit], drops)


def _frames(options: opt.Options, profile: config.Profile) -> FrameSet:
    """`frames_of`; tiles of a raster with boxes of a file; boxes of a certain kind of SAT-MTB."""
    from rossam_kit.convert.geo import is_scene, read_scene
    from rossam_kit.datasets.images import with_reading
    from rossam_kit.datasets.loading import root_of, scored_split
    from rossam_kit.datasets.sat_mtb import read_sat_mtb

    data, annotations = profile.data, options.annotations
    if is_scene(options.data, annotations):
        about = {"pixels": options.pixels, "class_field": options.class_field, "shown": _shown(options, profile)}
        frames = read_scene(options.data, annotations, data, **about)
    elif options.boxes:
        frames = read_sat_mtb(root_of(data), options.split or scored_split(data), options.boxes)
        frames = with_reading(frames, _shown(options, profile))
    else:
        return frames_of(options, profile)
    return _limited(frames, options)


def _refuse_misplaced(options: opt.Options, profile: config.Profile, overrides: dict[str, Any]) -> None:
    """Raise `RossamError` where options are about another kind of input, all at once."""
    from rossam_kit.convert.geo import ignored_options
    from rossam_kit.datasets.loading import COCO_OPTIONS

    problems = ProblemList("options")
    problems.extend(ignored_options(options))
    if options.boxes:
        ignored = [key for key in ("data.sample", "data.limit_frames") if any(k.startswith(key) for k in overrides)]
        problems.extend((f"--set {key}", "has no effect with --boxes, which takes all frames") for key in ignored)
        about_coco = [key for key in COCO_OPTIONS if getattr(profile.data, key)]
        problems.extend((f"data.{key}", "has no effect with --boxes: it is about COCO files") for key in about_coco)
        if profile.data.source != "sat-mtb" or options.annotations:
            problems.add(f"--boxes {options.boxes}", "is about the dataset sat-mtb: name it with --source sat-mtb")
        if options.split == "val":
            problems.add("--split val", "is held out of polygons only; --boxes has train and test")
    problems.raise_if_any("leave these out")


def refuse_without_effect(
    options: opt.Options, profile: config.Profile, overrides: dict[str, Any], also_read: Sequence[str] = ()
) -> None:
    """Raise `RossamError` where options are set that this method and source would ignore, all at once.

    Args:
        overrides: those of `--set`.
        also_read: groups of the profile that the command reads besides `READ_GROUPS`.
    """
    method, source, problems = options.method, profile.data.source, ProblemList("options")
    if options.annotations:
        ignored = {"--split": options.split, "--source": options.source if options.source != "coco" else None}
        ignored |= {
            f"--set {key}": True for key in ("data.root", "data.source", "data.limit_frames") if key in overrides
        }
        problems.extend((option, "has no effect with --annotations") for option, value in ignored.items() if value)
    elif options.data and source == "synthetic":
        problems.add(f"--data {options.data}", f"has no effect: the source of profile {profile.name} is synthetic")
    if method in BASELINES:
        ignored = {"--checkpoint": options.checkpoint, "--device": options.device}
        problems.extend((o, f"has no effect: {method} has no network") for o, value in ignored.items() if value)
    twice = {"--device": "device", "--checkpoint": "model.checkpoint", "--source": "data.source", "--data": "data.root"}
    for option, key in twice.items():
        if key in overrides and getattr(options, option[2:]) not in (None, overrides[key]):
            problems.add(option, f"says {getattr(options, option[2:])}, --set {key} says {overrides[key]}")
    reasons = config.without_effect(profile, overrides)
    for key in overrides:
        is_read = key.partition(".")[0] in (*READ_GROUPS, *also_read)
        reason = reasons.get(key) or (not_for(method, key, options.checkpoint) if is_read else "has no effect here")
        if reason:
            problems.add(f"--set {key}", reason)
    remedy = "leave these out" if source != "synthetic" else "leave these out, or name the data's reader with --source"
    problems.raise_if_any(remedy)


def not_for(method: str, key: str, checkpoint: str | None) -> str:
    """Why a method does not look at a profile key; empty where it does."""
    group, _, name = key.partition(".")
    name = name.split(".")[0]
    if key == "evaluation.protocols":
        return "has no effect: each object is scored alone"
    if method in BASELINES:
        return f"has no effect: {method} has no network" if group in ("model", "inference", "device") else ""
    if group != "model":
        return ""
    if method == "sam2" and name in ("backbone", "architecture", "checkpoint"):
        return "is SAM's; SAM2 has model.sam2_backbone and --checkpoint"
    if method == "sam3" and name in ("backbone", "architecture", "checkpoint"):
        return "is SAM's; SAM 3 has model.sam3_architecture and --checkpoint"
    if method != "sam2" and name == "sam2_backbone":
        return f"is SAM2's; {method} has " + ("model.sam3_architecture" if method == "sam3" else "model.backbone")
    if method != "sam3" and name == "sam3_architecture":
        return f"is SAM 3's; {method} does not look at it"
    if name == "recipe":
        return "has no effect here"
    if name in ("architecture", "backbone") and _names_run(checkpoint):
        return f"has no effect: the run {checkpoint} has its own"
    return ""


def _names_run(checkpoint: str | None) -> bool:
    """Whether a checkpoint as the user names it is the folder of a fine-tuning run."""
    return checkpoint is not None and is_run(Path(checkpoint).expanduser())


def method_of(checkpoint: str | None) -> str:
    """The method of a fine-tuning run, hq-sam where no run is named."""
    return _run_of(checkpoint).get("method", "hq-sam")


def _run_of(checkpoint: str | None) -> dict[str, Any]:
    """The settings of a fine-tuning run; empty where no run is named."""
    if not _names_run(checkpoint):
        return {}
    from rossam_core.model.build import read_run

    return read_run(Path(checkpoint).expanduser())


def predictor_of(method: str, profile: config.Profile, has_own_checkpoint: bool = False):
    """The predictor of a method; with `has_own_checkpoint`, SAM2 and SAM 3 also use the named checkpoint."""
    if method in BASELINES:
        from rossam_kit.experiments import baselines

        return baselines.BASELINES[method]()
    from rossam_core.inference.predictor import Predictor
    from rossam_core.model.build import build_model
    from rossam_kit.experiments.experiments import Experiments

    base = Experiments(profile).base(method)
    if has_own_checkpoint:
        base["checkpoint"] = profile.model.checkpoint
    if has_own_checkpoint and _names_run(base["checkpoint"]):
        base["backbone"] = _run_of(base["checkpoint"]).get("backbone", base["backbone"])
    constants = base.pop("architecture")
    model = build_model(method, **base, **constants)
    return Predictor(model, profile.inference, profile.device)


def _settings(options: opt.Options, frames: FrameSet):
    """How to convert: `--jitter` and `--clip-oriented`, which is refused where no box is oriented."""
    from rossam_kit.convert.convert import ConversionConfig

    if options.clip_oriented and not any("oriented_box" in o.attributes for f in frames for o in f.objects):
        remedy = "leave it out; oriented boxes: --source ootb, dota or sat-mtb --boxes obb, or polygons of four corners"
        raise RossamError("--clip-oriented", f"has no effect: {frames.name} holds no oriented box", remedy)
    values = {"clip_oriented": options.clip_oriented} | ({} if options.jitter is None else {"jitter": options.jitter})
    return parse_config(ConversionConfig, values, where="--jitter")


def _workers(options: opt.Options, predictor, frames: int) -> int:
    """As asked for, else one per GPU, or on a CPU one per core as far as memory goes; one on a numbered GPU."""
    device = getattr(predictor, "device", None)
    number = None if device is None else device.index
    if number and (options.engine == "ray" or (options.workers or 1) > 1):
        finding = "has a number, and a worker process sees one GPU only, as cuda:0"
        remedy = "use --device cuda, or leave --workers and --engine out"
        raise RossamError(f"--device {device}", finding, remedy)
    if options.workers is not None:
        return options.workers
    if device is not None and device.type != "cpu":
        import torch

        return max(1, torch.cuda.device_count()) if device.type == "cuda" and number is None else 1
    from rossam_kit.parallel import WORKER_SIDE, worker_count

    network = getattr(predictor, "model", None)  # GrabCut and the like have none
    return worker_count(frames, network.input_size if network else WORKER_SIDE)


def _print_result(conversion, written: Sequence[tuple[str, Path]], review, seconds: float) -> None:
    table, drops = conversion.table, conversion.left_out
    masks, counts = int((table["area"] > 0).sum()), table["status"].value_counts()
    print(f"{'boxes':>9}{'masks':>9}{'empty':>9}{'failed':>9}{'time':>10}")
    row = (len(table), masks, counts.get("empty", 0), counts.get("failed", 0))
    print("".join(f"{count:>9,}" for count in row) + f"{duration(seconds):>10}")
    left_out = sum(drop.boxes for drop in drops)
    if drops:
        print(f"\nleft out (all of it in {conversion.folder / 'records.csv'} and in every export):")
        print_drops(drops)
    print("\nlook at these first:")
    for row in table.sort_values("review_rank").head(WORST).itertuples():
        place = f"{row.video}/{row.frame:06d} #{row.object_id}"
        print(f"  {place:<32} {row.category:<14} {row.looks or 'nothing stands out'}")
    for name, path in written:
        print(f"\n{name}: {path}", end="")
    print(f"\nreview ({review.shown:,} of {review.boxes:,} boxes), open in a browser:\n  {review.page.resolve()}")
    print(f"\n{len(table) + left_out:,} boxes in the input = {len(table):,} converted + {left_out:,} left out")
