"""Sampling manifests: which quarter of each video's frames is used, identical on every machine.

A `Manifest` lists the keys of the drawn frames with the hashes of image and annotation. It is stored as JSON and
applied to a `FrameSet`.

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
from pathlib import Path
from typing import Literal

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import read_json, sha256_of, stable_hash, write_json
from rossam_core.records import Frame
from rossam_core.settings import Config, parse_config
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.progress import track


class SampledFrame(Config):
    """One drawn frame."""

    key: str
    """`video/index`, as `Frame.key`."""
    file: str
    """The image, relative to the folder all images of the set share; for the reader's eye."""
    image_sha256: str
    annotation_sha256: str
    """Of the objects as read: ids, categories, boxes, masks."""
    objects: int


class Exclusion(Config):
    """Frames of one video that the draw did not consider, and why."""

    video: str
    frames: int
    reason: str


class Manifest(Config):
    """A draw, complete enough to repeat and to check it."""

    format: Literal["rossam-sampling-1"] = "rossam-sampling-1"
    dataset: str
    fraction: float
    seed: int
    exclude_categories: tuple[str, ...]
    frames: tuple[SampledFrame, ...]
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of all that the manifest says."""
        return stable_hash([self.format, self.model_dump(exclude={"format"})])

    def write(self, path: str | os.PathLike) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump() | {"digest": self.digest})


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
            usable.sort(key=lambda frame: hashlib.sha256(f"{seed}/{frame.key}".encode()).digest())
            drawn += sorted(usable[:count], key=lambda frame: frame.index)
    root = Path(os.path.commonpath([frame.image_path.parent for frame in drawn])) if drawn else Path()
    sampled = [_sampled(frame, root) for frame in track(drawn, desc="hash sampled frames")]
    return Manifest(
        dataset=frames.name,
        fraction=fraction,
        seed=seed,
        exclude_categories=tuple(exclude_categories),
        frames=tuple(sampled),
        exclusions=tuple(exclusions),
    )


def read_manifest(path: str | os.PathLike) -> Manifest:
    """Read what `Manifest.write` wrote; a changed or truncated one is a `RossamError`."""
    content = read_json(path)
    values = {key: value for key, value in content.items() if key != "digest"} if isinstance(content, dict) else content
    manifest = parse_config(Manifest, values, where=path)
    if manifest.digest != content.get("digest"):
        finding = f"its {len(manifest.frames):,} frames do not fit its digest: it was changed"
        raise RossamError(path, finding, "draw and write the manifest anew, or take it from where it came once more")
    return manifest


def apply(frames: FrameSet, manifest: Manifest) -> FrameSet:
    """The manifest's frames, in the order of `frames`; every other one leaves a `Drop` that says why.

    Raises:
        RossamError: listed frames that are not there, all at once.
    """
    by_key = _frames_by_key(frames)
    problems = ProblemList(f"sampling manifest of {manifest.dataset}")
    for sampled in manifest.frames:
        if sampled.key not in by_key:
            problems.add(sampled.key, f"is not among the {len(frames):,} frames of {frames.name} ({sampled.file})")
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
        counts = {f"whole video: {reasons.most_common(1)[0][0]}": len(members)}
    else:
        counts = {f"single frames: {reason}": count for reason, count in reasons.items() if reason}
    return [Exclusion(video=video, frames=count, reason=reason) for reason, count in counts.items()]


def _sampled(frame: Frame, root: Path) -> SampledFrame:
    try:
        digest = sha256_of(frame.image_path)
    except OSError as error:
        raise RossamError(
            frame.image_path, f"cannot be read ({error.strerror})", "check the dataset's folder; `rossam fetch --check`"
        ) from error
    file = Path(os.path.relpath(frame.image_path, root)).as_posix()
    return SampledFrame(
        key=frame.key,
        file=file,
        image_sha256=digest,
        annotation_sha256=_annotation_hash(frame),
        objects=len(frame.objects),
    )


def _annotation_hash(frame: Frame) -> str:
    return stable_hash([[o.object_id, o.category, list(map(float, o.box_xyxy)), o.segmentation] for o in frame.objects])


def _frames_by_key(frames: FrameSet) -> dict[str, Frame]:
    by_key, problems = {}, ProblemList(frames.name)
    for frame in frames:
        if frame.key in by_key:
            problems.add(frame.key, f"is both {by_key[frame.key].image_path} and {frame.image_path}")
        by_key[frame.key] = frame
    problems.raise_if_any("give each video its own name before drawing")
    return by_key
