"""The hatch beside the desk: what it keeps in Redis, and the message that arrives, are the very same."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from celery.app.task import Context
from support.system import publishing_to_for_once

from packetfs_compute.broker import outcome
from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.letters import read_body
from packetfs_compute.broker.messages import defect
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.celery import app
from packetfs_compute.desk import Desk
from packetfs_compute.errors import BadPolicy, BadProgram, JobError
from packetfs_compute.hatch import Shut, open_hatch
from packetfs_compute.names import JOBS_KNOWN, JOBS_RESULTS, SCANS_QUEUE, SUBMITTED_AT
from packetfs_compute.settings import Settings
from packetfs_compute.standing import Submission
from tasks import scan

PROGRAM = {"data_url": 'https://host/"ob{1}jécts"?q=\\n', "ops": [{"op": "crc32c"}, {"op": "counteq", "imm": 10}]}
POLICY = {"cache": False, "substrates": ["local"], "deadline_s": 60}
LONG = {"data_url": "https://host/" + "é" * 2000, "ops": [{"op": "xor", "imm": n} for n in range(16)]}
RESULT = {"results": [{"op": "crc32c", "value": 7}], "job_id": "j", "attempts": []}


@pytest.fixture
def settings(redis_settings: Settings) -> Iterator[Settings]:
    with publishing_to_for_once(redis_settings):
        yield redis_settings


@pytest.fixture
def backend(settings: Settings) -> ResultBackend:
    assert isinstance(app.backend, ResultBackend)
    return app.backend


def asked(program: Any = PROGRAM, policy: Any = POLICY, window: Any = None) -> Submission:
    return Submission("j", program, policy, scan=True, window=window)


def submit(settings: Settings, one: Submission) -> None:
    with open_hatch(settings, one.job_id) as hatch:
        hatch.submit(one)


def raw(client: Any) -> bytes:
    (message,) = client.lrange(SCANS_QUEUE, 0, -1)
    assert defect(message) is None
    return bytes(message)


def alike(message: bytes, *volatile: str) -> bytes:
    """A message in which what differs each time is left blank, byte for byte otherwise."""
    told = json.loads(message)
    properties, headers = told["properties"], told["headers"]
    values = [properties["delivery_tag"], properties["reply_to"], *(headers[name] for name in volatile)]
    for text in (json.dumps(value).encode() for value in values):
        assert text in message
        message = message.replace(text, b"?")
    message, count = re.subn(rb'"packetfs_published": [0-9]+\.[0-9]{6}\}$', b"?", message)
    assert count == 1
    return message


def request_of(message: bytes) -> Any:
    """The request that a worker would make of a message."""
    told = json.loads(message)
    args, kwargs, embedded = read_body(told)
    return Context({**told["headers"], "args": args, "kwargs": kwargs, "delivery_info": {}, **embedded})


def everything(client: Any) -> dict[str, Any]:
    """All that is in Redis, but for kombu's bindings, with what differs each time left blank."""
    told: dict[str, Any] = {}
    for key in client.scan_iter():
        name, kind = key.decode(), client.type(key)
        if name.startswith("_kombu"):
            continue
        if kind == b"list":
            value: Any = [alike(one, SUBMITTED_AT) for one in client.lrange(key, 0, -1)]
        elif kind == b"hash":
            value = {
                field: (record.partition(b"\n")[0], alike(record.partition(b"\n")[2], SUBMITTED_AT))
                for field, record in client.hgetall(key).items()
            }
        elif kind == b"zset":
            value = client.zrange(key, 0, -1)
        else:
            value = {**json.loads(client.get(key)), "submitted_at": None}
        told[name] = (value, client.ttl(key))
    return told


GIVEN = [(PROGRAM, POLICY, None), (PROGRAM, None, 1 << 20), (LONG, {"goal": "cheapest"}, None)]


