"""Masks corrected in any format come back to their boxes, train, and convert again; all others come back unchanged."""

import base64
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from tiny_tracks import SIZE_HW, Notched, make_frames

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import read_json, write_json
from rossam_core.inference.predictor import Predictor
from rossam_core.model.build import load_run
from rossam_core.records import ObjectAnnotation
from rossam_core.training.train import fit
from rossam_kit import cli
from rossam_kit.convert import editors, exports, import_command, imports
from rossam_kit.convert.convert import ConversionConfig, boxes_only, convert
from rossam_kit.convert.decisions import Review
from rossam_kit.datasets.coco import read_coco
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.baselines import BoxBaseline

from ..training.tiny_run import tiny_run

CONFIG = ConversionConfig(shard_frames=4, jitter=0)
EDITS = {("clip 0", 1, 7): (8, 7, 17, 13), ("clip 1", 2, 14): (31, 28, 38, 37)}
"""Record → the rectangle (xyxy) that its mask becomes."""


def rectangle(box):
    x0, y0, x1, y1 = box
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def corners(box):
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def edit_coco(path):
    content = read_json(path)
    images = {image["id"]: image for image in content["images"]}
    videos = {video["id"]: video["name"] for video in content["videos"]}
    for item in content["annotations"]:
        image = images[item["image_id"]]
        box = EDITS.get((videos[image["video_id"]], image["frame_index"], item["track_id"]))
        if box:
            item["segmentation"] = [np.array(corners(box)).ravel().tolist()]
    write_json(path, content)


def edit_youtube_vis(path):
    content = read_json(path)
    videos = {video["id"]: video["name"] for video in content["videos"]}
    for item in content["annotations"]:
        for (video, index, track), box in EDITS.items():
            if (videos[item["video_id"]], item["track_id"]) == (video, track):
                item["segmentations"][index - 1] = masks.encode(rectangle(box))
    write_json(path, content)


def edit_mots(folder):
    for (video, index, track), box in EDITS.items():
        path = folder / f"MOTS-train/{video.replace(' ', '_')}/gt/gt.txt"
        rows = [line.split() for line in path.read_text().splitlines()]
        for row in rows:
            if row[:2] == [str(index), str(track)]:
                row[5] = masks.encode(rectangle(box))["counts"]
        path.write_text("".join(" ".join(row) + "\n" for row in rows))


def edit_png(folder):
    for (video, index, track), box in EDITS.items():
        path = folder / video / f"{index:03d}.png"
        label_map, label = cv2.imread(str(path), -1), {7: 1, 14: 2}[track]
        label_map[label_map == label] = 0
        label_map[rectangle(box)] = label
        cv2.imwrite(str(path), label_map)


def edit_yolo(folder):
    for (video, index, track), box in EDITS.items():
        path = folder / "labels" / video / f"{index:03d}.txt"
        lines = path.read_text().splitlines()
        points = (np.array(corners(box)) / SIZE_HW[::-1]).ravel()
        lines[{7: 0, 14: 1}[track]] = f"{ {7: 0, 14: 1}[track] } " + " ".join(f"{value:.9g}" for value in points)
        path.write_text("\n".join(reversed(lines)))  # an editor need not keep the order


def edit_cvat(folder):
    tree = ElementTree.parse(folder / "annotations.xml")
    for (video, index, track), box in EDITS.items():
        image = tree.find(f"image[@name='{video}/{index:03d}.png']")
        mask = next(each for each in image if each.findtext("attribute") == str(track))
        if track == 7:
            mask.tag, x0, y0 = "polygon", *box[:2]
            mask.set("points", ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box)))
        else:
            x0, y0, x1, y1 = box
            values = {"left": x0 - 1, "top": y0, "width": x1 - x0 + 1, "height": y1 - y0}
            runs = np.tile([1, x1 - x0], y1 - y0)
            mask.attrib |= {name: str(value) for name, value in values.items()} | {"rle": ", ".join(map(str, runs))}
    tree.write(folder / "annotations.xml", encoding="utf-8")


