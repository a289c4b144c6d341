"""``packetfs scan`` submitted: what goes through the hatch, what the desk goes on with, and what both say."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from celery.app.task import Context
from support.processes import wait_until
from support.system import publishing_to_for_once

from packetfs_compute.broker.letters import read_body
from packetfs_compute.broker.outcome import PROGRESS
from packetfs_compute.celery import app
from packetfs_compute.cli import desk_scan, following
from packetfs_compute.cli.following import Show
from packetfs_compute.cli.submit_scan import submit_scan_and_wait
from packetfs_compute.errors import BrokerUnavailable, SourceNotFound
from packetfs_compute.names import SCANS_QUEUE
from packetfs_compute.settings import Settings

PROGRAM = {"data_url": "https://host/object", "ops": [{"op": "crc32c"}]}
RESULT = {"results": [{"op": "crc32c", "value": 7}], "job_id": "j", "attempts": []}
Work = Callable[[str, Any], object]


@pytest.fixture
def settings(redis_settings: Settings) -> Iterator[Settings]:
    named = replace(redis_settings, redis_url=redis_settings.state_url)
    with publishing_to_for_once(named):
        yield named


@pytest.fixture
def by_desk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the scans that went to the desk."""
    given: list[str] = []
    real = desk_scan.scan_by_desk

    def noting(settings: Settings, one: Any, show: Any) -> Any:
        given.append(one.job_id)
        return real(settings, one, show)

    monkeypatch.setattr("packetfs_compute.cli.desk_scan.scan_by_desk", noting)
    return given


def run(settings: Settings, client: Any, work: Work, show: Show | None = None) -> tuple[Any, list[Any]]:
    """Submit a scan to a worker that does ``work(job_id, request)``; return its result, and what was shown."""
    shown: list[Any] = []

    def worker() -> None:
        wait_until(lambda: client.llen(SCANS_QUEUE), "it is published")
        message = json.loads(client.lindex(SCANS_QUEUE, 0))
        args, kwargs, embedded = read_body(message)
        headers = message["headers"]
        work(headers["id"], Context({**headers, "args": args, "kwargs": kwargs, "delivery_info": {}, **embedded}))

    with ThreadPoolExecutor(1) as pool:
        worked = pool.submit(worker)
        try:
            return submit_scan_and_wait(settings, PROGRAM, None, None, show or shown.append), shown
        finally:
            worked.result()


def done(job_id: str, request: Any) -> None:
    app.backend.mark_as_done(job_id, RESULT, request)


def test_a_result_comes_back_through_the_hatch(settings: Settings, redis_client: Any, by_desk: list[str]) -> None:
    assert run(settings, redis_client, done) == (RESULT, [])
    assert by_desk == []


def test_progress_is_shown(settings: Settings, redis_client: Any, by_desk: list[str]) -> None:
    told, shown = {"bytes_done": 5}, threading.Event()

    def work(job_id: str, request: Any) -> None:
        app.backend.store_result(job_id, told, PROGRESS, request=request)
        shown.wait(0.2)
        done(job_id, request)

    assert run(settings, redis_client, work)[1][0] == told
    assert by_desk == []


def test_what_it_ended_with_is_raised(settings: Settings, redis_client: Any) -> None:
    def work(job_id: str, request: Any) -> None:
        app.backend.mark_as_failure(job_id, SourceNotFound("gone", {"hint": "look"}), request=request)

    with pytest.raises(SourceNotFound, match="gone") as error:
        run(settings, redis_client, work)
    assert (error.value.hint, set(error.value.details)) == ("look", {"hint", "job_id"})


def test_a_url_that_redis_py_alone_understands_goes_to_the_desk(
    settings: Settings, redis_client: Any, by_desk: list[str]
) -> None:
    assert run(replace(settings, redis_url=f"{settings.state_url}?db=0"), redis_client, done)[0] == RESULT
    assert len(by_desk) == 1


def test_where_the_way_is_lost_the_desk_goes_on_with_the_same_scan(
    settings: Settings, redis_client: Any, by_desk: list[str]
) -> None:
    published: list[str] = []

    def work(job_id: str, request: Any) -> None:
        redis_client.client_kill_filter(_type="normal", skipme=True)
        redis_client.client_kill_filter(_type="pubsub")
        wait_until(lambda: by_desk, "the desk has it")
        published.extend(json.loads(one)["headers"]["id"] for one in redis_client.lrange(SCANS_QUEUE, 0, -1))
        done(job_id, request)

    assert run(settings, redis_client, work)[0] == RESULT
    assert by_desk == published
    assert len(published) == 1


def test_where_nobody_scans_it_is_said(
    settings: Settings, redis_client: Any, by_desk: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PATIENCE_S", 0.0)
    with pytest.raises(BrokerUnavailable, match=r"no worker consumes the queue packetfs\.scans") as error:
        submit_scan_and_wait(settings, PROGRAM, None, None, lambda _: None)
    assert "-Q packetfs.scans" in (error.value.hint or "")
    assert by_desk == []


def test_where_there_is_no_redis_it_is_said(settings: Settings, by_desk: list[str]) -> None:
    away = replace(settings, redis_url="redis://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable, match="no Redis answers at PACKETFS_REDIS_URL") as error:
        submit_scan_and_wait(away, PROGRAM, None, None, lambda _: None)
    assert "PACKETFS_REDIS_URL" in (error.value.hint or "")


def test_who_interrupts_it_cancels_it(settings: Settings, redis_client: Any) -> None:
    ids: list[str] = []

    def work(job_id: str, request: Any) -> None:
        ids.append(job_id)
        app.backend.store_result(job_id, {"bytes_done": 5}, PROGRESS, request=request)

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, redis_client, work, interrupt)
    assert app.backend.get_state(ids[0]) == "REVOKED"
