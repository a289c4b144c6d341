"""The kernels against their peers: every op on every implementation, and all five fused, in one process.

    python benchmarks/kernels.py                          # 4 KiB to 256 MiB; some minutes
    python benchmarks/kernels.py --quick                  # fewer sizes and rounds
    python benchmarks/kernels.py --sizes 16KiB 64MiB --json out.json --svg out.svg

Peers are used where they can be imported (numpy, crc32c, google-crc32c, awscrt, numba, fnv-c, fnvhash), and what is
missing is named. Before anything is timed its value is checked: on 4 KiB against the implementation in Python, then at
each size against all the others.

The *read limit* is the fastest plain read of the same bytes: loads in a loop in C (``read_limit.c``, if there is a ``cc``),
libc's ``memchr`` over all of them (``bytes.find`` of a byte that does not occur), or numpy's sum over 64-bit words. In
cache the loop in C is not called anew for each pass: no function that Python calls can reach it at 4 KiB.
What would take over 0.8 s at a size, such as a loop in Python, is left out of that size.
"""

import argparse
import ctypes
import importlib
import operator
import random
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from _goals import fastest, goals_table
from _harness import Timing, facts, interleaved, machine, markdown, options, ratio, size, size_text, write_json
from _plot import Line, panels

from packetfs_compute import kernels

IMM = 42
ARGUMENTS = {"counteq": (IMM,), "crc32c": (), "fnv64": (), "xor": (IMM,), "add": (IMM,)}
OPS = tuple(ARGUMENTS)
FUSED = [(op, *(rest or (None,))) for op, rest in ARGUMENTS.items()]
STEPS = tuple((op, imm or 0) for op, imm in FUSED)
SEEDS = [kernels.FNV64_OFFSET if op == "fnv64" else 0 for op in OPS]
PRIME = 0x100000001B3
TOO_SLOW_S = 0.8
READ_AT_LEAST = 4 << 20
"""Bytes that one call of a loop in C reads, in as many passes as it takes."""
COMBINED = {"64 KiB": 64 << 10, "an odd length": 123_456_789, "2^53 - 1": (1 << 53) - 1}


