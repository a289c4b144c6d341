"""Browsers that lend a hand to a real system: Celery routes jobs to ``packetfs.browser``, the gateway's hub hands them out.

The browsers here are clients that speak the protocol (``support/volunteers.py``); Chromium has its turn in test_lending.py.
"""

import asyncio
import itertools
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.endpoint import REFUSED, Signed, SigningClient
from support.gateway import Client
from support.nginx import Nginx
from support.ports import free_port
from support.processes import wait_until
from support.system import RunningSystem, end_system, publishing_to, start_system
from support.volunteers import Volunteer, address_of, leaving, lent, lying, mute
from websockets.exceptions import ConnectionClosed, InvalidStatus

from packetfs_compute import kernels
from packetfs_compute.conform import Bench, HttpTarget, Key, conform, serving
from packetfs_compute.conform.origin import Origin
from packetfs_compute.errors import Internal, JobError
from packetfs_compute.gateway.context import MOST_SOCKETS_EACH
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.signature import HEADER
from packetfs_compute.substrates import load_substrate
from packetfs_compute.volunteers.frames import MAX_FRAME
from packetfs_compute.volunteers.session import Close
from tasks import crc32c, program

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DATA = random.Random(11).randbytes(300_000)
ONLY_BROWSERS = {"substrates": ["browser"]}
KEY_ID, SECRET = "k1", "0123456789abcdef0123456789abcdef"
COMPUTE = "/v1/browsers/compute"
NETWORKS = itertools.count()


@pytest.fixture(scope="module")
def lending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system whose gateway has browsers, and whose workers post programs to it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    running = start_system(
        tmp_path_factory.mktemp("lending"),
        gateway=True,
        PACKETFS_GATEWAY_PORT=str(port),
        PACKETFS_GATEWAY_REQUESTS_PER_MINUTE="1000000",
        PACKETFS_SUBSTRATES=json.dumps({"browser": {"url": f"{url}/v1/browsers"}}),
        PACKETFS_KEYS=f"browser={KEY_ID}:{SECRET}",
        PACKETFS_SIGNING_KEYS=f"{KEY_ID}:{SECRET}",
    )
    try:
        with publishing_to(running.settings):
            yield running
    finally:
        end_system(running)


@pytest.fixture(scope="module")
def url(lending: RunningSystem) -> str:
    return str(lending.ready["gateway_url"])


@pytest.fixture(scope="module")
def source(nginx: Nginx) -> str:
    (nginx.www / "lent.bin").write_bytes(DATA)
    return nginx.url("lent.bin")


@pytest.fixture
def fresh(url: str) -> Callable[..., Volunteer]:
    """Browsers of networks that no test has used."""

    return lambda **more: Volunteer(url, address_of(next(NETWORKS)), **more)


def running(url: str) -> dict[str, Any]:
    told = Client(url).get("/v1/overview").json["browsers"]
    assert isinstance(told, dict)
    return told


class TestJobs:
    def test_run_in_browsers_and_are_checked(self, url: str, source: str, fresh: Callable[..., Volunteer]) -> None:
        alice, bob = fresh(), fresh()
        before = running(url)["checked"]
        with lent(alice, bob):
            results = [crc32c.delay(source, at, 1000, policy=ONLY_BROWSERS) for at in range(0, 20_000, 1000)]
            for at, result in zip(range(0, 20_000, 1000), results, strict=True):
                told = result.get(timeout=30)
                assert (told["value"], told["substrate"]) == (kernels.crc32c(DATA[at : at + 1000]), "browser")
            wait_until(lambda: running(url)["connected"] == 2, "both are seen")
        assert len(alice.asked) + len(bob.asked) == 20
        assert len(alice.asked) > 0 < len(bob.asked)
        wait_until(lambda: running(url)["connected"] == 0, "all have left")
        assert running(url)["checked"] - before == 20, "strangers' answers are all checked"

    def test_failures_are_those_of_the_source(self, source: str, fresh: Callable[..., Volunteer]) -> None:
        with lent(fresh()):
            with pytest.raises(JobError) as caught:
                crc32c.delay(source + ".none", 0, 10, policy=ONLY_BROWSERS).get(timeout=30)
            assert caught.value.type == "source_not_found"

    def test_a_lie_is_found_out_before_it_is_given_out(
        self, url: str, source: str, fresh: Callable[..., Volunteer]
    ) -> None:
        mallory = fresh(behave=lying)
        with lent(mallory):
            told = crc32c.delay(source, 0, 500, policy={"substrates": ["browser", "local"]}).get(timeout=30)
            assert told["value"] == kernels.crc32c(DATA[:500])
            told = crc32c.delay(source, 0, 500, policy=ONLY_BROWSERS | {"deadline_s": 20}).get(timeout=30)
            assert told["value"] == kernels.crc32c(DATA[:500])
            wait_until(lambda: mallory.closed, "it is put out")
        assert mallory.closed == (Close.BANNED, "banned")
        again = Volunteer(url, mallory.address)
        asyncio.run(again.live())
        assert again.closed == (Close.BANNED, "banned")

    def test_what_a_lost_browser_held_another_computes(self, source: str, fresh: Callable[..., Volunteer]) -> None:
        quitter, alice = fresh(behave=leaving), fresh()
        with lent(quitter):
            result = crc32c.delay(source, 0, 700, policy=ONLY_BROWSERS | {"deadline_s": 60})
            wait_until(lambda: quitter.asked, "the program is handed over")
            with lent(alice):
                told = result.get(timeout=40)
        assert (told["value"], told["substrate"]) == (kernels.crc32c(DATA[:700]), "browser")

    def test_own_places_alone_are_asked_where_the_policy_says_so(
        self, source: str, fresh: Callable[..., Volunteer]
    ) -> None:
        alice = fresh()
        with lent(alice):
            told = program.delay(source, ops=[{"op": "crc32c"}], policy={"trust": "own"}).get(timeout=30)
            assert told["substrate"] == "local"
        assert alice.asked == []


