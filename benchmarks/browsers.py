"""A gateway with a thousand browsers: what they cost it in memory, and what a program waits for.

The browsers are clients that speak the protocol, from a thousand networks of this machine, in a process of their own; they
compute from memory, at once, so that what is measured is the gateway. Programs are posted as a dispatcher posts them, to few
browsers, to many that are new (each answer is checked by a local worker, which reads nginx), and to many of good repute (a
tenth is checked, the rest is shown to a second browser), in turn.

    python benchmarks/browsers.py
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from _harness import facts, machine, markdown, options, ratio, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import redis
from support.endpoint import Signed, SigningClient
from support.gateway import Client
from support.nginx import Nginx, nginx_binary
from support.processes import wait_until
from support.system import RunningSystem, end_system, start_system
from support.volunteers import Volunteer, address_of

from packetfs_compute import kernels
from packetfs_compute.wire import Measured, parse_request, success

DATA = random.Random(5).randbytes(1 << 20)
ETAG = '"bench"'
LENGTH = 1000
KEY_ID, SECRET = "k1", "0123456789abcdef"
AT_ONCE = 16
VETERAN = {"checked": 20_000, "agreed": 0}


@dataclass
class Run:
    """Programs that were posted ``AT_ONCE`` at a time."""

    browsers: int
    repute: str
    per_s: float
    seconds: list[float]
    gateway_cores: float
    checked: int


def main() -> None:
    parser = options(__doc__.partition("\n")[0], rounds=3)
    parser.add_argument("--browsers", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--crowd", nargs=2, metavar=("URL", "COUNT"), help="be the browsers, until stdin ends")
    given = parser.parse_args()
    if given.crowd:
        asyncio.run(_crowd(given.crowd[0], int(given.crowd[1])))
        return
    many, programs, rounds = (100, 200, 1) if given.quick else (given.browsers, 1000, given.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packetfs-bench-")))
        system, source = _start(stack, folder)
        memory, runs = _measure(system, source, many, programs, rounds)
    print(facts(machine()))
    told = f"{memory['joined']} browsers came in within {memory['join_s']:.1f} s."
    print(f"\n{told} The gateway took {memory['before_mb']:.0f} MB")
    print(f"before them and {memory['idle_mb']:.0f} MB with them: {memory['kb_each']:.0f} KB each; after all programs")
    print(f"{memory['after_mb']:.0f} MB. Idle, they take {memory['idle_cores']:.1%} of a core.\n")
    print(
        markdown(
            ["browsers", "p50 to few", "p50 ms", "p95 ms", "p99 ms", "programs/s", "gateway cores", "checked"],
            _rows(runs),
        )
    )
    if given.json:
        write_json(given.json, {"machine": machine(), "memory": memory, "runs": [vars(run) for run in runs]})


def _start(stack: ExitStack, folder: Path) -> tuple[RunningSystem, str]:
    binary = nginx_binary()
    if binary is None:
        raise SystemExit("nginx is needed: apt-get install nginx-light")
    for name in ("nginx", "system"):
        (folder / name).mkdir()
    nginx = Nginx(folder / "nginx", binary)
    stack.callback(nginx.close)
    (nginx.www / "lent").write_bytes(DATA)
    system = start_system(
        folder / "system",
        gateway=True,
        PACKETFS_GATEWAY_REQUESTS_PER_MINUTE="1000000",
        PACKETFS_SIGNING_KEYS=f"{KEY_ID}:{SECRET}",
    )
    stack.callback(end_system, system)
    return system, nginx.url("lent")


def _measure(
    system: RunningSystem, source: str, many: int, programs: int, rounds: int
) -> tuple[dict[str, float], list[Run]]:
    url, pid = str(system.ready["gateway_url"]), int(system.ready["pids"]["gateway"])  # type: ignore[index]
    few, runs = 16, []
    with Crowd(url, few):
        _post(url, source, pid, programs // 4, few, "new")  # warm
    memory = {"before_mb": _mb(pid)}
    for at in range(rounds):
        with Crowd(url, few):
            _repute(system, few, None)
            runs.append(_post(url, source, pid, programs, few, "new"))
        with Crowd(url, many) as crowd:
            if at == 0:
                memory |= _idle(pid, many, crowd.join_s, memory["before_mb"])
            _repute(system, many, None)
            runs.append(_post(url, source, pid, programs, many, "new"))
        _repute(system, many, VETERAN)
        with Crowd(url, many):
            runs.append(_post(url, source, pid, programs, many, "good"))
    return memory | {"after_mb": _mb(pid)}, runs


def _idle(pid: int, many: int, join_s: float, before_mb: float) -> dict[str, float]:
    time.sleep(1)
    idle_mb, ticks, started_s = _mb(pid), _ticks(pid), time.perf_counter()
    time.sleep(25)  # a ping of each in it
    cores = (_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK") / (time.perf_counter() - started_s)
    each = (idle_mb - before_mb) * 1000 / many
    return {"joined": many, "join_s": join_s, "idle_mb": idle_mb, "kb_each": each, "idle_cores": cores}


def _post(url: str, source: str, pid: int, programs: int, browsers: int, repute: str) -> Run:
    """Post programs as a dispatcher does, and check every value."""
    sender = SigningClient(Signed(url, KEY_ID, SECRET))
    before = _checked(url)

    def one(at: int) -> float:
        offset = at * 997 % (len(DATA) - LENGTH)
        program = {"data_url": source, "offset": offset, "length": LENGTH, "ops": [{"op": "crc32c"}]}
        started_s = time.perf_counter()
        told = sender.post({"jobId": f"b{at}", "program": program, "timeout": 20_000}, "/v1/browsers/compute").json()
        seconds = time.perf_counter() - started_s
        if not told["success"] or told["results"][0]["value"] != kernels.crc32c(DATA[offset : offset + LENGTH]):
            raise SystemExit(f"a wrong answer: {told}")
        return seconds

    ticks, started_s = _ticks(pid), time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        seconds = list(threads.map(one, range(programs)))
    took_s = time.perf_counter() - started_s
    cores = (_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK") / took_s
    return Run(browsers, repute, programs / took_s, seconds, cores, _checked(url) - before)


def _checked(url: str) -> int:
    time.sleep(1.1)  # the overview is a second old at most
    return int(Client(url).get("/v1/overview").json["browsers"]["checked"])


def _rows(runs: list[Run]) -> list[list[str]]:
    kinds = dict.fromkeys((run.browsers, run.repute) for run in runs)
    found = {kind: [run for run in runs if (run.browsers, run.repute) == kind] for kind in kinds}
    base = median(median(run.seconds) for run in next(iter(found.values())))
    rows = []
    for (browsers, repute), those in found.items():
        p50 = median(median(run.seconds) for run in those)
        p95, p99 = (median(quantiles(run.seconds, n=100)[at - 1] for run in those) for at in (95, 99))
        checked = sum(run.checked for run in those) / sum(len(run.seconds) for run in those)
        rows.append([
            f"{browsers}, {'of good repute' if repute == 'good' else 'new'}", ratio(p50 / base),
            *(f"{1000 * value:.1f}" for value in (p50, p95, p99)),
            f"{median(run.per_s for run in those):.0f}",
            f"{median(run.gateway_cores for run in those):.2f}", f"{checked:.0%}",
        ])  # fmt: skip
    return rows


def _repute(system: RunningSystem, count: int, known: dict[str, int] | None) -> None:
    """Give the browsers' networks a reputation, or none. Those that are connected are asked about at each answer."""
    with redis.Redis.from_url(system.settings.state_url) as store, store.pipeline() as pipe:
        for at in range(count):
            network = address_of(at).rpartition(".")[0] + ".0-24"
            key = f"packetfs:volunteers:account:network:{network}"
            pipe.delete(key)
            if known is not None:
                pipe.hset(key, mapping=known)
        pipe.execute()


