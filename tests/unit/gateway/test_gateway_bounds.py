"""Watching, streaming and the bounds on both, with no server."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from packetfs_compute.errors import Busy
from packetfs_compute.gateway.events import events
from packetfs_compute.gateway.pool import Streams, Threads, Turns
from packetfs_compute.gateway.watching import Status, Watch


def job(status: str) -> dict[str, Any]:
    return {"job_id": "j1", "status": status}


async def never() -> bool:
    return False


def told(*statuses: Status | None) -> Callable[[], Any]:
    """A reading of one status after another, the last of them for ever."""
    left = list(statuses)

    async def read() -> Status | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return read


class TestWatch:
    def test_it_returns_at_the_first_change(self) -> None:
        watch = Watch(told(job("queued"), job("queued"), job("running")), never)
        assert asyncio.run(watch.changed(job("queued"), 20)) == job("running")

    def test_it_returns_what_is_when_patience_ends(self) -> None:
        watch = Watch(told(job("queued")), never)
        assert asyncio.run(watch.changed(job("queued"), 0.12)) == job("queued")

    def test_a_job_that_is_forgotten_is_none(self) -> None:
        assert asyncio.run(Watch(told(None), never).changed(job("queued"), 20)) is None
        assert asyncio.run(Watch(told(job("running"), None), never).ended(job("queued"), 20)) is None

    def test_it_waits_for_the_end_through_other_changes(self) -> None:
        watch = Watch(told(job("running"), job("running"), job("failed")), never)
        assert asyncio.run(watch.ended(job("queued"), 20)) == job("failed")

    def test_it_stops_when_nobody_wants_to_know(self) -> None:
        async def gone() -> bool:
            return True

        assert asyncio.run(Watch(told(job("queued")), gone).ended(job("queued"), 3600)) == job("queued")


async def collected(feed: AsyncIterator[str]) -> list[str]:
    return [part async for part in feed]


def stream(*statuses: Status | None, stopping: bool = False, lifetime_s: float = 20.0) -> list[str]:
    watch = Watch(told(*statuses), never)
    feed = events(job("queued"), watch, lambda: stopping, never, lifetime_s, heartbeat_s=0.01)
    return asyncio.run(collected(feed))


class TestEvents:
    def test_each_change_is_one_and_the_end_is_the_last(self) -> None:
        parts = [part for part in stream(job("running"), job("done")) if part != ":\n\n"]
        assert parts[0].startswith("retry: ")
        assert [part.partition("\n")[0] for part in parts[1:]] == ["event: status"] * 3 + ["event: end"]
        assert 'data: {"job_id":"j1","status":"done"}\n\n' in parts[3]
        assert '"ended"' in parts[-1]

    def test_between_changes_the_heart_beats(self) -> None:
        assert stream(job("queued"), job("queued"), job("done")).count(":\n\n") >= 1

    @pytest.mark.parametrize(
        ("statuses", "more", "reason"),
        [
            ((None,), {}, "forgotten"),
            ((job("queued"),), {"lifetime_s": 0.05}, "lifetime"),
            ((job("queued"),), {"stopping": True}, "shutdown"),
        ],
    )
    def test_it_says_why_it_ends(self, statuses: tuple[Any, ...], more: dict[str, Any], reason: str) -> None:
        parts = stream(*statuses, **more)
        assert parts[-1] == f'event: end\ndata: {{"reason":"{reason}"}}\n\n'
        assert parts.count("") == (reason == "forgotten")
        assert (":\n\n" in parts) == (reason == "lifetime")

    def test_it_ends_without_a_word_for_a_client_that_left(self) -> None:
        async def left() -> bool:
            return True

        feed = events(job("queued"), Watch(told(job("queued")), left), lambda: False, left)
        assert [part.partition("\n")[0] for part in asyncio.run(collected(feed))] == ["retry: 2000", "event: status"]


class TestThreads:
    def test_what_is_done_and_raised_comes_back(self) -> None:
        threads = Threads()
        assert asyncio.run(threads.call(pow, 2, 10)) == 1024
        with pytest.raises(ZeroDivisionError):
            asyncio.run(threads.call(lambda: 1 // 0))
        threads.close()

    def test_one_too_many_is_refused_until_one_has_ended(self) -> None:
        threads, release = Threads(1, most=2), threading.Event()

        async def crowd() -> None:
            held = [asyncio.ensure_future(threads.call(release.wait, 20)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await threads.call(pow, 2, 2)
            held[0].cancel()  # who gives up frees no thread
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await threads.call(pow, 2, 2)
            release.set()
            assert await held[1] is True
            assert await threads.call(pow, 2, 2) == 4

        asyncio.run(crowd())
        threads.close()


class TestStreams:
    def test_the_whole_and_each_have_a_bound(self) -> None:
        streams = Streams(most=3, each=2)
        streams.take("a")
        with streams.place("a"):
            with pytest.raises(Busy, match="this caller"):
                streams.take("a")
            with streams.place("b"), pytest.raises(Busy, match="the gateway"):
                streams.take("c")
        streams.give("a")
        assert streams.count == 0
        assert not streams._held


class TestTurns:
    def test_one_at_a_time_of_a_name_and_others_meanwhile(self) -> None:
        turns, inside, most = Turns(), dict.fromkeys("ab", 0), dict.fromkeys("ab", 0)
        together = 0

        async def turn(name: str) -> None:
            nonlocal together
            async with turns.of(name):
                inside[name] += 1
                most[name] = max(most[name], inside[name])
                together = max(together, sum(inside.values()))
                await asyncio.sleep(0.001)
                inside[name] -= 1

        async def crowd() -> None:
            await asyncio.gather(*(turn(name) for name in "ab" * 10))

        asyncio.run(crowd())
        assert most == {"a": 1, "b": 1}
        assert together == 2
        assert not turns._locks
        assert not turns._wanted
