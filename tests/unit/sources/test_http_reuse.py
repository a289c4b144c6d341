"""Connections that are kept: when they are used again, when they must not be, and what a stale one costs."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.misbehaving import Exchange, RawServer, answer, honest
from support.reading import DATA, OPEN, read

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import SourceFailed
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.guard import check_url
from packetfs_compute.sources.http import HttpSource
from packetfs_compute.sources.pool import Pool


def windows(server: RawServer, source: HttpSource, count: int = 5) -> None:
    for at in range(count):
        assert read(source, RangeRequest(server.url(), at * 10, 10)).data == DATA[at * 10 : at * 10 + 10]


def test_windows_of_one_object_share_a_connection() -> None:
    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server:
        windows(server, source)
        assert server.connections == 1
    source.close()


@pytest.mark.parametrize("kind", ["close", "http/1.0", "extra bytes", "left half-read", "abandoned"])
def test_a_connection_in_doubt_is_closed(kind: str) -> None:
    good = honest(DATA)

    def script(x: Exchange) -> bool:
        if kind == "close":
            x.send(answer("200 OK", "Connection: close", "Content-Length: 1000", body=DATA))
        elif kind == "http/1.0":
            x.send(answer("200 OK", "Content-Length: 1000", body=DATA).replace(b"1.1", b"1.0", 1))
        elif kind == "extra bytes":
            x.send(answer("200 OK", "Content-Length: 1000", body=DATA + b"HTTP/1.1 200 OK\r\n\r\n"))
        elif kind == "left half-read":
            x.send(answer("200 OK", "Content-Length: 100000", body=DATA * 100))
        else:
            good(x)
        return True

    source = HttpSource(OPEN)
    with RawServer(script) as server:
        for _ in range(2):
            request = RangeRequest(server.url(), 0, 1000)
            if kind == "abandoned":
                with source.open(request, Deadline.after(5)):
                    pass
            else:
                assert read(source, request).data == DATA
        assert server.connections == 2
    source.close()


@pytest.mark.parametrize(
    ("fields", "connections"),
    [(["Content-Length: 2"], 1), (["Content-Length: 2", "Content-Length: 2"], 2), (["Content-Length: 3"], 2)],
)
def test_a_redirect_keeps_its_connection_if_all_of_it_is_here(fields: list[str], connections: int) -> None:
    def moved(x: Exchange) -> bool:
        x.send(answer("302 Found", "Location: /object", *fields, body=b"no"))
        return True

    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server:
        server.routes["/moved"] = moved
        assert read(source, RangeRequest(server.url("/moved"))).data == DATA
        assert server.connections == connections
    source.close()


def test_a_kept_connection_that_the_server_closed_is_replaced_without_an_error() -> None:
    """One request in two is met by a server that hangs up as soon as it has read it."""
    good = honest(DATA)
    source = HttpSource(OPEN)
    with RawServer(lambda x: good(x) if x.number % 2 == 0 else None) as server:
        windows(server, source, 2)
        assert server.connections == 2
        assert len(server.heads) == 3
    source.close()


def test_a_new_connection_that_is_hung_up_is_not_tried_again() -> None:
    source = HttpSource(OPEN)
    with RawServer(lambda x: None) as server:
        with pytest.raises(SourceFailed) as caught:
            read(source, RangeRequest(server.url()))
        assert type(caught.value) is SourceFailed
        assert len(server.heads) == 1
    source.close()


def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next_one() -> None:
    good = honest(DATA)
    sent = threading.Event()

    def script(x: Exchange) -> bool:
        good(x)
        if x.number == 0:
            x.wait(0.05)
            x.send(
                answer("206 Partial Content", "Content-Range: bytes 10-19/1000", "Content-Length: 10", body=bytes(10))
            )
            sent.set()
        return True

    source = HttpSource(OPEN)
    with RawServer(script) as server:
        assert read(source, RangeRequest(server.url(), 0, 10)).data == DATA[:10]
        assert sent.wait(5)
        assert read(source, RangeRequest(server.url(), 10, 10)).data == DATA[10:20]
        assert server.connections == 2
    source.close()


def test_no_connection_is_shared_across_names() -> None:
    source = HttpSource(OPEN, lambda host: ["127.0.0.1"])
    with RawServer(honest(DATA)) as server:
        for host in ("a.example.com", "b.example.com", "a.example.com"):
            read(source, RangeRequest(server.url(host=host)))
        assert server.connections == 2
    source.close()


def test_many_threads_share_a_source() -> None:
    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server, ThreadPoolExecutor(16) as threads:
        offsets = [at * 3 for at in range(300)]
        found = threads.map(lambda at: read(source, RangeRequest(server.url(), at, 50)).data, offsets)
        assert list(found) == [DATA[at : at + 50] for at in offsets]
        assert server.connections <= 48
        source.close()


def test_idle_connections_expire_and_are_bounded() -> None:
    now = 0.0
    source = HttpSource(OPEN)
    pool = source._pool = Pool(lambda: now)
    with RawServer(honest(DATA)) as server:
        streams = [source.open(RangeRequest(server.url()), Deadline.after(5)) for _ in range(20)]
        for stream in streams:
            list(stream)
        target = check_url(server.url(), OPEN)
        assert len(pool._idle.entries) == 16
        now = 14.0
        first = pool.take(target)
        assert first is not None
        pool.give(target, first)
        now = 15.5
        kept = pool.take(target)
        assert kept is first
        kept.close()
        assert pool.take(target) is None
    source.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_does_not_use_its_parents_connections() -> None:
    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server:
        windows(server, source, 1)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if source._pool.take(check_url(server.url(), OPEN)) is None else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        windows(server, source, 1)
        assert server.connections == 1
    source.close()


def test_a_dropped_source_closes_its_connections() -> None:
    """Unclosed sockets are warnings, and warnings are errors here."""
    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server:
        windows(server, source, 1)
        del source
