"""An endpoint under test: a server behind the HTTP wire, or any substrate of the fleet."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import urllib3

from packetfs_compute.errors import Internal, JobError
from packetfs_compute.signature import HEADER, sign
from packetfs_compute.wire import failure

__all__ = ["HttpTarget", "Invokable", "InvokedTarget", "Key", "Reply", "Target"]

_CONNECT_S: Final = 10.0
_MARGIN_S: Final = 10.0
"""What an answer may take longer than the request's own timeout before the suite gives up on it."""
_DEFAULT_TIMEOUT_S: Final = 30.0
_MAX_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. ``status`` is ``None`` where the answer did not come over HTTP; ``document`` is its JSON."""

    status: int | None
    fields: Mapping[str, str]
    document: Any


@dataclass(frozen=True, slots=True)
class Key:
    """The key that an endpoint verifies signatures with."""

    key_id: str
    secret: str = field(repr=False)


class Target(Protocol):
    """What the suite asks of an endpoint."""

    @property
    def http(self) -> "HttpTarget | None":
        """The endpoint as a server of HTTP, where it is one."""

    @property
    def batches(self) -> bool:
        """Whether ``/compute/batch`` can be asked."""

    def post(self, path: str, document: object) -> Reply:
        """Send ``document`` to ``/compute`` or ``/compute/batch``; raises :class:`Internal` when nothing comes back."""

    def health(self) -> Reply:
        """Ask how it is."""


class HttpTarget:
    """A server at ``url``; its requests are signed where there is a ``key``. For many threads."""

    batches: Final = True

    def __init__(self, url: str, key: Key | None = None) -> None:
        self.url, self.key = url.rstrip("/"), key
        self.base = urlsplit(self.url).path
        self._pool = urllib3.PoolManager(
            retries=False, maxsize=_MAX_CONNECTIONS, headers={"Accept-Encoding": "identity"}
        )

    @property
    def http(self) -> "HttpTarget":
        """The server itself."""
        return self

    def post(self, path: str, document: object) -> Reply:
        """Send a document, signed; see :class:`Target`."""
        body = json.dumps(document).encode("ascii")
        return self.send("POST", path, body, self.signed(path, body), _timeout_s(document) + _MARGIN_S)

    def health(self) -> Reply:
        """Ask how it is; needs no signature."""
        return self.send("GET", "/health", b"", {}, _DEFAULT_TIMEOUT_S)

    def signed(self, path: str, body: bytes, **changed: Any) -> dict[str, str]:
        """Return the fields that sign a request; ``changed`` are arguments of ``sign`` that are to be others."""
        if self.key is None:
            return {}
        given = {"method": "POST", "path": self.base + path, "body": body, "key_id": self.key.key_id,
                 "secret": self.key.secret, "now": time.time(), "nonce": secrets.token_urlsafe(18), **changed}  # fmt: skip
        return {HEADER: sign(**given)}

    def send(
        self, method: str, path: str, body: bytes, fields: Mapping[str, str], timeout_s: float = _DEFAULT_TIMEOUT_S
    ) -> Reply:
        """Send exactly this; raises :class:`Internal` when no answer comes back, or none of JSON."""
        try:
            reply = self._pool.request(
                method, self.url + path, body=body or None, headers=fields, redirect=False,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=timeout_s),
            )  # fmt: skip
            document = json.loads(reply.data) if reply.data else None
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise Internal(f"{method} {path} has no answer of JSON: {error}") from error
        return Reply(reply.status, reply.headers, document)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.clear()


class Invokable(Protocol):
    """A substrate, as far as the suite needs one."""

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt."""

    def health(self, timeout_s: float) -> dict[str, Any]:
        """Return the health answer."""


class InvokedTarget:
    """A place that is not asked over HTTP by us: the local one, a function invoked by its vendor's API, a plug-in's.

    ``batches`` says that its ``invoke`` takes the body of ``/compute/batch`` as well.
    """

    http: Final = None

    def __init__(self, substrate: Invokable, batches: bool = False) -> None:
        self._substrate, self.batches = substrate, batches

    def post(self, path: str, document: object) -> Reply:  # noqa: ARG002
        """Run one attempt; see :class:`Target`."""
        try:
            answer = self._substrate.invoke(document)  # type: ignore[arg-type]  # what is no request must be refused
        except Exception as error:
            raise Internal(f"invoke, which never may, raised {type(error).__name__}: {error}") from error
        return Reply(None, {}, answer)

    def health(self) -> Reply:
        """Ask how it is."""
        try:
            return Reply(None, {}, self._substrate.health(_DEFAULT_TIMEOUT_S))
        except JobError as error:
            return Reply(None, {}, failure(None, error, 0))


def _timeout_s(document: object) -> float:
    """Return what a request, or all of a batch, may take by its own word."""
    jobs = document.get("jobs") if isinstance(document, Mapping) and "jobs" in document else [document]
    told = [job.get("timeout") for job in jobs if isinstance(job, Mapping)] if isinstance(jobs, list) else []
    usable = [ms / 1000 for ms in told if isinstance(ms, (int, float)) and 0 < ms <= 3_600_000]
    return max(usable, default=_DEFAULT_TIMEOUT_S)
