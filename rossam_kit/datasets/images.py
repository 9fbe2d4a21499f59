"""Conversion of image files of any common kind to uint8 H×W×3, RGB.

Pixels are returned in stored order. An `ImageConversionWarning` describes how an image that was not 8-bit RGB was
converted; a `RossamError` names what cannot be read correctly.

Decisions, each covered by a test:

* Stored order: EXIF orientation never rotates or flips an image, since annotations are in stored pixels.
  A TIFF whose orientation tag is not 1 is refused.
* Bands: the three (or one) that `bands` names, else the first three, or the first of fewer. One band becomes three
  equal channels. Alpha is what the file says is alpha (in a TIFF: ExtraSamples); it is composited over black, the
  usual value of missing pixels. Bands that are named are shown as they are, without alpha. GDAL calls the fourth of
  four 8-bit bands alpha by default, which often is near infrared: one that is mostly neither opaque nor transparent
  is refused.
* Stretch: values from `low` to `high` become 0 to 255, what is beyond is clipped. Both are determined once for all
  images of a dataset (`resolve_reading`) and for all bands together, so neither gain nor colour changes between
  frames. `full`, for 8-bit images the identity, is
  - for integers, 0 to the full scale of the bit depth: the smallest of 8, 10, 11, 12, 14, 16 or more bits that holds
    the dataset's largest value, and at least the one that a file states; minimum to maximum where values are negative;
  - for floats, 0 to 1 or 0 to 255 where all values lie within, else minimum to maximum.
* Missing pixels (tag GDAL_NODATA, or an internal mask) become black, and count in no statistics. In 8 bits a pixel is
  missing where all its bands have the value, since 0 and 255 are common in single bands.
* NaN and infinity are errors where they are not the file's nodata value.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, read_json, stable_hash, write_json
from rossam_core.records import ImageReading
from rossam_kit.cache import cached
from rossam_kit.config import ImageOptions
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.image_sources import ImageSource, open_image
from rossam_kit.datasets.tiff import Pixels, Window
from rossam_kit.datasets.vrt import files_of

BIT_DEPTHS = (8, 10, 11, 12, 14, 16)
"""Of sensors; beyond, every number of bits counts as one."""
BLOCK = 2**21
"""Pixels converted at once: the memory a large scene takes beside its result."""
USUAL_NODATA = (-9999, -32768, -99999, float(np.finfo(np.float32).min))
"""Values that stand for missing pixels in many files; they take the contrast where a file does not say so."""
MAX_PIXELS = 2**30
"""Pixels decoded at once, 3 GiB as RGB; a sparse file of a few bytes may state any size."""
SAMPLE = 2**24
"""Values of a whole dataset that percentiles are computed from, at most: evenly spaced pixels of every image."""
Limits = tuple[float, float]


class ImageConversionWarning(UserWarning):
    """An image was not 8-bit RGB; the message says what it was and how it was converted."""


class DatasetReading(ImageOptions, ImageReading):
    """`ImageOptions` with what they came to on one dataset (`resolve_reading`)."""

    limits: dict[str, Limits] = {}  # noqa: RUF012 (pydantic copies it)
    """Value shown as 0 and value shown as 255, by the dtype of the file; a dtype that is missing here is resolved
    for the single image."""

    def read(self, path: Path) -> np.ndarray:
        """See `read_image`."""
        return read_image(path, self)

    def files(self, path: Path) -> list[Path]:
        """The file, what a virtual raster is made of, and the mask beside each."""
        return files_of(path)

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> DatasetReading:
        """The reading of an entry that `as_entry` was merged into."""
        values = entry.get("reading")
        return AS_IT_IS if values is None else (TileReading if "window" in values else cls)(**values)


class TileReading(DatasetReading):
    """Reads a part of an image file, of which its frame has size and coordinates.

    What is converted is the same for all tiles of a scene and said once where they are made, not with each of them.
    """

    window: Window
    """x0, y0, x1, y1 in pixels of the file; x1 and y1 exclusive."""

    def read(self, path: Path) -> np.ndarray:
        """See `read_image`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageConversionWarning)
            return read_image(path, self, self.window)


AS_IT_IS = DatasetReading()


