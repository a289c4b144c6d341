"""The hub with browsers that are played over connections in memory: good ones, lost ones, liars, and all at once.

Nothing of the hub is replaced. What stands for a place of trust computes the true value, unless a test says otherwise.
"""

import asyncio
import functools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from packetfs_compute.errors import Busy, Internal, JobError, SourceNotFound, TooLarge, Unauthorized
from packetfs_compute.kernels import crc32c
from packetfs_compute.settings import Settings
from packetfs_compute.sources.guard import check_url
from packetfs_compute.volunteers import Close, Hub, Limits, Reputation, StubReputations, Tickets, judge
from packetfs_compute.volunteers.frames import MAX_FRAME
from packetfs_compute.volunteers.trust import REST_S
from packetfs_compute.wire import Measured, failure, parse_request, success

pytestmark = pytest.mark.integration  # a hundred leases that lapse: many seconds

URL = "https://data.example.com/object"
SURE, NEVER = 0.0, 0.999999
"""Draws that make a check of everyone, and of nobody who has any credit."""
VETERAN = Reputation(checked=20_000)

_T = TypeVar("_T")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


def request(at: int = 0, timeout: int = 5000, url: str = URL) -> dict[str, Any]:
    return {"jobId": f"j{at}", "program": {"data_url": url, "offset": at, "length": 100, "op": "crc32c"},
            "timeout": timeout}  # fmt: skip


def said(asked: Mapping[str, Any], lie: int = 0, **changes: Any) -> dict[str, Any]:
    """What an honest browser answers, and with ``lie`` one that is not."""
    parsed = parse_request(asked)
    value = crc32c(f"{parsed.program.data_url} {parsed.program.offset}".encode()) ^ lie
    return {**success(parsed, [value], Measured(100, 1 << 20, '"v1"', 0.01, 0.01, "there")), **changes}


def failed(asked: Mapping[str, Any], error: JobError) -> dict[str, Any]:
    return failure(asked["jobId"], error, 0.01)


def values(answer: Mapping[str, Any]) -> Any:
    return answer["results"] if answer["success"] else answer["error"]["type"]