class TestSubmit:
    @pytest.mark.parametrize(("program", "policy", "window"), GIVEN)
    def test_redis_holds_what_the_desk_would_have_put_there(
        self, settings: Settings, redis_client: Any, program: Any, policy: Any, window: Any
    ) -> None:
        one = asked(program, policy, window)
        with closing(Desk(settings)) as desk:
            desk.submit_many([one])
        theirs = everything(redis_client)
        redis_client.flushall()
        submit(settings, one)
        assert everything(redis_client) == theirs
        assert {JOBS_KNOWN + "j", SCANS_QUEUE} < set(theirs)

    @pytest.mark.parametrize(("program", "policy", "window"), GIVEN)
    def test_the_message_is_to_the_byte_what_celery_makes(
        self, settings: Settings, redis_client: Any, program: Any, policy: Any, window: Any
    ) -> None:
        submit(settings, asked(program, policy, window))
        ours = raw(redis_client)
        arguments = read_body(json.loads(ours))[1]
        headers = {name: value for name, value in json.loads(ours)["headers"].items() if name.startswith("packetfs_")}
        redis_client.flushall()
        scan.apply_async(kwargs=arguments, task_id="j", headers=headers)
        # The arguments for show alone are Python's there, and JSON of the desk and the hatch.
        assert alike(ours, "kwargsrepr") == alike(raw(redis_client), "kwargsrepr")

    def test_it_is_in_the_ledger(self, settings: Settings, redis_client: Any) -> None:
        submit(settings, asked())
        (entry,) = Ledger(redis_client).due(1, now=1e11)[1]
        assert (entry.id, entry.key, entry.message) == ("j", SCANS_QUEUE, raw(redis_client))

    @pytest.mark.parametrize(
        ("one", "error", "field"),
        [
            (asked({**PROGRAM, "ops": []}), BadProgram, "program.ops"),
            (asked(policy={"goal": "best"}), BadPolicy, "policy.goal"),
            (asked(window=0), BadProgram, "window"),
        ],
    )
    def test_what_is_no_scan_is_refused_and_leaves_nothing(
        self, settings: Settings, redis_client: Any, one: Submission, error: type[JobError], field: str
    ) -> None:
        with pytest.raises(error) as told:
            submit(settings, one)
        assert told.value.details["field"] == field
        assert redis_client.dbsize() == 0

    def test_the_same_again_is_published_once_whoever_takes_it(self, settings: Settings, redis_client: Any) -> None:
        submit(settings, asked())
        submit(settings, asked())
        with closing(Desk(settings)) as desk:
            (status,) = desk.submit_many([asked()])
        assert isinstance(status, dict)
        assert redis_client.llen(SCANS_QUEUE) == 1
        with pytest.raises(BadProgram, match="is taken by a job with another program"):
            submit(settings, asked(window=5))
        assert redis_client.llen(SCANS_QUEUE) == 1

    def test_one_that_was_claimed_and_not_published_is_published(self, settings: Settings, redis_client: Any) -> None:
        submit(settings, asked())
        Ledger(redis_client).strike("j")
        redis_client.delete(SCANS_QUEUE)
        submit(settings, asked())
        assert redis_client.llen(SCANS_QUEUE) == 1


class TestStatus:
    def test_it_is_the_desks_all_along(self, settings: Settings, backend: ResultBackend, redis_client: Any) -> None:
        with open_hatch(settings, "j") as hatch, closing(Desk(settings)) as desk:
            seen = []

            def look() -> None:
                assert hatch.status("j") == desk.status("j")
                seen.append((hatch.status("j") or {}).get("status"))

            look()
            hatch.submit(asked())
            look()
            request = request_of(raw(redis_client))
            Ledger(redis_client).lease("j", 15.0)
            look()
            backend.store_result("j", {"bytes_done": 5}, outcome.PROGRESS, request=request)
            look()
            assert hatch.status("j")["progress"] == {"bytes_done": 5}  # type: ignore[index]
            backend.mark_as_done("j", RESULT, request)
            look()
            assert hatch.status("j")["result"] == RESULT  # type: ignore[index]
        assert seen == [None, "queued", "running", "running", "done"]
        assert json.loads(redis_client.get(JOBS_RESULTS + "j"))["result"] == RESULT
        assert redis_client.ttl(JOBS_RESULTS + "j") > 86_000

    def test_what_it_ended_with_is_told(self, settings: Settings, backend: ResultBackend, redis_client: Any) -> None:
        with open_hatch(settings, "j") as hatch, closing(Desk(settings)) as desk:
            hatch.submit(asked())
            desk.cancel("j")
            assert (hatch.status("j") or {})["status"] == "cancelled"
            assert hatch.status("j") == desk.status("j")

    def test_a_result_that_is_stored_ends_a_wait(
        self, settings: Settings, backend: ResultBackend, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with open_hatch(settings, "j") as hatch:
            hatch.submit(asked())
            backend.mark_as_done("j", RESULT, request_of(raw(redis_client)))
            monkeypatch.setattr("time.sleep", lambda _: pytest.fail("the news was not heard"))
            hatch.wait(1e6)  # pytest's own limit would end it


class TestShut:
    @pytest.mark.parametrize(
        "more",
        [
            {"broker_url": "amqp://host"}, {"broker_url": "redis://elsewhere"}, {"redis_url": "rediss://host"},
            {"redis_url": "unix:///nowhere/redis.sock"}, {"redis_url": "redis://127.0.0.1:1"},
        ],
    )  # fmt: skip
    def test_what_is_for_the_desk_alone(self, redis_settings: Settings, more: dict[str, Any]) -> None:
        with pytest.raises(Shut), open_hatch(replace(redis_settings, **more), "j"):
            pass

    def test_the_broker_may_be_named_twice(self, settings: Settings, redis_client: Any) -> None:
        submit(replace(settings, broker_url=settings.state_url, redis_url=settings.state_url), asked())
        assert redis_client.llen(SCANS_QUEUE) == 1

    def test_a_server_that_goes_away_and_one_that_refuses(self, settings: Settings, redis_client: Any) -> None:
        with open_hatch(settings, "j") as hatch:
            hatch.submit(asked())
            redis_client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(Shut):
                hatch.status("j")
        redis_client.set("packetfs:ledger:open", "no set")
        with pytest.raises(Shut, match="WRONGTYPE"):
            submit(settings, replace(asked(), job_id="k"))


def test_what_stands_in_the_body(settings: Settings, redis_client: Any) -> None:
    """By eye, so that the two above cannot both be wrong."""
    submit(settings, asked(window=5))
    message = json.loads(raw(redis_client))
    args, kwargs, embedded = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs["data_url"], kwargs["window"]) == ([], PROGRAM["data_url"], 5)
    assert set(embedded.values()) == {None}
    assert (message["headers"]["task"], message["headers"]["id"]) == ("packetfs.scan", "j")
