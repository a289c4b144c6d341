"""What people look at of a system, the gateway and Flower: where each listens, and whether it answers.

The gateway's socket is opened here and handed down to the child that serves it. So its address is known at once, even
where its port is any, stays while the child is started again, and who calls meanwhile waits. Flower opens its own, always on
loopback: it lets pages of any origin read what it says, and its ``/metrics`` and ``/healthcheck`` ask nobody for a password.
"""

import http.client
import importlib.util
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from packetfs_compute.embedded.processes import Child
from packetfs_compute.errors import ConfigurationError
from packetfs_compute.gateway import open_keys
from packetfs_compute.gateway.exposure import check_exposure, is_loopback, listen, url_of
from packetfs_compute.places import EndpointKey
from packetfs_compute.settings import Settings

__all__ = ["Answers", "Flower", "gateway_socket", "missing_package", "plan_flower", "with_browsers_key"]

_log = logging.getLogger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_GATEWAY_NEEDS: Final = ("fastapi", "limits", "uvicorn", "websockets")
_LOOK_EVERY_S: Final = 2.0
_PATIENCE_S: Final = 2.0
_KEY_ID: Final = "up"
_MAX_TASKS: Final = 10_000
"""That Flower remembers; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Flower:
    """Flower as it will run: its port on loopback, and ``user:password``."""

    port: int
    basic_auth: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{_LOOPBACK}:{self.port}/"

    def start(self, settings: Settings, environ: dict[str, str]) -> Child:
        """Start it. The password goes through its environment: arguments are for everyone on the machine to read."""
        argv = [
            *(sys.executable, "-m", "celery", "--app", "packetfs_compute", "flower"),
            *(f"--address={_LOOPBACK}", f"--port={self.port}", f"--max_tasks={_MAX_TASKS}"),
        ]
        environ = {**environ, "FLOWER_BASIC_AUTH": self.basic_auth}
        return Child("flower", argv, environ, settings.data_dir / "flower.log", when_orphaned=signal.SIGKILL)

    def answers(self) -> "Answers":
        """Return what asks whether it does."""
        return Answers(_LOOPBACK, self.port, "/healthcheck")


def plan_flower(port: int, basic_auth: str | None = None) -> Flower:
    """Return Flower on ``port``, with a password made now where none is given.

    Raises :class:`ConfigurationError` where the extra is missing, the port is taken, or ``basic_auth`` is no
    ``user:password`` (Flower takes several, with commas).
    """
    missing = missing_package("flower")
    if missing is not None:
        hint = "pip install 'packetfs-unified-compute[flower]'"
        raise ConfigurationError(f"{missing} is not installed", {"field": "--flower", "hint": hint})
    if basic_auth is not None and not all(all(one.partition(":")[::2]) for one in basic_auth.split(",")):
        details = {"field": "FLOWER_BASIC_AUTH", "hint": "give user:password, or unset it to have a password made"}
        raise ConfigurationError("FLOWER_BASIC_AUTH is no user with a password", details)
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError as error:
        details = {"field": "--flower-port", "hint": "choose another with --flower-port"}
        raise ConfigurationError(f"{_LOOPBACK} port {port} cannot be listened on: {error.strerror}", details) from error
    return Flower(port, basic_auth or f"flower:{secrets.token_urlsafe(16)}")


def gateway_socket(settings: Settings) -> tuple[socket.socket, str] | None:
    """Return the gateway's socket and address; ``None``, after a line that says why, where it cannot be run.

    A port that is taken is told, and another one chosen: it is most often another system's of the same user.
    """
    missing = missing_package(*_GATEWAY_NEEDS)
    if missing is not None:
        hint = "pip install 'packetfs-unified-compute[gateway]'"
        _log.warning("no gateway, since %s is not installed: %s", missing, hint)
        return None
    try:
        check_exposure(settings, open_keys(settings))
        try:
            listening = listen(settings.gateway_host, settings.gateway_port)
        except ConfigurationError as error:
            listening = listen(settings.gateway_host, 0)
            port = listening.getsockname()[1]
            _log.warning("%s; the gateway is at port %d instead (PACKETFS_GATEWAY_PORT chooses)", error.message, port)
    except ConfigurationError as error:
        _log.warning("no gateway: %s (%s)", error.message, error.hint)
        return None
    return listening, url_of(settings.gateway_host, listening)


def with_browsers_key(settings: Settings) -> Settings:
    """Return the settings, with a key for the browsers of this system's gateway where nobody has chosen one.

    Made anew at each start, it is known to this system's processes alone: the worker signs with it, the gateway verifies.
    """
    if settings.signing_keys or settings.allow_unsigned:
        return settings
    keyed = {key.substrate for key in settings.keys}
    ours = [
        spec.name
        for spec in settings.substrates
        if spec.kind == "browser" and spec.name not in keyed and _is_here(spec.url, settings)
    ]
    if not ours:
        return settings
    secret = secrets.token_hex(32)
    keys = tuple(EndpointKey(name, _KEY_ID, secret) for name in ours)
    return replace(settings, keys=(*settings.keys, *keys), signing_keys=(f"{_KEY_ID}:{secret}",))


def _is_here(url: str | None, settings: Settings) -> bool:
    """Return whether ``url`` is the gateway's of these settings."""
    parts = urlsplit(url or "")
    host = parts.hostname or ""
    same = host == settings.gateway_host or (is_loopback(host) and is_loopback(settings.gateway_host))
    return same and parts.scheme == "http" and (parts.port or 80) == settings.gateway_port


def missing_package(*names: str) -> str | None:
    """Return the first of ``names`` that is not installed, without importing any."""
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


class Answers:
    """Whether an HTTP server answers at all, whatever it says; asked not more often than needed."""

    def __init__(self, host: str, port: int, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._host, self._port, self._path = host, port, path
        self._clock = clock
        self._asked_s = -_LOOK_EVERY_S
        self._answered = False

    def __call__(self) -> bool:
        """Return what it did when asked last, at most some seconds ago."""
        if self._clock() - self._asked_s >= _LOOK_EVERY_S:
            self._answered = self._ask()
            self._asked_s = self._clock()
        return self._answered

    def _ask(self) -> bool:
        # http.client knows nothing of proxies, which would answer for it.
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE_S)
        try:
            connection.request("GET", self._path)
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True