def read_image(path: str | PathLike, reading: DatasetReading = AS_IT_IS, window: Window | None = None) -> np.ndarray:
    """Decode an image file or a part of it.

    Args:
        reading: bands and stretch; for frames of one dataset from `resolve_reading`, which `Frame.reading` holds.
        window: the part to read, default all. Of a TIFF only the strips or tiles that it touches are read. Without
            limits in `reading` the stretch is that of the whole image, which is determined on each call.

    Returns:
        uint8 H×W×3, RGB, in stored pixel order.

    Raises:
        RossamError: the file is missing, empty, truncated, of no known format, turned by a TIFF tag, lacks a band
            that is asked for, or holds NaN; the message names it and the remedy.

    Warns:
        ImageConversionWarning: the file was not 8-bit RGB; says how it was converted.
    """
    with open_image(path) as source:
        height, width = source.size_hw
        x0, y0, x1, y1 = window or (0, 0, width, height)
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            finding = f"window x {x0} to {x1}, y {y0} to {y1} is empty or outside of the image ({height}×{width}, H×W)"
            raise RossamError(path, finding, "clip the window to the image")
        return _read(source, (x0, y0, x1, y1), reading)


def with_reading(
    frames: FrameSet, options: ImageOptions = AS_IT_IS, paths: Iterable[Path] | None = None, cache: Path | None = None
) -> FrameSet:
    """The frames with one reading for all: `options`, resolved over the images of the set, or over `paths`."""
    reading = resolve_reading(options, paths or [frame.image_path for frame in frames], cache)
    return frames.subset([replace(frame, reading=reading) for frame in frames])


def image_size_hw(path: str | PathLike) -> tuple[int, int]:
    """Height and width in pixels, from the file's header. Errors as `read_image`, but for damaged pixels."""
    with open_image(path) as source:
        return source.size_hw


# --- one stretch for a dataset ----------------------------------------------------------------------------------------


def resolve_reading(
    options: ImageOptions, paths: Iterable[str | PathLike], cache: Path | None = None
) -> DatasetReading:
    """The limits between which all of these images are stretched, the same for each.

    8-bit images are not decoded for `full`, and nothing is for given limits. What is decoded is remembered in the
    cache folder as long as the files do not change. A file that cannot be read is passed over: reading it says why.
    Limits that `options` has are kept.

    Raises:
        RossamError: an image has no band of a number that is asked for.
    """
    reading = DatasetReading(bands=options.bands, stretch=options.stretch)
    known = options.limits if isinstance(options, DatasetReading) else {}
    groups: dict[str, list[Path]] = {}
    stated: dict[str, int] = {}
    for path in sorted(set(map(Path, paths))):
        try:
            image = open_image(path)
        except RossamError:
            continue
        with image:
            _bands(image, reading)
            dtype = image.dtype.name
            if reading.stretch_kind == "limits" or (reading.stretch_kind == "full" and dtype == "uint8"):
                continue
            groups.setdefault(dtype, []).append(path)
            stated[dtype] = max(stated.get(dtype, 0), image.bits or 0)
    limits = {
        dtype: known.get(dtype) or _cached_limits(reading, dtype, stated[dtype], members, cache)
        for dtype, members in groups.items()
    }
    return reading.model_copy(update={"limits": limits})


