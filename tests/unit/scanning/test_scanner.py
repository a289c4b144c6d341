"""A scan's whole way with a router of the tests' own: what is refused before it begins, and where it is run."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from support.scans import DATA, Clock, FakeDesk

from packetfs_compute import kernels
from packetfs_compute.errors import (
    BadProgram,
    ForbiddenSource,
    JobError,
    NoSubstrate,
    RangeNotSatisfiable,
    SourceChanged,
    SourceNotFound,
)
from packetfs_compute.fleet import FleetChooser, StubFleet
from packetfs_compute.places import Prices
from packetfs_compute.routing import Capabilities, Survey, survey
from packetfs_compute.scanning import accept_scan
from packetfs_compute.scanning.here import scan_here
from packetfs_compute.scanning.scanner import Scanner
from packetfs_compute.scanning.tally import Progress
from packetfs_compute.settings import Settings

FREE = Capabilities("local", "own", 1024, 1 << 40, 3600, frozenset({"file", "https"}), slots=2)
PAID = Capabilities(
    "lambda", "own", 1024, 1 << 29, 900, frozenset({"file", "https"}), slots=8, prices=Prices(usd_per_request=0.001)
)
CRC: list[dict[str, Any]] = [{"op": "crc32c"}]
FNV: list[dict[str, Any]] = [{"op": "fnv64"}, {"op": "crc32c"}]


class Planner(FleetChooser):
    """The router over a stub of a fleet."""

    def __init__(self, *places: Capabilities) -> None:
        self.fleet = StubFleet(list(places))
        super().__init__(self.fleet, lambda: 0.0, lambda: 0.5)

    def refresh(self) -> None:
        """Nothing: it is always fresh."""

    def survey(self) -> Survey:
        return survey(self.fleet.snapshot(0.0), 0.0)


class World:
    def __init__(self, folder: Path, client: Any, *places: Capabilities) -> None:
        self.path = folder / "object"
        self.path.write_bytes(DATA)
        self.settings = Settings(data_dir=folder, file_roots=(folder,))
        self.clock = Clock()
        self.desk = FakeDesk(self.clock)
        self.told: list[Progress] = []
        self.policies: list[float] = []
        """What each window may cost."""
        self.desk.fate = lambda _, job: self.policies.append(job.policy["max_cost_usd"])
        self.scanner = Scanner(
            self.settings, self.desk, Planner(*places or (FREE,)), client, self.clock, lambda: 0.0, self.clock.sleep
        )

    def run(
        self, ops: list[dict[str, Any]] = CRC, policy: Any = None, window: int | None = 1000, **span: Any
    ) -> dict[str, Any]:
        program = {"data_url": str(self.path), "ops": ops, **span}
        return dict(self.scanner.run(accept_scan("s", program, policy, window), self.told.append))


@pytest.fixture
def world(tmp_path: Path, redis_client: Any) -> World:
    return World(tmp_path, redis_client)


@pytest.fixture
def paid(tmp_path: Path, redis_client: Any) -> Iterator[World]:
    return World(tmp_path, redis_client, PAID)


def value(result: dict[str, Any], at: int = 0) -> Any:
    return result["results"][at]["value"]


def test_windows_are_jobs_where_bytes_may_come_in_any_order(world: World) -> None:
    result = world.run()
    assert value(result) == kernels.crc32c(DATA)
    assert len(world.desk.computed) == result["windows"] == 3
    assert (result["bytes_processed"], result["timing"]["compute_s"]) == (len(DATA), 0.75)


def test_a_chain_is_read_here_where_here_is_best(world: World) -> None:
    result = world.run(FNV)
    assert (value(result), value(result, 1)) == (f"{kernels.fnv64(DATA):016x}", kernels.crc32c(DATA))
    assert not world.desk.computed
    assert world.told[-1]["bytes_done"] == len(DATA)


def test_and_runs_elsewhere_one_window_after_the_other(paid: World) -> None:
    assert value(paid.run(FNV)) == f"{kernels.fnv64(DATA):016x}"
    assert len(paid.desk.computed) == 3
    assert paid.desk.most_open == 1


def test_what_is_done_is_found_and_not_done_again(world: World) -> None:
    first = world.run()
    world.path.unlink()
    assert world.run() == first
    assert set(world.desk.computed.values()) == {1}
    with pytest.raises(SourceNotFound):
        world.run(window=999)


class TestRefused:
    def test_what_costs_more_than_it_may_with_the_numbers(self, paid: World) -> None:
        with pytest.raises(
            NoSubstrate, match=r"\$0\.003.*3 windows of 1000 bytes.*\$0\.001 each on lambda.*\$0\.002"
        ) as caught:
            paid.run(policy={"max_cost_usd": 0.002})
        assert caught.value.details["estimate_usd"] == pytest.approx(0.003, rel=0.1)
        assert caught.value.details["job_id"] == "s"
        assert not paid.desk.computed

    def test_but_not_what_may(self, paid: World) -> None:
        assert value(paid.run(policy={"max_cost_usd": 1})) == kernels.crc32c(DATA)
        assert paid.policies == [pytest.approx(1 / 3)] * 3

    def test_a_cheaper_place_is_taken_where_the_cap_wants_it(self, tmp_path: Path, redis_client: Any) -> None:
        world = World(tmp_path, redis_client, replace(FREE, bytes_per_s=1000.0), PAID)
        world.run(policy={"max_cost_usd": 0.0003, "goal": "fastest"})
        assert world.policies == [pytest.approx(0.0001)] * 3

    @pytest.mark.parametrize(
        ("more", "error"),
        [({"offset": len(DATA) + 1}, RangeNotSatisfiable), ({"length": len(DATA) + 1}, RangeNotSatisfiable),
         ({"offset": 1, "length": len(DATA)}, RangeNotSatisfiable), ({"etag": '"other"'}, SourceChanged),
         ({"policy": {"exclude": ["local"]}}, NoSubstrate)],
    )  # fmt: skip
    def test_by_name(self, world: World, more: dict[str, Any], error: type[JobError]) -> None:
        with pytest.raises(error) as caught:
            world.run(**more)
        assert caught.value.details["job_id"] == "s"
        assert caught.value.attempts == []

    def test_windows_that_would_be_too_many(self, world: World) -> None:
        with world.path.open("r+b") as file:
            file.truncate(20_001)
        with pytest.raises(BadProgram, match="20001 windows"):
            world.run(window=1)

    def test_a_source_that_may_not_be_read(self, world: World) -> None:
        world.path = Path("/etc/passwd")
        with pytest.raises(ForbiddenSource):
            world.run()


@pytest.mark.parametrize("ops", [CRC, FNV])
def test_an_empty_range_at_the_end_is_its_identity(world: World, ops: list[dict[str, Any]]) -> None:
    result = world.run(ops, offset=len(DATA))
    assert (result["windows"], value(result, -1), result["cached"]) == (0, 0, False)
    assert result["attempts"] == []


def test_an_object_that_changes_under_a_chain_gives_no_value(world: World) -> None:
    def change(_: Progress) -> None:
        world.path.write_bytes(b"another version")

    program = {"data_url": str(world.path), "ops": FNV}
    with pytest.raises((SourceChanged, RangeNotSatisfiable)):
        scan_here(accept_scan("s", program, None, 10), world.settings, change)


def test_a_redis_that_is_away_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def unsteady(call: Callable[..., Any]) -> Callable[..., Any]:
        def sometimes(*args: Any, **options: Any) -> Any:
            if next(calls) % 2 == 0:
                raise redis.ConnectionError("away")
            return call(*args, **options)

        return sometimes

    for owner, name in ((redis.client.Pipeline, "execute"), (redis.Redis, "hgetall")):
        monkeypatch.setattr(owner, name, unsteady(getattr(owner, name)))
    assert value(world.run()) == kernels.crc32c(DATA)
    assert next(calls) > 6
    monkeypatch.undo()
