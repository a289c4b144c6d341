"""The whole system against other task systems, on the same work, the same machine and (where they use one) the same Redis.

Work is jobs that do nothing, one at a time and many at once, and the CRC-32C of random ranges of 1 MiB from nginx. Each
system has two workers, and a driver of its own that submits and waits for every result. All of them run from the beginning,
and are measured in turns, in another order each round. The values of all must agree. One that fails is left out by name.

Ours is ``packetfs up`` with all that it does: router, ledger, leases, breaker, journal, events for Flower. A job that does
nothing is the CRC-32C of no bytes of a local file.

    python benchmarks/system.py            # installs the others into build/peers first
    python benchmarks/system.py --no-install
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _harness import facts, machine, markdown, options, ratio, write_json
from _peers import MAKERS, WORKERS

from packetfs_compute.celery import app, celery_config
from packetfs_compute.embedded.system import System
from packetfs_compute.parsers import network
from packetfs_compute.settings import Settings
from tasks import crc32c, submit_many

HERE = Path(__file__).parent
OURS, OURS_MANY, CELERY = "packetfs, delay()", "packetfs, submit_many", "Celery"
_SLOW = {"rq": 10, "lithops": 30}
"""By how much fewer jobs are submitted to those that need long for each."""
_MIB = 1 << 20
_OBJECT = 64 * _MIB
_PATIENCE_S = 90.0

Call = tuple[str, int, int]
Drive = Callable[[str, list[Call], bool], tuple[list[float], int]]


@dataclass
class Seen:
    """What was measured of one system: jobs a second, and the seconds of one job alone."""

    noop: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    alone_s: list[float] = field(default_factory=list)


def main() -> None:
    parser = options(__doc__.partition("\n")[0], rounds=5)
    parser.add_argument("--no-install", action="store_true", help="use what build/peers has")
    parser.add_argument("--peers", type=Path, default=HERE.parent / "build/peers", help="the others' environment")
    parser.add_argument("--only", default=",".join(MAKERS), help="of the others, those of these names")
    given = parser.parse_args()
    rounds, jobs = (2, 120) if given.quick else (given.rounds, 600)
    python = _peers_python(given)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packetfs-bench-")))
        url = stack.enter_context(_nginx(folder))
        settings = Settings(
            data_dir=folder / "data", concurrency=2, file_roots=(folder,), source_ports=(urlsplit(url).port or 80,),
            allow_private_sources=(network("127.0.0.0/8"),),
        )  # fmt: skip
        stack.enter_context(System(settings, persistent=False))
        app.conf.update(celery_config(settings))
        drives: dict[str, Drive] = {OURS: _ours(_delayed), OURS_MANY: _ours(_many)}
        missing = []
        for name in [one for one in MAKERS if one in given.only.split(",")]:
            try:
                drives[name] = stack.enter_context(_peer(name, python, settings.state_url, folder))
            except RuntimeError as error:
                missing.append(f"{name} ({error})")
        seen = _measure(drives, rounds, jobs, url, str(folder / "www/object"), missing)
        app.close()
    _report(seen, missing, given.json)


def _measure(
    drives: dict[str, Drive], rounds: int, jobs: int, url: str, file: str, missing: list[str]
) -> dict[str, Seen]:
    seen = {name: Seen() for name in drives}
    shuffle, randrange = random.Random(0).shuffle, random.Random(1).randrange
    for at in range(rounds + 1):  # the first warms up
        order = list(seen)
        shuffle(order)
        ranges = [(url, randrange(_OBJECT - _MIB), _MIB) for _ in range(max(20, jobs // 4))]
        sums: dict[int, int] = {}
        for name in order:
            print(f"round {at}: {name}", file=sys.stderr)
            try:
                once, total = _round(drives[name], name, jobs, ranges, file)
            except RuntimeError as error:
                missing.append(f"{name} ({error})")
                del seen[name]
                continue
            if sums.setdefault(total[0], total[1]) != total[1]:
                raise SystemExit(f"{name} does not agree with the others")
            if at:
                seen[name].noop.append(once[0])
                seen[name].alone_s.append(once[1])
                seen[name].read.append(once[2])
    return seen


def _round(
    drive: Drive, name: str, jobs: int, ranges: list[Call], file: str
) -> tuple[tuple[float, float, float], tuple[int, int]]:
    """Return jobs a second that do nothing, the seconds of one alone, ranges a second; and of how many the values' sum."""
    slow = _SLOW.get(name, 1)
    count, some = max(10, jobs // slow), ranges[: max(10, len(ranges) // slow)]
    together, _ = drive("noop", [(file, 0, 0)] * count, False)
    alone, _ = drive("noop", [(file, 0, 0)] * (5 if slow > 1 else 30), True)
    took, total = drive("read", some, False)
    return (count / together[0], statistics.median(alone), len(some) / took[0]), (len(some), total)


def _delayed(calls: list[Call]) -> list[Any]:
    return [crc32c.delay(*call) for call in calls]


def _many(calls: list[Call]) -> list[Any]:
    return list(submit_many(crc32c, ({"data_url": url, "offset": at, "length": n} for url, at, n in calls)))


def _ours(submit: Callable[[list[Call]], list[Any]]) -> Drive:
    def drive(task: str, calls: list[Call], one_by_one: bool) -> tuple[list[float], int]:
        del task
        seconds, total = [], 0
        for some in [[call] for call in calls] if one_by_one else [calls]:
            begun = time.perf_counter()
            total += sum(result.get(timeout=_PATIENCE_S)["value"] for result in submit(some))
            seconds.append(time.perf_counter() - begun)
        return seconds, total

    return drive


@contextmanager
def _peer(name: str, python: Path, redis_url: str, folder: Path) -> Iterator[Drive]:
    """Start a system's workers and driver; raise :class:`RuntimeError` where it is not there or does not start."""
    environ = {**os.environ, "PEER": name, "PEER_REDIS": redis_url, "PYTHONPATH": str(HERE)}
    environ["PATH"] = f"{python.parent}:{environ['PATH']}"  # lithops starts its worker by name
    with ExitStack() as stack, (folder / f"{name}.log").open("wb") as log:
        for arguments in WORKERS[name]:
            argv = [str(python), *(part.replace("{redis}", redis_url) for part in arguments)]
            worker = subprocess.Popen(argv, cwd=folder, env=environ, stdout=log, stderr=log)
            stack.callback(_end, worker)
        driver = subprocess.Popen(
            [str(python), str(HERE / "_peers.py")], cwd=folder, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        stack.callback(_end, driver)

        def ask(asked: dict[str, Any] | None) -> Any:
            if asked is not None and driver.stdin:
                print(json.dumps(asked), file=driver.stdin, flush=True)
            line = driver.stdout.readline() if driver.stdout else ""
            if not line:
                raise RuntimeError((folder / f"{name}.log").read_text().strip().rpartition("\n")[2] or "it has ended")
            return json.loads(line)

        ask(None)

        def drive(task: str, calls: list[Call], one_by_one: bool) -> tuple[list[float], int]:
            told = ask({"task": task, "calls": calls, "one_by_one": one_by_one})
            return told["seconds"], told["sum"]

        drive("noop", [("", 0, 0)], False)
        yield drive


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _peers_python(given: argparse.Namespace) -> Path:
    python = given.peers / "bin/python"
    if not given.no_install:
        if not python.exists():
            venv.create(given.peers, with_pip=True)
        wanted = HERE / "system.requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", wanted], check=True)
    return python if python.exists() else Path(sys.executable)


