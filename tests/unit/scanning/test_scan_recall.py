"""What a scan goes on from: told and read back whole, drawn for proof, refused where it cannot be a range's head."""

import random
from dataclasses import replace
from typing import Any

import pytest

from packetfs_compute import kernels
from packetfs_compute.cache import StubCache
from packetfs_compute.cache.base import Kept
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Trust
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import Head, Mark, Marker, earlier, keep, known, unusable

OPS = (Op("crc32c"), Op("fnv64"))
PROGRAM = Program("https://host/log", OPS, 10, 90, '"v1"')
MARKS = (Mark(10, 20, (0, 5), (1, 6)), Mark(40, 50, (2, 7), (3, 8)), Mark(90, 100, (4, 9), (5, 10)))
HEAD = Head('"v1"', 100, 100, (Kept(5, "local", "here"), Kept(10, "fly,local", "iad")), MARKS)
WHOLE = Plan(10, 190, 190, 200, '"v2"')


class TestHead:
    def test_it_is_read_back_as_it_was_told(self) -> None:
        assert Head.from_json(HEAD.to_json()) == HEAD

    @pytest.mark.parametrize("change", [{"etag": '"v0"'}, {"end": 99}, {"marks": MARKS[1:]}])
    def test_ops_of_several_versions_are_no_head(self, change: dict[str, Any]) -> None:
        mixed = [HEAD.to_json()[0], replace(HEAD, **change).to_json()[1]]
        assert Head.from_json(mixed) is None

    @pytest.mark.parametrize("text", ["", "[]", "{}", "[1, 2, 3]", '["a", 1, 2, "x y z", []]', '["a", 1, 2, "1", [1]]'])
    def test_what_nobody_here_wrote_is_none(self, text: str) -> None:
        assert Head.from_json([text]) is None

    def test_the_last_mark_is_always_drawn_and_every_other_in_time(self) -> None:
        shuffled = replace(HEAD, marks=MARKS[::-1])
        drawn = [shuffled.drawn(random.Random(seed)) for seed in range(40)]
        assert {one[1] for one in drawn} == {MARKS[2]}
        assert {one[0] for one in drawn} == {MARKS[0], MARKS[1]}
        assert replace(HEAD, marks=MARKS[:1]).drawn(random.Random()) == MARKS[:1]


class TestUnusable:
    def test_a_longer_object_may_go_on(self) -> None:
        assert unusable(HEAD, WHOLE) is None

    @pytest.mark.parametrize(
        ("head", "whole", "why"),
        [(None, WHOLE, "nothing is known"), (replace(HEAD, marks=()), WHOLE, "nothing is known"),
         (HEAD, replace(WHOLE, object_size=99), "shorter"), (HEAD, replace(WHOLE, length=89), "beyond the range"),
         (replace(HEAD, marks=(Mark(10, 50, (0, 5), (1, 6)), Mark(50, 100, (1, 6), (5, 10)))), WHOLE, "to read it")],
    )  # fmt: skip
    def test_others_may_not(self, head: Head | None, whole: Plan, why: str) -> None:
        told = unusable(head, whole)
        assert told is not None
        assert why in told


def test_marks_hold_what_a_chain_was_before_and_after_a_window() -> None:
    data = random.Random(1).randbytes(100_000)
    plan = Plan(7, len(data), 1000, None, None)
    marker, value = Marker(plan, (kernels.FNV64_OFFSET,), random.Random(2)), kernels.FNV64_OFFSET
    for window in plan:
        value = kernels.fnv64(data[window.offset - 7 :][: window.length], value)
        marker.passed(window.offset - 7 + window.length, (value,))
    assert 2 <= len(marker.marks) <= 16
    assert marker.marks[-1].end == 7 + len(data)
    for mark in marker.marks:
        assert mark.before == (kernels.fnv64(data[: mark.start - 7]),)
        assert mark.after == (kernels.fnv64(data[: mark.end - 7]),)
        assert mark.end - mark.start == 1000


