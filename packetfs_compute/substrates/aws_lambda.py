"""AWS Lambda: the function of ``remote/aws_lambda/``, invoked with IAM and waited for (RequestResponse).

boto3 finds the credentials and the endpoint, signs, and reads AWS's errors. What it signed is sent by
:class:`~packetfs_compute.substrates.transport.Transport`, since boto3's own timeouts are a client's, not an attempt's, and
bound each read and not the whole. Nothing is tried again here: that is the dispatcher's to decide. ``url`` in the spec
stands in for AWS's endpoint.

What comes back, and what it is::

    200, an answer of the contract               that answer
    200, FunctionError, Sandbox.Timedout         timeout
    200, FunctionError, of another type          internal; final where the zip or its settings are wrong
    429                                          busy, with what Retry-After says
    401, 403, or a signature or key not taken    unauthorized
    413                                          too_large
    404, and every other 4xx                     internal, final; but 408 and 409 pass
    5xx                                          internal; final where the function's configuration is wrong

An attempt has the request's own ``timeout`` and two seconds for the network and a new environment's start, all told; on
top of it comes what boto3 may take to fetch temporary credentials, which it then keeps.
"""

import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import (
    AttemptTimeout,
    Busy,
    ConfigurationError,
    Internal,
    JobError,
    TooLarge,
    Unauthorized,
)
from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.retry_after import retry_after_s
from packetfs_compute.routing import Capabilities, declared
from packetfs_compute.routing.prices import LAMBDA_ARM64
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.answers import json_of, words_of
from packetfs_compute.substrates.transport import Transport
from packetfs_compute.wire import failure, job_id_of, parse_answer, parse_health, parse_request

__all__ = ["LambdaSubstrate"]

_MARGIN_S: Final = 2.0
_MAX_PAYLOAD: Final = 6 << 20
"""Most bytes of an event, and of an answer."""
_MAX_CONNECTIONS: Final = 256
_DEFAULT_RETRY_AFTER_S: Final = 1.0
_ARN: Final = re.compile(r"arn:aws[a-z-]*:lambda:([a-z0-9-]+):.*")

_THROTTLED: Final = frozenset({"TooManyRequestsException", "ThrottlingException", "Throttling"})
_NOT_LET_IN: Final = frozenset(
    {"AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException", "InvalidSignatureException",
     "MissingAuthenticationTokenException", "UnrecognizedClientException"}
)  # fmt: skip
_WRONG_FUNCTION: Final = ("EC2AccessDenied", "Invalid", "KMS")
"""How the codes begin of 5xx that stay until someone mends the function's configuration."""
_PASSING: Final = frozenset({408, 409})
"""An update of the function under way, a snapshot or a mount that is not ready yet."""
_WRONG_ZIP: Final = ("Runtime.ImportModule", "Runtime.HandlerNotFound", "Runtime.InvalidEntrypoint", "Runtime.UserCode")