def edit_label_studio(folder):
    tasks = read_json(folder / "tasks.json")
    for task in tasks:
        old = {"updated_at": "2026-01-01", "result": []}
        for region in task["annotations"][0]["result"]:
            video, frame = task["data"]["file_name"][:-4].split("/")
            box = EDITS.get((video, int(frame), int(region["id"][6:])))
            if box and region["id"] == "track-7":
                region["value"]["rle"] = editors.brush_rle(rectangle(box))
            elif box:
                points = (np.array(corners(box)) * 100 / SIZE_HW[::-1]).tolist()
                region |= {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["NA"]}}
        task["annotations"] = [old, task["annotations"][0] | {"updated_at": "2026-02-01"}]
    write_json(folder / "tasks.json", tasks)


def edit_labelme(folder):
    for (video, index, track), box in EDITS.items():
        path = folder / video / f"{index:03d}.json"
        content = read_json(path)
        shape = next(shape for shape in content["shapes"] if shape["group_id"] == track)
        if track == 7:
            shape["points"] = corners(box)
        else:
            x0, y0, x1, y1 = box
            png = cv2.imencode(".png", np.ones((y1 - y0, x1 - x0), np.uint8))[1].tobytes()
            shape |= {"shape_type": "mask", "points": [[x0, y0], [x1 - 1, y1 - 1]]}
            shape["mask"] = base64.b64encode(png).decode()
        write_json(path, content)


EDITORS = {
    "coco": edit_coco, "coco-polygons": edit_coco, "youtube-vis": edit_youtube_vis, "mots": edit_mots, "png": edit_png,
    "yolo": edit_yolo, "cvat": edit_cvat, "label-studio": edit_label_studio, "labelme": edit_labelme,
}  # fmt: skip


@pytest.fixture
def done(tmp_path):
    return convert(Notched(), boxes_only(make_frames(tmp_path / "data")), tmp_path / "masks", CONFIG)


def export(done, format):
    place, write = (exports.EXPORTS | editors.EXPORTS)[format]
    return write(done, done.folder / place)


def test_the_command_offers_what_can_be_read():
    assert (*imports.READERS,) == import_command.FORMATS


@pytest.mark.parametrize("format", [name for name in imports.READERS if name != "review"])
def test_two_masks_edited_in_a_format_come_back_train_and_convert_again(format, done, tmp_path, capsys):
    path, out = export(done, format), tmp_path / "corrected.json"
    untouched, outcomes = imports.corrected(done, format)
    assert outcomes == {"unchanged": 12}
    EDITORS[format](path)
    command = ["import-masks", "--conversion", done.folder, "--format", format, "--out", out]
    assert cli.main([str(part) for part in command]) == 0
    assert "10 unchanged, 2 corrected" in capsys.readouterr().out
    read = read_coco(out, done.images, name="corrected")
    for frame, before in zip(read, untouched, strict=True):
        assert [o.object_id for o in frame.objects] == [o.object_id for o in before.objects] == [7, 14]
        for thing, old in zip(frame.objects, before.objects, strict=True):
            box = EDITS.get((frame.video, frame.index, thing.object_id))
            expected = rectangle(box) if box else old.mask(SIZE_HW)
            assert np.array_equal(thing.mask(SIZE_HW), expected) and thing.category == old.category
            assert thing.box_xyxy == (box or old.box_xyxy)
    fit(tiny_run(samples=8, validate_every=8, checkpoint_every=8), tmp_path / "run", read, read[:1])
    predictor = Predictor(load_run(tmp_path / "run"), device="cpu")
    again = convert(predictor, boxes_only(read[:1]), tmp_path / "again", CONFIG)
    assert len(again.table) == 2 and again.manifest["model"]["weights"]


def test_the_corrected_file_is_not_overwritten(done, capsys):
    path = export(done, "coco")
    before = path.read_bytes()
    command = ["import-masks", "--conversion", done.folder, "--format", "coco", "--from", path, "--out", path]
    assert cli.main([str(part) for part in command]) == 2
    assert "would be overwritten" in capsys.readouterr().err and path.read_bytes() == before


