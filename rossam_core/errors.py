"""The exception for bad input: it names the place, what was found, what was expected, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike


class RossamError(ValueError):
    """Bad input, described so that it can be corrected without reading the source.

    Args:
        where: the file, and within it the line, key, record or array the problem sits in.
        finding: what is there, and what was expected instead.
        remedy: what to do about it.
    """

    def __init__(self, where: str | PathLike, finding: str, remedy: str):
        self.where, self.finding, self.remedy = str(where), finding, remedy
        super().__init__(f"{where}: {finding}\n  Remedy: {remedy}")

    def __reduce__(self):  # from one process to another
        return RossamError, (self.where, self.finding, self.remedy)


class ProblemList:
    """Collects every problem of one input, to report all of them at once.

    >>> problems = ProblemList("boxes.csv")
    >>> problems.add("line 3", "x1 is 'abc', expected a number")
    >>> problems.raise_if_any("write numbers into column x1")  # doctest: +SKIP
    """

    def __init__(self, where: str | PathLike, limit: int = 20):
        self.where, self.limit = str(where), limit
        self.items: list[tuple[str, str]] = []

    def add(self, place: str, finding: str) -> None:
        self.items.append((place, finding))

    def extend(self, items: Iterable[tuple[str, str]]) -> None:
        self.items.extend(items)

    def __len__(self) -> int:
        return len(self.items)

    def raise_if_any(self, remedy: str) -> None:
        """Raise one `RossamError` that lists the problems, the first `limit` of them in full."""
        if not self.items:
            return
        lines = [f"\n  - {place}: {finding}" for place, finding in self.items[: self.limit]]
        if len(self.items) > self.limit:
            lines.append(f"\n  - and {len(self.items) - self.limit} more")
        count = f"{len(self.items)} problem{'s' if len(self.items) > 1 else ''}"
        raise RossamError(self.where, count + "".join(lines), remedy)
