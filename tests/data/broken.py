"""A generator of broken files: each kind of damage takes a whole dataset and returns the file it has damaged.

`DAMAGE[format][kind](root)` damages the twin in `root`. The formats are those of `scenes.READERS`.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from rossam_kit.datasets.sat_mtb import read_xlsx

from ..fake_datasets import write_xlsx


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(500))


def utf16(path: Path) -> None:
    path.write_bytes(path.read_text().encode("utf-16"))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def latin1(path: Path) -> None:
    path.write_bytes(path.read_bytes() + "é\n".encode("latin-1"))


def nested(path: Path) -> None:
    path.write_text("[" * 200_000)


def other_size(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((image.width // 2, image.height)).save(path)


def lines(*new: str, at: int | None = 1):
    """Replace the line `at` (from 0) by `new`; None: replace all lines."""

    def damage(path: Path) -> None:
        old = path.read_text().splitlines()
        old[slice(None) if at is None else slice(at, at + 1)] = new
        path.write_text("\n".join(old) + "\n")

    return damage


def regex(pattern: str, new: str, count: int = 1):
    def damage(path: Path) -> None:
        text, hits = re.subn(pattern, new, path.read_text(), count=count, flags=re.DOTALL)
        assert hits, f"{pattern} does not occur in {path}"
        path.write_text(text)

    return damage


def as_json(edit):
    """`edit(content)` changes the parsed JSON in place, or returns what to write instead."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        instead = edit(content)
        path.write_text(json.dumps(content if instead is None else instead))

    return damage


def annotation(position: int = 0, **fields):
    return as_json(lambda content: content["annotations"][position].update(fields))


def array(edit):
    """`edit(array)` changes it in place, or returns another."""

    def damage(path: Path) -> None:
        content = np.load(path)
        instead = edit(content)
        np.save(path, content if instead is None else instead, allow_pickle=True)

    return damage


def put(index, value):
    return array(lambda content: content.__setitem__(index, value))


def pixels(edit):
    """Like `array`, for an image file."""

    def damage(path: Path) -> None:
        content = np.array(Image.open(path))
        instead = edit(content)
        Image.fromarray(content if instead is None else instead).save(path)

    return damage


def sheet(edit, name: str = "seg"):
    """`edit(rows)` changes a sheet of the workbook in place."""

    def damage(path: Path) -> None:
        sheets = read_xlsx(path)
        edit(sheets[name])
        write_xlsx(path, sheets)

    return damage


def without_sheet(path: Path) -> None:
    write_xlsx(path, {"other": [["a"]]})


def extra(name: str):
    """Put a copy of the file beside it."""

    def damage(path: Path) -> Path:
        copy = path.with_name(name)
        copy.write_bytes(path.read_bytes())
        return copy

    return damage


def on(path: str, kinds: dict) -> dict:
    """The kinds of damage, done to the first file that matches `path` below the dataset."""

    def bound(damage):
        def run(root: Path) -> Path:
            target = sorted(root.glob(path))[0]
            result = damage(target)
            return result if isinstance(result, Path) else target

        return run

    stem = path.rsplit("/", 1)[-1]
    return {f"{stem}: {kind}": bound(damage) for kind, damage in kinds.items()}


WHOLE_FILE = {
    "missing": missing,
    "empty": empty,
    "cut off": cut_off,
    "noise": noise,
    "a folder": folder_instead,
}
IMAGE = WHOLE_FILE | {"other size": other_size}
ROWS = {kind: damage for kind, damage in WHOLE_FILE.items() if kind != "cut off"} | {
    "utf-16": utf16,
    "latin-1": latin1,
    "zero bytes": lambda path: path.write_bytes(path.read_bytes() + b"\0\0\n"),
    "words in a row": lines("one,two,three,four"),
    "a column short": lines("1"),
    "blank row": lines("", at=1),
}
SEQUENCE_ROWS = {
    "a row short": lambda path: path.write_text("".join(path.read_text().splitlines(True)[:-1])),
    "a row too many": lambda path: path.write_text(path.read_text() + path.read_text().splitlines(True)[0]),
}


