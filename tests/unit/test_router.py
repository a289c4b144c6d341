"""Which queue a task goes to, asked of a real Celery application."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, patient

from packetfs_compute import router
from packetfs_compute.celery import celery_config
from packetfs_compute.names import OPS, task_of
from packetfs_compute.router import route_task
from packetfs_compute.settings import Settings

LOCAL = {"queue": "packetfs.local"}


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    with Celery("router", set_as_current=False) as app:
        app.conf.update(celery_config(Settings()))
        yield app


def queue_of(app: Celery, name: str, options: dict[str, Any] | None = None, **kwargs: Any) -> str:
    route = app.amqp.router.route(dict(options or {}), name, ("https://host/object",), kwargs)
    return str(route["queue"].name)


@pytest.mark.parametrize("name", [task_of(op) for op in (*OPS, "program", "scan")])
def test_a_task_goes_to_the_local_queue(app: Celery, name: str) -> None:
    assert queue_of(app, name) == "packetfs.local"
    assert queue_of(app, name, policy={"goal": "fastest"}) == "packetfs.local"


@pytest.mark.parametrize("queue", ["packetfs.cloudflare", "packetfs.local", "celery", "mine"])
def test_an_explicit_queue_is_honoured(app: Celery, queue: str) -> None:
    assert queue_of(app, "packetfs.crc32c", {"queue": queue}) == queue
    assert queue_of(app, "packetfs.crc32c", {"queue": queue}, policy={"substrates": ["local"]}) == queue


@pytest.mark.parametrize("name", ["celery.ping", "mine.crc32c", "packetfs", "packetfsx.crc32c", "", "crc32c"])
def test_a_foreign_task_is_left_to_others(name: str) -> None:
    assert route_task(name, (), {"policy": {"substrates": ["local"]}}, {}) is None


def test_a_foreign_task_gets_the_default_queue(app: Celery) -> None:
    assert queue_of(app, "mine.task") == app.conf.task_default_queue == "packetfs.local"


@pytest.mark.parametrize(
    "policy",
    [
        {"substrates": ["nowhere"]},
        {"exclude": ["local"]},
        {"substrates": []},
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
def test_a_policy_that_makes_no_sense_is_a_workers_to_refuse(app: Celery, policy: object) -> None:
    assert queue_of(app, "packetfs.crc32c", policy=policy) == "packetfs.local"


@patient
@given(json_values)
def test_no_policy_at_all_stops_a_publisher(policy: object) -> None:
    assert route_task("packetfs.crc32c", (), {"policy": policy}, {}) == LOCAL


@patient
@given(st.text(), st.lists(json_values), st.dictionaries(st.text(), json_values) | st.none())
def test_nor_do_any_arguments(name: str, args: list[Any], kwargs: Any) -> None:
    assert route_task("packetfs." + name, args, kwargs, {}, None, more=1) == LOCAL


@pytest.mark.parametrize(
    ("policy", "queue"),
    [
        (None, "packetfs.local"),
        ({"substrates": ["fly", "lambda"]}, "packetfs.fly"),
        ({"substrates": ["nowhere", "lambda"]}, "packetfs.lambda"),
        ({"exclude": ["local"]}, "packetfs.lambda"),
        ({"exclude": ["local", "lambda"]}, "packetfs.fly"),
        ({"substrates": ["fly", "lambda"], "exclude": ["fly"]}, "packetfs.lambda"),
        ({"substrates": ["fly"], "exclude": ["fly"]}, "packetfs.local"),
    ],
)
def test_of_several_places_the_policy_chooses(
    monkeypatch: pytest.MonkeyPatch, app: Celery, policy: Any, queue: str
) -> None:
    monkeypatch.setattr(router, "substrate_names", lambda: ("local", "lambda", "fly"))
    assert queue_of(app, "packetfs.crc32c", policy=policy) == queue
