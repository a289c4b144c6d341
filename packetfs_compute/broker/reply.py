"""How a job ended, for whoever has nothing but a Redis client: the head of what the script that stores a result writes."""

from collections.abc import Mapping
from typing import Any

from celery import states
from kombu.utils.json import dumps

from packetfs_compute.broker.outcome import error_info, outcome
from packetfs_compute.errors import Internal

__all__ = ["reply_head"]


def reply_head(job_id: str, meta: Mapping[str, Any]) -> str:
    """Return a status as JSON less what was asked and the last brace; nothing for a task that has not ended.

    What is no result of a program's (somebody registered another task under our name) is told as a failure.
    """
    if meta.get("status") not in states.READY_STATES:
        return ""
    ended = outcome(meta)
    if ended is None:
        error = error_info(Internal("the task's result is none of a program's"))
        ended = {"status": "failed", "result": None, "error": error}
    return dumps({"job_id": job_id, **ended})[:-1]