def test_decisions_of_the_review_come_back(done):
    review = Review(done, Notched())
    review.reject(("clip 0", 1, 14))
    review.correct(("clip 0", 2, 7), (10, 6, 24, 14))
    frames, outcomes = imports.corrected(done, "review")
    assert outcomes == {"unchanged": 10, "corrected": 1, "removed": 1}
    assert frames[1].objects[0].box_xyxy == (10, 6, 24, 14) and len(frames[0].objects) == 1
    assert [(drop.where, drop.reason) for drop in frames.drops] == [
        ("clip 0/000001 object 14", "rejected in the review")
    ]


def of_boxes(boxes, folder, predictor):
    """A conversion of one frame with ships 1, 2, … in these boxes."""
    frames = make_frames(folder / "data", 1, 1)
    objects = [ObjectAnnotation(n, "ship", box) for n, box in enumerate(boxes, start=1)]
    return convert(predictor, frames.subset([frames[0].with_objects(objects)]), folder / "masks", CONFIG)


@pytest.mark.parametrize("format", ["png", "mots"])
def test_what_others_hide_of_a_mask_is_kept_and_a_removed_mask_is_not(format, tmp_path):
    done = of_boxes([(2, 2, 30, 30), (10, 10, 20, 20), (40, 2, 60, 20)], tmp_path, Notched())
    path = export(done, format)
    assert imports.corrected(done, format)[1] == {"unchanged": 3}
    if format == "png":
        label_map = cv2.imread(str(path / "001.png"), -1)
        label_map[label_map == 3] = 0
        cv2.imwrite(str(path / "001.png"), label_map)
    else:
        text = path / "MOTS-train/clip_0/gt/gt.txt"
        text.write_text("".join(line + "\n" for line in text.read_text().splitlines() if line.split()[1] != "3"))
    assert imports.corrected(done, format)[1] == {"unchanged": 2, "removed": 1}


def repaint(path, labels, edit):
    """Applies `edit` to the label map of the one frame of an export as `png` or `mots`."""
    text = path / "MOTS-train/clip_0/gt/gt.txt"
    if not text.exists():
        label_map = cv2.imread(str(path / "001.png"), -1)
        edit(label_map)
        cv2.imwrite(str(path / "001.png"), label_map)
        return
    label_map = np.zeros(SIZE_HW, np.uint16)
    for _, track, *_, counts in map(str.split, text.read_text().splitlines()):
        label_map[masks.decode({"size": list(SIZE_HW), "counts": counts}, SIZE_HW)] = int(track)
    edit(label_map)
    found = {n: masks.encode(label_map == n)["counts"] for n in range(1, labels + 1) if (label_map == n).any()}
    text.write_text("".join(f"1 {n} 1 {SIZE_HW[0]} {SIZE_HW[1]} {counts}\n" for n, counts in found.items()))


def put_columns(label_map):
    label_map[4:14, 10:14] = 2


def merge(label_map):
    label_map[label_map == 1] = 2


def erase_second(label_map):
    label_map[label_map == 2] = 0


def second_as_first(label_map):
    label_map[label_map == 2] = 1


def halve(label_map):
    label_map[4:14, 4:9] = 0


APART, NESTED, SAME = [(4, 4, 14, 14), (14, 4, 24, 14)], [(4, 4, 24, 24), (10, 10, 20, 20)], [(4, 4, 14, 14)] * 2


@pytest.mark.parametrize("format", ["png", "mots"])
@pytest.mark.parametrize(
    ("boxes", "edit", "outcomes", "areas"),
    [
        (APART, put_columns, {"corrected": 2}, {1: 60, 2: 140}),
        (APART, merge, {"removed": 1, "corrected": 1}, {2: 200}),
        (NESTED, put_columns, {"corrected": 2}, {1: 376, 2: 124}),
        (NESTED, merge, {"removed": 1, "corrected": 1}, {2: 400}),
        (NESTED, erase_second, {"corrected": 1, "removed": 1}, {1: 300}),
        (NESTED, second_as_first, {"unchanged": 1, "removed": 1}, {1: 400}),
        (SAME, halve, {"corrected": 2}, {1: 50, 2: 50}),
        (SAME, erase_second, {"removed": 2}, {}),
    ],
)
def test_pixels_given_to_another_object_leave_their_old_owner(format, boxes, edit, outcomes, areas, tmp_path):
    done = of_boxes(boxes, tmp_path, BoxBaseline())
    path = export(done, format)
    assert imports.corrected(done, format)[1] == {"unchanged": 2}
    repaint(path, len(boxes), edit)
    (frame,), found = imports.corrected(done, format)
    assert found == outcomes and {o.object_id: o.mask(SIZE_HW).sum() for o in frame.objects} == areas


