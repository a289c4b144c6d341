"""The Celery application: ``celery -A packetfs_compute worker|inspect|status|events|flower …``.

Importing this module configures nothing: Celery asks for the settings when they are first needed. What is set, and why:

- *JSON only*, in and out: a message can hold data, never code.
- *Acknowledged late*: a job is given back when its worker dies. One that kills its worker is retried three times at
  most (``Task.max_retries``).
- *Prefetch of one*: a long job must not hold others back behind it.
- *The visibility timeout* is twice the longest job. Redis redelivers what stays unacknowledged for longer, so a shorter
  one would run a long job again and again. The two ``unacked_restore`` options make the redelivery prompt: with kombu's
  defaults it is up to 100 s late.
- *Running jobs survive a lost connection* to the broker; to cancel them would end them as REVOKED.
- *No events until somebody asks for them*, as in Celery: Flower does when it starts, for ``celery events`` it is
  ``celery control enable_events``. They are a tenth of what a worker does for a job that does nothing.
- *Nothing is lost*: AMQP and loader are :mod:`packetfs_compute.broker`'s. Publishing enters a job in the ledger, in the same
  round trip where the broker is the Redis that holds results; storing its result strikes it out. A publish that failed may
  have succeeded, and is tried again under the same id.
"""

import functools
import time
from typing import Any, Final

from celery import Celery
from celery.signals import before_task_publish, worker_init
from kombu.exceptions import OperationalError

from packetfs_compute.names import (
    LEDGER_FLAG,
    LOCAL,
    MAX_TIMEOUT_MS,
    PROBE_TASK,
    SUBMITTED_AT,
    SWEEP_TASK,
    TASK_PREFIX,
    TASK_TIME_LIMIT_S,
    queue_of,
)
from packetfs_compute.router import Router
from packetfs_compute.settings import Settings, load_settings

__all__ = ["SUBMITTED_AT", "TRAIL", "app", "broker_errors", "celery_config", "current_settings", "router_of"]

TRAIL: Final = "packetfs_trail"
"""Message header: what a job's attempts have done so far; see :class:`packetfs_compute.job.Trail`."""

_SILENCE_S: Final = 15.0
"""How long a Redis that accepted the connection may say nothing; a blocking pop is asked for in turns of a second."""
_MAX_CONNECTIONS: Final = 1024
"""Of one channel, opened as needed: every thread of a forwarding worker acknowledges its own job, and kombu allows ten."""
_GIVE_UP: Final = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
"""How often a client tries to reach the broker before it says so; without it kombu tries for ever (celery #4296)."""


@functools.cache
def current_settings() -> Settings:
    """Return this process's settings, read from the environment on first use."""
    return load_settings()


@functools.lru_cache(maxsize=16)
def router_of(settings: Settings) -> Router:
    """Return this process's router for ``settings``: one, so that what it has learnt is found again."""
    return Router(settings)


def broker_errors(application: Celery) -> tuple[type[BaseException], ...]:
    """Return what is raised when the broker or the result store of ``application`` goes away.

    That is kombu's error, those of the client underneath, and the :class:`RuntimeError` with which Celery gives up waiting.
    """
    connection = application.connection_for_write()  # not opened: it only knows its transport
    return (OperationalError, *connection.connection_errors, *connection.channel_errors, RuntimeError)


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for ``settings``."""
    state_url = _celery_url(settings.state_url)
    longest_s = MAX_TIMEOUT_MS // 1000
    return {
        "broker_url": _celery_url(settings.broker_url or settings.state_url),
        "result_backend": state_url,
        "result_expires": settings.result_ttl_s,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_default_queue": queue_of(LOCAL),
        "task_routes": (router_of(settings),),
        "beat_schedule": {
            name: {"task": name, "schedule": every_s, "options": {"expires": 5 * every_s}}
            for name, every_s in ((SWEEP_TASK, 2.0), (PROBE_TASK, 2.0))
        },
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_retry_on_worker_lost": True,
        "task_time_limit": TASK_TIME_LIMIT_S,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "packetfs_compute.broker.consumer:Consumer",
        "worker_concurrency": settings.concurrency,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_timeout": settings.connect_timeout_s,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": 2 * longest_s,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": settings.connect_timeout_s,
            "socket_timeout": _SILENCE_S,
            "max_connections": _MAX_CONNECTIONS,
            LEDGER_FLAG: settings.broker_url in (None, settings.state_url),
            **_GIVE_UP,
        },
        "redis_socket_connect_timeout": settings.connect_timeout_s,
        "redis_socket_timeout": _SILENCE_S,
        "result_backend_transport_options": {"retry_policy": _GIVE_UP},
    }


def _celery_url(url: str) -> str:
    """Return a redis-py URL in Celery's spelling: a Unix socket is ``redis+socket://`` there."""
    return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


@before_task_publish.connect
def _stamp(sender: str = "", headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is not None and sender.startswith(TASK_PREFIX):
        headers.setdefault(SUBMITTED_AT, time.time())


@worker_init.connect
def _be_patient(**_: Any) -> None:
    """In a worker a result is worth more than a quick answer: try for 20 s, Celery's own default, to store it."""
    app.conf.result_backend_transport_options = {}


app = Celery(
    "packetfs_compute",
    amqp="packetfs_compute.broker.amqp:AMQP",
    loader="packetfs_compute.broker.amqp:Loader",
    include=["tasks"],
)
app.add_defaults(lambda: celery_config(current_settings()))