class TestComingIn:
    def handshake(self, volunteer: Volunteer, **options: Any) -> int:
        async def attempt() -> int:
            try:
                async with volunteer.opening(**options):
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        return asyncio.run(attempt())

    @pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "http://127.0.0.1:1"])
    def test_pages_of_other_origins_are_refused_unheard(self, fresh: Callable[..., Volunteer], origin: str) -> None:
        assert self.handshake(fresh(), origin=origin) == 403

    def test_two_origins_are_none(self, url: str, fresh: Callable[..., Volunteer]) -> None:
        assert self.handshake(fresh(), additional_headers={"Origin": url}) in (400, 403)

    def talk(self, volunteer: Volunteer, *frames: str | bytes) -> tuple[int, str]:
        """Say these at once and nothing more; how the gateway ended it."""

        async def attempt() -> tuple[int, str]:
            async with volunteer.opening() as socket:
                try:
                    for frame in frames:
                        await socket.send(frame)
                    while True:
                        await asyncio.wait_for(socket.recv(), 15)
                except ConnectionClosed:
                    return socket.close_code or 0, socket.close_reason or ""

        return asyncio.run(attempt())

    def test_a_ticket_is_good_once_and_from_where_it_was_given(self, fresh: Callable[..., Volunteer]) -> None:
        alice, elsewhere = fresh(), fresh()
        ticket = alice.ticket()
        stolen = self.talk(elsewhere, elsewhere.hello(ticket))
        assert stolen == (Close.REFUSED, "the ticket was given to another network")
        assert self.talk(alice, alice.hello(ticket), "no frame")[0] == Close.BAD_FRAME
        assert self.talk(alice, alice.hello(ticket)) == (Close.REFUSED, "the ticket was used before")
        assert self.talk(alice, alice.hello("v1.eyJ9." + 64 * "0"))[0] == Close.REFUSED

    def test_a_page_may_not_ask_for_tickets_from_elsewhere(self, url: str) -> None:
        refused = Client(url).post("/v1/browsers/tickets", None, Origin="https://evil.example")
        assert (refused.status, refused.error) == (403, "forbidden")
        rebound = Client(url).post("/v1/browsers/tickets", None, Host="evil.example")
        assert (rebound.status, rebound.error) == (403, "forbidden")

    def test_one_network_has_so_many_and_leaves_room_for_others(self, fresh: Callable[..., Volunteer]) -> None:
        crowd, alice = fresh(), fresh()

        async def all_of_them() -> None:
            async with AsyncExitStack() as stack:
                for _ in range(MOST_SOCKETS_EACH):
                    await stack.enter_async_context(crowd.opening())
                with pytest.raises(InvalidStatus) as refused:
                    await stack.enter_async_context(crowd.opening())
                assert refused.value.response.status_code == 403
                await stack.enter_async_context(alice.opening())

        asyncio.run(all_of_them())
        wait_until(lambda: self.handshake(crowd) == 101, "there is room again")

    def test_a_thousand_hostile_messages(
        self, lending: RunningSystem, url: str, source: str, fresh: Callable[..., Volunteer]
    ) -> None:
        """Whatever is said, before a hello or after it: the connection ends with a reason, and the gateway is well."""
        rng = random.Random(3)
        volunteer = fresh()

        async def one(frames: list[str | bytes], greet: bool) -> int:
            ticket = await asyncio.to_thread(volunteer.ticket) if greet else ""
            async with volunteer.opening(ping_interval=None) as socket:
                try:
                    if greet:
                        await socket.send(volunteer.hello(ticket))
                    for frame in frames:
                        await socket.send(frame)
                    while True:
                        await asyncio.wait_for(socket.recv(), 20)
                except ConnectionClosed:
                    return socket.close_code or 0

        async def all_of_them() -> list[int]:
            few = asyncio.Semaphore(16)

            async def bounded(at: int) -> int:
                async with few:
                    return await one([hostile(rng, at)], at % 4 == 0)

            return await asyncio.gather(*(bounded(at) for at in range(1000)))

        pid = int(lending.ready["pids"]["gateway"])  # type: ignore[index]
        asyncio.run(one(["x"], True))
        before = memory_mb(pid)
        codes = asyncio.run(all_of_them())
        assert set(codes) <= {Close.BAD_FRAME, 1009, 1007, 1002}, set(codes)
        assert memory_mb(pid) - before < 16
        wait_until(lambda: running(url)["connected"] == 0, "none is left")
        assert Client(url).get("/health").status == 200
        with lent(fresh()):
            assert crc32c.delay(source, 0, 9, policy=ONLY_BROWSERS).get(timeout=30)["substrate"] == "browser"