def test_masks_without_tracks_join_by_box_and_others_are_new(done, tmp_path):
    path = export(done, "coco")
    content = read_json(path)
    for item in content["annotations"]:
        del item["track_id"]
    first = content["annotations"][0]
    new = {"id": 99, "image_id": first["image_id"], "category_id": first["category_id"]}
    content["annotations"].append(new | {"segmentation": [[50, 2, 60, 2, 60, 9, 50, 9]], "bbox": [50, 2, 10, 7]})
    content["annotations"].append(new | {"id": 100, "segmentation": [[1, 2]]})
    content["images"].append({"id": 77, "file_name": "elsewhere.png"})
    del content["annotations"][3]
    write_json(tmp_path / "edited.json", content)
    frames, outcomes = imports.corrected(done, "coco", tmp_path / "edited.json")
    assert outcomes == {"unchanged": 11, "new": 1, "removed": 1}
    assert [o.object_id for o in frames[0].objects] == [7, 14, 15] and frames[0].objects[2].box_xyxy == (50, 2, 60, 9)
    reasons = {drop.where: drop.reason for drop in frames.drops}
    assert reasons["image elsewhere.png"] == "is none of the conversion"
    assert "1 points" in reasons[f"{frames[0].key} mask of ship"]


@pytest.fixture
def gap(tmp_path):
    """Track 7 has no box in frame 2 of 3."""
    first, second, third = make_frames(tmp_path / "data", 1, 3)
    frames = [first, second.with_objects(second.objects[1:]), third]
    return convert(Notched(), boxes_only(FrameSet("tiny", frames)), tmp_path / "masks", CONFIG)


def with_new(path, new):
    """Adds annotations (frame number, track, class, box) to a COCO file."""
    content = read_json(path)
    images = {image["frame_index"]: image["id"] for image in content["images"]}
    for number, (frame, track, category, box) in enumerate(new, start=100):
        about = {"id": number, "image_id": images[frame], "category_id": category, "track_id": track, "bbox": [0] * 4}
        content["annotations"].append(about | {"segmentation": [np.array(corners(box)).ravel().tolist()]})
    write_json(path, content)
    return path


def test_a_track_s_new_masks_are_one_object(gap):
    new = [(2, 7, 1, (2, 2, 8, 8)), (2, 7, 1, (10, 2, 14, 8))]
    new += [(frame, 90, 1, (50, y, 60, y + 4)) for frame in (1, 2, 3) for y in (2, 9)]
    new += [(frame, 90, 2, (1, 40, 9, 46)) for frame in (1, 3)]
    frames, outcomes = imports.corrected(gap, "coco", with_new(export(gap, "coco"), new))
    assert outcomes == {"unchanged": 5, "new": 6}
    found = [{(o.object_id, o.category): o.mask(SIZE_HW).sum() for o in frame.objects if o.object_id != 14}
             for frame in frames]  # fmt: skip
    assert found[1] == {(7, "ship"): 60, (15, "ship"): 80}
    for frame in (found[0], found[2]):
        assert list(frame) == [(7, "ship"), (15, "ship"), (16, "na")] and frame[15, "ship"] == 80


def test_a_track_s_new_mask_does_not_become_another_record_s(gap):
    path = export(gap, "coco")
    content = read_json(path)
    moved = next(item for item in content["annotations"] if item["track_id"] == 14)
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != 2]
    write_json(path, content | {"annotations": [*content["annotations"], moved | {"image_id": 2, "track_id": "7"}]})
    frames, outcomes = imports.corrected(gap, "coco", path)
    assert outcomes == {"unchanged": 4, "removed": 1, "new": 1} and [o.object_id for o in frames[1].objects] == [7]


