"""Image files and in-memory arrays of any common kind → the one form every room takes: uint8 H×W×3, RGB.

In: a path, or an array a user made. Out: pixels in stored order, an `ImageConversionWarning` that says how
whatever was not 8-bit RGB became so, and a `RossamError` for what cannot be used at all.

Decisions, each held by a test:

* Stored order: EXIF orientation never rotates or flips an image, since annotations are in stored pixels.
  A TIFF whose orientation tag is not 1 is refused (Pillow would turn it).
* Gray becomes three equal channels. Alpha is composited over black, the usual value of missing pixels.
* Integers above 255 are divided by the full scale of the bit depth they use: the smallest of 8, 10, 11, 12,
  14, 16, 24 or 32 bits that holds the largest value. So the frames of a 12-bit video share one scale, which
  a stretch from minimum to maximum would change from frame to frame.
* Floats within [0, 1] are multiplied by 255, floats within [0, 255] rounded. Any other range, and negative
  integers, are stretched linearly from [minimum, maximum]. NaN and infinity are errors.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import RossamError

# What Pillow raises for damaged files, by format and place of the damage; OSError includes truncation.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError)
COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "1", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
BIT_DEPTHS = (8, 10, 11, 12, 14, 16, 24, 32, 64)
ANOTHER_FILE = "copy or download the file again, or save it as 8-bit RGB PNG or JPEG"


class ImageConversionWarning(UserWarning):
    """An image was not 8-bit RGB; the message says what it was and how it was converted."""


def read_image(path: str | PathLike) -> np.ndarray:
    """Decode an image file.

    Returns:
        uint8 H×W×3, RGB, in stored pixel order.

    Raises:
        RossamError: the file is missing, empty, truncated, of no known format, turned by a TIFF tag, or
            holds NaN; the message names it and the remedy.

    Warns:
        ImageConversionWarning: the file was not 8-bit RGB; says how it was converted.
    """
    path = Path(path)
    with _open(path) as image:
        notes = []
        if image is None:
            pixels = _decode_with_cv2(path)
        else:
            deep_colour = image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in image.tile)
            pixels = _decode(path, image, notes)
            if deep_colour:  # of which Pillow keeps the high bytes only; it has checked that the file is whole
                pixels = _decode_with_cv2(path)
    return _as_rgb8(pixels, path, notes)


def image_size_hw(path: str | PathLike) -> tuple[int, int]:
    """Height and width in pixels, from the file's header. Errors as `read_image`, but for damaged pixels."""
    path = Path(path)
    with _open(path) as image:
        if image is None:
            return _decode_with_cv2(path).shape[:2]
        return image.height, image.width


def to_rgb8(array: np.ndarray, where: str | PathLike) -> np.ndarray:
    """An in-memory image → uint8 H×W×3, by the rules at the head of this file.

    Args:
        array: H×W, or H×W×C with 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha) channels; bool, any
            integer or float. A uint8 H×W×3 array is returned as it is (copied only where it is not contiguous).
        where: names the image in messages.

    Raises:
        RossamError: no numbers, wrong rank or channel count, no pixels, NaN or infinity.

    Warns:
        ImageConversionWarning: the array was not uint8 H×W×3.
    """
    return _as_rgb8(np.asarray(array), where, [])


def _as_rgb8(array: np.ndarray, where: str | PathLike, notes: list[str]) -> np.ndarray:
    if array.dtype.kind not in "buif":
        hint = "; a path is read with rossam_core.data.images.read_image(path)" if array.dtype.kind in "US" else ""
        raise RossamError(where, f"expected an array of numbers, got dtype {array.dtype}", f"pass pixels{hint}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise RossamError(
            where,
            f"image has shape {array.shape}, expected H×W, H×W×3 or H×W×4",
            "move the channels last (np.moveaxis(image, 0, -1)), pass one image at a time, and choose three bands",
        )
    if array.size == 0:
        raise RossamError(where, f"image has no pixels (shape {array.shape})", "pass an image with at least one pixel")
    pixels, alpha = (array if array.ndim == 3 else array[..., None]), None
    if pixels.shape[2] in (2, 4):
        pixels, alpha = pixels[..., :-1], _alpha_share(pixels[..., -1], where)
    pixels = _to_uint8(pixels, where, notes)
    if alpha is not None:
        transparent = np.mean(alpha < 1)
        notes.append(f"alpha composited over black ({transparent:.0%} of pixels not opaque)")
        pixels = np.rint(pixels * alpha[..., None]).astype(np.uint8)
    if pixels.shape[2] == 1:
        notes.append("gray copied to three channels")
        pixels = np.repeat(pixels, 3, axis=2)
    if notes:
        warnings.warn(f"{where}: converted to 8-bit RGB: {'; '.join(notes)}", ImageConversionWarning, stacklevel=3)
    return np.ascontiguousarray(pixels)


