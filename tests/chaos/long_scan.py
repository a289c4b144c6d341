"""Scan a sparse object of any size while what runs it dies, and see that values, memory and windows are as they should be.

The whole system is a real one (`packetfs up`), with a second place beside it, the compute server of `remote/fly`, as a
process; the object is on nginx. It is nearly all holes, with some random bytes at known places, so that what a scan must
give follows from algebra that shares nothing with what is tested: a run of zeros is a power of x modulo the CRC's
polynomial, and a power of FNV's prime. In the middle the worker of this machine is killed (SIGKILL), then the other place,
which is started again later, then the coordinator. Sampled all along: the memory of all the system's processes, windows that
are open, and messages that wait.

Run it with ``make chaos-scan`` (100 GiB, some minutes), or in ``tests/`` with ``python -m chaos.long_scan --size 2GiB``.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any, Final

import crc32c as crc32c_package
import redis
from support.fly import FlyServer
from support.nginx import Nginx, nginx_binary
from support.processes import alive, descendants, memory_mib
from support.system import RunningSystem, end_system, publishing_to, start_system

from packetfs_compute.cli.params import SIZE
from packetfs_compute.names import FNV64_OFFSET, LEDGER_OPEN, LEDGER_RESUBMITTED, LOCAL, SCAN_STATE, SCANS, queue_of
from packetfs_compute.places import SubstrateSpec, to_json
from packetfs_compute.scanning.plan import Plan
from tasks import scan

__all__ = ["Report", "SparseObject", "run"]

MOST_GROWN_MIB: Final = 300.0
MOST_OPEN: Final = 256
ANYWHERE: Final[list[dict[str, Any]]] = [
    {"op": "crc32c"},
    {"op": "counteq", "imm": 0},
    {"op": "xor", "imm": 90},
    {"op": "add", "imm": 3},
]
CHAIN: Final[list[dict[str, Any]]] = [{"op": "fnv64"}, *ANYWHERE]
_FLY: Final = "fly"
_PATCHES: Final = 64
_MIB: Final = 1 << 20
_CASTAGNOLI: Final = 0x82F63B78
_FNV_PRIME: Final = 0x100000001B3
_EVERY_S: Final = 0.25


@dataclass(frozen=True)
class SparseObject:
    """``size`` bytes, zeros but for some: ``patches`` are those, by their offset, in order."""

    size: int
    patches: tuple[tuple[int, bytes], ...]

    @classmethod
    def sprinkled(cls, size: int, rng: random.Random) -> "SparseObject":
        """Return one with bytes at its very ends, across borders of whole MiB, and anywhere."""
        ends = (0, size - 1000)
        borders = [rng.randrange(1, size // _MIB) * _MIB - rng.randrange(1, 1000) for _ in range(_PATCHES // 2)]
        wanted = sorted({*ends, *borders, *(rng.randrange(size - _MIB) for _ in range(_PATCHES // 2))})
        # Those that the next would touch are left out.
        clear = [at for at, after in zip(wanted, [*wanted[1:], size + 1000], strict=True) if at + 1000 <= after]
        return cls(size, tuple((at, rng.randbytes(1000)) for at in clear))

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(self.size)
            for at, data in self.patches:
                file.seek(at)
                file.write(data)

    def values(self, ops: Sequence[dict[str, Any]]) -> list[Any]:
        """Return what each of ``ops`` gives over all of it."""
        data = b"".join(data for _, data in self.patches)
        zeros = self.size - len(data)

        def value(op: dict[str, Any]) -> Any:
            imm = op.get("imm", 0)
            if op["op"] == "crc32c":
                return self._along(0, _crc_of_zeros, lambda crc, data: int(crc32c_package.crc32c(data, crc)))
            if op["op"] == "fnv64":
                return f"{self._along(FNV64_OFFSET, _fnv_of_zeros, _fnv):016x}"
            if op["op"] == "counteq":
                return data.count(imm) + (zeros if imm == 0 else 0)
            if op["op"] == "xor":
                return reduce(xor, data, 0) ^ (imm if self.size % 2 else 0)
            return sum((byte + imm) % 256 for byte in data) + zeros * imm

        return [value(op) for op in ops]

    def _along(self, start: int, zeros: Callable[[int, int], int], some: Callable[[int, bytes], int]) -> int:
        value, position = start, 0
        for at, data in self.patches:
            value = some(zeros(value, at - position), data)
            position = at + len(data)
        return zeros(value, self.size - position)


def _crc_of_zeros(crc: int, count: int) -> int:
    """Return the CRC of what has ``crc`` and then ``count`` zeros: times x^(8 count) modulo the polynomial, reflected."""
    factor, power = 1 << 31, 1 << 30
    left = 8 * count
    while left:
        if left & 1:
            factor = _times(factor, power)
        power, left = _times(power, power), left >> 1
    return _times(crc ^ 0xFFFFFFFF, factor) ^ 0xFFFFFFFF


def _times(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_CASTAGNOLI if b & 1 else 0)
    return product


def _fnv(value: int, data: bytes) -> int:
    return reduce(lambda value, byte: (value ^ byte) * _FNV_PRIME % (1 << 64), data, value)


def _fnv_of_zeros(value: int, count: int) -> int:
    return value * pow(_FNV_PRIME, count, 1 << 64) % (1 << 64)


@dataclass
class Report:
    """What came of it. Seconds are of the clock on the wall, and those of the scan itself by it."""

    size: int
    ops: tuple[str, ...]
    seed: int
    right: bool = False
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    killed: list[str] = field(default_factory=list)
    idle_mib: float = 0.0
    grown_mib: float = 0.0
    most_open: int = 0
    most_messages: int = 0
    resubmitted: int = 0
    left_open: int = 0

    @property
    def failures(self) -> list[str]:
        """What is not as it should be."""
        checks = {
            self.error: bool(self.error),
            "the values are wrong": not self.right,
            f"memory grew by over {MOST_GROWN_MIB:.0f} MiB": self.grown_mib > MOST_GROWN_MIB,
            f"over {MOST_OPEN} windows were open at once": self.most_open > MOST_OPEN + 1,  # the scan is one itself
            "more messages waited than windows were open": self.most_messages > MOST_OPEN + 1,
            "the ledger has open jobs left": self.left_open != 0,
        }
        return [what for what, so in checks.items() if so]

    def __str__(self) -> str:
        result = self.result
        failed = Counter(
            f"{one['substrate']} {one['error']['type']}" for one in result.get("attempts", ()) if not one["ok"]
        )
        shares = {name: f"{count / self.size:.0%}" for name, count in result.get("substrates", {}).items()}
        return (
            f"{self.size / 2**30:g} GiB, {' '.join(self.ops)}: values {'right' if self.right else 'WRONG'}; "
            f"{result.get('windows')} windows of {result.get('window', 0) / _MIB:g} MiB, {shares}; "
            f"{self.seconds:.1f} s ({self.size / max(self.seconds, 1e-9) / 1e9:.2f} GB/s); "
            f"killed: {', '.join(self.killed) or 'nothing'}; attempts failed: {dict(failed)}, "
            f"{self.resubmitted} messages published again, {result.get('hedges')} hedges; "
            f"memory {self.idle_mib:.0f} MiB idle, grown by {self.grown_mib:.0f} MiB at most; "
            f"{self.most_open} jobs open and {self.most_messages} messages at most, {self.left_open} left in the ledger; "
            f"seed {self.seed}"
        )


@dataclass
class _Setting:
    """What a scan has around it."""

    system: RunningSystem
    fly: FlyServer
    url: str
    client: Any

    def pids(self) -> list[int]:
        roots = (self.system.process.pid, self.fly.pid)
        return [pid for root in roots for pid in (root, *descendants(root))]


class _Watch:
    """Samples memory and queues in a thread of its own, until the context ends."""

    def __init__(self, setting: _Setting, report: Report) -> None:
        self._setting, self._report = setting, report
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        report, setting = self._report, self._setting
        while not self._over.wait(_EVERY_S):
            report.grown_mib = max(report.grown_mib, memory_mib(setting.pids()) - report.idle_mib)
            with setting.client.pipeline(transaction=False) as pipe:
                pipe.zcard(LEDGER_OPEN)
                for name in (LOCAL, _FLY, SCANS):
                    pipe.llen(queue_of(name))
                pipe.hlen("unacked")
                opened, *messages = pipe.execute()
            report.most_open = max(report.most_open, opened)
            report.most_messages = max(report.most_messages, sum(messages))

    def __enter__(self) -> "_Watch":
        self._report.idle_mib = memory_mib(self._setting.pids())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def run(folder: Path, size: int, *, chain: bool, seed: int, window: int | None = None, give_up_s: float) -> Report:
    """Scan an object of ``size`` bytes once, in ``folder``; kill what is to be killed; return the report."""
    rng = random.Random(seed)
    ops = CHAIN if chain else ANYWHERE
    report = Report(size, tuple(op["op"] for op in ops), seed)
    made = SparseObject.sprinkled(size, rng)
    with _setting(folder, made) as setting:
        with _Watch(setting, report):
            started_s = time.monotonic()
            pending = scan.delay(setting.url, ops, window=window, cache=False)
            strikes = _strikes(setting, chain=chain)
            while not pending.ready() and time.monotonic() - started_s < give_up_s:
                done = _done(setting, pending.id)
                while strikes and strikes[0][0] <= done < 1:
                    _, name, strike = strikes.pop(0)
                    strike()
                    report.killed.append(f"{name} at {done:.0%}")
                time.sleep(0.02)
            report.seconds = time.monotonic() - started_s
            if not pending.ready():
                report.error = f"it did not end within {give_up_s:.0f} s"
            elif pending.failed():
                report.error = f"{type(pending.result).__name__}: {pending.result}"
            else:
                report.result = pending.result
                report.right = [one["value"] for one in pending.result["results"]] == made.values(ops)
            report.error = report.error or (f"it ended before {strikes[0][1]} was killed" if strikes else "")
        report.resubmitted = int(setting.client.get(LEDGER_RESUBMITTED) or 0)
        report.left_open = _left_open(setting)
    return report


def _strikes(setting: _Setting, *, chain: bool) -> list[tuple[float, str, Callable[[], object]]]:
    """Return what is done when which share of the object is done."""
    coordinator = (0.65, "the coordinator", lambda: _kill(setting, SCANS))
    if chain:
        return [coordinator]
    return [
        (0.15, "the worker", lambda: _kill(setting, LOCAL)),
        (0.35, "the other place", setting.fly.kill),
        coordinator,
        (0.75, "(the other place is back)", setting.fly.start),
    ]


def _kill(setting: _Setting, name: str) -> None:
    """End a worker as a crash would, with its whole family, and see that it is dead."""
    word = f"\0{name}@".encode()
    found = [pid for pid in setting.pids() if alive(pid) and word in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def _done(setting: _Setting, scan_id: str) -> float:
    """Return which share of a scan is done, by what is kept of it."""
    key = SCAN_STATE + scan_id
    kept = setting.client.hmget(key, "plan", "chain")
    if kept[0] is None:
        return 0.0
    plan = Plan.from_json(json.loads(kept[0])["plan"])
    if plan.chained_here:
        return 0.0 if kept[1] is None else json.loads(kept[1])[0] / plan.length
    return (setting.client.hlen(key) - 1) / plan.windows


def _left_open(setting: _Setting) -> int:
    give_up = time.monotonic() + 30
    while (left := int(setting.client.zcard(LEDGER_OPEN))) and time.monotonic() < give_up:
        time.sleep(0.1)
    return left


@contextmanager
def _setting(folder: Path, made: SparseObject) -> Iterator[_Setting]:
    binary = nginx_binary()
    if binary is None:
        raise SystemExit("nginx is not installed: apt-get install nginx-light")
    with ExitStack() as stack:
        (folder / "nginx").mkdir()
        nginx = Nginx(folder / "nginx", binary)
        stack.callback(nginx.close)
        made.write(nginx.www / "object")
        fly = stack.enter_context(FlyServer(folder))
        spec = SubstrateSpec(_FLY, "fly", url=fly.url, slots=2)
        system = start_system(
            folder, scans=True,
            PACKETFS_SUBSTRATES=to_json((spec,)), PACKETFS_KEYS=f"{_FLY}={fly.key_id}:{fly.secret}",
        )  # fmt: skip
        stack.callback(end_system, system)
        stack.enter_context(publishing_to(system.settings))
        client = stack.enter_context(redis.Redis.from_url(system.settings.state_url, socket_timeout=5))
        yield _Setting(system, fly, nginx.url("object"), client)


def _bytes(text: str) -> int:
    return SIZE.convert(text, None, None)


def main() -> int:
    """Run it from the command line; the exit code is 0 where all was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=_bytes, default="100GiB")
    parser.add_argument("--chain", action="store_true", help="with fnv64, whose bytes must be seen in order")
    parser.add_argument("--window", type=_bytes, help="how wide windows are; chosen where it is left out")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--give-up-s", type=float, default=3600.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="packetfs-chaos-") as folder:
        report = run(
            Path(folder), options.size, chain=options.chain, seed=options.seed, window=options.window,
            give_up_s=options.give_up_s,
        )  # fmt: skip
    print(report)
    for failure in report.failures:
        print(" ", failure)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
