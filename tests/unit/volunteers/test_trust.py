import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.volunteers.trust import (
    ACCEPTABLE,
    FLOOR,
    FULL_STAKE,
    IN_LEAGUE,
    MAX_FAILURES,
    PROBATION,
    REST_S,
    Event,
    Party,
    Reputation,
    agreed_answer,
    check_probability,
    compared,
    event_of,
    fault_of,
    may_vouch,
    needs_check,
    network_of,
    origin_of,
    recorded,
    stake_of,
    usable,
)

NOW = 1_700_000_000.0
counts = st.integers(0, 1_000_000)
reputations = st.builds(Reputation, checked=counts, agreed=counts, banned_at=st.sampled_from([0.0, NOW]))
stakes = st.floats(0, 1e7)


class TestCheckProbability:
    @patient
    @given(reputations, stakes)
    def test_is_never_below_the_floor(self, reputation: Reputation, stake: float) -> None:
        assert FLOOR <= check_probability(reputation, stake) <= 1

    @patient
    @given(reputations, stakes)
    def test_makes_a_lie_cost_what_it_is_worth(self, reputation: Reputation, stake: float) -> None:
        """The inequality of the module's proof: what is gained by a lie against what is lost by it."""
        passes = (1 - check_probability(reputation, stake)) * IN_LEAGUE
        assert passes <= ACCEPTABLE * stake * (1 - passes) * (1 + 1e-9) + 1e-12

    @patient
    @given(reputations, st.floats(0, 1e6), st.floats(0, 1e6))
    def test_falls_as_more_is_at_stake(self, reputation: Reputation, a: float, b: float) -> None:
        low, high = sorted((a, b))
        assert check_probability(reputation, high) <= check_probability(reputation, low)

    def test_is_certain_for_whom_nobody_knows(self) -> None:
        for checked in range(PROBATION):
            assert check_probability(Reputation(checked=checked, agreed=10**6), 1e9) == 1
        assert check_probability(Reputation(checked=PROBATION), 10) < 1

    def test_is_certain_for_the_banned(self) -> None:
        assert check_probability(Reputation(checked=10**6, banned_at=NOW), 1e9) == 1

    @pytest.mark.parametrize(
        ("stake", "chance"), [(10, 0.998), (1000, 0.818), (5000, 0.333), (8182, 0.1), (10**9, 0.1)]
    )
    def test_is_what_the_argument_says(self, stake: float, chance: float) -> None:
        assert check_probability(Reputation(checked=PROBATION), stake) == pytest.approx(chance, abs=5e-4)

    def test_reaches_the_floor_at_the_full_stake_and_no_sooner(self) -> None:
        veteran = Reputation(checked=10**6)
        assert check_probability(veteran, FULL_STAKE) == pytest.approx(FLOOR)
        assert check_probability(veteran, 0.99 * FULL_STAKE) > FLOOR

    def test_a_draw_below_it_is_a_check(self) -> None:
        veteran = Reputation(checked=10**6)
        assert needs_check(veteran, FULL_STAKE, FLOOR - 1e-9)
        assert not needs_check(veteran, FULL_STAKE, FLOOR + 1e-4)
        assert needs_check(Reputation(), FULL_STAKE, math.nextafter(1, 0))


class TestStake:
    @patient
    @given(reputations, st.integers(1, 8), st.integers(1, 200))
    def test_all_that_is_staked_at_once_is_no_more_than_the_credit(
        self, reputation: Reputation, hubs: int, n: int
    ) -> None:
        staked = 0
        for _ in range(n):
            staked += stake_of(reputation, staked, hubs)
        assert 0 <= staked * hubs <= reputation.credit * (1 + 1e-9)

    def test_is_all_there_is_up_to_what_is_needed(self) -> None:
        assert stake_of(Reputation(checked=100, agreed=50), 0) == 125
        assert stake_of(Reputation(checked=100, agreed=50), 125) == 0
        assert stake_of(Reputation(checked=10**6), 0) == FULL_STAKE


