"""Generated satellite video: the same seed gives the same bytes, and masks hold the objects and nothing else."""

import dataclasses
from collections import defaultdict

import cv2
import numpy as np
import pytest

from rossam_core.errors import RossamError
from rossam_core.masks import box_of
from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.synthetic import video as synthetic
from rossam_kit.datasets.synthetic.builder import MAX_SPEED, Scene
from rossam_kit.datasets.synthetic.geometry import Path, rectangle
from rossam_kit.datasets.synthetic.objects import LONGEST_CAR, Actor, Part, aeroplane, rigid, ship
from rossam_kit.datasets.synthetic.paint import MARGIN, SUPERSAMPLING, Canvas, Light
from rossam_kit.datasets.synthetic.scenes import wake_of
from rossam_kit.datasets.synthetic.stills import AERIAL_CATEGORIES, STATIC_CATEGORIES
from rossam_kit.datasets.synthetic.video import MIN_AREA, Video, annotate, generate

TINY = SyntheticConfig(scale=0.15, train_videos=4, val_videos=2, test_videos=4, frames_per_video=4, frame_stride=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny train split and the folder it lies under."""
    root = tmp_path_factory.mktemp("synthetic")
    return generate(TINY, "train", root), root


def images(frames):
    return {frame.key: frame.image_path.read_bytes() for frame in frames}


def annotations(frames):
    return {frame.key: (frame.size_hw, frame.objects, frame.attributes) for frame in frames}


class TestBytes:
    def test_the_same_seed_gives_the_same_bytes_and_annotations(self, tiny, tmp_path):
        again = generate(TINY, "train", tmp_path)
        assert images(again) == images(tiny[0])
        assert annotations(again) == annotations(tiny[0])

    def test_neither_the_number_of_videos_nor_the_stride_changes_a_frame(self, tiny, tmp_path):
        other = TINY.model_copy(update={"train_videos": 2, "test_videos": 9, "frame_stride": 3})
        some, all_ = images(generate(other, "train", tmp_path)), images(tiny[0])
        common = some.keys() & all_.keys()
        assert {key.split("/")[0] for key in common} == {"video-train-000", "video-train-001"}
        assert all(some[key] == all_[key] for key in common)

    def test_videos_of_different_numbers_splits_seeds_and_variants_differ(self):
        def first(split="train", number=0, **update):
            return Video(TINY.model_copy(update=update), split, number).frame(0)[0]

        shown = [first(), first(number=4), first("val"), first("test"), first(seed=1), first(variant="zero-shot")]
        assert len({image.tobytes() for image in shown}) == len(shown)


class TestFrames:
    def test_every_kept_moment_is_there_with_its_number(self, tiny):
        assert [frame.key for frame in tiny[0]] == [
            f"video-train-{video:03d}/{index:06d}" for video in range(4) for index in (1, 3)
        ]
        assert {frame.dataset for frame in tiny[0]} == {"synthetic-video"}

    def test_scenes_come_in_turn_and_attributes_describe_the_frame(self, tiny):
        scenes = [frame.attributes["scene"] for frame in tiny[0]]
        assert scenes[::2] == ["airport", "sea", "rail", "road"]
        assert all(frame.attributes["ground_resolution_m"] > 0 for frame in tiny[0])
        assert all(frame.attributes["sensor"]["psf_sigma"] > 0 for frame in tiny[0])

    @pytest.mark.parametrize("scale", [0.1, 0.25])
    def test_sides_are_the_papers_times_scale(self, rng, scale):
        sizes = np.array([synthetic._frame_size(rng, SyntheticConfig(scale=scale)) for _ in range(300)])
        assert sizes.min() >= round(512 * scale) and sizes[:, 0].max() <= round(1080 * scale)
        assert sizes[:, 1].max() <= round(2160 * scale)
        ratios = sizes[:, 1] / sizes[:, 0]
        assert ratios.max() > 1.7 and np.isclose(ratios.min(), 1, atol=0.02)

    def test_image_on_disk_has_the_size_of_the_record(self, tiny):
        assert all(frame.image().shape == (*frame.size_hw, 3) for frame in tiny[0])


class TestAnnotations:
    def test_masks_lie_in_the_frame_under_a_tight_box_and_do_not_overlap(self, tiny):
        for frame in tiny[0]:
            shown = [o.mask(frame.size_hw) for o in frame.objects if o.has_mask]
            assert all(mask.sum() >= MIN_AREA for mask in shown)
            assert not shown or np.sum(shown, axis=0).max() <= 1
            boxes = [o.box_xyxy for o in frame.objects if o.has_mask]
            assert boxes == [box_of(mask) for mask in shown]

    def test_cars_have_boxes_only_and_all_others_masks(self, tiny):
        kinds = {(o.category, o.has_mask) for frame in tiny[0] for o in frame.objects}
        assert kinds == {("airplane", True), ("ship", True), ("train", True), ("car", False)}

    def test_an_id_is_one_object_throughout_its_video(self, tiny):
        tracks = defaultdict(set)
        for frame in tiny[0]:
            assert len({o.object_id for o in frame.objects}) == len(frame.objects)
            for o in frame.objects:
                tracks[frame.video, o.object_id].add(o.category)
        assert all(len(categories) == 1 for categories in tracks.values())
        assert len(tracks) < sum(len(frame.objects) for frame in tiny[0])

    @pytest.mark.parametrize("number", range(4))
    def test_motion_is_continuous(self, number):
        """Whole objects move by at most MAX_SPEED pixels a frame (and half a pixel of rounding an edge)."""
        video = Video(TINY, "train", number)
        video.sensor = dataclasses.replace(video.sensor, sway=0.0)
        height, width = video.world.size_hw
        last, steps = {}, []
        for moment in range(4):
            whole = {}
            for o in video.frame(moment)[1]:
                x0, y0, x1, y1 = o.box_xyxy
                if x0 > 0 and y0 > 0 and x1 < width and y1 < height:
                    whole[o.object_id] = np.array(o.box_xyxy)
            steps += [np.abs(box - last[i]).max() for i, box in whole.items() if i in last and not video.scene.overlay]
            last = whole
        assert all(step <= MAX_SPEED + 1 for step in steps)
        speeds = [actor.speed for actor in video.scene.actors if actor.object_id]
        assert max(speeds) > 0 and max(speeds) <= MAX_SPEED

    def test_objects_that_show_too_little_are_left_out_and_counted(self, plane_scene):
        labels = plane_scene.draw(0).labels[inside(plane_scene.canvas)]
        labels[:] = 0
        labels[:9, :9] = 1  # nine pixels of the frame
        assert annotate(plane_scene, labels) == ((), 1)


def inside(canvas):
    edge = MARGIN * SUPERSAMPLING
    return slice(edge, -edge), slice(edge, -edge)


def blank_canvas(rng, colour, size_hw=(80, 120)):
    canvas = Canvas.blank(size_hw, Light(np.array([0.6, 0.8]), 1.0), rng)
    canvas.rgb[:] = colour
    canvas.grain[:] = 0
    return canvas


@pytest.fixture
def plane_scene(rng):
    """One plane of 50 pixels heading east, centred at (60, 40), on grey ground in full sun."""
    path = Path(np.array([(0.0, 40.0), (120.0, 40.0)]))
    parts = aeroplane(rng, 50.0, "wide", np.array([230.0, 230, 230]))
    return Scene(blank_canvas(rng, 128.0), [Actor(1, "airplane", path, 60.0, 0.0, rigid(parts))])


def only_mask(scene):
    canvas = scene.draw(0)
    (annotation,), _ = annotate(scene, canvas.labels[inside(canvas)])
    frame = cv2.resize(canvas.rgb[inside(canvas)], canvas.size_hw[::-1], interpolation=cv2.INTER_AREA)
    return annotation.mask(canvas.size_hw), frame


class TestWhatAMaskHolds:
    def test_it_is_exactly_what_is_painted(self, plane_scene):
        """The mask is where the object covers at least half a pixel of the picture: paint it red and look."""
        plane_scene.canvas.light = Light(np.array([1.0, 0.0]), 0.0)
        red = [
            dataclasses.replace(part, colour=np.array([255.0, 0, 0]), round_side=0.0)
            for part, _, _ in plane_scene.actors[0].placed_parts(0)
        ]
        plane_scene.actors[0].bodies = rigid(red)
        mask, frame = only_mask(plane_scene)
        share = (128 - frame[..., 1]) / 128  # red has no green, the ground is 128 grey
        np.testing.assert_array_equal(mask, share >= 0.5)

    def test_its_area_is_that_of_the_outline(self, plane_scene):
        """Up to what rasterising adds along the outline: about half a canvas pixel, under a fifth of a frame pixel."""
        fine = np.zeros((80 * 20, 120 * 20), np.uint8)
        for _, outline, _ in plane_scene.actors[0].placed_parts(0):
            cv2.fillPoly(fine, [np.round(outline * 20).astype(np.int32)], 1)
        contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        perimeter = sum(cv2.arcLength(contour, True) for contour in contours) / 20
        mask, _ = only_mask(plane_scene)
        assert 0 <= mask.sum() - fine.sum() / 400 <= 0.2 * perimeter

    def test_the_shadow_is_background(self, plane_scene):
        mask, frame = only_mask(plane_scene)
        dark = frame.mean(axis=2) < 90
        assert dark.sum() > 100  # there is a shadow
        assert (mask & dark).sum() < 0.05 * dark.sum()  # but for the dark rim pixels it shares with the outline

    def test_a_bridge_over_the_plane_is_background(self, plane_scene):
        whole, _ = only_mask(plane_scene)
        bridge = rectangle(74, 10, 78, 41)
        plane_scene.overlay = [Part(bridge, np.array([200.0, 0, 0]), 5.0, 3.0)]
        mask, frame = only_mask(plane_scene)
        red = (frame[..., 0] > 150) & (frame[..., 1] < 50)
        assert red.sum() == pytest.approx(4 * 31, rel=0.05)
        assert (whole & red).any() and not (mask & red).any()
        assert not (mask & ~whole).any()
        np.testing.assert_array_equal(np.delete(mask, range(73, 79), 1), np.delete(whole, range(73, 79), 1))

    def test_a_wake_is_background_brighter_than_the_water_and_longer_than_the_ship(self, rng):
        canvas = blank_canvas(rng, (40, 60, 80), (60, 200))
        length, path = 40.0, Path(np.array([(0.0, 30.0), (200.0, 30.0)]))
        parts = ship(rng, length, "naval", np.array([60.0, 60, 60]))
        without = Scene(canvas, [Actor(1, "ship", path, 150.0, 1.0, rigid(parts))])
        bare, _ = only_mask(without)
        wake = wake_of(rng, length, np.array([40.0, 60, 80]))
        mask, frame = only_mask(Scene(canvas, [dataclasses.replace(without.actors[0], wake=wake)]))
        np.testing.assert_array_equal(mask, bare)
        bright = frame[30, :, 0] > 44
        assert bright[128] and not mask[30, 128]  # right behind the stern
        assert bright[:130].sum() > length

    def test_trains_are_five_to_twenty_times_as_long_as_wide_and_in_one_piece(self):
        trains = 0
        for number in (2, 6, 10):
            video = Video(SyntheticConfig(), "train", number)
            video.scene.overlay = []
            for actor in video.scene.actors:
                outlines = np.concatenate([part.outline for body in actor.bodies for part in body.parts])
                ends = [body.front for body in actor.bodies] + [body.back for body in actor.bodies]
                wagon = np.ptp(outlines[:, 0])
                aspect = (max(ends) - min(ends) + 0.2 * wagon) / np.ptp(outlines[:, 1])
                assert 5 <= aspect <= 20
                trains += 1
            canvas = video.scene.draw(0)
            for o in annotate(video.scene, canvas.labels[inside(canvas)])[0]:
                pieces, _ = cv2.connectedComponents(o.mask(canvas.size_hw).astype(np.uint8))
                assert pieces == 2  # background and the train
        assert trains >= 3


def test_areas_follow_the_papers_table():
    """Table 7: 12 to 8,422 px, mean 518; over a 24-video test split the mean lies within 400 to 650."""
    areas = []
    for number in range(24):
        video = Video(SyntheticConfig(), "test", number)
        areas += [o.mask(video.world.size_hw).sum() for o in video.frame(0)[1] if o.has_mask]
    assert min(areas) >= 12 and max(areas) <= 8422
    assert 400 <= np.mean(areas) <= 650


class TestVariants:
    def test_static_has_other_kinds_of_objects_one_frame_a_scene(self, tmp_path):
        config = SyntheticConfig(variant="static", scale=0.25, test_videos=8)
        frames = generate(config, "test", tmp_path)
        assert len(frames) == len(frames.videos) == 8
        assert set(frames.categories) == set(STATIC_CATEGORIES)
        assert all(o.has_mask for frame in frames for o in frame.objects)
        assert {frame.dataset for frame in frames} == {"synthetic-static"}

    def test_aerial_is_square_patches_crowded_with_small_objects(self, tmp_path):
        static, aerial = (
            generate(SyntheticConfig(variant=variant, test_videos=7), "test", tmp_path)
            for variant in ("static", "aerial")
        )
        assert {frame.size_hw for frame in aerial} == {(200, 200)}  # a quarter of iSAID's patches
        assert set(aerial.categories) == set(AERIAL_CATEGORIES) != set(STATIC_CATEGORIES)
        pixels = [sum(np.prod(frame.size_hw) for frame in made) for made in (static, aerial)]
        crowded = [made.object_count / count for made, count in zip((static, aerial), pixels, strict=True)]
        assert crowded[1] > 1.3 * crowded[0]
        assert {frame.dataset for frame in aerial} == {"synthetic-aerial"}
        small = [o.box_xyxy for frame in aerial for o in frame.objects if o.category == "small vehicle"]
        assert np.ptp(np.reshape(small, (-1, 2, 2)), axis=1).max() <= LONGEST_CAR + 1  # lorries are large ones

    def test_zero_shot_has_the_same_kinds_elsewhere_under_another_camera(self, tmp_path):
        config = TINY.model_copy(update={"variant": "zero-shot", "scenes": ("airport", "sea", "rail")})
        frames = generate(config, "test", tmp_path)
        assert set(frames.categories) <= {"airplane", "ship", "train"}
        assert {frame.attributes["place"] for frame in frames} <= {"desert", "snow", "forest"}
        grey = [np.ptp(f.image().astype(int), axis=2).max() <= 2 for f in frames]
        assert grey == [f.attributes["sensor"]["panchromatic"] for f in frames]


class TestFolders:
    def test_a_finished_folder_is_read_not_rendered(self, tiny, monkeypatch):
        monkeypatch.setattr(synthetic, "Video", None)
        again = generate(TINY, "train", tiny[1])
        assert again.frames == tiny[0].frames and again.name == tiny[0].name

    def test_an_interrupted_run_is_taken_up_after_its_last_whole_video(self, tiny, tmp_path, monkeypatch):
        rendered = []

        class Counted(Video):
            def frame(self, moment):
                rendered.append((self._key, moment))
                if len(rendered) == 4:
                    raise KeyboardInterrupt
                return super().frame(moment)

        monkeypatch.setattr(synthetic, "Video", Counted)
        with pytest.raises(KeyboardInterrupt):
            generate(TINY, "train", tmp_path)
        assert not list(tmp_path.glob("*/train/index.json.gz"))
        resumed = generate(TINY, "train", tmp_path)
        assert len(rendered) == 4 + 6  # video 0 is not rendered again
        assert images(resumed) == images(tiny[0])
        assert annotations(resumed) == annotations(tiny[0])

    def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RossamError, match="Remedy"):
            generate(TINY, "val", tmp_path / "file")
