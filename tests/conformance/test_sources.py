"""One suite for every source: the bytes of any range, or the error that it amounts to.

A source joins with a fixture that stores an object and returns its URL, and a line in ``KINDS``.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.misbehaving import RawServer, answer, honest
from support.reading import OPEN, Read

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, RangeNotSatisfiable, SourceChanged, SourceNotFound
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, open_source
from packetfs_compute.sources.registry import _source

SIZE = 1_000_003
DATA = b"".join(hashlib.blake2b(at.to_bytes(4, "big")).digest() for at in range(SIZE // 64 + 1))[:SIZE]


@dataclass(frozen=True)
class Place:
    """Somewhere objects can be put: ``put(name, data)`` returns the URL."""

    put: Callable[[str, bytes], str]
    missing: str
    settings: Settings


def a_file(request: pytest.FixtureRequest, _: ExitStack) -> Place:
    root: Path = request.getfixturevalue("tmp_path")

    def put(name: str, data: bytes) -> str:
        (root / name).write_bytes(data)
        return str(root / name)

    return Place(put, f"{root}/missing", replace(OPEN, file_roots=(root,)))


def raw_http(request: pytest.FixtureRequest, stack: ExitStack) -> Place:
    server = stack.enter_context(RawServer(lambda x: x.send(answer("404 Not Found"))))

    def put(name: str, data: bytes) -> str:
        etag = hashlib.blake2b(data, digest_size=8).hexdigest()
        server.routes[f"/{quote(name)}"] = honest(data, f'"{etag}"')
        return server.url(f"/{quote(name)}")

    return Place(put, server.url("/missing"), OPEN)


def through_nginx(directory: str) -> Callable[[pytest.FixtureRequest, ExitStack], Place]:
    def make(request: pytest.FixtureRequest, _: ExitStack) -> Place:
        nginx = request.getfixturevalue("nginx")

        def put(name: str, data: bytes) -> str:
            (nginx.www / name).write_bytes(data)
            return str(nginx.url(directory + quote(name)))

        return Place(put, nginx.url(directory + "missing"), OPEN)

    return make


def s3(request: pytest.FixtureRequest, _: ExitStack) -> Place:
    store = request.getfixturevalue("object_store")
    return Place(store.put, f"s3://{store.bucket}/missing", store.settings)


KINDS = {"file": a_file, "http": raw_http}
SERVED = {
    "nginx": through_nginx(""),
    "nginx without ranges": through_nginx("whole/"),
    # Its gzip must not be met: it would change the bytes, and weaken the ETag.
    "nginx with gzip": through_nginx("gzip/"),
    "nginx after a redirect": through_nginx("moved/"),
    "s3": s3,
}


@pytest.fixture(
    params=[*KINDS.items(), *(pytest.param(kind, marks=pytest.mark.integration) for kind in SERVED.items())],
    ids=lambda kind: kind[0],
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        yield request.param[1](request, stack)
        _source.cache_clear()


def read(place: Place, request: RangeRequest) -> Read:
    with open_source(request, Deadline.after(20), place.settings) as stream:
        data = b"".join(bytes(chunk) for chunk in stream)
        return Read(data, stream.object_size, stream.etag)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, SIZE), (0, 1), (1, 1), (SIZE - 1, 1), (SIZE - 1, None), (SIZE, None), (SIZE, 0), (0, 0), (7, 0),
     (65_535, 65_537), (262_143, 262_145), (262_144, 262_144), (123_456, 700_000)],
)  # fmt: skip
def test_a_range_is_a_slice(place: Place, offset: int, length: int | None) -> None:
    url = place.put("object", DATA)
    found = read(place, RangeRequest(url, offset, length))
    assert found.data == DATA[offset : None if length is None else offset + length]
    assert found.object_size in (SIZE, None)


@pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 0), (SIZE, None), (7, 262_145), (123_456, 700_000)])
def test_a_range_fills_a_buffer(place: Place, offset: int, length: int | None) -> None:
    url = place.put("object", DATA)
    expected = DATA[offset : None if length is None else offset + length]
    buffer = bytearray(b"?" * (SIZE + 10))
    with open_source(RangeRequest(url, offset, length), Deadline.after(20), place.settings) as stream:
        assert stream.fill(memoryview(buffer)) == len(expected)
    assert buffer == expected + b"?" * (SIZE + 10 - len(expected))


def test_a_range_that_does_not_fit_is_no_part_of_it(place: Place) -> None:
    wanted = RangeRequest(place.put("object", DATA), 5, 300_000)
    with open_source(wanted, Deadline.after(20), place.settings) as stream, pytest.raises(ValueError, match=r"\w"):
        stream.fill(memoryview(bytearray(299_999)))


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE + 1), (SIZE - 1, 2), (SIZE, 1), (SIZE + 1, 0), (SIZE + 1, None)]
)
def test_past_the_end_is_an_error_that_names_the_size(place: Place, offset: int, length: int | None) -> None:
    url = place.put("object", DATA)
    with pytest.raises(RangeNotSatisfiable) as caught:
        read(place, RangeRequest(url, offset, length))
    assert caught.value.details["object_size"] == SIZE
    assert str(SIZE) in str(caught.value)


@pytest.mark.parametrize("length", [None, 0])
def test_an_empty_object_has_an_empty_range(place: Place, length: int | None) -> None:
    assert read(place, RangeRequest(place.put("empty", b""), 0, length)).data == b""


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (1, None), (1, 0)])
def test_an_empty_object_has_no_other_range(place: Place, offset: int, length: int | None) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        read(place, RangeRequest(place.put("empty", b""), offset, length))
    assert caught.value.details["object_size"] == 0


def test_a_missing_object_is_not_found(place: Place) -> None:
    with pytest.raises(SourceNotFound):
        read(place, RangeRequest(place.missing))


def test_every_window_is_of_the_pinned_version(place: Place) -> None:
    url = place.put("object", DATA)
    etag = read(place, RangeRequest(url, 0, 1)).etag
    assert etag is not None
    for offset, length in ((0, 1000), (1000, 1000), (SIZE - 5, None), (SIZE, None), (SIZE, 0), (5, 0)):
        found = read(place, RangeRequest(url, offset, length, etag))
        assert found.data == DATA[offset : None if length is None else offset + length]
        assert found.etag == etag
    place.put("object", DATA[:-1] + b"!!")
    for offset, length in ((0, 1000), (0, 0), (SIZE + 5, 1), (SIZE + 1, None)):
        with pytest.raises(SourceChanged):
            read(place, RangeRequest(url, offset, length, etag))


def test_an_empty_object_can_be_pinned(place: Place) -> None:
    url = place.put("empty", b"")
    etag = read(place, RangeRequest(url, 0, 0)).etag
    if etag is not None:
        assert read(place, RangeRequest(url, etag=etag)).data == b""


def test_a_chunk_lives_until_the_next_one_is_asked_for(place: Place) -> None:
    at = 0
    with open_source(RangeRequest(place.put("object", DATA)), Deadline.after(20), place.settings) as stream:
        for chunk in stream:
            assert chunk == DATA[at : at + len(chunk)]
            assert 0 < len(chunk) <= 1 << 20
            at += len(chunk)
    assert at == SIZE


def test_a_stream_may_be_left_in_the_middle(place: Place) -> None:
    url = place.put("object", DATA)
    for _ in range(3):
        with open_source(RangeRequest(url), Deadline.after(20), place.settings) as stream:
            assert next(iter(stream))[:10] == DATA[:10]
    assert read(place, RangeRequest(url, 5, 5)).data == DATA[5:10]


def test_a_deadline_that_is_over_ends_it(place: Place) -> None:
    url = place.put("object", DATA)
    with pytest.raises(AttemptTimeout), open_source(RangeRequest(url), Deadline.after(-1), place.settings) as stream:
        list(stream)


@pytest.mark.parametrize("name", ["a b", "a+b", "a%20b", "a%b", "é", "a&b=c"])
def test_odd_names(place: Place, name: str) -> None:
    url = place.put(name, b"odd")
    assert read(place, RangeRequest(url)).data == b"odd"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 300), offset=st.integers(0, 310), length=st.none() | st.integers(0, 310))
def test_any_range_of_any_object(place: Place, size: int, offset: int, length: int | None) -> None:
    url = place.put(f"object-{size}", DATA[:size])
    stop = size if length is None else offset + length
    if offset <= size >= stop:
        assert read(place, RangeRequest(url, offset, length)).data == DATA[offset:stop]
    else:
        with pytest.raises(RangeNotSatisfiable) as caught:
            read(place, RangeRequest(url, offset, length))
        assert caught.value.details["object_size"] == size
