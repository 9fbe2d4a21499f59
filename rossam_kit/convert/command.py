"""`rossam convert`: boxes of a tracking dataset to masks, in the forms asked for, with a page to review them.

In: options. Out: a folder of masks (`conversion.records`), exports and review in it, and a short table on the screen.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from tqdm.auto import tqdm

from rossam_core.boxes import CONVENTIONS
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import cache_dir, read_json
from rossam_core.progress import duration
from rossam_core.records import Drop, FrameSet
from rossam_core.settings import Method, parse_config
from rossam_kit import config

RECORDS = "records.csv"
BASELINES = ("box", "ellipse", "grabcut")
FORMATS = ("coco", "coco-polygons", "youtube-vis", "mots", "png", "authors", "yolo")
SAT_MTB_BOXES = ("seg", "hbb", "obb", "mot")
SCENE_FORMATS = ("gpkg", "geojson", "label-map")
WORST = 5


def add_parser(commands, read_settings: Callable[[Sequence[str]], dict[str, Any]]) -> None:
    """Add `convert` to the command line; `read_settings` turns KEY=VALUE texts into profile overrides."""
    parser = commands.add_parser("convert", help="make a mask for every box of a tracking dataset; resumes")
    out_help = "a new folder, or that of a conversion to go on with"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out_help)
    parser.add_argument("--profile", default="demo", help="demo (default: generated video), nwpu, …, or a YAML file")
    parser.add_argument("--source", help="reader of the data: synthetic, nwpu-vhr10, coco, sat-mtb, ootb, dota, …")
    parser.add_argument(
        "--data", metavar="PATH", help="folder of the data; with --annotations, of its images, or a GeoTIFF or VRT"
    )
    annotations_help = "boxes in a COCO file anywhere; of a GeoTIFF or VRT also as GeoJSON, GeoPackage or shapefile"
    parser.add_argument("--annotations", type=Path, metavar="FILE", help=annotations_help)
    parser.add_argument(
        "--pixels", action="store_true", help="boxes of a GeoJSON, … are columns and rows of the raster"
    )
    class_help = "attribute with the class in a GeoJSON, … (default: class, category, label, name or type)"
    parser.add_argument("--class-field", metavar="NAME", help=class_help)
    convention_help = "what bbox of a COCO file holds (default: xywh, refused where the boxes look like another)"
    parser.add_argument("--box-convention", choices=CONVENTIONS, help=convention_help)
    parser.add_argument("--keep-crowd", action="store_true", help="take iscrowd annotations of a COCO file as objects")
    skip_help = "leave out annotations of a COCO file that cannot be used; each is listed with its reason"
    parser.add_argument("--skip-bad", action="store_true", help=skip_help)
    parser.add_argument("--split", choices=get_args(config.Split), help="default: the split the source is scored on")
    bands_help = "bands shown as red, green, blue (or one as gray), numbered from 1; default: the first three"
    parser.add_argument("--bands", metavar="R,G,B", help=bands_help)
    stretch_help = "full (default: the bit depth's range), percentiles, percentiles:LO,HI, or LO,HI; one for all images"
    parser.add_argument("--stretch", metavar="HOW", help=stretch_help)
    boxes_help = "boxes of --source sat-mtb: of polygons (seg, default), upright, oriented (around them), of tracks"
    parser.add_argument("--boxes", choices=SAT_MTB_BOXES, help=boxes_help)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N frames")
    method_help = "default: that of the run named by --checkpoint, else hq-sam"
    parser.add_argument("--method", choices=(*get_args(Method), *BASELINES), help=method_help)
    parser.add_argument("--checkpoint", metavar="PATH", help="a fine-tuning run's folder, or a weights file")
    parser.add_argument(
        "--format", action="append", default=[], choices=(*FORMATS, *SCENE_FORMATS), help="export so; may be repeated"
    )
    jitter_help = "moved boxes tried for each box (default 4); 0 is fastest, and judges masks less well"
    parser.add_argument("--jitter", type=int, metavar="N", help=jitter_help)
    clip_help = "cut masks off at their oriented boxes (ootb, dota, sat-mtb --boxes obb, turned polygons of a GIS file)"
    parser.add_argument("--clip-oriented", action="store_true", help=clip_help)
    parser.add_argument("--engine", default="local", choices=("local", "ray"))
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: one a processor core, or a GPU")
    parser.add_argument("--device", help="cpu, cuda, mps; default: the best there is")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile key")
    parser.set_defaults(command=lambda options: run(options, read_settings(options.set)))


def run(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Convert, export, write the review, and tell what came of it; 1 where no box got a mask."""
    from rossam_kit.convert import geo, geo_exports
    from rossam_kit.convert.convert import boxes_only, convert
    from rossam_kit.convert.exports import EXPORTS, check
    from rossam_kit.convert.review import write_review

    started, requested = time.time(), dict(overrides)
    options.method = options.method or _method_of(options.checkpoint)
    profile = _profile(options, overrides)
    _refuse_without_effect(options, profile, requested)
    frames = boxes_only(_frames(options, profile))
    if not frames.object_count:
        _refuse_nothing(frames)
    formats = dict.fromkeys(options.format)
    check(frames, formats)
    geo_exports.check(frames, formats)
    if geo.is_scene(options.data, options.annotations):
        print(geo.describe(frames) + "\n")
    predictor = _predictor(options.method, profile, options.checkpoint is not None)
    settings = _settings(options, frames)
    workers = options.workers if options.workers is not None else _default_workers(predictor)
    with tqdm(total=len(frames), desc="frames", leave=False, disable=None) as bar:
        conversion = convert(
            predictor, frames, options.out, settings, engine=options.engine, workers=workers, progress=bar.update
        )
    review = write_review(conversion, notice=profile.notice if options.data is None else "")
    written = []
    for name in formats:
        place, write = (EXPORTS | geo_exports.EXPORTS)[name]
        written.append((name, write(conversion, conversion.folder / place)))
    _print_result(conversion, written, review, time.time() - started)
    return 0 if (conversion.table["area"] > 0).any() else 1


