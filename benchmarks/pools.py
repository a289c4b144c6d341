"""What a worker runs its jobs in: the local one in processes or in threads, the forwarding ones in more or fewer threads.

The kernels let go of the GIL, and so does reading from a socket, so threads might share the cores as well as processes do.
Each is a real ``celery worker`` on a real Valkey; its queue is filled first, and the rate is that between the first result
and the last, over random ranges from nginx. The forwarders' place is the compute server of ``remote/fly``. No further round
begins when it would not end within the time that is given; a worker that fails is told with its reason.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import redis
from _harness import facts, machine, markdown, options, ratio, write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.fly import FlyServer
from support.nginx import Nginx, nginx_binary
from support.processes import descendants

from packetfs_compute.celery import app, celery_config
from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.names import queue_of
from packetfs_compute.parsers import network
from packetfs_compute.settings import Settings, to_environment
from tasks import crc32c, submit_many

_OBJECT = 64 << 20
_PATIENCE_S = 40.0
_WHOLE_S = 60.0
"""For one measurement, the starts of its servers included."""
_BUDGET_S = 210.0
_LOCAL = [("prefork", 2), ("threads", 2), ("threads", 4), ("threads in two workers", 2)]
_FORWARDING = [("threads", count) for count in (4, 8, 16, 32)]


_Kind = tuple[str, int, str, int]
_Run = tuple[float, float]


class Failed(RuntimeError):
    """A worker was not measured; the message is for the table."""


def main() -> None:
    given = options(__doc__.partition("\n")[0], rounds=3).parse_args()
    rounds, jobs = (1, 200) if given.quick else (given.rounds, 1200)
    kinds: list[_Kind] = [("local", length, *pool) for length in (0, 1 << 20) for pool in _LOCAL]
    kinds += [("fly", 4096, *pool) for pool in _FORWARDING]
    found: dict[_Kind, list[_Run]] = {kind: [] for kind in kinds}
    failed: dict[_Kind, str] = {}
    begun, longest_s = time.monotonic(), 0.0
    for at in range(rounds):
        started = time.monotonic()
        if at and started - begun + longest_s > _BUDGET_S:
            break
        random.shuffle(kinds)
        for kind in [kind for kind in kinds if kind not in failed]:
            try:
                found[kind].append(_apart(*kind, jobs))
            except Failed as error:
                failed[kind] = str(error)
        longest_s = max(longest_s, time.monotonic() - started)
        print(f"round {at + 1}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(facts({**machine(), "rounds": max(map(len, found.values()))}) + "\n")
    heads = ["worker", "to the first of its work (best)", "(median)", "jobs/s", "(median)", "CPU ms a job"]
    print(markdown(heads, _rows(found, failed)))
    if given.json:
        runs = {f"{kind}": runs for kind, runs in found.items()}
        write_json(
            given.json, {"machine": machine(), "runs": runs, "failed": {f"{k}": why for k, why in failed.items()}}
        )


def _rows(found: dict[_Kind, list[_Run]], failed: dict[_Kind, str]) -> list[list[str]]:
    rows = []
    bases: dict[tuple[str, int], tuple[float, float]] = {}
    for kind, runs in found.items():
        place, length, pool, count = kind
        work = "nothing" if not length else f"{length >> 10} KiB" if length < 1 << 20 else f"{length >> 20} MiB"
        name = f"{place}, {work}: {count} {'processes' if pool == 'prefork' else pool}"
        if kind in failed:
            rows.append([name, f"failed: {failed[kind]}", "-", "-", "-", "-"])
            continue
        best, middle = max(run[0] for run in runs), median(run[0] for run in runs)
        base = bases.setdefault((place, length), (best, middle))
        cpu_ms = min(run[1] for run in runs) * 1e3
        ratios = [ratio(best / base[0]), ratio(middle / base[1])]
        rows.append([name, *ratios, f"{best:.0f}", f"{middle:.0f}", f"{cpu_ms:.2f}"])
    return rows


def _apart(*arguments: object) -> _Run:
    """Measure in a process of its own: an application has one system for its life. Raises :class:`Failed`."""
    argv = [sys.executable, __file__, "--measure", *map(str, arguments)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, told = process.communicate(timeout=_WHOLE_S)
    except subprocess.TimeoutExpired as error:
        for pid in (*descendants(process.pid), process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        raise Failed(f"not done within {_WHOLE_S:.0f} s") from error
    if process.returncode != 0:
        raise Failed(" ".join((told.strip() or "it said nothing").splitlines()[-1].replace("|", " ").split()))
    rate, cpu_s = json.loads(said)
    return rate, cpu_s


def _measure(place: str, length: int, pool: str, count: int, jobs: int) -> _Run:
    """Return jobs a second, and the CPU seconds that the worker took for each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packetfs-bench-")))
        nginx = Nginx(folder, nginx_binary() or "nginx")
        stack.callback(nginx.close)
        (nginx.www / "object").write_bytes(random.Random(2).randbytes(_OBJECT))
        settings = Settings(
            data_dir=folder / "data", allow_private_sources=(network("127.0.0.0/8"),), source_ports=(nginx.port,)
        )
        if place != "local":
            more = {"PACKETFS_SOURCE_PORTS": str(nginx.port), "PACKETFS_MAX_CONCURRENCY": "64"}
            server = stack.enter_context(FlyServer(folder, **more))
            keys = server.settings(place).keys
            settings = replace(settings, substrates=(replace(server.spec(place), slots=count),), keys=keys)
        settings.data_dir.mkdir(mode=0o700)
        broker = start_redis_server(settings, persistent=False)
        stack.callback(broker.stop, *STOP, (signal.SIGKILL, 1.0))
        app.conf.update(celery_config(settings))
        calls = [{"offset": random.randrange(_OBJECT - length)} for _ in range(jobs)]
        common = {"data_url": nginx.url("object"), "length": length, "policy": {"substrates": [place]}}
        ids = [result.id for result in submit_many(crc32c, calls, **common)]
        return _drain(settings, place, pool, count, ids)


