"""What an endpoint makes of requests, before it reads any source: form, bounds, signatures, batches."""

import json
import random
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from urllib3 import HTTPHeaderDict

from packetfs_compute.conform.bench import Bench, Cases, failed_with, succeeded_with
from packetfs_compute.conform.contract import load_contract
from packetfs_compute.conform.target import HttpTarget, Reply
from packetfs_compute.errors import JobError
from packetfs_compute.names import OPS
from packetfs_compute.signature import HEADER, WINDOW_S
from packetfs_compute.wire import parse_health

__all__ = [
    "bad_requests", "batches", "bodies", "errors_of_http", "forgeries", "healthy", "signatures", "vectors",
]  # fmt: skip

_MAX_BODY: Final = 1 << 16
_MAX_BATCH_BODY: Final = 1 << 20
_MAX_JOBS: Final = 64
_TIMEOUT_MS: Final = 20_000

_NOWHERE: Final = {"program": {"data_url": "http://192.0.2.1/", "op": "crc32c", "length": 0}, "timeout": 5000}
"""A request that reads nothing: every guard refuses the address, which is documentation's own (RFC 5737)."""

_NO_REQUESTS: Final[dict[str, bytes]] = {
    "nothing": b"",
    "no JSON": b"hello",
    "a number": b"7",
    "null": b"null",
    "a list": b"[]",
    "a string": b'"program"',
    "cut": b'{"program": {"data_url": "https://h',
    "nested without end": b"[" * 60_000,
    "objects without end": b'{"a":' * 10_000,
    "a number without end": b'{"timeout": ' + b"9" * 60_000 + b"}",
    "NaN": b'{"timeout": NaN}',
    "infinity": b'{"timeout": 1e999}',
    "no UTF-8": b'{"jobId": "\xff\xfe"}',
    "UTF-16": '{"program": {}}'.encode("utf-16"),
    "two documents": b"{}{}",
}


def healthy(bench: Bench) -> Cases:
    """``GET /health`` says what it must, and all five operations are there."""
    reply = bench.target.health()
    problem = None if reply.status in (None, 200) else f"status {reply.status}"
    try:
        told = parse_health(reply.document)
        if problem is None and set(told["ops"]) != set(OPS):
            problem = f"it does not have {', '.join(sorted(set(OPS) - set(told['ops'])))}"
    except JobError as error:
        problem = error.message
    yield "health", problem


def vectors(bench: Bench) -> Cases:
    """Every program of the contract gives the contract's values, and every failing one its error."""
    contract = load_contract()
    urls = {name: f"{bench.base_url}/objects/{name}" for name in [*contract.objects, "missing"]}

    def judge(vector: Mapping[str, Any]) -> str | None:
        program = {"data_url": urls[vector["object"]], **vector["program"]}
        request = {"jobId": f"{bench.run_id}-{vector['id']}", "program": program, "timeout": _TIMEOUT_MS}
        reply, expect = bench.ask(request), vector["expect"]
        if "error" in expect:
            return failed_with(reply, [expect["error"]])
        return succeeded_with(reply, request, expect)

    yield from bench.each([(vector["id"], vector) for vector in contract.vectors], judge)


def bad_requests(bench: Bench) -> Cases:
    """Every malformed request of the contract is ``bad_program``, and its field is named."""

    def judge(case: Mapping[str, Any]) -> str | None:
        return failed_with(bench.ask(case["request"]), ["bad_program"], [case["field"]])

    yield from bench.each([(case["id"], case) for case in load_contract().bad_requests], judge)


