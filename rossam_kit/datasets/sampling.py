"""The sampling manifest: which quarter of each video's frames is used, the same on every machine.

In: a `FrameSet`, a fraction and a seed. Out: a `Manifest` of frame keys with the hashes of image and annotation,
written as JSON, read back, checked against the files, and applied to a `FrameSet`.

The paper samples a quarter of each video's frames at random, leaves cars out, and excludes what has no masks
(section 4.1); its draw is not published. Ours ranks a video's usable frames by
`SHA-256("SEED/VIDEO/INDEX")`, the index in six digits, and takes the first `fraction` of them, rounded half up,
one at least. No random generator is involved, so the draw depends on neither library versions nor the order of
frames nor the other videos; a larger fraction contains a smaller one.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import read_json, sha256_of, stable_hash, write_json
from rossam_core.records import Frame
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.progress import track

FORMAT = "rossam-sampling-1"
WRITE_ANEW = "draw and write the manifest anew, or take it from where it came once more"


@dataclass(frozen=True)
class SampledFrame:
    """One drawn frame.

    Attributes:
        key: `video/index`, as `Frame.key`.
        file: the image, relative to the folder all images of the set share; for the reader's eye.
        image_sha256: of the image file's bytes.
        annotation_sha256: of the objects as read: ids, categories, boxes, masks.
        objects: how many there are.
    """

    key: str
    file: str
    image_sha256: str
    annotation_sha256: str
    objects: int


@dataclass(frozen=True)
class Exclusion:
    """Frames of one video that the draw did not consider, and why."""

    video: str
    frames: int
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A draw, complete enough to repeat and to check it."""

    dataset: str
    fraction: float
    seed: int
    exclude_categories: tuple[str, ...]
    frames: tuple[SampledFrame, ...]
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of all that the manifest says."""
        return stable_hash([FORMAT, asdict(self)])

    def excluded(self) -> dict[str, dict[str, int]]:
        """By reason: how many videos, and how many frames of them, were left out."""
        table: dict[str, Counter] = defaultdict(Counter)
        for exclusion in self.exclusions:
            table[exclusion.reason].update(videos=1, frames=exclusion.frames)
        return {reason: dict(counts) for reason, counts in sorted(table.items())}

    def write(self, path: str | os.PathLike) -> None:
        """Write as JSON."""
        write_json(path, {"format": FORMAT, **asdict(self), "digest": self.digest})


def draw_manifest(
    frames: FrameSet, fraction: float = 0.25, seed: int = 0, *, exclude_categories: Sequence[str] = ("car",)
) -> Manifest:
    """Draw `fraction` of each video's usable frames.

    A frame is usable if one of its objects at least has a mask and is of no excluded category. Videos without any
    usable frame, and single frames without, are excluded with their count and the reason.

    Args:
        fraction: of each video's usable frames, in (0, 1]; paper: 1/4.
        exclude_categories: paper: cars, of about 10 pixels and as good as filled boxes (section 4.1).

    Raises:
        RossamError: a fraction out of range, two frames of one key, or an image that cannot be read.
    """
    if not 0 < fraction <= 1:
        raise RossamError("fraction", f"is {fraction}, expected above 0 and at most 1", "the paper's is 0.25")
    _frames_by_key(frames)
    videos: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        videos[frame.video].append(frame)
    drawn, exclusions = [], []
    for video, members in sorted(videos.items()):
        usable = [frame for frame in members if _reason_against(frame, exclude_categories) is None]
        exclusions += _exclusions(video, members, exclude_categories)
        if usable:
            count = max(1, math.floor(len(usable) * fraction + 0.5))
            drawn += sorted(sorted(usable, key=lambda frame: _rank(frame, seed))[:count], key=lambda frame: frame.index)
    root = _common_folder(drawn)
    sampled = [_sampled(frame, root) for frame in track(drawn, desc="hash sampled frames")]
    return Manifest(frames.name, fraction, seed, tuple(exclude_categories), tuple(sampled), tuple(exclusions))


def read_manifest(path: str | os.PathLike) -> Manifest:
    """Read what `Manifest.write` wrote; a changed or truncated one is a `RossamError`."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else content
        raise RossamError(path, f"format is {found!r}, expected {FORMAT!r}", WRITE_ANEW)
    try:
        manifest = Manifest(
            dataset=content["dataset"],
            fraction=content["fraction"],
            seed=content["seed"],
            exclude_categories=tuple(content["exclude_categories"]),
            frames=tuple(SampledFrame(**row) for row in content["frames"]),
            exclusions=tuple(Exclusion(**exclusion) for exclusion in content["exclusions"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RossamError(path, f"lacks or misspells a field ({error!r})", WRITE_ANEW) from error
    if manifest.digest != content.get("digest"):
        raise RossamError(
            path, f"its {len(manifest.frames):,} frames do not fit its digest: it was changed", WRITE_ANEW
        )
    return manifest


def apply(frames: FrameSet, manifest: Manifest, *, verify: bool = True) -> FrameSet:
    """The manifest's frames, in the order of `frames`; every other one leaves a `Drop` that says why.

    Args:
        verify: compare the hashes of images and annotations, too; reads every drawn image once.

    Raises:
        RossamError: listed frames that are not there, or whose image or annotation is another; all at once.
    """
    found = _frames_by_key(frames)
    problems = ProblemList(f"sampling manifest of {manifest.dataset}")
    for sampled in track(manifest.frames, desc="check sampled frames") if verify else manifest.frames:
        if sampled.key not in found:
            problems.add(sampled.key, f"is not among the {len(frames):,} frames of {frames.name} ({sampled.file})")
        elif verify:
            problems.extend(_differences(found[sampled.key], sampled))
    problems.raise_if_any(
        "apply a manifest to the very data it was drawn from: all of its files, read the same way; or draw a new one"
    )
    listed = {sampled.key for sampled in manifest.frames}
    not_drawn = f"not in the sample of {manifest.fraction:g} of each video's frames (seed {manifest.seed})"
    drops = [
        Drop(frame.key, _reason_against(frame, manifest.exclude_categories) or not_drawn, len(frame.objects))
        for frame in frames
        if frame.key not in listed
    ]
    return frames.subset([frame for frame in frames if frame.key in listed], drops)


def _rank(frame: Frame, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{frame.key}".encode()).digest()


def _reason_against(frame: Frame, exclude_categories: Sequence[str]) -> str | None:
    """Why a frame is not usable, or None."""
    if not frame.objects:
        return "no objects annotated"
    kept = [item for item in frame.objects if item.category not in exclude_categories]
    if not kept:
        return f"only objects of excluded categories ({', '.join(exclude_categories)})"
    return None if any(item.has_mask for item in kept) else "boxes but no masks"


def _exclusions(video: str, members: Sequence[Frame], exclude_categories: Sequence[str]) -> list[Exclusion]:
    """One entry a reason; a video without any usable frame gets one, with its commonest reason."""
    reasons = Counter(_reason_against(frame, exclude_categories) for frame in members)
    if None not in reasons:
        return [Exclusion(video, len(members), f"whole video: {reasons.most_common(1)[0][0]}")]
    return [Exclusion(video, count, f"single frames: {reason}") for reason, count in reasons.items() if reason]


def _sampled(frame: Frame, root: Path) -> SampledFrame:
    try:
        digest = sha256_of(frame.image_path)
    except OSError as error:
        raise RossamError(
            frame.image_path, f"cannot be read ({error.strerror})", "check the dataset's folder; `rossam fetch --check`"
        ) from error
    file = Path(os.path.relpath(frame.image_path, root)).as_posix()
    return SampledFrame(frame.key, file, digest, _annotation_hash(frame), len(frame.objects))


def _annotation_hash(frame: Frame) -> str:
    return stable_hash([[o.object_id, o.category, list(map(float, o.box_xyxy)), o.segmentation] for o in frame.objects])


def _differences(frame: Frame, sampled: SampledFrame) -> list[tuple[str, str]]:
    problems = []
    if not frame.image_path.is_file():
        return [(sampled.key, f"{frame.image_path} is gone")]
    measured = sha256_of(frame.image_path)
    if measured != sampled.image_sha256:
        problems.append((sampled.key, f"sha256 of {frame.image_path} is {measured}, expected {sampled.image_sha256}"))
    if _annotation_hash(frame) != sampled.annotation_sha256:
        problems.append((sampled.key, f"{len(frame.objects)} objects, not the {sampled.objects} annotated at the draw"))
    return problems


def _frames_by_key(frames: FrameSet) -> dict[str, Frame]:
    found, problems = {}, ProblemList(frames.name)
    for frame in frames:
        if frame.key in found:
            problems.add(frame.key, f"is both {found[frame.key].image_path} and {frame.image_path}")
        found[frame.key] = frame
    problems.raise_if_any("give each video its own name before drawing")
    return found


def _common_folder(frames: Sequence[Frame]) -> Path:
    return Path(os.path.commonpath([frame.image_path.parent for frame in frames])) if frames else Path()
