"""Every store of reputations passes this suite; the real one, which does the arithmetic in Lua, beside the functions."""

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.settings import Settings
from packetfs_compute.volunteers import Reputation, Reputations, StubReputations
from packetfs_compute.volunteers.base import CLOSED_S, DOUBTED_S, MAX_KEPT
from packetfs_compute.volunteers.redis import open_reputations
from packetfs_compute.volunteers.trust import Event, recorded

NOW = 1_700_000_000.0
SOURCE = "https://data.example.com"
EVENTS: tuple[Event, ...] = ("confirmed", "agreed", "wrong", "unclear", "failed")


@pytest.fixture(params=["stub", "redis"])
def reputations(request: pytest.FixtureRequest) -> Iterator[Reputations]:
    if request.param == "stub":
        yield StubReputations()
    else:
        yield open_reputations(request.getfixturevalue("redis_settings"))


def test_nobody_is_known(reputations: Reputations) -> None:
    assert reputations.get("alice") == Reputation()
    assert reputations.take("alice") == []


@pytest.mark.parametrize("event", EVENTS)
def test_what_is_learnt_is_returned_and_kept(reputations: Reputations, event: Event) -> None:
    expected = recorded(recorded(Reputation(), "confirmed", 7, NOW), event, 1 << 40, NOW + 0.123456)
    reputations.record("alice", "confirmed", 7, NOW)
    assert reputations.record("alice", event, 1 << 40, NOW + 0.123456) == expected
    assert reputations.get("alice") == expected
    assert reputations.get("bob") == Reputation()


def test_kept_results_come_back_once_in_their_order(reputations: Reputations) -> None:
    for at in range(3):
        reputations.keep("alice", {"at": at, "request": {"jobId": "é"}})
    reputations.keep("bob", {"at": 9})
    assert [kept["at"] for kept in reputations.take("alice")] == [0, 1, 2]
    assert reputations.take("alice") == []
    assert reputations.take("bob") == [{"at": 9}]


def test_only_the_newest_are_kept(reputations: Reputations) -> None:
    for at in range(MAX_KEPT + 3):
        reputations.keep("alice", {"at": at})
    assert [kept["at"] for kept in reputations.take("alice")] == list(range(3, MAX_KEPT + 3))


class TestDoubts:
    def test_one_network_closes_a_source_for_a_minute(self, reputations: Reputations) -> None:
        assert not reputations.closed(SOURCE, NOW)
        reputations.doubt(SOURCE, "n1", NOW)
        assert reputations.closed(SOURCE, NOW + DOUBTED_S - 1)
        assert not reputations.closed(SOURCE, NOW + DOUBTED_S)
        assert not reputations.closed("https://other.example.com", NOW)

    def test_however_often_it_says_so(self, reputations: Reputations) -> None:
        for at in range(0, 1000, 100):
            reputations.doubt(SOURCE, "n1", NOW + at)
        assert not reputations.closed(SOURCE, NOW + 900 + DOUBTED_S)

    def test_two_close_it_for_a_day(self, reputations: Reputations) -> None:
        reputations.doubt(SOURCE, "n1", NOW)
        reputations.doubt(SOURCE, "n2", NOW + 3600)
        assert reputations.closed(SOURCE, NOW + CLOSED_S - 1)
        assert not reputations.closed(SOURCE, NOW + CLOSED_S)

    def test_a_day_later_the_first_is_forgotten(self, reputations: Reputations) -> None:
        reputations.doubt(SOURCE, "n1", NOW)
        reputations.doubt(SOURCE, "n2", NOW + CLOSED_S)
        assert not reputations.closed(SOURCE, NOW + CLOSED_S + DOUBTED_S)


def test_a_token_is_spent_once(reputations: Reputations) -> None:
    assert [reputations.spend("t", NOW + 60, NOW) for _ in range(2)] == [True, False]
    assert reputations.spend("u", NOW + 60, NOW)
    assert not reputations.spend("t", NOW + 60, NOW + 59)


def test_what_is_stored_ends(redis_settings: Settings, redis_client: "redis.Redis") -> None:
    reputations = open_reputations(redis_settings)
    reputations.keep("alice", {})
    reputations.doubt(SOURCE, "n1", NOW)
    reputations.spend("t", NOW + 60, NOW)
    keys = list(redis_client.scan_iter("packetfs:volunteers:*"))
    assert len(keys) == 3
    assert all(0 < int(str(redis_client.ttl(key))) <= 86_400 for key in keys)


def test_a_store_that_is_away_is_said_to_be() -> None:
    away = open_reputations(Settings(redis_url="redis://127.0.0.1:1/0"))
    with pytest.raises(BrokerUnavailable, match="reputations"):
        away.get("alice")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(history=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 1 << 45), st.floats(0, 1e6)), max_size=12))
def test_redis_and_the_functions_agree(redis_settings: Settings, history: list[tuple[Event, int, float]]) -> None:
    with redis.Redis.from_url(redis_settings.state_url) as client:
        client.flushall()
    stub, real, now = StubReputations(), open_reputations(redis_settings), NOW
    for event, byte_count, passed in history:
        now += passed
        assert stub.record("alice", event, byte_count, now) == real.record("alice", event, byte_count, now)
