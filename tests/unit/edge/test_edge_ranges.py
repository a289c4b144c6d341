"""What is asked of a source, and what its answer means: the core beside Python, on random answers."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.edge import Edge
from support.untrusted import patient

from packetfs_compute.errors import JobError
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.http1 import Head
from packetfs_compute.sources.ranges import Ask, Plan, decide, fields, first_ask

pytestmark = pytest.mark.integration

SMALL = st.integers(0, 12)
EDGES = st.sampled_from([2**53 - 1, 2**53, 2**45, 10**15])
NUMBERS = SMALL | EDGES
ETAGS = st.sampled_from(['"a"', '"b"', 'W/"a"', '"a', "", '"é"', '"' + "x" * 1023 + '"'])
STATUSES = st.sampled_from([200, 206, 416]) | st.sampled_from(
    [201, 203, 204, 304, 400, 401, 403, 404, 408, 410, 412, 418, 425, 429, 500, 502, 503, 504, 599]
)


@st.composite
def content_ranges(draw: st.DrawFn) -> str:
    first, last, size = draw(NUMBERS), draw(NUMBERS), draw(NUMBERS)
    return draw(
        st.sampled_from(
            [f"bytes {first}-{last}/{size}", f"bytes {first}-{last}/*", f"bytes */{size}", f"bytes  {first}-{first}/{size}",
             f"items {first}-{last}/{size}", f"Bytes {first}-{last}/{last + 1}", f"bytes {first}-{last}/{last + 1}",
             f"bytes={first}-{last}/{size}", f"bytes 0-0/{size}", f"bytes {first}-{last}", "bytes */*", "",
             f"bytes */-{size}"]
        )
    )  # fmt: skip


FIELDS = st.lists(
    st.one_of(
        st.tuples(st.just("content-range"), content_ranges()),
        st.tuples(st.just("content-range"), content_ranges()),
        st.tuples(st.just("content-length"), NUMBERS.map(str) | st.sampled_from(["-1", "1_0", "9" * 20, "x", "1.0"])),
        st.tuples(st.just("content-length"), NUMBERS.map(str)),
        st.tuples(st.just("transfer-encoding"), st.sampled_from(["chunked", "Chunked", "gzip, chunked", "gzip"])),
        st.tuples(st.just("etag"), ETAGS),
        st.tuples(st.just("etag"), ETAGS),
        st.tuples(st.just("content-encoding"), st.sampled_from(["identity", "Identity", "gzip", "identity, gzip", ""])),
        st.tuples(st.just("content-type"), st.sampled_from(["text/plain", "Multipart/byteranges; boundary=x"])),
        st.tuples(st.just("retry-after"), st.sampled_from(["0", "7", "301", "-1", "soon", "Thu, 01 Jan 1970 00:16:50 GMT"])),
    ),
    max_size=5,
)  # fmt: skip

REQUESTS = st.builds(
    RangeRequest,
    st.just("http://example.com/"),
    NUMBERS,
    st.none() | SMALL | st.sampled_from([2**45, 10**12]),
    st.none() | st.none() | st.just('"a"'),
)

PART = RangeRequest("http://example.com/", 3, 4)


@st.composite
def likely(draw: st.DrawFn) -> tuple[int, list[tuple[str, str]], RangeRequest, Ask]:
    """An answer that is right, or wrong in one place."""
    etag = draw(st.none() | st.just('"a"'))
    request = RangeRequest("http://example.com/", draw(SMALL), draw(st.none() | SMALL), etag)
    ask = draw(st.sampled_from([Ask.RANGE, Ask.RANGE, Ask.PROBE, Ask.WHOLE]))
    size = draw(st.integers(0, 20) | st.just(request.offset) | st.just(request.stop or 0))
    first = 0 if ask is Ask.PROBE else request.offset + draw(st.sampled_from([0, 0, 0, 1]))
    stop = 1 if ask is Ask.PROBE else min(size, size if request.stop is None else request.stop)
    stop += draw(st.sampled_from([0, 0, 0, 1, -1]))
    total = draw(st.sampled_from([str(size), str(size), "*"]))
    status = draw(st.sampled_from([200, 206, 206, 206, 416]))
    length = {200: size, 206: stop - first, 416: 0}[status] + draw(st.sampled_from([0, 0, 0, 1]))
    fields = [("etag", draw(st.sampled_from(['"a"', '"a"', '"b"', 'W/"a"'])))]
    if status != 200:
        fields.append(("content-range", f"bytes */{size}" if status == 416 else f"bytes {first}-{stop - 1}/{total}"))
    if draw(st.integers(0, 3)):
        fields.append(("content-length", str(length)))
    return status, fields, request, ask


def wire(request: RangeRequest) -> dict[str, Any]:
    return {"url": request.url, "offset": request.offset, "length": request.length, "etag": request.etag}


def plan_of(plan: Plan) -> dict[str, Any]:
    framing: dict[str, Any] = {"kind": plan.framing.kind}
    if plan.framing.length is not None:
        framing["length"] = plan.framing.length
    return {"skip": plan.skip, "take": plan.take, "exact": plan.exact, "objectSize": plan.object_size, "etag": plan.etag,
            "framing": framing}  # fmt: skip


@example(answer=(206, [("content-range", "bytes 3-6/9"), ("content-length", "5")], PART, Ask.RANGE), max_skip=0)
@example(answer=(206, [("content-range", "bytes 3-6/9"), ("content-length", "4")], PART, Ask.RANGE), max_skip=0)
@example(answer=(206, [("content-range", "bytes 3-5/6"), ("content-length", "3")], PART, Ask.RANGE), max_skip=0)
@example(answer=(206, [("content-range", "bytes 3-5/9"), ("content-length", "3")], PART, Ask.RANGE), max_skip=0)
@example(answer=(200, [("content-length", "9")], PART, Ask.RANGE), max_skip=2)
@example(answer=(200, [("content-length", "9")], PART, Ask.RANGE), max_skip=3)
@settings(patient, max_examples=400)
@given(answer=likely() | st.tuples(STATUSES, FIELDS, REQUESTS, st.sampled_from(Ask)), max_skip=SMALL | EDGES)
def test_an_answer_means_the_same(
    edge: Edge, answer: tuple[int, list[tuple[str, str]], RangeRequest, Ask], max_skip: int
) -> None:
    status, given_fields, request, ask = answer
    head = Head(status, 1, tuple(given_fields))
    outcome = edge.calls([("decide", status, given_fields, ask.value, wire(request), max_skip, 1_000_000)])[0]
    decision = python_decides(head, ask, request, max_skip)
    if not isinstance(decision, JobError):
        assert outcome.value == (plan_of(decision) if isinstance(decision, Plan) else decision.value)
        return
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == (decision.type, decision.retryable), outcome.error
    for key in ("field", "object_size", "retry_after_s", "hint"):
        assert outcome.error.details.get(key) == decision.details.get(key)


def python_decides(head: Head, ask: Ask, request: RangeRequest, max_skip: int) -> Plan | Ask | JobError:
    try:
        return decide(head, ask, request, max_skip, 1000.0)
    except JobError as error:
        return error


@patient
@given(request=REQUESTS, ask=st.none() | st.sampled_from(Ask))
def test_the_same_is_asked(edge: Edge, request: RangeRequest, ask: Ask | None) -> None:
    found = edge.call("fields", wire(request), None if ask is None else ask.value)
    assert found["first"] == first_ask(request).value
    assert [tuple(field) for field in found["fields"]] == fields(ask or first_ask(request), request)


def test_they_reach_every_kind_of_answer(edge: Edge) -> None:
    """Agreement proves nothing where all is refused."""
    whole = RangeRequest("http://example.com/", 3, 4)
    cases = {
        "plan": (206, [("content-range", "bytes 3-6/10"), ("content-length", "4")]),
        "probe": (416, []),
        "range_not_satisfiable": (416, [("content-range", "bytes */5")]),
        "source_failed": (206, [("content-range", "bytes 3-5/10")]),
        "source_not_found": (404, []),
    }
    for kind, (status, given_fields) in cases.items():
        outcome = edge.calls([("decide", status, given_fields, "range", wire(whole), 0, 0)])[0]
        if outcome.error is not None:
            assert outcome.error.type == kind
        else:
            assert outcome.value == kind or kind == "plan"
