"""What is a message and what is none: malformed ones by name, any bytes at all, and everything that Celery publishes."""

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import MagicMock, Mock

import kombu
import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.exceptions import DecodeError
from support.malformed import MALFORMED, WELL_FORMED, encoded, good, raw

import tasks
from packetfs_compute.broker.letters import (
    decoded,
    published_at,
    read_body,
    republication,
)
from packetfs_compute.broker.messages import defect, defect_of_envelope, moment

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = sorted(
    {*good()["headers"], *good()["properties"], *good(), "compression", "exchange", "consumer_tag", "args", "chord"}
)


def test_there_are_malformed_messages_of_every_kind() -> None:
    assert len(MALFORMED) >= 100
    assert len(set(MALFORMED.values())) == len(MALFORMED)


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_told_with_the_reason(message: bytes) -> None:
    reason = defect(message)
    assert reason
    assert len(reason) < 300
    assert "\n" not in reason


@pytest.mark.parametrize("message", WELL_FORMED.values(), ids=WELL_FORMED)
def test_a_well_formed_message_has_no_defect(message: Any) -> None:
    assert defect(raw(message())) is None
    assert defect_of_envelope(message()) is None


@pytest.mark.parametrize(
    ("path", "names"),
    [("eta", "headers.eta is not an ISO 8601 time"), ("task", "headers.task is not the name of a task")],
)
def test_the_reason_names_the_part(path: str, names: str) -> None:
    assert defect(raw(good(**{path: 5}))) == names


def test_a_missing_part_is_called_missing() -> None:
    assert defect(MALFORMED["no id"]) == "headers.id is missing"


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_get_a_verdict(message: bytes) -> None:
    assert isinstance(defect(message), str)
    assert published_at(message) is None or isinstance(published_at(message), float)


def _paths(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inside for path in _paths(item, (*at, key)))]


PATHS = _paths(good())[1:]
BODY_PATHS = _paths([["a"], {"b": 1}, {"callbacks": [{"task": "t", "options": {}}], "chain": None, "chord": None}])[1:]


def _changed(message: Any, path: tuple[Any, ...], value: object) -> Any:
    changed = copy.deepcopy(message)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


MUTATED = st.builds(_changed, st.just(good()), st.sampled_from(PATHS), JSON) | st.builds(
    lambda path, value: {
        **good(),
        "body": encoded(
            _changed(
                [["a"], {"b": 1}, {"callbacks": [{"task": "t", "options": {}}], "chain": None, "chord": None}],
                path,
                value,
            )
        ),
    },
    st.sampled_from(BODY_PATHS),
    JSON,
)


@pytest.fixture(scope="module")
def worker() -> Any:
    """Take a message as a worker does: kombu's message, Celery's request, the pickling for the pool, the timers."""
    app = Celery(set_as_current=False, broker="memory://")
    app.conf.accept_content = ["json"]

    app.finalize()  # which gives it the project's tasks, as every application in a process that has imported them
    assert tasks.crc32c.name in app.tasks
    connection = kombu.Connection("memory://")
    channel = connection.channel()
    handle = Mock()
    consumer = MagicMock(
        app=app, hostname="w@h", disable_rate_limits=True, on_task_request=handle, event_dispatcher=None
    )
    consumer.controller.state.revoked = set()
    start = app.tasks["packetfs.crc32c"].start_strategy(app, consumer)

    def take(envelope: dict[str, Any]) -> None:
        handle.reset_mock()
        message = channel.Message(envelope, channel=channel)
        message.delivery_info["exchange"], message.delivery_info["routing_key"]  # as QoS.append
        {message.delivery_tag: message}  # noqa: B018
        task_name = message.headers["task"]
        if task_name != "packetfs.crc32c":
            app.tasks.get(task_name)  # an unknown task is Celery's to reject
            return
        try:
            start(message, None, Mock(), Mock(), [])
        except (InvalidTaskError, DecodeError):  # these it catches itself
            return
        for call in handle.call_args_list:
            request: Request = call.args[0]
            pickle.dumps((request.request_dict, request.body))
            hard, soft = request.time_limits
            assert (hard or 0) >= 0
            assert (soft or 0) >= 0
            message.ack  # noqa: B018
            str(request), repr(request), request.info()

    yield take
    connection.release()


@settings(max_examples=400, deadline=None)
@given(envelope=MUTATED)
def test_what_has_no_defect_is_taken_by_celery_without_a_word(worker: Any, envelope: Any) -> None:
    message = json.dumps(envelope).encode()
    if defect(message) is None:
        worker(decoded(message))


