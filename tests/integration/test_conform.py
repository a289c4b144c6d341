"""The conformance suite finds faults: endpoints with one fault each, which the check that is meant for it must report."""

import copy
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from support.fly import FlyServer
from support.reading import OPEN

from packetfs_compute.cli.main import cli
from packetfs_compute.conform import CHECKS, Bench, HttpTarget, InvokedTarget, Key, Reply, conform, serving
from packetfs_compute.conform.bench import OPS, values_of
from packetfs_compute.conform.contract import load_contract
from packetfs_compute.conform.misbehaviour import CASES
from packetfs_compute.conform.origin import Origin
from packetfs_compute.errors import Internal
from packetfs_compute.executor import execute, health
from packetfs_compute.places import EndpointKey
from packetfs_compute.signature import HEADER
from packetfs_compute.wire import failure

pytestmark = pytest.mark.integration

Json = dict[str, Any]


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with serving() as served:
        yield served


class Twisted:
    """The local substrate with one fault: ``twist`` gets the request and the right answer."""

    def __init__(self, twist: Callable[[Json, Json], Json]) -> None:
        self._twist = twist

    def invoke(self, request: Mapping[str, Any]) -> Json:
        given = dict(request) if isinstance(request, Mapping) else {}
        return self._twist(given, execute(request, OPEN))

    def health(self, timeout_s: float) -> Json:
        return self._twist({}, health(OPEN))


def success(request: Json) -> Json:
    """The answer of an endpoint that never fails."""
    ops = [op for op in (request.get("program") or {}).get("ops", [{"op": "crc32c"}]) if isinstance(op, dict)]
    return {
        "success": True, "jobId": request.get("jobId"), "results": [{**op, "value": 7} for op in ops],
        "bytesProcessed": 1, "objectSize": None, "etag": None, "executionTimeMs": 1, "fetchTimeMs": 1, "region": "x",
    }  # fmt: skip


def one_more(_: Json, answer: Json) -> Json:
    for result in answer.get("results", []):
        if result["op"] == "counteq":
            result["value"] += 1
    return answer


def clamped(request: Json, answer: Json) -> Json:
    """A range past the end gives the checksum of fewer bytes."""
    if answer.get("error", {}).get("type") != "range_not_satisfiable":
        return answer
    program = {**request["program"], "length": None}
    again = execute({**request, "program": program}, OPEN)
    return again if again["success"] else {**success(request), "bytesProcessed": 0}


def without(*keys: str) -> Callable[[Json, Json], Json]:
    def twist(_: Json, answer: Json) -> Json:
        place = answer
        for key in keys[:-1]:
            place = place.get(key, {})
        place.pop(keys[-1], None)
        return answer

    return twist


def by_job_id() -> Callable[[Json, Json], Json]:
    """Remembers answers by the job's id alone."""
    known: dict[str, Json] = {}
    return lambda request, answer: known.setdefault(str(request.get("jobId")), answer)


def renamed(old: str, new: str) -> Callable[[Json, Json], Json]:
    def twist(_: Json, answer: Json) -> Json:
        if answer.get("error", {}).get("type") == old:
            answer["error"]["type"] = new
        return answer

    return twist


TWISTS: list[tuple[str, str, Callable[[Json, Json], Json]]] = [
    ("health", "lacks an operation", lambda _, answer: {**answer, "ops": ["crc32c"]}),
    ("health", "of another protocol", lambda _, answer: {**answer, "protocol": 2}),
    ("vectors", "one too many", one_more),
    ("vectors", "clamps", clamped),
    ("vectors", "no size", lambda _, answer: answer | ({"objectSize": None} if answer.get("success") else {})),
    ("vectors", "true for 1", lambda _, answer: json.loads(json.dumps(answer).replace('"value": 1}', '"value": true}'))),
    ("vectors", "another error", renamed("source_changed", "source_failed")),
    ("bad requests", "takes all", lambda request, _: success(request)),
    ("bad requests", "names no field", without("error", "field")),
    ("bad requests", "no message", without("error", "message")),
    ("hostile URLs", "reads all", lambda request, _: success(request)),
    ("hostile URLs", "another error", renamed("forbidden_source", "internal")),
    ("redirects", "follows all", lambda request, _: success(request)),
    ("servers", "takes all", lambda request, _: success(request)),
    ("deadlines", "gives up at once", lambda _, answer: answer),
    ("repeats", "by the id alone", by_job_id()),
    ("large ranges", "one too many", one_more),
]  # fmt: skip


