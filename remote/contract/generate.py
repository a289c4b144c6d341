"""Write ``vectors.json``: programs over generated objects, with the values that every substrate must give.

The expected values come from the loops in this file, which are the definitions of DESIGN, section 2, written out byte by
byte. They share nothing with the kernels that they are to judge. Run it with no arguments; the output is always the same.

An object's bytes are described, not stored, so that any language can make them:

- ``{"kind": "constant", "byte": b}``: every byte is ``b``.
- ``{"kind": "counter"}``: byte ``i`` is ``i mod 256``.
- ``{"kind": "cycle", "text": t}``: the UTF-8 bytes of ``t``, over and over.
- ``{"kind": "xorshift32", "seed": s}``: Marsaglia's generator (13, 17, 5) on 32 bits, stepped before each byte, which is
  the low 8 bits of its state.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packetfs_compute.conform.contract import make_bytes

Json = dict[str, Any]

OUTPUT = Path(__file__).with_name("vectors.json")
FNV_OFFSET, FNV_PRIME, U64, U32 = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1, (1 << 32) - 1
ALL_OPS: list[Json] = [
    {"op": "counteq", "imm": 0},
    {"op": "crc32c"},
    {"op": "fnv64"},
    {"op": "xor", "imm": 165},
    {"op": "add", "imm": 255},
]
OBJECTS: list[Json] = [
    {"name": "empty", "size": 0, "bytes": {"kind": "counter"}},
    {"name": "one", "size": 1, "bytes": {"kind": "constant", "byte": 255}},
    {"name": "zeros", "size": 4096, "bytes": {"kind": "constant", "byte": 0}},
    {"name": "ones", "size": 70_001, "bytes": {"kind": "constant", "byte": 255}},
    {"name": "counter", "size": 1000, "bytes": {"kind": "counter"}},
    {"name": "text", "size": 9_999, "bytes": {"kind": "cycle", "text": "Compute on bytes, “don’t” move them.\n"}},
    {"name": "page", "size": 65_536, "bytes": {"kind": "xorshift32", "seed": 1}},
    {"name": "odd", "size": 65_537, "bytes": {"kind": "xorshift32", "seed": 2463534242}},
    {"name": "chunks", "size": 600_011, "bytes": {"kind": "xorshift32", "seed": 20_261_123}},
]


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _crc_table()


def value_of(op: Json, data: bytes) -> int | str:
    """Return the value of ``op`` over ``data``, from its definition."""
    name, imm = op["op"], op.get("imm", 0)
    if name == "fnv64":
        value = int(op.get("seed") or f"{FNV_OFFSET:x}", 16)
        for byte in data:
            value = (value ^ byte) * FNV_PRIME & U64
        return f"{value:016x}"
    if name == "crc32c":
        value = U32
        for byte in data:
            value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 255]
        return value ^ U32
    value = 0
    for byte in data:
        if name == "counteq":
            value += byte == imm
        elif name == "xor":
            value ^= byte ^ imm
        else:
            value += (byte + imm) & 255
    return value


def etag_of(obj: Json) -> str:
    """Return the strong ETag that a server of the objects gives ``obj``."""
    return f'"{obj["name"]}-1"'


def _ranges(size: int, rng: random.Random) -> Iterator[tuple[int, int | None]]:
    yield 0, None
    yield 0, 0
    yield size, 0
    yield size, None
    if size:
        yield 0, 1
        yield size - 1, 1
        yield size - 1, None
        yield 0, size
    edges = [1, 7, 8, 15, 16, 63, 64, 255, 1023, 3071, 3072, 4095, 65_535, 65_536, 262_143, 262_144, 524_288]
    for edge in edges:
        if edge < size:
            yield edge, min(size - edge, rng.randrange(1, 5000))
            yield max(0, edge - 3), min(size, edge + 3) - max(0, edge - 3)
    for _ in range(8 if size > 1 else 0):
        start = rng.randrange(size)
        yield start, rng.randrange(1, min(size - start, 40_000) + 1)


def _ops(index: int, rng: random.Random) -> Json:
    """Return the ops part of a program: straight in it, in a list of one, several, or all."""
    imm = rng.choice([0, 1, 10, 42, 127, 128, 254, 255])
    single = rng.choice([{"op": "counteq", "imm": imm}, {"op": "xor", "imm": imm}, {"op": "add", "imm": imm},
                         {"op": "crc32c"}, {"op": "fnv64"},
                         {"op": "fnv64", "seed": f"{rng.getrandbits(64):016x}"}])  # fmt: skip
    several = [{"op": "counteq", "imm": imm}, {"op": "counteq", "imm": imm ^ 255}, single]
    return [single, {"ops": [single]}, {"ops": several}, {"ops": ALL_OPS}][index % 4]


def _good(rng: random.Random) -> Iterator[Json]:
    for obj in OBJECTS:
        data = make_bytes(obj["bytes"], obj["size"])
        for index, (offset, length) in enumerate(_ranges(obj["size"], rng)):
            program: Json = {"offset": offset, **_ops(index, rng)}
            if length is not None:
                program["length"] = length
            if index % 5 == 0:
                program["etag"] = etag_of(obj)
            stop = len(data) if length is None else offset + length
            part = data[offset:stop]
            results = [
                {key: op[key] for key in ("op", "imm") if key in op} | {"value": value_of(op, part)}
                for op in program.get("ops") or [program]
            ]
            yield {
                "id": f"{obj['name']}-{index}",
                "object": obj["name"],
                "program": program,
                "expect": {
                    "results": results,
                    "bytesProcessed": len(part),
                    "objectSize": obj["size"],
                    "etag": etag_of(obj),
                },
            }


def _failing() -> Iterator[Json]:
    def case(name: str, obj: str, error: str, **program: Any) -> Json:
        return {"id": name, "object": obj, "program": {"op": "crc32c", **program}, "expect": {"error": error}}

    yield case("past-the-end", "counter", "range_not_satisfiable", offset=0, length=1001)
    yield case("begins-past-the-end", "counter", "range_not_satisfiable", offset=1001)
    yield case("begins-past-the-end-with-length", "counter", "range_not_satisfiable", offset=5000, length=1)
    yield case("empty-past-the-end", "counter", "range_not_satisfiable", offset=1001, length=0)
    yield case("far-past-the-end", "counter", "range_not_satisfiable", offset=(1 << 53) - 1, length=1 << 45)
    yield case("at-the-end-with-length", "counter", "range_not_satisfiable", offset=1000, length=1)
    yield case("past-the-end-of-nothing", "empty", "range_not_satisfiable", offset=0, length=1)
    yield case("no-such-object", "missing", "source_not_found")
    yield case("another-version", "counter", "source_changed", etag='"counter-2"')
    yield case("another-version-of-an-empty-range", "counter", "source_changed", etag='"counter-2"', length=0)


def _bad_requests() -> Iterator[Json]:  # noqa: PLR0912  (a table, written with loops)
    url = "https://example.com/object"
    good: Json = {"data_url": url, "op": "crc32c"}
    imm_ops = ("counteq", "xor", "add")

    def program(field: str, **changes: Any) -> Json:
        fields = {k: v for k, v in (good | changes).items() if v != "absent"}
        return {"field": f"program.{field}" if field else "program", "request": {"program": fields}}

    for value in (None, [], "program", 7, True):
        yield {"field": "program", "request": {"program": value}}
    yield {"field": "program", "request": {}}
    yield {"field": "request.jobid", "request": {"jobid": "j1", "program": good}}
    for value in ("", "a b", "x" * 129, 7, ["j1"]):
        yield {"field": "request.jobId", "request": {"jobId": value, "program": good}}
    for value in (0, -1, 3_600_001, 1.5, "30000", True, [1]):
        yield {"field": "request.timeout", "request": {"timeout": value, "program": good}}
    for value in (None, "", 7, [url], {"url": url}, "x" * 2049, "absent"):
        yield program("data_url", data_url=value)
    for value in (-1, 1 << 53, 10**40, 0.5, "0", True, [0]):
        yield program("offset", offset=value)
    for value in (-1, (1 << 45) + 1, 10**40, 1.5, "1", False, {}):
        yield program("length", length=value)
    for value in ("abc", 'W/"abc"', '"a"b"', '"a b"', 7, "", '"' + "x" * 1024 + '"', '"é€"'):
        yield program("etag", etag=value)
    yield program("lenght", lenght=1)
    yield program("ops", op="absent")
    for value in ([], "crc32c", {"op": "crc32c"}, [{"op": "crc32c"}] * 17, 7):
        yield program("ops", op="absent", ops=value)
    yield program("op", ops=[{"op": "crc32c"}])
    yield program("imm", op="absent", imm=1, ops=[{"op": "crc32c"}])
    for value in ("crc32", "CRC32C", "sha256", "", 7, ["crc32c"]):
        yield program("op", op=value)
        yield program("ops[0].op", op="absent", ops=[{"op": value}])
    for name in imm_ops:
        for value in (-1, 256, 10**30, 1.5, "42", True, [1], "absent"):
            yield program("imm", op=name, imm=value)
        yield program("ops[1].imm", op="absent", ops=[{"op": "crc32c"}, {"op": name}])
        yield program("seed", op=name, imm=1, seed="cbf29ce484222325")
    for name in ("crc32c", "fnv64"):
        yield program("imm", op=name, imm=0)
    yield program("seed", op="crc32c", seed="cbf29ce484222325")
    for value in ("", "CBF29CE484222325", "cbf29ce48422232", "0xcbf29ce4842223", 7, "cbf29ce484222325 "):
        yield program("seed", op="fnv64", seed=value)
    yield program("ops[0].value", op="absent", ops=[{"op": "crc32c", "value": 1}])
    for value in (None, 7, "crc32c", []):
        yield program("ops[0]", op="absent", ops=[value])


def vectors() -> Json:
    """Return all that ``vectors.json`` holds."""
    rng = random.Random(20_261_123)
    return {
        "protocol": 1,
        "objects": [obj | {"etag": etag_of(obj)} for obj in OBJECTS],
        "vectors": [*_good(rng), *_failing()],
        "badRequests": [{"id": f"bad-{index}", **case} for index, case in enumerate(_bad_requests())],
    }


def render(document: Json) -> str:
    """Return the file's text: one vector a line, so that a change to one is one line of a diff."""
    parts = [f'  "protocol": {document["protocol"]}']
    for name in ("objects", "vectors", "badRequests"):
        lines = ",\n".join("    " + json.dumps(entry, ensure_ascii=True) for entry in document[name])
        parts.append(f'  "{name}": [\n{lines}\n  ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    OUTPUT.write_text(render(vectors()), encoding="ascii")
