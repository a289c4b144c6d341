"""Where a job runs: who wins by real prices, what each veto says, and how a decision stays fair and pure."""

import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.places import Prices
from packetfs_compute.routing import (
    Capabilities,
    Decision,
    Goal,
    Health,
    Member,
    Policy,
    Snapshot,
    Wanted,
    attempt_usd,
    decide,
    locality,
    survey,
)
from packetfs_compute.routing.breaker import TRIALS, Breaker
from packetfs_compute.routing.decide import UNKNOWN_BYTES
from packetfs_compute.routing.prices import FLY, LAMBDA_ARM64, WORKERS

NOW = 1_700_000_000.0
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
WEB = frozenset({"http", "https"})

LOCAL = Capabilities(
    "local", "own", 16_000, 1 << 45, 3600, WEB | {"s3", "file"}, region="office", overhead_s=0.002, bytes_per_s=5e7
)
"""A machine of one's own, 400 Mbit/s from the internet."""
CLOUDFLARE = Capabilities(
    "cloudflare", "own", 128, 1 << 40, 300, WEB, "cloudflare", "cloudflare", None, 1000, 0.03, 3e8, WORKERS
)
LAMBDA = Capabilities(
    "lambda", "own", 1769, 1 << 40, 900, WEB, "lambda", "aws", "us-east-1", 1000, 0.08, 2e8, LAMBDA_ARM64
)
BIG_LAMBDA = replace(LAMBDA, name="lambda-10g", memory_mb=10_240, bytes_per_s=1e9)
FLY_IAD = Capabilities("fly", "own", 256, 1 << 40, 3600, WEB, "fly", "fly", "iad", 40, 0.03, 1e8, FLY)
FLEET = (LOCAL, CLOUDFLARE, LAMBDA, FLY_IAD)

S3_EAST = "https://bucket.s3.us-east-1.amazonaws.com/object"
S3_WEST = "https://bucket.s3.us-west-2.amazonaws.com/object"
GCS = "https://storage.googleapis.com/bucket/object"
R2 = "https://account.r2.cloudflarestorage.com/bucket/object"
CDN = "https://cdn.example.com/object"

HTTPS = Wanted(MIB)


def fleet(*members: Capabilities | Member, publishers: int = 1) -> Snapshot:
    known = tuple(one if isinstance(one, Member) else Member(one, Health()) for one in members)
    return Snapshot(known, NOW, publishers)


def choose(
    wanted: Wanted,
    snapshot: Snapshot,
    policy: Policy | None = None,
    draw: Callable[[], float] = lambda: 0.5,
    sent: dict[str, int] | None = None,
    tried: Collection[str] = (),
) -> Decision:
    return decide(wanted, policy or Policy(), survey(snapshot, NOW), draw, sent or {}, tried)


def winners(wanted: Wanted, snapshot: Snapshot, policy: Policy | None = None, draws: int = 40) -> set[str | None]:
    """Return all who win, drawing again and again."""
    rng = random.Random(5)
    return {choose(wanted, snapshot, policy, rng.random).substrate for _ in range(draws)}


def winner(wanted: Wanted, snapshot: Snapshot, policy: Policy) -> str | None:
    """Return who wins whatever is drawn."""
    (found,) = winners(wanted, snapshot, policy)
    return found


