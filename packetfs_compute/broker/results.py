"""Celery's Redis result backend, in which the first result stands, and storing one strikes its job out of the ledger.

Celery reads what is stored, then writes: two round trips, and between them another worker may have stored. Here one script
does it all. What is kept, and how, is Celery's own: any Celery client reads it.

A task of this project that is open in the ledger may still change its state (a retry, another attempt); once it is struck
out, its result stands, be it a failure: the caller may have seen it. Any other task's result stands when it is a success, as
in Celery.

A chord's parts are struck out last, when the chord has counted them. Were one struck out with its result, and its worker
killed before the chord heard of it, the chord would wait for ever.
"""

from collections.abc import Iterable
from typing import Any, Final

from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError, TaskRevokedError
from celery.result import task_join_will_block  # type: ignore[attr-defined]
from kombu.exceptions import KombuError

from packetfs_compute.broker import errands
from packetfs_compute.broker.errands import Errand
from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.lua import Script
from packetfs_compute.broker.reply import reply_head
from packetfs_compute.broker.waiting import Mark, ResultConsumer
from packetfs_compute.names import (
    JOBS_KNOWN,
    JOBS_RESULTS,
    LEDGER_FLAG,
    LEDGER_JOBS,
    LEDGER_LEASES,
    LEDGER_OPEN,
    LEDGER_RUNS,
    REPLIES,
    REPLY_FLAG,
    TASK_PREFIX,
)

__all__ = ["ResultBackend"]

_STORE: Final = Script("store")
_CANCELLED: Final = "packetfs_cancelled"
"""Key of a state that was stored because its job was cancelled; the script looks for it."""
_NO_REPLY: Final = "-"
"""Told to the script where it need not look in the ledger for whom to tell."""
_MAX_BYTES: Final = 512 << 20
"""A Redis string's longest."""


class ResultBackend(RedisBackend):
    """Where results are, and so where the ledger is.

    Celery finds it by :class:`packetfs_compute.broker.amqp.Loader`. Errors are those of Celery's own backend, and so is what
    is tried again when the connection is lost.
    """

    ResultConsumer = ResultConsumer

    supports_result_compression = False
    """The script reads what is stored. Celery says so to whoever configures compression, and reads what was compressed."""

    expires: int
    failure_expires: int
    result_consumer: Any
    get_key_for_task: Any
    _get_result_meta: Any

    @property
    def ledger(self) -> Ledger:
        """The ledger in this Redis."""
        return Ledger(self.client)

    def mark(self) -> Mark:
        """Return the mark of jobs that are going to be published: the channel, their ``reply_to``, comes first."""
        mark: Mark = self.result_consumer.mark()
        return mark

    def put_mark(self, mark: Mark, handles: Iterable[Any]) -> None:
        """Mark the handles of jobs that were published so: their results are waited for by the channel."""
        self.result_consumer.put(mark, handles)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Make ready to hear of a result, before its job is published. In a worker nobody waits, unless he says so."""
        del producer, task_id
        if not task_join_will_block():
            self.result_consumer.hear()

    def enter(self, job_id: str, message: str, eta: float | None, patience_s: float) -> None:
        """Enter a job whose message takes another way than a list of this Redis, trying again as for a result."""
        self.ensure(self.ledger.enter, (job_id, "", message, eta, patience_s))

    def is_finished(self, task_id: str) -> bool:
        """Whether a job needs no further attempt: its result is stored, and nothing of it is open."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.get(self.get_key_for_task(task_id))
            pipe.zscore(LEDGER_OPEN, task_id)
            stored, due = pipe.execute()
        return due is None and self.is_final(stored)

    def is_final(self, stored: bytes | None) -> bool:
        """Whether what is stored of a task is its end; what cannot be read is not."""
        if stored is None:
            return False
        try:
            return self.decode(stored)["status"] in states.READY_STATES
        except (KombuError, ValueError, LookupError, TypeError):
            return False

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """Store a success, tell the chord."""
        super().mark_as_done(task_id, result, request, store_result, state)
        self._strike_unless_stored(task_id, request, store_result and not getattr(request, "ignore_result", False))

    def mark_as_failure(
        self,
        task_id: str,
        exc: Exception,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure, tell the chord and the errbacks."""
        super().mark_as_failure(task_id, exc, traceback, request, store_result, call_errbacks, state)
        self._strike_unless_stored(task_id, request, store_result)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store that a task was revoked, tell the chord."""
        super().mark_as_revoked(task_id, reason, request, store_result, state)
        self._strike_unless_stored(task_id, request, store_result)

    def mark_as_cancelled(self, task_id: str, reason: str, request: Any) -> None:
        """Store that a job was cancelled, as Celery's REVOKED, and strike it out. It stands, whatever an attempt brings."""
        result = self.encode_result(TaskRevokedError(reason), states.REVOKED)
        self._store_result(task_id, result, states.REVOKED, request=request, cancelled=True)

    def _strike_unless_stored(self, task_id: str, request: Any, stored: bool) -> None:
        if not stored or _is_chord_part(request):
            self.ensure(self.ledger.strike, (task_id,))

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        if kwargs.get("cancelled"):
            meta[_CANCELLED] = True
        payload = self.encode(meta)
        if len(payload) > _MAX_BYTES:
            raise BackendStoreError("value too large for Redis backend", state=state, task_id=task_id)  # type: ignore[call-arg]
        final = state in states.READY_STATES
        reply = reply_head(task_id, meta) if getattr(request, REPLY_FLAG, None) is True else ""
        keys = [
            *(self.get_key_for_task(task_id), LEDGER_OPEN, LEDGER_JOBS, LEDGER_RUNS, LEDGER_LEASES),
            *(JOBS_KNOWN + task_id, JOBS_RESULTS + task_id),
        ]
        arguments = [
            task_id,
            payload,
            (self.failure_expires if state == states.FAILURE else self.expires) or 0,
            int(_is_entered(request)),
            int(final and not _is_chord_part(request)),
            reply,
            self._channel_of(request),
        ]
        self.ensure(self._run, (Errand(_STORE.text, _STORE.digest, keys, arguments),))
        errands.clear()
        return result

    def _channel_of(self, request: Any) -> str:
        """Return the channel on which to tell who published a task; nothing where the ledger has to be asked for it."""
        name = getattr(request, "reply_to", None)
        if not isinstance(name, str):
            return ""
        channel: str | bytes = self.get_key_for_task(name) if name.startswith(REPLIES) else _NO_REPLY
        return channel.decode() if isinstance(channel, bytes) else channel

    def _run(self, store: Errand) -> None:
        """Store, after this thread's errands: in the same round trip."""
        left = errands.pending()
        if left:
            errands.run(self.client, [*left, store])
        else:
            _STORE(self.client, store.keys, store.arguments)


def _is_entered(request: Any) -> bool:
    task = getattr(request, "task", None)
    return isinstance(task, str) and task.startswith(TASK_PREFIX) and getattr(request, LEDGER_FLAG, None) is not False


def _is_chord_part(request: Any) -> bool:
    return bool(getattr(request, "chord", None))
