"""From a `DataConfig` to frames: the one place that knows which reader serves which source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, stable_hash, write_bytes
from rossam_kit.cache import cached
from rossam_kit.config import OWN_SOURCES, DataConfig, ImageOptions, SampleConfig, Split
from rossam_kit.datasets.authors_format import read_authors_format
from rossam_kit.datasets.catalogue import place_of
from rossam_kit.datasets.coco import read_coco
from rossam_kit.datasets.dota import read_dota
from rossam_kit.datasets.fetch import locate
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.datasets.images import AS_IT_IS, with_reading
from rossam_kit.datasets.isaid import read_isaid
from rossam_kit.datasets.nwpu_vhr10 import read_nwpu_vhr10
from rossam_kit.datasets.ootb import read_ootb
from rossam_kit.datasets.sampling import Manifest, apply, draw_manifest, read_manifest
from rossam_kit.datasets.sat_mtb import read_sat_mtb
from rossam_kit.datasets.satsot import read_satsot
from rossam_kit.datasets.splits import hold_out
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.datasets.viso import read_viso

SPLITS: dict[str, tuple[Split, ...]] = {
    "synthetic": ("train", "val", "test"),
    "coco": ("train", "val", "test"),
    "nwpu-vhr10": ("train", "val"),
    "isaid": ("train", "val"),
    "sat-mtb": ("train", "val", "test"),
    "authors": ("train", "val", "test"),
    "satsot": ("test",),
    "viso": ("test",),
    "ootb": ("test",),
    "dota": ("test",),
}
"""Splits each source offers. SAT-MTB and the authors' files are published as train and test: their val is every
tenth video of train, which train then lacks."""


COCO_OPTIONS = ("box_convention", "keep_crowd", "skip_bad")
"""Fields of a `DataConfig` that are about one's own COCO file."""


def load_frames(
    data: DataConfig, split: Split, cache: Path | None = None, shown: ImageOptions | None = None
) -> FrameSet:
    """Frames of one split, generated once or read where they lie.

    Bands and stretch are those of `shown` (None: of `data`), and the stretch is the same for all splits.
    Sources without a split of that name raise `RossamError`: nothing is tested on what it was trained on.
    """
    frames = _read_split(data, split, cache)
    shown = shown or data
    is_default = ImageOptions(bands=shown.bands, stretch=shown.stretch) == ImageOptions()
    if not is_default or any(frame.reading != AS_IT_IS for frame in frames):
        paths = [frame.image_path for frame in frames]
        for other in SPLITS[data.source]:
            with contextlib.suppress(RossamError):  # one's own data need not have every split
                paths += [frame.image_path for frame in _read_split(data, other, cache) if other != split]
        frames = with_reading(frames, shown, paths, cache)
    return _limit(frames, data.limit_frames)


def read_annotations(data: DataConfig, file: Path, shown: ImageOptions | None = None) -> FrameSet:
    """A COCO file anywhere, with the images in `data.root`; bands and stretch as those of `load_frames`."""
    options = {key: getattr(data, key) for key in COCO_OPTIONS}
    return with_reading(read_coco(file, data.root, name=file.stem, **options), shown or data)


def _read_split(data: DataConfig, split: Split, cache: Path | None) -> FrameSet:
    if split not in SPLITS[data.source]:
        offered = ", ".join(SPLITS[data.source])
        raise RossamError(data.source, f"has no split {split!r}", f"it offers {offered}")
    options = {key: getattr(data, key) for key in COCO_OPTIONS}
    if data.source != "coco" and any(options.values()):
        named = ", ".join(f"data.{key}" for key, value in options.items() if value)
        raise RossamError(data.source, f"has no use for {named}", "leave it out: it is about one's own COCO file")
    root = None if data.source == "synthetic" else root_of(data)
    match data.source:
        case "synthetic":
            root = (cache or cache_dir()) / "synthetic"
            frames = generate(data.synthetic, split, root, progress=True)
        case "coco":
            frames = read_coco(root / f"{split}.json", root / "images", name=root.name, **options)
        case "nwpu-vhr10":
            frames = read_nwpu_vhr10(root, split)
        case "isaid":
            frames = read_isaid(root, split, cache)
        case "sat-mtb" | "authors":
            frames = _hold_out(lambda name: _sampled(_published(data, root, name, cache), data.sample, cache), split)
        case "satsot":
            frames = read_satsot(root, cache)
        case "viso":
            frames = read_viso(root, cache)
        case "ootb":
            frames = read_ootb(root, cache)
        case "dota":
            frames = read_dota(root, cache)
    return frames


