"""Settings: the environment's ``PACKETFS_*`` over ``packetfs.toml`` over defaults, parsed once into a frozen object.

``redis_url`` in the file is the variable ``PACKETFS_REDIS_URL`` in the environment, and so for every field of
:class:`Settings`. A list is a TOML array; in the environment it is written with commas, or as a JSON array where an item
holds one. Secrets come only from the environment: a URL with a password in the file is refused. A field's metadata names
its parser, so that adding a setting is adding a field.
"""

import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import platformdirs

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.names import CONFIG_FILE, ENV_PREFIX
from packetfs_compute.parsers import Network, count, flag, listed, network, path, seconds, split_url, text, url
from packetfs_compute.places import (
    EgressRule,
    EndpointKey,
    SubstrateSpec,
    endpoint_key,
    endpoint_keys,
    parse_egress,
    parse_substrates,
    to_json,
)
from packetfs_compute.validation import show

__all__ = ["Network", "Settings", "load_settings", "to_environment", "unknown_variables"]

_MAX_UNIX_PATH: Final = 100
"""Bytes that fit in ``sockaddr_un`` on every system, a margin below Linux's 108 and macOS's 104."""

_MIN_SECRET_CHARS: Final = 16
_MAX_SECRET_CHARS: Final = 256

_TABLES: Final = frozenset({"substrates", "egress"})
"""Settings that are tables; what is wrong in one, its parser says."""

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")

_READ_ELSEWHERE: Final = frozenset({"CONFIG", "FORCE_KERNEL", "GRACE_S", "HOST", "NO_EXTENSION"})
"""``PACKETFS_*`` names that are no field here: the file's own path, the kernels' choice, where a
compute server listens and how long it takes to end, and a switch of setup.py."""


def _setting(default: Any, parse: Callable[[object], Any], *, secret: bool = False) -> Any:
    metadata = {"parse": parse, "secret": secret}
    return (
        field(default_factory=default, metadata=metadata, repr=not secret)
        if callable(default)
        else field(default=default, metadata=metadata, repr=not secret)
    )


def _signing_key(raw: object) -> str:
    """Return ``keyid:secret``."""
    try:
        key = endpoint_key(f"server={raw}")
    except ValueError:
        raise ValueError("give each as keyid:secret, the secret of 16 to 256 visible characters, no comma") from None
    return f"{key.key_id}:{key.secret}"


def _shared_secret(raw: object) -> str:
    given = text(raw)
    if not _MIN_SECRET_CHARS <= len(given) <= _MAX_SECRET_CHARS:
        raise ValueError(
            f"give {_MIN_SECRET_CHARS} to {_MAX_SECRET_CHARS} characters, such as `openssl rand -hex 32` prints"
        )
    return given