@pytest.mark.parametrize("format", ["coco", "youtube-vis"])
def test_a_track_with_a_name_is_found_in_frames_that_lack_it(format, tmp_path):
    first, second = make_frames(tmp_path / "data", 1, 2)
    named = replace(first.objects[1], source={"track_id": "tug"})
    frames = [first.with_objects([first.objects[0], named]), second.with_objects(second.objects[:1])]
    done = convert(Notched(), boxes_only(FrameSet("tiny", frames)), tmp_path / "masks", CONFIG)
    path = export(done, format)
    if format == "coco":
        with_new(path, [(2, "tug", 2, (50, 2, 60, 9))])
    else:
        content = read_json(path)
        track = next(each for each in content["annotations"] if each["track_id"] == "tug")
        track["segmentations"][1] = masks.encode(rectangle((50, 2, 60, 9)))
        write_json(path, content)
    assert [o.object_id for o in imports.corrected(done, format)[0][1].objects] == [7, 14]


def test_a_label_of_another_frame_has_its_class(gap):
    path = export(gap, "png")
    file = path / "002.png"
    label_map = cv2.imread(str(file), -1)
    label_map[2:8, 50:60] = 1  # track 7
    label_map[40:46, 1:9] = 9
    cv2.imwrite(str(file), label_map)
    frames, outcomes = imports.corrected(gap, "png")
    assert outcomes == {"unchanged": 5, "new": 1} and [d.reason for d in frames.drops] == ["has no class"]
    assert [(o.object_id, o.category) for o in frames[1].objects] == [(14, "na"), (7, "ship")]


def test_frames_that_a_file_does_not_list_keep_their_masks(done):
    path = export(done, "labelme")
    (path / "clip 0/001.json").unlink()
    content = read_json(path / "clip 0/002.json")
    content["shapes"] = [{"label": "ship", "points": [[1, 1], [3, 3]], "shape_type": "line"}]
    write_json(path / "clip 0/002.json", content)
    frames, outcomes = imports.corrected(done, "labelme")
    assert outcomes == {"unchanged": 10, "removed": 2}
    assert frames.drops[0].where == "clip 0/000002 line 1"


def first(folder, pattern):
    return sorted(folder.glob(pattern))[0]


def replaced(pattern, old, new):
    """Replaces text in the first file that matches, once."""

    def edit(place):
        path = first(place, pattern) if place.is_dir() else place
        path.write_text(path.read_text().replace(old, new, 1))

    return edit


def put(pattern, text):
    """Puts text before the first file that matches."""
    return lambda place: replaced(pattern, first(place, pattern).read_text(), text + first(place, pattern).read_text())(
        place
    )


def put_image(shape):
    return lambda place: cv2.imwrite(str(first(place, "*/*.png")), np.ones(shape, np.uint8))


@pytest.mark.parametrize(
    ("format", "edit", "message"),
    [
        ("coco", replaced("", '"image_id"', '"picture"'), r"coco\.json: is damaged .*KeyError: 'image_id'"),
        ("youtube-vis", replaced("", '"videos"', '"clips"'), r"youtube_vis\.json: is damaged .*KeyError: 'videos'"),
        ("youtube-vis", replaced("", '"segmentations": [', '"segmentations": [null, '), "after frame .*is longer"),
        ("coco", replaced("", '"height": ', '"height": 9'), r"image .*\.png: height, width is \(9"),
        ("cvat", replaced("annotations.xml", 'height="', 'height="9'), r"image .*\.png: height, width is \('9"),
        ("labelme", replaced("*/*.json", '"imageWidth": ', '"imageWidth": 9'), r"image .*\.png: height, width is"),
        ("mots", put("*/*/gt/gt.txt", "1 1 1\n"), "mots: is damaged .*after frame .*expected 6"),
        ("mots", put("*/*/gt/gt.txt", "1 a 1 9 9 0\n"), "mots: is damaged .*'a'"),
        ("png", put_image((5, 5)), r"\.png: has shape \(5, 5\)"),
        ("png", put_image((*SIZE_HW, 3)), r"\.png: has shape .*3\)"),
        ("png", lambda place: first(place, "*/*.png").write_bytes(b"x"), r"\.png: cannot be read"),
        ("yolo", put("labels/*/*.txt", "0 0 0 1 1 1 0 1\n"), "yolo: is damaged .*reshape"),
        ("yolo", put("labels/*/*.txt", "ship 0 0 1 1 1 0\n"), "yolo: is damaged .*'ship'"),
        ("yolo", lambda place: (place / "data.yaml").unlink(), r"data\.yaml: no such file"),
        ("cvat", replaced("annotations.xml", 'rle="', 'rle="x'), "cvat: is damaged .*invalid literal"),
        ("label-studio", replaced("tasks.json", '"rle": [', '"rle": ["x", '), "label_studio: is damaged"),
        ("labelme", replaced("*/*.json", '"points": [', '"points": ["x", '), "labelme: is damaged"),
    ],
)
def test_damaged_files_are_named_with_the_frame_before_the_damage(format, edit, message, done):
    edit(export(done, format))
    with pytest.raises(RossamError, match=rf"{message}(?s:.)*Remedy: "):
        imports.corrected(done, format)


