"""`rossam train` and `rossam evaluate` on a small COCO folder with a network of two blocks: seconds a run."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rossam_core import devices
from rossam_core.files import RUN, checkpoint_path, read_json, read_sealed, write_json
from rossam_core.model.build import load_run
from rossam_core.training import run_folder as runs
from rossam_core.training.recipes import recipe
from rossam_kit import cli, evaluate_command, train_command
from rossam_kit import options as opt
from rossam_kit.cache import exclusive_folder
from rossam_kit.config import OWN_DATA, load_profile
from rossam_kit.convert import command
from rossam_kit.convert.mask_records import Conversion
from rossam_kit.datasets.coco import read_coco, write_coco_index
from rossam_kit.datasets.images import DatasetReading, with_reading
from rossam_kit.experiments import scoring
from rossam_kit.report.evaluation_page import page, summarise
from rossam_kit.train_command import VALIDATIONS, _backbone

SCRIPT = """
import os, signal, sys
from rossam_core.training import run_folder
append = run_folder.append_log
def append_and_die(run_dir, *arguments):
    append(run_dir, *arguments)
    if (run_dir / run_folder.STATE).exists():  # the first step after the first checkpoint
        os.kill(os.getpid(), signal.SIGKILL)
run_folder.append_log = append_and_die
from rossam_kit import cli
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny_run", Path(__file__).parent / "training/tiny_run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """`train.json`, `val.json` and `images`: twelve still images, the last two to validate on, and a region."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    frames = with_reading(tiny.make_frames(root / "images", 12, "photo"))
    for name, part in (("train", frames[:10]), ("val", frames[10:])):
        write_coco_index(part, root / f"{name}.json", root / "images")
        content = json.loads((root / f"{name}.json").read_text())
        content |= {"info": {}, "videos": [], "images": [{**i, "video_id": None} for i in content["images"]]}
        for image in content["images"]:
            del image["video_id"]
        if name == "train":
            content["annotations"].append({**content["annotations"][0], "id": 1000, "iscrowd": 1})
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def small(tiny):
    """Settings of a network and a training that take seconds."""
    settings = {"model.architecture": tiny.ARCHITECTURE, "model.checkpoint": None, "training.batch": 4}
    settings |= {"training.lora_rank": 2, "training.loss": {"points": 64}, "training.precision": "float32"}
    return settings


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """All runs of this file, also those of other processes, sum in one order; and tiny networks are fastest so."""
    before, variables = torch.get_num_threads(), {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))


def sets(settings):
    """Settings as options; JSON is YAML, too."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def train(data, settings, out, *more, annotations="train.json"):
    named = ["--annotations", data / annotations, "--data", data / "images", "--device", "cpu", "--out", out]
    return [str(part) for part in ["train", *named, *sets(settings), *more]]