def hostile(rng: random.Random, at: int) -> str | bytes:
    """What is no frame of the protocol, of many kinds."""
    long = "x" * (MAX_FRAME - 2)
    kinds: list[Callable[[], str | bytes]] = [
        lambda: rng.randbytes(rng.randrange(200)),
        lambda: "",
        lambda: "[" * 30_000,
        lambda: json.dumps({"type": rng.choice(["run", "welcome", "cancel", "hello", "alive", None, 7, "__proto__"])}),
        lambda: '{"type": "alive", "leases": [' + ",".join(['"a"'] * 9) + "]}",
        lambda: '{"type": "alive", "leases": [{}]}',
        lambda: json.dumps({"type": "answer", "lease": "unknown", "answer": {"success": True}}),
        lambda: json.dumps({"type": "answer", "lease": "../../x", "answer": {}}),
        lambda: '{"type": "pause", "more": 1}',
        lambda: '{"type": "pause", "type": NaN}',
        lambda: f'{{"type": "hello", "version": {"9" * 5000}}}',
        lambda: '"' + long + '"',
        lambda: '"' + long + long + '"',
        lambda: "\ud83d\ude00".encode("utf-16", "surrogatepass") * 50,
        lambda: "null",
        lambda: json.dumps({"type": "hello", "version": 1, "ticket": "' OR 1=1", "kernel": "k", "slots": 1}),
        lambda: json.dumps({"type": "hello", "version": 1, "ticket": "v1.e30." + "0" * 64, "kernel": "k", "slots": 99}),
    ]
    return kinds[at % len(kinds)]()


def _answers(url: str) -> bool:
    try:
        return Client(url).get("/health").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def memory_mb(pid: int) -> float:
    told = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmRSS")) / 1024


