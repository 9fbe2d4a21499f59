"""The frames of a dataset in a fixed order, with its classes and a record of what was left out."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rossam_core.records import Frame, ObjectAnnotation, fingerprint


@dataclass(frozen=True)
class Drop:
    """Something a reader or a filter left out, and why; `boxes` is the number of boxes of the input in it."""

    where: str
    reason: str
    boxes: int = field(default=0, compare=False)


class FrameSet(Sequence[Frame]):
    """Frames in a fixed order, with a record of what is not among them.

    Args:
        name: shown in tables and reports.
        frames: sorted by video and index by the reader.
        drops: what was left out, one entry each.
        classes: id and name of each class of the source, used or not; default: those of the objects, from 1.
    """

    def __init__(
        self,
        name: str,
        frames: Sequence[Frame],
        drops: Sequence[Drop] = (),
        classes: Sequence[tuple[int | str, str]] = (),
    ):
        self.name, self.frames, self.drops = name, tuple(frames), tuple(drops)
        self._source_classes = tuple((number, name) for number, name in classes)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index):
        return self.subset(self.frames[index]) if isinstance(index, slice) else self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __repr__(self) -> str:
        return (
            f"FrameSet({self.name!r}: {len(self)} frames, {self.object_count} objects, "
            f"{len(self.videos)} videos, {len(self.drops)} dropped)"
        )

    @property
    def videos(self) -> tuple[str, ...]:
        return tuple(sorted({frame.video for frame in self.frames}))

    @property
    def object_count(self) -> int:
        return sum(len(frame.objects) for frame in self.frames)

    @property
    def input_boxes(self) -> int:
        """Boxes of the input: those that are here and those that were left out."""
        return self.object_count + sum(drop.boxes for drop in self.drops)

    @cached_property
    def classes(self) -> tuple[tuple[int | str, str], ...]:
        """Id and name of each class: the source's list in its order, then classes of objects that it lacks."""
        listed = {name.lower() for _, name in self._source_classes}
        missing = {o.category: None for f in self.frames for o in f.objects if o.category.lower() not in listed}
        first = max((number for number, _ in self._source_classes if isinstance(number, int)), default=0) + 1
        return (*self._source_classes, *enumerate(missing, start=first))

    @cached_property
    def class_of(self) -> Callable[[Any], tuple[int | str, str]]:
        """Object → id and name of its class, from `classes`."""
        return class_finder(self.classes)

    @property
    def categories(self) -> dict[str, int]:
        """Objects per category, most frequent first."""
        return dict(Counter(o.category for f in self.frames for o in f.objects).most_common())

    def subset(self, frames: Sequence[Frame], drops: Sequence[Drop] = ()) -> FrameSet:
        return FrameSet(self.name, frames, (*self.drops, *drops), self._source_classes)

    def keep_objects(self, keep: Callable[[ObjectAnnotation], bool], reason: str) -> FrameSet:
        """Without the objects `keep` refuses; each leaves a `Drop`. Frames left empty stay."""
        drops, frames = [], []
        for frame in self.frames:
            kept = [o for o in frame.objects if keep(o)]
            drops += [Drop(f"{frame.key} object {o.object_id}", reason, 1) for o in frame.objects if not keep(o)]
            frames.append(frame if len(kept) == len(frame.objects) else frame.with_objects(kept))
        return self.subset(frames, drops)

    def fingerprint(self) -> str:
        """See `rossam_core.records.fingerprint`."""
        return fingerprint(self.frames)


def by_reason(drops: Sequence[Drop]) -> list[tuple[str, int, list[Drop]]]:
    """Reason without its values (`[…]`, numbers), boxes left out for it, and those drops; most boxes first."""
    groups: dict[str, list[Drop]] = {}
    for drop in drops:
        groups.setdefault(re.sub(r"\[[^]]*\]|'[^']*'|-?\d[\d.]*", "…", drop.reason), []).append(drop)
    shown = [(of[0].reason if len(of) == 1 else reason, sum(d.boxes for d in of), of) for reason, of in groups.items()]
    return sorted(shown, key=lambda group: -group[1])


def print_drops(drops: Sequence[Drop]) -> None:
    """Print how many boxes were left out for each reason, and where the first of them is."""
    for reason, boxes, of_reason in by_reason(drops):
        entries = f"{boxes:,} boxes" if boxes else f"{len(of_reason):,} without boxes"
        hint = "; --keep-crowd takes them as objects" if reason.startswith("iscrowd") else ""
        print(f"  {entries}: {reason}{hint} (first: {of_reason[0].where})")


def input_ids(items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Key → the input's id, or the next free number where it has none (None); numbers from 1 where ids repeat."""
    ids = dict(items)
    given = [number for number in ids.values() if number is not None]
    if len(set(given)) < len(given):
        return {key: number for number, key in enumerate(ids, start=1)}
    free = itertools.count(1 + max((number for number in given if isinstance(number, int)), default=0))
    return {key: next(free) if number is None else number for key, number in ids.items()}


def class_finder(classes: Sequence[tuple[int | str, str]]) -> Callable[[Any], tuple[int | str, str]]:
    """A function from an object (`category`, `source`) to the entry of `classes` it belongs to: by id, else by name."""
    by_id = {(number, name.lower()): (number, name) for number, name in classes}
    by_name = {name.lower(): (number, name) for number, name in reversed(classes)}

    def find(item) -> tuple[int | str, str]:
        name = item.category.lower()
        return by_id.get((item.source.get("category_id"), name)) or by_name[name]

    return find
