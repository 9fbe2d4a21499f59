"""Quality of masks without ground truth: signs of each mask, a review score, and how well both predict the true IoU.

Signs are computed from a mask, its logits, its box, and the masks of jittered boxes; the score is in [0, 1] over all
records. Symbols: M the mask's pixels, B the box's (those whose centre lies in it), IoU as in `rossam_core.metrics`.

Signs measure how far a mask departs from the properties of good masks: stable under small changes of box and threshold,
connected, inside its box, set off from the background, similar from frame to frame. A mask that is consistently wrong
(the bright deck of a ship in every frame) scores well; `agreement` measures how often that happens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from rossam_core.files import read_json
from rossam_core.metrics import mask_iou
from rossam_core.records import Box, Frame
from rossam_kit.convert.mask_records import Conversion, MaskRecord
from rossam_kit.experiments.baselines import box_pixels
from rossam_kit.experiments.statistics import Interval, mean_interval

THRESHOLD_OFFSET = 1.0
"""Logits the threshold is moved by, up and down (segment_anything's default)."""
CONTRAST_WIDTH = 3
"""Pixels that `contrast` looks at on each side of an outline."""
SHAPE_CELLS, SHAPE_REACH = 24, 1.25
"""Shapes are compared on a grid of 24×24 cells over 1.25 × the box, so that only the form counts and not the place."""

SIGNS: Mapping[str, str] = {
    "predicted_iou": "the decoder's estimate of the IoU, made for SAM's mask, also where the HQ mask is taken",
    "jitter_stability": "mean IoU with the masks of slightly moved and resized boxes",
    "threshold_stability": "area at a stricter threshold over area at a looser one",
    "temporal_consistency": "IoU with the object's shape in the frames before and after, boxes laid over each other",
    "contrast": "difference of the colours on both sides of its outline, in units of their spread",
    "fill": "share of the box that the mask covers",
    "leakage": "share of the mask outside the box",
    "fragments": "number of separate pieces",
    "touches_window": "1 where the mask reaches the edge of the window it was made in, inside the frame",
}
HIGH_IS_BAD = ("leakage", "fragments", "touches_window")
SCORED = (
    *("predicted_iou", "jitter_stability", "threshold_stability", "contrast", "leakage", "fragments", "touches_window"),
)
"""What `review_score` averages. `contrast` was chosen among further signs (fit of box and mask, gradient along the
outline, solidity, compactness) by cross-validation over the videos and images that `expected_iou` is fitted on.
`temporal_consistency` and `fill` are recorded only: on the train and val splits of the generated video, with the
shipped prior, neither ordered masks by their true IoU, and counting them made the score's order worse. Notebook 11
measures all of them on the test split."""

LOOKS = (
    ("predicted_iou", "below", 0.5, "the model expects a poor mask ({:.2f})"),
    ("jitter_stability", "below", 0.75, "changes when the box moves a little ({:.2f})"),
    ("threshold_stability", "below", 0.5, "changes with the threshold ({:.2f})"),
    ("contrast", "below", 0.2, "hardly differs from what is around it ({:.2f})"),
    ("temporal_consistency", "below", 0.5, "unlike the frames before and after ({:.2f})"),
    ("fill", "below", 0.15, "covers {:.0%} of its box"),
    ("fill", "above", 0.97, "covers {:.0%} of its box"),
    ("leakage", "above", 0.1, "{:.0%} of it lies outside its box"),
    ("fragments", "above", 1, "{:.0f} pieces"),
    ("touches_window", "above", 0, "reaches the window's edge"),
)
"""Sign, side, bound, words: what stands out enough to be said. Ours; they choose words and filters, not the order."""

CALIBRATION = Path(__file__).with_name("quality_calibration.json")
"""Weights of `expected_iou`, what they were fitted on, and how well they do on other objects."""


# --- signs of one mask ------------------------------------------------------------------------------------------------


def jittered(box_xyxy: Box, count: int, fraction: float, size_hw: tuple[int, int], key: Sequence) -> np.ndarray:
    """`count` boxes around one: each side moved by up to ± `fraction` of the box's width or height, uniformly.

    What is drawn depends on `key` alone (seed and names), not on what was drawn for other boxes. A box moved wholly
    out of the frame is replaced by the original.

    Returns:
        float64 count×4 xyxy, frame pixels.
    """
    digest = hashlib.sha256("\n".join(map(str, key)).encode("utf-8", "surrogateescape")).digest()
    rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    box = np.asarray(box_xyxy, dtype=np.float64)
    sides = np.tile(box[2:] - box[:2], 2)
    boxes = box + rng.uniform(-fraction, fraction, (count, 4)) * sides
    outside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, 0] >= size_hw[1]) | (boxes[:, 1] >= size_hw[0])
    boxes[outside] = box
    return boxes


