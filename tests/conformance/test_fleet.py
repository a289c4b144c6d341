"""Every fleet passes this suite: what the routing functions make of attempts and probes, and how leases bound them.

The stub is those functions; the real one does the same arithmetic in Lua at the store. So they are also compared with
each other, over random histories.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields, replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.processes import wait_until

from packetfs_compute.errors import BrokerUnavailable, Cancelled
from packetfs_compute.fleet import LEASE_S, Fleet, Leased, StubFleet
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.names import JOB_STATE, LEDGER_LEASES, LEDGER_OPEN, queue_of
from packetfs_compute.routing import Capabilities, Health, Outcome
from packetfs_compute.routing.breaker import Breaker, opened_at
from packetfs_compute.settings import Settings

NOW = 1_700_000_000.0


def place(name: str, slots: int | None = None) -> Capabilities:
    return Capabilities(name, "own", 256, 1 << 30, 60, frozenset({"https"}), slots=slots)


PLACES = (place("local"), place("fly", 3), place("far"))
GOOD = Outcome(ok=True, byte_count=1_000_000, seconds=0.5, cost_usd=0.25)
BAD = Outcome(ok=False, substrate_fault=True, seconds=0.1)
SOURCE_BAD = Outcome(ok=False, seconds=0.1)


def cancel(fleet: Fleet, job_id: str) -> None:
    """Have the fleet know a job as cancelled: as whoever sets it says, or by its result."""
    if isinstance(fleet, StubFleet):
        fleet.cancelled.add(job_id)
    else:
        state = {"status": "REVOKED", "result": {}, "task_id": job_id, "packetfs_cancelled": True}
        fleet._client.set(JOB_STATE + job_id, json.dumps(state))  # type: ignore[attr-defined]


@pytest.fixture(params=["stub", "redis"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    if request.param == "stub":
        yield StubFleet(PLACES)
    else:
        yield open_fleet(request.getfixturevalue("redis_settings"), PLACES)


def health(fleet: Fleet, name: str = "fly", now: float = NOW) -> Health:
    return next(member.health for member in fleet.snapshot(now).members if member.place.name == name)


def test_a_fleet_that_nothing_is_known_of(fleet: Fleet) -> None:
    snapshot = fleet.snapshot(NOW)
    assert [member.place for member in snapshot.members] == list(PLACES)
    assert {member.health for member in snapshot.members} == {Health()}
    assert (snapshot.at, snapshot.publishers) == (NOW, 1)


class TestRecord:
    def test_an_attempt_is_learnt_from(self, fleet: Fleet) -> None:
        fleet.begin(Leased("fly", "j1"), NOW)
        returned, granted = fleet.record(Leased("fly", "j1"), GOOD, NOW + 1)
        assert not granted
        seen = health(fleet)
        assert seen == returned
        assert (seen.weight, seen.sum_x, seen.sum_y, seen.sum_xx, seen.sum_xy) == (1, 1, 0.5, 1, 0.5)
        assert (seen.attempts, seen.byte_count, seen.cost_usd) == (1, 1_000_000, 0.25)
        assert (seen.calls, seen.failures, seen.streak, seen.in_flight) == (1, 0, 0, 0)
        assert health(fleet, "local") == Health()

    def test_what_is_old_fades(self, fleet: Fleet) -> None:
        fleet.record(Leased("fly", "j1"), GOOD, NOW)
        fleet.record(Leased("fly", "j2"), BAD, NOW + 30)
        seen = health(fleet)
        assert seen.weight == pytest.approx(math.exp(-30 / 300))
        assert seen.calls == pytest.approx(1 + math.exp(-1))
        assert (seen.failures, seen.surprise_s) == (1, 5)

    def test_a_source_that_fails_says_nothing_of_the_place(self, fleet: Fleet) -> None:
        for _ in range(50):
            fleet.record(Leased("fly", "j1"), SOURCE_BAD, NOW)
        seen = health(fleet)
        assert (seen.calls, seen.streak, seen.breaker.state, seen.attempts) == (0, 0, "closed", 50)

    def test_a_surprise_counts_at_once(self, fleet: Fleet) -> None:
        fleet.record(Leased("fly", "j1"), replace(GOOD, surprise_s=2.0), NOW)
        fleet.record(Leased("fly", "j1"), GOOD, NOW + 10)
        assert health(fleet).surprise_s == pytest.approx(2 * math.exp(-1))

    def test_a_place_that_asks_to_be_left_alone_is(self, fleet: Fleet) -> None:
        fleet.record(Leased("fly", "j1"), replace(BAD, retry_after_s=7), NOW)
        fleet.record(Leased("fly", "j1"), replace(BAD, retry_after_s=2), NOW)
        assert health(fleet).busy_until == NOW + 7
        fleet.record(Leased("fly", "j1"), replace(BAD, retry_after_s=9999), NOW)
        assert health(fleet).busy_until == NOW + 300

    def test_the_retry_budget(self, fleet: Fleet) -> None:
        wants = replace(SOURCE_BAD, wants_retry=True)
        granted = [fleet.record(Leased("fly", "j1"), wants, NOW)[1] for _ in range(300)]
        assert sum(granted) == pytest.approx(160, abs=1), "100 to begin with, and one earned by every five calls"
        assert all(granted[:100])
        assert sum(granted[-100:]) == pytest.approx(20, abs=1)
        granted = [fleet.record(Leased("fly", "j1"), wants, NOW + 1)[1] for _ in range(20)]
        assert 12 <= sum(granted) <= 15, "ten a second are earned in any case"


class TestBreaker:
    def test_five_failures_in_a_row_open_it(self, fleet: Fleet) -> None:
        for count in range(5):
            assert health(fleet).breaker.state == "closed", count
            fleet.record(Leased("fly", "j1"), replace(BAD, jitter=1.5), NOW)
        assert health(fleet).breaker == Breaker("open", NOW, NOW + 7.5, 1)
        assert health(fleet).opened == 1

    def test_the_one_that_opened_it_can_tell(self, fleet: Fleet) -> None:
        moments = [1_764_000_000.123457 + at / 7 for at in range(8)]
        told = [opened_at(fleet.record(Leased("fly", "j1"), BAD, now)[0].breaker, now) for now in moments]
        assert told == [False] * 4 + [True] + [False] * 3
        probed = [opened_at(fleet.probed("far", False, now).breaker, now) for now in moments]
        assert probed == [False] * 2 + [True] + [False] * 5

    def test_so_does_a_success_rate_below_four_fifths(self, fleet: Fleet) -> None:
        for outcome in (GOOD, GOOD, BAD, GOOD, GOOD, BAD):
            fleet.record(Leased("fly", "j1"), outcome, NOW)
        assert health(fleet).breaker.state == "open"

    def test_it_closes_after_three_good_trials_and_forgets(self, fleet: Fleet) -> None:
        for _ in range(5):
            fleet.record(Leased("fly", "j1"), BAD, NOW)
        fleet.record(Leased("fly", "late"), GOOD, NOW + 1)
        assert health(fleet).breaker.state == "open", "that attempt began before it opened"
        for trial in range(3):
            fleet.record(Leased("fly", "j1"), GOOD, NOW + 6 + trial)
        seen = health(fleet)
        assert seen.breaker == Breaker("closed", NOW + 8, 0, 1)
        assert (seen.calls, seen.failures, seen.streak, seen.surprise_s) == (0, 0, 0, 0)

    def test_it_stays_open_longer_each_time(self, fleet: Fleet) -> None:
        now, times = NOW, []
        for _ in range(5):
            fleet.record(Leased("fly", "j1"), BAD, now)
        for _ in range(9):
            opened = health(fleet).breaker
            times.append(opened.until - opened.since)
            now = opened.until
            fleet.record(Leased("fly", "j1"), BAD, now)
        assert times == [5, 10, 20, 40, 80, 160, 300, 300, 300]

    def test_three_bad_probes_open_it_and_two_good_ones_let_it_try(self, fleet: Fleet) -> None:
        for count in range(3):
            assert health(fleet).breaker.state == "closed", count
            fleet.probed("fly", False, NOW + count)
        assert health(fleet).breaker.state == "open"
        fleet.probed("fly", True, NOW + 3)
        assert health(fleet).breaker.state == "open"
        assert fleet.probed("fly", True, NOW + 4).breaker.state == "half_open"
        assert health(fleet).probed_at == NOW + 4


class TestLeases:
    def test_no_more_run_at_once_than_there_are_slots(self, fleet: Fleet) -> None:
        assert [fleet.begin(Leased("fly", f"j{n}"), NOW) for n in range(5)] == [True, True, True, False, False]
        assert health(fleet).in_flight == 3
        fleet.record(Leased("fly", "j0"), GOOD, NOW)
        assert fleet.begin(Leased("fly", "j4"), NOW)

    def test_asking_twice_takes_one(self, fleet: Fleet) -> None:
        assert [fleet.begin(Leased("fly", "j1"), NOW) for _ in range(5)] == [True] * 5
        assert health(fleet).in_flight == 1

    def test_a_place_without_a_limit_takes_all(self, fleet: Fleet) -> None:
        assert all(fleet.begin(Leased("local", f"j{n}"), NOW) for n in range(50))
        assert health(fleet, "local").in_flight == 50

    def test_a_lease_that_nobody_renews_ends(self, fleet: Fleet) -> None:
        for n in range(3):
            fleet.begin(Leased("fly", f"j{n}"), NOW)
        fleet.renew([Leased("fly", "j1")], NOW + LEASE_S - 1)
        assert health(fleet, now=NOW + LEASE_S - 0.5).in_flight == 3
        assert health(fleet, now=NOW + LEASE_S).in_flight == 1
        assert fleet.begin(Leased("fly", "j7"), NOW + LEASE_S)

    def test_renewing_what_is_over_begins_nothing(self, fleet: Fleet) -> None:
        fleet.renew([Leased("fly", "j1")], NOW)
        fleet.renew([], NOW)
        assert health(fleet).in_flight == 0


def script_runs(client: "redis.Redis[bytes]") -> int:
    told = client.info("commandstats")
    return sum(int(told.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))


class TestBeginning:
    def test_the_answer_comes_when_it_is_asked_for(self, fleet: Fleet) -> None:
        for n in range(4):
            with fleet.beginning(Leased("fly", f"j{n}"), NOW) as answer:
                assert answer() is (n < 3)
                assert answer() is (n < 3), "asking twice is fine"
        assert health(fleet).in_flight == 3

    def test_who_does_not_ask_has_begun_all_the_same(self, fleet: Fleet) -> None:
        for n in range(3):
            with fleet.beginning(Leased("fly", f"j{n}"), NOW):
                pass
        wait_until(lambda: health(fleet).in_flight == 3, "they have begun")
        assert not fleet.begin(Leased("fly", "j4"), NOW), "it gets its own answer"
        fleet.record(Leased("fly", "j0"), GOOD, NOW)
        assert fleet.begin(Leased("fly", "j4"), NOW)

    def test_what_was_cancelled_says_so_to_who_asks(self, fleet: Fleet) -> None:
        cancel(fleet, "j1")
        with fleet.beginning(Leased("fly", "j1"), NOW) as answer, pytest.raises(Cancelled):
            answer()
        with fleet.beginning(Leased("fly", "j1"), NOW):
            pass
        assert health(fleet) == Health()

    def test_it_is_one_command_on_a_connection_that_is_kept(
        self, redis_settings: Settings, redis_client: "redis.Redis[bytes]"
    ) -> None:
        fleet = open_fleet(redis_settings, PLACES)
        assert fleet.begin(Leased("local", "j0"), NOW)
        commands, connection = script_runs(redis_client), fleet._client.client_id()
        with fleet.beginning(Leased("local", "j1"), NOW) as answer:
            assert answer()
            assert script_runs(redis_client) == commands + 1
            assert answer()
        assert script_runs(redis_client) == commands + 2
        assert fleet._client.client_id() == connection

    def test_an_answer_that_nobody_has_read_is_not_the_next_ones(
        self, redis_settings: Settings, redis_client: "redis.Redis[bytes]"
    ) -> None:
        fleet = open_fleet(redis_settings, PLACES)
        assert all(fleet.begin(Leased("fly", f"j{n}"), NOW) for n in range(3))
        redis_client.client_pause(100, all=False)
        with fleet.beginning(Leased("fly", "j1"), NOW):
            pass
        assert not fleet.begin(Leased("fly", "j4"), NOW)

    def test_a_server_that_has_never_seen_it_begins_it_at_once(
        self, redis_settings: Settings, redis_client: "redis.Redis[bytes]"
    ) -> None:
        fleet, other = open_fleet(redis_settings, PLACES), open_fleet(redis_settings, PLACES)
        redis_client.script_flush()
        with fleet.beginning(Leased("local", "j1"), NOW) as answer:
            wait_until(lambda: health(other, "local").in_flight == 1, "it has begun, and nobody has asked")
            assert answer()

    def test_it_is_done_again_where_the_answer_is_lost(
        self, redis_settings: Settings, redis_client: "redis.Redis[bytes]"
    ) -> None:
        fleet = open_fleet(redis_settings, PLACES)
        assert fleet.begin(Leased("local", "j0"), NOW)
        connection = fleet._client.client_id()
        redis_client.client_pause(100, all=False)
        with fleet.beginning(Leased("local", "j1"), NOW) as answer:
            redis_client.client_kill_filter(_id=str(connection))
            assert answer()
        assert health(fleet, "local").in_flight == 2
        assert not fleet._client.connection_pool._in_use_connections, "each gives its connection back"


class TestCancelled:
    def test_no_attempt_of_it_begins(self, fleet: Fleet) -> None:
        cancel(fleet, "j1")
        with pytest.raises(Cancelled):
            fleet.begin(Leased("fly", "j1"), NOW)
        assert health(fleet) == Health()
        assert fleet.begin(Leased("fly", "j2"), NOW)

    def test_one_that_runs_is_told_when_its_lease_is_renewed(self, fleet: Fleet) -> None:
        held = [Leased("fly", "j1"), Leased("fly", "j2"), Leased("local", "j3")]
        for leased in held:
            fleet.begin(leased, NOW)
        assert fleet.renew(held, NOW + 1) == frozenset()
        cancel(fleet, "j1")
        cancel(fleet, "j3")
        cancel(fleet, "j4")
        assert fleet.renew(iter(held), NOW + 2) == {"j1", "j3"}
        assert health(fleet, now=NOW + 1 + LEASE_S).in_flight == 2, "until its attempt has ended, it has its slot"
        assert fleet.renew(held[1:2], NOW + 3) == frozenset()


@pytest.mark.parametrize(
    ("state", "is_open", "cancelled"),
    [
        ('{"status": "REVOKED", "result": {}, "packetfs_cancelled": true}', True, True),
        ('{"status": "REVOKED", "result": {}, "packetfs_cancelled": true}', False, True),
        ('{"status": "REVOKED", "result": {}}', False, True),
        ('{"status": "REVOKED", "result": {}}', True, False),  # it was published anew, and its result would stand
        ('{"status": "RETRY", "result": "\\"packetfs_cancelled\\": true"}', False, False),
        ('{"status": "SUCCESS", "result": "{\\"status\\": \\"REVOKED\\""}', False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_what_of_a_jobs_state_says_that_it_was_cancelled(
    redis_settings: Settings, redis_client: "redis.Redis[bytes]", state: str | None, is_open: bool, cancelled: bool
) -> None:
    fleet, leased = open_fleet(redis_settings, PLACES), Leased("fly", "j1")
    assert fleet.begin(leased, NOW)
    lease = redis_client.zscore(LEDGER_LEASES, "j1")
    if state is not None:
        redis_client.set(JOB_STATE + "j1", state)
    if is_open:
        redis_client.zadd(LEDGER_OPEN, {"j1": NOW})
    assert fleet.renew([Leased("far", "j0"), leased], NOW) == ({"j1"} if cancelled else set())
    assert redis_client.zscore(LEDGER_LEASES, "j1") > lease, "it is renewed all the same"
    if cancelled:
        with pytest.raises(Cancelled):
            fleet.begin(leased, NOW)
    else:
        assert fleet.begin(leased, NOW)


class TestLoad:
    def test_who_consumes_is_known_for_a_while(self, fleet: Fleet) -> None:
        fleet.consuming("one", {"local": 2, "fly": 4}, NOW, 10)
        fleet.consuming("two", {"local": 3}, NOW, 20)
        slots = [member.health.slots for member in fleet.snapshot(NOW + 5).members]
        assert slots == [5, 4, 0], "nobody consumes the third"
        assert [member.health.slots for member in fleet.snapshot(NOW + 15).members] == [3, 0, 0]
        assert [member.health.slots for member in fleet.snapshot(NOW + 25).members] == [None] * 3

    def test_a_consumer_is_counted_once(self, fleet: Fleet) -> None:
        for seconds in range(5):
            fleet.consuming("one", {"local": 2}, NOW + seconds, 10)
        assert health(fleet, "local", NOW + 5).slots == 2

    def test_who_they_are_is_known_and_who_goes_is_gone(self, fleet: Fleet) -> None:
        fleet.consuming("one", {"local": 2, "fly": 4}, NOW, 10)
        fleet.consuming("two", {"local": 3}, NOW, 10)
        assert fleet.consumers(NOW + 1) == {"local": {"one", "two"}, "fly": {"one"}, "far": set()}
        fleet.consuming("one", {"local": 0, "fly": 0}, NOW + 1, 0)
        assert fleet.consumers(NOW + 1) == {"local": {"two"}, "fly": set(), "far": set()}
        assert health(fleet, "local", NOW + 1).slots == 3

    def test_publishers_are_counted_while_they_look(self, fleet: Fleet) -> None:
        for name in ("a", "b", "a"):
            fleet.snapshot(NOW, name)
        assert fleet.snapshot(NOW).publishers == 2
        assert fleet.snapshot(NOW + 60, "c").publishers == 1


def test_the_queues_depth_is_read(redis_settings: Settings, redis_client: "redis.Redis[bytes]") -> None:
    redis_client.lpush(queue_of("fly"), "a", "b")
    redis_client.lpush(queue_of("fly") + "\x06\x169", "c")
    assert health(open_fleet(redis_settings, PLACES)).depth == 3


def test_a_store_that_is_gone_has_a_name() -> None:
    fleet = open_fleet(Settings(redis_url="redis://127.0.0.1:1"), PLACES)

    def ask(beginning: AbstractContextManager[Callable[[], bool]]) -> None:
        with beginning as answer:
            answer()

    calls: list[Callable[[], object]] = [
        lambda: fleet.snapshot(NOW),
        lambda: fleet.begin(Leased("fly", "j"), NOW),
        lambda: ask(fleet.beginning(Leased("fly", "j"), NOW)),
        lambda: fleet.record(Leased("fly", "j"), GOOD, NOW),
        lambda: fleet.renew([Leased("fly", "j")], NOW),
        lambda: fleet.probed("fly", True, NOW),
        lambda: fleet.consuming("c", {"fly": 1}, NOW, 1),
    ]
    for call in calls:
        with pytest.raises(BrokerUnavailable):
            call()


_outcomes = st.builds(
    Outcome,
    ok=st.booleans(),
    substrate_fault=st.booleans(),
    byte_count=st.integers(0, 1 << 40),
    seconds=st.floats(0, 100),
    surprise_s=st.floats(0, 10),
    cost_usd=st.floats(0, 1),
    retry_after_s=st.sampled_from([0.0, 0.0, 1.0, 1e6]),
    wants_retry=st.booleans(),
    jitter=st.floats(0.75, 1.25),
).map(lambda outcome: replace(outcome, substrate_fault=outcome.substrate_fault and not outcome.ok))
_histories = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 2.0, 7.0, 400.0]), st.one_of(_outcomes, st.booleans(), st.just(BAD))),
    max_size=60,
)


def _close(one: Health, other: Health) -> bool:
    return all(
        a == b if a is None or isinstance(a, (int, Breaker)) else a == pytest.approx(b, rel=1e-9, abs=1e-9)
        for a, b in ((getattr(one, f.name), getattr(other, f.name)) for f in fields(Health))
    ) and one.breaker.until == pytest.approx(other.breaker.until)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(history=_histories)
def test_redis_and_the_functions_agree(redis_settings: Settings, history: list[tuple[float, Outcome | bool]]) -> None:
    with redis.Redis.from_url(redis_settings.state_url) as client:
        client.flushall()
    stub, real = StubFleet(PLACES), open_fleet(redis_settings, PLACES)
    now = NOW
    for passed, event in history:
        now += passed
        answers = [
            fleet.probed("fly", event, now) if isinstance(event, bool) else fleet.record(Leased("fly", "j"), event, now)
            for fleet in (stub, real)
        ]
        one, other = answers
        if isinstance(one, tuple) and isinstance(other, tuple):
            assert one[1] == other[1]
            one, other = one[0], other[0]
        assert isinstance(one, Health)
        assert isinstance(other, Health)
        assert _close(one, other), (one, other)
