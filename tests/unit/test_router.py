"""Which queue a task goes to: asked of a real Celery application, and of a router with a fleet and a clock of the test's."""

import inspect
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, patient

import tasks
from packetfs_compute import router as module
from packetfs_compute.celery import celery_config
from packetfs_compute.errors import BadPolicy, BrokerUnavailable
from packetfs_compute.fleet import Fleet, Leased, StubFleet
from packetfs_compute.names import OPS, PROBE_TASK, SWEEP_TASK, UPKEEP_QUEUE, task_of
from packetfs_compute.places import EgressRule, Prices, SubstrateSpec
from packetfs_compute.router import Router, wanted_of
from packetfs_compute.routing import Capabilities, Locality, Outcome, Policy, Snapshot, Wanted
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_fleet

NOW = 1_700_000_000.0
CRC = "packetfs.crc32c"
URL = "https://cdn.example.com/object"
S3 = "https://bucket.s3.us-east-1.amazonaws.com/object"
BAD = Outcome(ok=False, substrate_fault=True)

EDGE = SubstrateSpec("edge", "stub", provider="cloudflare", trust="verified", overhead_s=0.05, bytes_per_s=5e9)
NEAR = SubstrateSpec(
    "near", "stub", provider="aws", region="us-east-1", slots=1000, overhead_s=0.5, prices=Prices(usd_per_request=1e-6)
)
SETTINGS = Settings(substrates=(EDGE, NEAR), egress=(EgressRule("dear.example.com", 100.0, "cloudflare"),))
JOBS = {
    name: task
    for name in tasks.__all__
    if name != "scan" and "data_url" in inspect.signature(getattr(task := getattr(tasks, name), "run", task)).parameters
}
GIVEN: dict[str, Any] = {
    "data_url": S3, "imm": 7, "ops": [{"op": "crc32c"}], "offset": 3, "length": 12345, "etag": '"v1"',
    "policy": {"goal": "cheapest"}, "seed": "00000000000000ff", "window": 4096,
}  # fmt: skip


class Seen:
    """A fleet that is kept here, or a store that is away; and who asked for it."""

    def __init__(self) -> None:
        self.clock_s = NOW
        self.away = False
        self.fleet: StubFleet | None = None
        self.threads: list[str] = []
        self.opened = 0
        self.publishers: list[str | None] = []
        self._others = set(router_threads())
        self.router = Router(SETTINGS, self.open, self.clock, lambda: 0.5)

    def clock(self) -> float:
        return self.clock_s

    def open(self, settings: Settings, places: Iterable[Capabilities]) -> Fleet:
        assert settings is SETTINGS
        self.opened += 1
        self.threads.append(threading.current_thread().name)
        if self.away:
            raise BrokerUnavailable("it is away")
        self.fleet = self.fleet or StubFleet(places)
        return self  # type: ignore[return-value]

    def snapshot(self, now: float, publisher: str | None = None) -> Snapshot:
        self.threads.append(threading.current_thread().name)
        self.publishers.append(publisher)
        if self.away or self.fleet is None:
            raise BrokerUnavailable("it is away")
        return self.fleet.snapshot(now, publisher)

    def queue(self, *args: Any, name: str = CRC, **kwargs: Any) -> str:
        """Publish one, and return the queue without its prefix."""
        route = self.router(name, args or (URL,), kwargs, {}, None)
        assert route is not None
        return route["queue"].removeprefix("packetfs.")

    def break_(self, substrate: str) -> None:
        """Open the breaker of a place, and let the router see it."""
        self.router.refresh()
        assert self.fleet is not None
        for _ in range(5):
            self.fleet.record(Leased(substrate, "j"), BAD, self.clock_s)
        self.router.refresh()

    def close(self) -> None:
        """Let the thread find that nothing is to be published any more."""
        self.clock_s += 1e6
        for thread in self.running():
            thread.join(10)

    def running(self) -> list[threading.Thread]:
        """Return the threads that this test has started."""
        return [thread for thread in router_threads() if thread not in self._others]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    monkeypatch.setattr(module, "_REFRESH_S", 0.01)
    with closing(Seen()) as seen:
        yield seen