@contextmanager
def _nginx(folder: Path) -> Iterator[str]:
    """Serve an object of random bytes; yield its URL."""
    sys.path.insert(0, str(HERE.parent / "tests"))
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


def _report(seen: dict[str, Seen], missing: list[str], path: Path | None) -> None:
    base = seen.get(CELERY) or seen[OURS]
    print(facts(machine()))
    print()
    rows = []
    for name, one in seen.items():
        rows.append([
            name,
            ratio(max(one.noop) / max(base.noop)), ratio(statistics.median(one.noop) / statistics.median(base.noop)),
            f"{max(one.noop):.0f}",
            ratio(min(base.alone_s) / min(one.alone_s)), f"{min(one.alone_s) * 1e3:.1f}",
            ratio(max(one.read) / max(base.read)), ratio(statistics.median(one.read) / statistics.median(base.read)),
            f"{max(one.read):.0f}",
        ])  # fmt: skip
    heads = ["system", "no-op to Celery (best)", "(median)", "jobs/s", "alone to Celery", "ms", "1 MiB to Celery (best)",
             "(median)", "jobs/s"]  # fmt: skip
    print(markdown(heads, rows))
    if missing:
        print(f"\nNot there: {', '.join(missing)}.")
    if path:
        write_json(
            path, {"machine": machine(), "missing": missing, "seen": {name: vars(one) for name, one in seen.items()}}
        )


if __name__ == "__main__":
    main()
