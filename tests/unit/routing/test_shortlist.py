"""A shortlist: as good as the whole fleet for a class of jobs, and not the same for everyone."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from statistics import mean

import pytest

from packetfs_compute.routing import Capabilities, Health, Member, Policy, Snapshot, Survey, Wanted, decide, survey
from packetfs_compute.routing.breaker import Breaker
from packetfs_compute.routing.egress import locality
from packetfs_compute.routing.prices import FLY, LAMBDA_ARM64, WORKERS
from packetfs_compute.routing.shortlist import EXTRA, KEEP, class_of, pick, rank, size_class
from packetfs_compute.routing.snapshot import OPEN

NOW = 1_000_000.0
S3 = locality("https://b.s3.us-east-1.amazonaws.com/")
CDN = locality("https://cdn.example.com/")
ANY = Capabilities("x", "own", 1024, 1 << 45, 3600.0, frozenset({"https"}), slots=4)


def fleet(count: int = 1500, publishers: int = 50) -> Survey:
    """Places of every kind, no two alike, some busy, some unwell."""
    rng = Random(2)
    kinds = ((replace(ANY), 0.02), (replace(ANY, provider="cloudflare", prices=WORKERS), 0.03),
             (replace(ANY, provider="fly", prices=FLY), 0.03),
             (replace(ANY, provider="aws", region="us-east-1", prices=LAMBDA_ARM64, slots=100), 0.05))  # fmt: skip
    members = []
    for at in range(count):
        kind, overhead_s = kinds[0] if at % 10 else kinds[at // 10 % 4]
        place = replace(
            kind, name=f"p{at}", overhead_s=overhead_s * rng.uniform(0.5, 4), bytes_per_s=1e8 * rng.uniform(0.2, 1.5)
        )
        breaker = Breaker("open", NOW - 1, NOW + 9, 1) if rng.random() < 0.05 else Breaker()
        members.append(Member(place, Health(at=NOW, in_flight=rng.choice((0, 0, 2, 9)), breaker=breaker)))
    return survey(Snapshot(tuple(members), NOW, publishers), NOW)


WHOLE = fleet()


def shortlist(wanted: Wanted, policy: Policy, of: Survey, rng: Random, **few: int) -> Survey:
    drawn = [rng.random() for _ in of.outlooks]
    return pick(rank(wanted, policy, of, rng.random), drawn, rng.random, **few)


def score(wanted: Wanted, policy: Policy, of: Survey, random: Callable[[], float]) -> float:
    chosen = decide(wanted, policy, of, random).chosen
    assert chosen is not None
    return chosen.score


@pytest.mark.parametrize("goal", ["balanced", "cheapest", "fastest"])
@pytest.mark.parametrize("source", [S3, CDN])
def test_its_choice_is_as_good_as_the_full_scans(goal: str, source: object) -> None:
    rng = Random(7)
    policy = Policy(goal=goal)  # type: ignore[arg-type]
    worse = []
    for _ in range(60):
        wanted = Wanted(int(10 ** rng.uniform(3, 9)), "https", source)  # type: ignore[arg-type]
        some = shortlist(wanted, policy, WHOLE, rng)
        assert len(some.outlooks) <= KEEP + EXTRA
        other = wanted.byte_count or 0
        near = replace(wanted, byte_count=max(1, int(other * rng.uniform(0.5, 2))))
        if size_class(near.byte_count) != size_class(wanted.byte_count):
            near = wanted
        worse.append(score(near, policy, some, rng.random) / score(near, policy, WHOLE, rng.random))
    assert mean(worse) < 1.03
    assert max(worse) < 1.3


def test_what_is_vetoed_for_good_is_left_out_and_the_unwell_come_last() -> None:
    some = shortlist(Wanted(10**6, "https", CDN), Policy(exclude=("p1", "p2")), WHOLE, Random(1), extra=0)
    assert {"p1", "p2"} & {one.place.name for one in some.outlooks} == set()
    assert [one.place.name for one in some.outlooks if one.unwell is not None] == []
    ill = fleet(20)
    for outlook in ill.outlooks[:19]:
        outlook.unwell, outlook.severity = "so it is", OPEN
    ill.outlooks[19].unwell = None
    assert ill.outlooks[19] in shortlist(Wanted(1, "https", CDN), Policy(), ill, Random(1), keep=1).outlooks


def test_where_nothing_fits_the_whole_fleet_says_why() -> None:
    assert shortlist(Wanted(1, "gopher"), Policy(), WHOLE, Random(1)) is WHOLE


class TestEquals:
    LIKE = survey(Snapshot(tuple(Member(replace(ANY, name=f"p{at}"), Health()) for at in range(500)), NOW, 100), NOW)
    JOB = Wanted(10**6, "https", CDN)

    def names(self, seed: int) -> set[str]:
        some = shortlist(self.JOB, Policy(), self.LIKE, Random(seed))
        return {one.place.name for one in some.outlooks}

    def test_each_publisher_keeps_others_and_the_same_ones_each_time(self) -> None:
        assert self.names(1) == self.names(1)
        assert len(self.names(1) & self.names(2)) < KEEP / 2
        assert len(set().union(*map(self.names, range(100)))) > 450

    def test_it_says_how_many_publishers_look_at_the_same_place(self) -> None:
        assert shortlist(self.JOB, Policy(), self.LIKE, Random(1)).publishers == round(100 * KEEP / 500)
        few = Survey(self.LIKE.outlooks[:KEEP], NOW, 100)
        assert shortlist(self.JOB, Policy(), few, Random(1)).publishers == 100


def test_a_class_is_of_sizes_within_a_factor_of_eight() -> None:
    assert size_class(1 << 20) == size_class((1 << 20) + 5) != size_class(1 << 24)
    one = class_of(Wanted(1 << 20, "https", S3), Policy())
    assert one == class_of(Wanted((1 << 20) + 5, "https", S3), Policy())
    assert len({one, class_of(Wanted(1 << 20, "http", S3), Policy()), class_of(Wanted(1 << 20, "https", CDN), Policy()),
                class_of(Wanted(1 << 20, "https", S3), Policy(goal="fastest"))}) == 4  # fmt: skip
    assert class_of(Wanted(None), Policy()) == class_of(Wanted(8 << 20), Policy())