def boxes(row: str) -> dict:
    """Damage to one box of a row file; `row` is a template with the fields x, y, w, h."""
    values = {
        "NaN": ("nan", 5, 5, 5),
        "infinite": ("inf", 5, 5, 5),
        "negative": (20, 20, -5, 5),
        "no width": (20, 20, 0, 5),
        "outside": (900, 20, 5, 5),
        "huge number": ("1e400", 5, 5, 5),
    }
    return {
        kind: lines(row.format(x=x, y=y, w=w, h=h, x1=float(x) + w, y1=y + h)) for kind, (x, y, w, h) in values.items()
    }


OBB_BOXES = boxes("{x},{y},{x1},{y},{x1},{y1},{x},{y1}")
del OBB_BOXES["negative"]  # the same four corners, from another one on
JSON_KINDS = WHOLE_FILE | {
    "utf-16": utf16,
    "latin-1": latin1,
    "nested": nested,
    "a list": as_json(lambda content: [content]),
    "id twice": annotation(id=2),
    "NaN box": annotation(bbox=[float("nan"), 1, 2, 3]),
    "two points": annotation(segmentation=[[1, 2, 3, 4]]),
    "mask of another size": annotation(segmentation={"size": [5, 5], "counts": [25]}),
    "other size": as_json(lambda content: content["images"][0].update(height=5)),
}
COCO_KINDS = JSON_KINDS | {
    "no annotations": as_json(lambda content: content.pop("annotations") and None),
    "dangling image": annotation(image_id=99),
    "unknown class": annotation(category_id=99),
    "negative box": annotation(bbox=[20, 20, -5, 5]),
    "empty box": annotation(bbox=[20, 20, 0, 0]),
    "box outside": annotation(bbox=[900, 20, 5, 5]),
    "three numbers": annotation(bbox=[20, 20, 5]),
    "file twice": as_json(lambda content: content["images"][0].update(file_name=content["images"][1]["file_name"])),
}
SEG_KINDS = JSON_KINDS | {
    "a number": as_json(lambda content: 5),
    "no images": as_json(lambda content: content["images"].clear()),
    "annotation is text": as_json(lambda content: content["annotations"].append("car")),
    "unknown class": as_json(lambda content: content["categories"][0].update(name="dog", supercategory="animal")),
    "class of no kind": annotation(category_id=[1]),
    "id is text": annotation(id="one"),
    "no box": annotation(bbox=None),
    "inverted box": annotation(bbox=[20, 20, 5, 5]),
    "box outside": annotation(bbox=[900, 900, 950, 950]),
    "box elsewhere": annotation(bbox=[40, 2, 45, 5]),
    "xywh": as_json(lambda c: [a.update(bbox=[*a["bbox"][:2], 17, 10]) for a in c["annotations"]] and None),
    "NaN polygon": annotation(segmentation=[[1, 2, 3, 4, float("nan"), 6]]),
    "polygon is text": annotation(segmentation="1 2 3 4 5 6"),
    "no image of that frame": extra("000009.json"),
    "name is no number": extra("final.json"),
}
XML_KINDS = WHOLE_FILE | {
    "latin-1": latin1,
    "unknown encoding": lambda path: path.write_text('<?xml version="1.0" encoding="klingon"?>' + path.read_text()),
    "other size": regex("<width>.*?<", "<width>9<"),
    "unknown class": regex("<name>.*?<.*?<subname>.*?<", "<name>dog</name><subname>cat<"),
    "id twice": regex("<objectID>2<", "<objectID>1<"),
    "id is text": regex("<objectID>2<", "<objectID>two<"),
    "no id": regex("<objectID>2</objectID>", ""),
    "no image of that frame": extra("000009.xml"),
}
XLSX_KINDS = WHOLE_FILE | {
    "no such sheet": without_sheet,
    "unknown class": sheet(lambda rows: rows[0].__setitem__(1, "dog")),
    "no header": sheet(lambda rows: rows.__delitem__(0)),
    "split not named": sheet(lambda rows: [row.__setitem__(0, "") for row in rows]),
    "unknown split": sheet(lambda rows: rows[1].__setitem__(0, "holdout")),
    "text for a number": sheet(lambda rows: rows[1].__setitem__(1, "first")),
    "sequence is not there": sheet(lambda rows: rows.append(["test", "9"])),
    "in both splits": sheet(lambda rows: rows.append(["train", "1"])),
}
DAMAGE = {
    "sat-mtb": on("airplane/01/img/000002.png", IMAGE)
    | on("airplane/01/seg/000002.json", SEG_KINDS)
    | on("data_split.xlsx", XLSX_KINDS),
    "sat-mtb hbb": on(
        "airplane/01/det/HBB/000002.xml",
        XML_KINDS
        | {
            "no box": regex("bndbox", "box", count=0),
            "three numbers": regex("<ymax>.*?</ymax>", ""),
            "NaN": regex("<xmin>.*?<", "<xmin>nan<"),
            "infinite": regex("<xmin>.*?<", "<xmin>1e400<"),
            "words": regex("<xmin>.*?<", "<xmin>left<"),
            "inverted": regex("<xmin>.*?<", "<xmin>60<"),
            "outside": regex("<xmin>.*?<(.*?)<xmax>.*?<", r"<xmin>900<\1<xmax>950<"),
        },
    ),
    "sat-mtb obb": on(
        "airplane/01/det/OBB/000002.xml",
        XML_KINDS
        | {
            "no box": regex("robndbox", "bndbox", count=0),
            "seven numbers": regex("<y3>.*?</y3>", ""),
            "NaN": regex("<x0>.*?<", "<x0>nan<"),
        },
    ),
    "sat-mtb mot": on(
        "airplane/01/mot/01.txt",
        ROWS
        | boxes("1,2,{x},{y},{w},{h},1,1,0,0,0")
        | {
            "unknown class": lines("1,2,5,5,5,5,1,9,0,0,0"),
            "object twice": lines("1,1,5,5,5,5,1,1,0,0,0"),
            "frame without image": lines("9,1,5,5,5,5,1,1,0,0,0"),
            "half a frame": lines("1.5,1,5,5,5,5,1,1,0,0,0"),
            "twelve columns": lines("1,2,5,5,5,5,1,1,0,0,0,0"),
        },
    ),
    "authors": on("test/img/one_000002.png", IMAGE)
    | on(
        "test/boxes/one_000002.npy",
        WHOLE_FILE
        | {
            "text": lambda path: path.write_text("1,2,3,4"),
            "five columns": array(lambda boxes: np.hstack([boxes, boxes[:, :1]])),
            "one object short": array(lambda boxes: boxes[:1]),
            "flat": array(lambda boxes: boxes.ravel()),
            "words": array(lambda boxes: boxes.astype(str)),
            "objects": array(lambda boxes: boxes.astype(object)),
            "NaN": put((0, 0), np.nan),
            "inverted": put((0, 0), 60),
            "outside": put(0, [900, 900, 950, 950]),
            "no area": put(0, [5, 5, 5, 9]),
            "of another image": extra("one_000009.npy"),
        },
    )
    | on(
        "test/onehotmask/one_000002.npy",
        WHOLE_FILE
        | {
            "one object short": array(lambda stack: stack[:1]),
            "other size": array(lambda stack: stack[:, :5]),
            "floats": array(lambda stack: stack / 255),
            "gray": put(np.s_[0, :20], 7),
            "one mask empty": put(0, 0),
            "masks exchanged": array(lambda stack: stack[::-1].copy()),
        },
    ),
    "isaid": on("val/images/P0001.png", {k: v for k, v in IMAGE.items() if k != "noise"})
    | on(
        "val/images/P0001_instance_color_RGB.png",
        IMAGE
        | {
            "unknown colour": pixels(lambda rgb: rgb.__setitem__((0, 0), (1, 2, 3))),
            "all black": pixels(lambda rgb: rgb.__setitem__(..., 0)),
            "gray": pixels(lambda rgb: rgb[..., 2].copy()),
            "with alpha": pixels(lambda rgb: np.dstack([rgb, rgb[..., :1] + 255])),
            "channels exchanged": pixels(lambda rgb: rgb[..., ::-1].copy()),
        },
    )
    | on(
        "val/images/P0001_instance_id_RGB.png",
        IMAGE
        | {
            "gray": pixels(lambda rgb: rgb[..., 0].copy()),
            "an object on background": pixels(lambda rgb: rgb.__setitem__((0, slice(20)), (9, 9, 9))),
            "over both classes": pixels(lambda rgb: rgb.__setitem__(..., 9)),
            "all black": pixels(lambda rgb: rgb.__setitem__(..., 0)),
            "a single pixel": pixels(lambda rgb: rgb.__setitem__(tuple(np.argwhere(rgb.any(2))[0]), (8, 8, 8))),
        },
    ),
    "satsot": on("plane_01/img/0002.jpg", IMAGE | {"no number": lambda p: [p.rename(p.with_name("second.jpg"))]})
    | on("plane_01/img/0002.jpg", {"number twice": extra("002.jpg")})
    | on("plane_01/groundtruth.txt", ROWS | SEQUENCE_ROWS | boxes("{x},{y},{w},{h}"))
    | on("plane_01", {"unknown class": lambda folder: folder.rename(folder.with_name("boat_01"))}),
    "ootb": on("plane_1/img/0002.jpg", IMAGE)
    | on("plane_1/groundtruth.txt", ROWS | SEQUENCE_ROWS | OBB_BOXES | {"four numbers": lines("1,2,3,4")})
    | on(
        "anno/plane_1.txt",
        {"missing": missing, "empty": empty, "noise": noise, "a folder": folder_instead, "utf-16": utf16}
        | {"fifteen flags": lines("0," * 14 + "0", at=None), "a word": lines("yes", at=None)},
    )
    | on("plane_1", {"unknown class": lambda folder: folder.rename(folder.with_name("boat_1"))}),
    "viso mot": on("mot/plane/001/img/000002.jpg", IMAGE)
    | on(
        "mot/plane/001/gt/gt.txt",
        ROWS
        | boxes("1 2 {x} {y} {x1} {y1}")
        | {
            "object twice": lines("1 1 5 5 9 9"),
            "frame without image": lines("9 1 5 5 9 9"),
            "half a frame": lines("1.5 1 5 5 9 9"),
            "xywh": lines(*(f"{frame} 1 30 30 5 5" for frame in (1, 2, 3)), at=None),
            "commas in one row": lines("1,2,5,5,9,9"),
        },
    )
    | on("mot/plane", {"unknown class": lambda folder: folder.rename(folder.with_name("boat"))}),
    "viso sot": on("sot/plane/001/img/000002.jpg", IMAGE)
    | on(
        "sot/plane/001/gt/1_1_3.txt",
        {kind: damage for kind, damage in ROWS.items() if kind != "missing"}  # what tracks there are is stated nowhere
        | SEQUENCE_ROWS
        | boxes("{x},{y},{w},{h}")
        | {"name": lambda path: path.rename(path.with_name("first.txt"))}
        | {"later frames": lambda path: path.rename(path.with_name("1_7_9.txt"))},
    )
    | on("sot/plane/001/gt", {"missing": shutil.rmtree}),
    "nwpu-vhr10": on("annotations.json", COCO_KINDS) | on("*/positive image set/002.jpg", IMAGE),
    "coco": on("test.json", COCO_KINDS) | on("images/one/000002.png", IMAGE),
}
"""Format → kind of damage → what does it."""
