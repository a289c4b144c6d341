"""A place behind HTTP: its answer, or a typed failure, by the deadline; whatever the other end does."""

import dataclasses
import email.utils
import json
import os
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import trustme
from support.misbehaving import Exchange, RawServer, Script, answer, says
from support.processes import STALL_S

from packetfs_compute import __version__
from packetfs_compute.deadline import Token, cancelled_by
from packetfs_compute.errors import AttemptTimeout, Busy, ConfigurationError, Internal, JobError
from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.places import EndpointKey, Prices, SubstrateSpec
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Capabilities
from packetfs_compute.settings import Settings
from packetfs_compute.signature import HEADER, Verifier
from packetfs_compute.substrates import endpoint
from packetfs_compute.substrates.endpoint import EndpointSubstrate
from packetfs_compute.substrates.fly import FlySubstrate
from packetfs_compute.substrates.transport import MAX_ANSWER, Transport
from packetfs_compute.wire import ComputeRequest, Measured, failure, success

ASKED = ComputeRequest(Program("https://host/object", (Op("crc32c"), Op("counteq", 42)), 0, 100), "j1", 5000)
REQUEST = ASKED.to_wire()
GOOD = success(ASKED, [7, 3], Measured(100, 900, '"v1"', 0.01, 0.009, "iad", 34, "HIT"))
SECRET = "0123456789abcdef"
DEFAULTS = Capabilities("place", "own", 256, MAX_RANGE_BYTES, 300.0, frozenset({"https"}), slots=4)


def reply(document: object, status: str = "200 OK", *fields: str) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return answer(status, f"Content-Length: {len(body)}", *fields, body=body)


def kept(*parts: bytes) -> Script:
    """Send the parts and keep the connection."""

    def script(exchange: Exchange) -> bool:
        exchange.send(*parts)
        return True

    return script


