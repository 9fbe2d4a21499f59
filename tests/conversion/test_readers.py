"""Each export is opened by its usual reader and joined with the COCO file it was made from."""

import contextlib
import io
import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rossam_core import masks
from rossam_kit.convert import exports
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.datasets.coco import read_coco
from rossam_kit.experiments.baselines import BoxBaseline

CLASSES = [{"id": 9, "name": "Zug"}, {"id": 2, "name": "pedestrian"}, {"id": 5, "name": "飞机"}]
SIZE_HW = (48, 64)


def write_source(folder, images, annotations, **more):
    """A COCO file whose polygons are its boxes, so that box masks are exact."""
    for image in images:
        path = folder / "images" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.new("RGB", SIZE_HW[::-1], (60, 90, 60)).save(path)
        image |= {"height": SIZE_HW[0], "width": SIZE_HW[1]}
    for item in annotations:
        x, y, w, h = item["bbox"]
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        item |= {"segmentation": [polygon], "area": w * h, "iscrowd": 0} | item
    content = {"info": {}, "images": images, "annotations": annotations, "categories": CLASSES} | more
    (folder / "in.json").write_text(json.dumps(content))
    return content


def converted(folder, **options):
    frames = read_coco(folder / "in.json", folder / "images", name="in", **options)
    return convert(BoxBaseline(), frames, folder / "out", ConversionConfig(jitter=0))


@pytest.fixture
def stills(tmp_path):
    """Ids without order, folders, equal and odd names, an unused class, a region, and a box of no pixel."""
    files = {
        42: "train/0042.png",
        7: "val/0042.png",
        3: "船 舶/飞机.png",
        11: "val/0042.jpg",
        12: "a_b.png",
        13: "a/b.png",
    }
    images = [{"id": i, "file_name": name} for i, name in files.items()]
    boxes = {300: (42, 5), 100: (7, 2), 200: (3, 5), 50: (11, 2), 60: (12, 5), 70: (13, 2)}
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": [4 + n, 5, 20, 10 + n]}
        for n, (number, (image, category)) in enumerate(boxes.items())
    ]
    annotations.append({"id": 51, "image_id": 11, "category_id": 2, "bbox": [40.1, 20.1, 0.3, 0.3], "segmentation": []})
    annotations.append({"id": 52, "image_id": 11, "category_id": 2, "bbox": [1, 1, 9, 9], "iscrowd": 1})
    return write_source(tmp_path, images, annotations)


@pytest.fixture
def videos(tmp_path):
    """Two videos in CocoVID's form: frames from 0, objects named by `instance_id`."""
    images, annotations = [], []
    for video in (1, 2):
        for frame in range(3):
            number = 10 * video + frame
            images.append({"id": number, "file_name": f"船 {video}/{frame}.png", "video_id": video, "frame_id": frame})
            for instance in (1, 2):
                box = [2 + 3 * frame, 3 + 20 * (instance - 1), 12, 8]
                ids = {"id": len(annotations) + 500, "image_id": number, "category_id": 2, "instance_id": instance}
                annotations.append(ids | {"bbox": box})
    annotations = annotations[:-1]  # the last frame lacks an object
    return write_source(tmp_path, images, annotations, videos=[{"id": i, "name": f"船 {i}"} for i in (2, 1)])


