"""CRC-32C of a whole object over HTTP: the executor and the command against what one would write by hand.

    python benchmarks/http_range.py                       # 256 MiB from nginx on loopback; about two minutes
    python benchmarks/http_range.py --mib 64 --rounds 5 --json out.json

The server is nginx where there is one, else ``packetfs_compute.embedded.files.serve_file``. Each client is a process of
its own, in interleaved rounds, so that its CPU time and peak memory are those that the kernel counted (wait4). A client
in Python also times its call alone, after the imports and a request for one byte: what it costs in a process that is
there already, such as a worker. The *limit* reads the socket into one buffer and throws the bytes away.

All clients read blocks of 256 KiB, as the executor does. Their values must agree.
"""

import importlib.util
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _harness import Timing, facts, machine, markdown, options, ratio, write_json

ROOT = Path(__file__).resolve().parent.parent
EXECUTE = "executor.execute"
STDIN = """
import sys, crc32c
value, read = 0, sys.stdin.buffer.raw.read
while block := read(1 << 18):
    value = crc32c.crc32c(block, value)
print(value)
"""
NGINX = """
daemon off; {user} worker_processes 1;
pid {root}/nginx.pid; error_log {root}/error.log; events {{ worker_connections 64; }}
http {{
    access_log off; sendfile on;
    client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp;
    fastcgi_temp_path {root}/tmp; uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
    server {{ listen 127.0.0.1:{port}; root {root}/www; }}
}}
"""
SERVE_FILE = """
import pathlib, sys
from packetfs_compute.embedded.files import serve_file
with serve_file(pathlib.Path(sys.argv[1])) as url:
    print(url, flush=True), sys.stdin.read()
"""


# Small scripts, not functions here, so that a process imports what its client needs and nothing else.
HEAD = """
import json, sys, time
url, block = sys.argv[1], 1 << 18
def asked(length):
    return {"Range": f"bytes=0-{length - 1}"} if length else {}
"""
TAIL = """
call(1)
wall_s, cpu_s = time.perf_counter(), time.process_time()
value = call(None)
print(json.dumps([value, time.perf_counter() - wall_s, time.process_time() - cpu_s]))
"""
CLIENTS = {
    EXECUTE: """
from packetfs_compute.executor import execute
def call(length):
    program = {"data_url": url, "op": "crc32c"} | ({"length": length} if length else {})
    response = execute({"jobId": "bench", "program": program, "timeout": 600_000})
    return response["results"][0]["value"] if response["success"] else sys.exit(str(response))
""",
    "requests + crc32c": """
import crc32c, requests
session = requests.Session()
def call(length, value=0):
    with session.get(url, headers=asked(length), stream=True) as response:
        response.raise_for_status()
        for part in response.iter_content(block):
            value = crc32c.crc32c(part, value)
    return value
""",
    "urllib3 + crc32c": """
import crc32c, urllib3
pool = urllib3.PoolManager()
def call(length, value=0):
    response = pool.request("GET", url, headers=asked(length), preload_content=False)
    for part in response.stream(block):
        value = crc32c.crc32c(part, value)
    response.release_conn()
    return value
""",
    "urllib.request + crc32c": """
import crc32c
from urllib.request import Request, urlopen
def call(length, value=0):
    with urlopen(Request(url, headers=asked(length))) as response:
        while part := response.read(block):
            value = crc32c.crc32c(part, value)
    return value
""",
    "limit: recv_into, discarded": r"""
import socket
from urllib.parse import urlsplit
where, buffer = urlsplit(url), bytearray(block)
def call(length):
    head = "".join(f"{name}: {text}\r\n" for name, text in asked(length).items())
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.sendall(f"GET {where.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode())
        while sock.recv_into(buffer):
            pass
""",
}
NEEDS = {name: [m for m in ("requests", "urllib3", "crc32c") if m in name.split(" + ")] for name in CLIENTS}


@dataclass(frozen=True)
class Run:
    """One process, start to exit; ``call`` is its own account of the call alone, wall and CPU seconds."""

    value: int | None
    wall_s: float
    cpu_s: float
    rss_mib: float
    call: tuple[float, float] | None


def run(command: list[str]) -> Run:
    environment = os.environ | {"PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8", "no_proxy": "127.0.0.1"}
    with tempfile.TemporaryFile() as errors:
        started_s = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors) as process:
            out = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - started_s
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{shlex.join(command)[:200]}\n{errors.read().decode()}")
    printed = json.loads(out)
    value, *call = printed if isinstance(printed, list) else [printed]
    return Run(value, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, tuple(call) or None)