def threshold_stability(logits: np.ndarray, threshold: float, offset: float = THRESHOLD_OFFSET) -> float | None:
    """|{logit > t + offset}| / |{logit > t − offset}|: SAM's stability score, in [0, 1]; None where both are empty."""
    loose = np.count_nonzero(logits > threshold - offset)
    return np.count_nonzero(logits > threshold + offset) / loose if loose else None


Piece = tuple[np.ndarray, tuple[int, int]]
"""A bool h×w rectangle of a frame that holds a mask whole, and the frame pixel of its first pixel."""


def jitter_stability(piece: Piece, others: Sequence[Piece]) -> float | None:
    """Mean IoU of a mask with others of the same frame; None without others."""
    return float(np.mean([piece_iou(piece, other) for other in others])) if len(others) else None


def piece_iou(a: Piece, b: Piece) -> float:
    """`mask_iou` of two masks, computed on the rectangle that holds both pieces."""
    corner = np.minimum(a[1], b[1])
    end = np.maximum(*(np.array(offset) + piece.shape[::-1] for piece, offset in (a, b)))
    masks = np.zeros((2, *(end - corner)[::-1]), dtype=bool)
    for mask, (piece, offset) in zip(masks, (a, b), strict=True):
        x, y = np.array(offset) - corner
        mask[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
    return mask_iou(*masks)


def shape_signs(piece: np.ndarray, offset_xy: tuple[int, int], box_xyxy: Box, size_hw: tuple[int, int]) -> dict:
    """`fill` |M ∩ B| / |B|, `leakage` |M − B| / |M| and `fragments` (8-connected) of a mask.

    Args:
        piece: bool h×w, a rectangle of the frame that holds the whole mask.
        offset_xy: frame pixel of its first pixel.

    Returns:
        The three by name; None where B or M has no pixel.
    """
    x0, y0, x1, y1 = box_pixels(np.asarray(box_xyxy), size_hw)
    left, top = offset_xy
    rows, columns = (slice(max(a - o, 0), max(b - o, 0)) for a, b, o in ((y0, y1, top), (x0, x1, left)))
    area, inside = np.count_nonzero(piece), np.count_nonzero(piece[rows, columns])
    box_area = max(x1 - x0, 0) * max(y1 - y0, 0)
    pieces = cv2.connectedComponents(piece.astype(np.uint8), connectivity=8)[0] - 1
    return {
        "fill": inside / box_area if box_area else None,
        "leakage": (area - inside) / area if area else None,
        "fragments": pieces if area else None,
    }


def contrast(image: np.ndarray, piece: np.ndarray, offset_xy: tuple[int, int]) -> float | None:
    """‖μ_in − μ_out‖ / √(Σσ²_in + Σσ²_out + 1) of the RGB values on the two sides of a mask's outline.

    In: mask pixels up to `CONTRAST_WIDTH` from its edge. Out: pixels 2 to `CONTRAST_WIDTH` beyond it, as the next one
    is often mixed.

    Args:
        image: uint8 H×W×3, the frame.
        piece: bool h×w, a rectangle of the frame that holds the whole mask.
        offset_xy: frame pixel of its first pixel.

    Returns:
        None where one side has no pixel.
    """
    (x, y), (h, w), (height, width), square = offset_xy, piece.shape, image.shape[:2], np.ones((3, 3), dtype=np.uint8)
    left, top, right, bottom = (min(CONTRAST_WIDTH, room) for room in (x, y, width - x - w, height - y - h))
    mask = np.pad(piece, ((top, bottom), (left, right))).astype(np.uint8)
    pixels = image[y - top : y + h + bottom, x - left : x + w + right].astype(np.float64)
    inside = mask > cv2.erode(mask, square, iterations=CONTRAST_WIDTH)
    outside = cv2.dilate(mask, square, iterations=CONTRAST_WIDTH) > cv2.dilate(mask, square)
    if not (inside.any() and outside.any()):
        return None
    difference = pixels[inside].mean(axis=0) - pixels[outside].mean(axis=0)
    variance = pixels[inside].var(axis=0) + pixels[outside].var(axis=0)
    return float(np.linalg.norm(difference) / np.sqrt(variance.sum() + 1))


def touches_window(piece: np.ndarray, offset_xy: tuple[int, int], size_hw: tuple[int, int]) -> bool:
    """Whether a mask reaches the edge of its window where that is not the frame's edge.

    Args:
        piece: bool h×w of an `ObjectMask`: it has a margin around the mask wherever the window goes on, so a mask at
            its edge is at the window's.
    """
    (x, y), (h, w), (height, width) = offset_xy, piece.shape, size_hw
    edges = ((piece[:, 0], x > 0), (piece[:, -1], x + w < width), (piece[0], y > 0), (piece[-1], y + h < height))
    return any(inside_frame and bool(edge.any()) for edge, inside_frame in edges)


def aligned_shape(record: MaskRecord) -> np.ndarray | None:
    """The mask on a grid laid over its box, bool 24×24: the same for the same form at any place and size.

    None where there is no mask.
    """
    if not record.has_mask:
        return None
    x0, y0, x1, y1 = record.box_xyxy
    steps = ((np.arange(SHAPE_CELLS) + 0.5) / SHAPE_CELLS - 0.5) * SHAPE_REACH + 0.5
    piece, (left, top) = np.pad(record.piece(), 1), record.offset_xy  # background on each side to clamp to
    columns = np.floor(x0 + steps * (x1 - x0)).astype(int) - left + 1
    rows = np.floor(y0 + steps * (y1 - y0)).astype(int) - top + 1
    height, width = piece.shape
    return piece[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]


class TrackMemory:
    """`temporal_consistency` of records that come frame by frame, with one shape per track in memory.

    The sign is the mean IoU of a record's shape with those of the same object (`video`, `object_id`) in the frames
    before and after in the order given; NaN where the object has no mask there.
    """

    def __init__(self):
        self._last: dict[tuple[str, int], tuple[int, np.ndarray | None]] = {}
        self._found: list[list[float]] = []

    def add(self, video: str, record: MaskRecord) -> None:
        """The next record, in the order of the frames."""
        row, shape = len(self._found), aligned_shape(record)
        self._found.append([])
        before, last = self._last.get((video, record.object_id), (-1, None))
        if shape is not None and last is not None:
            iou = mask_iou(np.unpackbits(last).reshape(shape.shape).astype(bool), shape)
            self._found[row].append(iou)
            self._found[before].append(iou)
        self._last[video, record.object_id] = (row, None if shape is None else np.packbits(shape))

    def values(self) -> np.ndarray:
        """One value a record added, float64."""
        return np.array([np.mean(ious) if ious else np.nan for ious in self._found], dtype=np.float64)


# --- all records ------------------------------------------------------------------------------------------------------


def review_score(table: pd.DataFrame) -> pd.Series:
    """How badly each record looks beside the others, in [0, 1]; 1 where there is no mask.

    For each sign of `SCORED`, the share of the records with a mask that look better by it (of equal ones and itself,
    half); and of these shares the mean, without weights. Signs that a record lacks, or that are the same for all, are
    left out. It says nothing about how bad a mask is: with good masks throughout, one mask is always last.
    """
    has_mask = table["area"] > 0
    signs, ranks = table[has_mask], {}
    for name in SCORED:
        if signs[name].nunique() > 1:
            ranks[name] = (signs[name].rank(ascending=name in HIGH_IS_BAD) - 0.5) / signs[name].count()
    score = pd.Series(1.0, index=table.index)
    score[has_mask] = pd.DataFrame(ranks, index=signs.index, dtype="float64").mean(axis=1).fillna(0.0)
    return score


def expected_iou(table: pd.DataFrame) -> pd.Series:
    """The IoU with the truth to be expected of each mask by its signs, in [0, 1]; 0 where there is no mask.

    A logistic function of the signs in `CALIBRATION`, each of which moves it one way only. It was fitted on masks of
    HQ-SAM with the shipped prior (`tools/calibrate_quality.py`): for another network or other images it is an order
    on a familiar scale. NaN where a sign was not measured (`jitter=0`, methods without logits).
    """
    fitted, signs = read_json(CALIBRATION), features(table)
    score = fitted["intercept"] + sum(weight * signs[name] for name, weight in fitted["weights"].items())
    return (1 / (1 + np.exp(-score))).where(table["area"] > 0, 0.0)


def features(table: pd.DataFrame) -> pd.DataFrame:
    """The signs of `SCORED` as `expected_iou` weighs them: more than four fragments count as four."""
    return table[list(SCORED)].astype(float).assign(fragments=table["fragments"].astype(float).clip(upper=4))


def looks(row: Mapping) -> list[tuple[str, str]]:
    """What stands out in a record: (status or sign, words) pairs; empty where nothing does."""
    said = [(row["status"], row["reason"])] if row["status"] != "ok" or row["reason"] else []
    for name, side, bound, words in LOOKS:
        value = row[name]
        if row["area"] and not pd.isna(value) and (value < bound if side == "below" else value > bound):
            said.append((name, words.format(value)))
    return said


# --- how far to trust it ----------------------------------------------------------------------------------------------


def with_true_iou(conversion: Conversion, frames: Sequence[Frame]) -> pd.DataFrame:
    """The conversion's table with a column `iou` where `frames`, the same in the same order, know the true masks."""
    ious = []
    for converted, frame in zip(conversion, frames, strict=True):
        for record, truth in zip(converted.objects, frame.objects, strict=True):
            size_hw = converted.size_hw
            ious.append(mask_iou(record.full(size_hw), truth.mask(size_hw)) if truth.has_mask else np.nan)
    return conversion.table.assign(iou=ious)


def spearman(table: pd.DataFrame, value: str) -> Interval:
    """Rank correlation of a column with the column `iou`, with an interval over videos.

    With a, b the ranks brought to mean 0 and variance 1, ρ = mean(ab). To first order a unit moves it by
    ab − ρ(a² + b²)/2, so the interval is that of the mean of ρ + that (`statistics.mean_interval`), ranks kept.
    """
    pairs = table.dropna(subset=[value, "iou"])
    a, b = (pairs[name].rank() for name in (value, "iou"))
    if len(pairs) < 2 or a.nunique() < 2 or b.nunique() < 2:
        return Interval(np.nan, (), len(pairs), pairs["video"].nunique(), note="the same for all")
    a, b = ((ranks - ranks.mean()) / ranks.std(ddof=0) for ranks in (a, b))
    rho = float((a * b).mean())
    units = pairs[["video", "frame", "object_id"]].assign(rho=rho + a * b - rho * (a**2 + b**2) / 2)
    return mean_interval(units, "rho")


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How well each sign orders masks by true IoU: Spearman's ρ, positive where well-looking masks are good ones.

    Args:
        table: of `with_true_iou`; records without a mask are left out, as they need no sign.

    Returns:
        Rows `sign`, `spearman`, `low`, `high`, `n`, the score first.
    """
    table, rows = table[table["area"] > 0], []
    for name in ("review_score", *SIGNS):
        direction = -1.0 if name in ("review_score", *HIGH_IS_BAD) else 1.0
        correlation = spearman(table.assign(**{name: direction * table[name]}), name)
        low, high = np.clip([correlation.low, correlation.high], -1, 1)  # bounds of ρ, not of its first order
        rows.append({"sign": name, "spearman": correlation.mean, "low": low, "high": high, "n": correlation.n})
    return pd.DataFrame(rows)


def reliability(table: pd.DataFrame, parts: int = 5) -> pd.DataFrame:
    """Expected beside true IoU, in parts of equal size from the lowest to the highest expectation.

    Args:
        table: of `with_true_iou`, with `expected_iou`.

    Returns:
        Rows `part`, `objects`, `expected`, `true`: means of the part.
    """
    scored = table.dropna(subset=["iou", "expected_iou"]).sort_values("expected_iou", kind="stable")
    rows = [scored.iloc[part] for part in np.array_split(np.arange(len(scored)), parts)]
    means = [{"objects": len(p), "expected": p["expected_iou"].mean(), "true": p["iou"].mean()} for p in rows]
    return pd.DataFrame(means, index=pd.RangeIndex(1, len(means) + 1, name="part")).reset_index()


def review_gain(
    table: pd.DataFrame, poor: float = 0.5, shares: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5)
) -> pd.DataFrame:
    """What looking at the worst-looking part finds: for each share looked at, the share found of all masks whose true
    IoU is below `poor`. Looking without order would find as much as it looks at, and no order more than `at best`."""
    scored = table.dropna(subset=["iou"]).sort_values("review_rank")
    is_poor = (scored["iou"] < poor).to_numpy()
    total = max(int(is_poor.sum()), 1)
    rows = []
    for share in shares:
        looked_at = round(share * len(scored))
        recall, best = is_poor[:looked_at].sum() / total, min(looked_at / total, 1.0)
        rows.append({"looked at": share, "boxes": looked_at, "poor masks found": recall, "at best": best})
    return pd.DataFrame(rows)
