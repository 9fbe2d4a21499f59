"""Every box has one record in order, whatever happens; nothing but the input changes a byte."""

import dataclasses
import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from tiny_tracks import SIZE_HW, Fatal, Faulty, KilledOnce, Notched, all_bytes, make_frames

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import PARTIAL, write_json
from rossam_core.inference.predictor import ObjectMask, Predictor
from rossam_core.model.build import build_model
from rossam_core.records import ObjectAnnotation
from rossam_core.settings import InferenceConfig
from rossam_kit.cache import exclusive_folder
from rossam_kit.convert.convert import ConversionConfig, ShardWorker, convert
from rossam_kit.convert.mask_records import Conversion, shard_path
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.baselines import BoxBaseline, EllipseBaseline
from rossam_kit.parallel import _death

ONE = ConversionConfig(shard_frames=1, jitter=2)


@pytest.fixture(scope="module")
def network():
    return Predictor(build_model("hq-sam", "vit_t", checkpoint=None), InferenceConfig(precision="float32"), "cpu")


def with_box(frames, position, which, box):
    frame = frames[position]
    objects = list(frame.objects)
    objects[which] = dataclasses.replace(objects[which], box_xyxy=box)
    changed = list(frames)
    changed[position] = frame.with_objects(objects)
    return frames.subset(changed)


def test_masks_are_cut_off_at_oriented_boxes(tmp_path):
    diamond = [[12.0, 4.0], [20.0, 12.0], [12.0, 20.0], [4.0, 12.0]]
    shapes = {1: diamond, 2: [[4, 24], [12, 24], [12, 34], [4, 34]], 3: [[40, 40], [41, 40], [41, 41], [40, 41]]}
    frame = make_frames(tmp_path, 1, 1)[0]
    boxes = {1: (4.0, 4.0, 20.0, 20.0), 2: (4.0, 24.0, 12.0, 34.0), 3: (30.0, 26.0, 39.0, 40.0), 4: (30, 4, 40, 14)}
    objects = [
        ObjectAnnotation(n, "ship", box, attributes={"oriented_box": shapes[n]} if n in shapes else {})
        for n, box in boxes.items()
    ]
    frames = FrameSet("tiny", [frame.with_objects(objects)])
    whole, clipped = (
        convert(BoxBaseline(), frames, tmp_path / f"out {clip}", ConversionConfig(clip_oriented=clip))
        for clip in (False, True)
    )
    assert whole.table["area"].tolist() == [256, 80, 126, 100]
    assert clipped.table["area"][1:].tolist() == [80, 0, 100]
    assert clipped.table["status"].tolist() == ["ok", "ok", "empty", "ok"]
    assert clipped.table["reason"][2] == "no pixel is inside the oriented box"
    mask = next(iter(clipped)).objects[0].full(SIZE_HW)
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    distance = np.abs(columns - 12) + np.abs(rows - 12)
    assert mask[distance < 7.5].all() and not mask[distance > 8.5].any()
    assert clipped.table["fill"][0] == pytest.approx(0.5, abs=0.05)
    with pytest.raises(RossamError, match=r"conversion\.clip_oriented"):
        convert(BoxBaseline(), frames, tmp_path / "out True")


def test_every_box_has_one_record_in_order_whatever_is_wrong_with_it(frames, tmp_path):
    frames = with_box(frames, 0, 0, (float("nan"), 0, 5, 5))
    frames = with_box(frames, 0, 1, (80, 10, 90, 20))
    frames = with_box(frames, 1, 0, (20.0, 10, 32, 18))
    frames[2].image_path.write_bytes(b"no image")
    frames[3].image_path.unlink()
    done = convert(Notched(empty_id=20.0), frames, tmp_path / "out", ONE)
    asked = [(f.key, o.object_id, o.category) for f in frames for o in f.objects]
    assert [(f.key, r.object_id, r.category) for f in done for r in f.objects] == asked
    table = done.table
    assert list(zip(table["object_id"], table["category"], strict=True)) == [line[1:] for line in asked]
    assert table["status"].tolist() == ["failed"] * 2 + ["empty", "ok"] + ["failed"] * 4 + ["ok"] * 4
    reasons = table["reason"]
    assert "NaN" in reasons[0] and "outside the frame" in reasons[1] and "no pixel" in reasons[2]
    assert reasons[4].startswith("image:") and "no such image file" in reasons[6]
    assert (table["reason"][8:] == "").all()
    assert (table.loc[table["area"] == 0, "review_score"] == 1).all()
    assert sorted(table["review_rank"]) == list(range(1, len(table) + 1))


