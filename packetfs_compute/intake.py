"""The intake: jobs pushed on a Redis list by anybody who has a Redis client, ``redis-cli`` for one.

``LPUSH packetfs:jobs:queue '{"job_id": "j1", "program": {…}, "policy"?: {…}, "priority"?: 0}'`` submits a job, ``GET
packetfs:results:j1`` tells how it ended. A message that is no job goes on ``packetfs:jobs:rejected`` with the reason.

Nothing is lost, whenever an instance is killed. A message is moved, in one step, to a list of the instance's own, and taken
off it when its job is submitted (:class:`~packetfs_compute.desk.Desk`) or it is set aside. An instance says that it lives
by a key that expires; the list of one that no longer does is put back on the queue by any other. So a message may be
submitted twice: always under the same id, and the desk publishes it once.

What is in an instance's list is always asked of Redis, never remembered: an answer that was lost on its way loses nothing.
"""

import json
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from packetfs_compute.broker.lua import Script
from packetfs_compute.broker.outcome import error_info
from packetfs_compute.desk import Desk, JobStatus, Submission, check_job_id
from packetfs_compute.errors import BadProgram, BrokerUnavailable, JobError
from packetfs_compute.names import (
    JOBS_ALIVE,
    JOBS_INSTANCES,
    JOBS_KNOWN,
    JOBS_PROCESSING,
    JOBS_QUEUE,
    JOBS_REJECTED,
    JOBS_RESULTS,
)
from packetfs_compute.routing.backoff import full_jitter_s
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect
from packetfs_compute.validation import require_object, show

__all__ = ["MAX_JOB_BYTES", "Intake", "is_taking", "parse_job"]

_log = logging.getLogger(__name__)

MAX_JOB_BYTES: Final = 1 << 16
"""The longest message: some times the longest that is a job."""
_MAX_BATCH_BYTES: Final = 4 << 20
_MAX_REJECTED: Final = 10_000
_MAX_SHOWN_CHARS: Final = 1 << 14
"""Of a message that is set aside; with the bound above the list never takes more than some 160 MB."""
_ALIVE_S: Final = 10
"""How long after its last sign of life an instance is taken for dead."""
_RENEW_S: Final = 3.0
_WAIT_S: Final = 1.0
"""For a message, before the signs of life are seen to."""
_LONGEST_BACKOFF_S: Final = 2.0
_FINAL: Final = frozenset({"done", "failed", "cancelled"})
_FIELDS: Final = frozenset({"job_id", "program", "policy", "priority"})

_TAKE: Final = Script("take")
_ADOPT: Final = Script("adopt")
_REJECT: Final = Script("reject")


@dataclass(frozen=True, slots=True)
class _Refused:
    """A message that is no job. ``job_id`` is ``None`` where it has none that can be used."""

    error: JobError
    job_id: str | None


