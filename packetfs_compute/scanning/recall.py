"""What is known of a scan's range before any of it is read: all of it, or its head, as an earlier version had that. Pure.

A whole range's values are kept by the cache under its version, as a job's are. Beside them the newest version is *noted*
under the object alone: how far its values go, and of some windows what the values were before and after them (*marks*).

Nothing of a note is believed but where the caller has declared that the object only ever grows at its end. Then what an
earlier version came to is the *head* of the scan: as long as the object has not become shorter, and two marks, the last and
one drawn at random, are found to be so in the new version. What is left is the tail, from the head's values on.
"""

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from packetfs_compute.cache.base import Kept, Known, ResultCache
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Trust
from packetfs_compute.scanning.plan import Plan

__all__ = ["Head", "Mark", "Marker", "earlier", "keep", "known", "onward", "unusable"]

_MARKS: Final = 16
"""Of one note, at most."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The bytes ``[start, end)`` of an object, and each op's values over the range as far as both."""

    start: int
    end: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What a range up to ``end`` came to in the version ``etag``, whose object had ``size`` bytes."""

    etag: str
    size: int
    end: int
    kept: tuple[Kept, ...]
    marks: tuple[Mark, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The values of the ops."""
        return tuple(one.value for one in self.kept)

    @property
    def by_end(self) -> list[Mark]:
        """The marks in the order of their bytes."""
        return sorted(self.marks, key=lambda mark: mark.end)

    def drawn(self, rng: random.Random) -> tuple[Mark, ...]:
        """Return the marks to be proved: one at random, and the last."""
        *others, last = self.by_end
        return (rng.choice(others), last) if others else (last,)

    def to_json(self) -> list[str]:
        """Return it as a text for each op: each is found alone, by who asks for that op."""
        return [
            json.dumps(
                [
                    self.etag, self.size, self.end, kept.to_text(),
                    [[mark.start, mark.end, mark.before[at], mark.after[at]] for mark in self.marks],
                ],
                separators=(",", ":"),
            )
            for at, kept in enumerate(self.kept)
        ]  # fmt: skip

    @classmethod
    def from_json(cls, texts: Sequence[str]) -> "Head | None":
        """Return what :meth:`to_json` told; ``None`` where the ops' are not of one version, or nobody here wrote them."""
        try:
            notes = [json.loads(text) for text in texts]
            spans = [(etag, size, end, [mark[:2] for mark in marks]) for etag, size, end, _, marks in notes]
            if any(span != spans[0] for span in spans):
                return None
            marks = tuple(
                Mark(one[0][0], one[0][1], tuple(mark[2] for mark in one), tuple(mark[3] for mark in one))
                for one in zip(*(note[4] for note in notes), strict=True)
            )
            etag, size, end, *_ = notes[0]
            return cls(etag, size, end, tuple(Kept.from_text(note[3]) for note in notes), marks)
        except (ValueError, TypeError, IndexError):  # of a version to come, or written by hand
            return None


class Marker:
    """Takes marks while a plan's windows are gone through in order, of some that are drawn beforehand and of the last."""

    def __init__(self, plan: Plan, values: tuple[int, ...], rng: random.Random, done: int = 0) -> None:
        self.marks: list[Mark] = []
        self._plan = plan
        self._last = done, values
        drawn = rng.sample(range(plan.windows), min(_MARKS - 1, plan.windows))
        self._picked = {*drawn, plan.windows - 1}

    def passed(self, done: int, values: tuple[int, ...]) -> None:
        """Go on to what the first ``done`` bytes of the plan came to, one window further or some, which are one then."""
        before, at = self._last, self._plan.offset
        if not self._picked.isdisjoint(range(before[0] // self._plan.window, -(-done // self._plan.window))):
            self.marks.append(Mark(at + before[0], at + done, before[1], values))
        self._last = done, values


def known(cache: ResultCache, program: Program, wanted: Collection[str]) -> Known | None:
    """Return the values of a pinned range where all are known, from places in ``wanted``."""
    found = cache.look(program)
    return found if found is not None and found.places <= set(wanted) else None


def earlier(cache: ResultCache, program: Program, wanted: Collection[str]) -> Head | None:
    """Return what is noted of the range's first bytes, from places in ``wanted``."""
    texts = cache.noted(program)
    head = None if texts is None else Head.from_json(texts)
    return head if head is not None and all(set(one.places) <= set(wanted) for one in head.kept) else None


def unusable(head: Head | None, whole: Plan) -> str | None:
    """Return why a scan of ``whole`` cannot go on from ``head``; ``None`` where it can."""
    if head is None or not head.marks:
        return "nothing is known of an earlier version"
    if (whole.object_size or 0) < head.size:
        return f"the object has become shorter: it has {whole.object_size} bytes, and {head.etag} had {head.size}"
    if whole.offset + whole.length < head.end:
        return f"what is known of {head.etag} goes to byte {head.end}, beyond the range"
    *others, last = head.by_end
    longest = max((mark.end - mark.start for mark in others), default=0)
    if longest + last.end - last.start >= head.end - whole.offset:
        return f"so little is known of {head.etag} that to prove it is to read it"
    return None


def onward(ops: Sequence[Op], values: Sequence[int]) -> tuple[Op, ...]:
    """Return ops that go on where others came to ``values``, as far as they can be told to: the rest is joined."""
    return tuple(replace(op, seed=value) if op.name == "fnv64" else op for op, value in zip(ops, values, strict=True))


def keep(
    cache: ResultCache,
    program: Program,
    size: int,
    came_to: tuple[Sequence[int], Sequence[Mark]],
    places: Mapping[str, str],
    trusts: Mapping[str, Trust],
    rng: random.Random,
) -> None:
    """Keep the values of a pinned range, and note its version with marks.

    ``places`` are those that computed it, and their regions. Nothing is kept of what a place computed that is not trusted,
    or is in the fleet no more.
    """
    if program.etag is None or program.length is None or not places:
        return
    trusted = {trusts.get(name, "any") for name in places}
    if "any" in trusted:
        return
    values, marks = came_to
    name, region = ",".join(sorted(places)), next(iter(places.values()))
    answer: dict[str, Any] = {
        "etag": program.etag,
        "objectSize": size,
        "bytesProcessed": program.length,
        "results": [op.render(value) for op, value in zip(program.ops, values, strict=True)],
        "region": region,
    }
    cache.keep(program, answer, name, sure=trusted == {"own"})
    if not marks:
        return
    *others, last = sorted(marks, key=lambda mark: mark.end)
    some = rng.sample(others, min(_MARKS - 1, len(others)))
    kept = tuple(Kept(value, name, region) for value in values)
    head = Head(program.etag, size, program.offset + program.length, kept, (*some, last))
    cache.note(program, head.to_json())
