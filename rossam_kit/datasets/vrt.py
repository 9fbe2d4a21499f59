"""Virtual rasters (VRT): which files one is made of. All of them are to be image files on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rossam_core.errors import RossamError
from rossam_kit.datasets.tiff import SIGNATURES as TIFF_SIGNATURES
from rossam_kit.datasets.tiff import mask_beside

SIGNATURE = b"<VRT"
JPEG2000_SIGNATURES = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
SOURCES = (*TIFF_SIGNATURES, *JPEG2000_SIGNATURES, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""First bytes of the image files that a virtual raster may be made of."""
NAMES = ("sourcefilename", "sourcedataset", "destinationdataset")
"""Elements, and attributes in their place, that name a file; GDAL takes them in upper and lower case."""
DEPTH = 8
"""Virtual rasters made of virtual rasters, at most."""
OFFLINE = {
    "GDAL_HTTP_PROXY": "127.0.0.1:0",
    "GDAL_HTTPS_PROXY": "127.0.0.1:0",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
"""Settings with which GDAL reaches no server, should a file name one in a way that is not looked for here."""
BUILD_ANEW = "build it anew (gdalbuildvrt)"


def files_of(path: Path) -> list[Path]:
    """The files an image consists of: its own, what a virtual raster is made of, and the mask beside each (`.msk`)."""
    with open(path, "rb") as stream:
        is_virtual = stream.read(len(SIGNATURE)) == SIGNATURE
    files = [path, *(source_files(path) if is_virtual else [])]
    return [*files, *(mask for mask in map(mask_beside, files) if mask.is_file())]


def source_files(path: Path) -> list[Path]:
    """The files that a virtual raster is made of, those of virtual rasters among them included.

    Raises:
        RossamError: it has another suffix, is not readable, or a source is no image file on this machine.
    """
    found: dict[Path, None] = {}
    level = [path]
    for _ in range(DEPTH):
        sources = [(file, vrt) for vrt in level for file in _sources(vrt) if file not in found]
        found |= dict.fromkeys(file for file, _ in sources)
        level = list(dict.fromkeys(file for file, vrt in sources if _is_virtual(file, vrt)))
        if not level:
            return list(found)
    finding = f"is made of virtual rasters that are made of others, more than {DEPTH} deep"
    raise RossamError(path, finding, "build it of the image files themselves (gdalbuildvrt)")


def _sources(path: Path) -> Iterator[Path]:
    """The files that one virtual raster names."""
    try:
        elements = list(ElementTree.parse(path).iter())
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise RossamError(path, f"is no readable virtual raster ({error})", BUILD_ANEW) from error
    if path.suffix.lower() != ".vrt":
        remedy = "copy or download the file again, or save it as 8-bit RGB PNG or JPEG"
        raise RossamError(path, "is a virtual raster under another name, which would read other files", remedy)
    home = Path(os.path.realpath(path)).parent  # of the file itself where `path` is a link, as for GDAL
    for element in elements:
        attributes = {name.lower(): value for name, value in element.attrib.items()}
        named = [(element.tag, "".join(element.itertext())), *attributes.items()]
        for text in (text.strip() for name, text in named if name.lower().endswith(NAMES)):
            _refuse_elsewhere(path, text)
            folder = home if attributes.get("relativetovrt") == "1" else Path()
            yield Path(os.path.realpath(folder / text))


def _refuse_elsewhere(path: Path, source: str) -> None:
    if re.search(r"/vsi(?!zip|gzip|tar)|^<|\w{2,}:", source):
        finding = f"its source {source[:80]!r} is no file: pixels are never read from a network"
        raise RossamError(path, finding, "download the sources and build it anew (gdalbuildvrt)")
    if "/vsi" in source:
        raise RossamError(path, f"its source {source[:80]!r} is in an archive", f"unpack the archive and {BUILD_ANEW}")


def _is_virtual(file: Path, vrt: Path) -> bool:
    """Whether a source is a virtual raster itself; `RossamError` where it is no image file either."""
    try:
        with file.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        remedy = "check that the files it is made of are there and whole: gdalinfo FILE lists them"
        raise RossamError(vrt, f"cannot be read (its source {file}: {error.strerror})", remedy) from error
    if head.startswith(SIGNATURE):
        return True
    if not head.startswith(SOURCES):
        finding = f"its source {file} is no TIFF, PNG, JPEG or JPEG 2000"
        raise RossamError(vrt, finding, f"convert the source (gdal_translate IN OUT.tif) and {BUILD_ANEW}")
    return False
