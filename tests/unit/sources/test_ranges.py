"""What is asked, and what an answer means, decided without a socket."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packetfs_compute.errors import RangeNotSatisfiable, SourceFailed
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.http1 import Head
from packetfs_compute.sources.ranges import Ask, Plan, decide, fields, first_ask

URL = "http://example.com/"
BIG = 1 << 20


def head(status: int, **values: object) -> Head:
    return Head(status, 1, tuple((name.replace("_", "-"), str(value)) for name, value in values.items()))


def of(offset: int = 0, length: int | None = None, etag: str | None = None) -> RangeRequest:
    return RangeRequest(URL, offset, length, etag)


@pytest.mark.parametrize(
    ("ask", "request_", "expected"),
    [
        (Ask.RANGE, of(), "bytes=0-"),
        (Ask.RANGE, of(7), "bytes=7-"),
        (Ask.RANGE, of(0, 1), "bytes=0-0"),
        (Ask.RANGE, of(10, 20), "bytes=10-29"),
        (Ask.PROBE, of(10, 20), "bytes=0-0"),
        (Ask.WHOLE, of(10, 20), None),
    ],
)
def test_the_inclusive_form(ask: Ask, request_: RangeRequest, expected: str | None) -> None:
    assert dict(fields(ask, request_)).get("Range") == expected


def test_every_request_asks_for_the_bytes_as_they_are_and_pins_the_version() -> None:
    sent = dict(fields(Ask.RANGE, of(etag='"v1"')))
    assert sent["Accept-Encoding"] == "identity"
    assert sent["If-Match"] == '"v1"'
    assert sent["User-Agent"].startswith("packetfs-compute/")
    assert "If-Match" not in dict(fields(Ask.RANGE, of()))


def test_an_empty_range_is_asked_for_by_a_probe() -> None:
    assert first_ask(of(5, 0)) is Ask.PROBE
    assert first_ask(of(5, 1)) is first_ask(of()) is Ask.RANGE


@pytest.mark.parametrize(
    ("size", "offset", "fits"), [(10, 0, True), (10, 10, True), (10, 11, False), (1, 1, True), (1, 2, False)]
)
def test_an_empty_range_lies_within_the_object_or_not(size: int, offset: int, fits: bool) -> None:
    answers = [
        head(206, content_range=f"bytes 0-0/{size}", content_length=1),
        head(200, content_length=size),
    ]
    for answer in answers:
        if fits:
            plan = decide(answer, Ask.PROBE, of(offset, 0), BIG, 0)
            assert isinstance(plan, Plan)
            assert plan.empty
            assert plan.object_size == size
        else:
            with pytest.raises(RangeNotSatisfiable, match=str(size)):
                decide(answer, Ask.PROBE, of(offset, 0), BIG, 0)


def test_a_probe_without_a_total_proves_one_byte_only() -> None:
    answer = head(206, content_range="bytes 0-0/*", content_length=1)
    assert isinstance(decide(answer, Ask.PROBE, of(1, 0), BIG, 0), Plan)
    for request in (of(2, 0), of(5, 5), of(5)):
        with pytest.raises(SourceFailed, match="does not tell"):
            decide(answer, Ask.PROBE, request, BIG, 0)


def test_what_a_416_leaves_open_is_asked_again() -> None:
    assert decide(head(416), Ask.RANGE, of(5), BIG, 0) is Ask.PROBE
    assert decide(head(416), Ask.PROBE, of(5), BIG, 0) is Ask.WHOLE
    # A pinned version is not proven by a 416 that names none.
    assert decide(head(416, content_range="bytes */5"), Ask.RANGE, of(5, etag='"a"'), BIG, 0) is Ask.PROBE
    # bytes=0-0 cannot be out of the range of five bytes.
    assert decide(head(416, content_range="bytes */5"), Ask.PROBE, of(5), BIG, 0) is Ask.WHOLE
    with pytest.raises(SourceFailed, match="even the whole"):
        decide(head(416), Ask.WHOLE, of(5), BIG, 0)


def test_a_part_is_no_answer_to_the_whole() -> None:
    with pytest.raises(SourceFailed, match="where the whole object was asked for"):
        decide(head(206, content_range="bytes 0-9/10", content_length=10), Ask.WHOLE, of(), BIG, 0)


@pytest.mark.parametrize("etag", ['W/"a"', "a", '"a', '"a"b"', '"' + "a" * 1024 + '"', ""])
def test_only_a_strong_etag_is_a_version(etag: str) -> None:
    plan = decide(head(200, content_length=5, etag=etag), Ask.RANGE, of(), BIG, 0)
    assert isinstance(plan, Plan)
    assert plan.etag is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", 0.0), ("120", 120.0), ("301", 300.0), ("99999999999", None), ("-1", None), ("1.5", None), ("soon", None),
     ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
     ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0), ("٣", None)],
)  # fmt: skip
def test_retry_after(value: str, expected: float | None) -> None:
    with pytest.raises(SourceFailed) as caught:
        decide(head(503, retry_after=value), Ask.RANGE, of(), BIG, 1000.0)
    assert caught.value.details.get("retry_after_s") == expected


def model(size: int, request: RangeRequest) -> bytes | None:
    """The bytes that a range of an object of ``size`` bytes has, or ``None`` where it reaches past the end."""
    data = bytes(at % 251 for at in range(size))
    stop = size if request.stop is None else request.stop
    return data[request.offset : stop] if request.offset <= size >= stop else None


@given(
    size=st.integers(0, 40),
    offset=st.integers(0, 45),
    length=st.none() | st.integers(0, 45),
    ranges=st.booleans(),
    total=st.booleans(),
    framing=st.sampled_from(["length", "chunked"]),
)
@example(size=0, offset=0, length=None, ranges=True, total=False, framing="length")
def test_a_correct_server_of_any_kind_gives_what_slicing_gives(
    size: int, offset: int, length: int | None, ranges: bool, total: bool, framing: str
) -> None:
    """Play both sides: a server that may ignore Range, hide the total in a 416, or frame by chunks."""
    request = of(offset, length)
    want = model(size, request)
    data = bytes(at % 251 for at in range(size))
    outcome, body = talk(data, request, ranges, total, framing)
    if isinstance(outcome, RangeNotSatisfiable):
        assert want is None
        assert outcome.details["object_size"] == size
    elif want is None:
        # Only a chunked whole object can hide until it is read that it is too short.
        assert outcome.framing.kind == "chunked"
        assert len(body) < outcome.skip + (outcome.take or 0)
    else:
        assert body[outcome.skip :][: outcome.take] == want
        assert outcome.object_size in (size, None)


def talk(
    data: bytes, request: RangeRequest, ranges: bool, total: bool, framing: str
) -> tuple[Plan | RangeNotSatisfiable, bytes]:
    """Ask until there is a decision; return it with the body of the last answer."""
    ask = first_ask(request)
    for _ in Ask:
        answer, body = serve(data, dict(fields(ask, request)).get("Range") if ranges else None, total, framing)
        try:
            decision = decide(answer, ask, request, BIG, 0)
        except RangeNotSatisfiable as error:
            return error, b""
        if isinstance(decision, Plan):
            return decision, body
        ask = decision
    pytest.fail("no decision after every way to ask")


def serve(data: bytes, wanted: str | None, total: bool, framing: str) -> tuple[Head, bytes]:
    def framed(status: int, body: bytes, **values: object) -> tuple[Head, bytes]:
        how = {"content_length": len(body)} if framing == "length" else {"transfer_encoding": "chunked"}
        return head(status, **how, **values), body

    if wanted is None:
        return framed(200, data)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if int(first) >= len(data):
        return framed(416, b"", **({"content_range": f"bytes */{len(data)}"} if total else {}))
    body = data[int(first) : int(last) + 1 if last else None]
    return framed(206, body, content_range=f"bytes {first}-{int(first) + len(body) - 1}/{len(data)}")