def parse_job(message: bytes) -> Submission:
    """Return what a message asks for; raise :class:`BadProgram` where it is no object of the known fields with a job's id.

    Of ``program``, ``policy`` and ``priority`` nothing is checked here. Other encodings, NaN, nesting without end and
    numbers without end are no JSON. ``details["job_id"]`` is there wherever the id can be used.
    """
    try:
        raw = json.loads(message.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else show(str(error))
        raise BadProgram(f"it is no JSON: {why}", {"field": "job", "hint": "push a JSON object in UTF-8"}) from None
    job_id = None
    try:
        if isinstance(raw, dict):
            job_id = check_job_id(raw.get("job_id"))
        fields = require_object(raw, "job", _FIELDS)
    except BadProgram as error:
        if job_id is not None:
            error.details["job_id"] = job_id
        raise
    priority = fields.get("priority")
    return Submission(
        check_job_id(job_id), fields.get("program"), fields.get("policy"), 0 if priority is None else priority
    )


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


class Intake:
    """One instance of the intake. ``desk`` submits what it takes, ``batch`` messages at once."""

    def __init__(self, settings: Settings, desk: Desk, batch: int = 200) -> None:
        self.name = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"  # is_taking() reads it
        self._desk = desk
        self._batch = batch
        self._ttl_s = settings.result_ttl_s
        self._own = JOBS_PROCESSING + self.name
        self._renewed_s = -_RENEW_S
        self._redis: Any = connect(settings)

    def run(self, stop: Callable[[], bool]) -> None:
        """Take messages until ``stop()``, asked between two batches; a Redis or broker that is away is waited for."""
        failures = 0
        while not stop():
            try:
                self.turn()
                if failures:
                    _log.warning("the broker is back")
                failures = 0
            except BrokerUnavailable as error:
                if not failures:
                    _log.warning("%s", error)
                _pause(full_jitter_s(failures, random.random), stop)
                failures += 1
        self._leave()

    def turn(self) -> int:
        """Take one batch and finish with it, waiting up to a second for a first message; return how many there were.

        Raises :class:`BrokerUnavailable`; what was taken is then in the instance's list, and comes first in the next turn.
        """
        try:
            self._live()
            messages = self._take()
            if not messages:
                self._redis.blmove(JOBS_QUEUE, self._own, _WAIT_S, "RIGHT", "LEFT")
                messages = self._take()
            if messages:
                self._finish(messages, self._submit(messages))
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the intake's Redis does not answer: {error}") from error
        return len(messages)

    def _live(self) -> None:
        """Give a sign of life, and take over from instances that give none; both now and then."""
        now_s = time.monotonic()
        if now_s - self._renewed_s < _RENEW_S:
            return
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(JOBS_ALIVE + self.name, "1", ex=_ALIVE_S)
            pipe.sadd(JOBS_INSTANCES, self.name)
            pipe.smembers(JOBS_INSTANCES)
            names = pipe.execute()[-1]
        for name in sorted(one.decode("utf-8", "replace") for one in names):
            keys = [JOBS_ALIVE + name, JOBS_PROCESSING + name, JOBS_QUEUE, JOBS_INSTANCES]
            moved = int(_ADOPT(self._redis, keys, [name, self._batch]))
            if moved > 0:
                _log.warning("%d messages that the intake %s had taken are taken again", moved, name)
        self._renewed_s = now_s

    def _take(self) -> list[bytes]:
        arguments = [self._batch, _MAX_BATCH_BYTES, MAX_JOB_BYTES, _MAX_REJECTED]
        taken: list[bytes] = _TAKE(self._redis, [JOBS_QUEUE, self._own, JOBS_REJECTED], arguments)
        return taken

    def _submit(self, messages: Sequence[bytes]) -> list[JobStatus | _Refused]:
        """Submit what is a job; return for each message how its job stands, or why it is none."""
        parsed = [_parsed(message) for message in messages]
        submissions = [one for one in parsed if isinstance(one, Submission)]
        answers = iter(self._desk.submit_many(submissions))
        told: list[JobStatus | _Refused] = []
        for one in parsed:
            if isinstance(one, Submission):
                answer = next(answers)
                told.append(_Refused(answer, one.job_id) if isinstance(answer, JobError) else answer)
            else:
                told.append(one)
        return told

    def _finish(self, messages: Sequence[bytes], answers: Sequence[JobStatus | _Refused]) -> None:
        """Take every message off the instance's list, in one round trip."""
        with self._redis.pipeline(transaction=True) as pipe:
            for message, answer in zip(messages, answers, strict=True):
                if isinstance(answer, _Refused):
                    self._set_aside(pipe, message, answer)
                    continue
                if answer["status"] in _FINAL:  # asked for again after its end: perhaps what was told is deleted
                    pipe.set(JOBS_RESULTS + answer["job_id"], json.dumps(answer), ex=self._ttl_s, nx=True)
                pipe.lrem(self._own, -1, message)
            pipe.execute()
        refused = [answer for answer in answers if isinstance(answer, _Refused)]
        if refused:
            _log.warning("set %d messages aside; the last: %s", len(refused), refused[-1].error)

    def _set_aside(self, pipe: Any, message: bytes, refused: _Refused) -> None:
        entry = {
            "message": message.decode("utf-8", "backslashreplace")[:_MAX_SHOWN_CHARS],
            "reason": refused.error.message,
            "bytes": len(message),
            "at": time.time(),
        }
        reply, job_id = "", refused.job_id or ""
        if job_id:
            status: JobStatus = {
                "job_id": job_id,
                "status": "failed",
                "submitted_at": None,
                "program": None,
                "policy": None,
                "result": None,
                "error": error_info(refused.error),
            }
            reply = json.dumps(status)
        keys = [self._own, JOBS_REJECTED, JOBS_KNOWN + job_id, JOBS_RESULTS + job_id]
        _REJECT.queue(pipe, keys, [message, json.dumps(entry), _MAX_REJECTED, reply, self._ttl_s])

    def _leave(self) -> None:
        """Say that this instance is gone; what it has left, if anything, the next one takes over at once."""
        try:
            self._redis.delete(JOBS_ALIVE + self.name)
            _ADOPT(
                self._redis,
                [JOBS_ALIVE + self.name, self._own, JOBS_QUEUE, JOBS_INSTANCES],
                [self.name, self._batch],
            )
        except (redis.RedisError, OSError) as error:
            _log.warning("left without saying so: %s", error)
        finally:
            self._redis.close()


def is_taking(settings: Settings, host: str) -> bool:
    """Return whether an instance on ``host`` has lately given a sign of life; raise :class:`BrokerUnavailable`."""
    try:
        with connect(settings) as client:
            names = [one.decode("utf-8", "replace") for one in client.smembers(JOBS_INSTANCES)]
            here = [JOBS_ALIVE + name for name in names if name.rsplit("-", 2)[0] == host]
            return bool(here) and bool(client.exists(*here))
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(f"the intake's Redis does not answer: {error}") from error


def _parsed(message: bytes) -> Submission | _Refused:
    try:
        return parse_job(message)
    except BadProgram as error:
        return _Refused(error, error.details.pop("job_id", None))


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep in short turns, so that a signal that came meanwhile is heard."""
    until = time.monotonic() + min(seconds, _LONGEST_BACKOFF_S)
    while not stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
