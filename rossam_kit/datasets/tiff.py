"""TIFF files of any layout: tags by tifffile; pixels by rasterio where it is installed, else by tifffile.

`TiffImage` reads any window of any bands in the file's own values and marks missing samples, whatever the byte order,
BigTIFF, strips or tiles, interleaving and compression.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import operator
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from rossam_core.errors import RossamError

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 exclusive."""
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
OLD_JPEG, JPEG = 6, 7
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
REDUCED, MASK = 1, 4
"""Bits of the tag NewSubfileType: an overview, a transparency mask."""
GDAL_NODATA, ORIENTATION = 42113, 274
MAX_BLOCK = 2**32
"""Bytes of a strip or tile, decoded: a larger one would fill the memory before a pixel of it is seen."""
GDAL_CACHE = 2**26
"""Bytes of decoded blocks that GDAL may keep; its default is a twentieth of the machine's memory."""
SAVE_AGAIN = "copy the file again, or save it anew with `gdal_translate -co COMPRESS=DEFLATE IN.tif OUT.tif`"

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its findings come as exceptions here


@functools.cache
def rasterio_if_installed() -> ModuleType | None:
    """The module `rasterio` (optional extra `geo`), or None."""
    try:
        import rasterio
    except ImportError:
        return None
    return rasterio


class Pixels(NamedTuple):
    """What an image file holds in a window.

    Attributes:
        values: H×W×bands, in the file's dtype.
        missing: bool H×W×bands or H×W×1; None where no value can be missing.
        alpha: H×W, where it was asked for.
    """

    values: np.ndarray
    missing: np.ndarray | None = None
    alpha: np.ndarray | None = None


