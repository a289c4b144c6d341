"""The whole system against other task systems, on the same work, the same machine and the same kind of broker.

Work is jobs that do nothing, many at once and one at a time, and the CRC-32C of random ranges of 1 MiB from nginx. Each
system has two workers (ours four threads, as it starts by itself on two CPUs), a Valkey of its own where it uses one, and a
client in a process of its own that waits for every value. All parse Redis's replies with hiredis. Measured is in rounds,
the first of which warms up, each system's turn at another time in each; outside of its turn a system is frozen. The values
of all must agree. One that fails is told with its reason, and the others go on.

Ours is ``packetfs up`` with all that it does: router, ledger, leases, breaker, journal, gateway. A job that does
nothing is the CRC-32C of no bytes of a local file.

    python benchmarks/system.py            # installs the others into build/peers first
    python benchmarks/system.py --only "Celery,Celery, threads"
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from _harness import facts, machine, markdown, options, ratio, write_json
from _peers import PEERS
from _running import Failed, Running, python_for

from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.embedded.system import System
from packetfs_compute.parsers import network
from packetfs_compute.settings import Settings, to_environment

HERE = Path(__file__).resolve().parent
OURS = ("packetfs, delay()", "packetfs, submit_many")
_MIB = 1 << 20
_OBJECT = 64 * _MIB


@dataclass(frozen=True)
class Size:
    """How much is done in a round, and after how many seconds no further round begins."""

    rounds: int
    jobs: int
    alone: int
    ranges: int
    budget_s: float


@dataclass
class Seen:
    """What was measured of one system, a number a round: jobs a second, CPU ms a job, and the seconds of each job alone."""

    noop: list[float] = field(default_factory=list)
    noop_cpu_ms: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    publish: list[float] = field(default_factory=list)
    alone_s: list[float] = field(default_factory=list)


def main() -> None:
    parser = options(__doc__.partition("\n")[0], rounds=8)
    parser.add_argument("--no-install", action="store_true", help="use what is installed")
    parser.add_argument("--peers", type=Path, default=HERE.parent / "build/peers", help="the others' environments")
    parser.add_argument("--only", default=list(PEERS), type=_names, help="of the others, those of these names, a,b")
    given = parser.parse_args()
    size = Size(2, 150, 40, 40, 55.0) if given.quick else Size(given.rounds, 500, 60, 150, 390.0)
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packetfs-bench-")))
        url = stack.enter_context(_nginx(folder))
        systems = _start(stack, given, folder, url, failed)
        file = str(folder / "www/object")
        for name, one in list(systems.items()):
            with _told(name, systems, failed), one.turn():
                one.ready((file, 0, 0))
        seen, rounds = _measure(systems, size, url, file, failed)
    print(facts({**machine(), "rounds": f"{rounds}, after one that warmed up"}))
    print("\n" + _report(seen, failed))
    if given.json:
        document = {"machine": machine(), "rounds": rounds, "failed": failed}
        write_json(given.json, {**document, "seen": {name: vars(one) for name, one in seen.items()}})


def _start(
    stack: ExitStack, given: argparse.Namespace, folder: Path, url: str, failed: dict[str, str]
) -> dict[str, Running]:
    """Start all systems at once; who is not there is told in ``failed``."""
    common = Settings(
        data_dir=folder / "ours", concurrency=4, file_roots=(folder,), source_ports=(urlsplit(url).port or 80,),
        allow_private_sources=(network("127.0.0.0/8"),),
    )  # fmt: skip
    pythons = {}
    for name in [name for name in PEERS if name in given.only or name in OURS]:
        with _told(name, {}, failed):
            pythons[name] = python_for(PEERS[name].needs, given.peers, not given.no_install)
    up = stack.enter_context(System(common, persistent=False))
    systems = {}
    for at, (name, python) in enumerate(pythons.items()):
        peer, settings, workers, beside = PEERS[name], common, (up.pids["worker"],), tuple(up.pids.values())
        if name not in OURS:
            workers = beside = ()
            settings = replace(common, data_dir=folder / f"broker-{at}")
            if peer.publishes:
                settings.data_dir.mkdir(mode=0o700)
                broker = start_redis_server(settings, persistent=False)
                stack.callback(broker.stop, *STOP, (signal.SIGKILL, 1.0))
                beside = (broker.pid,)
        environ = {**to_environment(settings), "PEER_REDIS": settings.state_url}
        with _told(name, {}, failed):
            systems[name] = Running(name, peer, python, folder / f"peer-{at}", environ, workers, beside)
            stack.callback(systems[name].end)
    return systems


@contextmanager
def _told(name: str, systems: dict[str, Running], failed: dict[str, str]) -> Iterator[None]:
    """Where a system fails, say so, end it, and go on without it."""
    try:
        yield
    except Failed as error:
        print(f"{name} failed: {error}", file=sys.stderr)
        failed[name] = str(error)
        if name in systems:
            systems.pop(name).end()


def _measure(
    systems: dict[str, Running], size: Size, url: str, file: str, failed: dict[str, str]
) -> tuple[dict[str, Seen], int]:
    """Return what was seen of each, of one that failed until then, and in how many rounds."""
    seen = {name: Seen() for name in systems}
    shuffle, randrange = random.Random(0).shuffle, random.Random(1).randrange
    begun, longest_s = time.monotonic(), 0.0
    for at in range(size.rounds + 1):  # the first warms up
        started = time.monotonic()
        if at > 1 and started - begun + longest_s > size.budget_s:
            break
        order = list(systems)
        shuffle(order)
        ranges = [(url, randrange(_OBJECT - _MIB), _MIB) for _ in range(size.ranges)]
        sums: dict[int, int] = {}
        for name in order:
            with _told(name, systems, failed), systems[name].turn():
                _turn(systems[name], seen[name] if at else Seen(), size, ranges, file, sums)
        longest_s = max(longest_s, time.monotonic() - started)
        print(f"round {at}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return seen, max((len(one.noop) for one in seen.values()), default=0)


def _turn(
    one: Running, seen: Seen, size: Size, ranges: list[tuple[str, int, int]], file: str, sums: dict[int, int]
) -> None:
    """Measure a system once. ``sums`` has what the others found over as many of the ranges."""
    call, slow = [(file, 0, 0)], one.peer.slow
    count, some = max(10, size.jobs // slow), ranges[: max(10, len(ranges) // slow)]
    one.ask("many", "noop", call, 2)  # it was frozen
    cpu_s = one.cpu_s()
    seen.noop.append(count / one.ask("many", "noop", call, count)[0][0])
    seen.noop_cpu_ms.append((one.cpu_s() - cpu_s) / count * 1e3)
    seen.alone_s += one.ask("alone", "noop", call, max(3, size.alone // slow))[0]
    took, total = one.ask("many", "read", some)
    seen.read.append(len(some) / took[0])
    if sums.setdefault(len(some), total) != total:
        raise Failed("its values are not those of the others")
    if one.peer.publishes:
        seen.publish.append(count / one.publish(call, count))


def _report(seen: dict[str, Seen], failed: dict[str, str]) -> str:
    tables = []
    for title, rates in (
        ("no-op, many at once", lambda one: one.noop),
        ("1 MiB from nginx, `crc32c`", lambda one: one.read),
        ("publishing alone, workers frozen", lambda one: one.publish),
    ):
        heads = [title, "workers", "`delay()` to it (best)", "(median)", "`submit_many` to it (best)", "(median)"]
        told = failed if not tables else {}  # once is enough
        tables.append(_table([*heads, "jobs/s", "(median)"], seen, told, rates, OURS, _of_rates))
    heads = [
        "no-op, one at a time",
        "workers",
        "`delay()` to it (best)",
        "(median)",
        "(p95)",
        "ms (best)",
        "(median)",
        "(p95)",
    ]
    alone = {name: one for name, one in seen.items() if name != OURS[1]}
    tables.insert(1, _table(heads, alone, {}, lambda one: one.alone_s, OURS[:1], _of_seconds))
    heads = ["CPU of a no-op of many, client, broker and workers", "workers", "it to `delay()` (best)", "(median)"]
    heads += ["it to `submit_many` (best)", "(median)", "ms a job (best)", "(median)"]
    tables.append(_table(heads, seen, {}, lambda one: one.noop_cpu_ms, OURS, _of_costs))
    return "\n\n".join(tables)


_Numbers = Callable[[Seen], list[float]]
_Cells = Callable[[list[float], list[list[float]]], list[str]]


def _table(
    heads: list[str], seen: dict[str, Seen], failed: dict[str, str], of: _Numbers, ours: tuple[str, ...], cells: _Cells
) -> str:
    bases = [of(seen[name]) if name in seen else [] for name in ours]
    rows = []
    for name, one in seen.items():
        workers = PEERS[name].concurrency
        if name in failed:
            workers += f"; failed after {len(one.noop)} rounds: {failed[name]}"
        if of(one):
            rows.append([name, workers, *cells(of(one), bases)])
    never = {name: reason for name, reason in failed.items() if name not in seen or not of(seen[name])}
    rows += [[name, f"failed: {reason}", *["-"] * (len(heads) - 2)] for name, reason in never.items()]
    return markdown(heads, rows, left=2)


def _of_rates(mine: list[float], bases: list[list[float]]) -> list[str]:
    ratios = [ratio(of(base) / of(mine) if base else None) for base in bases for of in (max, median)]
    return [*ratios, f"{max(mine):.0f}", f"{median(mine):.0f}"]


def _of_seconds(mine: list[float], bases: list[list[float]]) -> list[str]:
    ratios = [ratio(of(mine) / of(base) if base else None) for base in bases for of in (min, median, _p95)]
    return [*ratios, *(f"{of(mine) * 1e3:.2f}" for of in (min, median, _p95))]


def _of_costs(mine: list[float], bases: list[list[float]]) -> list[str]:
    ratios = [ratio(of(mine) / of(base) if base else None) for base in bases for of in (min, median)]
    return [*ratios, f"{min(mine):.2f}", f"{median(mine):.2f}"]


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _names(text: str) -> list[str]:
    """Return the names in ``a,b``, of which some have a comma of their own."""
    named = [name for name in PEERS if f",{name.lower()}," in f",{text.lower()},"]
    if not named:
        raise argparse.ArgumentTypeError(f"give some of: {'; '.join(PEERS)}")
    return named


@contextmanager
def _nginx(folder: Path) -> Iterator[str]:
    """Serve an object of random bytes; yield its URL."""
    from support.nginx import Nginx, nginx_binary  # noqa: PLC0415  (the tests' own)

    binary = nginx_binary()
    if binary is None:
        raise SystemExit("nginx is not installed")
    server = Nginx(folder, binary)
    try:
        (server.www / "object").write_bytes(random.Random(2).randbytes(_OBJECT))
        yield server.url("object")
    finally:
        server.close()


if __name__ == "__main__":
    main()
