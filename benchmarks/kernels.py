"""The kernels against their peers: every op on every implementation, and all five fused, in one process.

    python benchmarks/kernels.py                          # 4 KiB, 64 KiB, 1 MiB and 64 MiB; about two minutes
    python benchmarks/kernels.py --quick                  # fewer sizes and rounds
    python benchmarks/kernels.py --sizes 16KiB 256MiB --json out.json

Peers are used where they can be imported (numpy, crc32c, google-crc32c, awscrt, numba, fnvhash), and what is missing is
named. Before anything is timed its value is checked: on 4 KiB against the implementation in Python, then at each
size against all the others.

The *read limit* is the fastest plain read of the same bytes that can be called from Python: libc's ``memchr`` over all
of them (``bytes.find`` of a byte that does not occur), or numpy's sum over 64-bit words, whichever is faster here.
What would take over half a second at a size, such as a loop in Python, is left out of that size.
"""

import importlib
import operator
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from types import ModuleType
from typing import Any

from _harness import Timing, facts, interleaved, machine, markdown, options, ratio, size, size_text, write_json

from packetfs_compute import kernels

IMM = 42
ARGUMENTS = {"counteq": (IMM,), "crc32c": (), "fnv64": (), "xor": (IMM,), "add": (IMM,)}
OPS = tuple(ARGUMENTS)
FUSED = [(op, *(rest or (None,))) for op, rest in ARGUMENTS.items()]
STEPS = tuple((op, imm or 0) for op, imm in FUSED)
SEEDS = [kernels.FNV64_OFFSET if op == "fnv64" else 0 for op in OPS]
PRIME = 0x100000001B3
TOO_SLOW_S = 0.5


@dataclass(frozen=True)
class Candidate:
    """Something to time: ``make`` binds it to the data, ``value`` brings its result into the common form."""

    op: str
    name: str
    kind: str  # "ours" (what a caller gets), "implementation", "peer", "scale" (computes another thing) or "read"
    make: Callable[[bytes], Callable[[], object]]
    value: Callable[[Any], object] = int


def bind(function: Callable[..., object], *rest: object) -> Callable[[bytes], Callable[[], object]]:
    return lambda data: partial(function, data, *rest)


def ours() -> Iterator[Candidate]:
    bound = {name: kernels.using(name) for names in kernels.implementations().values() for name in names}
    for op, names in kernels.implementations().items():
        yield Candidate(op, f"kernels.{op}", "ours", bind(getattr(kernels, op), *ARGUMENTS[op]))
        for name in names:
            yield Candidate(op, name, "implementation", bind(getattr(bound[name], op), *ARGUMENTS[op]))
    yield Candidate("fused", "kernels.fused", "ours", bind(kernels.fused, FUSED, SEEDS), list)
    for name, one in bound.items():
        yield Candidate("fused", name, "implementation", bind(one.plan(STEPS).run, SEEDS), list)
    yield Candidate("fused", "five calls, one after another", "peer", five_calls, list)


def five_calls(data: bytes) -> Callable[[], object]:
    calls = [partial(getattr(kernels, op), data, *rest) for op, rest in ARGUMENTS.items()]
    return lambda: [call() for call in calls]


