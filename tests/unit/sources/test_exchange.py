"""Where h11 is asked, and where its word is not enough: heads and bodies, byte by byte."""

import socket
from collections.abc import Callable, Iterator

import pytest

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import SourceFailed
from packetfs_compute.sources.connection import Connection, Dropped
from packetfs_compute.sources.exchange import Answer, Body, ask
from packetfs_compute.sources.http1 import CHUNKED, UNTIL_CLOSE, Framing, framing

HOST = [("Host", "example.com")]
OK = b"HTTP/1.1 200 OK\r\n"

Says = Callable[..., Answer]


@pytest.fixture
def says() -> Iterator[Says]:
    """Ask one who says this, and then hangs up."""
    opened: list[socket.socket] = []

    def talk(data: bytes) -> Answer:
        ours, theirs = socket.socketpair()
        opened.extend((ours, theirs))
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return ask(Connection(ours, 1.0, Deadline.after(10)), "/", HOST)

    yield talk
    for sock in opened:
        sock.close()


def whole(answer: Answer, step: int) -> tuple[bytes, Body]:
    body = Body(answer, framing(answer.head))
    view = memoryview(bytearray(step))
    read = b""
    while not body.complete:
        read += view[: body.readinto(view)]
    return read, body


def test_the_request_on_the_wire() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(OK + b"Content-Length: 0\r\n\r\n")
        ask(Connection(ours, 1.0, Deadline.after(10)), "/a?b", [*HOST, ("If-Match", '"\xff"')])
        assert theirs.recv(1000) == b'GET /a?b HTTP/1.1\r\nHost: example.com\r\nIf-Match: "\xff"\r\n\r\n'


@pytest.mark.parametrize("etag", ['"a"\r\nX: y', '"a"\n', "\0", "\u20ac"])
def test_a_field_that_would_be_two_is_not_sent(etag: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(SourceFailed, match="cannot be sent"):
            ask(Connection(ours, 1.0, Deadline.after(10)), "/", [*HOST, ("If-Match", etag)])
        ours.shutdown(socket.SHUT_WR)
        assert theirs.recv(1000) == b""


@pytest.mark.parametrize("step", [1, 3, 4096])
@pytest.mark.parametrize(
    ("sent", "want", "clean"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 5\r\n\r\nhello!", b"hello", False),
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (OK + b"Content-Length: 0\r\n\r\n!", b"", False),
        (OK + b"Transfer-Encoding: CHUNKED\r\n\r\n2;a=b\r\nhe\r\n003\r\nllo\r\n0\r\nX: y\r\n\r\n", b"hello", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n!", b"hello", False),
        (OK + b"\r\nhello", b"hello", False),
        (b"HTTP/1.0 200\nX: y\n\nhello", b"hello", False),
    ],
)
def test_a_body_and_whether_anything_came_after_it(
    says: Says, sent: bytes, want: bytes, clean: bool, step: int
) -> None:
    read, body = whole(says(sent), step)
    assert read == want
    assert body.clean is clean


def test_each_framing_is_told_from_the_head(says: Says) -> None:
    assert framing(says(OK + b"Content-Length: 9007199254740991\r\n\r\n").head) == Framing("length", 2**53 - 1)
    assert framing(says(OK + b"Transfer-Encoding: chunked\r\n\r\n").head) == CHUNKED
    assert framing(says(OK + b"\r\n").head) == UNTIL_CLOSE


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\ncontent-length:5",
        b"content-length: 5, 5",
        b"Content-Length: 9007199254740992",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length:\r\n 5",
    ],
)
def test_what_h11_would_repair_is_refused(says: Says, fields: bytes) -> None:
    with pytest.raises(SourceFailed):
        framing(says(OK + fields + b"\r\n\r\n").head)


def test_a_length_within_another_field_is_none(says: Says) -> None:
    head = says(OK + b"X: a\r\n content-length: 7\r\nContent-Length: 5 \t\r\n\r\nhello").head
    assert head.all("content-length") == ["5"]


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9.1"])
def test_another_version_is_refused(says: Says, version: bytes) -> None:
    with pytest.raises(SourceFailed, match=r"does not speak HTTP/1\.1"):
        says(version + b" 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_chunks_from_http_1_0_are_refused(says: Says) -> None:
    with pytest.raises(SourceFailed, match="Transfer-Encoding"):
        framing(says(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").head)


def test_interim_heads_count_too(says: Says) -> None:
    long = b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"
    final = OK + b"Content-Length: 0\r\n\r\n"
    assert says(long * 3 + final).head.status == 200
    with pytest.raises(SourceFailed, match="head is too long"):
        says(long * 4 + final)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_only_an_end_before_any_answer_is_a_drop(says: Says, sent: bytes) -> None:
    with pytest.raises(SourceFailed) as caught:
        says(sent)
    assert (type(caught.value) is Dropped) is (sent == b"")
    assert caught.value.retryable