@pytest.fixture(scope="module")
def trained(data, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(train(data, small | {"inference.rate": 4}, out, "--val", data / "val.json", "--views", 16)) == 0
    return out


def test_training_says_what_it_does_and_keeps_the_best_checkpoint(data, small, trained, capsys):
    again = train(data, small | {"inference.rate": 4}, trained, "--val", data / "val.json", "--views", 16)
    assert cli.main(again) == 0  # only reads
    printed = capsys.readouterr().out
    assert "train on 30 objects with masks in 10 images; validate on 6 objects with masks in 2 images" in printed
    assert "network: ros-sam vit_t (that of the run" in printed
    assert "left out" in printed and "1 boxes: iscrowd: a region, not one object; --keep-crowd takes" in printed
    assert pd.read_csv(trained / "drops.csv")["boxes"].tolist() == [1]
    assert "note: too little data" in printed and "10 of 40 objects have no mask and are left out" in printed
    before, after = map(float, re.search(r"validation IoU ([\d.]+) before, ([\d.]+) after", printed).groups())
    log = runs.read_log(trained)
    assert (log["kind"] == "validation").sum() == VALIDATIONS
    assert after == pytest.approx(log["iou"].max(), abs=6e-4)
    assert before == pytest.approx(pd.read_csv(trained / "before.csv")["iou"].mean(), abs=6e-4)
    assert (
        f"rossam evaluate --checkpoint {trained} --annotations {data / 'val.json'} --data {data / 'images'}" in printed
    )
    assert f"rossam convert --checkpoint {trained}" in printed
    run = read_json(trained / RUN)["run"]
    assert run["training"]["groups"]["lora"] == {"learning_rate": 1e-3, "schedule": "cosine"}
    assert (run["training"]["warmup"], run["inference"]["growth"]) == (0.05, "context")


def test_a_killed_run_in_minutes_goes_on_with_the_views_decided_at_first(data, small, tmp_path, capsys):
    script, out = tmp_path / "die.py", tmp_path / "run"
    script.write_text(SCRIPT)
    arguments = train(data, small, out, "--minutes", 0.02)
    killed = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    start = read_json(out / "start.json")
    assert "views per second" in killed.stdout and start["views"] >= 8
    assert cli.main(arguments) == 0
    assert "views per second" not in capsys.readouterr().out
    assert read_json(out / "start.json") == start and runs.is_finished(out)
    assert runs.read_log(out)["samples"].max() == -(-start["views"] // 4) * 4
    other = tmp_path / "other"
    every = ["--set", f"training.validate_every={read_json(out / RUN)['run']['training']['validate_every']}"]
    assert cli.main(train(data, small, other, "--views", start["views"], *every)) == 0
    one, two = (load_file(runs.weights_file(folder, "last")) for folder in (out, other))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert cli.main(train(data, small, out, "--minutes", 1)) == 2
    assert "begun with --minutes 0.02" in capsys.readouterr().err


def test_without_val_every_tenth_image_is_held_out_and_listed(data, small, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(train(data, small, out, "--views", 8)) == 0
    printed = capsys.readouterr().out
    assert "validate on 3 objects with masks in 1 images: every tenth video or image by name" in printed
    for name in (RUN, runs.AUDIT):
        (out / name).unlink()  # as where it was killed before its first step
    assert cli.main(train(data, small, out, "--views", 8)) == 0 and runs.is_finished(out)
    held_out = read_coco(out / "val.json", data / "images", name="held out")
    names = sorted(image["file_name"] for image in read_json(data / "train.json")["images"])
    assert [frame.image_path.name for frame in held_out] == [names[9]]
    command = re.search(r"rossam (evaluate .*) --out SCORES", printed)[1].split()
    assert cli.main([*command, "--device", "cpu", "--out", str(tmp_path / "scores")]) == 0
    assert len(pd.read_csv(tmp_path / "scores/objects.csv").dropna(subset=["iou"])) == 3


def test_a_val_file_of_the_user_is_never_replaced(data, small, tmp_path, capsys):
    for name in ("train.json", "val.json"):
        shutil.copy(data / name, tmp_path / name)
    mine = (tmp_path / "val.json").read_bytes()
    assert cli.main(train(data, small, tmp_path, "--views", 8, annotations=tmp_path / "train.json")) == 2
    assert "holds no run of `rossam train`" in capsys.readouterr().err
    (tmp_path / "before.csv").touch()
    assert cli.main(train(data, small, tmp_path, "--views", 8, annotations=tmp_path / "train.json")) == 2
    assert "is not what this run holds out" in capsys.readouterr().err
    assert (tmp_path / "val.json").read_bytes() == mine


@pytest.mark.parametrize("name", ["before.csv", "start.json"])
def test_a_run_of_something_else_is_refused(name, data, small, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    assert cli.main(train(data, small, tmp_path / "run", "--val", data / "val.json", "--views", 16)) == 2
    assert f"is a run, but lacks {name} of `rossam train`" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "inner"), [(train_command, "_train"), (evaluate_command, "_evaluate")])
def test_a_command_waits_for_another_process_in_its_folder(module, inner, tmp_path, monkeypatch):
    begun = threading.Event()
    monkeypatch.setattr(module, inner, lambda *_: begun.set())
    with exclusive_folder(tmp_path / "out"):
        other = threading.Thread(target=module.run, args=(SimpleNamespace(out=tmp_path / "out"), {}))
        other.start()
        assert not begun.wait(1)
    other.join()
    assert begun.is_set()


def test_minutes_count_the_trial_and_the_scoring_before_and_after(tiny, tmp_path, monkeypatch, capsys):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(train_command.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(train_command, "_seconds_per_view", lambda *_: 0.5)
    options = SimpleNamespace(out=tmp_path, views=None, minutes=2)
    frames = with_reading(tiny.make_frames(tmp_path / "images", 1))
    decided = train_command._with_budget(tiny.tiny_run(), options, frames, 10.0, {})
    assert decided.training.samples == (120 - 10 - 6 * 10) / 0.5 and "about 2:00 in all" in capsys.readouterr().out
    clock = iter([0.0, 200.0])
    (tmp_path / "start.json").unlink()
    assert train_command._with_budget(tiny.tiny_run(), options, frames, 10.0, {}).training.samples == 2 * 4


def test_the_result_converts_in_the_windows_it_was_trained_for_and_trains_again(data, small, trained, tmp_path):
    named = ["--annotations", data / "val.json", "--data", data / "images", "--workers", 1, "--device", "cpu"]
    for rate, more in ((4.0, []), (2.0, ["--set", "inference.rate=2", "--jitter", 0])):
        arguments = ["convert", "--checkpoint", trained, *named, "--out", tmp_path / f"rate {rate}", *more]
        assert cli.main([str(part) for part in arguments]) == 0
        manifest = read_json(tmp_path / f"rate {rate}/manifest.json")
        assert (manifest["model"]["method"], manifest["inference"]["rate"]) == ("ros-sam", rate)
    settings = {key: value for key, value in small.items() if key.startswith("training.")}
    assert cli.main(train(data, settings, tmp_path / "again", "--views", 8, "--checkpoint", trained)) == 0
    assert read_json(tmp_path / "again" / RUN)["run"]["checkpoint"] == str(trained)


@pytest.fixture
def deep(data, tmp_path):
    """The same images in 12 bits, those to validate on so dark that 11 would do; one of these is called NA."""
    (tmp_path / "deep/images").mkdir(parents=True)
    names = {}
    for path in sorted((data / "images").glob("*.png")):
        is_dark = path.stem in ("photo_10", "photo_11")
        names[path.name] = "NA.png" if path.stem == "photo_11" else path.name
        pixels = cv2.imread(str(path)).astype(np.uint16) * (8 if is_dark else 16)
        cv2.imwrite(str(tmp_path / "deep/images" / names[path.name]), pixels)
    for part in ("train", "val"):
        content = read_json(data / f"{part}.json")
        content["images"] = [{**image, "file_name": names[image["file_name"]]} for image in content["images"]]
        (tmp_path / f"deep/{part}.json").write_text(json.dumps(content))
    return tmp_path / "deep"


@pytest.mark.filterwarnings("ignore::rossam_kit.datasets.images.ImageConversionWarning")
def test_a_run_is_fed_the_contrast_that_it_was_trained_on(deep, small, tmp_path, monkeypatch, capsys):
    seen, predict = [], scoring.predict_frames

    def spy(predictor, frames):
        seen.append({json.dumps(frame.reading.model_dump(mode="json")["limits"]) for frame in frames})
        return predict(predictor, frames)

    monkeypatch.setattr(scoring, "predict_frames", spy)
    out, trained = tmp_path / "run", {json.dumps({"uint16": [0.0, 4095.0]})}
    assert cli.main(train(deep, small, out, "--val", deep / "val.json", "--views", 8)) == 0
    assert seen == [trained, trained]
    named = ["--checkpoint", out, "--annotations", deep / "val.json", "--data", deep / "images", "--device", "cpu"]
    assert cli.main([str(part) for part in ["evaluate", *named, "--out", tmp_path / "scores"]]) == 0
    more = ["--out", tmp_path / "masks", "--workers", 1, "--jitter", 0]
    assert cli.main([str(part) for part in ["convert", *named, *more]]) == 0
    assert seen[2:] == [trained] and "otherwise than in training" not in capsys.readouterr().out
    assert {frame.reading.limits["uint16"] for frame in Conversion(tmp_path / "masks")} == {(0, 4095)}
    asked = ["evaluate", *named, "--out", tmp_path / "other", "--stretch", "full"]
    assert cli.main([str(part) for part in asked]) == 0
    assert seen[3:] == [{json.dumps({"uint16": [0.0, 2047.0]})}]
    note = "note: images are read otherwise than in training (bands the first, stretch full, uint16 0 to 4095)\n"
    assert note in capsys.readouterr().out


def test_images_of_8_bits_are_read_as_ever_whatever_the_run_was_trained_on(data, tmp_path, capsys):
    run, named = tmp_path / "run", {"data.source": "coco", "data.root": str(data / "images")}
    write_json(run / RUN, {})
    options = opt.Options(annotations=data / "val.json", checkpoint=str(run))
    plain = command.frames_of(options, load_profile(OWN_DATA, named))
    stored = DatasetReading(limits={"uint16": (0, 4095)})
    for reading in (DatasetReading(), stored):
        write_json(run / "start.json", {"reading": reading.model_dump(mode="json")})
        assert command.frames_of(options, load_profile(OWN_DATA, named)).fingerprint() == plain.fingerprint()
    write_json(run / "start.json", {"reading": DatasetReading(bands=(3, 2, 1)).model_dump(mode="json")})
    assert command.frames_of(options, load_profile(OWN_DATA, named))[0].reading.bands == (3, 2, 1)
    assert not capsys.readouterr().out
    command.frames_of(options, load_profile(OWN_DATA, named | {"data.bands": (3, 2, 1)}))
    assert not capsys.readouterr().out
    own = command.frames_of(options, load_profile(OWN_DATA, named | {"data.bands": (1, 2, 3)}))
    assert own[0].reading.bands == (1, 2, 3) and "(bands 3,2,1, stretch full)" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["sam", "hq-sam", "sam2"])
def test_other_methods_train_their_decoder(method, data, small, tmp_path):
    out = tmp_path / "run"
    if method == "sam2":
        small = {key: value for key, value in small.items() if not key.startswith("model.")}
    assert cli.main(train(data, small, out, "--views", 8, "--method", method)) == 0
    audit = read_sealed(out / runs.AUDIT)
    trained = [group for group, facts in audit.items() if facts["changed"]]
    assert trained == [{"hq-sam": "hq_head"}.get(method, "sam_decoder")]
    assert load_run(out).default_mask_source == {"hq-sam": "hq"}.get(method, "sam")  # what was validated answers


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--views", "8", "--minutes", "2"], "are two budgets"),
        (["--minutes", "0"], "--minutes: expected more than 0"),
        (["--set", "training.samples=8"], "use --views"),
        (["--set", "training={samples: 8}"], "--set training.samples: use --views"),
        (["--set", "data={limit_frames: 1}"], "data.limit_frames: has no effect with --annotations"),
        (["--set", "model={sam2_backbone: hiera_t}"], "--set model.sam2_backbone: use --backbone"),
        (["--set", "training.validation_objects=0"], "is 0, expected a number of 1 or more"),
        (["--set", "training.validation_objects=null"], "is None, expected a number of 1 or more"),
        (["--set", "seeds=[1]"], "--set seeds: has no effect here"),
        (["--set", "notice=mine"], "--set notice: has no effect on training"),
        (["--method", "sam2", "--set", "model.architecture={depth: 2}"], "model.architecture: is SAM's"),
        (["--method", "sam3"], "'sam3' is not one of 'sam', 'hq-sam', 'ros-sam', 'sam2'"),
        (["--set", "inference.mask_source=sam"], "inference.mask_source: has no effect: the mask that is trained"),
        (["--recipe", "released", "--set", "recipe_changes.warmup=0.1"], "it changes the recipe paper, not released"),
        (["--set", "training.sampels=8"], "did you mean 'samples'"),
        (["--source", "viso"], "--source: has no effect with --annotations"),
        (["--checkpoint", "weights.pth"], "weights.pth: no such file or folder"),
        (["--checkpoint", "train.json"], "add --backbone"),
        (["--recipe", "best"], "--recipe"),
        (["--val", "train.json"], "10 of 10 validation images are training images"),
        (["--val", "boxes.json"], "none of 8 objects in 2 images to validate on has a mask"),
        (["--annotations", "boxes.json"], "has a mask"),
        (["--annotations", "one.json"], "none of 0 objects in 0 images to train on has a mask"),
        (["--annotations", "nowhere.json"], "no such file"),
    ],
)
def test_bad_input_is_said_before_training(more, message, data, small, tmp_path, monkeypatch, capsys):
    content = read_json(data / "val.json")
    boxes = [{**item, "segmentation": []} for item in content["annotations"]]
    (data / "boxes.json").write_text(json.dumps(content | {"annotations": boxes}))
    one = [item for item in content["annotations"] if item["image_id"] == content["images"][0]["id"]]
    (data / "one.json").write_text(json.dumps(content | {"images": content["images"][:1], "annotations": one}))
    monkeypatch.chdir(data)
    assert cli.main(train(data, small, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert message in error and "Remedy:" in error
    assert not (tmp_path / "run/run.json").exists()


def test_the_large_network_is_chosen_where_a_gpu_and_its_weights_are(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "resolve_device", lambda name: torch.device("cuda"))
    options = SimpleNamespace(
        out=tmp_path, checkpoint=None, backbone=None, method="ros-sam", recipe="paper", device=None
    )
    assert _backbone(options) == ("vit_t", "for vit_l fetch its weights first: rossam fetch sam_hq_vit_l")
    place = checkpoint_path("sam_hq_vit_l.pth")
    place.parent.mkdir(parents=True)
    place.touch()
    assert _backbone(options) == ("vit_l", "a GPU and sam_hq_vit_l.pth are there")
    assert _backbone(SimpleNamespace(**vars(options) | {"method": "sam"}))[0] == "vit_t"
    assert _backbone(SimpleNamespace(**vars(options) | {"backbone": "vit_b"})) == ("vit_b", "as asked for")


def test_data_and_a_folder_of_something_else_are_asked_for(tmp_path, capsys):
    assert cli.main(["train", "--out", str(tmp_path / "run")]) == 2
    assert "give --annotations FILE, or --source READER" in capsys.readouterr().err
    (tmp_path / "thesis.tex").write_text("")
    assert cli.main(["train", "--source", "synthetic", "--out", str(tmp_path)]) == 2
    assert "holds no run of" in capsys.readouterr().err


def test_one_class_and_shared_videos_are_said_before_anything_is_computed(data, small, tmp_path, monkeypatch, capsys):
    content = read_json(data / "train.json")
    content["videos"] = [{"id": 1, "name": "clip"}]
    content["images"] = [{**image, "video_id": 1, "frame_index": i} for i, image in enumerate(content["images"])]
    masked = [item for item in content["annotations"] if item["segmentation"]]
    (data / "clip.json").write_text(json.dumps(content | {"annotations": masked}))
    monkeypatch.setattr("rossam_core.model.build.build_base", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(train(data, small, tmp_path / "run", "--views", 4, annotations="clip.json"))
    printed = capsys.readouterr().out
    assert "note: one class only (plane)" in printed and "note: frames of clip are in both sets" in printed
    assert "train on 27 objects with masks in 9 images" in printed


@pytest.mark.parametrize("method", ["box", "ellipse", "grabcut", "hq-sam"])
def test_evaluation_scores_by_class_and_size_with_intervals(method, data, small, tmp_path, capsys):
    settings = sets({key: value for key, value in small.items() if key.startswith("model.")})
    named = [
        "--annotations",
        data / "train.json",
        "--data",
        data / "images",
        "--method",
        method,
        "--out",
        tmp_path / "out",
    ]
    arguments = ["evaluate", *map(str, named), *(settings if method == "hq-sam" else [])]
    assert cli.main(arguments) == 0
    objects, summary = (pd.read_csv(tmp_path / "out" / name) for name in ("objects.csv", "summary.csv"))
    assert summary.loc[0, ["group", "objects", "images"]].tolist() == ["all", 30, 10]
    assert summary.loc[0, "iou"] == pytest.approx(objects["iou"].mean())
    assert summary.loc[0, "iou_low"] < summary.loc[0, "iou"] < summary.loc[0, "iou_high"]
    assert summary["group"].tolist()[-1] == "plane" and summary["objects"][1:-1].sum() == 30
    printed = capsys.readouterr().out
    assert "10 boxes: has no mask (first: " in printed and "1 boxes: iscrowd: a region" in printed
    assert pd.read_csv(tmp_path / "out/drops.csv")["reason"].value_counts().tolist() == [10, 1]
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("<figure>") == 30 and all(f"<h2>{title}</h2>" in page for title in ("Worst", "Median", "Best"))
    assert "http" not in page.replace("data:image", "")


def test_a_summary_counts_images_and_videos_apart():
    places = {"video": ["a"] * 4, "frame": [1, 1, 2, 3], "object_id": [1, 2, 1, 1]}
    scores = {"iou": [0.5, 0.6, 0.7, 0.8], "biou": 0.5, "biou_fit": 0.5}
    objects = pd.DataFrame({**places, **scores, "category": "plane", "size_bin": "0-100"})
    summary = summarise(objects, (100.0,))
    assert summary.loc[0, ["objects", "images", "videos"]].tolist() == [4, 3, 1]
    assert summary["iou_low"].isna().all() and "one video only" in page("name", "sam", summary, objects, {})


def test_intervals_of_few_videos_stay_within_what_an_iou_can_be():
    scores = {"iou": [0.1, 0.9], "biou": [0.9, 1.0], "biou_fit": 0.5}
    objects = pd.DataFrame({"video": ["a", "b"], "frame": 1, "object_id": 1, **scores, "category": "plane"})
    summary = summarise(objects.assign(size_bin="0-100"), (100.0,))
    assert (summary["iou_low"] == 0).all() and (summary["iou_high"] == 1).all()
    assert (summary["biou_low"] < 0.9).all() and (summary["biou_high"] == 1).all()


def test_an_evaluation_writes_into_a_new_folder_or_its_own(data, tmp_path, capsys):
    named = ["--annotations", data / "val.json", "--data", data / "images", "--method", "box", "--out"]
    for _ in range(2):
        assert cli.main(["evaluate", *map(str, named), str(tmp_path / "scores")]) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run/drops.csv").write_text("mine")
    for place in ("run", "run/drops.csv"):
        assert cli.main(["evaluate", *map(str, named), str(tmp_path / place)]) == 2
        assert "name a new folder, or that of an evaluation" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_names_are_escaped_on_the_page(data, tmp_path):
    content = read_json(data / "val.json")
    content["categories"] = [{**each, "name": "<b>&plane"} for each in content["categories"]]
    (data / "escaped.json").write_text(json.dumps(content))
    named = ["--annotations", data / "escaped.json", "--data", data / "images", "--method", "box", "--out"]
    assert cli.main(["evaluate", *map(str, named), str(tmp_path / "scores")]) == 0
    page = (tmp_path / "scores/index.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;&amp;plane" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "box"], "give --annotations FILE, or --source READER"),
        (["--annotations", "val.json"], "give --checkpoint RUN, or --method NAME"),
        (["--annotations", "val.json", "--data", "images", "--method", "box", "--checkpoint", "r"], "has no network"),
        (["--annotations", "val.json", "--method", "sam", "--set", "training.samples=2"], "has no effect here"),
        (
            ["--annotations", "val.json", "--method", "box", "--set", "evaluation.protocols=[frame]"],
            "evaluation.protocols: has no effect: each object is scored alone",
        ),
        (["--annotations", "boxes.json", "--data", "images", "--method", "box"], "has a mask to score against"),
    ],
)
def test_bad_input_of_an_evaluation_is_said(arguments, message, data, tmp_path, monkeypatch, capsys):
    content = read_json(data / "val.json")
    boxes = [{**item, "segmentation": []} for item in content["annotations"]]
    (data / "boxes.json").write_text(json.dumps(content | {"annotations": boxes}))
    monkeypatch.chdir(data)
    assert cli.main(["evaluate", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_time_left_counts_only_the_views_of_this_process(monkeypatch, capsys):
    clock = iter([0.0, 0.0, 60.0, 120.0])
    monkeypatch.setattr(train_command.time, "monotonic", lambda: next(clock))
    on_event = train_command._reporter(48, 8, 0.5)
    for views in (24, 32):  # a run that goes on after 16 views, at a minute a batch
        on_event("step", {"samples": views})
    assert capsys.readouterr().out.splitlines() == ["24 of 48 views: 3:00 left", "32 of 48 views: 2:00 left"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(0.8, 0.7, "--set training.groups.lora.learning_rate="), (0.99, 0.99, "what the network makes already")],
)
def test_what_to_do_is_said_where_training_did_not_help(before, after, expected, capsys):
    def scores(iou):
        return pd.DataFrame({"video": ["a", "b"], "frame": [1, 1], "object_id": [1, 2], "iou": [iou, iou]})

    validations = pd.DataFrame({"iou": [after], "samples": [8]})
    train_command._print_result(recipe("paper"), validations, scores(before), scores(after))
    assert expected in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names are Unicode")
def test_images_whose_names_are_no_utf_8_are_trained_on_and_scored(data, small, tmp_path):
    shutil.copytree(data / "images", tmp_path / "images")
    for name in ("train", "val"):
        content = json.loads((data / f"{name}.json").read_text())
        for image in content["images"]:
            old = tmp_path / "images" / image["file_name"]
            old.rename(old.with_name(f"\udcfc{old.name}"))
            image["file_name"] = "\udcfc" + image["file_name"]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    run, scores = tmp_path / "run", tmp_path / "scores"
    assert cli.main(train(tmp_path, small, run, "--val", tmp_path / "val.json", "--views", 4)) == 0
    named = ["--annotations", tmp_path / "val.json", "--data", tmp_path / "images", "--method", "box", "--out", scores]
    assert cli.main(["evaluate", *map(str, named)]) == 0
    for table in (run / "before.csv", scores / "objects.csv"):
        assert pd.read_csv(table, encoding_errors="surrogateescape")["video"].str.contains("\udcfc").all()
    assert "\\udcfc" in (scores / "index.html").read_text("utf-8")