def test_the_well_formed_ones_are_taken(worker: Any) -> None:
    for make in WELL_FORMED.values():
        worker(decoded(raw(make())))


def published(redis_client: Any) -> list[bytes]:
    return [item for key in redis_client.keys("packetfs.*") for item in redis_client.lrange(key, 0, -1)]


SOON = datetime.now(UTC) + timedelta(hours=1)


def _stamped(job: Any) -> None:
    signature = job.s("u")
    signature.stamp(visitor=None, mine="stamp")
    signature.apply_async()


WAYS_TO_PUBLISH: dict[str, Any] = {
    "delay": lambda job: job.delay("https://host/object", offset=3, length=None),
    "eta": lambda job: job.apply_async(("u",), eta=SOON),
    "eta without a zone": lambda job: job.apply_async(("u",), eta=SOON.replace(tzinfo=None)),
    "countdown": lambda job: job.apply_async(("u",), countdown=2.5),
    "expires at": lambda job: job.apply_async(("u",), expires=SOON),
    "expires in": lambda job: job.apply_async(("u",), expires=60),
    "priority": lambda job: job.apply_async(("u",), priority=9),
    "time limits": lambda job: job.apply_async(("u",), time_limit=60, soft_time_limit=30),
    "headers": lambda job: job.apply_async(("u",), headers={"mine": {"a": [1, 2]}}),
    "shadow": lambda job: job.apply_async(("u",), shadow="another"),
    "an id of one's own": lambda job: job.apply_async(("u",), task_id="job-1"),
    "no result": lambda job: job.apply_async(("u",), ignore_result=True),
    "callbacks": lambda job: job.apply_async(("u",), link=job.s(1), link_error=[job.si(2), job.si(3)]),
    "gzip": lambda job: job.apply_async(("u" * 5000,), compression="gzip"),
    "another type": lambda job: job.delay(datetime.now(UTC), {"not": float("nan")}, b"bytes", "\ud800 ü 🦊"),
    "by name": lambda job: job.app.send_task("packetfs.test", args=["u"], kwargs={"a": 1}),
    "group": lambda job: group(job.s(i) for i in range(5)).apply_async(),
    "chain": lambda job: chain(job.s(1), job.s(2), job.s(3)).apply_async(),
    "chord": lambda job: chord([job.s(i) for i in range(3)], job.s("body")).apply_async(),
    "chords in chords": lambda job: chord(
        [chain(job.s(1), group(job.s(2), job.s(3)) | job.s(4)), job.s(5)], chord([job.s(6), job.s(7)], job.s(8))
    ).apply_async(),
    "stamps": _stamped,
}


@pytest.mark.parametrize("publish", WAYS_TO_PUBLISH.values(), ids=WAYS_TO_PUBLISH)
def test_what_our_own_application_publishes_has_no_defect(app: Celery, redis_client: Any, publish: Any) -> None:
    publish(app.tasks["packetfs.test"])
    items = published(redis_client)
    assert items
    assert [defect(item) for item in items] == [None] * len(items)


def test_a_retry_has_no_defect_and_its_republication_neither(app: Celery, redis_client: Any) -> None:
    retried: Any = app.tasks["packetfs.retried"]
    retried.apply_async(("u",), task_id="job-1", headers={"mine": 1})
    first = decoded(redis_client.rpop("packetfs.local"))
    assert first is not None
    args, kwargs, embedded = read_body(first)
    retried.push_request(
        **first["headers"],
        args=args,
        kwargs=kwargs,
        **embedded,
        called_directly=False,
        delivery_info={"routing_key": "packetfs.local"},
    )
    retried.retry(countdown=7, throw=False)
    (item,) = published(redis_client)
    assert defect(item) is None
    again = decoded(item)
    assert again is not None
    assert (again["headers"]["id"], again["headers"]["retries"], again["headers"]["mine"]) == ("job-1", 1, 1)
    assert defect(republication(again, 5.0).encode()) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10", 10.0), ("1970-01-01T01:00:10+01:00", 10.0), ("1970-01-01T00:00:10.5Z", 10.5),
        ("tomorrow", None), ("", None), (None, None), (5, None), ("9999-12-31T23:59:59", None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)  # fmt: skip
def test_a_moment_is_unix_seconds(text: object, seconds: float | None) -> None:
    assert moment(text) == seconds