@pytest.mark.parametrize(
    ("format", "edit", "drop"),
    [
        ("coco", replaced("", '"image_id": ', '"image_id": 9'), "points at nothing"),
        ("mots", put("*/*/gt/gt.txt", "99 1 1 9 9 0\n\n"), "is none of the conversion"),
        ("mots", put("*/*/gt/gt.txt", "1 1 1 9 9 0\n"), "mask is encoded for size"),
        ("yolo", put("labels/*/*.txt", "0 0.5 0.5 0.1 0.1\n\n"), "is no polygon"),
        ("yolo", put("labels/*/*.txt", "0 nan 0 1 1 1 0\n"), "finite"),
        ("yolo", put("labels/*/*.txt", "0 5 5 6 5 6 6\n"), "has no pixel"),
        ("labelme", replaced("*/*.json", '"points": [[', '"points": [[NaN, 1], ['), "finite"),
        ("labelme", replaced("*/*.json", '"points": [[', '"points": [[1e9, 1], ['), "has coordinate 1e+09"),
        ("labelme", replaced("*/*.json", '"points": [[', '"points": [[1, 1]], "old": [['), "1 points"),
    ],
)
def test_single_masks_that_cannot_be_used_are_listed(format, edit, drop, done):
    edit(export(done, format))
    frames, outcomes = imports.corrected(done, format)
    assert [drop in each.reason for each in frames.drops].count(True) == 1 and outcomes["unchanged"] >= 11


def test_decisions_that_nobody_took_are_told_with_how_to_take_them(done):
    with pytest.raises(RossamError, match=r"decisions\.jsonl: no such file(?s:.)*review the masks in a notebook"):
        imports.corrected(done, "review")


@pytest.mark.parametrize(("place", "message"), [("nowhere", "no such file"), ("bad.json", "has no annotations"),
                                             ("bad.xml", "CVAT for images")])  # fmt: skip
def test_files_of_another_kind_are_refused(place, message, done, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "bad.xml").write_text("<annotations>")
    with pytest.raises(RossamError, match=message):
        imports.corrected(done, "cvat" if place == "bad.xml" else "coco", tmp_path / place)


def test_label_studio_s_encoding_reads_back_and_a_damaged_one_is_told(rng):
    for mask in (rng.random((37, 53)) > 0.5, np.zeros((300, 400), bool), np.ones((300, 400), bool)):
        assert np.array_equal(editors.brush_mask(editors.brush_rle(mask), mask.shape), mask)
    # by hand: four equal words as a run, then four single words
    text = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "1" + "00" + "011" + "11111111" + "0" + "00" + "011"
    text += "".join(f"{value:08b}" for value in (0, 0, 0, 200))
    packed = np.packbits([int(bit) for bit in text]).tolist()
    assert editors.brush_mask(packed, (1, 2)).tolist() == [[True, True]]
    with pytest.raises(RossamError, match="damaged"):
        editors.brush_mask(packed[:9], (1, 2))
    with pytest.raises(RossamError, match="size"):
        editors.brush_mask(packed, (2, 2))