def router_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "packetfs-router"]


def eventually(holds: Callable[[], object], within_s: float = 20.0) -> None:
    give_up = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    with Celery("router", set_as_current=False) as app:
        app.conf.update(celery_config(Settings(redis_url="redis://127.0.0.1:1")))
        yield app


class TestInCelery:
    def queue(self, app: Celery, name: str, options: dict[str, Any] | None = None, **kwargs: Any) -> str:
        route = app.amqp.router.route(dict(options or {}), name, (URL,), kwargs)
        return str(route["queue"].name)

    @pytest.mark.parametrize("name", [task_of(op) for op in (*OPS, "program")])
    def test_a_task_goes_to_the_local_queue_where_there_is_no_other_place(self, app: Celery, name: str) -> None:
        assert self.queue(app, name) == "packetfs.local"
        assert self.queue(app, name, policy={"goal": "fastest"}) == "packetfs.local"

    def test_a_scan_goes_to_those_who_coordinate_them(self, app: Celery) -> None:
        assert self.queue(app, "packetfs.scan") == "packetfs.scans"
        assert self.queue(app, "packetfs.scan", policy={"goal": "never heard of"}) == "packetfs.scans"
        assert self.queue(app, "packetfs.scan", {"queue": "mine"}) == "mine"

    @pytest.mark.parametrize("queue", ["packetfs.cloudflare", "packetfs.local", "celery", "mine"])
    def test_an_explicit_queue_is_honoured(self, app: Celery, queue: str) -> None:
        assert self.queue(app, CRC, {"queue": queue}) == queue
        assert self.queue(app, CRC, {"queue": queue}, policy={"substrates": ["local"]}) == queue

    def test_a_foreign_task_gets_the_default_queue(self, app: Celery) -> None:
        assert self.queue(app, "mine.task") == app.conf.task_default_queue == "packetfs.local"

    def test_several_places_are_chosen_from(self) -> None:
        with Celery("router", set_as_current=False) as app:
            app.conf.update(celery_config(Settings(redis_url="redis://127.0.0.1:1", substrates=(EDGE, NEAR))))
            assert self.queue(app, CRC, policy={"substrates": ["near"]}) == "packetfs.near"
            assert self.queue(app, CRC, policy={"exclude": ["near", "local"]}) == "packetfs.edge"


@pytest.mark.parametrize("name", ["celery.ping", "mine.crc32c", "packetfs", "packetfsx.crc32c", "", "crc32c"])
def test_a_foreign_task_is_left_to_others(seen: Seen, name: str) -> None:
    assert seen.router(name, (), {"policy": {"substrates": ["local"]}}, {}) is None


@pytest.mark.parametrize("name", [PROBE_TASK, SWEEP_TASK])
def test_upkeep_has_a_queue_of_its_own(seen: Seen, name: str) -> None:
    assert seen.router(name, (), {}, {}) == {"queue": UPKEEP_QUEUE}