def fnv_loop(data: bytes) -> int:
    value = kernels.FNV64_OFFSET
    for byte in data:
        value = ((value ^ byte) * PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def standard_library() -> Iterator[Candidate]:
    yield Candidate("read", "memchr (bytes.find)", "read", lambda d: partial(d.find, b"\0"))
    yield Candidate("copy", "memcpy (bytearray slice)", "scale", copy)
    yield Candidate("crc32c", "zlib.crc32 (for scale)", "scale", bind(zlib.crc32))
    yield Candidate("counteq", "bytes.count", "peer", lambda d: partial(d.count, bytes([IMM])))
    yield Candidate("fnv64", "loop in Python", "peer", bind(fnv_loop))


def copy(data: bytes) -> Callable[[], object]:
    # Through memoryviews: a bytearray's own slice assignment first copies what is not a bytearray once more.
    return partial(operator.setitem, memoryview(bytearray(len(data))), slice(None), memoryview(data))


def folded(word: Any) -> int:
    """Return the XOR of a 64-bit word's bytes; over an even number of bytes ``imm`` cancels."""
    return reduce(operator.xor, int(word).to_bytes(8, "little"))


def numpy_peers(np: ModuleType) -> Iterator[Candidate]:
    imm, fold = np.uint8(IMM), np.bitwise_xor.reduce

    def on(function: Callable[[Any], object], kind: str = "u1") -> Callable[[bytes], Callable[[], object]]:
        return lambda data: partial(function, np.frombuffer(data, kind))

    yield Candidate("read", "numpy sum (uint64)", "read", on(np.add.reduce, "u8"))
    yield Candidate("counteq", "numpy count_nonzero(a == imm)", "peer", on(lambda a: np.count_nonzero(a == imm)))
    yield Candidate("xor", "numpy bitwise_xor.reduce (uint64)", "peer", on(fold, "u8"), folded)
    yield Candidate("add", "numpy (a + imm).sum()", "peer", on(lambda a: (a + imm).sum(dtype=np.uint64)))


def numba_peers(nb: ModuleType) -> Iterator[Candidate]:
    """Loops compiled by LLVM for this CPU; the short blocks let it keep narrow, so wide, vectors of counters."""
    np = importlib.import_module("numpy")
    u8, u32, u64 = nb.uint8, nb.uint32, nb.uint64

    @nb.njit
    def counteq(a: Any, imm: Any) -> Any:
        total = 0
        for start in range(0, a.size, 128):
            n = u8(0)
            for x in a[start : start + 128]:
                n = u8(n + u8(x == imm))
            total += n
        return total

    @nb.njit
    def add(a: Any, imm: Any) -> Any:
        total = 0
        for start in range(0, a.size, 4096):
            n = u32(0)
            for x in a[start : start + 4096]:
                n = u32(n + u32(u8(x + imm)))
            total += n
        return total

    @nb.njit
    def fnv64(a: Any, value: Any) -> Any:
        for i in range(a.size):
            value = (value ^ u64(a[i])) * u64(PRIME)
        return value

    imm, seed = np.uint8(IMM), np.uint64(kernels.FNV64_OFFSET)
    yield Candidate("counteq", "numba", "peer", lambda d: partial(counteq, np.frombuffer(d, "u1"), imm))
    yield Candidate("fnv64", "numba", "peer", lambda d: partial(fnv64, np.frombuffer(d, "u1"), seed))
    yield Candidate("add", "numba", "peer", lambda d: partial(add, np.frombuffer(d, "u1"), imm))


def one_peer(op: str, label: str, function: str) -> Callable[[ModuleType], Iterator[Candidate]]:
    return lambda module: iter([Candidate(op, label, "peer", bind(getattr(module, function)))])


PEERS = {
    "numpy": numpy_peers,
    "numba": numba_peers,
    "crc32c": one_peer("crc32c", "crc32c (PyPI)", "crc32c"),
    "google_crc32c": one_peer("crc32c", "google-crc32c", "value"),
    "awscrt.checksums": one_peer("crc32c", "awscrt", "crc32c"),
    "fnvhash": one_peer("fnv64", "fnvhash", "fnv1a_64"),
}


def importable() -> tuple[list[Candidate], list[str]]:
    found, missing = list(standard_library()), []
    for name, peers in PEERS.items():
        try:
            found += peers(importlib.import_module(name))
        except ImportError:
            missing.append(name.partition(".")[0].replace("_", "-"))
    return found, missing


def checked(candidates: list[Candidate], data: bytes) -> dict[Candidate, Callable[[], object]]:
    """Return the calls over ``data`` of those that are fast enough for it; a wrong value ends the benchmark."""
    small = data[:4096]
    right: list[Any] = kernels.using("python").plan(STEPS).run(small, SEEDS)
    expected: dict[str, object] = dict(zip((*OPS, "fused"), (*right, right), strict=True))
    at_size: dict[str, object] = {}
    calls: dict[Candidate, Callable[[], object]] = {}
    for candidate in candidates:
        call = candidate.make(small)
        call()  # numba compiles here
        started_s, raw = time.perf_counter(), call()
        took_s = time.perf_counter() - started_s
        compared = candidate.kind not in ("read", "scale")
        if compared and candidate.value(raw) != expected[candidate.op]:
            raise SystemExit(f"{candidate.op}: {candidate.name} gives another value on 4 KiB")
        if took_s * len(data) / len(small) > TOO_SLOW_S:
            continue
        calls[candidate] = candidate.make(data)
        value = candidate.value(calls[candidate]()) if compared else None
        if compared and at_size.setdefault(candidate.op, value) != value:
            raise SystemExit(f"{candidate.op}: {candidate.name} gives another value on {size_text(len(data))}")
    return calls


def ratios(timings: dict[Candidate, Timing], size: int) -> list[dict[str, Any]]:
    """Return what each of ours gives beside the best peer and the read limit; over 1 is faster."""
    read_s = min(t.best_s for c, t in timings.items() if c.kind == "read")
    found = []
    for op in (*OPS, "fused"):
        peers = {c.name: t for c, t in timings.items() if c.op == op and c.kind == "peer"}
        best = min(peers, key=lambda name: peers[name].best_s) if peers else None
        for c, t in timings.items():
            if c.op == op and c.kind in ("ours", "implementation"):
                gain = peers[best].best_s / t.best_s if best else None
                row = {"op": op, "on": c.name, "kind": c.kind, "to_best_peer": gain, "to_read_limit": read_s / t.best_s}
                rates = {"gb_s": t.rate(size), "best_peer": best, "peer_gb_s": peers[best].rate(size) if best else None}
                found.append(row | rates)
    return found


def show(size: int, rows: list[dict[str, Any]]) -> None:
    active, table = kernels.active(), []
    heads = ("op", "ours on", "ours / best peer", "ours / read limit", "GB/s", "best peer, GB/s")
    for row in rows:
        on = row["on"] + (f" (**{active.get(row['op'], 'best of each')}**)" if row["kind"] == "ours" else "")
        peer = f"{row['best_peer']} {ratio(row['peer_gb_s'])}" if row["best_peer"] else "-"
        table.append((row["op"], on, *map(ratio, (row["to_best_peer"], row["to_read_limit"], row["gb_s"])), peer))
    print(f"\n### {size_text(size)}\n\n{markdown(heads, table, left=2)}")


def main() -> None:
    parser = options("The kernels against their peers.", rounds=30)
    parser.add_argument("--sizes", nargs="+", type=size, default=[4 << 10, 64 << 10, 1 << 20, 64 << 20])
    chosen = parser.parse_args()
    sizes, rounds = ([64 << 10, 1 << 20], 5) if chosen.quick else (chosen.sizes, chosen.rounds)
    peers, missing = importable()
    candidates = [*ours(), *peers]
    described = machine() | {"missing peers": missing, "best of interleaved rounds": rounds}
    document: dict[str, Any] = {"machine": described, "sizes": {}}
    print(facts(described))
    others: dict[Candidate, list[str]] = {c: [] for c in candidates if c.kind in ("peer", "scale", "read")}
    for count in sizes:
        # Without the byte 0, so that memchr reads all of it.
        data = random.Random(1).randbytes(count).replace(b"\0", b"\1")
        timings = interleaved(checked(candidates, data), rounds)
        rows = ratios(timings, count)
        show(count, rows)
        for candidate, rates in others.items():
            rates.append(ratio(timings[candidate].rate(count)) if candidate in timings else "-")
        raw = [{"op": c.op, "name": c.name, "kind": c.kind, **vars(t)} for c, t in timings.items()]
        document["sizes"][count] = {"ratios": rows, "timings": raw}
    print("\n### Peers and limits, GB/s\n")
    table = sorted((c.op, c.name, *rates) for c, rates in others.items())
    print(markdown(("of", "what", *map(size_text, sizes)), table, left=2))
    if chosen.json:
        write_json(chosen.json, document)


if __name__ == "__main__":
    main()
