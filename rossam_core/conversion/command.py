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

from .. import config
from ..data.boxes import CONVENTIONS
from ..data.records import Drop, FrameSet
from ..errors import RossamError
from ..files import cache_dir
from ..progress import duration

RECORDS = "records.csv"
BASELINES = ("box", "ellipse", "grabcut")
FORMATS = ("coco", "coco-polygons", "youtube-vis", "mots", "png", "authors", "yolo")
WORST = 5


def add_parser(commands, read_settings: Callable[[Sequence[str]], dict[str, Any]]) -> None:
    """Add `convert` to the command line; `read_settings` turns KEY=VALUE texts into profile overrides."""
    parser = commands.add_parser("convert", help="make a mask for every box of a tracking dataset; resumes")
    out_help = "a new folder, or that of a conversion to go on with"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out_help)
    parser.add_argument("--profile", default="demo", help="demo (default: generated video), nwpu, …, or a YAML file")
    parser.add_argument("--source", help="reader of the data: synthetic, nwpu-vhr10, coco, …")
    parser.add_argument("--data", metavar="DIR", help="folder of the data; with --annotations, of its images")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="a COCO file anywhere, with boxes")
    convention_help = "what bbox of a COCO file holds (default: xywh, refused where the boxes look like another)"
    parser.add_argument("--box-convention", choices=CONVENTIONS, help=convention_help)
    parser.add_argument("--keep-crowd", action="store_true", help="take iscrowd annotations of a COCO file as objects")
    skip_help = "leave out annotations of a COCO file that cannot be used; each is listed with its reason"
    parser.add_argument("--skip-bad", action="store_true", help=skip_help)
    parser.add_argument("--split", choices=get_args(config.Split), help="default: the split the source is scored on")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N frames")
    parser.add_argument("--method", default="ros-sam", choices=(*get_args(config.Method), *BASELINES))
    parser.add_argument("--checkpoint", metavar="PATH", help="a fine-tuning run's folder, or a weights file")
    parser.add_argument("--format", action="append", default=[], choices=FORMATS, help="export so; may be repeated")
    jitter_help = "moved boxes tried for each box (default 4); 0 is fastest, and judges masks less well"
    parser.add_argument("--jitter", type=int, metavar="N", help=jitter_help)
    parser.add_argument("--engine", default="local", choices=("local", "ray"))
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: one a processor core, or a GPU")
    parser.add_argument("--device", help="cpu, cuda, mps; default: the best there is")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile key")
    parser.set_defaults(command=lambda options: run(options, read_settings(options.set)))


def run(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Convert, export, write the review, and tell what came of it; 1 where no box got a mask."""
    from .convert import ConversionConfig, boxes_only, convert
    from .exports import EXPORTS, check
    from .review import write_review

    started = time.time()
    profile = _profile(options, overrides)
    frames = boxes_only(_frames(options, profile))
    if not frames.object_count:
        _refuse_nothing(frames)
    formats = dict.fromkeys(options.format)
    check(frames, formats)
    predictor = _predictor(options.method, profile)
    settings = ConversionConfig() if options.jitter is None else _with_jitter(options.jitter)
    workers = options.workers if options.workers is not None else _default_workers(predictor)
    with tqdm(total=len(frames), desc="frames", leave=False, disable=None) as bar:
        conversion = convert(
            predictor, frames, options.out, settings, engine=options.engine, workers=workers, progress=bar.update
        )
    review = write_review(conversion, notice=profile.notice if options.data is None else "")
    written = []
    for name in formats:
        place, write = EXPORTS[name]
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
    if options.device:
        overrides["device"] = options.device
    profile = config.load_profile(options.profile, overrides)
    made = profile.data.synthetic
    if options.limit and profile.data.source == "synthetic":
        split, a_video = options.split or "test", -(-made.frames_per_video // made.frame_stride)
        videos = min(getattr(made, f"{split}_videos"), -(-options.limit // a_video))
        made = made.model_copy(update={f"{split}_videos": videos})
    return profile.model_copy(update={"data": profile.data.model_copy(update={"synthetic": made})})


def _frames(options: argparse.Namespace, profile: config.Profile):
    from ..data.coco import read_coco
    from ..data.loading import load_frames, scored_split

    data = profile.data
    if options.annotations:
        frames = read_coco(
            options.annotations,
            data.root,
            name=options.annotations.stem,
            box_convention=data.box_convention,
            keep_crowd=data.keep_crowd,
            skip_bad=data.skip_bad,
        )
    else:
        frames = load_frames(data, options.split or scored_split(data), cache_dir())
    beyond = frames.frames[options.limit :] if options.limit else ()
    drops = [Drop(f"{f.key} object {o.object_id}", f"beyond --limit {options.limit}", 1) for f in beyond for o in f.objects]
    return frames.subset(frames.frames[: options.limit], drops)


def _predictor(method: str, profile: config.Profile):
    if method in BASELINES:
        from ..evaluation import baselines

        by_name = (baselines.BoxBaseline, baselines.EllipseBaseline, baselines.GrabCutBaseline)
        return dict(zip(BASELINES, by_name, strict=True))[method]()
    from ..inference.predictor import Predictor
    from ..model.rossam import build_model

    model = build_model(method, profile.model.backbone, profile.model.checkpoint, profile.model.recipe)
    return Predictor(model, profile.inference, profile.device)


def _with_jitter(count: int):
    from .convert import ConversionConfig

    return config.parse_config(ConversionConfig, {"jitter": count}, where="--jitter")


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