@pytest.mark.parametrize(("check", "fault", "twist"), TWISTS, ids=[f"{check}: {fault}" for check, fault, _ in TWISTS])
def test_a_fault_is_found(origin: Origin, check: str, fault: str, twist: Callable[[Json, Json], Json]) -> None:
    target = InvokedTarget(Twisted(twist))
    if fault == "gives up at once":
        late = failure(None, Internal("no"), 0)
        target = InvokedTarget(replace_invoke(lambda _: late))
    report = conform(Bench(target, origin, origin.url(""), large_bytes=8 << 20), frozenset({check}))
    assert report.failed
    assert {one.check for one in report.outcomes} == {check}


class replace_invoke(Twisted):  # noqa: N801
    def __init__(self, invoke: Callable[[Mapping[str, Any]], Json]) -> None:
        self.invoke = invoke  # type: ignore[method-assign]


def naive(request: Mapping[str, Any]) -> Json:
    """Reads as one does with an HTTP library and good faith: whatever comes is what was asked for."""
    program, started = request["program"], time.perf_counter()
    length, url = program.get("length"), urlsplit(program["data_url"])
    last = "" if length is None else program["offset"] + length - 1
    fields = {"Range": f"bytes={program['offset']}-{last}", "If-Match": program.get("etag", "*")}
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=2)
    connection.connect()
    # Even good faith has to end: by the library's own timeout, a drip of bytes never would.
    end = threading.Timer(3, connection.sock.shutdown, [socket.SHUT_RDWR])
    end.start()
    try:
        connection.request("GET", url.path, headers=fields)
        data = connection.getresponse().read()
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of -50 bytes
        return failure(None, Internal(str(error)), time.perf_counter() - started)
    finally:
        end.cancel()
        connection.close()
    return {**success(dict(request)), "results": values_of(data, OPS), "bytesProcessed": len(data)}


def test_good_faith_is_found_out_many_times(origin: Origin) -> None:
    target = InvokedTarget(replace_invoke(naive))
    report = conform(Bench(target, origin, origin.url("")), frozenset({"servers"}))
    silent = [one for one in report.failed if "internal" not in (one.problem or "")]
    assert len(silent) >= 18
    assert len(report.outcomes) >= 0.9 * len(CASES)


class Careless(HttpTarget):
    """The server as it would be with one thing not verified: what is given up for it is signed anew on the way."""

    def __init__(self, server: FlyServer, forgives: Callable[["Careless", bytes, Mapping[str, str]], bool]) -> None:
        super().__init__(server.url, Key(server.key_id, server.secret))
        self._forgives = forgives
        self.seen: set[str] = set()

    def send(self, method: str, path: str, body: bytes, fields: Mapping[str, str], timeout_s: float = 30) -> Reply:
        if method == "POST" and path in ("/compute", "/compute/batch") and self._forgives(self, body, fields):
            fields = self.signed(path, body)
        self.seen.add(dict(fields).get(HEADER, ""))
        return super().send(method, path, body, fields, timeout_s)


def stamp(fields: Mapping[str, str]) -> list[str]:
    return dict(fields).get(HEADER, "").split(";")


def is_stale(fields: Mapping[str, str]) -> bool:
    seconds = [*stamp(fields), "", "", ""][2]
    return seconds.isascii() and seconds.isdigit() and int(seconds) < time.time() - 60


FORGIVING: dict[str, Callable[[Careless, bytes, Mapping[str, str]], bool]] = {
    "not signed": lambda target, body, fields: not fields,
    "replayed": lambda target, body, fields: fields.get(HEADER) in target.seen,
    "stale": lambda target, body, fields: is_stale(fields),
    "anything": lambda target, body, fields: True,
}  # fmt: skip


@pytest.mark.parametrize("fault", FORGIVING)
def test_a_careless_server_is_found_out(fly_server: FlyServer, fault: str) -> None:
    report = conform(Bench(Careless(fly_server, FORGIVING[fault])), frozenset({"signatures"}))
    failed = {one.case for one in report.failed}
    assert failed >= ({fault} if fault != "anything" else {"not signed", "another key", "another body", "replayed"})
    if fault != "anything":
        assert failed <= {fault, "a batch, not signed"}


def test_forgeries_that_are_taken_are_counted(fly_server: FlyServer) -> None:
    bench = Bench(Careless(fly_server, FORGIVING["anything"]), tampered=50)
    (outcome,) = conform(bench, frozenset({"forgeries"})).outcomes
    assert (outcome.problem or "").startswith("50 accepted")


