"""A real Redis (Valkey) server of a test's own, in a directory of its own."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.settings import Settings


@contextmanager
def valkey(folder: Path, *, persistent: bool = False) -> Iterator[Settings]:
    """Run a server as long as the context does; yield the settings that lead to it."""
    settings = Settings(data_dir=folder / "redis")
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = start_redis_server(settings, persistent=persistent)
    try:
        yield settings
    finally:
        server.stop(*STOP, (signal.SIGKILL, 1.0))


@pytest.fixture(scope="session")
def _shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with valkey(tmp_path_factory.mktemp("valkey")) as settings:
        yield settings


@pytest.fixture
def redis_settings(_shared_valkey: Settings) -> Settings:
    """The settings of a real server, which is empty."""
    with redis.Redis.from_url(_shared_valkey.state_url) as client:
        client.flushall()
    return _shared_valkey


@pytest.fixture
def redis_client(redis_settings: Settings) -> Iterator[Any]:
    with redis.Redis.from_url(redis_settings.state_url) as client:
        yield client