class Server(RawServer):
    """Reads a request's body too, before its script runs; ``bodies`` are all that came."""

    def __init__(self, script: Script, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self.bodies: list[bytes] = []
        super().__init__(script, wrap)

    def _answer(self, sock: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            data += (got := sock.recv(65536))
            if not got:
                return False
        head, _, body = data.partition(b"\r\n\r\n")
        match = re.search(rb"(?i)content-length: *([0-9]+)", head)
        while match and len(body) < int(match[1]):
            body += sock.recv(65536)
        with self._lock:
            number = len(self.heads)
            self.heads.append(head + b"\r\n\r\n")
            self.bodies.append(body)
        return bool(self._script(Exchange(self, sock, self.heads[number], "/compute", number)))


def place(url: str, *keys: EndpointKey, **more: Any) -> EndpointSubstrate:
    settings = Settings(keys=keys, connect_timeout_s=2.0)
    return EndpointSubstrate(SubstrateSpec("place", "fly", url=url), settings, DEFAULTS, **more)


@pytest.fixture
def invoke() -> Iterator[Callable[..., dict[str, Any]]]:
    """Run one attempt at a server that answers by ``script``."""
    made: list[EndpointSubstrate] = []

    def run(script: Script, request: dict[str, Any] = REQUEST, **more: Any) -> dict[str, Any]:
        with Server(script) as server:
            made.append(place(server.url(""), **more))
            return made[-1].invoke(request)

    yield run
    for substrate in made:
        substrate.close()


Invoke = Callable[..., dict[str, Any]]


def test_a_good_answer(invoke: Invoke) -> None:
    assert invoke(kept(reply(GOOD))) == GOOD


def test_what_is_sent() -> None:
    with Server(kept(reply(GOOD))) as server:
        substrate = place(server.url("/base/"), EndpointKey("place", "k1", SECRET), EndpointKey("other", "k2", SECRET))
        assert substrate.invoke(REQUEST) == GOOD
        head, body = server.heads[0], server.bodies[0]
    assert head.startswith(b"POST /base/compute HTTP/1.1\r\n")
    assert json.loads(body) == REQUEST
    fields = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n")[1:])
    signature = fields.pop(HEADER)
    assert fields == {
        "Host": f"127.0.0.1:{server.port}", "Accept-Encoding": "identity", "Accept": "application/json",
        "Content-Type": "application/json", "Content-Length": str(len(body)),
        "User-Agent": f"packetfs-compute/{__version__}",
    }  # fmt: skip
    assert Verifier([f"k1:{SECRET}"]).verify("POST", "/base/compute", body, signature) == "k1"
    substrate.close()


def test_every_request_has_a_signature_of_its_own() -> None:
    with Server(kept(reply(GOOD))) as server:
        substrate = place(server.url(""), EndpointKey("place", "k1", SECRET))
        for _ in range(3):
            substrate.invoke(REQUEST)
        found = [re.search(rb"X-PacketFS-Signature: (\S+)", head) for head in server.heads]
        assert len({match[1] for match in found if match}) == 3
        substrate.close()


def test_without_a_key_nothing_is_signed(invoke: Invoke) -> None:
    heads = []

    def script(exchange: Exchange) -> bool:
        heads.append(exchange.head)
        return bool(kept(reply(GOOD))(exchange))

    assert invoke(script)["success"]
    assert HEADER.encode() not in heads[0]


def refusal(error: JobError, job_id: str | None = "j1") -> dict[str, Any]:
    return failure(job_id, error, 0.001)


FULL = refusal(Busy("all 8 slots are taken", {"retry_after_s": 1}))
NOT_FOUND = {"type": "source_not_found", "message": "there is no such object", "retryable": False}
FAILED = {"type": "source_failed", "message": "the source is down", "retryable": True, "retry_after_s": 7}


def failed(error: dict[str, Any], job_id: object = "j1") -> dict[str, Any]:
    return {"success": False, "jobId": job_id, "error": error, "executionTimeMs": 1}


BIG = b" " * MAX_ANSWER
CASES: dict[str, tuple[Script, str, str]] = {
    # What the contract says of itself.
    "not found": (kept(reply(failed(NOT_FOUND), "404 Not Found")), "source_not_found", "no such object"),
    "source failed": (kept(reply(failed(FAILED), "502 Bad Gateway")), "source_failed", "down"),
    "no job id": (kept(reply(failed(NOT_FOUND, None), "404 Not Found")), "source_not_found", "no such object"),
    "busy": (kept(reply(FULL, "429 Too Many Requests")), "busy", "slots"),
    # Its status and what it says must agree.
    "not found, with 200": (kept(reply(failed(NOT_FOUND))), "internal", "a failure with status 200"),
    "not found, with 500": (kept(reply(failed(NOT_FOUND), "500 Oops")), "internal", "status 500"),
    "not found, with 502": (kept(reply(failed(NOT_FOUND), "502 Oops")), "internal", "status 502"),
    "success, with 404": (kept(reply(GOOD, "404 Not Found")), "internal", "status 404"),
    "success, with 500": (kept(reply(GOOD, "500 Oops")), "internal", "status 500"),
    "success, with 201": (kept(reply(GOOD, "201 Created")), "internal", "status 201"),
    "another job's failure": (kept(reply(failed(NOT_FOUND, "j2"), "404 Not Found")), "internal", "status 404"),
    "a dispatcher's error": (
        kept(reply(failed({**NOT_FOUND, "type": "no_substrate"}), "400 Bad Request")), "internal", "status 400"),
    # What is in front of it.
    "500": (kept(reply(b"<h1>oops</h1>", "500 Internal Server Error")), "internal", "status 500"),
    "502 from a proxy": (kept(reply(b"bad gateway", "502 Bad Gateway")), "internal", "status 502"),
    "503": (kept(reply(b"", "503 Service Unavailable")), "internal", "status 503"),
    "504": (kept(reply(b"", "504 Gateway Timeout")), "internal", "status 504"),
    "404 from a proxy": (kept(reply(b"no app", "404 Not Found")), "internal", "status 404"),
    "401": (kept(reply(b"who?", "401 Unauthorized")), "unauthorized", "401"),
    "429": (kept(reply(b"slow down", "429 Too Many Requests")), "busy", "429"),
    "301": (kept(reply(GOOD, "301 Moved", "Location: /elsewhere")), "internal", "status 301"),
    "307": (kept(reply(GOOD, "307 Temporary", "Location: http://127.0.0.1:9/compute")), "internal", "status 307"),
    # Garbage.
    "no JSON": (kept(reply(b"hello")), "internal", "no JSON"),
    "nothing in it": (kept(reply(b"")), "internal", "no JSON"),
    "NaN": (kept(reply(json.dumps(GOOD).replace("12", "NaN").replace("10.0", "NaN").encode())), "internal", "no JSON"),
    "bad UTF-8": (kept(reply(b'{"a": "\xff"}')), "internal", "no JSON"),
    "UTF-16": (kept(reply(json.dumps(GOOD).encode("utf-16"))), "internal", "no JSON"),
    "nested without end": (kept(reply(b"[" * 200_000)), "internal", "no JSON"),
    "a number without end": (kept(reply(b"1" * 6000)), "internal", "no JSON"),
    "gzip, though identity was asked for": (
        kept(reply(b"\x1f\x8b\x08\x00", "200 OK", "Content-Encoding: gzip")), "internal", "no JSON"),
    "a list": (kept(reply([GOOD])), "internal", "cannot be trusted"),
    "wrong job": (kept(reply({**GOOD, "jobId": "j2"})), "internal", "jobId"),
    "no job": (kept(reply({**GOOD, "jobId": None})), "internal", "jobId"),
    "wrong op": (kept(reply({**GOOD, "results": list(reversed(GOOD["results"]))})), "internal", "results[0]"),
    "too few": (kept(reply({**GOOD, "results": GOOD["results"][:1]})), "internal", "results"),
    "impossible": (kept(reply({**GOOD, "bytesProcessed": 99})), "internal", "bytesProcessed"),
    # HTTP that is none, and connections that break.
    "closed at once": (says(b""), "internal", "did not answer"),
    "not HTTP": (kept(b"SSH-2.0-OpenSSH_9.2\r\n"), "internal", "did not answer"),
    "cut in the head": (says(b"HTTP/1.1 200 OK\r\nContent-Le"), "internal", ""),
    "cut in the body": (says(reply(GOOD)[:-5]), "internal", "did not answer"),
    "cut in a chunk": (
        says(answer("200 OK", "Transfer-Encoding: chunked", body=b"10\r\nabc")), "internal", "did not answer"),
    "reset": (Exchange.reset, "internal", "did not answer"),
    "too long": (kept(reply(BIG + b"x")), "internal", "longer than"),
    "too long, in chunks": (
        says(answer("200 OK", "Transfer-Encoding: chunked", body=b"200000\r\n" + bytes(2 << 20) + b"\r\n0\r\n\r\n")),
        "internal", "longer than"),
    "endless fields": (
        says(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 5000), "internal", "did not answer"),
    "endless line": (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "internal", "did not answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_whatever_it_answers_is_typed(invoke: Invoke, name: str) -> None:
    script, wanted, message = CASES[name]
    found = invoke(script)
    assert (found["success"], found["jobId"], found["error"]["type"]) == (False, "j1", wanted), found
    assert message in found["error"]["message"]
    assert "\n" not in found["error"]["message"]


def test_an_answer_of_just_the_bound_is_read(invoke: Invoke) -> None:
    body = json.dumps(GOOD).encode()
    assert invoke(kept(reply(body + b" " * (MAX_ANSWER - len(body))))) == GOOD


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0), ("300", 300), ("86400", 300), ("9999999999", 300), ("soon", 1), ("-1", 1), ("1.5", 1), ("", 1),
     (email.utils.formatdate(1000, usegmt=True), 40), (email.utils.formatdate(900, usegmt=True), 0),
     (email.utils.formatdate(99999, usegmt=True), 300), ("Thu, 32 Foo 1970 00:00:00 GMT", 1), (None, 1)],
)  # fmt: skip
@pytest.mark.parametrize("document", [b"slow down", FULL], ids=["a proxy's", "the contract's"])
def test_when_to_ask_again(invoke: Invoke, document: object, value: str | None, seconds: float) -> None:
    fields = [] if value is None else [f"Retry-After: {value}"]
    raw = reply(document, "429 Too Many Requests").replace(b"\r\n", "\r\n".join(["", *fields, ""]).encode(), 1)
    error = invoke(kept(raw), now=lambda: 960.0)["error"]
    assert (error["type"], error["retry_after_s"], error["retryable"]) == ("busy", seconds, True)


def test_a_busy_body_says_when_where_no_field_does(invoke: Invoke) -> None:
    error = invoke(kept(reply(refusal(Busy("full", {"retry_after_s": 9})), "429 Full")))["error"]
    assert error["retry_after_s"] == 9


@pytest.mark.parametrize("request_", [{}, {"jobId": "j1"}, {**REQUEST, "jobId": "a b"}, {**REQUEST, "timeout": 0}])
def test_a_request_that_is_none_is_not_sent(request_: dict[str, Any]) -> None:
    with Server(kept(reply(GOOD))) as server:
        found = place(server.url("")).invoke(request_)
        assert found["error"]["type"] == "bad_program"
        assert server.connections == 0


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_nobody_there() -> None:
    error = place(f"http://127.0.0.1:{closed_port()}").invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", True)
    assert "Connection refused" in error["message"]


def test_no_such_name() -> None:
    error = place("http://nowhere.invalid:8080").invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", True)
    assert "nowhere.invalid" in error["message"]


def drip(first: bytes, then: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.send(first)
        while not exchange.wait(0.2):
            exchange.send(then)

    return script


# What is sent first, and what again and again.
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "silence": (b"", b""),
    "silence in the head": (b"HTTP/1.1 200 OK\r\nX: ", b""),
    "silence in the body": (reply(GOOD)[:-5], b""),
    "drip of status line": (b"", b"H"),
    "drip of head": (b"HTTP/1.1 200 OK\r\nX-Filler: ", b"x"),
    "drip of fields": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "drip of interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drip of body": (answer("200 OK", "Content-Length: 5000"), b" "),
    "drip of body until close": (answer("200 OK"), b" "),
    "drip of chunks": (answer("200 OK", "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
}


@pytest.mark.parametrize("over", ["http", "https"])
@pytest.mark.parametrize("name", DRIPS)
def test_a_drip_ends_at_the_deadline(name: str, over: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_MARGIN_S", 0.3)  # there are many of these; the handshake's keeps the whole second
    authority = trustme.CA()
    with Server(drip(*DRIPS[name]), tls_server(authority) if over == "https" else None) as server:
        url = server.url("", host="localhost", scheme=over)
        substrate = place(url, transport=Transport(url, 4, 2.0, trusting(authority)))
        started = time.monotonic()
        error = substrate.invoke({**REQUEST, "timeout": 100})["error"]
        took = time.monotonic() - started
        assert error["type"] == "timeout", error
        assert 0.4 <= took < 0.4 + STALL_S  # the attempt's own time and what the network may take
        substrate.close()


@pytest.mark.parametrize("over", ["http", "https"])
@pytest.mark.parametrize("name", ["silence", "silence in the body", "drip of head", "drip of body"])
def test_a_drip_ends_when_the_job_is_cancelled_and_the_server_sees_a_reset(name: str, over: str) -> None:
    authority, token, ends = trustme.CA(), Token(), queue.Queue[bytes | None]()

    def script(exchange: Exchange) -> None:
        """One thread writes and waits for the end in turns: two may not use one TLS connection at once."""
        first, then = DRIPS[name]
        threading.Timer(0.1, token.cancel).start()
        exchange.sock.settimeout(0.2)
        try:
            exchange.send(first)
            while True:
                with suppress(TimeoutError):
                    ends.put(exchange.sock.recv(1))
                    return
                exchange.send(then)
        except (ConnectionResetError, BrokenPipeError):
            ends.put(None)

    with Server(script, tls_server(authority) if over == "https" else None) as server:
        url = server.url("", host="localhost", scheme=over)
        substrate = place(url, transport=Transport(url, 4, 2.0, trusting(authority)))
        with cancelled_by(token):
            assert substrate.invoke({**REQUEST, "timeout": 20_000})["error"]["type"] == "cancelled"
        assert ends.get(timeout=10) in ((None,) if over == "http" else (None, b""))  # OpenSSL takes it for an end
        assert len(server.bodies) == 1
        substrate.close()


@pytest.mark.parametrize("over", ["http", "https"])
def test_an_answer_that_takes_longer_than_a_turn_arrives(over: str) -> None:
    authority = trustme.CA()

    def script(exchange: Exchange) -> None:
        for part in (reply(GOOD)[:20], reply(GOOD)[20:]):
            exchange.wait(0.6)
            exchange.send(part)

    with Server(script, tls_server(authority) if over == "https" else None) as server:
        url = server.url("", host="localhost", scheme=over)
        substrate = place(url, transport=Transport(url, 4, 2.0, trusting(authority)))
        with cancelled_by(Token()):
            assert substrate.invoke(REQUEST) == GOOD
        substrate.close()


def tls_server(authority: trustme.CA, name: str = "localhost") -> Callable[[socket.socket], socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def trusting(authority: trustme.CA) -> Callable[[], ssl.SSLContext]:
    def make() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    return make


def test_tls_whose_certificate_is_good(invoke: Invoke) -> None:
    authority = trustme.CA()
    with Server(kept(reply(GOOD)), tls_server(authority)) as server:
        url = server.url("", host="localhost", scheme="https")
        substrate = place(url, transport=Transport(url, 4, 2.0, trusting(authority)))
        assert [substrate.invoke(REQUEST) for _ in range(3)] == [GOOD] * 3
        assert server.connections == 1
        substrate.close()


@pytest.mark.parametrize("kind", ["not trusted", "of another name"])
def test_tls_whose_certificate_is_not(kind: str) -> None:
    authority = trustme.CA()
    name = "elsewhere.example.com" if kind == "of another name" else "localhost"
    with Server(kept(reply(GOOD)), tls_server(authority, name)) as server:
        url = server.url("", host="localhost", scheme="https")
        own = {"transport": Transport(url, 4, 2.0, trusting(authority))} if kind == "of another name" else {}
        error = place(url, EndpointKey("place", "k1", SECRET), **own).invoke(REQUEST)["error"]
        assert error["type"] == "internal"
        assert "CERTIFICATE_VERIFY_FAILED" in error["message"]
        assert server.heads == []


def test_a_tls_handshake_ends_at_the_deadline() -> None:
    def silent(sock: socket.socket) -> socket.socket:
        sock.settimeout(30)
        sock.recv(10_000)
        while True:
            time.sleep(0.2)
            sock.sendall(b"\x16\x03\x03\x40\x00" if not hasattr(silent, "begun") else b"\0")
            silent.begun = True  # type: ignore[attr-defined]

    with Server(kept(b""), silent) as server:
        substrate = place(server.url("", host="localhost", scheme="https"))
        started = time.monotonic()
        assert substrate.invoke({**REQUEST, "timeout": 100})["error"]["type"] == "timeout"
        assert time.monotonic() - started < 0.4 + STALL_S


def test_a_server_that_takes_nothing_ends_at_the_deadline() -> None:
    """The request is larger than what fits into the buffers on the way."""
    ops = tuple(Op("counteq", at) for at in range(16))
    big = ComputeRequest(Program("https://host/" + "x" * 2000, ops, 0, 100), "j1", 100).to_wire()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with listener:
        substrate = place(f"http://127.0.0.1:{listener.getsockname()[1]}")
        started = time.monotonic()
        assert substrate.invoke(big)["error"]["type"] == "timeout"
        assert time.monotonic() - started < 0.4 + STALL_S
        substrate.close()


def test_connections_are_kept() -> None:
    with Server(kept(reply(GOOD))) as server:
        substrate = place(server.url(""))
        assert all(substrate.invoke(REQUEST)["success"] for _ in range(5))
        assert substrate.invoke({**REQUEST, "jobId": "j2"})["error"]["type"] == "internal"
        assert server.connections == 1
        substrate.close()


def test_a_kept_connection_that_was_dropped_is_replaced_once() -> None:
    """Every second request is met by a server that hangs up when it has read it."""
    good = kept(reply(GOOD))
    with Server(lambda x: good(x) if x.number % 2 == 0 else None) as server:
        substrate = place(server.url(""))
        assert [substrate.invoke(REQUEST)["success"] for _ in range(2)] == [True, True]
        assert (len(server.heads), server.connections) == (3, 2)
        substrate.close()


def test_a_new_connection_that_is_dropped_is_not_tried_again() -> None:
    with Server(says(b"")) as server:
        assert place(server.url("")).invoke(REQUEST)["error"]["type"] == "internal"
        assert len(server.heads) == 1


def test_a_kept_connection_that_breaks_within_the_answer_is_not_tried_again() -> None:
    good = kept(reply(GOOD))
    with Server(lambda x: good(x) if x.number == 0 else x.send(b"H")) as server:
        substrate = place(server.url(""))
        assert substrate.invoke(REQUEST)["success"]
        assert substrate.invoke(REQUEST)["error"]["type"] == "internal"
        assert len(server.heads) == 2
        substrate.close()


def test_the_second_try_is_on_a_new_connection_whatever_else_is_kept() -> None:
    """While the kept connection is about to be dropped, another thread keeps one more, which has been used as well."""
    used, good = set(), kept(reply(GOOD))
    waiting, drop = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> bool | None:
        if exchange.number == 1:
            waiting.set()
            drop.wait(5)
        elif exchange.sock not in used:
            used.add(exchange.sock)
            return bool(good(exchange))
        return None

    with Server(script) as server, ThreadPoolExecutor(1) as threads:
        url = server.url("")
        substrate = place(url, transport=Transport(url, 1, 2.0))
        assert substrate.invoke(REQUEST)["success"]
        second = threads.submit(substrate.invoke, REQUEST)
        assert waiting.wait(5)
        assert substrate.invoke(REQUEST)["success"]
        drop.set()
        assert second.result()["success"]
        assert (len(server.heads), server.connections) == (4, 3)
        substrate.close()


def test_many_threads_at_once() -> None:
    with Server(kept(reply(GOOD))) as server, ThreadPoolExecutor(16) as threads:
        substrate = place(server.url(""))
        assert all(found == GOOD for found in threads.map(substrate.invoke, [REQUEST] * 200))
        substrate.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_makes_connections_of_its_own() -> None:
    with Server(kept(reply(GOOD))) as server:
        substrate = place(server.url(""))
        assert substrate.invoke(REQUEST)["success"]
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if substrate.invoke(REQUEST)["success"] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.connections == 2
        assert substrate.invoke(REQUEST)["success"]
        assert server.connections == 2
        substrate.close()


def test_proxies_of_the_environment_are_not_used(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert invoke(kept(reply(GOOD))) == GOOD


def test_no_secret_is_shown() -> None:
    substrate = place(f"http://127.0.0.1:{closed_port()}", EndpointKey("place", "k1", SECRET))
    assert SECRET not in repr(substrate) + str(substrate) + json.dumps(substrate.invoke(REQUEST))


HEALTH = {
    "status": "healthy", "version": "1.0", "protocol": 1, "region": "iad", "ops": ["crc32c"], "kernel": "sse42",
    "limits": {"maxRangeBytes": 1, "maxTimeoutMs": 2},
}  # fmt: skip


def test_its_health() -> None:
    with Server(kept(reply(HEALTH))) as server:
        substrate = place(server.url("/base"), EndpointKey("place", "k1", SECRET))
        assert substrate.health(2) == HEALTH
        assert server.heads[0].startswith(b"GET /base/health HTTP/1.1\r\n")
        assert HEADER.encode() not in server.heads[0]
        substrate.close()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (kept(reply({**HEALTH, "protocol": 2})), Internal),
        (kept(reply(b"ok")), Internal),
        (kept(reply(b"", "503 No")), Internal),
        (kept(reply(b"", "429 No")), Busy),
        (says(b""), Internal),
        (drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"), AttemptTimeout),
    ],
)
def test_it_is_not_well(script: Script, kind: type[JobError]) -> None:
    with Server(script) as server, pytest.raises(JobError) as caught:
        place(server.url("")).health(0.4)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "url",
    [None, "https://user:pw@host", "https://user@host/", "https://host/?key=1", "https://host/#x", "https://", "https:///x",
     "https://host:99999", "https://host:x", "https://ho st/", "https://host/\n", "https://hést/", "https://[::1"],
)  # fmt: skip
def test_a_url_that_cannot_be_one_is_a_setting_that_is_wrong(url: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FlySubstrate(SubstrateSpec("far-away", "fly", url=url), Settings())
    assert caught.value.details["field"] == "substrates.far-away.url"
    assert caught.value.hint
    assert "pw" not in str(caught.value)


def test_building_one_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    monkeypatch.setattr(ssl, "create_default_context", lambda: pytest.fail("certificates were read"))
    FlySubstrate(SubstrateSpec("fly", "fly", url="https://app.example.com"), Settings())


def test_what_fly_declares() -> None:
    declared = FlySubstrate(SubstrateSpec("fly", "fly", url="https://app.example.com"), Settings()).capabilities
    assert declared == Capabilities(
        "fly", "own", 256, MAX_RANGE_BYTES, 300.0, frozenset({"http", "https"}), "fly", "fly", None, 16, 0.05, 1e8,
        Prices(usd_per_s=7.8e-7),
    )  # fmt: skip
    spec = SubstrateSpec("fly-iad", "fly", url="https://app.example.com", region="iad", slots=40, memory_mb=512)
    own = FlySubstrate(spec, Settings()).capabilities
    assert own == dataclasses.replace(declared, name="fly-iad", region="iad", slots=40, memory_mb=512)


def test_any_url_and_what_is_signed_is_what_is_sent() -> None:
    with Server(kept(reply(GOOD))) as server:
        substrate = place(server.url(""), EndpointKey("place", "k1", SECRET))
        odd = {**REQUEST, "program": {**REQUEST["program"], "data_url": "https://hést/ü?😀"}}
        assert substrate.invoke(odd) == GOOD
        match = re.search(rb"X-PacketFS-Signature: (\S+)", server.heads[0])
        assert match is not None
        assert Verifier([f"k1:{SECRET}"]).verify("POST", "/compute", server.bodies[0], match[1].decode()) == "k1"
        assert json.loads(server.bodies[0]) == odd
        substrate.close()
