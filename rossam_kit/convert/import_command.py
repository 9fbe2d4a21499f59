"""`rossam import-masks`: corrected masks, joined with a conversion's boxes, as annotations to train on."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rossam_core.errors import RossamError
from rossam_kit.options import example

FORMATS = ("review", "coco", "coco-polygons", "youtube-vis", "mots", "png", "yolo", "cvat", "label-studio", "labelme")
ImportFormat = StrEnum("ImportFormat", {name: name for name in FORMATS})
EXAMPLES = example(
    "rossam import-masks --conversion MASKS --format labelme --out corrected.json",
    "rossam import-masks --conversion MASKS --format cvat --from annotations.xml --out corrected.json",
    "rossam train --annotations corrected.json --data IMAGES --out RUN",
)


def import_command(
    *,
    conversion: Annotated[Path, typer.Option(metavar="DIR", help="folder that rossam convert wrote")],
    format: Annotated[
        ImportFormat, typer.Option(metavar="NAME", help=f"{', '.join(FORMATS)}; review: decisions taken in a notebook")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="COCO file to write, for rossam train and rossam convert")],
    place: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="corrected file or folder; default: where rossam convert put it"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder of the images, if it was moved since the conversion")
    ] = None,
) -> int:
    """Import masks corrected in an editor, matched by track and box, as annotations to train on."""
    from rossam_kit.convert import imports
    from rossam_kit.convert.mask_records import Conversion
    from rossam_kit.datasets.coco import write_coco_index

    opened = Conversion(conversion, data)
    if out.resolve() == imports.place_of(opened, format.value, place).resolve():
        raise RossamError(out, "is read, and would be overwritten", "name another file with --out")
    frames, outcomes = imports.corrected(opened, format.value, place)
    if not frames.object_count:
        raise RossamError(place or conversion, "no mask is left", "name the corrected file of this conversion")
    write_coco_index(frames, out, opened.images)
    print(", ".join(f"{outcomes[name]:,} {name}" for name in imports.OUTCOMES if outcomes[name] or name == "corrected"))
    for drop in frames.drops[len(opened.left_out) :]:
        print(f"  left out: {drop.where}: {drop.reason}")
    command = ["rossam", "train", "--annotations", out, "--data", opened.images, "--out", "RUN"]
    print(f"\n{frames.object_count:,} objects with masks: {out}\nTrain on them:\n  {shlex.join(map(str, command))}")
    return 0