def _drain(settings: Settings, place: str, pool: str, count: int, ids: list[str]) -> _Run:
    pool, in_two, _ = pool.partition(" in two workers")
    environ = {**os.environ, **to_environment(settings)}
    workers = []
    for name in ("one", "two") if in_two else ("one",):
        argv = [sys.executable, "-m", "celery", "-A", "packetfs_compute", "worker", "-Q", queue_of(place), "-P", pool,
                "-c", str(count), "-n", f"{name}@%h", "-l", "ERROR", "--without-gossip", "--without-mingle"]  # fmt: skip
        workers.append(subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    client, open_jobs = redis.Redis.from_url(settings.state_url), len(ids)
    first, give_up = None, time.monotonic() + _PATIENCE_S
    try:
        while (left := int(client.zcard("packetfs:ledger:open"))) > 0:
            if left < open_jobs and first is None:
                first = time.monotonic(), left, _cpu_s(workers)
            if time.monotonic() > give_up or any(worker.poll() is not None for worker in workers):
                raise SystemExit(f"{place}, {pool}: {left} jobs were not done")
            time.sleep(0.01)
        if first is None:
            raise SystemExit("too few jobs to measure")
        begun, left, cpu_s = first
        return left / (time.monotonic() - begun), (_cpu_s(workers) - cpu_s) / left
    finally:
        for worker in workers:
            for pid in (*descendants(worker.pid), worker.pid):  # nothing is left for it to end
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            worker.wait(5)


def _cpu_s(workers: list[subprocess.Popen[bytes]]) -> float:
    """Return the CPU time of processes and their children that live."""
    ticks = 0
    for pid in [worker.pid for worker in workers]:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (str(pid), *children):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        place, length, pool, count, jobs = sys.argv[2:]
        print(json.dumps(_measure(place, int(length), pool, int(count), int(jobs))))
    else:
        main()