class TiffImage(contextlib.ExitStack):
    """The first full-resolution page of a TIFF, open until the `with` block ends.

    Attributes:
        where: the path.
        size_hw: height and width in pixels.
        dtype: of the values that `read` returns. Samples of fewer than 8 bits are brought to 8, palettes to RGB.
        bits: bit depth that the file states, where it is not the whole of `dtype` (12 for NBITS=12), else None.
        band_count: bands that can be read, alpha among them.
        alpha: index of the band that ExtraSamples names as alpha, or None.
        alpha_is_doubtful: whether the band may be a measured one: GDAL calls the first extra band alpha unasked.
        premultiplied: whether colours are multiplied by alpha already (ExtraSamples 1).
        block_rows: height of its strips or tiles, which are decoded as a whole.
        is_supported: False for colour spaces (CMYK, CIELab, …) that only Pillow converts.
        notes: remarks for the user.

    Raises:
        RossamError: damaged, truncated, turned, or of samples that are no real numbers.
    """

    def __init__(self, path: str | PathLike):
        super().__init__()
        self.where = Path(path)
        self.notes: list[str] = []
        with contextlib.ExitStack() as opened:
            with self._decoding("cannot be opened as a TIFF"):
                import tifffile

                file = opened.enter_context(tifffile.TiffFile(self.where))
                pages = [page for page in _pages(file) if not page.subfiletype & REDUCED]
                self._page, *others = [page for page in pages if not page.subfiletype & MASK]
                shape = self._page.shaped[2:4]
                masks = [page for page in pages if page.subfiletype & MASK]
                beside = mask_beside(self.where)
                masks += _pages(opened.enter_context(tifffile.TiffFile(beside))) if beside.is_file() else []
                self._mask = next((page for page in masks if page.shaped[2:4] == shape), None)
                self._read_tags()
                self._check(file.filehandle.size)
            self.push(opened.pop_all())
        if others:
            self.notes.append(f"first of {len(others) + 1} pages")

    def _read_tags(self) -> None:
        page = self._page
        planes, self._depth, height, width, samples = page.shaped
        self.size_hw, self._samples = (operator.index(height), operator.index(width)), planes * samples
        self.block_rows = min(page.tilelength if page.is_tiled else page.rowsperstrip, height) or 1
        self._stored_bits, self._photometric = page.bitspersample, int(page.photometric)
        self.is_supported = page.compression != OLD_JPEG and (
            self._photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
            or (self._photometric == PALETTE and self._samples == 1)
            or (self._photometric == YCBCR and page.compression == JPEG)
        )
        small = self._stored_bits in range(1, 8)
        self.dtype = np.dtype(np.uint8) if small or self._photometric == PALETTE else page.dtype
        is_whole = small or self._stored_bits in (8, 16, 32, 64)
        self.bits = None if is_whole or page.dtype is None or page.dtype.kind != "u" else self._stored_bits
        extras = [int(kind) for kind in page.extrasamples]
        alphas = [i for i, kind in enumerate(extras) if kind in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA)]
        self._colormap = _colormap(page) if self._photometric == PALETTE else None
        self.band_count = self._samples if self._colormap is None else 3
        self.alpha = self._samples - len(extras) + alphas[0] if alphas else None
        self.premultiplied = bool(alphas) and extras[alphas[0]] == ASSOCIATED_ALPHA
        self.alpha_is_doubtful = bool(alphas) and not self.premultiplied
        self._nodata = _nodata(page, self.where)

    def _check(self, file_size: int) -> None:
        page, orientation = self._page, self._page.tags.valueof(ORIENTATION, 1)
        if orientation != 1:
            raise RossamError(
                self.where,
                f"TIFF orientation tag is {orientation}: rows and columns are not as stored",
                "save it with orientation 1 and check that the annotations still fit",
            )
        if 0 in (*self.size_hw, self._samples) or self._depth != 1:
            finding = f"image has shape {page.shape} and {self._samples} samples per pixel, expected height and width"
            raise RossamError(self.where, finding, SAVE_AGAIN)
        if page.dtype is None or page.dtype.kind not in "buif" or not isinstance(self._stored_bits, int):
            kind = page.dtype or f"{self._stored_bits} bits, sample format {page.sampleformat}"
            remedy = "write amplitude or intensity as numbers of one depth, e.g. np.abs(image), into another file"
            raise RossamError(self.where, f"its samples are {kind}, expected integers or real numbers", remedy)
        if self._photometric == WHITE_IS_ZERO and page.dtype.kind not in "bu":
            finding = f"its {page.dtype} samples have photometric interpretation MINISWHITE, which has no full scale"
            raise RossamError(self.where, finding, "save it as MINISBLACK")
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (self.block_rows, self.size_hw[1])
        block = rows * columns * self._samples * page.dtype.itemsize
        if block > MAX_BLOCK:
            finding = f"its strips or tiles take {block:,} bytes each, the limit is {MAX_BLOCK:,}"
            raise RossamError(self.where, finding, "save it in tiles: `gdal_translate -co TILED=YES IN OUT.tif`")
        ends = np.add(page.dataoffsets, page.databytecounts)
        if len(ends) == 0 or ends.max() > file_size:
            raise RossamError(self.where, f"is truncated: {file_size} bytes of {max(ends, default=0)}", SAVE_AGAIN)

    @contextlib.contextmanager
    def _decoding(self, finding: str):
        """Turn whatever a decoder raises into a `RossamError`: damaged files raise dozens of unrelated types."""
        try:
            yield
        except (RossamError, MemoryError, FileNotFoundError):
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise RossamError(self.where, f"{finding} ({reason})", SAVE_AGAIN) from error

    def read(self, window: Window, bands: Sequence[int], alpha: int | None = None) -> Pixels:
        """Values of a window.

        Args:
            bands: indices of the bands, from 0.
            alpha: index of the band to be returned as alpha.
        """
        stored = [0] if self._colormap is not None else [*bands, *([] if alpha is None else [alpha])]
        with self._decoding("is damaged or truncated, or of an unknown compression"):
            values, valid = self._decode(window, stored), None
            if self._mask is not None:
                samples = range(self._mask.samplesperpixel)
                valid = (_decode_page(self._mask, window, samples) != 0).all(axis=2, keepdims=True)
        opacity = None if alpha is None else values[..., -1]
        values = values if alpha is None else values[..., :-1]
        missing = None if self._nodata is None else _equals(values, self._nodata)
        if missing is not None and self._stored_bits <= 8:  # where 0 and 255 are values of single bands, too
            missing = missing.all(axis=2, keepdims=True)
        if valid is not None:
            missing = ~valid if missing is None else missing | ~valid
        with self._decoding("has values that its palette lacks"):
            return Pixels(self._expanded(values, bands), missing, opacity)

    def _expanded(self, values: np.ndarray, bands: Sequence[int]) -> np.ndarray:
        """Palette indices → RGB; white-is-zero → black-is-zero; fewer than 8 bits → 8."""
        if self._colormap is not None:
            return _looked_up(self._colormap[:, list(bands)], values)
        top = 2**self._stored_bits - 1
        if self._photometric == WHITE_IS_ZERO:
            values = values ^ values.dtype.type(top)
        if self._stored_bits >= 8:
            return values
        return _looked_up(np.rint(np.arange(256).clip(max=top) * (255 / top)).astype(np.uint8), values)

    def _decode(self, window: Window, bands: list[int]) -> np.ndarray:
        """H×W×len(bands), as stored."""
        x0, y0, x1, y1 = window
        if self._rasterio_source is not None:
            # What GDAL refuses, tifffile may know: a compression that GDAL was built without.
            with contextlib.suppress(rasterio_if_installed().errors.RasterioError):
                values = self._rasterio_source.read([band + 1 for band in bands], window=((y0, y1), (x0, x1)))
                return np.moveaxis(values, 0, -1).astype(self._page.dtype, copy=False)
        return _decode_page(self._page, window, bands)

    @functools.cached_property
    def _rasterio_source(self):
        """The file opened by rasterio; None where it is not installed, or does not take the file for the same layout.

        GDAL's own JPEG library interpolates colour in another way than Pillow and tifffile do.
        """
        rasterio = rasterio_if_installed()
        if rasterio is None or self._page.index != 0 or self._photometric == YCBCR:
            return None
        self.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_CACHEMAX=GDAL_CACHE))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            try:
                source = self.enter_context(rasterio.open(self.where, driver="GTiff"))
            except rasterio.errors.RasterioError:
                return None
        return source if (source.shape, source.count) == (self.size_hw, self._samples) else None


