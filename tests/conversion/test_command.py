"""`rossam convert` end to end on a tiny COCO file with boxes and no masks."""

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from tiny_tracks import make_frames
from typer.main import get_command

from rossam_core.errors import RossamError
from rossam_core.model.build import build_model
from rossam_core.model.weights import save_weights, weights_hash
from rossam_kit import cli
from rossam_kit.config import load_profile
from rossam_kit.convert import command
from rossam_kit.convert.command import FORMATS, predictor_of, profile_of
from rossam_kit.convert.mask_records import Conversion
from rossam_kit.datasets.coco import read_coco
from rossam_kit.datasets.frame_set import FrameSet

from ..fake_datasets import write_twin


@pytest.fixture
def dataset(tmp_path):
    """`<root>/test.json` and `<root>/images`, as the source `coco` has them."""
    frames = make_frames(tmp_path / "set/images")
    videos = {name: i for i, name in enumerate(frames.videos, start=1)}
    images, annotations = [], []
    for i, frame in enumerate(frames, start=1):
        name = frame.image_path.relative_to(tmp_path / "set/images").as_posix()
        images.append({"id": i, "file_name": name, "video_id": videos[frame.video], "frame_index": frame.index})
        for thing in frame.objects:
            x0, y0, x1, y1 = thing.box_xyxy
            ids = {"id": len(annotations) + 1, "image_id": i, "category_id": 1, "track_id": thing.object_id}
            annotations.append(ids | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]}
    content["videos"] = [{"id": i, "name": name} for name, i in videos.items()]
    (tmp_path / "set/test.json").write_text(json.dumps(content))
    return tmp_path / "set"


def call(*arguments):
    return get_command(cli.app).main(["convert", *map(str, arguments)], standalone_mode=False)