def _mb(pid: int) -> float:
    told = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmRSS")) / 1000


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Crowd:
    """Browsers in a process of their own, from when all are welcome until the block ends."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._argv = [sys.executable, __file__, "--crowd", url, str(count)]
        self.join_s = 0.0

    def __enter__(self) -> "Crowd":
        started_s = time.perf_counter()
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is None or not self._process.stdout.readline():
            raise SystemExit("the browsers did not come in")
        self.join_s = time.perf_counter() - started_s
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        wait_until(lambda: not Client(self._url).get("/v1/overview").json["browsers"]["connected"], "all have left", 30)


async def _crowd(url: str, count: int) -> None:
    """Be ``count`` browsers, and print a line when all are welcome."""
    joined = 0
    over = asyncio.get_running_loop().create_future()

    def welcome() -> None:
        nonlocal joined
        joined += 1
        if joined == count:
            print("joined", flush=True)

    few = asyncio.Semaphore(32)

    async def one(at: int) -> None:
        async with few:  # tickets are asked for in threads, of which there are few
            volunteer = Volunteer(url, address_of(at), behave=_at_once, slots=4)
            ticket = await asyncio.to_thread(volunteer.ticket)
        volunteer.ticket = lambda: ticket  # type: ignore[method-assign]
        await volunteer.live(welcome)

    tasks = [asyncio.create_task(one(at)) for at in range(count)]
    threading.Thread(
        target=lambda: (sys.stdin.read(), over.get_loop().call_soon_threadsafe(over.set_result, None))
    ).start()
    await over
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _at_once(_: Volunteer, request: dict[str, Any]) -> dict[str, Any]:
    asked = parse_request(json.loads(json.dumps(request)))
    start, length = asked.program.offset, asked.program.length or 0
    values = [kernels.crc32c(DATA[start : start + length])]
    return success(asked, values, Measured(length, len(DATA), None, 0.0, 0.0, "browser"))


if __name__ == "__main__":
    main()