def _origin(raw: object) -> str:
    """Return a web origin as browsers write it (RFC 6454, section 6.2)."""
    if not isinstance(raw, str) or not _ORIGIN.fullmatch(raw):
        raise ValueError("give origins in lower case without a path, such as https://app.example.com")
    return raw


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, parsed. Built without arguments it holds the defaults; it is hashable and never changes."""

    # Where the system keeps its state.
    redis_url: str | None = _setting(None, url("redis", "rediss", "unix"))
    """The broker and result store; ``None`` means the embedded one of ``data_dir``."""
    broker_url: str | None = _setting(None, url("redis", "rediss", "unix", "amqp", "amqps"))
    """A broker other than ``redis_url``, such as RabbitMQ."""
    data_dir: Path = _setting(lambda: Path(platformdirs.user_data_dir("packetfs", appauthor=False)), path)
    """The embedded server's socket, log and append-only file; the user's data directory by default."""
    result_ttl_s: int = _setting(86_400, count(60, 30 * 86_400))
    cache_entries: int = _setting(200_000, count(0, 100_000_000))
    """Most values of results to keep in Redis, about 200 bytes each; 0 keeps none, and asks for none."""
    connect_timeout_s: float = _setting(5.0, seconds(0.1, 60))
    """For the broker and for a source alike."""

    # The fleet.
    substrates: tuple[SubstrateSpec, ...] = _setting((), parse_substrates)
    """Substrates besides ``local``, or what differs of it; see :mod:`packetfs_compute.places`."""
    egress: tuple[EgressRule, ...] = _setting((), parse_egress)
    """What bytes cost that leave a source, before the rules that the package knows."""
    keys: tuple[EndpointKey, ...] = _setting((), endpoint_keys, secret=True)
    """The signing keys of the fleet's endpoints."""
    metrics_port: int = _setting(0, count(0, 65535))
    """Where a worker serves Prometheus' metrics; 0 is nowhere. `packetfs up` counts up from it, one a worker."""
    metrics_address: str = _setting("127.0.0.1", text)

    # The gateway.
    gateway_host: str = _setting("127.0.0.1", text)
    """Where it listens. On loopback it is open while there is no API key; anywhere else it does not start without one."""
    gateway_port: int = _setting(8765, count(0, 65535))
    """0 is any that is free."""
    gateway_origins: tuple[str, ...] = _setting((), listed(_origin))
    """Origins whose pages may call it, besides its own."""
    gateway_requests_per_minute: int = _setting(1200, count(1, 1_000_000))
    """Of one key; of one address, where none is needed."""
    flower_url: str | None = _setting(None, url("http", "https"))
    """Where Flower is, for the dashboard's link."""

    gateway_proxies: tuple[Network, ...] = _setting((), listed(network))
    """Reverse proxies whose ``X-Forwarded-For`` and ``-Proto`` are believed. Without it a proxy's address is everyone's."""
    browsers_open: bool = _setting(False, flag)
    """Whether anyone may lend a browser; else it takes an API key with the scope ``browser``, where there are keys."""
    browser_secret: str | None = _setting(None, _shared_secret, secret=True)
    """What seals the tickets with which browsers come in: the same for all gateways. ``None`` is one for each process."""

    # Endpoints that take signed requests: the HTTP compute server (remote/fly), and the gateway for its browsers.
    signing_keys: tuple[str, ...] = _setting((), listed(_signing_key), secret=True)
    """The keys whose signatures it accepts, each ``keyid:secret``; two live at once while one is replaced."""
    allow_unsigned: bool = _setting(False, flag)
    """Whether it runs without a key."""
    max_concurrency: int = _setting(16, count(1, 10_000))
    """Attempts that it runs at once; past it, it answers 429."""
    cache_dir: Path | None = _setting(None, path)
    """Where blocks of sources are kept; ``None`` keeps none."""
    cache_bytes: int = _setting(1 << 30, count(1 << 20, 1 << 50))
    """Most bytes to keep there; the least recently used go first."""

    # The local substrate.
    concurrency: int = _setting(2 * (os.cpu_count() or 1), count(1, 1024))
    """Jobs that one local worker runs at once: by default two a CPU, for a job waits for its source half of its time."""
    local_workers: int = _setting(1, count(1, 64))
    """Local workers of ``packetfs up``: processes, each of which runs Python on one core at a time."""
    one_core: bool = _setting(True, flag)
    """Whether a worker's threads stay on one core while they run Python; see :mod:`packetfs_compute.affinity`."""
    region: str = _setting("local", text)
    """What results give as the place of this machine."""
    timeout_s: float = _setting(300.0, seconds(0.001, 3600))
    """The deadline of a job whose policy gives none."""

    # Sources.
    file_roots: tuple[Path, ...] = _setting((), listed(path))
    """Directories under which local files may be read; none by default."""
    allow_private_sources: tuple[Network, ...] = _setting((), listed(network))
    """Networks that sources may be on although they are not public."""
    source_ports: tuple[int, ...] = _setting((), listed(count(1, 65535)))
    """Ports that sources may use besides 80, 443, 8080 and 8443."""
    stall_timeout_s: float = _setting(30.0, seconds(0.1, 600))
    """Longest silence of a source in the middle of an answer."""
    max_skip_bytes: int = _setting(16 << 20, count(0, 1 << 40))
    """Most bytes to read and throw away when a source ignores Range and the wanted ones lie further on."""
    s3_endpoint_url: str | None = _setting(None, url("http", "https"))
    """An S3-compatible store instead of AWS."""
    s3_region: str | None = _setting(None, text)

    @property
    def embedded(self) -> bool:
        """Whether the embedded Redis is used."""
        return self.redis_url is None

    @property
    def socket_path(self) -> Path:
        """The embedded server's Unix socket: always the same for one ``data_dir``, so that no client must look for it."""
        name = f"packetfs-{os.getuid()}-{hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]}"
        # TMPDIR may be as long as the data directory's path.
        folders = self.data_dir, Path(tempfile.gettempdir()) / name, Path("/tmp") / name  # noqa: S108  (made private)
        paths = [folder / "redis.sock" for folder in folders]
        return next((path for path in paths if len(os.fsencode(path)) <= _MAX_UNIX_PATH), paths[-1])

    @property
    def state_url(self) -> str:
        """The Redis that holds results and state, as redis-py takes it."""
        return self.redis_url or f"unix://{self.socket_path}"