def test_boxes_of_a_coco_file_become_masks_in_every_format(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    every = [part for name in FORMATS for part in ("--format", name)]
    assert call("--source", "coco", "--data", dataset, "--out", out, "--method", "grabcut", "--workers", 1, *every) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[0].split() == ["boxes", "masks", "empty", "failed", "time"]
    assert output.splitlines()[1].split()[:4] == ["12", "12", "0", "0"]
    assert "look at these first" in output and str(out / "review.html") in output
    read = read_coco(out / "coco.json", dataset / "images", name="masks")
    assert read.object_count == 12 and all(o.has_mask for f in read for o in f.objects)
    for name in (
        "coco_polygons.json",
        "labels/labels.csv",
        "authors/train/img",
        "yolo/data.yaml",
        "cvat/annotations.xml",
        "labelme/clip 0/001.json",
    ):
        assert (out / name).exists()


def test_a_polygon_corrected_in_place_outlives_the_next_conversion(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["convert", "--source", "coco", "--data", dataset, "--out", out, "--method", "box", "--workers", 1]
    arguments = [*map(str, arguments), "--format", "labelme"]
    assert cli.main(arguments) == cli.main(arguments) == 0
    path = out / "labelme/clip 0/001.json"
    content = json.loads(path.read_text())
    assert (path.parent / content["imagePath"]).resolve() == (dataset / "images/clip 0/001.png").resolve()
    content["shapes"][0]["points"][0] = [1, 1]
    path.write_text(edited := json.dumps(content))
    capsys.readouterr()
    assert cli.main([*arguments, "--format", "coco"]) == 2 and path.read_text() == edited
    message = capsys.readouterr().err
    assert f"{path}: was changed since it was exported" in message and "leave --format labelme out" in message
    assert cli.main([*arguments[:-1], "coco"]) == 0 and path.read_text() == edited and (out / "coco.json").exists()
    path.unlink()
    assert cli.main(arguments) == 0 and path.exists()


def test_oriented_boxes_of_sat_mtb_and_dota_prompt_and_clip(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    corners = [[20.0, 6.0], [44.0, 20.0], [36.0, 34.0], [12.0, 20.0]]
    frame = make_frames(tmp_path / "made", 1, 1)[0]
    box, oriented = (12, 6, 44, 34), {"oriented_box": corners}
    item = replace(frame.objects[0], category="ship", box_xyxy=box, attributes=oriented)
    root = write_twin(FrameSet("made", [frame.with_objects([item])]), "sat-mtb", tmp_path / "sat-mtb")
    areas = {}
    for kind, options in {"obb": ["--clip-oriented"], "hbb": []}.items():
        out = tmp_path / kind
        arguments = ["--source", "sat-mtb", "--data", root, "--method", "box", "--workers", 1, "--out", out]
        assert call(*arguments, "--boxes", kind, *options) == 0
        areas[kind] = pd.read_csv(out / "records.csv")["area"][0]
    assert areas["hbb"] == 32 * 28 and areas["obb"] == pytest.approx(448, rel=0.03)
    with pytest.raises(RossamError, match=r"clip-oriented: has no effect(?s:.)*--boxes obb"):
        call(*arguments[:-1], tmp_path / "new", "--boxes", "hbb", "--clip-oriented")
    with pytest.raises(RossamError, match="name it with --source sat-mtb"):
        call("--method", "box", "--out", tmp_path / "new", "--boxes", "obb")
    with pytest.raises(RossamError, match=r"data\.keep_crowd: has no effect with --boxes"):
        call(*arguments[:-1], tmp_path / "new", "--boxes", "hbb", "--keep-crowd")
    (tmp_path / "dota/labelTxt").mkdir(parents=True)
    shutil.copytree(frame.image_path.parent, tmp_path / "dota/images")
    row = " ".join(str(value) for corner in corners for value in corner)
    (tmp_path / "dota/labelTxt/001.txt").write_text(f"imagesource:made\ngsd:0.5\n{row} large-vehicle 0\n")
    arguments = ["--source", "dota", "--data", tmp_path / "dota", "--method", "box", "--out", tmp_path / "of dota"]
    assert call(*arguments, "--workers", 1, "--clip-oriented") == 0
    assert pd.read_csv(tmp_path / "of dota/records.csv")["area"][0] == areas["obb"]


def test_a_coco_file_anywhere_and_the_first_frames_alone(dataset, tmp_path, capsys):
    out, file = tmp_path / "out", (dataset / "test.json").rename(tmp_path / "boxes.json")
    arguments = ["--annotations", file, "--data", dataset / "images", "--out", out, "--method", "box", "--limit", 2]
    assert call(*arguments, "--workers", 1) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["4", "4"]
    with pytest.raises(RossamError, match=r"model\.method: 'BoxBaseline' there, 'EllipseBaseline' now"):
        call(*[argument if argument != "box" else "ellipse" for argument in arguments], "--workers", 1)


def test_generated_video_and_the_shipped_prior_need_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    arguments = ["--profile", "smoke", "--out", tmp_path / "out", "--limit", 1, "--jitter", 0]
    assert call(*arguments, "--set", "inference.rate=4") == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["model"]["method"], manifest["inference"]["rate"]) == ("hq-sam", 4.0)
    assert manifest["data"]["frames"] == 1
    assert "Measured on a handful of generated frames" in (tmp_path / "out/review.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "dmo"], "no profile of that name"),
        (["--source", "coco"], "data.root is not set"),
        (["--source", "coco", "--data", "nowhere"], "no such file"),
        (["--annotations", "nowhere.json"], "no such file"),
        (["--limit", "0"], "no number of frames"),
        (["--jitter", "-1"], "jitter"),
    ],
)
def test_bad_options_are_told_before_anything_is_made(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RossamError, match=message):
        call("--out", tmp_path / "out", "--method", "box", "--limit", 1, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_broken_annotation_file_is_told_entry_by_entry(dataset, tmp_path):
    content = json.loads((dataset / "test.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    content["annotations"][1]["image_id"] = 99
    (dataset / "test.json").write_text(json.dumps(content))
    with pytest.raises(RossamError, match="inverted") as error:
        call("--source", "coco", "--data", dataset, "--out", tmp_path / "out", "--method", "box")
    assert "points at nothing" in str(error.value)


def test_a_dataset_without_a_box_is_told(dataset, tmp_path):
    content = json.loads((dataset / "test.json").read_text()) | {"annotations": []}
    (dataset / "test.json").write_text(json.dumps(content))
    with pytest.raises(RossamError, match="hold no box"):
        call("--source", "coco", "--data", dataset, "--out", tmp_path / "out", "--method", "box")


def test_windows_grow_to_hold_whole_objects_unless_set_otherwise(tmp_path, monkeypatch):
    profiles = []
    monkeypatch.setattr(command, "run", lambda options, overrides: profiles.append(profile_of(options, overrides)))
    for settings in ([], ["inference.growth=none"], ["inference={growth: none}"], ["inference={rate: 4}"]):
        call("--out", tmp_path, *(part for setting in settings for part in ("--set", setting)))
    assert [profile.inference.growth for profile in profiles] == ["context", "none", "none", "context"]


def test_windows_of_a_profile_s_file_are_kept_also_with_a_run_as_checkpoint(tmp_path, monkeypatch):
    profiles = []
    monkeypatch.setattr(command, "run", lambda options, overrides: profiles.append(profile_of(options, overrides)))
    (tmp_path / "run").mkdir()
    run = {"inference": {"growth": "sopseg", "rate": 8.0, "border": "clamp_and_pad", "batch_size": 3}}
    (tmp_path / "run/run.json").write_text(json.dumps({"run": run}))
    (tmp_path / "mine.yaml").write_text("extends: demo\ninference: {growth: none, rate: 3}\n")
    for options in ([], ["--checkpoint", tmp_path / "run"]):
        call("--out", tmp_path / "out", "--profile", tmp_path / "mine.yaml", *options)
    found = [(p.inference.growth, p.inference.rate, p.inference.border, p.inference.batch_size) for p in profiles]
    assert found == [("none", 3, "shift", 16), ("none", 3, "clamp_and_pad", 16)]


@pytest.mark.parametrize(("variant", "videos"), [("static", 8), ("video", 2)])
def test_generated_data_is_long_enough_for_the_limit(variant, videos, tmp_path, monkeypatch):
    profiles = []
    monkeypatch.setattr(command, "run", lambda options, overrides: profiles.append(profile_of(options, overrides)))
    call("--out", tmp_path, "--limit", 8, "--set", f"data.synthetic.variant={variant}")
    assert profiles[0].data.synthetic.test_videos == videos


def test_a_gpu_with_a_number_has_one_worker_which_is_this_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name, workers in (("cuda", 4), ("cuda:0", 1), ("cuda:1", 1)):
        predictor, options = SimpleNamespace(device=torch.device(name)), SimpleNamespace(workers=None, engine="local")
        assert command._workers(options, predictor, 9) == workers
    for asked in ({"workers": 2, "engine": "local"}, {"workers": None, "engine": "ray"}):
        with pytest.raises(RossamError, match="--device cuda:1: has a number"):
            command._workers(SimpleNamespace(**asked), predictor, 9)


def test_bands_and_stretch_hold_for_masks_review_and_exported_images(dataset, tmp_path):
    file = dataset / "test.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        path = dataset / "images" / image["file_name"]
        rgb = cv2.imread(str(path))[..., ::-1].astype(np.uint16) * 8
        bands = np.concatenate([rgb[..., :1] * 0 + 7, rgb[..., ::-1]], axis=2)  # another band, then blue, green, red
        image["file_name"] = f"{image['file_name'][:-4]}.tif"
        tifffile.imwrite(path.with_suffix(".tif"), bands, photometric="minisblack", planarconfig="contig")
    file.write_text(json.dumps(content))
    arguments = ["--annotations", file, "--data", dataset / "images", "--out", tmp_path / "out", "--method", "box"]
    arguments += ["--workers", 1, "--format", "authors"]
    chosen = ["--bands", "4,3,2", "--stretch", "0,2040"]
    assert call(*arguments, *chosen) == 0
    plain = {path.read_bytes() for path in (dataset / "images").rglob("*.png")}
    originals = [cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) for content in plain]
    exported = sorted((tmp_path / "out/authors/train/img").glob("*.png"))
    assert len(exported) == 6
    for path in exported:
        assert any((cv2.imread(str(path)) == original).all() for original in originals)
    with pytest.raises(RossamError, match=r"data\.reading\.stretch: '0,2040' there, 'full' now"):
        call(*arguments, "--bands", "4,3,2", "--stretch", "full")
    with pytest.raises(RossamError, match="has 4 bands, and band 5 is asked for"):
        call(*arguments[:-4], "--bands", "5")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--method", "box", "--checkpoint", "w.pth"], "--checkpoint: has no effect: box has no network"),
        (["--method", "grabcut", "--device", "cpu"], "--device: has no effect: grabcut has no network"),
        (["--method", "ellipse", "--set", "inference.rate=4"], "--set inference.rate: has no effect: ellipse"),
        (["--method", "box", "--set", "model.backbone=vit_b"], "--set model.backbone: has no effect: box"),
        (["--method", "sam2", "--set", "model.backbone=hiera_t"], r"model.sam2_backbone and --checkpoint"),
        (["--method", "sam2", "--set", "model.architecture={depth: 2}"], "model.architecture: is SAM's"),
        (["--method", "sam", "--set", "model.sam2_backbone=hiera_t"], "is SAM2's; sam has model.backbone"),
        (["--method", "sam3", "--set", "model.sam2_backbone=hiera_t"], "is SAM2's; sam3 has model.sam3_architecture"),
        (["--method", "sam3", "--set", "model.backbone=vit_b"], "SAM 3 has model.sam3_architecture and --checkpoint"),
        (["--method", "sam", "--set", "model.sam3_architecture={depth: 2}"], "is SAM 3's; sam does not look at it"),
        (["--method", "hq-sam", "--set", "model.recipe=released"], "model.recipe: has no effect here"),
        (["--method", "sam", "--set", "training.samples=2"], "training.samples: has no effect here"),
        (["--method", "sam", "--set", "seeds=[1]"], "seeds: has no effect here"),
        (
            ["--method", "box", "--set", "data.root=elsewhere"],
            "--set data.root: has no effect: data.source is synthetic",
        ),
        (["--method", "box", "--set", "data.sample={fraction: 0.5}"], "data.sample.fraction: has no effect"),
        (["--method", "box", "--data", "elsewhere"], "--data elsewhere: has no effect(.|\n)*--source"),
        (["--method", "box", "--annotations", "a.json", "--split", "val"], "--split: has no effect with --annotations"),
        (["--method", "box", "--annotations", "a.json", "--source", "viso"], "--source: has no effect with"),
        (["--method", "box", "--annotations", "a.json", "--set", "data.limit_frames=2"], "data.limit_frames: has no"),
        (["--method", "sam", "--device", "cpu", "--set", "device=cuda"], "--device: says cpu, --set device says cuda"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(arguments, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RossamError, match=problem):
        call("--out", "out", *arguments)
    assert not (tmp_path / "out").exists()


ARCHITECTURE = {"depth": 2, "global_attention": [1], "input_size": 64}


SAM3 = {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "global_attention": [1], "input_size": 112}


@pytest.mark.parametrize("method", ["sam", "hq-sam", "ros-sam", "sam2", "sam3"])
def test_model_and_inference_settings_have_their_effect_on_every_method(method, tmp_path):
    settings = {"inference.rate": 4, "device": "cpu", "model.checkpoint": None}
    own = {"sam2": {"model.sam2_backbone": "hiera_tiny"}, "sam3": {"model.sam3_architecture": SAM3}}
    settings |= own.get(method, {"model.architecture": ARCHITECTURE})
    predictor = predictor_of(method, load_profile("demo", settings))
    assert (predictor.model.method, predictor.config.rate, predictor.device.type) == (method, 4, "cpu")
    if method == "sam2":
        assert predictor.model.backbone == "hiera_tiny"
    else:
        assert (predictor.model.arch.depth, predictor.model.input_size) == (2, 112 if method == "sam3" else 64)
    if method in ("sam", "sam2", "sam3"):
        with pytest.raises(RossamError, match=f"mask_source hq: model {method} has no HQ head"):
            predictor_of(method, load_profile("demo", settings | {"inference.mask_source": "hq"}))


@pytest.mark.parametrize("method", ["sam", "sam2", "sam3"])
def test_a_checkpoint_named_on_the_command_line_is_that_of_the_method(method, tmp_path):
    backbone, shrunk = {"sam": ("vit_t", ARCHITECTURE), "sam2": ("hiera_t", {}), "sam3": ("sam3", SAM3)}[method]
    model = build_model(method, backbone, None, seed=7, **shrunk)
    save_weights(model, tmp_path / "w.safetensors")
    settings = {"model.checkpoint": str(tmp_path / "w.safetensors"), "model.architecture": ARCHITECTURE}
    settings |= {"model.sam3_architecture": SAM3}
    assert weights_hash(predictor_of(method, load_profile("demo", settings), True).model) == weights_hash(model)


def change(dataset, edit):
    content = json.loads((dataset / "test.json").read_text())
    edit(content)
    (dataset / "test.json").write_text(json.dumps(content))
    return content


def test_every_box_of_the_input_is_accounted_for_on_the_screen_and_in_every_export(dataset, tmp_path, capsys):
    def edit(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["bbox"] = [1, 2, 0, 4]
        content["annotations"][2]["category_id"] = 9

    change(dataset, edit)
    every = [part for name in FORMATS for part in ("--format", name)]
    arguments = ["--source", "coco", "--data", dataset, "--method", "box", "--workers", 1, "--limit", 5, "--jitter", 0]
    out = tmp_path / "out"
    assert call(*arguments, "--skip-bad", "--out", out, *every) == 0
    printed = capsys.readouterr().out
    assert "12 boxes in the input = 7 converted + 5 left out" in printed.splitlines()[-1]
    assert "1 boxes: iscrowd: a region, not one object; --keep-crowd takes them as objects" in printed
    table = pd.read_csv(out / "records.csv")
    assert table["boxes"].sum() == len(table) == 12
    dropped = table[table["status"] == "left out"]
    assert dropped["place"].tolist() == [
        "clip 0/001.png annotation 1",
        "clip 0/001.png annotation 2",
        "clip 0/002.png annotation 3",
        "clip 1/000003 object 7",
        "clip 1/000003 object 14",
    ]
    assert dropped["reason"].str.contains("iscrowd|zero area|points at nothing|beyond --limit 5").all()
    for name in ("coco.json", "coco_polygons.json", "youtube_vis.json"):
        drops = json.loads((out / name).read_text())["drops"]
        assert [drop["where"] for drop in drops] == dropped["place"].tolist()
    for name in ("mots", "labels", "authors/train", "yolo", "cvat", "label_studio", "labelme"):
        assert pd.read_csv(out / name / "drops.csv")["place"].tolist() == dropped["place"].tolist()
    assert call(*arguments, "--skip-bad", "--keep-crowd", "--out", tmp_path / "crowd") == 0
    assert "12 boxes in the input = 8 converted + 4 left out" in capsys.readouterr().out


def test_a_file_of_which_everything_is_left_out_is_an_error_that_says_why(dataset, tmp_path):
    change(dataset, lambda content: [item.update(iscrowd=1) for item in content["annotations"]])
    with pytest.raises(RossamError, match=r"each of the 12 boxes is left out \(12: iscrowd.*\n.*--keep-crowd"):
        call("--source", "coco", "--data", dataset, "--out", tmp_path / "out", "--method", "box")


def test_the_remedies_for_boxes_of_another_convention_are_options(dataset, tmp_path, capsys):
    def edit(content):
        for item in content["annotations"]:
            x, y, w, h = item["bbox"]
            item |= {"bbox": [x, y, x + w, y + h], "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}

    change(dataset, edit)
    arguments = ["--source", "coco", "--data", dataset, "--out", tmp_path / "out", "--method", "box", "--workers", 1]
    with pytest.raises(RossamError, match="use --box-convention xyxy"):
        call(*arguments)
    assert call(*arguments, "--box-convention", "xyxy") == 0
    assert pd.read_csv(tmp_path / "out/records.csv").loc[0, ["x0", "y0", "x1", "y1"]].tolist() == [7, 6, 19, 14]
    with pytest.raises(RossamError, match=r"nwpu-vhr10: has no use for data\.keep_crowd"):
        call("--source", "nwpu-vhr10", "--data", dataset, "--keep-crowd", "--out", tmp_path / "no")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_in_any_script_are_converted_and_printed_in_any_encoding(dataset, tmp_path, monkeypatch, encoding):
    images = dataset / "images"
    (images / "clip 0").rename(images / "飞机 é😀")

    def edit(content):
        for image in content["images"]:
            image["file_name"] = image["file_name"].replace("clip 0", "飞机 é😀")
        content["videos"][0]["name"], content["categories"][0]["name"] = "船/舶", "Корабль"

    change(dataset, edit)
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", screen)
    every = [part for name in FORMATS for part in ("--format", name)]
    out = tmp_path / "出力"
    arguments = ["--source", "coco", "--data", dataset, "--out", out, "--method", "box", "--workers", 1, "--jitter", 0]
    assert cli.main([str(part) for part in ["convert", *arguments, *every]]) == 0
    screen.flush()
    assert "12 boxes in the input" in screen.buffer.getvalue().decode(encoding)
    for name in ("yolo/images/飞机 é😀/001.png", "labels/飞机 é😀/001.png", "authors/train/img/船_舶_000001.png"):
        assert (out / name).exists()
    assert (out / "mots/MOTS-train/船_舶/gt/gt.txt").exists()
    assert "Корабль" in (out / "yolo/data.yaml").read_text("utf-8")
    assert json.loads((out / "coco.json").read_text())["images"][0]["file_name"] in {
        "飞机 é😀/001.png",
        "clip 1/001.png",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names are Unicode")
def test_names_that_are_no_utf_8_are_converted(dataset, tmp_path):
    name = os.fsdecode(b"fl\xfcss")
    (dataset / "images/clip 0").rename(dataset / "images" / name)

    def edit(content):
        for image in content["images"]:
            image["file_name"] = image["file_name"].replace("clip 0", name)
        content["videos"][0]["name"] = name

    change(dataset, edit)
    every = [part for name in FORMATS for part in ("--format", name)]
    out = tmp_path / "out"
    arguments = ["--source", "coco", "--data", dataset, "--out", out, "--method", "box", "--workers", 1]
    assert cli.main([str(part) for part in ["convert", *arguments, *every]]) == 0
    assert name in Conversion(out).table["video"].tolist()
    assert (out / "labels" / name / "001.png").exists()
    assert "fl\\udcfcss" in (out / "review.html").read_text("utf-8")