class Wire:
    """A connection in memory, seen from the hub; ``tell`` and ``heard`` are the browser's end."""

    def __init__(self) -> None:
        self._in: asyncio.Queue[str | None] = asyncio.Queue()
        self.heard: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.stuck = False

    async def receive(self) -> str:
        text = await self._in.get()
        if text is None:
            raise ConnectionResetError
        return text

    async def send(self, text: str) -> None:
        if self.closed.done():
            raise ConnectionResetError
        if self.stuck:
            await asyncio.Event().wait()
        self.heard.put_nowait(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result((code, reason))
            self.leave()

    def tell(self, **frame: Any) -> None:
        self._in.put_nowait(json.dumps(frame))

    def tell_text(self, text: str) -> None:
        self._in.put_nowait(text)

    def leave(self) -> None:
        self._in.put_nowait(None)
        self.heard.put_nowait(None)


Behaviour = Callable[["Browser", str, dict[str, Any]], Awaitable[None]]


@dataclass
class Browser:
    account: str
    wire: Wire
    session: asyncio.Task[None]
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def live(self, behave: Behaviour) -> None:
        running: set[asyncio.Task[None]] = set()
        while (frame := await self.wire.heard.get()) is not None:
            if frame["type"] == "run":
                self.asked.append(frame["request"])
                task = asyncio.ensure_future(behave(self, frame["lease"], frame["request"]))  # type: ignore[arg-type]
                running.add(task)
                task.add_done_callback(running.discard)
            elif frame["type"] == "cancel":
                self.cancelled.append(frame["lease"])
        for task in running:
            task.cancel()

    def answer(self, lease: str, answer: dict[str, Any]) -> None:
        self.wire.tell(type="answer", lease=lease, answer=answer)


async def honest(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
    browser.answer(lease, said(asked))


async def liar(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
    browser.answer(lease, said(asked, lie=1))


async def silent(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
    pass


async def leaving(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
    browser.wire.leave()


def failing(error: JobError) -> Behaviour:
    async def behave(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
        browser.answer(lease, failed(asked, error))

    return behave


def slow(seconds: float, then: Behaviour = honest) -> Behaviour:
    async def behave(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
        for _ in range(int(seconds / 0.1)):
            await asyncio.sleep(0.1)
            browser.wire.tell(type="alive", leases=[lease])
        await then(browser, lease, asked)

    return behave


class World:
    """A hub, its place of trust, its browsers."""

    def __init__(self, draw: float | None, limits: Limits) -> None:
        self.reputations = StubReputations()
        self.asked: list[dict[str, Any]] = []
        self.trust: Callable[[dict[str, Any]], dict[str, Any]] = said
        self.now = 1_700_000_000.0
        rng = random.Random(3)
        if draw is not None:
            rng.random = lambda: draw  # type: ignore[method-assign]
        self.hub = Hub(self.reputations, self._trusted, self._redeem, limits=limits, wall=lambda: self.now, rng=rng)
        self._browsers: list[tuple[Browser, asyncio.Task[None]]] = []

    async def _trusted(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(asked)
        await asyncio.sleep(0)
        return self.trust(asked)

    def _redeem(self, ticket: str, network: str) -> str:
        if ticket == "forged":
            raise Unauthorized("the ticket is not one of ours")
        return ticket

    def call(self) -> tuple[Wire, asyncio.Task[None]]:
        wire = Wire()
        return wire, asyncio.create_task(self.hub.serve(wire, f"n{len(self._browsers)}"))

    async def join(
        self,
        account: str,
        behave: Behaviour = honest,
        known: Reputation | None = None,
        slots: int = 1,
        network: str = "",
    ) -> Browser:
        if known is not None:
            self.reputations._known[account] = known
        wire = Wire()
        session = asyncio.create_task(self.hub.serve(wire, network or f"net-{account}"))
        wire.tell(type="hello", version=1, ticket=account, kernel="portable", slots=slots)
        welcome = await wire.heard.get()
        assert welcome is not None, wire.closed
        assert welcome["type"] == "welcome"
        browser = Browser(account, wire, session)
        self._browsers.append((browser, asyncio.create_task(browser.live(behave))))
        return browser

    async def aclose(self) -> None:
        await self.hub.aclose()
        for browser, life in self._browsers:
            browser.wire.leave()
            await asyncio.gather(browser.session, life)


@asynccontextmanager
async def world(draw: float | None = None, **limits: Any) -> AsyncIterator[World]:
    made = World(draw, Limits(**{"lease_s": 0.5, "hello_s": 0.3, **limits}))
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture(autouse=True)
def _asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "_ASK_AGAIN_S", (0.0, 0.02, 0.02))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class TestWhatIsGivenOut:
    @in_loop
    async def test_a_strangers_answer_is_checked(self) -> None:
        async with world(NEVER) as w:
            browser = await w.join("alice")
            answer = await w.hub.compute(request())
            assert values(answer) == values(said(request()))
            assert answer["jobId"] == "j0"
            assert (len(browser.asked), len(w.asked)) == (1, 1)
            assert w.reputations.get("alice") == Reputation(checked=1, verified_bytes=100)

    @in_loop
    async def test_a_strangers_lie_is_not_given_out_and_it_is_banned(self) -> None:
        async with world(NEVER) as w:
            browser = await w.join("mallory", liar)
            assert values(await w.hub.compute(request())) == values(said(request()))
            assert (await browser.wire.closed)[0] == Close.BANNED
            assert w.reputations.get("mallory").banned
            assert w.hub.stats().banned == 1
            assert values(await w.hub.compute(request())) == "busy"
            wire, session = w.call()
            wire.tell(type="hello", version=1, ticket="mallory", kernel="portable", slots=1)
            assert (await wire.closed)[0] == Close.BANNED
            await session

    @in_loop
    async def test_two_who_agree_are_believed(self) -> None:
        async with world(NEVER) as w:
            for name in ("alice", "bob"):
                await w.join(name, known=VETERAN)
            answer = await w.hub.compute(request())
            assert values(answer) == values(said(request()))
            assert (answer["region"], answer["etag"], w.asked) == ("browser", '"v1"', [])
            assert [w.reputations.get(name).agreed for name in ("alice", "bob")] == [1, 1]
            assert [len(w.reputations.take(name)) for name in ("alice", "bob")] == [1, 1]
            assert w.hub.stats().agreed == 1

    @in_loop
    async def test_even_a_veteran_is_checked_now_and_then(self) -> None:
        async with world(SURE) as w:
            alice = await w.join("alice", known=VETERAN)
            await w.join("bob", known=VETERAN)
            await w.hub.compute(request())
            assert len(w.asked) == 1
            assert sum(w.reputations.get(name).checked for name in ("alice", "bob")) == 2 * VETERAN.checked + 1
            assert len(alice.asked) <= 1
            assert w.reputations.take("alice") == [], "what is confirmed needs no second look"

    @pytest.mark.parametrize(
        ("account", "network", "known"),
        [("bob", "net-alice", VETERAN), ("alice", "elsewhere", VETERAN), ("bob", "", Reputation(checked=9))],
    )
    @in_loop
    async def test_who_may_not_vouch_is_not_asked_to(self, account: str, network: str, known: Reputation) -> None:
        async with world(NEVER) as w:
            await w.join("alice", known=VETERAN)
            await w.join(account, known=known, network=network)
            assert values(await w.hub.compute(request())) == values(said(request()))
            assert len(w.asked) == 1

    @in_loop
    async def test_two_who_differ_are_judged_by_a_place_of_trust(self) -> None:
        async with world(NEVER) as w:
            await w.join("alice", known=VETERAN)
            mallory = await w.join("mallory", liar, known=VETERAN)
            assert values(await w.hub.compute(request())) == values(said(request()))
            await mallory.wire.closed
            assert w.reputations.get("alice").checked == VETERAN.checked + 1
            assert not w.reputations.get("alice").banned
            assert w.hub.stats().tie_breaks == 1

    @in_loop
    async def test_what_is_said_of_another_version_bans_nobody(self) -> None:
        async def older(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
            browser.answer(lease, said(asked, lie=1, etag='"v0"'))

        async with world(SURE) as w:
            await w.join("alice", older, known=VETERAN)
            assert values(await w.hub.compute(request())) == values(said(request()))
            known = w.reputations.get("alice")
            assert (known.banned, known.checked, known.unclear) == (False, 0, 1)

    @pytest.mark.parametrize("steady", [True, False])
    @in_loop
    async def test_where_no_version_is_known_the_place_of_trust_is_asked_twice(self, steady: bool) -> None:
        async with world(SURE) as w:
            w.trust = lambda asked: said(asked, lie=0 if steady else len(w.asked) * 8, etag=None)
            await w.join("alice", liar, known=VETERAN)
            await w.hub.compute(request())
            await w.hub.settled()
            assert len(w.asked) == 2
            assert w.reputations.get("alice").banned is steady
            assert w.reputations.get("alice").unclear == (not steady)


class TestAfterABan:
    @in_loop
    async def test_what_nobody_of_trust_has_confirmed_is_computed_again(self) -> None:
        """Two in league have passed a lie; one is caught later. Its friend goes with it, and nobody else."""
        async with world(NEVER) as w:
            mallory = await w.join("mallory", liar, known=VETERAN)
            friend = await w.join("friend", liar, known=VETERAN)
            passed = await w.hub.compute(request())
            assert values(passed) != values(said(request())), "this is what the stakes are for"
            w.reputations.keep(
                "mallory",
                {"request": request(1), "answer": said(request(1)), "accounts": ["mallory", "bob"], "id": "k"},
            )
            friend.wire.tell(type="pause")
            await asyncio.sleep(0.01)
            assert values(await w.hub.compute(request(2))) == values(said(request(2)))
            assert {(await one.wire.closed)[0] for one in (mallory, friend)} == {Close.BANNED}
            await w.hub.settled()
            assert w.reputations.get("friend").banned
            assert not w.reputations.get("bob").banned
            assert (w.hub.stats().found_wrong, w.hub.stats().banned) == (1, 2)
            assert w.reputations.take("mallory") == w.reputations.take("friend") == []

    @in_loop
    async def test_what_may_have_changed_since_costs_a_partner_its_credit_alone(self) -> None:
        async with world(SURE) as w:
            bob = Reputation(checked=50)
            w.reputations._known["bob"] = bob
            told = said(request(1), lie=1, etag=None)
            w.reputations.keep(
                "mallory", {"request": request(1), "answer": told, "accounts": ["mallory", "bob"], "id": "k"}
            )
            await w.join("mallory", liar, known=VETERAN)
            await w.hub.compute(request())
            await w.hub.settled()
            assert w.reputations.get("bob") == Reputation(unclear=1)

    @in_loop
    async def test_its_pending_work_goes_to_others(self) -> None:
        """One of its two connections lies while the other one still computes."""
        async with world(SURE) as w:
            busy = await w.join("mallory", silent, known=VETERAN)
            held = asyncio.create_task(w.hub.compute(request(1)))
            await until(lambda: bool(busy.asked))
            back = asyncio.Event()

            async def lying_later(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
                await back.wait()
                await liar(browser, lease, asked)

            other = await w.join("mallory", lying_later)
            alice = await w.join("alice")
            alice.wire.tell(type="pause")
            await asyncio.sleep(0.01)
            lied = asyncio.create_task(w.hub.compute(request(2)))
            await until(lambda: bool(other.asked))
            alice.wire.tell(type="resume")
            await until(lambda: w.hub.stats().idle == 1)
            back.set()
            assert values(await lied) == values(said(request(2)))
            assert (await busy.wire.closed)[0] == Close.BANNED
            assert values(await held) == values(said(request(1)))
            assert w.hub.stats().running == 0

    @in_loop
    async def test_an_answer_that_comes_after_its_ban_is_worth_nothing(self) -> None:
        async with world(NEVER) as w:
            browser = await w.join("mallory", slow(0.2), known=VETERAN)
            held = asyncio.create_task(w.hub.compute(request(timeout=1000)))
            await until(lambda: bool(browser.asked))
            w.reputations.record("mallory", "wrong", 0, w.now)  # by another hub
            assert values(await held) == "internal"
            assert (await browser.wire.closed)[0] == Close.BANNED


class TestWhileNobodyCanBeAsked:
    @in_loop
    async def test_nothing_is_given_out_and_a_lie_is_found_later(self) -> None:
        away = True
        async with world(SURE) as w:
            w.trust = lambda asked: failed(asked, Busy("no room")) if away else said(asked)
            mallory = await w.join("mallory", liar, known=VETERAN)
            assert values(await w.hub.compute(request())) == "busy"
            assert w.hub.stats().idle == 0, "who is in dispute gets no work"
            away = False
            await w.hub.settled()
            assert w.reputations.get("mallory").banned
            assert (await mallory.wire.closed)[0] == Close.BANNED

    @in_loop
    async def test_who_was_honest_goes_on(self) -> None:
        async with world(SURE) as w:
            w.trust = lambda asked: failed(asked, Busy("no room")) if len(w.asked) == 1 else said(asked)
            await w.join("alice", known=VETERAN)
            assert values(await w.hub.compute(request())) == "busy"
            await w.hub.settled()
            assert w.hub.stats().idle == 1
            assert w.reputations.get("alice").checked == VETERAN.checked + 1

    @in_loop
    async def test_who_cannot_be_judged_for_long_begins_anew(self) -> None:
        async with world(SURE) as w:
            w.trust = lambda asked: failed(asked, Busy("no room"))
            await w.join("alice", known=VETERAN)
            await w.hub.compute(request())
            await w.hub.settled()
            assert w.reputations.get("alice").checked == 0
            assert w.hub.stats().idle == 1

    @in_loop
    async def test_a_lie_that_leaves_a_second_browser_no_time_is_looked_at_all_the_same(self) -> None:
        async with world(NEVER) as w:
            mallory = await w.join("mallory", slow(0.3, liar), known=VETERAN)
            bob = await w.join("bob", slow(5), known=VETERAN)
            bob.wire.tell(type="pause")
            await asyncio.sleep(0.01)
            held = asyncio.create_task(w.hub.compute(request(timeout=600)))
            await until(lambda: bool(mallory.asked))
            bob.wire.tell(type="resume")
            assert values(await held) == "timeout"
            await w.hub.settled()
            assert w.reputations.get("mallory").banned
            assert not w.reputations.get("bob").banned

    @in_loop
    async def test_reputations_that_cannot_be_read(self) -> None:
        def away(*_: Any) -> Any:
            raise judge.BrokerUnavailable("no Redis")

        async with world(SURE) as w:
            await w.join("alice")
            w.reputations.get = away  # type: ignore[method-assign]
            answer = await w.hub.compute(request())
            assert values(answer) == "internal"
            assert "no Redis" in answer["error"]["message"]
            wire, session = w.call()
            wire.tell(type="hello", version=1, ticket="bob", kernel="portable", slots=1)
            assert (await wire.closed)[0] == Close.GOING
            await session


@in_loop
async def test_credit_that_is_at_stake_is_not_staked_twice() -> None:
    """Else many lies at once, each vouched for by a friend, would be paid for once."""
    async with world(0.5) as w:
        known = Reputation(checked=5000)  # of whom one answer in three is checked
        alice = await w.join("alice", slow(0.2), known, slots=3)
        others = [await w.join(f"bob{at}", slow(0.3), known) for at in range(3)]
        for bob in others:
            bob.wire.tell(type="pause")
        await asyncio.sleep(0.01)
        held = [asyncio.create_task(w.hub.compute(request(at))) for at in range(3)]
        await until(lambda: len(alice.asked) == 3)
        for bob in others:
            bob.wire.tell(type="resume")
        answers = await asyncio.gather(*held)
        assert [answer["success"] for answer in answers] == [True] * 3
        assert (w.hub.stats().agreed, w.hub.stats().checked) == (1, 2)
        assert w.hub._judge._staked == {}


class TestFailures:
    @in_loop
    async def test_a_browser_alone_fails_no_job(self) -> None:
        async with world(NEVER) as w:
            await w.join("alice", failing(SourceNotFound("there is no such object")), known=VETERAN)
            await w.join("bob", failing(SourceNotFound("there is no such object")), known=VETERAN)
            assert values(await w.hub.compute(request())) == values(said(request()))
            assert len(w.asked) == 1
            assert {w.reputations.get(name).banned for name in ("alice", "bob")} == {False}

    @in_loop
    async def test_one_that_a_place_of_trust_confirms_stands(self) -> None:
        async with world(NEVER) as w:
            w.trust = lambda asked: failed(asked, SourceNotFound("there is no such object"))
            await w.join("alice", failing(SourceNotFound("<script>")), known=VETERAN)
            answer = await w.hub.compute(request())
            assert answer["error"]["message"] == "there is no such object"
            assert w.reputations.get("alice") == VETERAN
            assert not w.reputations.closed("https://data.example.com", w.now)

    @in_loop
    async def test_values_where_a_place_of_trust_finds_none_are_not_given_out(self) -> None:
        async with world(SURE) as w:
            w.trust = lambda asked: failed(asked, SourceNotFound("there is no such object"))
            await w.join("alice", known=VETERAN)
            assert values(await w.hub.compute(request())) == "source_not_found"
            assert w.reputations.get("alice").credit == 0

    @in_loop
    async def test_a_source_that_browsers_cannot_read_is_learnt(self) -> None:
        async with world(NEVER) as w:
            alice = await w.join("alice", failing(SourceNotFound("blocked")), known=VETERAN)
            await w.hub.compute(request())
            answer = await w.hub.compute(request(1))
            assert values(answer) == "internal"
            assert "CORS" in answer["error"]["message"]
            assert not answer["error"]["retryable"]
            assert len(alice.asked) == 1
            await w.hub.compute(request(2, url="https://other.example.com/x"))
            assert len(alice.asked) == 2
            w.now += 3600
            await w.hub.compute(request(3))
            assert len(alice.asked) == 3, "one network's word is not for long"

    @in_loop
    async def test_who_only_fails_is_left_alone_for_a_while(self) -> None:
        async with world(NEVER) as w:
            alice = await w.join("alice", failing(Internal("broken")))
            seen = [values(await w.hub.compute(request(at))) for at in range(7)]
            assert set(seen) == {"busy"}
            assert len(alice.asked) == 5
            w.now += REST_S
            await w.hub.compute(request())
            assert len(alice.asked) == 6
            assert not w.reputations.get("alice").banned

    @pytest.mark.parametrize(
        "wrong",
        [{"jobId": "other"}, {"bytesProcessed": 99}, {"results": []}, {"results": [{"op": "crc32c", "value": -1}]},
         {"success": "yes"}, {"etag": "W/x"}, {"region": "\x1b[2J"}, {"executionTimeMs": 1e300}],
    )  # fmt: skip
    @in_loop
    async def test_what_cannot_be_an_answer_is_none(self, wrong: dict[str, Any]) -> None:
        async def nonsense(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
            browser.answer(lease, said(asked, **wrong))

        async with world(NEVER) as w:
            await w.join("alice", nonsense)
            assert values(await w.hub.compute(request())) == "busy"
            assert w.reputations.get("alice").failures == 1
            await w.join("bob")
            assert values(await w.hub.compute(request())) == values(said(request()))


@in_loop
async def test_what_no_place_may_read_no_browser_is_told_of() -> None:
    async with world(SURE) as w:
        w.hub._check = functools.partial(check_url, settings=Settings())
        alice = await w.join("alice")
        for url in ("http://10.0.0.1/x", "http://[::1/", "s3://bucket/key", "file:///etc/passwd", "http://metadata/"):
            assert values(await w.hub.compute(request(url=url))) in ("forbidden_source", "bad_program"), url
        assert values(await w.hub.compute({"program": None})) == "bad_program"
        assert alice.asked == []
        assert values(await w.hub.compute(request())) == values(said(request()))


class TestLeases:
    @pytest.mark.parametrize("lost", [leaving, silent, failing(Busy("no room"))])
    @in_loop
    async def test_what_a_browser_does_not_finish_goes_to_another(self, lost: Behaviour) -> None:
        async with world(SURE) as w:
            await w.join("alice", lost)
            await w.join("bob", silent if lost is leaving else lost)
            await w.join("carol")
            assert values(await w.hub.compute(request())) == values(said(request()))

    @in_loop
    async def test_the_silent_are_put_out(self) -> None:
        async with world(SURE, lease_s=0.1) as w:
            alice = await w.join("alice", silent)
            assert values(await w.hub.compute(request())) == "busy"
            assert (await alice.wire.closed)[0] == Close.SILENT
            await alice.session
            assert w.hub.stats().browsers == 0

    @in_loop
    async def test_a_lease_that_is_renewed_lives(self) -> None:
        async with world(SURE, lease_s=0.3) as w:
            await w.join("alice", slow(0.8))
            assert values(await w.hub.compute(request())) == values(said(request()))
            assert w.hub.stats().rehanded == 0

    @in_loop
    async def test_a_program_is_given_back_after_some_browsers(self) -> None:
        async with world(SURE, hands=2) as w:
            for at in range(4):
                await w.join(f"a{at}", failing(Busy("no room")))
            assert values(await w.hub.compute(request())) == "internal"
            assert w.hub.stats().rehanded == 2

    @in_loop
    async def test_the_deadline_takes_it_back(self) -> None:
        async with world(SURE) as w:
            alice = await w.join("alice", slow(3))
            answer = await w.hub.compute(request(timeout=300))
            assert values(answer) == "timeout"
            await until(lambda: bool(alice.cancelled))
            assert w.reputations.get("alice").failures == 1
            assert w.hub.stats().running == 0

    @in_loop
    async def test_who_asked_may_lose_interest(self) -> None:
        async with world(SURE) as w:
            alice = await w.join("alice", slow(0.3))
            held = asyncio.create_task(w.hub.compute(request()))
            await until(lambda: bool(alice.asked))
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            await until(lambda: bool(alice.cancelled))
            assert w.reputations.get("alice").failures == 0
            await asyncio.sleep(0.4)
            assert not alice.wire.closed.done(), "an answer that was on its way does no harm"
            assert w.hub.stats().idle == 1

    @in_loop
    async def test_the_paused_are_left_alone_and_finish_what_they_have(self) -> None:
        async with world(SURE) as w:
            alice = await w.join("alice", slow(0.2), slots=2)
            held = asyncio.create_task(w.hub.compute(request()))
            await until(lambda: bool(alice.asked))
            alice.wire.tell(type="pause")
            await asyncio.sleep(0.01)
            assert values(await w.hub.compute(request(1))) == "busy"
            assert values(await held) == values(said(request()))
            alice.wire.tell(type="resume")
            await asyncio.sleep(0.01)
            assert values(await w.hub.compute(request(2))) == values(said(request(2)))

    @in_loop
    async def test_a_program_that_meets_a_pause_goes_to_another_and_is_no_failure(self) -> None:
        async with world(SURE, lease_s=0.2) as w:
            alice = await w.join("alice", failing(Busy("this browser is paused")), known=VETERAN)
            assert values(await w.hub.compute(request())) == "busy"
            assert values(await w.hub.compute(request(1))) == "busy"
            assert len(alice.asked) == 1, "it is not asked again while it rests"
            assert w.reputations.get("alice") == VETERAN
            await asyncio.sleep(0.25)
            assert w.hub.stats().idle == 1
            await w.hub.compute(request(2))
            assert (len(alice.asked), w.hub.stats().idle) == (2, 0)
            alice.wire.tell(type="resume")
            await until(lambda: w.hub.stats().idle == 1)

    @in_loop
    async def test_what_is_too_large_for_its_owners_limit_is_no_failure_and_not_sent_again(self) -> None:
        async with world(SURE) as w:
            alice = await w.join("alice", failing(TooLarge("over a limit of 99 bytes")), known=VETERAN)
            for at in range(7):
                assert values(await w.hub.compute(request(at))) == "busy"
            assert len(alice.asked) == 1
            assert w.reputations.get("alice") == VETERAN
            small = request()
            small["program"]["length"] = 99
            await w.hub.compute(small)
            assert len(alice.asked) == 2

    @in_loop
    async def test_a_slot_holds_one_program(self) -> None:
        async with world(SURE) as w:
            await w.join("alice", slow(0.3), slots=2)
            answers = await asyncio.gather(*(w.hub.compute(request(at)) for at in range(3)))
            assert sorted(str(values(answer)) for answer in answers)[-1] == "busy"
            (refused,) = [answer for answer in answers if not answer["success"]]
            assert refused["error"]["retry_after_s"] == 1.0

    @in_loop
    async def test_programs_under_way_are_bounded(self) -> None:
        async with world(SURE, requests=1) as w:
            await w.join("alice", slow(0.2), slots=4)
            answers = await asyncio.gather(*(w.hub.compute(request(at)) for at in range(3)))
            assert [answer["success"] for answer in answers].count(True) == 1

    @in_loop
    async def test_a_request_that_is_none_asks_nobody(self) -> None:
        async with world(SURE) as w:
            alice = await w.join("alice")
            assert values(await w.hub.compute({"jobId": "j", "program": {}})) == "bad_program"
            assert alice.asked == []


class TestTheDoor:
    @pytest.mark.parametrize(
        ("text", "code"),
        [("", Close.BAD_FRAME), ("[]", Close.BAD_FRAME), ("x" * (MAX_FRAME + 1), Close.BAD_FRAME),
         ('{"type":"resume"}', Close.BAD_FRAME), ("[" * 60_000, Close.BAD_FRAME),
         ('{"type":"hello","version":1,"ticket":"forged","kernel":"k","slots":1}', Close.REFUSED),
         ('{"type":"hello","version":2,"ticket":"a","kernel":"k","slots":1}', Close.BAD_FRAME)],
    )  # fmt: skip
    @in_loop
    async def test_opens_to_a_good_hello_alone(self, text: str, code: int) -> None:
        async with world() as w:
            wire, session = w.call()
            wire.tell_text(text)
            found, reason = await wire.closed
            assert (found, bool(reason)) == (code, True)
            assert len(reason.encode()) <= 123, "what fits a close frame (RFC 6455, section 5.5)"
            await session
            assert w.hub.stats().browsers == 0

    @in_loop
    async def test_waits_for_it_for_so_long(self) -> None:
        async with world(hello_s=0.05) as w:
            wire, session = w.call()
            assert (await wire.closed)[0] == Close.SILENT
            await session

    @in_loop
    async def test_is_left_without_a_word(self) -> None:
        async with world() as w:
            wire, session = w.call()
            wire.leave()
            await session
            assert w.hub.stats().browsers == 0

    @in_loop
    async def test_lets_in_so_many(self) -> None:
        async with world(browsers=3, per_account=2) as w:
            await w.join("alice")
            await w.join("alice")
            for account, fits in (("alice", False), ("bob", True), ("carol", False)):
                wire, session = w.call()
                wire.tell(type="hello", version=1, ticket=account, kernel="k", slots=1)
                if fits:
                    assert (await wire.heard.get() or {})["type"] == "welcome"
                else:
                    assert (await wire.closed)[0] == Close.TOO_MANY
                    await session
            assert w.hub.stats().browsers == 3

    @pytest.mark.parametrize(
        "frame",
        [{"type": "hello", "version": 1, "ticket": "a", "kernel": "k", "slots": 1}, {"type": "alive", "leases": ["x"]},
         {"type": "answer", "lease": "x", "answer": {}}, {"type": "run"}],
    )  # fmt: skip
    @in_loop
    async def test_closes_behind_who_says_what_it_may_not(self, frame: dict[str, Any]) -> None:
        async with world() as w:
            alice = await w.join("alice")
            alice.wire.tell(**frame)
            assert (await alice.wire.closed)[0] == Close.BAD_FRAME
            await alice.session

    @in_loop
    async def test_closes_behind_who_talks_without_end(self) -> None:
        async with world(burst=5, frames_per_s=1) as w:
            alice = await w.join("alice")
            for _ in range(5):
                alice.wire.tell(type="resume")
            await asyncio.sleep(0.01)
            assert not alice.wire.closed.done()
            alice.wire.tell(type="resume")
            assert (await alice.wire.closed)[0] == Close.TOO_FAST

    @in_loop
    async def test_answers_that_were_asked_for_are_not_counted(self) -> None:
        async with world(SURE, burst=2, frames_per_s=0.001) as w:
            alice = await w.join("alice")
            for at in range(6):
                assert values(await w.hub.compute(request(at))) == values(said(request(at)))
            for _ in range(3):
                alice.answer("no-such-lease", said(request()))
            assert (await alice.wire.closed)[0] in (Close.BAD_FRAME, Close.TOO_FAST)

    @in_loop
    async def test_closes_behind_who_does_not_listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("packetfs_compute.volunteers.session._SEND_S", 0.05)
        async with world() as w:
            alice = await w.join("alice")
            alice.wire.stuck = True
            assert values(await w.hub.compute(request())) == "busy"
            assert alice.wire.closed.done()

    @in_loop
    async def test_takes_real_tickets(self) -> None:
        reputations = StubReputations()
        tickets = Tickets(b"0123456789abcdef", reputations.spend)

        async def nobody(asked: dict[str, Any]) -> dict[str, Any]:
            return said(asked)

        hub, codes = Hub(reputations, nobody, tickets.redeem), []
        ticket = tickets.issue("alice", "n")
        for _ in range(2):
            wire = Wire()
            session = asyncio.create_task(hub.serve(wire, "n"))
            wire.tell(type="hello", version=1, ticket=ticket, kernel="k", slots=1)
            await wire.heard.get()
            codes.append(hub.stats().browsers)
            wire.leave()
            await session
        assert codes == [1, 0]
        await hub.aclose()


async def garbage(browser: Browser, lease: str, asked: dict[str, Any]) -> None:
    rng = random.Random(asked["program"]["offset"])
    browser.wire.tell_text(
        rng.choice(["null", "{", '{"type":"answer"}', "x" * 70_000, '{"type":"alive","leases":["?"]}'])
    )


async def answers_for_all(w: World, count: int, at_once: int) -> list[dict[str, Any]]:
    """Send requests as a dispatcher does, that comes again when there is no room."""
    room = asyncio.Semaphore(at_once)

    async def one(at: int) -> dict[str, Any]:
        async with room:
            while True:
                answer = await w.hub.compute(request(at, timeout=2000))
                if answer["success"]:
                    return answer
                assert values(answer) in ("busy", "internal", "timeout")
                await asyncio.sleep(0.02)

    return await asyncio.gather(*(one(at) for at in range(count)))


@in_loop
async def test_a_hundred_browsers_of_every_kind() -> None:
    """No wrong value, no request lost, and nothing is left behind."""
    kinds: list[tuple[int, Behaviour]] = [
        (45, honest), (15, liar), (10, silent), (10, slow(0.4)), (10, garbage), (5, leaving), (5, failing(Busy("full"))),
    ]  # fmt: skip
    async with world(lease_s=0.3) as w:
        browsers = []
        for number, (count, behave) in enumerate(kinds):
            for at in range(count):
                known = Reputation(checked=30_000) if at % 2 and behave is not liar else Reputation(checked=at)
                browsers.append((await w.join(f"k{number}-{at}", behave, known, slots=1 + at % 3), behave))
        assert w.hub.stats().browsers == 100
        answers = await answers_for_all(w, 600, at_once=40)
        assert [values(answer) for answer in answers] == [values(said(request(at))) for at in range(600)]
        await w.hub.settled()
        stats = w.hub.stats()
        print(stats)
        assert (stats.under_way, stats.running, stats.found_wrong) == (0, 0, 0)
        assert stats.agreed > 0
        assert stats.checked > 0
        assert stats.rehanded > 0
        assert stats.banned == sum(w.reputations.get(browser.account).banned for browser, _ in browsers)
        for browser, behave in browsers:
            if behave is liar and browser.asked:
                assert w.reputations.get(browser.account).banned
            elif behave is not liar:
                assert not w.reputations.get(browser.account).banned
        assert stats.browsers == sum(
            not browser.wire.closed.done() and not browser.session.done() for browser, _ in browsers
        )
        assert len(w.hub._known) == stats.browsers
        assert w.hub._judge._staked == {} == w.hub._judge._disputed
    assert len(asyncio.all_tasks()) == 1
    assert w.hub.stats().browsers == 0