def root_of(data: DataConfig) -> Path:
    """The folder a real dataset is read from: `data.root` or what it holds, else where `rossam fetch` puts it.

    Raises:
        RossamError: it is in neither; the remedy says how to get it.
    """
    if data.source in OWN_SOURCES:
        return data.root
    is_wrong = data.root is not None and not data.root.is_dir()
    if not is_wrong and (folder := locate(data.source, data.root)) is not None:
        return folder
    place = place_of(data.source, data.root)
    for folder in (place, data.root):  # its reader says what it misses there
        if folder is not None and folder.is_dir():
            return folder
    raise RossamError(
        data.root if is_wrong else place,
        f"no such folder: the dataset {data.source} is not there",
        f"run `rossam fetch {data.source}`, which fetches it or says what to do by hand; or name the folder it lies "
        "in, or that of all datasets, with --data DIR",
    )


def is_there(data: DataConfig) -> bool:
    """Whether the data is generated or one's own, or its dataset has a folder; what that holds is its reader's word."""
    if data.source in ("synthetic", *OWN_SOURCES):
        return True
    if data.root is not None and not data.root.is_dir():
        return False
    return locate(data.source, data.root) is not None or place_of(data.source, data.root).is_dir()


def boxes_only(data: DataConfig) -> bool:
    """Whether no object of the scored split has a mask: so in tracking datasets, and maybe in one's own files."""
    if data.source not in (*OWN_SOURCES, "satsot", "viso", "ootb"):
        return False
    return not any(o.has_mask for frame in load_frames(data, scored_split(data)) for o in frame.objects)


def scored_split(data: DataConfig) -> Split:
    """The split a source is scored on: NWPU VHR-10 and iSAID have no public test split."""
    return "test" if "test" in SPLITS[data.source] else "val"


def _hold_out(read: Callable[[str], FrameSet], split: Split) -> FrameSet:
    """A split of a source that is published as train and test: every tenth video of train is val."""
    if split == "test":
        return read("test")
    frames = hold_out(read("train"))[split == "val"]
    return FrameSet(f"{frames.name} ({split})", frames, frames.drops, frames.classes)


def sample_path(frames: FrameSet, sample: SampleConfig, cache: Path | None = None) -> Path:
    """Where the manifest of a draw from `frames` is kept: another file for other files on disk, boxes or settings."""
    states = []
    for frame in frames:
        state = frame.image_path.stat()
        states.append([frame.key, state.st_size, state.st_mtime_ns, [list(o.box_xyxy) for o in frame.objects]])
    key = stable_hash([str(frames[0].image_path) if len(frames) else "", states, sample.model_dump(mode="json")])
    name = f"{frames.name.replace(' ', '-')}-seed-{sample.seed}-{key[:12]}.json"
    return (cache or cache_dir()) / "samples" / name


def keep_manifests(data: DataConfig, folder: Path) -> list[Path]:
    """Copy the manifests of the draws, as `train.json` and `test.json`, to `folder`, beside what was made of them."""
    kept = []
    for split in ("train", "test"):
        frames = _published(data, root_of(data), split, None)
        manifest = sample_path(frames, data.sample)
        if manifest.exists():
            write_bytes(folder / f"{split}.json", manifest.read_bytes())
            kept.append(folder / f"{split}.json")
    return kept


def _published(data: DataConfig, root: Path, split: str, cache: Path | None) -> FrameSet:
    """All frames of a split as its authors made it."""
    if data.source == "sat-mtb":
        return read_sat_mtb(root, split, cache=cache)
    return read_authors_format(root, split, cache)


def _sampled(frames: FrameSet, sample: SampleConfig | None, cache: Path | None) -> FrameSet:
    """The drawn frames, all others in the drop log; the manifest is drawn and hashed once, and kept."""
    if sample is None:
        return frames

    def draw() -> Manifest:
        return draw_manifest(frames, sample.fraction, sample.seed, exclude_categories=sample.exclude_categories)

    path = sample_path(frames, sample, cache)
    manifest = cached(path, draw, load=read_manifest, save=lambda path, manifest: manifest.write(path))
    return apply(frames, manifest)


def _limit(frames: FrameSet, limit: int | None) -> FrameSet:
    """At most `limit` frames, evenly spaced over the set, the rest in the drop log."""
    if limit is None or len(frames) <= limit:
        return frames
    chosen = set(np.linspace(0, len(frames) - 1, limit).round().astype(int).tolist())
    reason = f"beyond data.limit_frames = {limit}"
    drops = [Drop(f.key, reason, len(f.objects)) for i, f in enumerate(frames) if i not in chosen]
    return frames.subset([f for i, f in enumerate(frames) if i in chosen], drops)