def bodies(bench: Bench) -> Cases:
    """A body that is no request is refused by name, and one that is too long is not read."""

    def send(body: bytes, path: str = "/compute") -> Reply:
        return bench.http.send("POST", path, body, bench.http.signed(path, body))

    def judge(body: bytes) -> str | None:
        return failed_with(send(body), ["bad_program"])

    yield from bench.each(_NO_REQUESTS.items(), judge)
    long = json.dumps({**_NOWHERE, "jobId": "x" * _MAX_BODY}).encode()
    yield "too long", failed_with(send(long), ["too_large"])
    yield "too long for a batch", failed_with(send(b" " * (_MAX_BATCH_BODY + 1), "/compute/batch"), ["too_large"])
    for kind, document in (("no list", {"jobs": 7}), ("no jobs", {}), ("an unknown field", {"jobs": [], "job": 1}),
                           ("too many jobs", {"jobs": [_NOWHERE] * (_MAX_JOBS + 1)})):  # fmt: skip
        reply = send(json.dumps(document).encode(), "/compute/batch")
        yield f"a batch with {kind}", failed_with(reply, ["bad_program"])


def errors_of_http(bench: Bench) -> Cases:
    """Other paths and methods have HTTP's statuses, answers are JSON that no cache keeps."""
    http = bench.http
    cases = [("GET", "/", 404), ("POST", "/computer", 404), ("GET", "/compute", 405), ("PUT", "/compute", 405),
             ("DELETE", "/health", 405), ("POST", "/compute/", 404), ("PATCH", "/compute/batch", 405)]  # fmt: skip
    for method, path, status in cases:
        reply = http.send(method, path, b"", {})
        problem = None if reply.status == status else f"status {reply.status}, not {status}"
        if problem is None and status == 405 and "Allow" not in reply.fields:
            problem = "405 without Allow"
        if problem is None and not (isinstance(reply.document, Mapping) and reply.document.get("success") is False):
            problem = "its body is no failure of the contract"
        yield f"{method} {path}", problem
    body = json.dumps(_NOWHERE).encode()
    reply = http.send("POST", "/compute", body, http.signed("/compute", body))
    kind, kept = reply.fields.get("Content-Type", ""), reply.fields.get("Cache-Control", "")
    yield "Content-Type", None if kind.startswith("application/json") else f"it is {kind!r}"
    yield "Cache-Control", None if kept == "no-store" else f"it is {kept!r}"


def batches(bench: Bench) -> Cases:
    """A batch answers in its order, each entry as the job alone would be; one that fails does not harm the others."""
    contract = load_contract()
    rng = random.Random(bench.seed)
    chosen = [*rng.sample(contract.vectors[:-10], 18), *contract.vectors[-6:]]
    rng.shuffle(chosen)
    jobs: list[dict[str, Any]] = []
    for at, vector in enumerate(chosen):
        program = {"data_url": f"{bench.base_url}/objects/{vector['object']}", **vector["program"]}
        jobs.append({"jobId": f"{bench.run_id}-b{at}", "program": program, "timeout": _TIMEOUT_MS})
    bad = contract.bad_requests[0]["request"]
    reply = bench.target.post("/compute/batch", {"jobs": [*jobs, bad]})
    results = reply.document.get("results") if isinstance(reply.document, Mapping) else None
    if reply.status not in (None, 200) or not isinstance(results, list) or len(results) != len(jobs) + 1:
        yield "order", f"status {reply.status}, {str(reply.document)[:200]}"
        return
    for at, (vector, job, result) in enumerate(zip(chosen, jobs, results, strict=False)):
        expect, entry = vector["expect"], Reply(None, {}, result)
        if "error" in expect:
            yield f"entry {at}", failed_with(entry, [expect["error"]])
        else:
            yield f"entry {at}", succeeded_with(entry, job, expect)
    yield "a malformed entry", failed_with(Reply(None, {}, results[-1]), ["bad_program"])
    empty = bench.target.post("/compute/batch", {"jobs": []})
    none = empty.document.get("results") if isinstance(empty.document, Mapping) else None
    yield "no jobs at all", None if none == [] else str(empty.document)[:200]


_Forge = Callable[[HttpTarget, bytes], Mapping[str, str]]