class TestRecorded:
    @patient
    @given(st.lists(st.sampled_from(["confirmed", "agreed", "wrong", "unclear", "failed"]), max_size=30))
    def test_a_ban_is_for_ever(self, events: list[Event]) -> None:
        reputation = Reputation()
        for at, event in enumerate(events):
            reputation = recorded(reputation, event, 10, NOW + at)
        assert reputation.banned is ("wrong" in events)
        if "wrong" in events:
            assert reputation.banned_at == NOW + events.index("wrong")

    def test_credit_is_whole_for_the_confirmed_and_half_for_the_agreed(self) -> None:
        reputation = recorded(recorded(Reputation(), "confirmed", 100, NOW), "agreed", 50, NOW)
        assert (reputation.checked, reputation.agreed, reputation.verified_bytes) == (1, 1, 150)
        assert reputation.credit == 1.5

    def test_what_is_unclear_takes_the_credit_and_not_the_account(self) -> None:
        before = Reputation(checked=50, agreed=20, verified_bytes=700)
        after = recorded(before, "unclear", 10, NOW)
        assert after == dataclasses.replace(before, checked=0, agreed=0, unclear=1)
        assert usable(after, NOW)

    def test_failures_in_a_row_give_a_rest(self) -> None:
        reputation = Reputation()
        for _ in range(MAX_FAILURES):
            assert usable(reputation, NOW)
            reputation = recorded(reputation, "failed", 0, NOW)
        assert not usable(reputation, NOW + REST_S - 1)
        assert usable(reputation, NOW + REST_S)
        assert not usable(recorded(reputation, "failed", 0, NOW + REST_S), NOW + REST_S + 1), "it has learnt nothing"
        assert usable(recorded(reputation, "confirmed", 0, NOW), NOW), "in a row, that is"
        assert not reputation.banned

    def test_the_banned_get_nothing(self) -> None:
        assert not usable(Reputation(checked=10**6, banned_at=NOW), NOW + 1e9)


class TestVouching:
    @pytest.mark.parametrize(
        ("account", "network", "reputation", "may"),
        [("b", "n2", Reputation(checked=10), True), ("a", "n2", Reputation(checked=10), False),
         ("b", "n1", Reputation(checked=10), False), ("b", "n2", Reputation(checked=9, agreed=500), False),
         ("b", "n2", Reputation(checked=10, banned_at=NOW), False)],
    )  # fmt: skip
    def test_takes_another_account_another_network_and_a_name(
        self, account: str, network: str, reputation: Reputation, may: bool
    ) -> None:
        assert may_vouch(Party("a", "n1"), Party(account, network), reputation) is may

    @pytest.mark.parametrize(
        ("address", "network"),
        [("192.0.2.77", "192.0.2.0/24"), ("::ffff:192.0.2.77", "192.0.2.0/24"),
         ("2001:db8:1:2ff::7", "2001:db8:1:200::/56"), ("fe80::1%eth0", "fe80::/56")],
    )  # fmt: skip
    def test_a_network_is_24_bits_of_ipv4_and_56_of_ipv6(self, address: str, network: str) -> None:
        assert network_of(address) == network

    def test_no_address_has_no_network(self) -> None:
        with pytest.raises(ValueError):
            network_of("localhost")


def answer(value: int = 7, **changes: Any) -> dict[str, Any]:
    good = {"success": True, "results": [{"op": "crc32c", "value": value}], "bytesProcessed": 10, "objectSize": 100,
            "etag": '"a"', "region": "<b>", "memoryUsedMb": 5, "cache": "HIT", "jobId": "j"}  # fmt: skip
    return {**good, **changes}


class TestCompared:
    @pytest.mark.parametrize(
        ("other", "verdict"),
        [(answer(), "same"), (answer(etag='"b"'), "same"), (answer(8), "different"),
         (answer(8, etag='"b"'), "unclear"), (answer(8, objectSize=101), "unclear"),
         (answer(8, etag=None), "different"), (answer(8, objectSize=None, etag=None), "different"),
         (answer(bytesProcessed=11), "different"), (answer(bytesProcessed=11, etag='"b"'), "unclear")],
    )  # fmt: skip
    def test_says(self, other: dict[str, Any], verdict: str) -> None:
        assert compared(answer(), other) == compared(other, answer()) == verdict

    def test_what_becomes_of_it(self) -> None:
        assert [event_of(verdict) for verdict in ("same", "different", "unclear")] == ["confirmed", "wrong", "unclear"]

    def test_only_what_both_say_is_given_out(self) -> None:
        given_out = agreed_answer(answer(), answer(etag='"b"', region="here"))
        assert (given_out["etag"], given_out["objectSize"], given_out["results"]) == (None, 100, answer()["results"])
        assert (given_out["region"], given_out["cache"], given_out["memoryUsedMb"]) == ("browser", None, None)

    @pytest.mark.parametrize(
        ("error", "fault"),
        [
            ("source_failed", "source"),
            ("range_not_satisfiable", "program"),
            ("busy", "substrate"),
            ("new", "substrate"),
        ],
    )
    def test_whose_fault_it_is(self, error: str, fault: str) -> None:
        assert fault_of(answer()) is None
        assert fault_of({"success": False, "error": {"type": error}}) == fault


@pytest.mark.parametrize(
    ("url", "origin"),
    [("HTTPS://Data.Example.com/a?b", "https://data.example.com"), ("http://h:8080/x", "http://h:8080")],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin
