"""Scans that know of each other, of an object on a server that grows as a test has it; their windows run at a stub."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.reading import LOOPBACK
from support.scans import DATA, Clock, FakeDesk, Job

from packetfs_compute import kernels
from packetfs_compute.cache import StubCache
from packetfs_compute.errors import BadPolicy, NoSubstrate
from packetfs_compute.fleet import FleetChooser, StubFleet
from packetfs_compute.places import Prices
from packetfs_compute.routing import Capabilities, Survey, survey
from packetfs_compute.scanning import accept_scan
from packetfs_compute.scanning.here import scan_here
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import earlier
from packetfs_compute.scanning.scanner import Scanner
from packetfs_compute.scanning.state import ScanState
from packetfs_compute.scanning.tally import Part
from packetfs_compute.settings import Settings

SCHEMES = frozenset({"http"})
LOCAL = Capabilities("local", "own", 1024, 1 << 40, 3600, SCHEMES, slots=2)
PAID = Capabilities("lambda", "own", 1024, 1 << 29, 900, SCHEMES, slots=8, prices=Prices(usd_per_request=0.001))
LENT = Capabilities("browser", "any", 1024, 1 << 29, 900, SCHEMES, slots=8)
CRC: list[dict[str, Any]] = [{"op": "crc32c"}, {"op": "add", "imm": 1}]
FNV: list[dict[str, Any]] = [*CRC, {"op": "fnv64"}]
GROWS = {"append_only": True}
WINDOW = 100


class Object(ThreadingHTTPServer):
    """An object: its first ``size`` bytes of the data, under a tag that is another for each size."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.size, self.strong, self.touched, self.asked = 1000, True, "", list[str]()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that dies lets go of its connections."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/log"

    @property
    def etag(self) -> str:
        return f'{"" if self.strong else "W/"}"v{self.size}{self.touched}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Object

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Range"])
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        body = DATA[: self.server.size][int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{self.server.size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Planner(FleetChooser):
    """The router over a stub of a fleet."""

    def __init__(self, *places: Capabilities) -> None:
        self.fleet = StubFleet(list(places))
        super().__init__(self.fleet, lambda: 0.0, lambda: 0.5)

    def refresh(self) -> None:
        """Nothing: it is always fresh."""

    def survey(self) -> Survey:
        return survey(self.fleet.snapshot(0.0), 0.0)


class Dead(BaseException):
    """The coordinator's process has died."""


class World:
    """A scanner of scans that share a cache. ``place`` is where windows run."""

    def __init__(self, folder: Path, client: Any, remote: Object) -> None:
        self.object, self.client, self.cache = remote, client, StubCache()
        self.settings = Settings(data_dir=folder, allow_private_sources=LOOPBACK)
        self.place = LOCAL
        self.places = [LOCAL]
        self.count = 0
        self.windows: list[int] = []
        """The first byte of each that ran."""
        self.dies_at = 0
        """At which event, a window or news, the coordinator's process dies."""
        self._events = 0

    def scan(self, ops: list[dict[str, Any]] = CRC, policy: Any = None, scan_id: str | None = None, **span: Any) -> Any:
        self.count += 1
        clock, self.windows, self._events = Clock(), [], 0
        desk = FakeDesk(clock, self._fated)
        scanner = Scanner(
            self.settings, desk, Planner(*self.places), self.client, clock, lambda: 0.0, clock.sleep, self.cache
        )
        program = {"data_url": self.object.url, "ops": ops, **span}
        self.object.asked.clear()
        return scanner.run(accept_scan(scan_id or f"s{self.count}", program, policy, WINDOW), lambda _: self._event())

    def _fated(self, job_id: str, job: Job) -> None:
        self.windows.append(job.program["offset"])
        job.more.update(object_size=self.object.size, substrate=self.place.name)
        self._event()

    def _event(self) -> None:
        self._events += 1
        if self._events == self.dies_at:
            raise Dead


@pytest.fixture(scope="module")
def served() -> Iterator[Object]:
    server = Object()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def world(tmp_path: Path, redis_client: Any, served: Object) -> World:
    served.size, served.strong, served.touched = 1000, True, ""
    return World(tmp_path, redis_client, served)


def values(size: int, ops: list[dict[str, Any]], offset: int = 0, data: bytes = DATA) -> list[Any]:
    start = [kernels.FNV64_OFFSET if op["op"] == "fnv64" else 0 for op in ops]
    found = kernels.fused(data[offset:size], ops, start)
    return [f"{value:016x}" if op["op"] == "fnv64" else value for op, value in zip(ops, found, strict=True)]


def running(size: int) -> list[int]:
    """What the ops of FNV come to over so many bytes, as the kernels give it."""
    return list(kernels.fused(DATA[:size], FNV, [0, 0, kernels.FNV64_OFFSET]))


def given(result: Any) -> list[Any]:
    return [one["value"] for one in result["results"]]


KINDS = pytest.mark.parametrize(
    ("ops", "places"), [(CRC, [LOCAL]), (FNV, [LOCAL]), (FNV, [PAID])], ids=["windows", "chain", "chain elsewhere"]
)


@KINDS
class TestKnown:
    def test_a_known_scan_asks_for_one_byte_and_no_window(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place = places, places[0]
        first = world.scan(ops)
        again = world.scan(ops)
        assert given(again) == given(first) == values(1000, ops)
        assert (again["cached"], again["cached_bytes"], again["cost_usd"], again["attempts"]) == (True, 1000, 0, [])
        assert (world.windows, len(world.object.asked)) == ([], 1)
        assert world.scan(ops, {"cache": False})["cached"] is False

    def test_a_scan_that_keeps_nothing_is_not_known(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place = places, places[0]
        world.scan(ops, {"cache": False})
        assert world.scan(ops)["cached"] is False

    def test_nor_is_one_of_a_weak_version(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place, world.object.strong = places, places[0], False
        world.scan(ops)
        again = world.scan(ops, GROWS)
        assert (again["cached"], again["pinned"], again["anew"]) == (False, False, "the source gives no strong ETag")


def test_what_a_place_computed_that_is_not_trusted_is_not_known(world: World) -> None:
    world.places, world.place = [LENT], LENT
    world.scan()
    assert world.scan()["cached"] is False


def test_what_a_policy_does_not_want_is_not_taken(world: World) -> None:
    world.scan()
    world.places = [LOCAL, PAID]
    world.object.size = 1001
    without = world.scan(policy={**GROWS, "exclude": ["local"]})
    assert (without["anew"], without["cached_bytes"]) == ("nothing is known of an earlier version", 0)
    with pytest.raises(NoSubstrate):
        world.scan(policy={"substrates": ["none"]})


@KINDS
class TestTail:
    def test_only_it_is_run_and_two_windows_before_it(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place = places, places[0]
        world.scan(ops)
        world.object.size = 1250
        then = world.scan(ops, GROWS)
        assert given(then) == values(1250, ops)
        assert (then["appended_to"], then["etag"], then["anew"]) == ('"v1000"', '"v1250"', None)
        assert (then["cached_bytes"], then["bytes_processed"], then["windows"], then["cached"]) == (
            1000,
            1250,
            3,
            False,
        )
        proof, tail = world.windows[:2], world.windows[2:]
        assert proof[1] == 900
        assert 0 <= proof[0] < 900
        assert tail == ([] if places == [LOCAL] and ops is FNV else [1000, 1100, 1200])
        assert then["cost_usd"] == pytest.approx(0.01 * len(world.windows))
        known = world.scan(ops)
        assert (given(known), known["cached"], known["appended_to"]) == (given(then), True, None)
        world.object.size = 1300
        last = world.scan(ops, GROWS)
        assert (given(last), last["appended_to"], last["windows"]) == (values(1300, ops), '"v1250"', 1)

    def test_an_object_that_was_only_touched_has_none(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place = places, places[0]
        first = world.scan(ops)
        world.object.touched = "touched"
        then = world.scan(ops, GROWS)
        assert (given(then), then["appended_to"], then["etag"]) == (given(first), '"v1000"', '"v1000touched"')
        assert (then["cached"], then["cached_bytes"], then["windows"], len(world.windows)) == (False, 1000, 0, 2)

    def test_and_nothing_of_the_head_without_the_word(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place = places, places[0]
        world.scan(ops)
        world.object.size = 1250
        then = world.scan(ops)
        assert (then["cached_bytes"], then["appended_to"], then["anew"]) == (0, None, None)
        assert given(then) == values(1250, ops)

    def test_who_goes_on_after_a_crash_goes_on_from_the_same_head(
        self, world: World, ops: list[dict[str, Any]], places: list[Capabilities]
    ) -> None:
        world.places, world.place = places, places[0]
        world.scan(ops)
        world.object.size = 1250

        crashes = 0
        for dies_at in itertools.count(1):
            world.dies_at, scan_id = dies_at, f"crash-{dies_at}"
            try:
                world.scan(ops, GROWS, scan_id)
            except Dead:
                crashes += 1
            else:
                break
            begun = world.client.hexists(f"packetfs:scan:{scan_id}", "plan")
            done = world.client.hexists(f"packetfs:scan:{scan_id}", "chain")
            keep, world.cache, world.dies_at = world.cache, StubCache(), 0  # the head is kept with the plan
            then = world.scan(ops, GROWS, scan_id)
            world.cache = keep
            assert given(then) == values(1250, ops)
            if done:
                assert world.object.asked == []
            assert (then["appended_to"] is not None) == bool(begun)
            if begun and places == [PAID]:
                assert then["cost_usd"] == pytest.approx(0.05)  # the proof's too, which another has paid for
        assert crashes >= 4


@KINDS
def test_a_head_of_other_bytes_is_a_whole_new_scan(
    world: World, ops: list[dict[str, Any]], places: list[Capabilities]
) -> None:
    """The stub runs windows over its own data, so it is the note that is made to be of others."""
    world.places, world.place = places, places[0]
    world.scan(ops)
    program = accept_scan("x", {"data_url": world.object.url, "ops": ops}, None, None).program
    noted = world.cache.noted(program)
    assert noted is not None
    first = json.loads(noted[0])
    for mark in first[4]:
        mark[3] ^= 1
    world.cache.note(program, [json.dumps(first), *noted[1:]])
    world.object.size = 1250
    then = world.scan(ops, GROWS)
    assert given(then) == values(1250, ops)
    assert (then["appended_to"], then["cached_bytes"]) == (None, 0)
    assert re.fullmatch(r'bytes \d+ to \d+ are not what they were in "v1000"', then["anew"])


def test_a_chain_that_was_gone_on_with_leaves_marks_that_are_so(world: World) -> None:
    asked = accept_scan("mid", {"data_url": world.object.url, "ops": FNV}, None, WINDOW)
    state = ScanState(world.client, asked, 1000)
    state.begin(Plan(0, 1000, WINDOW, 1000, world.object.etag, chained_here=True))
    state.keep_chain(300, Part(tuple(running(300)), 300, "local", "here"))
    result = world.scan(FNV, scan_id="mid")
    assert given(result) == values(1000, FNV)
    assert "bytes=0-99" not in world.object.asked
    head = earlier(world.cache, asked.program, {"local"})
    assert head is not None
    assert len(head.marks) == 7
    for mark in head.marks:
        assert (list(mark.before), list(mark.after)) == (running(mark.start), running(mark.end))


def test_a_cap_holds_for_the_proof_too(world: World) -> None:
    world.places, world.place = [PAID], PAID
    world.scan()
    world.object.size = 1250
    with pytest.raises(NoSubstrate, match="max_cost_usd"):
        world.scan(policy={**GROWS, "max_cost_usd": 0.0005})
    assert world.windows == []


def test_where_a_scan_runs_alone_there_is_nothing_to_go_on_from(world: World) -> None:
    asked = accept_scan("s", {"data_url": world.object.url, "ops": CRC}, GROWS, None)
    with pytest.raises(BadPolicy, match="runs alone"):
        scan_here(asked, world.settings)
    assert scan_here(replace(asked, policy=replace(asked.policy, append_only=False)), world.settings)["anew"] is None
