"""What every kernel must compute: published vectors, and the definition of each op, one byte at a time.

Written from the RFCs and the design alone; nothing here comes from the package but the names of things.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from packetfs_compute import kernels
from packetfs_compute.names import OPS_WITH_IMM

CASES = [(op, name) for op, names in kernels.implementations().items() for name in names]
"""Every op with every implementation that this machine runs."""

START = {"counteq": 0, "crc32c": 0, "fnv64": 0xCBF29CE484222325, "xor": 0, "add": 0}
BITS = {"counteq": 64, "crc32c": 32, "fnv64": 64, "xor": 8, "add": 64}
MIDWAY = {"counteq": 1 << 40, "crc32c": 0x89ABCDEF, "fnv64": 0xFFFFFFFF00000001, "xor": 0xA5, "add": (1 << 63) + 7}
"""A running value of each op that no start-up trick can mistake for its first."""

# RFC 3720, appendix B.4, prints the CRC's bytes in the order sent: least significant first. The last is the check value
# of the catalogue of CRC algorithms ("CRC-32/ISCSI").
_READ_10_PDU = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
)
CRC32C_VECTORS = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (_READ_10_PDU, 0xD9963A56),
    (b"123456789", 0xE3069283),
]

# draft-eastlake-fnv, appendix C, and Landon Curt Noll's test_fnv.c.
FNV64_VECTORS = [
    (b"", 0xCBF29CE484222325),
    (b"a", 0xAF63DC4C8601EC8C),
    (b"b", 0xAF63DF4C8601F1A5),
    (b"c", 0xAF63DE4C8601EFF2),
    (b"fo", 0x08985907B541D342),
    (b"foo", 0xDCB27518FED9D577),
    (b"foob", 0xDD120E790C2512AF),
    (b"fooba", 0xCAC165AFA2FEF40A),
    (b"foobar", 0x85944171F73967E8),
    (b"a\0", 0x089BE207B544F1E4),
    (b"foobar\0", 0x34531CA7168B8F38),
    (b"chongo was here!\n", 0x46810940EFF5F915),
]

# By hand from the table of operations in the design.
HAND_VECTORS = [
    ("counteq", 10, b"", 0),
    ("counteq", 10, b"a\nb\n\n", 3),
    ("counteq", 0, bytes(300), 300),
    ("counteq", 255, b"\xff\x7f\xfe", 1),
    ("xor", 7, b"", 0),
    ("xor", 7, b"\x01", 6),
    ("xor", 7, b"\x01\x02", 3),
    ("xor", 0xFF, b"\0\0\0", 0xFF),
    ("add", 1, b"", 0),
    ("add", 1, b"\x00\x01\xff", 3),
    ("add", 255, b"\x00\x01", 255),
    ("add", 0, b"\xff" * 1000, 255_000),
]


@dataclass(frozen=True)
class Kernel:
    """One op on one implementation, with one signature for all."""

    op: str
    implementation: str

    def __call__(self, data: object, imm: int = 0, value: int | None = None) -> int:
        run = getattr(kernels.using(self.implementation), self.op)
        arguments = [data, imm] if self.op in OPS_WITH_IMM else [data]
        return run(*arguments) if value is None else run(*arguments, value)


def reference(op: str, data: bytes, imm: int = 0, value: int | None = None) -> int:
    """Return the op's value by its definition."""
    return prefixes(op, data, imm, value, [len(data)])[len(data)]


def prefixes(op: str, data: bytes, imm: int, value: int | None, lengths: Iterable[int]) -> dict[int, int]:
    """Return the value of ``data[:n]`` for each n of ``lengths``, all in one go."""
    step, finish = _STEPS[op], 0xFFFFFFFF if op == "crc32c" else 0
    state = (START[op] if value is None else value) ^ finish
    found, done = {}, 0
    for length in sorted(set(lengths)):
        for byte in data[done:length]:
            state = step(state, byte, imm)
        found[length], done = state ^ finish, length
    return found


def noise(length: int, seed: int = 1) -> bytes:
    """Return bytes that are the same on every machine: a linear congruential generator's top bytes (Knuth's MMIX)."""
    out = bytearray()
    while len(out) < length:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out += (seed >> 16).to_bytes(6, "little")
    return bytes(out[:length])


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 if byte & 1 else byte >> 1
    return byte


_CRCS = [_crc_of_byte(byte) for byte in range(256)]
_STEPS = {
    "counteq": lambda state, byte, imm: state + (byte == imm),
    "crc32c": lambda state, byte, imm: _CRCS[(state ^ byte) % 256] ^ state >> 8,
    "fnv64": lambda state, byte, imm: (state ^ byte) * 1099511628211 % (1 << 64),
    "xor": lambda state, byte, imm: state ^ byte ^ imm,
    "add": lambda state, byte, imm: state + (byte + imm) % 256,
}