class Rewritten(HttpTarget):
    """The server with one thing about its replies changed."""

    def __init__(self, server: FlyServer, change: Callable[[str, str, Reply], Reply]) -> None:
        super().__init__(server.url, Key(server.key_id, server.secret))
        self._change = change

    def send(self, method: str, path: str, body: bytes, fields: Mapping[str, str], timeout_s: float = 30) -> Reply:
        return self._change(method, path, super().send(method, path, body, fields, timeout_s))


def reversed_batch(method: str, path: str, reply: Reply) -> Reply:
    document = copy.deepcopy(reply.document)
    if path == "/compute/batch" and reply.status == 200:
        document["results"].reverse()
    return replace(reply, document=document)


def with_field(name: str, value: str | None) -> Callable[[str, str, Reply], Reply]:
    def change(method: str, path: str, reply: Reply) -> Reply:
        fields = {key: field for key, field in reply.fields.items() if key != name}
        return replace(reply, fields=fields if value is None else fields | {name: value})

    return change


REWRITES: dict[str, tuple[str, Callable[[str, str, Reply], Reply]]] = {
    "a batch in another order": ("batches", reversed_batch),
    "always 200": ("bodies", lambda method, path, reply: replace(reply, status=200)),
    "200 for vectors that fail": ("vectors", lambda method, path, reply: replace(reply, status=200)),
    "404 for 405": (
        "errors", lambda method, path, reply: replace(reply, status=404) if reply.status == 405 else reply,
    ),
    "no Allow": ("errors", with_field("Allow", None)),
    "may be cached": ("errors", with_field("Cache-Control", "public")),
}  # fmt: skip


@pytest.mark.parametrize("fault", REWRITES)
def test_wrong_replies_are_found(fly_server: FlyServer, origin: Origin, fault: str) -> None:
    check, change = REWRITES[fault]
    report = conform(Bench(Rewritten(fly_server, change), origin, origin.url("")), frozenset({check}))
    assert report.failed


def test_a_dead_endpoint_fails_every_check_and_ends(origin: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    report = conform(Bench(HttpTarget(f"http://127.0.0.1:{port}", Key("k1", "x" * 32)), origin, origin.url("")))
    assert {one.check for one in report.failed} == {check.name for check in CHECKS}


class TestCommand:
    def run(self, server: FlyServer, *more: str, key: bool = True) -> Any:
        keys = f"there={server.key_id}:{server.secret}" if key else ""
        environ = {
            "PACKETFS_SUBSTRATES": json.dumps({"there": {"kind": "fly", "url": server.url}}), "PACKETFS_KEYS": keys,
            "PACKETFS_CONFIG": "/dev/null",
        }  # fmt: skip
        return CliRunner().invoke(cli, ["conform", *more], env=environ)

    def test_by_name_and_by_url_with_the_key_that_belongs_to_it(self, fly_server: FlyServer) -> None:
        for given in ("there", fly_server.url):
            result = self.run(fly_server, given, "--only", "signatures", "--only", "vectors", "--json")
            found = json.loads(result.stdout)
            assert (result.exit_code, found["failed"], found["left_out"]) == (0, [], {})
            assert found["cases"]["vectors"] == len(load_contract().vectors)

    def test_without_a_key_it_fails_and_says_so(self, fly_server: FlyServer) -> None:
        result = self.run(fly_server, "there", "--only", "vectors", "--only", "forgeries", key=False)
        assert result.exit_code == 1
        assert "unauthorized" in result.stdout
        assert "there is no key to sign with" in result.stdout

    def test_all_of_it_as_a_person_sees_it(self, fly_server: FlyServer) -> None:
        result = self.run(fly_server, "there", "--forgeries", "20", "--large", "8MiB")
        assert result.exit_code == 0, result.stdout
        assert "0 checks left out" in result.stdout
        assert all(check.name in result.stdout for check in CHECKS)

    @pytest.mark.parametrize("given", ["nowhere", "ftp://host/", "http://"])
    def test_what_is_no_target(self, fly_server: FlyServer, given: str) -> None:
        result = self.run(fly_server, given)
        assert result.exit_code != 0

    def test_an_address_that_is_taken(self, fly_server: FlyServer) -> None:
        result = self.run(fly_server, "there", "--source-listen", f"127.0.0.1:{fly_server.port}")
        assert "nothing can listen" in str(result.exception)


def test_keys_are_no_part_of_what_is_shown() -> None:
    assert "secret-of-the-endpoint" not in repr(EndpointKey("there", "k1", "secret-of-the-endpoint"))
    assert "secret-of-the-endpoint" not in repr(Key("k1", "secret-of-the-endpoint"))