class TestRealPrices:
    @pytest.mark.parametrize(
        ("url", "byte_count", "cheapest", "balanced", "fastest"),
        [
            (S3_EAST, GIB, "lambda", "lambda", "cloudflare"),
            (S3_EAST, 64 * MIB, "lambda", "lambda", "cloudflare"),
            (S3_EAST, 8 * MIB, "lambda", "lambda", "cloudflare"),
            (R2, GIB, "local", "cloudflare", "cloudflare"),
            (R2, 16 * MIB, "local", "cloudflare", "cloudflare"),
            (CDN, 64 * KIB, "local", "local", "local"),
            (CDN, 0, "local", "local", "local"),
            (CDN, 10 * GIB, "local", "cloudflare", "cloudflare"),
        ],
    )
    def test_who_wins(self, url: str, byte_count: int, cheapest: str, balanced: str, fastest: str) -> None:
        wanted = Wanted(byte_count, source=locality(url))
        goals: tuple[Goal, ...] = ("cheapest", "balanced", "fastest")
        assert [winner(wanted, fleet(*FLEET), Policy(goal=goal)) for goal in goals] == [cheapest, balanced, fastest]

    def test_each_goal_may_choose_another(self) -> None:
        wanted = Wanted(GIB, source=locality(R2))
        everywhere = fleet(*FLEET, BIG_LAMBDA)
        assert winner(wanted, everywhere, Policy(goal="cheapest")) == "local"
        assert winner(wanted, everywhere, Policy(value_of_time_usd_per_hour=0.1)) == "cloudflare"
        assert winner(wanted, everywhere, Policy(goal="fastest")) == "lambda-10g"

    @pytest.mark.parametrize(
        ("per_hour", "place"),
        [(0, "local"), (0.0001, "local"), (0.1, "cloudflare"), (100, "lambda-10g"), (1e6, "lambda-10g")],
    )
    def test_what_an_hour_is_worth_moves_it_from_the_cheapest_to_the_fastest(self, per_hour: float, place: str) -> None:
        wanted = Wanted(GIB, source=locality(R2))
        assert winner(wanted, fleet(*FLEET, BIG_LAMBDA), Policy(value_of_time_usd_per_hour=per_hour)) == place

    def test_a_gibibyte_of_s3_is_cheapest_by_far_where_it_lives(self) -> None:
        rows = {row.substrate: row for row in choose(Wanted(GIB, source=locality(S3_EAST)), fleet(*FLEET)).candidates}
        egress = GIB / 1e9 * 0.09
        assert rows["lambda"].egress_usd == 0
        assert rows["lambda"].usd == pytest.approx(attempt_usd(LAMBDA_ARM64, 1769, GIB, 0.08 + GIB / 2e8))
        assert rows["lambda"].usd < 0.00015
        for name in ("local", "cloudflare", "fly"):
            assert rows[name].egress_usd == pytest.approx(egress)
            assert rows[name].usd > 500 * rows["lambda"].usd

    def test_a_lambda_of_another_region_is_no_better_than_anyone(self) -> None:
        rows = {row.substrate: row for row in choose(Wanted(GIB, source=locality(S3_WEST)), fleet(*FLEET)).candidates}
        assert {round(row.egress_usd, 9) for row in rows.values()} == {round(GIB / 1e9 * 0.09, 9)}
        west = replace(LAMBDA, name="lambda-west", region="us-west-2")
        assert winner(Wanted(GIB, source=locality(S3_WEST)), fleet(*FLEET, west), Policy()) == "lambda-west"

    def test_a_local_worker_in_the_buckets_region_beats_all(self) -> None:
        here = replace(LOCAL, provider="aws", region="us-east-1", bytes_per_s=5e8)
        for goal in ("cheapest", "balanced", "fastest"):
            assert winner(Wanted(GIB, source=locality(S3_EAST)), fleet(here, *FLEET[1:]), Policy(goal=goal)) == "local"

    def test_a_row_holds_what_the_choice_was_made_from(self) -> None:
        decision = choose(Wanted(GIB, source=locality(GCS)), fleet(FLY_IAD))
        (row,) = decision.candidates
        assert decision.chosen == row
        assert row.run_s == pytest.approx(0.03 + GIB / 1e8)
        assert row.wait_s == 0
        assert row.seconds == row.run_s
        assert row.egress_usd == pytest.approx(GIB / 1e9 * 0.12)
        assert row.usd == pytest.approx(row.egress_usd + 7.8e-7 * row.run_s)
        assert row.success == pytest.approx(0.99)
        assert row.score == pytest.approx((row.usd + 0.001 * row.seconds) / 0.99)
        assert (row.veto, row.by_health, row.share) == (None, False, 1.0)

    def test_a_range_of_unknown_length_is_taken_for_eight_mebibytes(self) -> None:
        known, unknown = (choose(Wanted(size), fleet(*FLEET)) for size in (UNKNOWN_BYTES, None))
        assert known == unknown
        assert UNKNOWN_BYTES == 8 * MIB