def _to_uint8(pixels: np.ndarray, where: str | PathLike, notes: list[str]) -> np.ndarray:
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return pixels
    if kind == "b":
        notes.append("false and true to 0 and 255")
        return pixels.astype(np.uint8) * np.uint8(255)
    _check_finite(pixels, where)
    low, high = pixels.min().item(), pixels.max().item()
    if low < 0 or (kind == "f" and high > 255):
        notes.append(f"{pixels.dtype} values stretched linearly from [{low:g}, {high:g}] to [0, 255]")
        scaled = (pixels.astype(np.float64) - low) * 255 / ((high - low) or 1)
    elif kind == "f":
        factor = 255 if high <= 1 else 1
        notes.append(f"{pixels.dtype} values in [0, {255 // factor}] {'times 255' if factor > 1 else 'rounded'}")
        scaled = pixels.astype(np.float64) * factor
    else:
        bits = next(depth for depth in BIT_DEPTHS if high < 2**depth)
        if bits == 8:
            return pixels.astype(np.uint8)
        notes.append(f"{pixels.dtype} values up to {high} taken as {bits}-bit and divided by {2**bits - 1}")
        scaled = pixels.astype(np.float64) * (255 / (2**bits - 1))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _alpha_share(alpha: np.ndarray, where: str | PathLike) -> np.ndarray:
    """Opacity in [0, 1], float64; a float alpha above 1 is taken as of full scale 255."""
    _check_finite(alpha, where)
    full = 255 if alpha.max() > 1 else 1
    if alpha.dtype.kind in "ui":
        full = np.iinfo(alpha.dtype).max
    return (alpha.astype(np.float64) / full).clip(0, 1)


def _check_finite(values: np.ndarray, where: str | PathLike) -> None:
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise RossamError(
            where,
            f"{bad} of {values.size} pixel values are NaN or infinite",
            "fill missing pixels with a number first, e.g. np.nan_to_num(image)",
        )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image | None]:
    """The file's header; None for a TIFF that Pillow has no mode for (float or many-band colour)."""
    if not path.exists():
        raise RossamError(path, "no such image file", "check the path and the folder the dataset was extracted to")
    if path.is_dir():
        raise RossamError(path, "is a folder, expected an image file", "name a file in it")
    if path.stat().st_size == 0:
        raise RossamError(path, "is empty (0 bytes)", ANOTHER_FILE)
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise RossamError(path, f"is too large to decode at once ({error})", "cut it into tiles first") from error
    except UnidentifiedImageError as error:
        with path.open("rb") as stream:
            is_tiff = stream.read(4) in (b"II*\0", b"MM\0*")
        if not is_tiff:
            raise RossamError(path, "is not an image of a known format", ANOTHER_FILE) from error
        image = None
    except DECODING_ERRORS as error:
        raise RossamError(path, f"cannot be opened as an image ({error})", ANOTHER_FILE) from error
    with image or contextlib.nullcontext():
        if image is not None:
            _check_header(path, image)
        yield image


def _check_header(path: Path, image: Image.Image) -> None:
    if 0 in image.size:
        raise RossamError(path, f"image has no pixels ({image.height}×{image.width})", ANOTHER_FILE)
    orientation = image.tag_v2.get(ExifTags.Base.Orientation, 1) if image.format == "TIFF" else 1
    if orientation != 1:
        raise RossamError(
            path,
            f"TIFF orientation tag is {orientation}: rows and columns are not as stored",
            "save it with orientation 1 and check that the annotations still fit",
        )


def _decode(path: Path, image: Image.Image, notes: list[str]) -> np.ndarray:
    """Stored pixels of an opened image, in an integer or float dtype wide enough for them."""
    try:
        pages = getattr(image, "n_frames", 1)
        if pages > 1:
            notes.append(f"first of {pages} pages")
        image.load()
        if image.mode in COLOUR_MODES and not image.has_transparency_data:
            return np.array(image)
        target = "RGBA" if image.has_transparency_data else "RGB"
        if image.mode != target:
            notes.append(f"{'palette' if image.mode.startswith('P') else image.mode} to {target} by Pillow")
        return np.array(image.convert(target))
    except DECODING_ERRORS as error:
        raise RossamError(path, f"is damaged or truncated ({error})", ANOTHER_FILE) from error


def _decode_with_cv2(path: Path) -> np.ndarray:
    """Colour deeper than Pillow's modes; OpenCV's IMREAD_UNCHANGED keeps depth and, but for TIFF, stored order."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RossamError(path, f"cannot be decoded ({error.err})", ANOTHER_FILE) from error
    if pixels is None:
        raise RossamError(path, "cannot be decoded: damaged, or of an unknown layout", ANOTHER_FILE)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):  # OpenCV's BGR(A) → RGB(A)
        pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)
    return pixels