def mask_beside(path: Path) -> Path:
    """Where GDAL puts the mask of an image by default."""
    return path.with_name(f"{path.name}.msk")


def _pages(file) -> list:
    """The pages of a `tifffile.TiffFile`, which itself would follow a page that names itself as the next for ever."""
    pages = {}
    for page in file.pages:
        if page.offset in pages:
            raise ValueError(f"its list of pages returns to the one at byte {page.offset}")
        pages[page.offset] = page
    return list(pages.values())


def _decode_page(page, window: Window, bands: Sequence[int]) -> np.ndarray:
    """A window of a tifffile page, H×W×len(bands); only the strips or tiles that it touches are read."""
    _, _, height, width, samples = page.shaped
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    rows, columns = math.ceil(height / tall), math.ceil(width / wide)
    x0, y0, x1, y1 = window
    pixels = np.full((y1 - y0, x1 - x0, len(bands)), page.nodata, page.dtype)
    file = page.parent.filehandle
    for plane in sorted({band // samples for band in bands}):
        of_plane = [(place, band % samples) for place, band in enumerate(bands) if band // samples == plane]
        for row in range(y0 // tall, math.ceil(y1 / tall)):
            for column in range(x0 // wide, math.ceil(x1 / wide)):
                index = (plane * rows + row) * columns + column
                if not page.databytecounts[index]:
                    continue  # a sparse file does not store it
                file.seek(page.dataoffsets[index])
                data = file.read(page.databytecounts[index])
                part = page.decode(data, index, jpegtables=page.jpegtables)[0][0]
                top, left = row * tall, column * wide
                part = part[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left]
                y, x = max(top - y0, 0), max(left - x0, 0)
                for place, sample in of_plane:
                    pixels[y : y + part.shape[0], x : x + part.shape[1], place] = part[..., sample]
    return pixels


def _looked_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`table[values]` of H×W×N values, H×W×…; in parts, since an index takes 8 bytes."""
    flat = values.ravel()
    result = np.empty((flat.size, *table.shape[1:]), table.dtype)
    for start in range(0, flat.size, 2**20):
        result[start : start + 2**20] = table[flat[start : start + 2**20].astype(np.intp)]
    return result.reshape(*values.shape[:2], -1)


def _colormap(page) -> np.ndarray:
    """uint8 entries×3. The tag holds 16 bits; some writers fill only the lower 8."""
    colours = page.colormap.T
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _nodata(page, path: Path) -> np.generic | None:
    """The value of the tag GDAL_NODATA in the page's dtype; None where there is none that a sample could have."""
    text = page.tags.valueof(GDAL_NODATA)
    if text is None or page.dtype is None:
        return None
    text = " ".join(dict.fromkeys(str(text).strip("\0").split()))  # some write the same number for each band
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        remedy = "write a number with `gdal_edit.py -a_nodata VALUE FILE`, or -unsetnodata"
        raise RossamError(path, f"its tag GDAL_NODATA is {text!r}, which is no number", remedy) from error
    if page.dtype.kind == "f":
        limit = float(np.finfo(page.dtype).max)
        return page.dtype.type(value if not math.isfinite(value) else min(max(value, -limit), limit))
    if not math.isfinite(value) or value != int(value):
        return None
    whole = int(text) if text.lstrip("+-").isdigit() else int(value)
    top = np.iinfo(page.dtype) if page.dtype.kind != "b" else np.iinfo(np.uint8)
    return page.dtype.type(whole) if top.min <= whole <= top.max else None


def _equals(values: np.ndarray, nodata: np.generic) -> np.ndarray:
    return np.isnan(values) if nodata != nodata else values == nodata
