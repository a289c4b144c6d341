"""What an endpoint makes of sources: hostile URLs, servers that break HTTP's rules, slowness, and ranges without end."""

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from packetfs_compute import kernels
from packetfs_compute.conform.bench import OPS, Bench, Cases, failed_with, succeeded_with, values_of
from packetfs_compute.conform.hostile import CONFUSING, IPV4, IPV6, NAMES, SCHEMES, forbidden_urls
from packetfs_compute.conform.misbehaviour import CASES, DATA, DEFAULT_MAX_SKIP, Case
from packetfs_compute.conform.origin import Exchange, answer, honest
from packetfs_compute.errors import AttemptTimeout, ForbiddenSource, JobError, SourceFailed
from packetfs_compute.program import parse_op
from packetfs_compute.settings import Settings
from packetfs_compute.sources.guard import check_url

__all__ = ["deadlines", "hostile_redirects", "hostile_urls", "large_ranges", "misbehaving_servers", "repeats"]

_LATE_S: Final = 5.0
"""What an answer may come later than its request's timeout: the network's and a busy machine's."""
_SHORT_MS: Final = 1000
_LONG_MS: Final = 8000
_LARGE_MS: Final = 600_000
_BLOCK: Final = 1 << 20


def hostile_urls(bench: Bench) -> Cases:
    """No URL leads to a private address, another scheme or a closed port, and no spelling of one gets past."""
    open_to = _open_to(bench)

    def judge(url: str) -> str | None:
        request = {"program": {"data_url": url, "op": "crc32c", "length": 1}, "timeout": 5000}
        return failed_with(bench.ask(request), _refusals(url, open_to))

    yield from bench.each([(url, url) for url in [*forbidden_urls(), *CONFUSING] if _refusals(url, open_to)], judge)


def hostile_redirects(bench: Bench) -> Cases:
    """A source cannot lead where a URL may not: every hop is vetted again."""
    open_to = _open_to(bench)
    hosts = [*IPV4, *(f"[{address}]" for address in IPV6[::3]), *NAMES[::3]]
    urls = [*(f"http://{host}/" for host in hosts), *SCHEMES[:5]]
    places = [url for url in urls if "forbidden_source" in _refusals(url, open_to)]

    def redirect(exchange: Exchange) -> None:
        where = f"Location: {places[int(exchange.path.rpartition('/')[2])]}"
        exchange.send(answer("302 Found", where, "Content-Length: 0", "Connection: close"))

    base = bench.serve("redirects", redirect).rpartition("/")[0]

    def judge(at: int) -> str | None:
        program = {"data_url": f"{base}/{at}", "op": "crc32c", "length": 1}
        return failed_with(bench.ask({"program": program, "timeout": 5000}), _refusals(places[at], open_to))

    yield from bench.each([(url, at) for at, url in enumerate(places)], judge)


def misbehaving_servers(bench: Bench) -> Cases:
    """A server that breaks HTTP's rules gives the right bytes or a typed error, in time; never another value."""
    cases = [(case.name, (at, case)) for at, case in enumerate(CASES) if case.max_skip == DEFAULT_MAX_SKIP]

    def judge(numbered: tuple[int, Case]) -> str | None:
        at, case = numbered
        program: dict[str, Any] = {"data_url": bench.serve(f"m{at}", case.script), "offset": case.offset, "ops": OPS}
        program |= {} if case.length is None else {"length": case.length}
        program |= {} if case.etag is None else {"etag": case.etag}
        # Where our own reader would notice a silence by a setting, the deadline has to do it here.
        hurried = case.want is AttemptTimeout or case.stall_s < 1 or case.name.startswith(("endless", "silence"))
        timeout_ms = _SHORT_MS if hurried else _LONG_MS
        request = {"program": program, "timeout": timeout_ms}
        began = time.monotonic()
        reply = bench.ask(request)
        late_s = time.monotonic() - began - timeout_ms / 1000
        if late_s > _LATE_S:
            return f"its answer came {late_s:.1f} s after its deadline"
        return _judge_reading(reply, request, case)

    yield from bench.each(cases, judge)


def _judge_reading(reply: Any, request: Mapping[str, Any], case: Case) -> str | None:
    right = _right_bytes(case)
    if isinstance(case.want, bytes):
        wrong = succeeded_with(reply, request, {"results": values_of(right, OPS)})
        return wrong if not case.repairable and not _undecidable(case) else _either(wrong, reply)
    if case.repairable and succeeded_with(reply, request, {"results": values_of(right, OPS)}) is None:
        return None
    broken = issubclass(case.want, (SourceFailed, AttemptTimeout))
    return failed_with(reply, [SourceFailed.type, AttemptTimeout.type] if broken else [case.want.type])


def _either(wrong: str | None, reply: Any) -> str | None:
    """Return what is wrong where the right value will do as well as a failure of the source's."""
    return wrong and failed_with(reply, [SourceFailed.type, AttemptTimeout.type])


def _undecidable(case: Case) -> bool:
    """Whether a reader that does not parse HTTP itself may be unable to tell the case from a cut or a forged answer."""
    return case.name in _UNDECIDABLE


