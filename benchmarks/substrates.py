"""Jobs a second and MB a second of every place on its vendor's runtime, over loopback, with what bounds each.

    python benchmarks/substrates.py                       # about four minutes
    python benchmarks/substrates.py --quick

The places are those of the tests: workerd, awslambdaric behind an Invoke service, uvicorn, edge-runtime, and the local
executor in this process. The source is nginx. Small jobs are 4 KiB ranges with one operation, from eight threads at once and
from one; large ones are one range with `crc32c` alone and with all five operations. Rounds are interleaved.

*What bounds it* is read off while it runs: how much of a core the place's processes, this process (the dispatcher's side;
for Lambda the Invoke service too, for Cloudflare its cache) and nginx used.
"""

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from _harness import facts, machine, markdown, options, ratio, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.awslambda import LambdaServer
from support.fly import FlyServer
from support.nginx import Nginx, nginx_binary
from support.processes import descendants
from support.reading import OPEN
from support.vercel import VercelServer
from support.workerd import WorkerdServer

from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import Substrate, load_substrate
from packetfs_compute.substrates.local import LocalSubstrate

SMALL = 4096
THREADS = 8
OBJECT = 64 << 20
CRC = [{"op": "crc32c"}]
ALL = [{"op": "counteq", "imm": 10}, *CRC, {"op": "fnv64"}, {"op": "xor", "imm": 255}, {"op": "add", "imm": 1}]
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Place:
    """A substrate, and the processes that compute for it."""

    substrate: Substrate
    pids: Callable[[], list[int]]


@dataclass
class Run:
    """One measurement: how many a second, and the cores that each side used meanwhile."""

    rate: float
    seconds: float
    cores: dict[str, float]


def main() -> None:
    given = options(__doc__.partition("\n")[0], rounds=5).parse_args()
    jobs, large, rounds = (200, 32 << 20, 1) if given.quick else (1500, 1 << 30, given.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packetfs-bench-")))
        nginx, places, urls = _start(stack, folder, large)
        measure: dict[str, Callable[[Place], float]] = {
            "jobs/s, 8 at once": lambda place: _small(place, urls["small"], jobs, THREADS),
            "jobs/s, one at a time": lambda place: _small(place, urls["small"], jobs // 4, 1),
            "MB/s, crc32c": lambda place: _large(place, urls["large"], large, CRC),
            "MB/s, five operations": lambda place: _large(place, urls["large"], large // 2, ALL),
        }
        found = _measure(places, nginx, measure, rounds)
    print(facts(machine()))
    for what in measure:
        print(f"\n{what}\n")
        base = median(run.rate for run in found[what, "local"])
        rows = [_row(name, found[what, name], base) for name in places]
        print(markdown(["place", "to local", what.partition(",")[0], "cores: place", "ours", "nginx"], rows))
    if given.json:
        raw = {f"{what}; {name}": [vars(run) for run in runs] for (what, name), runs in found.items()}
        write_json(given.json, {"machine": machine(), "runs": raw})


def _start(stack: ExitStack, folder: Path, large: int) -> tuple[int, dict[str, Place], dict[str, str]]:
    """Start nginx and every place; return nginx's process, the places, and the URLs of the sources."""
    binary = nginx_binary()
    if binary is None:
        raise SystemExit("nginx is needed: apt-get install nginx-light")
    served = folder / "nginx"
    served.mkdir()
    nginx = Nginx(served, binary)
    stack.callback(nginx.close)
    (nginx.www / "small").write_bytes(random.Random(1).randbytes(OBJECT))
    with (nginx.www / "large").open("wb") as file:
        block = random.Random(2).randbytes(OBJECT)
        for _ in range(-(-large // OBJECT)):
            file.write(block)
    function = stack.enter_context(LambdaServer(folder, environments=THREADS))
    os.environ.update(function.environ)
    servers: dict[str, Any] = {
        "cloudflare": stack.enter_context(WorkerdServer(folder)),
        "lambda": function,
        "fly": stack.enter_context(FlyServer(folder)),
        "vercel": stack.enter_context(VercelServer(folder)),
    }
    places = {"local": Place(LocalSubstrate(SubstrateSpec("local", "local"), OPEN), list)}
    for name, server in servers.items():
        settings: Settings = server.settings(name)
        places[name] = Place(load_substrate(name, settings), _pids_of(server))
    return nginx.pid, places, {name: nginx.url(name) for name in ("small", "large")}


def _pids_of(server: Any) -> Callable[[], list[int]]:
    pids: Callable[[], list[int]] | None = getattr(server, "pids", None)
    return pids or (lambda: [server.pid, *descendants(server.pid)])


def _measure(
    places: Mapping[str, Place], nginx: int, measure: Mapping[str, Callable[[Place], float]], rounds: int
) -> dict[tuple[str, str], list[Run]]:
    found: dict[tuple[str, str], list[Run]] = {(what, name): [] for what in measure for name in places}
    order, shuffle = list(found), random.Random(0).shuffle
    for place in places.values():
        for run in measure.values():
            run(Place(place.substrate, place.pids))  # warm: environments started, code compiled
    for _ in range(rounds):
        shuffle(order)
        for what, name in order:
            found[what, name].append(_timed(places[name], nginx, measure[what]))
    return found


def _timed(place: Place, nginx: int, run: Callable[[Place], float]) -> Run:
    sides = {"place": place.pids(), "ours": [os.getpid()], "nginx": [nginx, *descendants(nginx)]}
    before, began = {side: _cpu_s(pids) for side, pids in sides.items()}, time.perf_counter()
    count = run(place)
    took_s = time.perf_counter() - began
    return Run(count / took_s, took_s, {side: (_cpu_s(pids) - before[side]) / took_s for side, pids in sides.items()})


def _cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def _small(place: Place, url: str, jobs: int, threads: int) -> float:
    """Run ``jobs`` small jobs and return their number."""
    local = threading.local()

    def one(at: int) -> None:
        rng = local.__dict__.setdefault("rng", random.Random(at))
        program = {"data_url": url, "offset": rng.randrange(OBJECT - SMALL), "length": SMALL, "ops": CRC}
        _right(place.substrate.invoke({"program": program, "timeout": 30_000}))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(jobs)))
    return jobs


def _large(place: Place, url: str, length: int, ops: list[dict[str, Any]]) -> float:
    """Run one large job and return its MB."""
    program = {"data_url": url, "offset": 0, "length": length, "ops": ops}
    _right(place.substrate.invoke({"program": program, "timeout": 300_000}))
    return length / 1e6


def _right(answer: Mapping[str, Any]) -> None:
    if not answer["success"]:
        raise SystemExit(f"a job failed: {answer['error']}")


def _row(name: str, runs: list[Run], base: float) -> list[str]:
    rate = median(run.rate for run in runs)
    cores = [f"{median(run.cores[side] for run in runs):.2f}" for side in ("place", "ours", "nginx")]
    return [name, ratio(rate / base), f"{rate:,.0f}", *cores]


if __name__ == "__main__":
    main()