class TestVeto:
    PLACE = replace(FLY_IAD, name="fly", trust="verified", memory_mb=512, max_range_bytes=GIB, max_duration_s=5)

    @pytest.mark.parametrize(
        ("wanted", "policy", "tried", "reason"),
        [
            (HTTPS, Policy(substrates=("local", "lambda")), (), "not among policy.substrates (local, lambda)"),
            (HTTPS, Policy(exclude=("fly",)), (), "in policy.exclude"),
            (HTTPS, Policy(trust="own"), (), "its trust is verified, policy.trust wants own"),
            (HTTPS, Policy(min_memory_mb=513), (), "has 512 MB, policy.min_memory_mb wants 513"),
            (replace(HTTPS, scheme="file"), Policy(), (), "does not read file:"),
            (replace(HTTPS, scheme="ftp"), Policy(), (), "does not read ftp:"),
            (replace(HTTPS, secret=True), Policy(), (), "may not be given a presigned URL: it is not our own"),
            (Wanted(GIB + 1), Policy(), (), "takes at most 1073741824 bytes"),
            (Wanted(GIB), Policy(), (), "would take 10.8 s and stops at 5 s"),
            (Wanted(MIB, source=locality(GCS)), Policy(max_cost_usd=1e-6), (),
             "would cost $0.000126, policy.max_cost_usd leaves $1e-06"),
            (Wanted(MIB, source=locality(GCS), spent_usd=0.9999), Policy(max_cost_usd=1.0), (),
             "would cost $0.000126, policy.max_cost_usd leaves $0.0001"),
            (Wanted(MIB, spent_usd=2.0), Policy(max_cost_usd=1.0), (),
             "would cost $3.16e-08, policy.max_cost_usd leaves $0"),
            (Wanted(MIB), Policy(deadline_s=0.04), (), "would take 0.0405 s, policy.deadline_s leaves 0.04 s"),
            (Wanted(MIB, spent_s=9.97), Policy(deadline_s=10), (), "would take 0.0405 s, policy.deadline_s leaves 0.03 s"),
            (Wanted(MIB, spent_s=11), Policy(deadline_s=10), (), "would take 0.0405 s, policy.deadline_s leaves 0 s"),
            (HTTPS, Policy(), ("fly",), "tried, and failed"),
            (HTTPS, Policy(), {"local", "fly"}, "tried, and failed"),
        ],
    )  # fmt: skip
    def test_it_says_why_and_is_final(
        self, wanted: Wanted, policy: Policy, tried: Collection[str], reason: str
    ) -> None:
        decision = choose(wanted, fleet(self.PLACE), policy, tried=tried)
        assert decision.vetoes == {"fly": reason}
        assert (decision.substrate, decision.panic, decision.chosen) == (None, False, None)
        assert not decision.candidates[0].by_health

    @pytest.mark.parametrize(
        ("wanted", "policy"),
        [
            (HTTPS, Policy(substrates=("fly",))),
            (HTTPS, Policy(exclude=("local",))),
            (HTTPS, Policy(trust="verified", min_memory_mb=512)),
            (replace(HTTPS, scheme="s3"), Policy()),
            (Wanted(450 * MIB), Policy()),
            (Wanted(None), Policy()),
            (HTTPS, Policy(max_cost_usd=1.0)),
            (HTTPS, Policy(deadline_s=1.0)),
            (replace(HTTPS, spent_s=100.0), Policy()),
        ],
    )
    def test_what_fits_is_not_vetoed(self, wanted: Wanted, policy: Policy) -> None:
        assert choose(wanted, fleet(self.PLACE), policy).substrate == "fly"

    def test_a_cap_counts_the_egress_and_the_attempts_before(self) -> None:
        wanted = Wanted(GIB, source=locality(S3_EAST))
        decision = choose(wanted, fleet(*FLEET), Policy(max_cost_usd=0.01))
        assert (decision.substrate, set(decision.vetoes)) == ("lambda", {"local", "cloudflare", "fly"})
        assert choose(replace(wanted, spent_usd=0.00995), fleet(*FLEET), Policy(max_cost_usd=0.01)).substrate is None
        assert choose(Wanted(GIB), fleet(*FLEET), Policy(max_cost_usd=0.0)).substrate == "local"

    def test_a_deadline_counts_the_wait_in_the_queue(self) -> None:
        full = Member(replace(FLY_IAD, slots=1), Health(depth=100))
        (row,) = choose(HTTPS, fleet(full), Policy(deadline_s=2)).candidates
        assert row.run_s < 2 < row.seconds
        assert row.veto == f"would take {row.seconds:.3g} s, policy.deadline_s leaves 2 s"

    def test_a_fleet_of_none(self) -> None:
        assert choose(HTTPS, fleet()) == Decision(None, ())