_UNDECIDABLE: Final = frozenset(
    {"200 chunked to the end", "extra bytes after the length", "lines ended by a lone LF", "folded field",
     "interim answers", "200 until close", "200 chunked", "chunked"}
)  # fmt: skip


def _right_bytes(case: Case) -> bytes:
    if isinstance(case.want, bytes):
        return case.want
    return DATA[case.offset :] if case.length is None else DATA[case.offset : case.offset + case.length]


def deadlines(bench: Bench) -> Cases:
    """An attempt ends by its own timeout, whatever its source does, and says that it was that."""

    def drip(exchange: Exchange) -> None:
        exchange.send(answer("206 Partial Content", "Content-Range: bytes 0-999999/1000000", "Content-Length: 1000000"))
        while not exchange.wait(0.05):
            exchange.send(b"x")

    scripts = {"a drip": drip, "silence": lambda exchange: exchange.wait(30)}

    def judge(script: Any) -> str | None:
        name, timeout_ms = script
        url = bench.serve(name.replace(" ", "-"), scripts[name])
        program = {"data_url": url, "op": "crc32c", "offset": 0, "length": 1_000_000}
        began = time.monotonic()
        reply = bench.ask({"program": program, "timeout": timeout_ms})
        took_s = time.monotonic() - began
        if not timeout_ms / 1000 - 0.2 <= took_s <= timeout_ms / 1000 + _LATE_S:
            return f"it took {took_s:.2f} s of {timeout_ms / 1000} s"
        return failed_with(reply, [AttemptTimeout.type])

    yield from bench.each([(f"{name}, {ms} ms", (name, ms)) for name in scripts for ms in (300, 1500)], judge)


def large_ranges(bench: Bench) -> Cases:
    """A range that is larger than the memory of most platforms streams through, in one pass, with exact values."""
    size = bench.large_bytes
    block = random.Random(bench.seed).randbytes(_BLOCK)
    etag = '"large"'

    def stream(exchange: Exchange) -> bool:
        first, last = exchange.range or (0, None)
        stop = size if last is None else min(size, last + 1)
        exchange.send(
            answer("206 Partial Content", f"ETag: {etag}", f"Content-Range: bytes {first}-{stop - 1}/{size}",
                   f"Content-Length: {stop - first}")
        )  # fmt: skip
        for part in _blocks(block, first, stop):
            exchange.sock.sendall(part)
        return True

    url = bench.serve("large", stream)
    offset = 12_345
    parsed = [parse_op(op) for op in OPS]
    plan = kernels.plan([(op.name, op.imm) for op in parsed])
    values = [op.identity for op in parsed]
    for part in _blocks(block, offset, size):
        values = plan.run(part, values)
    expected = {"results": [op.render(value) for op, value in zip(parsed, values, strict=True)],
                "bytesProcessed": size - offset, "objectSize": size}  # fmt: skip
    request = {"program": {"data_url": url, "offset": offset, "ops": OPS}, "timeout": _LARGE_MS}
    yield f"{size >> 20} MiB", succeeded_with(bench.ask(request), request, expected)


def _blocks(block: bytes, start: int, stop: int) -> Any:
    """Yield the bytes ``[start, stop)`` of ``block`` repeated without end, as views."""
    view = memoryview(block)
    while start < stop:
        at = start % len(block)
        part = view[at : min(len(block), at + stop - start)]
        yield part
        start += len(part)


def repeats(bench: Bench) -> Cases:
    """The same job asked for twice has the same answer; the same id with another program has that program's."""
    url = bench.serve("repeats", honest(DATA))
    job_id = f"{bench.run_id}-repeat"
    first = {"jobId": job_id, "program": {"data_url": url, "ops": OPS, "length": 500}, "timeout": _LONG_MS}
    other = {**first, "program": {"data_url": url, "ops": OPS, "offset": 500}}
    for name, request, data in (("first", first, DATA[:500]), ("again", first, DATA[:500]),
                                ("another program", other, DATA[500:])):  # fmt: skip
        yield name, succeeded_with(bench.ask(request), request, {"results": values_of(data, OPS)})


def _open_to(bench: Bench) -> Settings:
    """Return what an endpoint that can read the origin must have opened: nothing, where that is on a public address."""
    host = urlsplit(bench.base_url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return Settings()
    if not address.is_loopback:
        return Settings() if address.is_global else replace(Settings(), allow_private_sources=(ip_network(address),))
    networks = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    return replace(Settings(), allow_private_sources=networks)


def _refusals(url: str, open_to: Settings) -> tuple[str, ...]:
    """Return the types with which ``url`` may be refused; none where it is open to the endpoint."""
    try:
        target = check_url(url, open_to)
    except JobError as error:
        return (error.type, ForbiddenSource.type)
    # A name that is private by its text: an endpoint that looks names up may do so, for it could be in the open network.
    named = target.reserve is not None and target.address is None
    return (ForbiddenSource.type, SourceFailed.type, AttemptTimeout.type) if named else ()