class TestEndpoint:
    @pytest.fixture
    def client(self, url: str) -> SigningClient:
        return SigningClient(Signed(url, KEY_ID, SECRET))

    def test_health_says_whether_a_browser_is_there(self, url: str, fresh: Callable[..., Volunteer]) -> None:
        def health() -> tuple[int, Any]:
            told = Client(url).get("/v1/browsers/health")
            return told.status, told.json

        wait_until(lambda: health()[0] == 503, "no browser is there")
        spec = SubstrateSpec("browser", "browser", url=f"{url}/v1/browsers")
        with pytest.raises(Internal, match="no browser is connected"):
            load_substrate("browser", Settings(substrates=(spec,))).health(5)
        assert health()[1]["status"] == "unhealthy"
        with lent(fresh()):
            status, told = health()
            assert (status, told["status"], told["protocol"], told["browsers"]) == (200, "healthy", 1, 1)

    @pytest.mark.parametrize("how", REFUSED)
    def test_takes_only_what_is_signed(self, client: SigningClient, source: str, how: str) -> None:
        body = json.dumps({"program": {"data_url": source, "op": "crc32c"}}).encode()
        answer = client.raw(body, COMPUTE, REFUSED[how](client, body))
        assert (answer.status, answer.json()["error"]["type"]) == (401, "unauthorized")

    def test_takes_each_signature_once(self, client: SigningClient, source: str) -> None:
        body = json.dumps({"program": {"data_url": source, "op": "crc32c"}}).encode()
        signed = {HEADER: client.header(body, COMPUTE)}
        told = client.raw(body, COMPUTE, signed)
        assert (told.status, told.json()["error"]["type"]) == (429, "busy"), "there is no browser"
        assert int(told.headers["Retry-After"]) >= 1
        assert client.raw(body, COMPUTE, signed).status == 401

    @pytest.mark.parametrize(
        ("body", "status", "error"),
        [(b"{", 400, "bad_program"), (b"[]", 400, "bad_program"), (b"\xff", 400, "bad_program"),
         (b'{"program": {}}', 400, "bad_program"), (b" " * 70_000, 413, "too_large"),
         (b"[" * 60_000, 400, "bad_program")],
    )  # fmt: skip
    def test_what_is_no_request_is_told(self, client: SigningClient, body: bytes, status: int, error: str) -> None:
        told = client.raw(body, COMPUTE)
        assert (told.status, told.json()["error"]["type"]) == (status, error)

    def test_a_batch_is_answered_in_order(
        self, client: SigningClient, source: str, fresh: Callable[..., Volunteer]
    ) -> None:
        jobs = [
            {"jobId": f"b{at}", "program": {"data_url": source, "offset": at, "length": 10, "op": "crc32c"}}
            for at in range(4)
        ]
        with lent(fresh()):
            told = client.post({"jobs": [*jobs, "none"]}, f"{COMPUTE}/batch")
        assert told.status == 200
        *answers, last = told.json()["results"]
        assert [(one["jobId"], one["results"][0]["value"]) for one in answers] == [
            (f"b{at}", kernels.crc32c(DATA[at : at + 10])) for at in range(4)
        ]
        assert last["error"]["type"] == "bad_program"

    def test_a_program_is_taken_back_when_its_dispatcher_leaves(
        self, client: SigningClient, source: str, fresh: Callable[..., Volunteer]
    ) -> None:
        quiet = fresh(behave=mute)
        body = json.dumps({"program": {"data_url": source, "op": "crc32c"}}).encode()
        with lent(quiet):
            with pytest.raises(urllib3.exceptions.HTTPError):
                client.http.request(
                    "POST", client.server.url + COMPUTE, body=body, timeout=1,
                    headers={HEADER: client.header(body, COMPUTE)},
                )  # fmt: skip
            wait_until(lambda: quiet.cancelled, "the browser is told to stop")
        assert len(quiet.asked) == 1


TOO_LONG = {"vectors": ["far-past-the-end"], "batches": ["entry 19"]}


@pytest.mark.parametrize(
    "check",
    ["health", "vectors", "bad requests", "bodies", "batches", "signatures", "forgeries", "hostile URLs", "redirects"],
)
def test_it_conforms(url: str, crowd: None, origin: Origin, check: str) -> None:
    """As an endpoint. Left out: what servers do that misbehave, of which a hub learns not to ask browsers any more; and that
    an endless range is past the object's end, before it is too long for a browser."""
    target = HttpTarget(f"{url}/v1/browsers", Key(KEY_ID, SECRET))
    report = conform(Bench(target, origin, origin.url(""), tampered=500), frozenset({check}))
    assert all("too_large" in str(one.problem) for one in report.failed), report.failed
    assert [one.case for one in report.failed] == TOO_LONG.get(check, [])
    assert report.outcomes


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def crowd(url: str) -> Iterator[None]:
    with lent(*(Volunteer(url, address_of(next(NETWORKS)), slots=8) for _ in range(3))):
        yield


def test_a_gateway_that_is_killed_loses_no_job(
    lending: RunningSystem, url: str, source: str, fresh: Callable[..., Volunteer]
) -> None:
    with lent(fresh(), fresh()):
        either = {"substrates": ["browser", "local"]}
        results = [crc32c.delay(source, at, 100, policy=either) for at in range(300)]
        os.kill(int(lending.ready["pids"]["gateway"]), signal.SIGKILL)  # type: ignore[index]
        results += [crc32c.delay(source, at, 100, policy=either) for at in range(300, 400)]
        for at, result in enumerate(results):
            assert result.get(timeout=60)["value"] == kernels.crc32c(DATA[at : at + 100])
    wait_until(lambda: _answers(url), "it is started again, at the same address")
    with lent(fresh()):
        assert crc32c.delay(source, 0, 9, policy=ONLY_BROWSERS | {"deadline_s": 40}).get(timeout=50)["value"]
