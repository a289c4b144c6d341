"""A whole object of 1 GiB on nginx: scanned by this system, and by what people would use instead.

Each candidate is a command of its own, run in turn in rounds. Measured are wall time; the CPU time of all its processes, in
user mode and in the kernel, whose part is mostly the copy out of the socket; nginx's, whose is the copy into it; and the
resident memory of all its processes, at most and how much that had grown. The system is up beforehand, as it is where it is
used; so is a Python with its imports done for none.

    packetfs scan       to the system that is up; with `--inline`, in its own process
    curl | crc32c       curl writes to a pipe, PyPI's crc32c reads it
    requests + crc32c   one connection, 1 MiB blocks
    rclone hashsum      its MD5, since it knows no crc32c; `--download`, by its http backend, which needs a directory to list
    lithops             map_reduce on localhost, 64 MiB a function, combined by this package's crc32c_combine

What does not end within two minutes is ended, and left out. lithops is looked for in an environment of its own,
build/peers/system, which `benchmarks/system.py` makes.

    python benchmarks/scan.py
"""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from _harness import facts, machine, markdown, options, ratio, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.nginx import Nginx, nginx_binary
from support.processes import descendants, memory_mib
from support.system import PACKETFS, RunningSystem, end_system, start_system

from packetfs_compute import kernels

MIB = 1 << 20
FIVE = ["counteq:10", "crc32c", "fnv64", "xor:255", "add:1"]
_TICK = os.sysconf("SC_CLK_TCK")
_GIVE_UP_S = 120.0
_PEERS = Path(__file__).resolve().parents[1] / "build/peers/system/bin/python"
_COLUMNS = [
    "candidate", "time to ours", "s", "best", "GB/s", "CPU s", "in the kernel", "nginx", "MB", "grown",
]  # fmt: skip

_REQUESTS = """
import sys, crc32c, requests
value = 0
with requests.get(sys.argv[1], stream=True) as answer:
    for block in answer.iter_content(1 << 20):
        value = crc32c.crc32c(block, value)
print(value)
"""
_STDIN = """
import sys, crc32c
value = 0
while block := sys.stdin.buffer.read(1 << 20):
    value = crc32c.crc32c(block, value)
print(value)
"""
_LITHOPS = """
import sys
import lithops
URL, SIZE, WINDOW = sys.argv[1], int(sys.argv[2]), 64 << 20
def one(start):
    import crc32c, requests
    stop, value = min(start + WINDOW, SIZE), 0
    with requests.get(URL, headers={"Range": f"bytes={start}-{stop - 1}"}, stream=True) as answer:
        for block in answer.iter_content(1 << 20):
            value = crc32c.crc32c(block, value)
    return value, stop - start
def together(results):
    from packetfs_compute.kernels import crc32c_combine
    value = 0
    for part, length in results:
        value = crc32c_combine(value, part, length)
    return value
executor = lithops.LocalhostExecutor(log_level="ERROR")
executor.map_reduce(one, list(range(0, SIZE, WINDOW)), together)
print(executor.get_result())
"""


@dataclass
class Run:
    """One candidate, once: seconds of wall and CPU time, and MB of memory at most."""

    wall_s: float
    user_s: float
    system_s: float
    nginx_s: float
    peak_mb: float
    grown_mb: float


@dataclass
class Candidate:
    """A command, which prints the object's crc32c unless ``value`` says otherwise, and the processes that serve it."""

    argv: list[str]
    environ: dict[str, str] | None = None
    servers: Callable[[], list[int]] = list
    checks: bool = True
    shell: str | None = None


