"""An application of a test's own, on a real Redis that is empty."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.backends.redis import RedisBackend
from kombu.transport import memory
from support.system import reset_pools

from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.celery import celery_config
from packetfs_compute.settings import Settings

AMQP = "packetfs_compute.broker.amqp:AMQP"
LOADER = "packetfs_compute.broker.amqp:Loader"


def make_app(settings: Settings, **config: Any) -> Celery:
    """An application with the broker of the project and tasks of its own, none of which runs here."""
    app = Celery("broker_test", amqp=AMQP, loader=LOADER, set_as_current=False)
    app.conf.update(celery_config(settings), task_routes=None, **config)

    @app.task(shared=False, name="packetfs.test")
    def job(*args: Any, **kwargs: Any) -> None: ...

    @app.task(shared=False, name="packetfs.retried", bind=True, max_retries=5)
    def retried(self: Any, *args: Any) -> None: ...

    @app.task(shared=False, name="others.test")
    def other(*args: Any) -> None: ...

    app.finalize()
    return app


@pytest.fixture
def make(redis_settings: Settings) -> Iterator[Callable[..., Celery]]:
    """Make applications on the test's Redis; they are closed afterwards."""
    apps: list[Celery] = []

    def made(**config: Any) -> Celery:
        apps.append(make_app(redis_settings, **config))
        return apps[-1]

    yield made
    for app in apps:
        close_app(app)
    reset_pools()
    memory.Transport.global_state.clear()
    memory.Channel.queues.clear()


def close_app(app: Celery) -> None:
    """Let go of every connection that the application holds."""
    backend: Any = app.backend
    if isinstance(backend, RedisBackend):
        consumer: Any = backend.result_consumer
        consumer.stop()
        consumer.cancel_for = lambda _: None  # a result that goes later would connect again, to unsubscribe
        backend.client.connection_pool.disconnect()
    app.close()


@pytest.fixture
def app(make: Callable[..., Celery]) -> Celery:
    return make()


@pytest.fixture
def ledger(redis_client: Any) -> Ledger:
    return Ledger(redis_client)


@pytest.fixture
def commands(redis_client: Any) -> Callable[[], dict[str, int]]:
    """Tell how often each command was run since the statistics were reset, by clients and scripts alike."""

    def counted() -> dict[str, int]:
        stats = redis_client.info("commandstats").items()
        return {
            name.removeprefix("cmdstat_"): stat["calls"]
            for name, stat in stats
            if "config" not in name and "info" not in name
        }

    return counted