OPEN = Health(breaker=Breaker("open", NOW - 1, NOW + 4, 1))
HALF_OPEN = Health(breaker=Breaker("half_open", NOW - 1, 0.0, 1))
BACK = Health(breaker=Breaker("closed", NOW, 0.0, 1))


class TestHealth:
    @pytest.mark.parametrize(
        ("health", "reason"),
        [
            (OPEN, "breaker open for 4.0 s more"),
            (replace(HALF_OPEN, in_flight=3), "breaker half-open, 3 tries are under way"),
            (Health(busy_until=NOW + 9), "asked to be left alone for 9.0 s"),
            (Health(slots=0), "nobody consumes its queue"),
            (BACK, "slow start, 10% of its traffic"),
        ],
    )
    def test_what_it_says_against_a_place_sends_the_job_elsewhere(self, health: Health, reason: str) -> None:
        decision = choose(Wanted(KIB), fleet(Member(LOCAL, health), FLY_IAD))
        assert (decision.substrate, decision.panic) == ("fly", False)
        assert decision.vetoes == {"local": reason}
        assert decision.candidates[0].by_health

    @pytest.mark.parametrize("others", [(), (replace(FLY_IAD, trust="any"),)])
    def test_when_nothing_else_is_left_it_is_overridden(self, others: tuple[Capabilities, ...]) -> None:
        decision = choose(HTTPS, fleet(Member(LOCAL, OPEN), *others), Policy(trust="own"))
        assert (decision.substrate, decision.panic) == ("local", True)
        assert decision.vetoes["local"] == "breaker open for 4.0 s more", "the table says what it was"

    def test_a_veto_by_wish_is_never_overridden(self) -> None:
        decision = choose(HTTPS, fleet(Member(LOCAL, OPEN), FLY_IAD), Policy(exclude=("local", "fly")))
        assert (decision.substrate, decision.panic) == (None, False)
        assert decision.vetoes == {"local": "in policy.exclude", "fly": "in policy.exclude"}

    def test_what_was_tried_is_not_tried_again_in_a_panic(self) -> None:
        decision = choose(HTTPS, fleet(Member(LOCAL, OPEN), Member(FLY_IAD, OPEN)), tried={"local"})
        assert (decision.substrate, decision.panic) == ("fly", True)

    def test_in_a_panic_the_least_bad_is_used(self) -> None:
        failing = replace(OPEN, at=NOW, calls=100, failures=100)
        twin = replace(LOCAL, name="twin")
        assert choose(HTTPS, fleet(Member(LOCAL, failing), Member(twin, OPEN))).substrate == "twin"

    def test_a_place_that_starts_slowly_is_better_than_one_whose_breaker_is_open(self) -> None:
        snapshot = fleet(Member(LOCAL, OPEN), Member(FLY_IAD, BACK))
        assert winners(Wanted(KIB), snapshot) == {"fly"}

    def test_a_place_whose_breaker_is_open_is_better_than_one_that_nobody_consumes(self) -> None:
        snapshot = fleet(Member(LOCAL, Health(slots=0)), Member(FLY_IAD, replace(OPEN, slots=4)))
        assert choose(Wanted(KIB), snapshot).substrate == "fly"

    def test_a_slow_start_gets_its_share(self) -> None:
        rng = random.Random(3)
        for seconds, share in ((0, 0.1), (10, 0.4), (20, 0.7), (30, 1.0)):
            back = Health(breaker=Breaker("closed", NOW - seconds, 0.0, 1))
            snapshot = fleet(Member(LOCAL, back), FLY_IAD)
            got = sum(choose(Wanted(KIB), snapshot, draw=rng.random).substrate == "local" for _ in range(2000))
            assert got / 2000 == pytest.approx(share, abs=0.04)

    def test_a_half_open_breaker_lets_three_through_whoever_sends_them(self) -> None:
        sent: Counter[str] = Counter()
        for _ in range(50):
            sent[str(choose(Wanted(KIB), fleet(Member(LOCAL, HALF_OPEN), FLY_IAD), sent=sent).substrate)] += 1
        assert sent["local"] == TRIALS

    def test_a_place_that_often_fails_looks_dearer_than_it_is(self) -> None:
        failing = Health(at=NOW, calls=5, failures=4)
        rows = choose(HTTPS, fleet(FLY_IAD, Member(replace(FLY_IAD, name="failing"), failing))).candidates
        assert rows[1].success == pytest.approx(5.95 / 10)
        assert rows[1].score == pytest.approx(rows[0].score * 0.99 / 0.595)