def main() -> None:
    given = options(__doc__.partition("\n")[0], rounds=11).parse_args()
    size, rounds = (64 * MIB, 1) if given.quick else (1024 * MIB, given.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packetfs-bench-")))
        nginx, value = _serve(stack, folder, size)
        candidates, left_out = _candidates(_system(stack, folder), nginx.url("object"), size)
        runs = _measure(candidates, value, rounds, lambda: descendants(nginx.pid), left_out)
    print(facts(machine()))
    print(f"\n{size // MIB} MiB over loopback; medians of {rounds} rounds\n")
    base = median(run.wall_s for run in runs["packetfs scan, crc32c"])
    rows = [_row(name, those, base, size) for name, those in runs.items()]
    print(markdown(_COLUMNS, rows))
    for name, why in left_out.items():
        print(f"\nleft out: {name}, {why}")
    if given.json:
        raw = {name: [vars(one) for one in those] for name, those in runs.items()}
        write_json(given.json, {"machine": machine(), "runs": raw})


def _serve(stack: ExitStack, folder: Path, size: int) -> tuple[Nginx, int]:
    """Serve an object; return its server and its crc32c."""
    binary = nginx_binary()
    if binary is None:
        raise SystemExit("nginx is needed: apt-get install nginx-light")
    (folder / "nginx").mkdir()
    nginx = Nginx(folder / "nginx", binary)
    stack.callback(nginx.close)
    value, rng = 0, random.Random(3)
    with (nginx.www / "object").open("wb") as file:
        for _ in range(size // (16 * MIB)):
            block = rng.randbytes(16 * MIB)
            value = kernels.crc32c(block, value)
            file.write(block)
    return nginx, value


def _system(stack: ExitStack, folder: Path) -> RunningSystem:
    (folder / "system").mkdir()
    system = start_system(folder / "system", scans=True)
    stack.callback(end_system, system)
    return system


def _candidates(system: RunningSystem, url: str, size: int) -> tuple[dict[str, Candidate], dict[str, str]]:
    def of_system() -> list[int]:
        return [system.process.pid, *descendants(system.process.pid)]

    def scan(*ops: str, inline: bool = False) -> Candidate:
        wanted = [part for op in ops for part in ("--op", op)]
        argv = [*PACKETFS, "scan", url, *wanted, "--json", *(["--inline"] if inline else ["--policy", "cache=false"])]
        return Candidate(argv, system.environ, list if inline else of_system)

    python = sys.executable
    found = {
        "packetfs scan, crc32c": scan("crc32c"),
        "packetfs scan, all five": scan(*FIVE),
        "packetfs scan --inline, crc32c": scan("crc32c", inline=True),
        "packetfs scan --inline, all five": scan(*FIVE, inline=True),
        "curl | crc32c": Candidate([], shell=f"curl -s {url} | {python} -c '{_STDIN}'"),
    }
    left_out: dict[str, str] = {}
    if importlib.util.find_spec("requests"):
        found["requests + crc32c"] = Candidate([python, "-c", _REQUESTS, url])
    else:
        left_out["requests + crc32c"] = "requests is not installed"
    if shutil.which("rclone"):
        base, _, name = url.rpartition("/")
        found["rclone hashsum md5"] = Candidate(
            ["rclone", "-q", "hashsum", "MD5", "--download", "--http-url", f"{base}/listed/", f":http:{name}"],
            checks=False,
        )
    else:
        left_out["rclone hashsum"] = "rclone is not installed: apt-get install rclone"
    if _PEERS.exists():
        environ = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "PATH": f"{_PEERS.parent}:{os.environ['PATH']}",  # its runner is the first Python that is found
        }
        found["lithops map_reduce"] = Candidate([str(_PEERS), "-c", _LITHOPS, url, str(size)], environ)
    else:
        left_out["lithops map_reduce"] = "there is no build/peers/system: benchmarks/system.py makes it"
    return found, left_out


def _measure(
    candidates: dict[str, Candidate],
    value: int,
    rounds: int,
    nginx: Callable[[], list[int]],
    left_out: dict[str, str],
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in candidates}
    order, shuffle = list(candidates), random.Random(0).shuffle
    for at in range(rounds + 1):
        for name in list(order):
            run = _run(name, candidates[name], value, nginx())
            if run is None:
                order.remove(name)
                del runs[name]
                left_out[name] = f"it did not end within {_GIVE_UP_S:.0f} s"
            elif at:  # the first is to warm up: files in the page cache, code compiled
                runs[name].append(run)
        shuffle(order)
    return runs


def _run(name: str, one: Candidate, value: int, nginx: list[int]) -> Run | None:
    servers = one.servers()
    before_mb, before, nginx_before = _memory_mb(servers), _cpu_s(servers), _cpu_s(nginx)
    own_before = os.times()
    peak_mb, over = [0.0], threading.Event()
    started_s = time.perf_counter()
    process = subprocess.Popen(
        one.shell or one.argv, shell=one.shell is not None, env=one.environ, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip

    def watch() -> None:
        while not over.wait(0.05):
            peak_mb[0] = max(peak_mb[0], _memory_mb([*servers, process.pid, *descendants(process.pid)]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = process.communicate(timeout=_GIVE_UP_S)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    finally:
        wall_s = time.perf_counter() - started_s
        over.set()
        watcher.join()
    own = os.times()
    if process.returncode != 0 or (one.checks and str(value) not in said):
        raise SystemExit(f"{name} did not say {value}: {said}")
    user_s, system_s = (now - then for now, then in zip(_cpu_s(servers), before, strict=True))
    return Run(
        wall_s,
        user_s + own.children_user - own_before.children_user,
        system_s + own.children_system - own_before.children_system,
        sum(_cpu_s(nginx)) - sum(nginx_before),
        peak_mb[0],
        peak_mb[0] - before_mb,
    )


def _memory_mb(pids: list[int]) -> float:
    return memory_mib(pids) * MIB / 1e6


def _cpu_s(pids: list[int]) -> tuple[float, float]:
    """Return the seconds that processes have had of CPUs, in user mode and in the kernel."""
    user = system = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            continue
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / _TICK, system / _TICK


def _row(name: str, runs: list[Run], base: float, size: int) -> list[str]:
    wall_s = median(run.wall_s for run in runs)
    return [
        name, ratio(wall_s / base), f"{wall_s:.2f}", f"{min(run.wall_s for run in runs):.2f}", f"{size / wall_s / 1e9:.2f}",
        f"{median(run.user_s + run.system_s for run in runs):.2f}", f"{median(run.system_s for run in runs):.2f}",
        f"{median(run.nginx_s for run in runs):.2f}",
        f"{max(run.peak_mb for run in runs):.0f}", f"{max(run.grown_mb for run in runs):.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