@dataclass(frozen=True)
class Candidate:
    """Something to time: ``make`` binds it to the data, ``value`` brings its result into the common form."""

    op: str
    name: str
    kind: str  # "ours" (what a caller gets), "implementation", "peer", "scale" (computes another thing) or "read"
    make: Callable[[bytes], Callable[[], object]]
    value: Callable[[Any], object] = int
    in_passes: bool = False  # one call is passes(size) over the data

    def passes(self, count: int) -> int:
        """Return how often one call goes over ``count`` bytes."""
        return max(1, READ_AT_LEAST // count) if self.in_passes else 1


def bind(function: Callable[..., object], *rest: object) -> Callable[[bytes], Callable[[], object]]:
    return lambda data: partial(function, data, *rest)


def ours() -> Iterator[Candidate]:
    longest_first = sorted(kernels.implementations().values(), key=len, reverse=True)
    bound = {name: kernels.using(name) for names in longest_first for name in names}
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


def reads_in_c() -> Iterator[Candidate]:
    """Yield loops of loads for each width here, in one part, four, and four with prefetches; none without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(__file__).with_name("read_limit.c"), Path(folder) / "read_limit.so"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.widest.restype = ctypes.c_size_t
    for width in (16, 32, 64):
        if width <= loaded.widest():
            read = getattr(loaded, f"read_{width}")
            read.argtypes = (ctypes.c_char_p, *[ctypes.c_size_t] * 4)
            for parts, ahead, label in ((1, 0, ""), (4, 0, ", four parts"), (4, 1024, ", four parts prefetched")):
                make = partial(bind_read, read, parts == 4, ahead)
                yield Candidate("read", f"C, {width} bytes a load{label}", "read", make, in_passes=True)


def bind_read(read: Callable[..., object], in_parts: bool, ahead: int, data: bytes) -> Callable[[], object]:
    quarter = (len(data) - 64) // 4
    pages = quarter // 4096  # parts as far apart as the kernels' (packetfs_kernels_impl.h)
    apart = quarter // 64 * 64 if len(data) < 128 << 20 else ((pages - 63) // 64 * 64 + 62) * 4096 + 1088
    return partial(read, data, len(data), max(1, READ_AT_LEAST // len(data)), apart if in_parts else 0, ahead)


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
    "fnv_c": one_peer("fnv64", "fnv-c", "fnv1a_64"),
    "fnvhash": one_peer("fnv64", "fnvhash", "fnv1a_64"),
}


def importable() -> tuple[list[Candidate], list[str]]:
    found, missing = [*standard_library(), *reads_in_c()], []
    for name, peers in PEERS.items():
        try:
            found += peers(importlib.import_module(name))
        except ImportError:
            missing.append(name.partition(".")[0].replace("_", "-"))
    return found, missing


def too_slow(candidate: Candidate, data: bytes) -> bool:
    """Return whether a call over ``data`` would take too long, from one over the first 64 KiB of it."""
    some = data[: 64 << 10]
    call = candidate.make(some)
    call()
    started_s, _ = time.perf_counter(), call()
    took_s = (time.perf_counter() - started_s) / candidate.passes(len(some))
    return took_s * len(data) / len(some) > TOO_SLOW_S


def checked(candidates: list[Candidate], data: bytes) -> dict[Candidate, Callable[[], object]]:
    """Return the calls over ``data`` of those that are fast enough for it; a wrong value ends the benchmark."""
    small = data[:4096]
    right: list[Any] = kernels.using("python").plan(STEPS).run(small, SEEDS)
    expected: dict[str, object] = dict(zip((*OPS, "fused"), (*right, right), strict=True))
    at_size: dict[str, object] = {}
    calls: dict[Candidate, Callable[[], object]] = {}
    for candidate in candidates:
        call = candidate.make(small)
        raw = call()  # numba compiles here
        compared = candidate.kind not in ("read", "scale")
        if compared and candidate.value(raw) != expected[candidate.op]:
            raise SystemExit(f"{candidate.op}: {candidate.name} gives another value on 4 KiB")
        if too_slow(candidate, data):
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


def show(ratios_at: dict[int, list[dict[str, Any]]]) -> None:
    """Print what a caller gets, an op a row and a size a column, then every implementation beside the read limit."""
    ours = {(row["op"], count): row for count, rows in ratios_at.items() for row in rows if row["kind"] == "ours"}
    active, sizes = kernels.active(), list(ratios_at)
    for title, what in {
        "Ours / best peer": "to_best_peer",
        "Ours / read limit": "to_read_limit",
        "Ours, GB/s": "gb_s",
    }.items():
        rows = [
            (op, active.get(op, "each op's best"), *(ratio(ours[op, count][what]) for count in sizes))
            for op in (*OPS, "fused")
        ]
        print(f"\n### {title}\n\n{markdown(('op', 'runs on', *map(size_text, sizes)), rows, left=2)}")
    rows = [
        (op, "", *(str(ours[op, count]["best_peer"] or "-").partition(" ")[0] for count in sizes))
        for op in (*OPS, "fused")
    ]
    print(f"\n### The best peer\n\n{markdown(('op', '', *map(size_text, sizes)), rows, left=len(sizes) + 2)}")
    shares: dict[tuple[str, str], dict[int, float]] = {}
    for count, rows in ratios_at.items():
        for row in rows:
            if row["kind"] == "implementation":
                shares.setdefault((row["op"], row["on"]), {})[count] = row["to_read_limit"]
    lines = [(*key, *(ratio(by.get(count)) for count in ratios_at)) for key, by in shares.items()]
    heads = ("op", "implementation", *map(size_text, ratios_at))
    print(f"\n### Every implementation / read limit\n\n{markdown(heads, lines, left=2)}")


def limit(rates: dict[Candidate, dict[int, float]]) -> dict[tuple[str, str], dict[int, float]]:
    """Return the read limit by size, under the name of the goals."""
    reads = [by for c, by in rates.items() if c.kind == "read"]
    return {("read", ""): {count: max(by[count] for by in reads if count in by) for by in reads for count in by}}


def show_others(rates: dict[Candidate, dict[int, float]], sizes: list[int]) -> None:
    others = [c for c in rates if c.kind in ("peer", "scale", "read")]
    table = sorted((c.op, c.name, *(ratio(rates[c].get(count)) for count in sizes)) for c in others)
    print(f"\n### Peers and limits, GB/s\n\n{markdown(('of', 'what', *map(size_text, sizes)), table, left=2)}")


def drawn(rates: dict[Candidate, dict[int, float]], sizes: list[int]) -> str:
    """Return the chart: every rate as a share of the read limit at its size. Loops in Python would flatten all else."""
    limit = {count: max(by[count] for c, by in rates.items() if c.kind == "read") for count in sizes}
    charts: dict[str, list[Line]] = {op: [] for op in (*OPS, "fused")}
    for c, by in rates.items():
        shares = [by[count] / limit[count] if count in by else None for count in sizes]
        best = kernels.active().get(c.op, "")
        if c.op not in charts or c.kind == "scale" or c.name in ("python", "fnvhash", "loop in Python", best):
            continue
        if c.kind == "ours":
            charts[c.op].append(Line(f"ours, {best}" if best else "ours", shares, "ours"))
        elif c.kind == "peer" or c.op != "fused":
            charts[c.op].append(Line(c.name.partition(" (")[0], shares, "peer" if c.kind == "peer" else "other"))
    return panels("Bytes a second, as a share of the read limit", [size_text(count) for count in sizes], charts)


def combine(rounds: int) -> None:
    """Print how long ``crc32c_combine`` takes, call and all."""
    calls = {
        (name, label): partial(kernels.using(name).crc32c_combine, 0x12345678, 0x9ABCDEF0, length)
        for name in kernels.implementations()["crc32c"]
        for label, length in COMBINED.items()
    }
    timings = interleaved(calls, rounds)
    names = dict.fromkeys(name for name, _ in calls)
    table = [(name, *(ratio(timings[name, label].best_s * 1e9) for label in COMBINED)) for name in names]
    print(f"\n### crc32c_combine, ns a call\n\n{markdown(('on', *COMBINED), table)}")


def without_zeros(count: int) -> bytes:
    """Return random bytes without the byte 0, so that memchr reads all of them; from 16 MiB on they repeat."""
    piece = random.Random(1).randbytes(min(count, 16 << 20)).replace(b"\0", b"\1")
    return (piece * -(-count // len(piece)))[:count]


def parsed() -> argparse.Namespace:
    parser = options("The kernels against their peers.", rounds=30)
    default = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20, 256 << 20]
    parser.add_argument("--sizes", nargs="+", type=size, default=default)
    parser.add_argument("--svg", type=Path, help="draw a chart into this file")
    return parser.parse_args()


def main() -> None:
    chosen = parsed()
    sizes, rounds = ([64 << 10, 1 << 20], 5) if chosen.quick else (sorted(set(chosen.sizes)), chosen.rounds)
    peers, missing = importable()
    candidates = [*ours(), *peers]
    described = machine() | {"missing peers": missing, "best of interleaved rounds": rounds}
    document: dict[str, Any] = {"machine": described, "sizes": {}}
    print(facts(described))
    rates: dict[Candidate, dict[int, float]] = {c: {} for c in candidates}
    for count in sizes:
        data = without_zeros(count)
        # Of a call that takes a tenth of a second a few rounds are as good as many of a short one.
        timings = interleaved(checked(candidates, data), rounds if count < 64 << 20 else min(rounds, 12))
        timings = {c: t.of_each(c.passes(count)) for c, t in timings.items()}
        for candidate, timing in timings.items():
            rates[candidate][count] = timing.rate(count)
        raw = [{"op": c.op, "name": c.name, "kind": c.kind, **vars(t)} for c, t in timings.items()]
        document["sizes"][count] = {"ratios": ratios(timings, count), "timings": raw}
    show({count: found["ratios"] for count, found in document["sizes"].items()})
    show_others(rates, sizes)
    heads, rows = goals_table(
        fastest({(c.op, c.name): by for c, by in rates.items() if c.kind != "read"} | limit(rates))
    )
    print(f"\n### Goals\n\n{markdown(heads, rows, left=3)}")
    combine(rounds)
    if chosen.svg:
        chosen.svg.write_text(drawn(rates, sizes), "utf-8")
    if chosen.json:
        write_json(chosen.json, document)


if __name__ == "__main__":
    main()
