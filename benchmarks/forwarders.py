"""A forwarding queue's consumer: threads against gevent, in jobs a second and in memory, over a server that is near or far.

The server speaks the contract and answers after a fixed time, in a process of its own: what is measured is how many
requests a consumer keeps under way, not how fast somebody computes. Each consumer is a real ``celery worker`` on a real
Valkey. Its queue is filled first; the rate is that between the first result and the last.

    python benchmarks/forwarders.py                # needs gevent besides: pip install gevent
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from _harness import facts, machine, markdown, options, ratio, write_json

from packetfs_compute.celery import app, celery_config
from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.names import queue_of
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings, to_environment
from tasks import crc32c

CONCURRENCY = 64
_PATIENCE_S = 120.0


def main() -> None:
    given = options(__doc__.partition("\n")[0], rounds=3).parse_args()
    jobs, rounds = (200, 1) if given.quick else (2000, given.rounds)
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for delay_s in (0.0, 0.05):
            for pool in ("threads", "gevent"):
                found.setdefault((pool, delay_s), []).append(_apart(pool, delay_s, jobs))
    print(facts(machine()))
    print()
    rows = []
    for (pool, delay_s), runs in found.items():
        rate = max(run[0] for run in runs)
        base = max(run[0] for run in found["threads", delay_s])
        rows.append(
            [
                f"{pool}, {delay_s * 1000:.0f} ms away",
                ratio(rate / base),
                f"{rate:.0f}",
                f"{min(run[1] for run in runs):.0f}",
            ]
        )
    print(markdown([f"consumer, {CONCURRENCY} at once", "to threads", "jobs/s", "MiB"], rows))
    if given.json:
        write_json(given.json, {"machine": machine(), "runs": {f"{key}": runs for key, runs in found.items()}})


def _apart(pool: str, delay_s: float, jobs: int) -> tuple[float, float]:
    """Measure in a process of its own: an application has one system for its life."""
    argv = [sys.executable, __file__, "--measure", pool, str(delay_s), str(jobs)]
    rate, memory = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=600).stdout)
    return rate, memory


def _measure(pool: str, delay_s: float, jobs: int) -> tuple[float, float]:
    """Return jobs a second and the worker's peak memory in MiB."""
    with tempfile.TemporaryDirectory(prefix="packetfs-bench-") as folder, _server(delay_s) as port:
        far = SubstrateSpec("far", "fly", f"http://127.0.0.1:{port}", slots=CONCURRENCY)
        settings = Settings(data_dir=Path(folder), substrates=(far,))
        server = start_redis_server(settings, persistent=False)
        try:
            app.conf.update(celery_config(settings))
            for n in range(jobs):
                crc32c.apply_async(("https://host/object", 0, 1024), task_id=f"j{n}", queue=queue_of("far")).forget()
            return _drain(pool, settings, jobs)
        finally:
            server.stop(*STOP, (signal.SIGKILL, 1.0))


def _drain(pool: str, settings: Settings, jobs: int) -> tuple[float, float]:
    argv = [sys.executable, "-m", "celery", "-A", "packetfs_compute", "worker", "-Q", queue_of("far"), "-P", pool,
            "-c", str(CONCURRENCY), "-l", "ERROR", "--without-gossip", "--without-mingle"]  # fmt: skip
    environ = {**os.environ, **to_environment(settings)}
    worker = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = redis.Redis.from_url(settings.state_url)
    first_s, give_up = None, time.monotonic() + _PATIENCE_S
    try:
        while (done := sum(1 for _ in client.scan_iter("celery-task-meta-*", count=5000))) < jobs:
            if done and first_s is None:
                first_s, early = time.monotonic(), done
            if time.monotonic() > give_up or worker.poll() is not None:
                raise SystemExit(f"{pool}: {done} of {jobs} jobs were done")
            time.sleep(0.02)
        if first_s is None:
            raise SystemExit("too few jobs to measure")
        seconds = time.monotonic() - first_s
        status = Path(f"/proc/{worker.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        return (jobs - early) / seconds, int(status) / 1024
    finally:
        worker.terminate()
        worker.wait(30)


@contextmanager
def _server(delay_s: float) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(delay_s)], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline() if process.stdout else 0)
    finally:
        process.terminate()
        process.wait(10)


async def _serve(delay_s: float) -> None:
    """Answer every request with a valid result, ``delay_s`` later."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(
                    next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))[15:]
                )
                job = json.loads(await reader.readexactly(length))
                await asyncio.sleep(delay_s)
                body = json.dumps({
                    "success": True, "jobId": job["jobId"], "results": [{"op": "crc32c", "value": 1}],
                    "bytesProcessed": 1024, "objectSize": 4096, "etag": None, "executionTimeMs": 1.0,
                    "fetchTimeMs": 1.0, "region": "bench", "memoryUsedMb": 1, "cache": None,
                }).encode()  # fmt: skip
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(float(sys.argv[2])))
    elif sys.argv[1:2] == ["--measure"]:
        print(json.dumps(_measure(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
