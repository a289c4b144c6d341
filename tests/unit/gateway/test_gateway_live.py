"""The dashboard's feed over HTTP: one reading for all who watch, and streams that end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
from fastapi import FastAPI
from support.gateway import Client, serving
from support.processes import wait_until
from support.system import publishing_to
from support.valkey import valkey

from packetfs_compute.celery import app as celery_app
from packetfs_compute.desk import Desk
from packetfs_compute.dispatch import Course
from packetfs_compute.errors import BrokerUnavailable, Busy, Internal
from packetfs_compute.gateway import open_keys
from packetfs_compute.gateway.app import create_app
from packetfs_compute.gateway.live import feed
from packetfs_compute.gateway.pool import Fresh
from packetfs_compute.gateway.schemas import SCHEMAS
from packetfs_compute.job import Job
from packetfs_compute.journal import open_journal
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Outcome, Policy
from packetfs_compute.settings import Settings

FLOWER = "http://127.0.0.1:5555/"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """What is read: a number that grows with each reading, or what it is told to raise."""

    def __init__(self) -> None:
        self.count = 0
        self.fails: Exception | None = None

    async def __call__(self) -> int:
        self.count += 1
        await asyncio.sleep(0.01)
        if self.fails is not None:
            raise self.fails
        return self.count


class TestFresh:
    def test_all_who_ask_in_a_while_share_one_reading(self) -> None:
        clock, source = Clock(), Source()

        async def ask() -> None:
            fresh: Fresh[int] = Fresh(1.0, clock)
            assert await asyncio.gather(*(fresh.get(source) for _ in range(50))) == [1] * 50
            clock.now += 0.99
            assert await fresh.get(source) == 1
            clock.now += 0.01
            assert await asyncio.gather(*(fresh.get(source) for _ in range(50))) == [2] * 50

        asyncio.run(ask())

    def test_a_failure_is_shared_as_well_and_not_for_longer(self) -> None:
        clock, source = Clock(), Source()
        source.fails = BrokerUnavailable("away")

        async def ask() -> None:
            fresh: Fresh[int] = Fresh(1.0, clock)
            told = await asyncio.gather(*(fresh.get(source) for _ in range(50)), return_exceptions=True)
            assert all(isinstance(one, BrokerUnavailable) for one in told)
            assert source.count == 1
            source.fails = None
            clock.now += 1
            assert await fresh.get(source) == 2

        asyncio.run(ask())

    def test_a_reader_that_leaves_keeps_nobody_waiting(self) -> None:
        source = Source()

        async def ask() -> None:
            fresh: Fresh[int] = Fresh(1.0)
            first, second = (asyncio.ensure_future(fresh.get(source)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == 2

        asyncio.run(ask())


async def never() -> bool:
    return False


async def collected(parts: AsyncIterator[str]) -> list[str]:
    return [part async for part in parts]


class TestFeed:
    def stream(self, **more: Any) -> list[str]:
        told = iter(['{"at":1}', BrokerUnavailable("no host's name"), Busy("too much"), '{"at":2}'])

        async def read() -> str:
            one = next(told, '{"at":3}')
            if isinstance(one, Exception):
                raise one
            return one

        given = {"stopping": lambda: False, "left": never, "lifetime_s": 0.1, "every_s": 0.01, **more}
        return asyncio.run(collected(feed(read, **given)))

    def test_the_document_again_and_again_until_its_life_is_over(self) -> None:
        parts = self.stream()
        assert parts[:2] == ["retry: 2000\n", 'event: overview\ndata: {"at":1}\n\n']
        problem = 'event: problem\ndata: {"error": "unavailable", "detail": "the broker does not answer"}\n\n'
        assert parts[2] == problem
        assert parts[3] == 'event: problem\ndata: {"error": "busy", "detail": "too much"}\n\n'
        assert parts[4] == 'event: overview\ndata: {"at":2}\n\n'
        assert parts[-1] == 'event: end\ndata: {"reason": "lifetime"}\n\n'

    def test_it_ends_with_the_gateway(self) -> None:
        stops = iter([False, False, True, True])
        parts = self.stream(stopping=lambda: next(stops), lifetime_s=20)
        assert [part.partition("\n")[0] for part in parts[1:]] == ["event: overview", "event: problem", "event: end"]
        assert '"shutdown"' in parts[-1]

    def test_and_without_a_word_for_a_client_that_left(self) -> None:
        async def left() -> bool:
            return True

        assert len(self.stream(left=left, lifetime_s=20)) == 2


def check(document: Any) -> None:
    schema = {"$ref": "#/components/schemas/Overview", "components": {"schemas": SCHEMAS}}
    jsonschema.Draft202012Validator(schema).validate(document)


@contextlib.contextmanager
def gateway(settings: Settings) -> Iterator[tuple[FastAPI, Client]]:
    celery_app.loader.import_default_modules()
    app = create_app(settings, Desk(settings), lambda: celery_app.backend)
    with publishing_to(settings), serving(app) as client:
        yield app, client


def end_a_job(settings: Settings) -> None:
    journal = open_journal(settings)
    job = Job("j1", Program("https://u:p@host/x?secret", (Op("crc32c"),)), Policy())
    attempt = job.trail.add("local", Internal("no"), 0.5, 0.0)
    journal.attempt(job, attempt, Outcome(ok=False), opened=True)
    journal.finished(job, "local", Internal("no"), Course(None, 0.0, 0.5))
    assert journal.flush()


def events(client: Client) -> Iterator[tuple[str, Any]]:
    """The events of a stream, each with its data, until it ends or is no longer wanted."""
    headers = {} if client.key is None else {"Authorization": f"Bearer {client.key}"}
    answer = client.pool.request("GET", f"{client.url}/v1/overview/events", headers=headers, preload_content=False)
    try:
        assert answer.status == 200, answer.data
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        name = ""
        for line in answer:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])
    finally:
        answer.close()


@pytest.mark.integration
class TestServed:
    @pytest.fixture
    def settings(self, redis_settings: Settings) -> Settings:
        return replace(redis_settings, flower_url=FLOWER)

    @pytest.fixture
    def served(self, settings: Settings) -> Iterator[tuple[FastAPI, Client]]:
        with gateway(settings) as both:
            yield both

    def test_it_is_the_whole_document(self, settings: Settings, served: tuple[FastAPI, Client]) -> None:
        end_a_job(settings)
        app, client = served
        app.state.context.browsers = lambda: {"connected": 3}
        answer = client.get("/v1/overview")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        assert "secret" not in answer.text
        check(answer.json)
        told = answer.json
        assert (told["status"], told["ledger"]["open"]) == ("unhealthy", 0)
        assert [one["what"] for one in told["unwell"]] == ["queue"]
        (local,) = told["substrates"]
        assert (local["name"], local["jobs"]["failed"], local["attempts"]["failed"]) == (
            "local", {"internal": 1}, {"internal": 1},
        )  # fmt: skip
        assert local["breaker"]["cause"]["error"] == "internal"
        assert [one["job_id"] for one in told["recent"]] == ["j1"]
        assert (told["browsers"], told["links"]["flower"]) == ({"connected": 3}, FLOWER)

    def test_all_who_ask_within_a_second_are_told_the_same(self, served: tuple[FastAPI, Client]) -> None:
        app, client = served
        app.state.context.overview = Fresh(3600)
        first = client.get("/v1/overview").json
        assert client.get("/v1/overview").json == first
        stream = events(client)
        assert next(stream) == ("overview", first)
        stream.close()

    def test_a_stream_goes_on_and_ends_with_the_gateway(self, served: tuple[FastAPI, Client]) -> None:
        app, client = served
        stream = events(client)
        (name, first), (again, second) = next(stream), next(stream)
        assert (name, again) == ("overview", "overview")
        check(first)
        assert second["at"] > first["at"]
        assert app.state.context.streams.count == 1
        app.state.context.stopping = True
        assert list(stream)[-1] == ("end", {"reason": "shutdown"})
        wait_until(lambda: app.state.context.streams.count == 0, "its place is free")

    def test_who_leaves_gives_the_place_back(self, served: tuple[FastAPI, Client]) -> None:
        app, client = served
        stream = events(client)
        next(stream)
        stream.close()
        wait_until(lambda: app.state.context.streams.count == 0, "its place is free")

    def test_there_are_only_so_many_places(self, served: tuple[FastAPI, Client]) -> None:
        app, client = served
        for _ in range(64):
            app.state.context.streams.take("address:127.0.0.1")
        answer = client.get("/v1/overview/events")
        assert (answer.status, answer.error) == (429, "busy")
        assert client.get("/v1/overview").status == 200

    def test_it_takes_the_scope_read(self, settings: Settings, served: tuple[FastAPI, Client]) -> None:
        keys, (_, client) = open_keys(settings), served
        submits, reads = keys.add(["submit"])[0], keys.add(["read"])[0]
        for path in ("/v1/overview", "/v1/overview/events"):
            assert client.get(path).error == "unauthorized"
            assert client.with_key(submits).get(path).error == "forbidden"
        assert client.with_key(reads).get("/v1/overview").status == 200
        stream = events(client.with_key(reads))
        assert next(stream)[0] == "overview"
        stream.close()


@pytest.mark.integration
def test_while_redis_is_away_a_stream_says_so_and_goes_on(tmp_path: Path) -> None:
    with valkey(tmp_path) as settings, gateway(settings) as (_, client):
        stream = events(client)
        assert next(stream)[0] == "overview"
        redis.Redis.from_url(settings.state_url).shutdown(nosave=True)
        problem = next(one for one in stream if one[0] != "overview")
        assert problem == ("problem", {"error": "unavailable", "detail": "the broker does not answer"})
        assert client.get("/v1/overview").error == "unavailable"
        stream.close()