class TestWhatIsDeclared:
    """With no snapshot of the fleet, or none that is fresh."""

    @pytest.mark.parametrize(
        ("url", "length", "policy", "place"),
        [
            (URL, 1024, None, "local"),
            (URL, 10**10, {"goal": "fastest"}, "edge"),
            (URL, None, {"goal": "fastest"}, "local"),
            (S3, 10**10, {"goal": "cheapest"}, "near"),
            (S3, 1024, {"goal": "fastest"}, "local"),
            ("s3://bucket/key", 10**10, {"goal": "cheapest"}, "near"),
            ("https://dear.example.com/x", 10**9, None, "edge"),
            (URL, 1024, {"substrates": ["edge", "near"]}, "edge"),
            (URL, 1024, {"substrates": ["edge", "near"], "exclude": ["edge"]}, "near"),
            (URL, 1024, {"substrates": ["nowhere", "near"]}, "near"),
            (URL, 1024, {"exclude": ["local"], "trust": "own"}, "near"),
            (URL, 1024, {"exclude": ["local"], "trust": "any"}, "edge"),
        ],
    )
    def test_it_decides(self, seen: Seen, url: str, length: int | None, policy: Any, place: str) -> None:
        seen.away = True
        assert seen.queue(url, length=length, policy=policy) == place
        assert seen.router(CRC, (), {"data_url": url, "length": length, "policy": policy}, {}) == {
            "queue": f"packetfs.{place}"
        }

    def test_until_there_is_a_snapshot(self, seen: Seen) -> None:
        seen.away = True
        assert seen.queue() == "local"
        eventually(lambda: len(seen.threads) > 2)
        assert seen.queue() == "local"

    def test_when_the_store_is_gone_and_the_snapshot_stale(self, seen: Seen) -> None:
        seen.break_("local")
        assert seen.queue() == "edge"
        seen.away = True
        seen.clock_s += 10
        assert seen.queue() == "edge", "for ten seconds it is still the better guess"
        seen.clock_s += 0.1
        assert seen.queue() == "local"

    def test_a_substrate_that_cannot_be_built_is_left_out_and_the_others_stay(self, seen: Seen) -> None:
        broken = SubstrateSpec("broken", "no-such-kind")
        scripted = SubstrateSpec("scripted", "stub", script='{"nonsense": 1}')
        asked: list[list[str]] = []

        def opening(settings: Settings, places: Iterable[Capabilities]) -> Fleet:
            asked.append([place.name for place in places])
            raise BrokerUnavailable("it is away")

        router = Router(Settings(substrates=(broken, scripted, EDGE)), opening, seen.clock)
        assert [outlook.place.name for outlook in router.survey().outlooks] == ["local", "edge"]
        assert router(CRC, (URL,), {"policy": {"substrates": ["edge"]}}, {}) == {"queue": "packetfs.edge"}
        assert router(CRC, (URL,), {"policy": {"substrates": ["broken"]}}, {}) == {"queue": "packetfs.local"}
        eventually(lambda: asked)
        assert asked[0] == ["local", "edge"]


class TestWhatIsMeasured:
    def test_a_snapshot_is_taken_off_the_path_and_used(self, seen: Seen) -> None:
        assert seen.queue() == "local"
        eventually(lambda: seen.publishers)
        assert seen.fleet is not None
        for _ in range(5):
            seen.fleet.record(Leased("local", "j"), BAD, NOW)
        eventually(lambda: seen.queue() == "edge")

    def test_the_publisher_makes_no_network_call(self, seen: Seen) -> None:
        eventually(lambda: seen.queue() and len(seen.publishers) > 3)
        assert set(seen.threads) == {"packetfs-router"}
        seen.router.decide(Wanted(1), Policy())
        assert threading.current_thread().name not in seen.threads

    def test_one_that_publishes_counts_as_one_publisher(self, seen: Seen) -> None:
        seen.queue()
        seen.router.refresh()
        seen.router.refresh()
        assert len(set(seen.publishers) - {None}) == 1
        other = Router(SETTINGS, seen.open, seen.clock)
        other(CRC, (URL,), {}, {}, None)
        other.refresh()
        assert len(set(seen.publishers) - {None}) == 2
        assert seen.fleet is not None
        assert seen.fleet.snapshot(NOW).publishers == 2

    def test_one_that_only_looks_counts_as_none(self, seen: Seen) -> None:
        seen.router.decide(Wanted(1), Policy())
        seen.router.refresh()
        assert set(seen.publishers) == {None}

    def test_a_store_that_comes_back_is_found_again(self, seen: Seen) -> None:
        seen.break_("local")
        seen.away = True
        seen.clock_s += 11
        assert seen.queue() == "local"
        opened = seen.opened
        eventually(lambda: seen.queue() and seen.opened > opened + 2)
        seen.away = False
        seen.break_("local")
        assert seen.queue() == "edge"

    def test_what_it_has_sent_spreads_what_it_sends(self, seen: Seen) -> None:
        twins = tuple(SubstrateSpec(name, "stub", slots=1, overhead_s=1.0) for name in ("a", "b", "c"))
        settings = Settings(substrates=twins)
        seen.away = True  # so that no snapshot comes between
        router = Router(settings, lambda *_: seen.open(SETTINGS, ()), seen.clock, lambda: 0.5)
        policy = {"policy": {"exclude": ["local"]}, "length": 1}
        sent = [router(CRC, (URL,), policy, {}) for _ in range(6)]
        assert sorted(route["queue"] for route in sent if route) == ["packetfs.a", "packetfs.a", "packetfs.b",
                                                                     "packetfs.b", "packetfs.c", "packetfs.c"]  # fmt: skip

    def test_deciding_sends_nothing(self, seen: Seen) -> None:
        before = seen.router.decide(Wanted(1), Policy())
        assert [seen.router.decide(Wanted(1), Policy()) for _ in range(50)] == [before] * 50

    def test_what_was_sent_before_a_snapshot_is_in_it(self, seen: Seen) -> None:
        seen.router.refresh()
        idle = seen.router.decide(Wanted(1), Policy())
        seen.away = True
        looked = len(seen.threads)
        eventually(lambda: len(seen.threads) > looked + 1)
        for _ in range(200):
            seen.queue(policy={"substrates": ["near"]})
        for _ in range(2000):
            seen.queue(policy={"substrates": ["edge"]})
        assert seen.router.decide(Wanted(1), Policy()) != idle
        seen.away = False
        seen.router.refresh()
        assert seen.router.decide(Wanted(1), Policy()) == idle

    def test_what_a_job_has_tried_is_left_out(self, seen: Seen) -> None:
        assert seen.router.decide(Wanted(1), Policy(), {"local"}).substrate == "edge"
        assert seen.router.decide(Wanted(1), Policy(), {"local", "edge", "near"}).substrate is None