class TestWait:
    @pytest.mark.parametrize(
        ("in_flight", "depth", "sent", "publishers", "waiting"),
        [(0, 0, 0, 1, 0), (3, 0, 0, 1, 0), (4, 0, 0, 1, 1), (4, 6, 0, 1, 7), (0, 0, 3, 1, 0), (0, 0, 4, 1, 1),
         (2, 2, 4, 1, 5), (0, 0, 5, 4, 17), (0, 0, 1, 100, 97)],
    )  # fmt: skip
    def test_it_is_what_is_ahead_less_what_runs_at_once(
        self, in_flight: int, depth: int, sent: int, publishers: int, waiting: int
    ) -> None:
        place = Member(replace(FLY_IAD, slots=4), Health(in_flight=in_flight, depth=depth))
        (row,) = choose(HTTPS, fleet(place, publishers=publishers), sent={"fly": sent}).candidates
        assert row.wait_s == pytest.approx(waiting * 0.03 / 4), "a mean attempt takes the declared overhead"
        assert row.seconds == row.wait_s + row.run_s

    def test_a_long_queue_sends_a_job_elsewhere(self) -> None:
        assert choose(Wanted(KIB), fleet(LOCAL, FLY_IAD)).substrate == "local"
        busy = Member(LOCAL, Health(in_flight=8, depth=1000))
        assert choose(Wanted(KIB), fleet(busy, FLY_IAD)).substrate == "fly"

    def spread(self, publishers: int, decisions: int = 100) -> Counter[str]:
        places = [replace(FLY_IAD, name=name, overhead_s=seconds) for name, seconds in
                  (("a", 0.030), ("b", 0.033), ("c", 0.036))]  # fmt: skip
        snapshot = fleet(*(replace(place, slots=4) for place in places), publishers=publishers)
        sent: Counter[str] = Counter()
        for _ in range(decisions):
            sent[str(choose(Wanted(KIB), snapshot, sent=sent).substrate)] += 1
        return sent

    def test_what_a_publisher_has_sent_spreads_the_next(self) -> None:
        sent = self.spread(publishers=1)
        assert min(sent[name] for name in "abc") >= 25
        assert sent["a"] >= sent["b"] >= sent["c"]

    def test_each_of_many_publishers_reckons_with_the_others(self) -> None:
        assert self.spread(publishers=1, decisions=4) == {"a": 4}
        assert len(self.spread(publishers=50, decisions=3)) == 3


class TestNearTies:
    def test_equals_are_drawn_at_random_and_each_as_often(self) -> None:
        rng = random.Random(11)
        names = ["a", "b", "c", "d"]
        snapshot = fleet(*(replace(FLY_IAD, name=name) for name in names))
        chosen = Counter(choose(HTTPS, snapshot, draw=rng.random).substrate for _ in range(4000))
        assert set(chosen) == set(names)
        assert sum((count - 1000) ** 2 / 1000 for count in chosen.values()) < 16.3, "chi-square, p = 0.001"

    @pytest.mark.parametrize(("usd", "near"), [(1.0, True), (1.04, True), (1.06, False), (2.0, False)])
    def test_five_percent_are_near(self, usd: float, near: bool) -> None:
        dear = replace(FLY_IAD, name="dear", prices=Prices(usd_per_request=usd))
        snapshot = fleet(replace(FLY_IAD, prices=Prices(usd_per_request=1.0)), dear)
        found = winners(HTTPS, snapshot, Policy(goal="cheapest"), draws=1000)
        assert found == ({"fly", "dear"} if near else {"fly"})