def test_a_conversion_waits_for_another_one_in_its_folder(frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    other = threading.Thread(target=convert, args=(Notched(), frames, out, ONE))
    with exclusive_folder(out), exclusive_folder(out):  # as of a command that converts and then exports
        other.start()
        other.join(2)
        assert other.is_alive() and not out.exists()
    other.join()
    assert f"waiting: another process works in {out}" in capsys.readouterr().err
    assert len(Conversion(out, tmp_path).table) and sorted(p.name for p in tmp_path.glob(".*")) == []


def test_a_box_is_answered_alone_when_its_frame_cannot_be(frames):
    class Choosy(EllipseBaseline):
        def predict(self, image, boxes_xyxy):
            if any(box[0] >= 30 for box in boxes_xyxy):
                raise RossamError("Choosy", "does not like this box", "none")
            return super().predict(image, boxes_xyxy)

    first, second = ShardWorker(Choosy(), ConversionConfig(jitter=0)).convert_frame(frames[0]).objects
    assert (first.status, second.status) == ("ok", "failed")
    assert second.reason == "Choosy: does not like this box"


def test_records_hold_the_mask_as_it_was_made(frames, tmp_path):
    done = convert(Notched(), frames, tmp_path / "out", ONE)
    for found, frame in zip(done, frames, strict=True):
        for record, mask in zip(found.objects, Notched().predict(frame.image(), frame.boxes_xyxy), strict=True):
            assert np.array_equal(record.full(SIZE_HW), mask.full())
            assert record.rle(SIZE_HW) == masks.encode(mask.full())
            assert record.area == mask.crop.sum()
    row = done.table.iloc[3]
    frame, record = done.find(row)
    assert (frame.video, frame.index, record.object_id) == (row.video, row.frame, row.object_id)


def test_what_logits_tell_is_kept(frames):
    class Steep:
        def predict(self, image, boxes_xyxy):
            logits = np.full((9, 9), 0.5, dtype=np.float16)
            logits[:, :3] = 4.0
            return [ObjectMask(tuple(box), SIZE_HW, logits, (10, 10), 0.0, 0.9, cut=True) for box in boxes_xyxy]

    record = ShardWorker(Steep(), ONE).convert_frame(frames[0]).objects[0]
    assert (record.status, record.offset_xy, record.area) == ("cut", (10, 10), 81)
    assert "its window does not hold the box whole" in record.reason
    expected = {"predicted_iou": 0.9, "threshold_stability": round(27 / 81, 4), "touches_window": 1.0}
    assert expected.items() <= record.signs.items() and record.signs["jitter_stability"] == 1.0


def test_a_network_s_masks_are_those_it_predicts(network, frames, tmp_path):
    done = convert(network, frames[:1], tmp_path / "out", ONE)
    (found,) = done
    for record, mask in zip(found.objects, network.predict(frames[0].image(), frames[0].boxes_xyxy), strict=True):
        assert np.array_equal(record.full(SIZE_HW), mask.full())
    assert done.table[["predicted_iou", "jitter_stability", "threshold_stability"]].notna().all(axis=None)
    assert done.manifest["model"]["method"] == "hq-sam"


def test_a_worker_elsewhere_makes_the_same_bytes_of_a_network_s_masks(network, frames):
    worker, before = ShardWorker(network, ONE), torch.get_num_threads()
    here = worker(frames.frames)
    try:
        torch.set_num_threads(3)
        assert pickle.loads(pickle.dumps(worker))(frames.frames) == here
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_processes_and_interruptions_change_no_byte(frames, tmp_path):
    whole, broken, counted = tmp_path / "whole", tmp_path / "broken", []
    convert(Notched(), frames, whole, ONE)

    def stop_after_two(frames_done):
        counted.append(frames_done)
        if sum(counted) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(Notched(), frames, broken, ONE, progress=stop_after_two)
    assert not (broken / "records.csv").exists()
    (broken / f"shards/.000004{PARTIAL}left.gz").write_bytes(b"half a shard")
    seen = []
    convert(Notched(), frames, broken, ONE, workers=2, progress=seen.append)
    assert seen[0] == 2 and sum(seen) == len(frames)
    assert all_bytes(broken) == all_bytes(whole)


def test_a_killed_worker_is_reported_with_its_cause(frames, tmp_path):
    with pytest.raises(RossamError, match=r"boxes to masks: a worker process was killed \(signal 9\).* memory"):
        convert(Fatal(-9), frames, tmp_path / "out", ONE, workers=2)


@pytest.mark.parametrize(("codes", "cause"), [
    ("{EXIT(9)}", "exited with status 9"), ("{SIGTERM(-15), SIGSEGV(-11)}", "by signal 11 (Segmentation fault)"),
    ("{SIGTERM(-15), SIGKILL(-9)}", "memory runs out"), ("", "ended unexpectedly (A worker was terminated.)"),
])  # fmt: skip
def test_each_death_of_a_worker_has_its_own_cause(codes, cause):
    assert cause in _death("place", f"A worker was terminated.\nThe exit codes of the workers are {codes}").finding


def test_an_error_in_a_worker_keeps_its_type(frames, tmp_path):
    with pytest.raises(ZeroDivisionError):
        convert(Faulty(), frames, tmp_path / "out", ONE, workers=2)


UNGUARDED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_tracks import Notched, make_frames
from rossam_kit.convert.convert import ConversionConfig, convert
class Local(Notched):
    pass
Local.__name__ = "Notched"
out = Path(sys.argv[1])
print("script")
convert(Local(), make_frames(out / "data"), out / "masks", ConversionConfig(shard_frames=1, jitter=2), workers=2)
"""


def test_a_script_needs_no_main_guard_and_its_own_predictor_reaches_the_workers(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "script\n"), done.stderr
    convert(Notched(), make_frames(tmp_path / "data"), tmp_path / "here", ONE)
    assert all_bytes(tmp_path / "masks") == all_bytes(tmp_path / "here")


def test_a_predictor_that_cannot_be_pickled_is_named_as_the_cause(frames, tmp_path):
    predictor = Notched()
    predictor.lock = threading.Lock()
    with pytest.raises(RossamError, match=r"cannot be sent to another process .*lock"):
        convert(predictor, frames, tmp_path / "out", ONE, workers=2)


ORPHANS = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_tracks import Notched, make_frames
from rossam_kit.convert.convert import ConversionConfig, convert
class Slow(Notched):
    def predict(self, image, boxes):
        Path(sys.argv[1], str(os.getpid())).touch()
        time.sleep(60)
    def __reduce__(self):
        return Slow, ()
out = Path(sys.argv[1])
convert(Slow(), make_frames(out / "data"), out / "masks", ConversionConfig(shard_frames=1), workers=2)
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    script = ORPHANS.replace("sys.argv[1]", repr(str(tmp_path)))  # workers have arguments of their own
    command = [sys.executable, "-c", script, "", str(Path(__file__).parent)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    ends = time.monotonic() + 90
    while len(workers := [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()]) < 2 and time.monotonic() < ends:
        time.sleep(0.1)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=20)
    assert len(workers) == 2 and not alive


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tiny_tracks import Notched, make_frames
from rossam_kit.convert.convert import ConversionConfig, convert
class Slow(Notched):
    def predict(self, image, boxes):
        time.sleep(0.02)
        return super().predict(image, boxes)
Slow.__name__ = "Notched"
convert(Slow(), make_frames(Path(sys.argv[1]), frames=30), sys.argv[2], ConversionConfig(shard_frames=2, jitter=2))
"""


def test_a_killed_conversion_ends_with_the_same_bytes(tmp_path):
    frames, config = make_frames(tmp_path / "data", frames=30), ConversionConfig(shard_frames=2, jitter=2)
    convert(Notched(), frames, tmp_path / "whole", config)
    command = [sys.executable, "-c", KILLED, tmp_path / "data", tmp_path / "killed", Path(__file__).parent]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    waited = time.monotonic() + 60
    while not shard_path(tmp_path / "killed", 2).exists() and time.monotonic() < waited:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert shard_path(tmp_path / "killed", 2).exists() and not shard_path(tmp_path / "killed", 29).exists()
    convert(Notched(), frames, tmp_path / "killed", config)
    assert all_bytes(tmp_path / "killed") == all_bytes(tmp_path / "whole")


def test_a_folder_made_with_other_settings_is_refused_with_every_difference(frames, tmp_path):
    folder = tmp_path / "out"
    convert(EllipseBaseline(), frames, folder, ONE)
    before = all_bytes(folder)
    with pytest.raises(RossamError) as error:
        convert(Notched(), with_box(frames, 0, 0, (4.0, 6, 17, 14)), folder, ConversionConfig(shard_frames=1, jitter=3))
    for part in ("conversion.jitter: 2 there, 3 now", "model.method: 'EllipseBaseline' there", "data.fingerprint"):
        assert part in str(error.value)
    assert "boxes or classes have changed since" in str(error.value)
    assert all_bytes(folder) == before


def test_an_image_that_changed_is_named(frames, tmp_path):
    convert(EllipseBaseline(), frames, tmp_path / "out", ONE)
    frames[1].image_path.write_bytes(frames[0].image_path.read_bytes() + b" ")
    with pytest.raises(RossamError, match=rf"{frames[1].image_path.name} changed, appeared or disappeared since"):
        convert(EllipseBaseline(), frames, tmp_path / "out", ONE)


def test_a_folder_of_other_files_is_left_alone(frames, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RossamError, match="is not empty"):
        convert(Notched(), frames, tmp_path, ONE)


def test_a_finished_folder_is_only_read_also_by_a_later_version(frames, tmp_path, monkeypatch):
    convert(Notched(), frames, tmp_path / "out", ONE)
    monkeypatch.setattr("rossam_kit.convert.convert.CONVERSION_VERSION", 99)
    monkeypatch.setattr(ShardWorker, "__call__", None)
    convert(Notched(), frames, tmp_path / "out", ONE)
    (tmp_path / "out/records.csv").unlink()
    with pytest.raises(RossamError, match="version: 2 there, 99 now"):
        convert(Notched(), frames, tmp_path / "out", ONE)


def test_a_damaged_shard_is_named(frames, tmp_path):
    done = convert(Notched(), frames, tmp_path / "out", ONE)
    path = shard_path(done.folder, 1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RossamError, match=r"000001\.gz: is not a whole shard"):
        list(done)
    shard_path(done.folder, 1).write_bytes(shard_path(done.folder, 0).read_bytes())
    (done.folder / "records.csv").unlink()
    with pytest.raises(RossamError, match="one record for each box"):
        convert(Notched(), frames, tmp_path / "out", ONE)
    with pytest.raises(RossamError, match=r"no records\.csv"):
        Conversion(done.folder)


def test_bad_calls_are_refused_with_the_reason(frames, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for number, (options, message) in enumerate([
        ({"engine": "ray"}, "pip install ray"), ({"engine": "spark"}, "local or ray"), ({"workers": 0}, "at least one"),
    ]):  # fmt: skip
        with pytest.raises(RossamError, match=message):
            convert(Notched(), frames, tmp_path / str(number), ONE, **options)
    with pytest.raises(RossamError, match="occurs twice"):
        convert(Notched(), FrameSet("twice", [*frames, frames[0]]), tmp_path / "twice", ONE)


def test_frames_without_boxes_stay_frames_without_records(frames, tmp_path):
    bare = frames.subset([frame.with_objects([]) for frame in frames])
    done = convert(Notched(), bare, tmp_path / "out", ONE)
    assert [frame.key for frame in done] == [frame.key for frame in bare]
    assert len(done.table) == 0
    assert len(done.shard(0)) == 1


@pytest.fixture(scope="module")
def running_ray():
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # Ray's workers import tiny_tracks
        patch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 they would wait for all tests beside them
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def test_ray_gives_the_same_bytes(frames, tmp_path, running_ray):
    convert(EllipseBaseline(), frames, tmp_path / "local", ONE)
    convert(EllipseBaseline(), frames, tmp_path / "ray", ONE, engine="ray", workers=2)
    assert all_bytes(tmp_path / "ray") == all_bytes(tmp_path / "local")


def test_an_error_from_ray_keeps_its_type(frames, tmp_path, running_ray):
    with pytest.raises(ZeroDivisionError):
        convert(Faulty(), frames, tmp_path / "faulty", ONE, engine="ray", workers=2)


@pytest.mark.parametrize(("engine", "cause"), [("local", r"was killed \(signal 9\)"), ("ray", "ended unexpectedly")])
def test_after_the_death_of_a_worker_the_same_command_ends_with_the_same_bytes(
    frames, tmp_path, request, engine, cause
):
    if engine == "ray":
        request.getfixturevalue("running_ray")
    predictor = KilledOnce(mark=str(tmp_path / "killed"))
    report = rf"(?s)boxes to masks: a worker process {cause}.*start again: finished work is kept"
    with pytest.raises(RossamError, match=report):
        convert(predictor, frames, tmp_path / "out", ONE, engine=engine, workers=2)
    assert not (tmp_path / "out/records.csv").exists()
    convert(predictor, frames, tmp_path / "out", ONE, engine=engine, workers=2)
    convert(predictor, frames, tmp_path / "whole", ONE)
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


def test_a_finished_conversion_can_be_moved_alone_with_its_images_or_apart(tmp_path):
    home = tmp_path / "home"
    frames = make_frames(home / "data/images")
    convert(Notched(), frames, home / "masks", ONE)
    names = [path.name for path in (home / "data/images").rglob("*.png")]

    def opened(folder, images=None):
        return [frame.frame().image().shape for frame in Conversion(folder, images)]

    shapes = [(*SIZE_HW, 3)] * len(names)
    alone = shutil.copytree(home / "masks", tmp_path / "elsewhere/masks")
    assert opened(alone) == shapes
    together = home.rename(tmp_path / "away")
    assert opened(together / "masks") == shapes
    apart = (together / "data/images").rename(tmp_path / "apart")
    assert opened(alone, apart) == shapes
    with pytest.raises(RossamError, match="no such image file"):
        opened(alone)
    convert(Notched(), make_frames(apart), alone, ONE)
    assert opened(alone) == shapes
    manifest = Conversion(alone).manifest
    assert manifest["images"]["absolute"] == apart.as_posix() and {"python", "numpy"} <= set(manifest["versions"])
    write_json(alone / "manifest.json", manifest | {"format": "rossam-masks-2"})
    with pytest.raises(RossamError, match="is not of format"):
        Conversion(alone)
    assert all(str(tmp_path).encode() not in gzip.decompress(path.read_bytes()) for path in alone.glob("shards/*.gz"))


def test_a_conversion_that_ended_after_its_manifest_goes_on_with_the_hashes_of_its_images(frames, tmp_path):
    for name in ("whole", "broken"):
        convert(Notched(), frames, tmp_path / name, ONE)
    (tmp_path / "broken/images.json").unlink()
    convert(Notched(), frames, tmp_path / "broken", ONE)
    assert all_bytes(tmp_path / "broken") == all_bytes(tmp_path / "whole")