def _refuse_nothing(frames: FrameSet) -> None:
    """Raise the error that says why there is no box to convert."""
    if not frames.input_boxes:
        raise RossamError(frames.name, f"{len(frames)} frames hold no box", "name another split or a higher --limit")
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count, _ in _by_reason(frames.drops) if count)
    found = f"each of the {frames.input_boxes:,} boxes is left out ({reasons})"
    is_crowd = any(drop.reason.startswith("iscrowd") for drop in frames.drops)
    remedy = "take such regions as objects with --keep-crowd" if is_crowd else "correct the annotations"
    raise RossamError(frames.name, found, remedy)


def _by_reason(drops: Sequence[Drop]) -> list[tuple[str, int, list[Drop]]]:
    """Reason without its values (`[…]`, numbers), boxes left out for it, and those drops; most boxes first."""
    groups: dict[str, list[Drop]] = {}
    for drop in drops:
        groups.setdefault(re.sub(r"\[[^]]*\]|'[^']*'|-?\d[\d.]*", "…", drop.reason), []).append(drop)
    shown = [(of[0].reason if len(of) == 1 else reason, sum(d.boxes for d in of), of) for reason, of in groups.items()]
    return sorted(shown, key=lambda group: -group[1])


def _profile(options: argparse.Namespace, overrides: dict[str, Any]) -> config.Profile:
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
    overrides.setdefault("inference.growth", "context")  # whole objects are wanted, not the paper's fixed windows
    profile = config.load_profile(options.profile, overrides)
    made = profile.data.synthetic
    if options.limit and profile.data.source == "synthetic":
        split, a_video = options.split or "test", -(-made.frames_per_video // made.frame_stride)
        videos = min(getattr(made, f"{split}_videos"), -(-options.limit // a_video))
        made = made.model_copy(update={f"{split}_videos": videos})
    return profile.model_copy(update={"data": profile.data.model_copy(update={"synthetic": made})})


def _frames(options: argparse.Namespace, profile: config.Profile):
    from rossam_kit.convert.geo import is_scene
    from rossam_kit.datasets.coco import read_coco
    from rossam_kit.datasets.images import with_reading
    from rossam_kit.datasets.loading import load_frames, root_of, scored_split
    from rossam_kit.datasets.sat_mtb import read_sat_mtb

    data = profile.data
    if is_scene(options.data, options.annotations):
        frames = _scene(options, data)
    elif options.annotations:
        frames = read_coco(
            options.annotations,
            data.root,
            name=options.annotations.stem,
            box_convention=data.box_convention,
            keep_crowd=data.keep_crowd,
            skip_bad=data.skip_bad,
        )
        frames = with_reading(frames, data)
    elif options.boxes:
        frames = with_reading(read_sat_mtb(root_of(data), options.split or scored_split(data), options.boxes), data)
    else:
        frames = load_frames(data, options.split or scored_split(data), cache_dir())
    beyond = frames.frames[options.limit :] if options.limit else ()
    drops = [
        Drop(f"{f.key} object {o.object_id}", f"beyond --limit {options.limit}", 1) for f in beyond for o in f.objects
    ]
    return frames.subset(frames.frames[: options.limit], drops)


def _scene(options: argparse.Namespace, data: config.DataConfig) -> FrameSet:
    """Tiles of a raster around the boxes of a GIS or COCO file."""
    from rossam_kit.convert.geo import read_scene

    if options.annotations is None or options.data is None:
        remedy = "name both: --data scene.tif --annotations boxes.geojson"
        raise RossamError("rossam convert", "a scene is a raster and a file of its boxes", remedy)
    return read_scene(options.data, options.annotations, data, pixels=options.pixels, class_field=options.class_field)


def _refuse_without_effect(options: argparse.Namespace, profile: config.Profile, overrides: dict[str, Any]) -> None:
    """Raise `RossamError` where options are set that this method and source would ignore, all at once."""
    from rossam_kit.convert.geo import ignored_options

    method, source, problems = options.method, profile.data.source, ProblemList("rossam convert")
    if options.annotations:
        ignored = {"--split": options.split, "--source": options.source if options.source != "coco" else None}
        ignored |= {
            f"--set {key}": True for key in ("data.root", "data.source", "data.limit_frames") if key in overrides
        }
        problems.extend((option, "has no effect with --annotations") for option, value in ignored.items() if value)
    elif options.data and source == "synthetic":
        problems.add(f"--data {options.data}", f"has no effect: the source of profile {profile.name} is synthetic")
    problems.extend(ignored_options(options))
    if options.boxes:
        ignored = [key for key in ("data.sample", "data.limit_frames") if any(k.startswith(key) for k in overrides)]
        problems.extend((f"--set {key}", "has no effect with --boxes, which takes all frames") for key in ignored)
        if source != "sat-mtb" or options.annotations:
            problems.add(f"--boxes {options.boxes}", "is about the dataset sat-mtb: name it with --source sat-mtb")
        if options.split == "val":
            problems.add("--split val", "is held out of polygons only; --boxes has train and test")
    if method in BASELINES:
        ignored = {"--checkpoint": options.checkpoint, "--device": options.device}
        problems.extend((o, f"has no effect: {method} has no network") for o, value in ignored.items() if value)
    twice = {"--device": "device", "--checkpoint": "model.checkpoint", "--source": "data.source", "--data": "data.root"}
    for option, key in twice.items():
        if key in overrides and getattr(options, option[2:]) not in (None, overrides[key]):
            problems.add(option, f"says {getattr(options, option[2:])}, --set {key} says {overrides[key]}")
    reasons = config.without_effect(profile, overrides)
    for key in overrides:
        reason = reasons.get(key) or _not_for(method, key, options.checkpoint)
        if reason:
            problems.add(f"--set {key}", reason)
    remedy = "leave these out" if source != "synthetic" else "leave these out, or name the data's reader with --source"
    problems.raise_if_any(remedy)


def _not_for(method: str, key: str, checkpoint: str | None) -> str:
    """Why a method does not look at a profile key; empty where it does."""
    group, _, name = key.partition(".")
    name = name.split(".")[0]
    if group not in ("data", "model", "inference", "device", "notice"):
        return "has no effect on a conversion"
    if method in BASELINES:
        return f"has no effect: {method} has no network" if group in ("model", "inference", "device") else ""
    if group != "model":
        return ""
    if method == "sam2" and name in ("backbone", "architecture", "checkpoint"):
        return "is SAM's; SAM2 has model.sam2_backbone and --checkpoint"
    if method != "sam2" and name == "sam2_backbone":
        return f"is SAM2's; {method} has model.backbone"
    if name == "recipe":
        return "has no effect on a conversion"
    if name in ("architecture", "backbone") and checkpoint and _run_file(checkpoint).is_file():
        return f"has no effect: the run {checkpoint} has its own"
    return ""


def _run_file(checkpoint: str) -> Path:
    return Path(checkpoint).expanduser() / "run.json"


def _method_of(checkpoint: str | None) -> str:
    """The method of a fine-tuning run, hq-sam where no run is named."""
    is_run = checkpoint is not None and _run_file(checkpoint).is_file()
    return read_json(_run_file(checkpoint)).get("run", {}).get("method", "hq-sam") if is_run else "hq-sam"


def _predictor(method: str, profile: config.Profile, has_own_checkpoint: bool = False):
    """What answers prompts; a checkpoint named for this very method counts for SAM2, too."""
    if method in BASELINES:
        from rossam_kit.experiments import baselines

        by_name = (baselines.BoxBaseline, baselines.EllipseBaseline, baselines.GrabCutBaseline)
        return dict(zip(BASELINES, by_name, strict=True))[method]()
    from rossam_core.inference.predictor import Predictor
    from rossam_core.model.build import build_model
    from rossam_kit.experiments.experiments import Experiments

    base = Experiments(profile).base(method)
    if has_own_checkpoint:
        base["checkpoint"] = profile.model.checkpoint
    if has_own_checkpoint and _run_file(base["checkpoint"]).is_file():
        base["backbone"] = read_json(_run_file(base["checkpoint"]))["run"]["backbone"]
    constants = base.pop("architecture")
    model = build_model(method, **base, **constants)
    return Predictor(model, profile.inference, profile.device)


def _settings(options: argparse.Namespace, frames: FrameSet):
    """How to convert: `--jitter` and `--clip-oriented`, which is refused where no box is oriented."""
    from rossam_kit.convert.convert import ConversionConfig

    if options.clip_oriented and not any("oriented_box" in o.attributes for f in frames for o in f.objects):
        remedy = "leave it out; oriented boxes: --source ootb, dota or sat-mtb --boxes obb, or polygons of four corners"
        raise RossamError("--clip-oriented", f"has no effect: {frames.name} holds no oriented box", remedy)
    values = {"clip_oriented": options.clip_oriented} | ({} if options.jitter is None else {"jitter": options.jitter})
    return parse_config(ConversionConfig, values, where="--jitter")


def _default_workers(predictor) -> int:
    """One a GPU; on other processors one a core, each with one thread."""
    device = getattr(predictor, "device", None)
    if device is not None and device.type != "cpu":
        import torch

        return max(1, torch.cuda.device_count()) if device.type == "cuda" else 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print_result(conversion, written: Sequence[tuple[str, Path]], review, seconds: float) -> None:
    table, drops = conversion.table, conversion.left_out
    masks, counts = int((table["area"] > 0).sum()), table["status"].value_counts()
    print(f"{'boxes':>9}{'masks':>9}{'empty':>9}{'failed':>9}{'time':>10}")
    row = (len(table), masks, counts.get("empty", 0), counts.get("failed", 0))
    print("".join(f"{count:>9,}" for count in row) + f"{duration(seconds):>10}")
    left_out = sum(drop.boxes for drop in drops)
    if drops:
        print(f"\nleft out (all of it in {conversion.folder / RECORDS} and in every export):")
    for reason, boxes, of_reason in _by_reason(drops):
        entries = f"{boxes:,} boxes" if boxes else f"{len(of_reason):,} without boxes"
        hint = "; --keep-crowd takes them as objects" if reason.startswith("iscrowd") else ""
        print(f"  {entries}: {reason}{hint} (first: {of_reason[0].where})")
    print("\nlook at these first:")
    for row in table.sort_values("review_rank").head(WORST).itertuples():
        place = f"{row.video}/{row.frame:06d} #{row.object_id}"
        print(f"  {place:<32} {row.category:<14} {row.looks or 'nothing stands out'}")
    for name, path in written:
        print(f"\n{name}: {path}", end="")
    print(f"\nreview ({review.shown:,} of {review.boxes:,} boxes), open in a browser:\n  {review.page.resolve()}")
    print(f"\n{len(table) + left_out:,} boxes in the input = {len(table):,} converted + {left_out:,} left out")