def _cached_limits(reading: DatasetReading, dtype: str, bits: int, paths: list[Path], cache: Path | None) -> Limits:
    files = [file for path in paths for file in files_of(path)]
    states = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    stated = bits and f"at least {bits}"
    key = stable_hash([reading.model_dump(mode="json"), dtype, stated, BIT_DEPTHS, SAMPLE, states])[:20]

    def compute() -> Limits:
        values: list[np.ndarray] = []
        for path in paths:
            with contextlib.suppress(RossamError), open_image(path) as source:
                _add_values(values, source, reading, SAMPLE // len(paths))
        return _limits_of(values, reading, np.dtype(dtype), bits)

    def load(path: Path) -> Limits:
        low, high = read_json(path)
        return float(low), float(high)

    return cached((cache or cache_dir()) / "stretches" / f"{key}.json.gz", compute, load=load, save=write_json)


def _add_values(parts: list[np.ndarray], source: ImageSource, reading: DatasetReading, sample: int) -> None:
    """Append what limits are computed from, block by block: the range of valid values, or a sample for percentiles."""
    height, width = source.size_hw
    bands = _bands(source, reading)
    step = max(1, height * width * len(bands[0]) // max(sample, 4096))
    while step > 1 and math.gcd(step, width) > 1:  # else only some columns would be looked at
        step += 1
    for window in _blocks((0, 0, width, height), source.block_rows):
        values, missing, alpha = source.read(window, *bands)
        valid = np.isfinite(values)
        valid &= True if missing is None else ~missing
        valid &= True if alpha is None else alpha[..., None] > 0
        if reading.stretch_kind == "percentiles":
            values, valid = (array.reshape(-1, array.shape[2])[::step] for array in (values, valid))
            parts.append(values[valid])
        elif valid.any():
            chosen = values[valid]
            parts.append(np.array([chosen.min(), chosen.max()]))


def _limits_of(parts: list[np.ndarray], reading: DatasetReading, dtype: np.dtype, bits: int) -> Limits:
    """Limits from what `_add_values` collected of images of one dtype."""
    values = np.concatenate(parts) if parts else np.zeros(0)
    if reading.stretch_kind == "percentiles":
        low, high = np.percentile(values, reading.stretch_values) if len(values) else (0, 1)
        return float(low), float(high)
    low, high = (values.min().item(), values.max().item()) if len(values) else (0, 0)
    if low >= 0 and dtype.kind == "f":
        low, high = next(((0, top) for top in (1, 255) if high <= top), (low, high))
    elif low >= 0:
        depth = next((depth for depth in BIT_DEPTHS if high < 2**depth), int(high).bit_length())
        low, high = 0, 2 ** max(bits, depth) - 1
    return float(low), float(high)


def _limits(source: ImageSource, reading: DatasetReading) -> Limits:
    """Those of the dataset; where it has none for this dtype, those of the single image."""
    if reading.stretch_kind == "limits":
        return reading.stretch_values
    if reading.stretch_kind == "full" and source.dtype == np.uint8:
        return 0, 255
    if (limits := reading.limits.get(source.dtype.name)) is None:
        values: list[np.ndarray] = []
        _add_values(values, source, reading, SAMPLE)
        limits = _limits_of(values, reading, source.dtype, source.bits or 0)
    return limits


# --- pixels -----------------------------------------------------------------------------------------------------------


def _read(source: ImageSource, window: Window, reading: DatasetReading) -> np.ndarray:
    """A window of an opened image, uint8 H×W×3, converted block by block."""
    x0, y0, x1, y1 = window
    if (pixels := (y1 - y0) * (x1 - x0)) > MAX_PIXELS:
        finding = f"{pixels:,} pixels are to be decoded at once, the limit is {MAX_PIXELS:,}"
        raise RossamError(source.where, finding, "read it in windows, as `rossam convert --data scene.tif` does")
    bands, alpha = _bands(source, reading)
    limits = _limits(source, reading)
    result = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    lost = transparent = partial = 0
    for (left, top, right, bottom), (values, missing, stored_alpha) in _pieces(source, window, bands, alpha):
        opacity = _opacity(stored_alpha, source)
        _check_finite(values, missing, source.where)
        pixels = _stretched(values, missing, limits)
        if opacity is not None:
            transparent += np.count_nonzero(opacity < 1)
            partial += np.count_nonzero((opacity > 0) & (opacity < 1))
            pixels = pixels if source.premultiplied else np.rint(pixels * opacity[..., None]).astype(np.uint8)
        if missing is not None:
            pixels = np.where(missing, np.uint8(0), pixels)
            lost += np.count_nonzero(missing.all(axis=2))
        result[top - y0 : bottom - y0, left - x0 : right - x0] = pixels
    size = result.shape[0] * result.shape[1]
    if partial > size / 2 and source.alpha_is_doubtful:
        finding = f"band {alpha + 1} is called alpha, but {partial / size:.0%} of it is neither opaque nor transparent"
        shown = ",".join(str(band + 1) for band in bands)
        remedy = (
            f"if it is a measured band (GDAL calls the fourth alpha by default), name those to show: --bands {shown}"
        )
        raise RossamError(source.where, finding, f"{remedy}, or data.bands; else save the image without alpha")
    notes = [*source.notes, *_notes(source, reading, bands, limits)]
    if lost:
        notes.append(f"missing pixels (nodata or mask) black ({lost / size:.0%} of pixels)")
    if alpha is not None:
        notes.append(f"alpha composited over black ({transparent / size:.0%} of pixels not opaque)")
    if notes:
        message = f"{source.where}: converted to 8-bit RGB: {'; '.join(notes)}"
        warnings.warn(message, ImageConversionWarning, stacklevel=3)
    return result


def _blocks(window: Window, rows: int) -> Iterator[Window]:
    """Parts of about `BLOCK` pixels and whole rows, which end where a strip or tile of `rows` does."""
    x0, y0, x1, y1 = window
    rows *= max(1, BLOCK // (x1 - x0) // rows)
    while y0 < y1:
        bottom = min((y0 // rows + 1) * rows, y1)
        yield x0, y0, x1, bottom
        y0 = bottom


def _pieces(
    source: ImageSource, window: Window, bands: Sequence[int], alpha: int | None
) -> Iterator[tuple[Window, Pixels]]:
    """The window in parts of at most `BLOCK` pixels; a strip or tile that is larger is decoded once, as a whole."""
    for x0, y0, x1, y1 in _blocks(window, source.block_rows):
        pixels = source.read((x0, y0, x1, y1), bands, alpha)
        rows = max(1, BLOCK // (x1 - x0))
        for top, left in itertools.product(range(y0, y1, rows), range(x0, x1, BLOCK)):
            bottom, right = min(top + rows, y1), min(left + BLOCK, x1)
            part = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
            yield (left, top, right, bottom), Pixels(*(None if each is None else each[part] for each in pixels))


def _bands(source: ImageSource, reading: DatasetReading) -> tuple[list[int], int | None]:
    """Indices of the bands shown, and of alpha."""
    if reading.bands is not None:
        count, highest = source.band_count, max(reading.bands)
        if highest > count:
            finding = f"has {count} band{'s' if count > 1 else ''}, and band {highest} is asked for"
            raise RossamError(source.where, finding, f"name bands from 1 to {count} with --bands or data.bands")
        return [band - 1 for band in reading.bands], None
    colours = [band for band in range(source.band_count) if band != source.alpha]
    return colours[:3] if len(colours) >= 3 else colours[:1], source.alpha


def _opacity(alpha: np.ndarray | None, source: ImageSource) -> np.ndarray | None:
    """float64 H×W in [0, 1]; a float alpha above 1 is taken as of full scale 255, NaN as 0."""
    if alpha is None:
        return None
    if alpha.dtype.kind == "f":
        alpha = np.nan_to_num(alpha)
        full = 255 if alpha.max() > 1 else 1
    else:
        full = 2**source.bits - 1 if source.bits else np.iinfo(alpha.dtype).max
    return (alpha.astype(np.float64) / full).clip(0, 1)


def _stretched(values: np.ndarray, missing: np.ndarray | None, limits: Limits) -> np.ndarray:
    """`limits` → 0 and 255, uint8; a single band three times."""
    low, high = limits
    if values.dtype != np.uint8 or limits != (0, 255):
        scaled = values.astype(np.float64) if missing is None else np.where(missing, low, values.astype(np.float64))
        values = np.rint((scaled.clip(low, high) - low) * 255 / ((high - low) or 1)).astype(np.uint8)
    return values if values.shape[2] == 3 else np.repeat(values, 3, axis=2)


def _notes(source: ImageSource, reading: DatasetReading, bands: Sequence[int], limits: Limits) -> Iterator[str]:
    """What bands and stretch did."""
    low, high = limits
    colours = source.band_count - (source.alpha is not None)
    if reading.bands is not None or len(bands) < colours:
        yield f"band{'s' if len(bands) > 1 else ''} {', '.join(str(band + 1) for band in bands)} of {source.band_count}"
    if limits != (0, 255) or source.dtype.kind == "f":
        depth = (int(high) + 1).bit_length() - 1
        is_depth = reading.stretch_kind == "full" and source.dtype.kind == "u" and low == 0 and high == 2**depth - 1
        yield f"{source.dtype} values [{low:g}, {high:g}] to [0, 255]" + (f", taken as {depth}-bit" if is_depth else "")
    if reading.stretch_kind == "full" and low in USUAL_NODATA:
        yield f"where {low:g} means a missing pixel, let the file say so: `gdal_edit.py -a_nodata {low:g} FILE`"
    if len(bands) == 1:
        yield "gray copied to three channels"


def _check_finite(values: np.ndarray, missing: np.ndarray | None, where: str | PathLike) -> None:
    if values.dtype.kind != "f":
        return
    faults = ~np.isfinite(values)
    if missing is not None:
        faults &= ~missing
    if faults.any():
        finding = f"{np.count_nonzero(faults)} of {values.size} pixel values are NaN or infinite"
        remedy = (
            "declare them as missing (`gdal_edit.py -a_nodata nan FILE`), or fill them with a number first, "
            "e.g. np.nan_to_num(image)"
        )
        if missing is not None:
            finding, remedy = f"{finding}, besides those that are missing", "fill them with the file's nodata value"
        raise RossamError(where, finding, remedy)
