"""The review page, `review.html`: the worst-looking masks in one file that opens from disk, for those without a kernel.

Decisions are taken in a notebook (`review_panel`).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from rossam_core.boxes import box_problems
from rossam_core.errors import RossamError
from rossam_core.files import write_text
from rossam_kit.convert import quality
from rossam_kit.convert.mask_records import RECORDS, Conversion, FrameRecord, MaskRecord
from rossam_kit.convert.outlines import outline_path

PAGE = "review.html"
CONTEXT, SMALLEST, LARGEST = 2.0, 48, 224
"""A crop's side: twice the box's longer side, at least 48 frame pixels; shown with at most 224 pixels a side."""
JPEG_QUALITY = 85
DECIMALS = {"fragments": 0, "touches_window": 0}


@dataclass(frozen=True)
class ReviewPage:
    """Where the review was written, and how many boxes the page shows of how many."""

    page: Path
    shown: int
    boxes: int


def write_review(
    conversion: Conversion, *, most: int = 600, max_bytes: int = 12_000_000, notice: str = ""
) -> ReviewPage:
    """Write the page into the conversion's folder.

    Args:
        most: boxes on the page, the worst-looking ones.
        max_bytes: bound of the page's size; where it is reached, the page shows fewer boxes and says so.
        notice: what the masks were made of, shown at the head.
    """
    table = conversion.table.sort_values("review_rank")
    page = conversion.folder / PAGE
    cards = _within(_cards(conversion, table.head(most)), max_bytes - len(_render(conversion, table, [], notice)))
    write_text(page, _render(conversion, table, cards, notice))
    return ReviewPage(page, len(cards), len(table))


def _render(conversion: Conversion, table: pd.DataFrame, cards: list[dict], notice: str) -> str:
    loader = jinja2.PackageLoader("rossam_kit.convert", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)  # fmt: skip
    data = json.dumps(cards, separators=(",", ":"), ensure_ascii=False)
    return environment.get_template(PAGE).render(
        name=conversion.manifest["data"]["name"],
        model=conversion.manifest["model"]["method"],
        counts=table["status"].value_counts().to_dict(),
        boxes=len(table),
        shown=len(cards),
        order=RECORDS,
        signs=quality.SIGNS,
        notice=notice,
        cards=Markup(data.replace("<", "\\u003c")),  # no text of the data can end the script
    )


def _within(cards: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """The first cards whose JSON stays within `budget` bytes."""
    texts = [json.dumps(card, separators=(",", ":"), ensure_ascii=False) for card in cards]
    sizes = [len(text.encode("utf-8", "backslashreplace")) + 1 for text in texts]
    return [card for card, end in zip(cards, np.cumsum(sizes), strict=True) if end <= budget]


def _cards(conversion: Conversion, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A card for each row, in their order; every shard and every image is read once."""
    cards: dict[int, dict[str, Any]] = {}
    for shard, of_shard in rows.groupby("shard"):
        frames = {(frame.video, frame.index): frame for frame in conversion.shard(int(shard))}
        for key, of_frame in of_shard.groupby(["video", "frame"]):
            frame = frames[key]
            records = {record.object_id: record for record in frame.objects}
            try:
                image = frame.frame().image()
            except RossamError:
                image = None
            for row in of_frame.to_dict("records"):
                cards[row["review_rank"]] = _card(row, frame, records[row["object_id"]], image)
    return [cards[rank] for rank in rows["review_rank"]]


def _card(row: Mapping[str, Any], frame: FrameRecord, record: MaskRecord, image: np.ndarray | None) -> dict[str, Any]:
    said = quality.looks(row)
    signs = {name: round(row[name], DECIMALS.get(name, 2)) for name in quality.SIGNS if not math.isnan(row[name])}
    card = {
        "rank": row["review_rank"],
        "name": f"{frame.key} #{record.object_id}",
        "category": record.category,
        "status": record.status,
        "score": round(row["review_score"], 3),
        "expected": "" if math.isnan(row["expected_iou"]) else f", expected IoU {row['expected_iou']:.2f}",
        "area": record.area,
        "kinds": [kind for kind, _ in said],
        "looks": [words for _, words in said],
        "signs": signs,
    }
    usable = image is not None and image.shape[:2] == frame.size_hw
    if usable and not box_problems(np.array([record.box_xyxy]), frame.size_hw):
        card |= _picture(record, image)
    return card


def _picture(record: MaskRecord, image: np.ndarray) -> dict[str, Any]:
    """Crop around the box as a JPEG data address; box and outline in the crop's frame pixels."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = record.box_xyxy
    side = math.ceil(max(SMALLEST, CONTEXT * max(x1 - x0, y1 - y0)))
    left, top = (
        int(np.clip(round((low + high - side) / 2), 0, max(length - side, 0)))
        for low, high, length in ((x0, x1, width), (y0, y1, height))
    )
    crop = image[top : top + side, left : left + side]
    piece, (x, y) = record.piece(), record.offset_xy
    return {
        "size": list(crop.shape[1::-1]),
        "image": thumbnail(crop),
        "box": [round(v, 2) for v in (x0 - left, y0 - top, x1 - left, y1 - top)],
        "outline": outline_path(piece),
        "at": [x - left, y - top],
    }


def thumbnail(image: np.ndarray) -> str:
    """uint8 H×W×3 RGB, at most `LARGEST` pixels a side, as a JPEG data address."""
    height, width = image.shape[:2]
    scale = min(LARGEST / max(height, width), 1)
    size = (round(width * scale), round(height * scale))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    return data_address(jpeg, "jpeg")


def data_address(content: bytes, kind: str) -> str:
    """A picture as an address for HTML that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