def commands(url: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return each client's command, and the names of what is not installed."""
    python = sys.executable
    missing = sorted({m for needed in NEEDS.values() for m in needed if importlib.util.find_spec(m) is None})
    usable = [name for name in CLIENTS if not set(NEEDS[name]) & set(missing)]
    found = {name: [python, "-c", HEAD + CLIENTS[name] + TAIL, url] for name in usable}
    found["packetfs run --inline"] = [python, "-m", "packetfs_compute", "run", "crc32c", url, "--inline"]
    if shutil.which("curl") is None:
        missing.append("curl")
    elif "crc32c" not in missing:
        pipe = f"curl -sf {shlex.quote(url)} | {shlex.quote(python)} -c {shlex.quote(STDIN)}"
        found["curl | python -c crc32c"] = ["/bin/sh", "-c", pipe]
    return found, missing


@contextmanager
def served(path: Path) -> Iterator[tuple[str, str]]:
    """Serve the file in a process of its own; yield the server's name and the URL."""
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    root, name = path.parent.parent, "embedded.files.serve_file"
    command: list[str | Path] = [sys.executable, "-c", SERVE_FILE, path]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    if nginx:
        user = "user root;" if os.getuid() == 0 else ""
        (root / "tmp").mkdir()
        (root / "nginx.conf").write_text(NGINX.format(root=root, port=port, user=user))
        command = [nginx, "-p", root, "-e", root / "error.log", "-c", root / "nginx.conf"]
        name = subprocess.getoutput(f"{shlex.quote(nginx)} -v").rpartition(" ")[2]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield name, listening(port, path) if nginx else server.stdout.readline().strip()
        finally:
            server.terminate()


def listening(port: int, path: Path) -> str:
    for _ in range(100):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}/{path.name}"
        time.sleep(0.05)
    raise SystemExit("nginx did not start")


def tables(runs: dict[str, list[Run]]) -> str:
    """Return two tables, the call alone and the whole process; over 1 in a ratio means that ours takes less.

    The ratios are of medians: with client, server and kernel on few cores, the scheduler decides between a fast and a
    slow transfer, and the best of N is its luck.
    """
    out = []
    for title, seconds in (
        ("The call alone, in a process that is there already", lambda r: r.call),
        ("The whole process, start to exit", lambda r: (r.wall_s, r.cpu_s)),
    ):
        measured = {name: [seconds(r) for r in taken] for name, taken in runs.items() if seconds(taken[0])}
        wall = {name: Timing.of([w for w, _ in taken]) for name, taken in measured.items()}
        cpu = {name: Timing.of([c for _, c in taken]) for name, taken in measured.items()}
        rows = []
        for name in measured:
            rss = min(r.rss_mib for r in runs[name])
            gains = (wall[name].median_s / wall[EXECUTE].median_s, cpu[name].median_s / cpu[EXECUTE].median_s)
            plain = (f"{t:.3f}" for t in (wall[name].median_s, wall[name].best_s, cpu[name].median_s, cpu[name].best_s))
            rows.append((name, *map(ratio, gains), *plain, f"{rss:.0f}"))
        heads = ("client", "wall / ours", "CPU / ours", "wall s", "best", "CPU s", "best", "peak RSS MiB")
        out.append(f"\n### {title}\n\n{markdown(heads, rows)}")
    return "\n".join(out)


def main() -> None:
    parser = options("CRC-32C of a whole object over HTTP.", rounds=25)
    parser.add_argument("--mib", type=int, default=256, help="the object's size (%(default)s)")
    chosen = parser.parse_args()
    count, rounds = (32 << 20, 3) if chosen.quick else (chosen.mib << 20, chosen.rounds)
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "www" / "object.bin"
        path.parent.mkdir()
        with path.open("wb") as file:
            for _ in range(count >> 20):
                file.write(os.urandom(1 << 20))
        with served(path) as (server, url):
            found, missing = commands(url)
            runs: dict[str, list[Run]] = {name: [] for name in found}
            for _ in range(rounds):
                for name in random.sample(list(found), len(found)):
                    runs[name].append(run(found[name]))
    values = {r.value for taken in runs.values() for r in taken} - {None}
    if len(values) != 1:
        raise SystemExit(f"the clients disagree: {[(name, taken[0].value) for name, taken in runs.items()]}")
    described = machine() | {"server": server, "object": f"{count >> 20} MiB", "missing": missing, "rounds": rounds}
    print(facts(described))
    print(tables(runs))
    if chosen.json:
        write_json(chosen.json, {"machine": described, "runs": {n: [vars(r) for r in t] for n, t in runs.items()}})


if __name__ == "__main__":
    main()