_names = st.sampled_from(["local", "cloudflare", "lambda", "fly"])
_breakers = st.sampled_from([Breaker(), OPEN.breaker, HALF_OPEN.breaker, BACK.breaker])
_healths = st.builds(
    Health, at=st.just(NOW), weight=st.floats(0, 100), sum_y=st.floats(0, 1e3), surprise_s=st.floats(0, 60),
    calls=st.just(100.0), failures=st.floats(0, 100), breaker=_breakers, in_flight=st.integers(0, 100),
    depth=st.integers(0, 10**6), slots=st.none() | st.integers(0, 100), busy_until=st.sampled_from([0.0, NOW + 5]),
)  # fmt: skip
_policies = st.builds(
    Policy,
    goal=st.sampled_from(["balanced", "cheapest", "fastest"]),
    value_of_time_usd_per_hour=st.none() | st.floats(0, 1e6),
    max_cost_usd=st.none() | st.floats(0, 1),
    deadline_s=st.none() | st.floats(0.001, 3600),
    exclude=st.lists(_names, max_size=3).map(tuple),
)
_wants = st.builds(
    Wanted,
    st.none() | st.integers(0, 1 << 45),
    st.sampled_from(["http", "https", "s3", "file"]),
    st.sampled_from([S3_EAST, GCS, R2, CDN]).map(locality),
    st.floats(0, 100),
    st.floats(0, 1),
)
_choices: dict[str, st.SearchStrategy[Any]] = {
    "wanted": _wants, "policy": _policies, "healths": st.lists(_healths, min_size=4, max_size=4),
    "publishers": st.integers(1, 100), "sent": st.dictionaries(_names, st.integers(0, 1000)), "tried": st.sets(_names),
    "seed": st.integers(0, 1 << 32),
}  # fmt: skip


def test_of_those_that_cost_the_same_the_cheapest_is_one_of_the_fast() -> None:
    dear = Prices(usd_per_request=0.01)
    quick, slow = (
        replace(LOCAL, name=name, overhead_s=seconds, prices=dear) for name, seconds in (("quick", 0.1), ("slow", 5.0))
    )
    assert winners(Wanted(KIB), fleet(quick, slow), Policy(goal="cheapest")) == {"quick"}
    twins = fleet(quick, replace(quick, name="twin"))
    assert winners(Wanted(KIB), twins, Policy(goal="cheapest")) == {"quick", "twin"}


@patient
@given(**_choices)
def test_a_decision_is_pure_and_its_table_explains_it(
    wanted: Wanted,
    policy: Policy,
    healths: list[Health],
    publishers: int,
    sent: dict[str, int],
    tried: set[str],
    seed: int,
) -> None:
    snapshot = fleet(*map(Member, FLEET, healths), publishers=publishers)
    before = dict(sent), set(tried)
    one, other = (choose(wanted, snapshot, policy, random.Random(seed).random, sent, tried) for _ in range(2))
    assert one == other
    assert (sent, tried) == before
    rows = one.candidates
    assert [row.substrate for row in rows] == [place.name for place in FLEET]
    assert all(row.score > 0 and row.usd >= row.egress_usd >= 0 and row.seconds >= row.run_s > 0 for row in rows)
    open_to_it = [row for row in rows if (row.by_health if one.panic else row.veto is None)]
    assert (one.chosen in open_to_it) if open_to_it else one.substrate is None
    assert not (one.panic and any(row.veto is None for row in rows))
    if one.chosen is not None and not one.panic:
        assert one.chosen.score <= min(row.score for row in open_to_it) * 1.05
    assert one.vetoes == {row.substrate: row.veto for row in rows if row.veto}