_FORGED: Final[dict[str, _Forge]] = {
    "not signed": lambda http, body: {},  # noqa: ARG005
    "another key": lambda http, body: http.signed("/compute", body, secret="x" * 32),
    "an unknown id": lambda http, body: http.signed("/compute", body, key_id="nobody"),
    "another body": lambda http, body: http.signed("/compute", body + b" "),
    "another path": lambda http, body: http.signed("/compute/batch", body),
    "another method": lambda http, body: http.signed("/compute", body, method="PUT"),
    "stale": lambda http, body: http.signed("/compute", body, now=time.time() - WINDOW_S - 30),
    "early": lambda http, body: http.signed("/compute", body, now=time.time() + WINDOW_S + 30),
    "garbage": lambda http, body: {HEADER: "v1;;;;"},  # noqa: ARG005
    "long": lambda http, body: {HEADER: "v1;" + "k" * 4000},  # noqa: ARG005
    "Arabic digits": lambda http, body: {HEADER: "v1;k1;" + "\u0661" * 10 + ";" + "n" * 16 + ";" + "0" * 64},  # noqa: ARG005
    "in capitals": lambda http, body: {HEADER: http.signed("/compute", body)[HEADER].upper()},
}  # fmt: skip


def signatures(bench: Bench) -> Cases:
    """What is not signed, or not by this key, or not now, or not for this request, is refused; so is a second use."""
    http, body = bench.http, json.dumps(_NOWHERE).encode()

    def send(fields: Mapping[str, str]) -> Reply:
        encoded = {name: value.encode("utf-8").decode("latin-1") for name, value in fields.items()}
        return http.send("POST", "/compute", body, encoded)

    for kind, forge in _FORGED.items():
        yield kind, failed_with(send(forge(http, body)), ["unauthorized"])
    good = http.signed("/compute", body)
    yield "signed", failed_with(send(good), ["forbidden_source"])
    yield "replayed", failed_with(send(good), ["unauthorized"])
    two = HTTPHeaderDict([(HEADER, http.signed("/compute", body)[HEADER]) for _ in range(2)])
    yield "signed twice", failed_with(http.send("POST", "/compute", body, two), ["unauthorized"])
    batch = json.dumps({"jobs": []}).encode()
    yield "a batch, not signed", failed_with(http.send("POST", "/compute/batch", batch, {}), ["unauthorized"])


def forgeries(bench: Bench) -> Cases:
    """Of many requests that are each altered somewhere after they were signed, none is accepted."""
    rng = random.Random(bench.seed)

    def judge(seed: int) -> str | None:
        body, fields = _altered(bench.http, random.Random(seed))
        problem = failed_with(bench.http.send("POST", "/compute", body, fields), ["unauthorized"])
        return problem and f"seed {seed}: {problem}"

    cases = [(str(at), rng.getrandbits(48)) for at in range(bench.tampered)]
    problems = [problem for _, problem in bench.each(cases, judge) if problem is not None]
    yield (
        f"{bench.tampered} altered requests",
        f"{len(problems)} accepted, or not refused by name: {problems[0]}" if problems else None,
    )


def _altered(http: HttpTarget, rng: random.Random) -> tuple[bytes, dict[str, str]]:
    """Return a signed request with one thing about it altered."""
    body = json.dumps({**_NOWHERE, "jobId": f"j{rng.getrandbits(32)}"}).encode()
    header = http.signed("/compute", body)[HEADER]
    version, key_id, seconds, nonce, mac = header.split(";")
    what = rng.randrange(6)
    if what == 0:
        at = rng.randrange(len(body))
        body = body[:at] + bytes([body[at] ^ rng.choice([1, 2, 4, 8, 16])]) + body[at + 1 :]
    elif what == 1:
        at = rng.randrange(len(mac))
        mac = mac[:at] + rng.choice([digit for digit in "0123456789abcdef" if digit != mac[at]]) + mac[at + 1 :]
    elif what == 2:
        seconds = str(int(seconds) + rng.choice([-7, -1, 1, 7]))
    elif what == 3:
        nonce = secrets.token_urlsafe(18)
    elif what == 4:
        key_id = rng.choice(["k", "K1", key_id + "0", "admin"])
    else:
        mac = rng.choice([mac[:-1], mac + "0", "", mac[:32], f"{rng.getrandbits(256):064x}", mac.upper() + "G"])
    return body, {HEADER: ";".join((version, key_id, seconds, nonce, mac))}
