"""Pixels of image files that are no TIFF (VRT, PNG, JPEG, …); `open_image` chooses the reader of a file.

All sources have the interface of `TiffImage`: size, dtype and bands from the header, and pixels of a
window in the file's own numbers (`tiff.Pixels`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from rossam_core.errors import RossamError
from rossam_core.records import PILLOW_FORMATS
from rossam_kit.datasets.tiff import SIGNATURES as TIFF_SIGNATURES
from rossam_kit.datasets.tiff import Pixels, TiffImage, Window, rasterio_if_installed
from rossam_kit.datasets.vrt import BUILD_ANEW, JPEG2000_SIGNATURES, OFFLINE, source_files
from rossam_kit.datasets.vrt import SIGNATURE as VRT_SIGNATURE

# What Pillow raises for damaged files, by format and place of the damage; OSError includes truncation.
DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, ArithmeticError),
    *(AttributeError, RuntimeError, zlib.error, cv2.error),
)
COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "1", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
INSTALL_GEO = "pip install rasterio pyogrio shapely"
ANOTHER_FILE = "copy or download the file again, or save it as 8-bit RGB PNG or JPEG"


class RasterioImage(contextlib.ExitStack):
    """A virtual raster (VRT) or JPEG 2000 of deep colour, read by rasterio; offers what `TiffImage` does."""

    premultiplied, alpha_is_doubtful, bits = False, False, None

    def __init__(self, path: Path, driver: str):
        super().__init__()
        self.where, self.notes = path, []
        kind = {"VRT": "a virtual raster (VRT)", "JP2OpenJPEG": "JPEG 2000 of more than 8 bits"}[driver]
        if (rasterio := rasterio_if_installed()) is None:
            raise RossamError(path, f"is {kind}, which rasterio reads", INSTALL_GEO)
        if driver == "VRT":
            source_files(path)  # which refuses what is no image file on this machine
        self._failures = rasterio.errors.RasterioError
        self.enter_context(rasterio.Env(**OFFLINE))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                source = self._source = self.enter_context(rasterio.open(path, driver=driver))
        except self._failures as error:
            remedy = BUILD_ANEW if driver == "VRT" else ANOTHER_FILE
            raise RossamError(path, f"cannot be opened as {kind} ({error})", remedy) from error
        if len(set(source.dtypes)) > 1:
            remedy = f"{BUILD_ANEW} of bands of one type, e.g. converted by gdal_translate -ot UInt16"
            raise RossamError(path, f"its bands differ in type ({', '.join(source.dtypes)})", remedy)
        self.size_hw, self.band_count = source.shape, source.count
        self.dtype, self.block_rows = np.dtype(source.dtypes[0]), source.block_shapes[0][0]
        kinds = [kind.name for kind in source.colorinterp]
        self.alpha = kinds.index("alpha") if "alpha" in kinds else None
        if "palette" in kinds:
            raise RossamError(
                path, "its values are places in a palette", "expand it: gdal_translate -expand rgb IN OUT"
            )

    def read(self, window: Window, bands: Sequence[int], alpha: int | None = None) -> Pixels:
        x0, y0, x1, y1 = window
        numbers, where = [band + 1 for band in bands], ((y0, y1), (x0, x1))
        try:
            values = np.moveaxis(self._source.read(numbers, window=where), 0, -1)
            missing = None
            if any(not {"all_valid", "alpha"} & {flag.name for flag in self._source.mask_flag_enums[b]} for b in bands):
                missing = np.moveaxis(self._source.read_masks(numbers, window=where) == 0, 0, -1)
            opacity = None if alpha is None else self._source.read(alpha + 1, window=where)
        except self._failures as error:
            remedy = "check that the files it is made of are there and whole: gdalinfo FILE lists them"
            raise RossamError(self.where, f"cannot be read ({error})", remedy) from error
        if missing is not None and self.dtype.itemsize == 1:  # as in TIFFs, where 0 and 255 are values of single bands
            missing = missing.all(axis=2, keepdims=True)
        return Pixels(values, missing, opacity)


class PillowImage(contextlib.ExitStack):
    """Any other file, by Pillow, or by OpenCV where Pillow keeps only the high bytes; offers what `TiffImage` does."""

    premultiplied, alpha_is_doubtful, bits, block_rows = False, False, None, 1

    def __init__(self, path: Path):
        super().__init__()
        self.where, self.notes = path, []
        self._image = image = self.enter_context(_opened(path))
        with _decoding(path, "is damaged"):
            self._read_header(image)

    def _read_header(self, image: Image.Image) -> None:
        self._is_deep = image.mode in ("RGB", "RGBA") and any(map(_is_16_bit, image.tile))
        is_gray16 = image.mode.startswith("I;16")
        self._transparent = image.info.get("transparency") if is_gray16 else None
        is_plain = image.mode in COLOUR_MODES and not image.has_transparency_data
        self._mode = image.mode if is_plain or is_gray16 else "RGBA" if image.has_transparency_data else "RGB"
        self.size_hw = (image.height, image.width)
        self.band_count = {"RGB": 3, "RGBA": 4}.get(self._mode, 1)
        self.alpha = 3 if self.band_count == 4 else None
        wide = {"I": np.int32, "F": np.float32}.get(self._mode, np.uint8)
        self.dtype = np.dtype(np.uint16 if self._is_deep or is_gray16 else wide)
        if (pages := getattr(image, "n_frames", 1)) > 1:
            self.notes.append(f"first of {pages} pages")
        if self._mode == "1":
            self.notes.append("false and true to 0 and 255")
        elif image.mode != self._mode:
            self.notes.append(f"{'palette' if image.mode.startswith('P') else image.mode} to {self._mode} by Pillow")

    def read(self, window: Window, bands: Sequence[int], alpha: int | None = None) -> Pixels:
        pixels = _part(self._pixels, window, bands, alpha)
        return pixels if self._transparent is None else pixels._replace(missing=pixels.values == self._transparent)

    @functools.cached_property
    def _pixels(self) -> np.ndarray:
        with _decoding(self.where, "is damaged or truncated"):
            self._image.load()  # checks that the file is whole
            if self._is_deep:
                pixels = cv2.imdecode(np.fromfile(self.where, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if self.band_count == 4 else cv2.COLOR_BGR2RGB)
            else:
                converted = self._image if self._image.mode == self._mode else self._image.convert(self._mode)
                pixels = np.array(converted)
            pixels = pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == bool else pixels
            return pixels.reshape(*self.size_hw, self.band_count)


def _part(array: np.ndarray, window: Window, bands: Sequence[int], alpha: int | None) -> Pixels:
    x0, y0, x1, y1 = window
    part = array[y0:y1, x0:x1]
    values = part if list(bands) == list(range(part.shape[2])) else part[..., list(bands)]
    return Pixels(values, None, None if alpha is None else part[..., alpha])


@contextlib.contextmanager
def _decoding(path: Path, finding: str) -> Iterator[None]:
    try:
        yield
    except DECODING_ERRORS as error:
        raise RossamError(path, f"{finding} ({error})", ANOTHER_FILE) from error


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path, formats=PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        remedy = "save it as a tiled GeoTIFF, which is read in windows: `gdal_translate -co TILED=YES IN OUT.tif`"
        raise RossamError(path, f"is too large to decode at once ({error})", remedy) from error
    except UnidentifiedImageError as error:
        raise RossamError(path, "is not an image of a known format", ANOTHER_FILE) from error
    except DECODING_ERRORS as error:
        raise RossamError(path, f"cannot be opened as an image ({error})", ANOTHER_FILE) from error
    if 0 in image.size:
        raise RossamError(path, f"image has no pixels ({image.height}×{image.width})", ANOTHER_FILE)
    return image


def _is_16_bit(tile: tuple) -> bool:
    """Whether Pillow would decode this part of an image to its high bytes alone."""
    decoder, _, _, arguments = tile
    return ";16" in str(arguments) or (decoder == "ppm" and arguments[1] > 255)


def _is_deep_jpeg2000(head: bytes) -> bool:
    """Whether a JPEG 2000 file has three or more components of more than 8 bits: its marker SIZ says so."""
    start = head.find(b"\xff\x51") + 2
    count, depth = int.from_bytes(head[start + 36 : start + 38]), int.from_bytes(head[start + 38 : start + 39]) & 127
    return head.startswith(JPEG2000_SIGNATURES) and count >= 3 and depth > 7  # the depth is stored less one


def open_image(path: str | PathLike) -> TiffImage | RasterioImage | PillowImage:
    """The file's header, for a `with` block; pixels are decoded by `read`. Errors as `read_image`."""
    path = Path(path)
    if not os.path.exists(path):  # False also for names that are too long
        raise RossamError(path, "no such image file", "check the path and the folder the dataset was extracted to")
    if path.is_dir():
        raise RossamError(path, "is a folder, expected an image file", "name a file in it")
    if path.stat().st_size == 0:
        raise RossamError(path, "is empty (0 bytes)", ANOTHER_FILE)
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise RossamError(path, f"cannot be read ({error.strerror})", "name a file that you may read") from error
    if head.startswith(VRT_SIGNATURE):
        return RasterioImage(path, "VRT")
    if _is_deep_jpeg2000(head):
        return RasterioImage(path, "JP2OpenJPEG")
    if head.startswith(TIFF_SIGNATURES):
        image = TiffImage(path)
        if image.is_supported:
            return image
        image.close()
    return PillowImage(path)


ImageSource = TiffImage | RasterioImage | PillowImage
"""What pixels are read from."""
