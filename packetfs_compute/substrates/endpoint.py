"""A place behind the wire of ``remote/contract/``: ``POST /compute`` over HTTP, and what its answers mean.

What comes back is not trusted. It is the answer to this very request (:func:`packetfs_compute.wire.parse_answer`), given
with the status that its kind has, or else the attempt failed::

    200, a success of the contract      the answer
    401                                 unauthorized
    429                                 busy, with what Retry-After says
    a failure of the contract           that error, where the status is its own
    anything else                       internal

An attempt has the request's own ``timeout`` and a second for the network, all told.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from packetfs_compute import __version__
from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import Busy, ConfigurationError, Internal, JobError, Unauthorized
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.retry_after import retry_after_s
from packetfs_compute.routing import Capabilities, declared
from packetfs_compute.settings import Settings
from packetfs_compute.signature import HEADER, sign
from packetfs_compute.substrates.answers import json_of
from packetfs_compute.substrates.transport import Reply, Transport
from packetfs_compute.wire import (
    ComputeRequest,
    error_from_wire,
    failure,
    job_id_of,
    parse_answer,
    parse_health,
    parse_request,
)

__all__ = ["EndpointSubstrate"]

_MARGIN_S: Final = 1.0
"""What the network may take beside the attempt."""
_MAX_CONNECTIONS: Final = 256
_DEFAULT_RETRY_AFTER_S: Final = 1.0
_FIELDS: Final = {
    "User-Agent": f"packetfs-compute/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}


class EndpointSubstrate:
    """Runs attempts at the server whose URL is in its spec. Built without I/O; for many threads, across forks.

    ``defaults`` is what its kind declares of itself; ``now`` is Unix time, for signatures and a Retry-After that is a
    date.
    """

    def __init__(
        self,
        spec: SubstrateSpec,
        settings: Settings,
        defaults: Capabilities,
        *,
        transport: Transport | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        url = _checked_url(spec)
        self.capabilities = declared(defaults, spec)
        self._base = urlsplit(url).path.rstrip("/")
        self._key = next((key for key in settings.keys if key.substrate == spec.name), None)
        connections = min(self.capabilities.slots or settings.concurrency, _MAX_CONNECTIONS)
        self._transport = transport or Transport(url, connections, settings.connect_timeout_s)
        self._now = now

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt; see :class:`~packetfs_compute.substrates.base.Substrate`."""
        started_s = time.perf_counter()
        try:
            asked = parse_request(request)
            reply = self._post("/compute", asked.to_wire(), Deadline.after(asked.timeout_ms / 1000 + _MARGIN_S))
            return _answer(reply, asked, self._now())
        except JobError as error:
            return failure(job_id_of(request), error, time.perf_counter() - started_s)

    def health(self, timeout_s: float) -> dict[str, Any]:
        """Return what the server says of itself; see :class:`~packetfs_compute.substrates.base.Substrate`."""
        reply = self._transport.exchange("GET", f"{self._base}/health", b"", _FIELDS, Deadline.after(timeout_s))
        if reply.status != 200:
            raise self._unhealthy(reply)
        return parse_health(json_of(reply.body))

    def close(self) -> None:
        """Close the idle connections; it may still be used."""
        self._transport.close()

    def _unhealthy(self, reply: Reply) -> JobError:
        """Return the error that an answer to ``GET /health`` other than 200 is; a kind may know more of its own."""
        return _refusal(reply, None, self._now())

    def _post(self, path: str, document: Mapping[str, Any], deadline: Deadline) -> Reply:
        body, path = json.dumps(document).encode("ascii"), self._base + path
        fields = {**_FIELDS, "Content-Type": "application/json"}
        if self._key is not None:
            nonce = secrets.token_urlsafe(18)
            fields[HEADER] = sign("POST", path, body, self._key.key_id, self._key.secret, self._now(), nonce)
        return self._transport.exchange("POST", path, body, fields, deadline)


def _checked_url(spec: SubstrateSpec) -> str:
    field = f"substrates.{spec.name}.url"
    if spec.url is None:
        hint = "give the server's URL, such as https://app.example.com"
        raise ConfigurationError(
            f"{field} is missing: {spec.name} is reached over HTTP", {"field": field, "hint": hint}
        )
    try:
        parts = urlsplit(spec.url)
        plain = (
            parts.hostname
            and parts.port != 0
            and not (parts.username or parts.password or parts.query or parts.fragment)
        )
    except ValueError:
        plain = False
    if not plain or not re.fullmatch(r"[\x21-\x7e]*", spec.url):
        hint = "give scheme, host, port and path alone; a key goes into PACKETFS_KEYS"
        raise ConfigurationError(f"{field} is no plain URL", {"field": field, "hint": hint})
    return spec.url


def _answer(reply: Reply, asked: ComputeRequest, now_s: float) -> dict[str, Any]:
    """Return the answer that ``reply`` is, or raise what it amounts to."""
    if reply.status != 200:
        raise _refusal(reply, asked, now_s)
    answer = parse_answer(json_of(reply.body), asked)
    if not answer["success"]:
        raise Internal("the substrate's answer cannot be trusted: a failure with status 200")
    return answer


def _refusal(reply: Reply, asked: ComputeRequest | None, now_s: float) -> JobError:
    """Return the error for an answer that is not 200; what the contract says of it is taken where the status agrees."""
    said = _said(reply, asked)
    if reply.status == 429:
        after_s = retry_after_s(reply.fields.get("Retry-After"), now_s)
        busy = said if isinstance(said, Busy) else Busy("the substrate has no room (429)")
        default_s = busy.details.get("retry_after_s", _DEFAULT_RETRY_AFTER_S)
        return Busy(busy.message, {**busy.details, "retry_after_s": default_s if after_s is None else after_s})
    if reply.status == 401:
        hint = "check PACKETFS_KEYS here and PACKETFS_SIGNING_KEYS there"
        why = said.message if isinstance(said, Unauthorized) else "the substrate refuses the request (401)"
        return Unauthorized(why, {"hint": hint})
    if said is not None and said.status == reply.status:
        return said
    details = {"retryable": reply.status >= 500}
    return Internal(f"the substrate answered with status {reply.status}", details)


def _said(reply: Reply, asked: ComputeRequest | None) -> JobError | None:
    """Return the error that the body of an answer describes, or ``None``."""
    if asked is None:
        return None
    try:
        answer = parse_answer(json_of(reply.body), asked)
    except Internal:
        return None
    return None if answer["success"] else error_from_wire(answer["error"])
