"""The cache of blocks: what it saves, what it may never change, and that nothing depends on it."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.edge import Edge
from support.misbehaving import Exchange, RawServer, answer, honest, says
from support.untrusted import patient

from packetfs_compute.conform.bench import OPS, values_of

pytestmark = pytest.mark.integration

BLOCK = 1000
SIZE = 10_250
DATA = bytes(at * at % 251 for at in range(SIZE))
OTHER = DATA[::-1]


class Asked:
    """A server of one object that remembers the ranges that it was asked for."""

    def __init__(self, data: bytes = DATA, etag: str = '"v1"') -> None:
        self.ranges: list[str | None] = []
        self.become(data, etag)
        self.server = RawServer(self._answer)

    def become(self, data: bytes, etag: str) -> None:
        self._good = honest(data, etag)

    def _answer(self, x: Exchange) -> bool:
        self.ranges.append(x.field("Range"))
        return bool(self._good(x))

    def take(self) -> list[str | None]:
        taken, self.ranges = self.ranges, []
        return taken


@pytest.fixture
def source(edge: Edge) -> Iterator[Asked]:
    edge.platform(blockBytes=BLOCK)
    asked = Asked()
    with asked.server:
        yield asked


def run(edge: Edge, source: Asked, offset: int = 0, length: int | None = None, path: str = "/o", **more: Any) -> Any:
    program = {"data_url": source.server.url(path), "ops": OPS, "offset": offset, "length": length, **more}
    return edge.call("execute", {"program": program, "timeout": 5000})


def right(found: Any, data: bytes, offset: int = 0, length: int | None = None) -> str | None:
    """Hold an answer to the bytes that it is of; return where they came from."""
    part = data[offset : None if length is None else offset + length]
    assert found["success"], found
    assert (found["bytesProcessed"], found["objectSize"]) == (len(part), len(data))
    assert found["results"] == values_of(part, OPS)
    cache: str | None = found["cache"]
    return cache


def check(edge: Edge, source: Asked, offset: int = 0, length: int | None = None, data: bytes = DATA) -> str | None:
    return right(run(edge, source, offset, length), data, offset, length)


def test_what_was_read_is_not_asked_for_again(edge: Edge, source: Asked) -> None:
    assert check(edge, source) == "MISS"
    assert source.take() == ["bytes=0-"]
    assert [key["index"] for key in edge.call("kept")] == list(range(11))
    assert check(edge, source) == "HIT"
    assert source.take() == ["bytes=0-0"]
    assert check(edge, source, 1999, 2) == "HIT"
    assert source.take() == ["bytes=1999-1999"]
    assert check(edge, source, SIZE - 1, 1) == "HIT"


def test_only_whole_blocks_are_kept(edge: Edge, source: Asked) -> None:
    assert check(edge, source, 500, 2000) == "MISS"
    assert [key["index"] for key in edge.call("kept")] == [1]
    assert check(edge, source, 10_100) == "MISS"
    assert [key["index"] for key in edge.call("kept")] == [1]
    assert check(edge, source, 10_000) == "MISS"
    assert [key["index"] for key in edge.call("kept")] == [1, 10]


def test_what_is_missing_is_asked_for_and_no_more(edge: Edge, source: Asked) -> None:
    check(edge, source, 0, 3000)
    check(edge, source, 5000, 1000)
    source.take()
    assert check(edge, source, 0, 7000) == "PARTIAL"
    assert source.take() == ["bytes=0-0", "bytes=3000-4999", "bytes=6000-6999"]
    assert check(edge, source, 0, 7000) == "HIT"


def test_it_does_not_look_ahead_without_end(edge: Edge, source: Asked) -> None:
    check(edge, source, 0, 1000)
    check(edge, source, 9000, 1000)
    source.take(), edge.call("asked")
    assert check(edge, source) == "PARTIAL"
    assert source.take() == ["bytes=0-0", "bytes=1000-10249"]
    assert edge.call("asked") == [0, 1, 2, 3, 4, 5]


def test_another_isolate_finds_the_blocks(edge: Edge, source: Asked) -> None:
    """It knows no version: the very request tells it which, and where its first block is here, the body is given up."""
    check(edge, source, 0, 3000)
    edge.platform(again=True)
    source.take()
    assert check(edge, source, 0, 3000) == "HIT"
    assert source.take() == ["bytes=0-2999"]
    edge.platform(again=True)
    assert check(edge, source, 2000, 3000) == "PARTIAL"
    assert source.take() == ["bytes=2000-4999", "bytes=3000-4999"]


def test_every_signature_of_one_object_has_its_blocks(edge: Edge, source: Asked) -> None:
    for signature, status in (("a", "MISS"), ("b", "HIT")):
        found = run(edge, source, path=f"/o?X-Amz-Signature={signature}&X-Amz-Expires=60")
        assert right(found, DATA) == status
    assert right(run(edge, source, path="/o?versionId=2"), DATA) == "MISS"


def test_an_object_that_changed_is_read_anew(edge: Edge, source: Asked) -> None:
    check(edge, source)
    source.become(OTHER, '"v2"')
    assert check(edge, source, data=OTHER) == "MISS"
    assert check(edge, source, data=OTHER) == "HIT"
    source.become(OTHER[:5000], '"v3"')
    assert check(edge, source, data=OTHER[:5000]) == "MISS"
    assert run(edge, source, 0, 9000)["error"]["type"] == "range_not_satisfiable"
    source.become(DATA, '"v1"')
    assert check(edge, source) == "HIT"


def test_a_pinned_version_is_never_another(edge: Edge, source: Asked) -> None:
    check(edge, source)
    assert right(run(edge, source, etag='"v1"'), DATA) == "HIT"
    assert run(edge, source, etag='"v0"')["error"]["type"] == "source_changed"
    source.become(OTHER, '"v2"')
    assert run(edge, source, etag='"v1"')["error"]["type"] == "source_changed"


def test_what_may_not_be_read_any_more_is_not_given(edge: Edge, source: Asked) -> None:
    check(edge, source)
    for status, kind in (("403 Forbidden", "source_failed"), ("404 Not Found", "source_not_found")):
        source._good = says(answer(status, "Content-Length: 0"))  # type: ignore[assignment]
        assert run(edge, source)["error"]["type"] == kind


def test_an_object_that_changes_in_mid_range(edge: Edge, source: Asked) -> None:
    check(edge, source, 0, 1000)
    check(edge, source, 2000, 1000)
    good, calls = honest(DATA), []

    def changing(x: Exchange) -> bool:
        calls.append(x)
        return bool((good if len(calls) == 1 else honest(OTHER, '"v2"'))(x))

    source._good = changing  # type: ignore[assignment]
    assert run(edge, source, 0, 3000)["error"]["type"] == "source_changed"


@pytest.mark.parametrize("etag", ['W/"v1"', "", "v1"])
def test_without_a_version_nothing_is_kept(edge: Edge, source: Asked, etag: str) -> None:
    source.become(DATA, etag)
    for _ in range(2):
        assert check(edge, source) is None
    assert edge.call("kept") == []


DAMAGES = ["removed", "cut", "empty", "text", "0", "8", "12", "15", "16", "500", "1015", "moved:2"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("index", [0, 1, 4])
def test_a_damaged_block_is_a_miss(edge: Edge, source: Asked, how: str, index: int) -> None:
    check(edge, source, 0, 5000)
    edge.call("damage", index, how)
    assert check(edge, source, 0, 5000) == ("MISS" if index == 0 else "PARTIAL")
    assert check(edge, source, 0, 5000) == "HIT"


def test_a_block_of_another_object_is_none_of_this_one(edge: Edge, source: Asked) -> None:
    """The cache mixed two entries up: both are whole, of the same length, and from the same source."""
    check(edge, source, 0, 3000)
    edge.call("damage", 1, "moved:2")
    assert check(edge, source, 0, 3000) == "PARTIAL"


def test_a_cache_that_throws_fails_no_job(edge: Edge, source: Asked) -> None:
    edge.call("fault", "throws")
    for _ in range(2):
        assert check(edge, source) == "MISS"
    assert edge.call("kept") == []
    edge.call("fault", None)
    check(edge, source)
    edge.call("fault", "throws")
    assert check(edge, source) == "MISS"


def test_a_cache_that_hangs_costs_a_second_or_two(edge: Edge, source: Asked) -> None:
    edge.call("fault", "hangs")
    assert check(edge, source) == "MISS"  # within the five seconds of the request


def test_an_empty_range_and_an_empty_object(edge: Edge, source: Asked) -> None:
    assert check(edge, source, 5, 0) is None
    assert check(edge, source, SIZE) is None
    source.become(b"", '"v0"')
    assert check(edge, source, data=b"") is None


def test_blocks_larger_than_the_object_and_than_the_kernels_input(edge: Edge) -> None:
    data = bytes(at % 253 for at in range(900_001))
    edge.platform(blockBytes=1 << 20)
    source = Asked(data)
    with source.server:
        assert check(edge, source, data=data) == "MISS"
        assert check(edge, source, 77, data=data) == "HIT"


RANGES = st.lists(
    st.tuples(
        st.integers(0, SIZE), st.none() | st.integers(0, 4000), st.integers(0, 10), st.sampled_from(["", *DAMAGES])
    ),
    min_size=2,
    max_size=8,
)


@patient
@given(ranges=RANGES, block=st.sampled_from([1, 7, 100, 1000, 1 << 20]))
def test_any_ranges_in_any_order_over_any_damage(
    edge: Edge, ranges: list[tuple[int, int | None, int, str]], block: int
) -> None:
    """Whatever is kept, lost or damaged between them, every answer is of the right bytes."""
    block = max(block, 100)
    edge.platform(blockBytes=block)
    source = Asked()
    with source.server:
        for offset, length, index, how in ranges:
            check(edge, source, offset, None if length is None else min(length, SIZE - offset))
            if how and not how.startswith("moved"):
                edge.call("damage", index, how if not how.isdecimal() else str(min(int(how), 16)))