def average_precision(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        source = COCO(str(truth))
        evaluation = COCOeval(source, source.loadRes([item | {"score": 1.0} for item in results]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco_exports_evaluate_against_the_file_they_were_made_from(stills, tmp_path, form):
    path = exports.write_coco(converted(tmp_path), tmp_path / "out/coco.json", form)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    content = coco.dataset
    assert content["categories"] == CLASSES
    assert {i["id"]: i["file_name"] for i in content["images"]} == {i["id"]: i["file_name"] for i in stills["images"]}
    kept = {a["id"]: a for a in stills["annotations"] if a["id"] != 52}
    assert {a["id"] for a in content["annotations"]} == set(kept)
    for item in content["annotations"]:
        source = kept[item["id"]]
        assert (item["image_id"], item["category_id"]) == (source["image_id"], source["category_id"])
        assert np.allclose(item["bbox"], source["bbox"]) and coco.annToMask(item).sum() == item["area"]
    empty = coco.anns[51]["segmentation"]
    assert coco_mask.area(empty) == 0 and empty["size"] == [48, 64]
    assert content["drops"] == [{"where": "val/0042.jpg annotation 52", "reason": "iscrowd: a region, not one object"}]
    truth = stills | {"annotations": [a for a in stills["annotations"] if a["id"] < 51 or a["id"] > 52]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = [a | {"segmentation": coco.annToRLE(a)} for a in content["annotations"] if a["area"]]
    results = [{k: a[k] for k in ("image_id", "category_id", "segmentation")} for a in results]
    assert len(results) == 6 and average_precision(tmp_path / "truth.json", results) == 1.0
    again = read_coco(path, content["info"]["image_root"], name="again")
    assert [(f.key, f.image_path) for f in again] == [(f.key, f.image_path) for f in converted_frames(tmp_path)]


def converted_frames(folder):
    return read_coco(folder / "in.json", folder / "images", name="in")


def test_yolo_is_read_from_another_folder_with_its_names_and_classes(stills, tmp_path, monkeypatch):
    supervision = pytest.importorskip("supervision")
    folder = exports.write_yolo(converted(tmp_path), tmp_path / "out/yolo")
    monkeypatch.chdir("/")
    assert yaml.safe_load((folder / "data.yaml").read_text("utf-8")) == {
        "train": "images",
        "val": "images",
        "names": {0: "Zug", 1: "pedestrian", 2: "飞机"},
        "category_ids": [9, 2, 5],
    }
    listed = pd.read_csv(folder / "annotations.csv")
    assert set(listed["annotation_id"]) == {300, 100, 200, 50, 60, 70}
    by_id = {a["id"]: a for a in stills["annotations"]}
    for sub in ("train", "val", "船 舶", "a", "."):
        dataset = supervision.DetectionDataset.from_yolo(
            str(folder / "images" / sub), str(folder / "labels" / sub), str(folder / "data.yaml"), force_masks=True
        )
        assert dataset.classes == ["Zug", "pedestrian", "飞机"]
        for path, _, detections in dataset:
            label_file = f"labels/{os.path.relpath(os.path.splitext(path)[0], folder / 'images')}.txt"
            rows = listed[listed["label_file"] == label_file]
            assert len(rows) == len(detections) == 1
            source = by_id[rows["annotation_id"].item()]
            assert [c["id"] for c in CLASSES][detections.class_id[0]] == source["category_id"]
            x, y, w, h = source["bbox"]
            assert np.allclose(detections.xyxy[0], [x, y, x + w, y + h], atol=1)
    files = {path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.*")}
    assert files == {"train/0042.png", "val/0042.png.png", "val/0042.jpg.jpg", "船 舶/飞机.png", "a_b.png", "a/b.png"}
    drops = pd.read_csv(folder / "drops.csv")
    assert drops["place"].tolist() == ["val/0042.jpg annotation 52", "val/0042.jpg/000001 object 51"]


@pytest.mark.parametrize(
    ("image", "label"),
    [("images/a.png", "labels/a.txt"), ("images/x/images/a.b.png", "images/x/labels/a.b.txt")],
)
def test_a_label_file_is_where_yolo_readers_look_for_it(image, label):
    assert exports.yolo_label_file(image) == label


def test_youtube_vis_is_evaluated_as_perfect_against_itself(videos, tmp_path):
    content = json.loads(exports.write_youtube_vis(converted(tmp_path), tmp_path / "out/vis.json").read_text())
    assert content["categories"] == CLASSES and {v["id"]: v["name"] for v in content["videos"]} == {
        1: "船 1",
        2: "船 2",
    }
    assert [v["file_names"] for v in content["videos"]] == [[f"船 {v}/{f}.png" for f in range(3)] for v in (1, 2)]
    assert len(content["annotations"]) == 4 and content["annotations"][3]["segmentations"][2] is None
    joined = sorted(i for track in content["annotations"] for i in track["annotation_ids"] if i is not None)
    assert joined == [a["id"] for a in videos["annotations"]]
    trackeval = pytest.importorskip("trackeval")
    truth, tracker = tmp_path / "gt/youtube_vis_train", tmp_path / "tr/youtube_vis_train/me/data"
    for folder in (truth, tracker):
        folder.mkdir(parents=True)
    (truth / "gt.json").write_text(json.dumps(content))
    results = [
        {**track, "score": 1.0, "segmentations": [s and masks.to_rle(s, SIZE_HW) for s in track["segmentations"]]}
        for track in content["annotations"]
    ]
    (tracker / "results.json").write_text(json.dumps(results))
    places = {"GT_FOLDER": f"{tmp_path}/gt/", "TRACKERS_FOLDER": f"{tmp_path}/tr/", "SPLIT_TO_EVAL": "train"}
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = trackeval.datasets.YouTubeVIS(places | {"PRINT_CONFIG": False})
        for sequence in ("船 1", "船 2"):
            raw = dataset.get_raw_seq_data("me", sequence)
            scores = trackeval.metrics.HOTA().eval_sequence(dataset.get_preprocessed_seq_data(raw, "pedestrian"))
            assert np.allclose(scores["HOTA"], 1)


def test_tracks_that_have_a_name_keep_it(videos, tmp_path):
    for item in videos["annotations"]:
        item["instance_id"] = f"boat-{item['instance_id']}"
    (tmp_path / "in.json").write_text(json.dumps(videos))
    done = converted(tmp_path)
    for name, write in (("coco.json", exports.write_coco), ("vis.json", exports.write_youtube_vis)):
        content = json.loads(write(done, tmp_path / "out" / name).read_text())
        assert {item["track_id"] for item in content["annotations"]} == {"boat-1", "boat-2"}
    back = read_coco(tmp_path / "out/coco.json", tmp_path / "images", name="back")
    assert {o.source["track_id"] for f in back for o in f.objects} == {"boat-1", "boat-2"}


def test_mots_is_evaluated_as_perfect_against_itself(videos, tmp_path):
    folder = exports.write_mots(converted(tmp_path), tmp_path / "out/mots")
    lines = (folder / "MOTS-train/船_1/gt/gt.txt").read_text().splitlines()
    assert [line.split()[:5] for line in lines[:3]] == [
        ["1", "1", "2", "48", "64"], ["1", "2", "2", "48", "64"], ["2", "1", "2", "48", "64"]]  # fmt: skip
    size, counts = [48, 64], lines[0].split()[5]
    assert coco_mask.toBbox({"size": size, "counts": counts}).tolist() == videos["annotations"][0]["bbox"]
    listed = pd.read_csv(folder / "annotations.csv")
    assert listed["annotation_id"].tolist() == [a["id"] for a in videos["annotations"]]
    assert listed["frame"].tolist()[:3] == [0, 0, 1] and listed["time"].tolist()[:3] == [1, 1, 2]
    trackeval = pytest.importorskip("trackeval")
    for sequence in ("船_1", "船_2"):
        target = tmp_path / f"tr/MOTS-train/me/data/{sequence}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((folder / f"MOTS-train/{sequence}/gt/gt.txt").read_bytes())
    with contextlib.redirect_stdout(io.StringIO()):
        places = {"GT_FOLDER": str(folder), "TRACKERS_FOLDER": f"{tmp_path}/tr", "PRINT_CONFIG": False}
        dataset = trackeval.datasets.MOTSChallenge(places)
        assert dataset.seq_lengths == {"船_1": 3, "船_2": 3}
        for sequence in dataset.seq_list:
            raw = dataset.get_raw_seq_data("me", sequence)
            scores = trackeval.metrics.HOTA().eval_sequence(dataset.get_preprocessed_seq_data(raw, "pedestrian"))
            assert np.allclose(scores["HOTA"], 1)


def test_an_image_turned_by_its_exif_tag_is_exported_as_it_is_stored(tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[exports.EXIF_ORIENTATION] = 6
    for name in ("t.jpg", "u.png"):
        Image.fromarray(pixels).save(tmp_path / "images" / name, exif=exif)
    images = [{"id": 1, "file_name": "t.jpg"}, {"id": 2, "file_name": "u.png"}]
    write_source(tmp_path, images, [{"id": i, "image_id": i, "category_id": 2, "bbox": [4, 5, 20, 10]} for i in (1, 2)])
    folder = exports.write_yolo(converted(tmp_path), tmp_path / "out/yolo")
    for name in ("t.jpg", "u.png"):
        stored = Image.open(tmp_path / "images" / name)
        assert stored.getexif()[exports.EXIF_ORIENTATION] == 6
        read = cv2.imread(str(folder / "images" / name))  # turns what a tag says
        assert np.array_equal(read[..., ::-1], np.asarray(stored))


@pytest.mark.parametrize(
    "stated", ['tiff:Orientation="6"/>', "><tiff:Orientation>6</tiff:Orientation></rdf:Description>"]
)
def test_a_jpeg_turned_by_its_xmp_tag_is_exported_as_it_is_stored(stated, tmp_path):
    (tmp_path / "images").mkdir()
    spaces = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {spaces}><rdf:Description{stated}</rdf:RDF></x:xmpmeta>'
    for name, more in (("t.jpg", {}), ("u.jpg", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"})):
        Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "images" / name, xmp=xmp.encode(), **more)
    images = [{"id": 1, "file_name": "t.jpg"}, {"id": 2, "file_name": "u.jpg"}]
    write_source(tmp_path, images, [{"id": i, "image_id": i, "category_id": 2, "bbox": [4, 5, 20, 10]} for i in (1, 2)])
    folder = exports.write_yolo(converted(tmp_path), tmp_path / "out/yolo")
    for name in ("t.jpg", "u.jpg"):
        stored, copy = Image.open(tmp_path / "images" / name), Image.open(folder / "images" / name)
        assert stored.getexif()[exports.EXIF_ORIENTATION] == 6 and copy.getexif()[exports.EXIF_ORIENTATION] == 1
        assert np.array_equal(np.asarray(stored), np.asarray(copy))


def test_a_video_of_several_sizes_is_refused_before_any_mask_is_made(videos, tmp_path):
    frames = converted_frames(tmp_path)
    odd = frames.subset([*frames[:5], type(frames[5])(**{**vars(frames[5]), "size_hw": (9, 9)})])
    exports.check(odd, ["coco", "mots"])
    with pytest.raises(exports.RossamError, match="several sizes"):
        exports.check(odd, ["youtube-vis"])
