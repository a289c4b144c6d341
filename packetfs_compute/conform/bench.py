"""What a check works with: the endpoint, an origin that it can read, and ways to ask many things at once.

A check is a generator of outcomes, one a case: what was asked, and what was wrong with the answer, if anything. It never
raises for what an endpoint does.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from packetfs_compute import kernels
from packetfs_compute.conform.origin import Origin, Script
from packetfs_compute.conform.target import HttpTarget, Reply, Target
from packetfs_compute.errors import Busy, Internal, JobError, error_class
from packetfs_compute.validation import show
from packetfs_compute.wire import parse_answer, parse_request

__all__ = ["OPS", "Bench", "Check", "Outcome", "failed_with", "succeeded_with", "values_of"]

OPS: Final[list[dict[str, Any]]] = [
    {"op": "counteq", "imm": 0},
    {"op": "crc32c"},
    {"op": "fnv64"},
    {"op": "xor", "imm": 165},
    {"op": "add", "imm": 255},
]
_BUSY_TRIES: Final = 20
_BUSY_WAIT_S: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case of one check; ``problem`` is ``None`` when the endpoint passed."""

    check: str
    case: str
    problem: str | None


Cases = Iterator[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One group of cases. ``needs`` says what must be there for it to be run: ``origin``, ``http``, ``key``, ``batch``."""

    name: str
    about: str
    run: Callable[["Bench"], Cases]
    needs: frozenset[str] = frozenset()


@dataclass
class Bench:
    """The endpoint under test and what stands around it.

    ``base_url`` is where the endpoint finds ``origin``. ``tampered`` requests are forged; ``large_bytes`` is the length
    of a range that must stream; ``workers`` requests are under way at once.
    """

    target: Target
    origin: Origin | None = None
    base_url: str = ""
    tampered: int = 1000
    large_bytes: int = 256 << 20
    workers: int = 4
    seed: int = 20_261_124
    run_id: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def http(self) -> HttpTarget:
        """The endpoint as a server of HTTP; only for checks that need ``http``."""
        if self.target.http is None:
            raise Internal("this check needs an endpoint behind HTTP")
        return self.target.http

    def serve(self, name: str, script: Script) -> str:
        """Have the origin answer everything under ``/name`` by ``script``; return a URL there that no run had before."""
        if self.origin is None:
            raise Internal("this check needs an origin")
        self.origin.routes[name] = script
        return f"{self.base_url}/{name}/{self.run_id}/object"

    def ask(self, request: object) -> Reply:
        """Send a request to ``/compute``; while the endpoint says that it is busy, wait as it says, within bounds."""
        for _ in range(_BUSY_TRIES):
            reply = self.target.post("/compute", request)
            error = reply.document.get("error") if isinstance(reply.document, Mapping) else None
            if not isinstance(error, Mapping) or error.get("type") != Busy.type:
                break
            after_s = error.get("retry_after_s", _BUSY_WAIT_S)
            time.sleep(min(after_s if isinstance(after_s, (int, float)) else _BUSY_WAIT_S, _BUSY_WAIT_S))
        return reply

    def each(self, cases: Iterable[tuple[str, T]], judge: Callable[[T], str | None]) -> Cases:
        """Judge the cases, several at once; yield each one's name and problem, in order."""

        def safely(case: tuple[str, T]) -> tuple[str, str | None]:
            try:
                return case[0], judge(case[1])
            except JobError as error:
                return case[0], error.message

        with ThreadPoolExecutor(self.workers, "conform") as pool:
            yield from pool.map(safely, cases)


def values_of(data: bytes, ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ``results`` that an answer over ``data`` must have, by the kernels of this machine."""
    request = parse_request({"program": {"data_url": "https://host/", "ops": ops}})
    parsed = request.program.ops
    values = kernels.fused(data, [(op.name, op.imm) for op in parsed], [op.identity for op in parsed])
    return [op.render(value) for op, value in zip(parsed, values, strict=True)]


def succeeded_with(reply: Reply, request: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a reply that should be a success with the ``expected`` fields."""
    if reply.status not in (None, 200):
        return f"status {reply.status}, {_told(reply)}"
    try:
        answer = parse_answer(reply.document, parse_request(request))
    except JobError as error:
        return error.message
    if not answer["success"]:
        return _told(reply)
    for key, value in expected.items():
        # By their JSON, which tells 1 from true and from 1.0.
        if show(answer[key], 2000) != show(value, 2000) or answer[key] != value:
            return f"{key} is {answer[key]!r}, not {value!r}"
    return None


def failed_with(reply: Reply, types: Iterable[str], fields: Iterable[str | None] = (None,)) -> str | None:
    """Return what is wrong with a reply that should be a failure of one of ``types``, naming one of ``fields``."""
    document = reply.document
    error = document.get("error") if isinstance(document, Mapping) else None
    if not isinstance(error, Mapping) or document.get("success") is not False:
        return f"it succeeded, or is no answer: {str(document)[:200]}"
    told, wanted = error.get("type"), tuple(types)
    if told not in wanted:
        return f"{_told(reply)}; wanted is {' or '.join(wanted)}"
    if (
        not isinstance(error.get("message"), str)
        or not error["message"]
        or not isinstance(error.get("retryable"), bool)
    ):
        return "its error has no message, or does not say whether it is retryable"
    status = error_class(str(told)).status
    if reply.status not in (None, status):
        return f"status {reply.status}, where {told} has {status}"
    named = tuple(fields)
    return (
        None
        if named == (None,) or error.get("field") in named
        else f"it names {error.get('field')!r}, not {named[0]!r}"
    )


def _told(reply: Reply) -> str:
    error = reply.document.get("error") if isinstance(reply.document, Mapping) else None
    if not isinstance(error, Mapping):
        return f"no answer of the contract: {str(reply.document)[:200]}"
    return f"{error.get('type')}: {error.get('message')}"