def test_a_chain_that_goes_on_takes_its_marks_from_there() -> None:
    marker = Marker(Plan(7, 10_000, 1000, None, None), (5,), random.Random(0), 3000)
    for done in range(4000, 10_001, 1000):
        marker.passed(done, (done,))
    assert [mark.end for mark in marker.marks] == list(range(4007, 10_008, 1000))
    assert (marker.marks[0].start, marker.marks[0].before) == (3007, (5,))


def test_windows_that_are_passed_together_are_one() -> None:
    plan, seen = Plan(0, 100_000, 1000, None, None), set()
    for seed in range(20):
        marker = Marker(plan, (0,), random.Random(seed))
        for done in range(4000, 100_001, 4000):
            marker.passed(done, (done,))
        assert all((mark.end - mark.start, mark.end % 4000) == (4000, 0) for mark in marker.marks)
        assert all((mark.before, mark.after) == ((mark.start,), (mark.end,)) for mark in marker.marks)
        assert marker.marks[-1].end == 100_000
        assert len(marker.marks) >= 8, "sixteen windows are drawn of a hundred; some are passed together"
        seen |= {mark.start for mark in marker.marks}
    assert len(seen) == 25


class TestKeep:
    def kept(self, trusts: dict[str, Trust], places: dict[str, str] | None = None, marks: Any = MARKS) -> StubCache:
        cache = StubCache()
        keep(
            cache, PROGRAM, 100, ((5, 10), marks), {"local": "here"} if places is None else places, trusts,
            random.Random(0),
        )  # fmt: skip
        return cache

    def test_the_values_and_the_version(self) -> None:
        cache = self.kept({"local": "own"})
        found = known(cache, PROGRAM, {"local"})
        assert found is not None
        assert [one.value for one in found.values] == [5, 10]
        head = earlier(cache, replace(PROGRAM, etag='"v2"', length=190), {"local"})
        assert head is not None
        assert (head.etag, head.size, head.end, head.values) == ('"v1"', 100, 100, (5, 10))
        assert head.by_end == list(MARKS)

    def test_of_places_that_a_policy_does_not_want_nothing_is_told(self) -> None:
        cache = self.kept({"local": "own", "fly": "own"}, {"local": "here", "fly": "iad"})
        for wanted in ({"local"}, {"fly"}):
            assert known(cache, PROGRAM, wanted) is None
            assert earlier(cache, PROGRAM, wanted) is None
        assert known(cache, PROGRAM, {"local", "fly"}) is not None
        assert earlier(cache, PROGRAM, {"local", "fly"}) is not None

    @pytest.mark.parametrize("trusts", [{"local": "any"}, {}, {"local": "own", "fly": "any"}])
    def test_of_places_that_are_not_trusted_nothing_is_kept(self, trusts: dict[str, Trust]) -> None:
        cache = self.kept(trusts, {"local": "here", "fly": "iad"} if len(trusts) > 1 else None)
        assert known(cache, PROGRAM, {"local", "fly"}) is None
        assert earlier(cache, PROGRAM, {"local", "fly"}) is None

    def test_what_is_not_sure_replaces_nothing(self) -> None:
        cache = self.kept({"local": "own"})
        keep(cache, PROGRAM, 100, ((6, 11), MARKS), {"fly": "iad"}, {"fly": "verified"}, random.Random(0))
        found = known(cache, PROGRAM, {"local", "fly"})
        assert found is not None
        assert [one.value for one in found.values] == [5, 10]

    def test_a_note_holds_sixteen_marks_and_always_the_last(self) -> None:
        many = [Mark(at, at + 1, (0, 5), (1, 6)) for at in range(10, 100)]
        head = earlier(self.kept({"local": "own"}, marks=many[::-1]), PROGRAM, {"local"})
        assert head is not None
        assert len(head.marks) == 16
        assert head.by_end[-1] == many[-1]

    def test_without_marks_nothing_is_noted(self) -> None:
        assert earlier(self.kept({"local": "own"}, marks=()), PROGRAM, {"local"}) is None