def load_settings(environ: Mapping[str, str] | None = None, config: Path | None = None) -> Settings:
    """Return the settings of ``environ`` (the process's by default) over those of the file ``config``.

    Without ``config`` the file is what ``PACKETFS_CONFIG`` names, which must exist, or ``packetfs.toml`` in the working
    directory, which need not. Raises :class:`ConfigurationError` naming the setting and the fix.
    """
    environ = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for source, raw in [*_from_file(environ, config), *_from_environment(environ)]:
        name, value = raw
        spec = _SPECS[name]
        try:
            given[name] = spec(value)
        except ValueError as error:
            problem = (
                "is not a key" if _SECRET[name] else "cannot be used" if name in _TABLES else f"is {_shown(value)}"
            )
            raise ConfigurationError(f"{source} {problem}", {"field": source, "hint": str(error)}) from None
    return Settings(**given)


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the ``PACKETFS_*`` variables that give a child process these very settings.

    They are complete: laid over any environment, and whatever ``packetfs.toml`` says, nothing else shows through.
    """
    given = {ENV_PREFIX + "CONFIG": os.devnull}
    for f in fields(Settings):
        value = getattr(settings, f.name)
        if f.name in _TABLES:
            value = to_json(value) if value else None
        elif f.name == "keys":
            value = ",".join(f"{key.substrate}={key.key_id}:{key.secret}" for key in value)
        elif isinstance(value, tuple):
            value = _joined([str(item) for item in value])
        given[ENV_PREFIX + f.name.upper()] = "" if value is None else str(value)
    return given


def _joined(items: list[str]) -> str:
    """Return a list as a variable: with commas, or as JSON where an item holds one."""
    text = ",".join(items)
    return text if [part.strip() for part in text.split(",")] == (items or [""]) else json.dumps(items)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the ``PACKETFS_*`` names in ``environ`` that mean nothing here: most often a misspelling."""
    known = {name.upper() for name in _SPECS} | _READ_ELSEWHERE
    return sorted(k for k in environ if k.startswith(ENV_PREFIX) and k.removeprefix(ENV_PREFIX) not in known)


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, tuple[str, Any]]]:
    return [
        (ENV_PREFIX + name.upper(), (name, environ[ENV_PREFIX + name.upper()].strip()))
        for name in _SPECS
        if environ.get(ENV_PREFIX + name.upper(), "").strip()
    ]


def _from_file(environ: Mapping[str, str], config: Path | None) -> list[tuple[str, tuple[str, Any]]]:
    named = config or (Path(environ[ENV_PREFIX + "CONFIG"]) if environ.get(ENV_PREFIX + "CONFIG") else None)
    path = named or Path(CONFIG_FILE)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if named is None:
            return []
        raise ConfigurationError(f"{path} does not exist", {"field": "PACKETFS_CONFIG"}) from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no TOML, an integer of over 4,300 digits
        raise ConfigurationError(f"{path} cannot be read: {error}", {"field": str(path)}) from None
    for name, value in table.items():
        where = f"{path}: {name}"
        if name not in _SPECS:
            raise ConfigurationError(
                f"{where} is not a setting", {"field": where, "hint": f"known are {', '.join(sorted(_SPECS))}"}
            )
        if _SECRET[name] or _holds_password(value):
            raise ConfigurationError(
                f"{where} holds a secret",
                {"field": where, "hint": f"secrets come only from the environment: set {ENV_PREFIX}{name.upper()}"},
            )
    return [(f"{path}: {name}", (name, value)) for name, value in table.items()]


def _holds_password(value: object) -> bool:
    parts = split_url(value) if isinstance(value, str) and "://" in value else None
    return parts is not None and bool(parts.password or "password=" in parts.query)


def _shown(value: object) -> str:
    """Render a setting for an error message, never its password."""
    if isinstance(value, str) and ("@" in value or "password=" in value):
        return "a URL with credentials"
    return show(value)


_SPECS: Final[dict[str, Callable[[object], Any]]] = {f.name: f.metadata["parse"] for f in fields(Settings)}
_SECRET: Final[dict[str, bool]] = {f.name: f.metadata["secret"] for f in fields(Settings)}