class LambdaSubstrate:
    """One function, or one alias of it. Built without I/O; for many threads, across forks."""

    def __init__(self, spec: SubstrateSpec, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self._function, region = _checked(spec)
        defaults = Capabilities(
            name="lambda",
            trust="own",
            memory_mb=1769,
            max_range_bytes=MAX_RANGE_BYTES,
            max_duration_s=900.0,
            schemes=frozenset({"http", "https"}),
            kind="lambda",
            provider="aws",
            region=region,
            slots=100,
            overhead_s=0.06,
            bytes_per_s=7e7,
            prices=LAMBDA_ARM64,
        )
        self.capabilities = declared(defaults, spec)
        connections = min(self.capabilities.slots or settings.concurrency, _MAX_CONNECTIONS)
        self._api = _Api(region, spec.url, connections, settings.connect_timeout_s, now)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt; see :class:`~packetfs_compute.substrates.base.Substrate`."""
        started_s = time.perf_counter()
        try:
            asked = parse_request(request)
            deadline = Deadline.after(asked.timeout_ms / 1000 + _MARGIN_S)
            return parse_answer(self._api.call(self._function, asked.to_wire(), deadline), asked)
        except JobError as error:
            return failure(job_id_of(request), error, time.perf_counter() - started_s)

    def health(self, timeout_s: float) -> dict[str, Any]:
        """Return what the function says of itself; see :class:`~packetfs_compute.substrates.base.Substrate`."""
        return parse_health(self._api.call(self._function, {"health": True}, Deadline.after(timeout_s)))

    def close(self) -> None:
        """Close the idle connections; it may still be used."""
        self._api.close()


@dataclass(frozen=True, slots=True)
class _Client:
    """boto3's client, the module of its errors, and what sends its requests."""

    boto3: Any
    exceptions: ModuleType
    transport: Transport
    pid: int


class _Current(threading.local):
    deadline: Deadline


class _Api:
    """The Invoke API. Its client is made on first use: who only decides where jobs go needs none, nor boto3's 300 ms."""

    def __init__(
        self,
        region: str | None,
        url: str | None,
        connections: int,
        connect_timeout_s: float,
        now: Callable[[], float],
    ) -> None:
        self._region, self._url = region, url
        self._connections, self._connect_timeout_s = connections, connect_timeout_s
        self._now = now
        self._client: _Client | None = None
        self._lock = threading.Lock()
        self._current = _Current()

    def call(self, function: str, event: Mapping[str, Any], deadline: Deadline) -> object:
        """Invoke ``function`` and return the JSON of its answer; raise a :class:`JobError` when it gave none."""
        payload = json.dumps(event).encode("ascii")
        if len(payload) > _MAX_PAYLOAD:
            raise TooLarge(f"the request is longer than {_MAX_PAYLOAD} bytes")
        client = self._made()
        self._current.deadline = deadline
        try:
            found = client.boto3.invoke(FunctionName=function, InvocationType="RequestResponse", Payload=payload)
            answer = found["Payload"].read()
        except client.exceptions.ClientError as error:
            raise _refusal(error.response, self._now()) from error
        except (client.exceptions.NoCredentialsError, client.exceptions.PartialCredentialsError) as error:
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, where jobs are dispatched"
            raise Unauthorized("there are no credentials for AWS", {"hint": hint}) from error
        except client.exceptions.BotoCoreError as error:
            raise Internal(f"AWS cannot be asked: {words_of(str(error))}") from error
        if "FunctionError" in found:
            raise _crash(answer)
        return json_of(answer)

    def close(self) -> None:
        client = self._client
        if client is not None:
            client.transport.close()

    def _made(self) -> _Client:
        if self._client is not None and self._client.pid != os.getpid():
            # In a child after fork: what the parent's threads held of these, nobody lets go of here.
            self._lock, self._client = threading.Lock(), None
        with self._lock:
            if self._client is None:
                self._client = _client(self._region, self._url, self._send, self._transport)
            return self._client

    def _transport(self, url: str) -> Transport:
        return Transport(url, self._connections, self._connect_timeout_s)

    def _send(self, request: Any, **_: object) -> "_Response":
        """Send what boto3 has signed: its hook ``before-send``, whose answer it takes for the server's."""
        client, target = self._made(), urlsplit(request.url)
        fields = {
            name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        path = f"{target.path}?{target.query}" if target.query else target.path
        reply = client.transport.exchange(request.method, path, request.body, fields, self._current.deadline)
        return _Response(request.url, reply.status, reply.fields, reply.body)


class _Response:
    """An answer as botocore takes it, in the shape of its AWSResponse; names of ``headers`` are in any case."""

    def __init__(self, url: str, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.url = url
        self.status_code = status
        self.headers = fields
        self.content = body if status == 200 else _told(body)  # read of a refusal alone
        self.raw = _Raw(body)


class _Raw(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _told(body: bytes) -> bytes:
    """Return the texts of a refusal's JSON as JSON: botocore's parser fails on bytes that are none, or on other values."""
    try:
        found = json_of(body)
    except Internal:
        return b""
    texts = {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    return json.dumps(texts).encode("ascii")


def _client(
    region: str | None, url: str | None, send: Callable[..., _Response], transport: Callable[[str], Transport]
) -> _Client:
    try:
        import boto3  # noqa: PLC0415  (slow, and only who runs attempts needs it)
        from botocore import exceptions  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
    except ImportError as error:
        raise Internal("Lambda needs boto3", {"retryable": False, "hint": "pip install boto3"}) from error
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    try:
        client: Any = boto3.session.Session().client("lambda", endpoint_url=url, region_name=region, config=config)
    except (exceptions.BotoCoreError, ValueError) as error:
        details = {"retryable": False, "hint": "check the substrate's region and url, AWS_REGION and AWS_PROFILE"}
        raise Internal(f"there is no client for Lambda: {words_of(str(error))}", details) from error
    client.meta.events.register("before-send.lambda.Invoke", send)
    return _Client(client, exceptions, transport(client.meta.endpoint_url), os.getpid())


def _checked(spec: SubstrateSpec) -> tuple[str, str | None]:
    """Return the function and its region, which its ARN names too."""
    field = f"substrates.{spec.name}.function"
    if spec.function is None:
        hint = "give the function's name or ARN, such as packetfs-compute:live"
        raise ConfigurationError(f"{field} is missing", {"field": field, "hint": hint})
    arn = _ARN.fullmatch(spec.function)
    if arn and spec.region not in (None, arn[1]):
        details = {"field": f"substrates.{spec.name}.region", "hint": "leave it out: the ARN names it"}
        raise ConfigurationError(f"{field} is in {arn[1]}, its region is said to be {spec.region}", details)
    return spec.function, arn[1] if arn else spec.region


def _refusal(response: Mapping[str, Any], now_s: float) -> JobError:
    """Return the error for what AWS answered instead of invoking."""
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    code = words_of(response["Error"].get("Code"))
    reason = words_of(response.get("Reason")) or words_of(response["Error"].get("Message"))
    why = f"{code} ({status})" + (f": {reason}" if reason else "")
    if status == 429 or code in _THROTTLED:
        fields = response["ResponseMetadata"].get("HTTPHeaders", {})
        after_s = retry_after_s(fields.get("retry-after"), now_s)
        return Busy(
            f"Lambda has no room: {why}", {"retry_after_s": _DEFAULT_RETRY_AFTER_S if after_s is None else after_s}
        )
    if status in (401, 403) or code in _NOT_LET_IN:
        hint = "allow lambda:InvokeFunction on this function, or alias, to the credentials in use"
        return Unauthorized(f"AWS does not let us invoke: {why}", {"hint": hint})
    if status == 413:
        return TooLarge(f"AWS takes no such request: {why}")
    if status == 404:
        details = {"retryable": False, "hint": "check the substrate's function and region; has it been deployed there?"}
        return Internal(f"there is no such function: {why}", details)
    passing = status in _PASSING or (status >= 500 and not code.startswith(_WRONG_FUNCTION))
    return Internal(f"AWS did not invoke: {why}", {"retryable": passing})


def _crash(payload: bytes) -> JobError:
    """Return the error for a FunctionError: the environment ended, or never began, before it answered."""
    told = json_of(payload) if payload else {}
    said = told if isinstance(told, Mapping) else {}
    kind, message = words_of(said.get("errorType")), words_of(said.get("errorMessage"))
    why = f"{kind}: {message}" if kind else message or "it does not say why"
    if kind == "Sandbox.Timedout" or "Task timed out after" in message:
        return AttemptTimeout(f"Lambda ended the attempt: {message}")
    if kind == "Function.ResponseSizeTooLarge":
        return TooLarge(f"the answer is longer than Lambda lets through: {why}")
    if kind.startswith(_WRONG_ZIP):
        hint = "build and deploy the zip again, for the function's runtime and architecture"
        return Internal(f"the function does not start: {why}", {"retryable": False, "hint": hint})
    killed = "OutOfMemory" in kind or "signal: killed" in message
    details = {"hint": "give the function more memory"} if killed else {}
    return Internal(f"the function ended without an answer: {why}", details)