class TestThread:
    def test_it_ends_when_nothing_is_published_and_starts_again(self, seen: Seen) -> None:
        assert seen.running() == [], "nothing is done before it is asked"
        seen.queue()
        (thread,) = seen.running()
        assert thread.daemon
        seen.queue()
        assert seen.running() == [thread]
        seen.clock_s += 4.9
        looked = len(seen.publishers)
        eventually(lambda: len(seen.publishers) > looked + 2)
        seen.clock_s += 0.2
        thread.join(10)
        assert not thread.is_alive()
        seen.queue()
        (another,) = seen.running()
        assert another is not thread

    def test_many_publishers_start_one(self, seen: Seen) -> None:
        publishers = [threading.Thread(target=seen.queue) for _ in range(20)]
        for publisher in publishers:
            publisher.start()
        for publisher in publishers:
            publisher.join()
        assert len(seen.running()) == 1

    def test_after_a_fork_the_child_has_its_own(self, seen: Seen) -> None:
        eventually(lambda: seen.queue() and seen.publishers)
        parents = seen.publishers[0]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover  (in the child)
            told = "failed"
            try:
                seen.publishers.clear()
                seen.fleet = None
                assert not router_threads()
                eventually(lambda: seen.queue() == "local" and seen.publishers)
                told = f"{seen.publishers[0]} {len(router_threads())}"
            finally:
                os.write(writing, told.encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        publisher, threads = told.split()
        assert threads == "1"
        assert publisher != parents


class TestArguments:
    """``length`` and ``policy`` are found wherever a caller puts them."""

    def test_every_task_is_here(self) -> None:
        assert {*OPS, "program"} <= set(JOBS)

    @pytest.mark.parametrize("name", JOBS)
    def test_by_position_and_by_name(self, name: str) -> None:
        task = JOBS[name]
        parameters = list(inspect.signature(task.run).parameters)
        for positional in range(len(parameters) + 1):
            args = [GIVEN[parameter] for parameter in parameters[:positional]]
            kwargs = {parameter: GIVEN[parameter] for parameter in parameters[positional:]}
            policy, wanted = wanted_of(task.name, args, kwargs, Settings())
            assert policy == Policy(goal="cheapest"), positional
            assert wanted.byte_count == (12345 if "length" in parameters else None), positional
            assert wanted == Wanted(wanted.byte_count, "https", Locality(0.09, "aws", "us-east-1")), positional

    @pytest.mark.parametrize("name", JOBS)
    def test_what_is_left_out_is_the_tasks_default(self, name: str) -> None:
        policy, wanted = wanted_of(JOBS[name].name, (URL,), {}, Settings())
        assert (policy, wanted) == (Policy(), Wanted(None, "https"))

    @pytest.mark.parametrize(
        ("raw", "byte_count"),
        [(0, 0), (1, 1), (1 << 45, 1 << 45), ((1 << 45) + 1, None), (-1, None), (None, None), (True, None), ("8", None),
         ([], None), pytest.param(HUGE, None, id="huge")],
    )  # fmt: skip
    def test_a_length_that_makes_no_sense_is_unknown(self, raw: object, byte_count: int | None) -> None:
        assert wanted_of(CRC, (URL, 0, raw), {}, Settings())[1].byte_count == byte_count
        assert wanted_of(CRC, (URL,), {"length": raw}, Settings())[1].byte_count == byte_count

    @pytest.mark.parametrize(
        ("url", "scheme"),
        [("https://host/x", "https"), ("HTTP://host/x", "http"), ("s3://b/k", "s3"), ("/srv/x", "file"),
         *((url, "https") for url in ("gopher://host/", "x", "", 7, None, ["https://host"]))],
    )  # fmt: skip
    def test_the_scheme(self, url: object, scheme: str) -> None:
        assert wanted_of(CRC, (url,), {}, Settings())[1].scheme == scheme
        assert wanted_of(CRC, (), {"data_url": url}, Settings())[1].scheme == scheme

    @pytest.mark.parametrize(
        ("url", "secret"),
        [
            ("s3://bucket/key", True),
            ("S3://bucket/key", True),
            ("https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab", True),
            ("https://storage.googleapis.com/b/k?x-goog-signature=ab", True),
            ("https://cdn.example/k?Expires=1&Signature=ab&Key-Pair-Id=K", True),
            ("https://a.blob.core.windows.net/c/k?sv=2024&sig=ab", True),
            ("https://cdn.example/signature?v=1&signed=no#Signature=ab", False),
            ("https://cdn.example/k?design=1", False),
            ("https://cdn.example/k", False),
        ],
    )
    def test_a_url_that_opens_the_object_is_known(self, url: str, secret: bool) -> None:
        assert wanted_of(CRC, (url,), {}, Settings())[1].secret is secret

    def test_where_the_bytes_live_is_told_by_the_settings(self) -> None:
        assert wanted_of(CRC, ("s3://b/k",), {}, Settings(s3_region="eu-west-1"))[1].source.region == "eu-west-1"
        elsewhere = Settings(s3_endpoint_url="https://account.r2.cloudflarestorage.com")
        assert wanted_of(CRC, ("s3://b/k",), {}, elsewhere)[1].source.provider == "cloudflare"
        assert wanted_of(CRC, ("https://dear.example.com/",), {}, SETTINGS)[1].source.usd_per_gb == 100

    def test_a_policy_that_is_none_is_told(self) -> None:
        for args, kwargs in (((URL, 0, None, None, []), {}), ((URL,), {"policy": "fastest"})):
            with pytest.raises(BadPolicy):
                wanted_of(CRC, args, kwargs, Settings())


@pytest.mark.parametrize(
    "policy",
    [
        {"substrates": ["nowhere"]},
        {"exclude": ["local", "edge", "near"]},
        {"substrates": []},
        {"max_cost_usd": 0, "exclude": ["local", "edge"]},
        {"goal": "best"},
        {"unknown": 1},
        [],
        "fastest",
        7,
        True,
        pytest.param({"max_cost_usd": HUGE}, id="huge"),
        {"max_cost_usd": 10**400},
    ],
)
def test_a_policy_that_makes_no_sense_or_leaves_no_place_is_a_workers_to_refuse(seen: Seen, policy: object) -> None:
    assert seen.queue(policy=policy) == "local"


QUEUES = [{"queue": f"packetfs.{name}"} for name in ("local", "edge", "near")]


@pytest.fixture(scope="module")
def steady() -> Iterator[Router]:
    """One router for all examples of a property."""
    with closing(Seen()) as seen:
        yield seen.router


class TestAnything:
    @patient
    @given(policy=json_values)
    def test_no_policy_at_all_stops_a_publisher(self, steady: Router, policy: object) -> None:
        assert steady(CRC, (URL,), {"policy": policy}, {}) in QUEUES

    @patient
    @given(name=st.text(), args=st.lists(json_values), kwargs=st.dictionaries(st.text(), json_values) | st.none())
    def test_nor_do_any_arguments(self, steady: Router, name: str, args: list[Any], kwargs: Any) -> None:
        assert steady("packetfs." + name, args, kwargs, {}, None, more=1) in [*QUEUES, {"queue": UPKEEP_QUEUE}]

    @patient
    @given(
        name=st.sampled_from(sorted(JOBS)),
        args=st.lists(json_values, max_size=7),
        kwargs=st.fixed_dictionaries(
            {}, optional={"data_url": json_values, "length": json_values, "policy": json_values}
        ),
    )
    def test_nor_do_any_of_the_known_ones(
        self, steady: Router, name: str, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        assert steady(JOBS[name].name, args, kwargs, {}) in QUEUES


class TestManyPlaces:
    """A fleet that is worth a shortlist, and publishers that are many."""

    SETTINGS = Settings(substrates=tuple(SubstrateSpec(f"p{n}", "stub", slots=4) for n in range(100)))

    now = NOW

    @pytest.fixture(autouse=True)
    def _in_the_end_nothing_is_published_any_more(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(module, "_REFRESH_S", 0.01)
        others = set(router_threads())
        yield
        self.now += 1e6
        for thread in set(router_threads()) - others:
            thread.join(10)

    def router(self, fleet: StubFleet, random: Any, settings: Settings = SETTINGS) -> Router:
        return Router(settings, lambda settings, places: fleet, lambda: self.now, random)

    def fleet(self) -> StubFleet:
        return StubFleet(one.capabilities for one in load_fleet(self.SETTINGS))

    def send(self, router: Router, count: int) -> Counter[str]:
        places: Counter[str] = Counter()
        for _ in range(count):
            route = router(CRC, (URL, 0, 1 << 20), {"policy": {"exclude": ["local"]}}, {}, None)
            assert route is not None
            places[route["queue"]] += 1
        return places

    def test_the_work_is_spread_over_the_shortlist_and_each_publisher_has_its_own(self) -> None:
        fleet = self.fleet()
        lists = []
        for seed in (1, 2):
            router = self.router(fleet, random.Random(seed).random)
            router.refresh()
            places = self.send(router, 200)
            assert 12 <= len(places) <= 28
            assert max(places.values()) <= 40
            lists.append(set(places))
        assert lists[0] != lists[1]

    def test_a_place_outside_the_shortlist_is_found_where_none_in_it_will_do(self) -> None:
        fleet = self.fleet()
        router = self.router(fleet, random.Random(3).random)
        router.refresh()
        for name in ("p7", "p93"):
            route = router(CRC, (URL,), {"policy": {"substrates": [name]}}, {}, None)
            assert route == {"queue": f"packetfs.{name}"}

    def test_with_other_publishers_in_mind_a_fast_place_is_not_overrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # The thread would look at the fleet when this machine lets it, and forget what was sent: here a turn a second does.
        monkeypatch.setattr(Router, "_start", lambda router: None)
        settings = Settings(substrates=(SubstrateSpec("near", "stub", slots=20, overhead_s=0.05),
                                        SubstrateSpec("far", "stub", slots=200, overhead_s=0.08)))  # fmt: skip
        fleet = StubFleet(one.capabilities for one in load_fleet(settings))
        shares = {}
        for others in (0, 30):
            for n in range(others):
                fleet.snapshot(self.now, f"other-{n}")
            router = self.router(fleet, random.Random(5).random, settings)
            policy = {"policy": {"exclude": ["local"]}}
            sent: Counter[str] = Counter()
            for n in range(300):
                if n % 50 == 0:
                    router.refresh()
                self.now += 0.02
                route = router(CRC, (URL, 0, 1024), policy, {}, None)
                sent[(route or {})["queue"]] += 1
                for again in range(others):
                    fleet.snapshot(self.now, f"other-{again}")
            shares[others] = sent["packetfs.near"] / 300
        assert shares[0] > 0.5, "alone it has the near place to itself"
        assert shares[30] < 0.3, "thirty others send as much, and it has room for a few"
