"""Masks between their three forms: bool arrays, COCO run-length encoding, polygons.

Rasterising is pycocotools' (the rule by which COCO, NWPU VHR-10 and iSAID are scored everywhere).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Segmentation = Mapping[str, Any] | Sequence[Sequence[float]]


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Bool H×W → COCO run-length encoding `{"size": [h, w], "counts": str}`, JSON-serialisable."""
    rle = coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def to_rle(segmentation: Segmentation, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Run-length encoding of a polygon list, or of an encoding in any of COCO's forms."""
    height, width = (int(side) for side in size_hw)
    if isinstance(segmentation, Mapping):
        check_rle(segmentation, (height, width))
        rle = dict(segmentation)
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, height, width)
    else:
        rle = coco_mask.merge(coco_mask.frPyObjects([list(map(float, p)) for p in segmentation], height, width))
    counts = rle["counts"]
    return {"size": [height, width], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def check_rle(rle: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    """`ValueError` unless the encoding is of this size and its runs fill it.

    pycocotools does not look: of runs that end early it leaves the rest of the mask uninitialised.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple) or tuple(size) != tuple(size_hw):
        raise ValueError(f"mask is encoded for size {size}, the frame is {list(size_hw)} (height, width)")
    runs = np.asarray(counts) if isinstance(counts, list) else _run_lengths(counts)
    pixels = size_hw[0] * size_hw[1]
    if runs.dtype.kind not in "iu" or (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise ValueError("the mask's runs do not fill the frame: its encoding is damaged")


def _run_lengths(counts: Any) -> np.ndarray:
    """Run lengths in a compressed `counts` string, background first.

    COCO's format: 5 bits a character (offset 48), low bits first, bit 5 set where more follow; two's
    complement; from the fourth number on, the difference to the number two before.
    """
    if not isinstance(counts, str | bytes) or not counts:
        raise ValueError(f"the mask's counts are {counts!r}, expected a string or a list of runs")
    text = counts.encode("utf-8") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    is_last = (codes & 32) == 0
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    place = np.arange(codes.size) - np.repeat(starts, np.diff(starts, append=codes.size))
    if codes.min() < 0 or codes.max() > 63 or not is_last[-1] or place.max() > 6:
        raise ValueError("the mask's counts are not COCO's run-length encoding: damaged or cut off")
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[is_last] & 16) != 0
    runs[negative] -= 1 << (5 * (place[is_last][negative] + 1))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def decode(segmentation: Segmentation, size_hw: tuple[int, int]) -> np.ndarray:
    """Bool H×W of a polygon list or a run-length encoding."""
    return coco_mask.decode(to_rle(segmentation, size_hw)).astype(bool)


def extent(segmentation: Segmentation, size_hw: tuple[int, int]) -> np.ndarray | None:
    """Box xyxy around a polygon list's points or an encoding's pixels, without decoding; None where there are none."""
    if isinstance(segmentation, Mapping):
        x, y, width, height = coco_mask.toBbox(to_rle(segmentation, size_hw)).tolist()
        return np.array([x, y, x + width, y + height]) if width and height else None
    points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation])
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Tight xyxy box of a non-empty bool mask, in pixel-edge coordinates."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        raise ValueError("an empty mask has no box")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
