"""The task systems of ``system.py``, each as its documentation sets it up, with two workers and results kept.

One file for all, read in an environment that has them. The variable ``PEER`` says which one a process is of: as a worker
(what a system's ``workers`` run imports this file) or, started as a script, as its driver, which measures what a line on
its standard input asks for and prints the seconds. Ours is driven here too, so that nobody's client is another one.
"""

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

__all__ = ["PATIENCE_S", "PEERS", "Peer"]

REDIS = os.environ.get("PEER_REDIS", "")
PEER = os.environ.get("PEER", "")
PATIENCE_S = 40.0
"""For one value; whoever asks the driver waits a little longer, so that a system's own word for its failure is heard."""

Call = tuple[str, int, int]
QUIET = {"version": 1}
"""The logging of arq's workers, who else write two lines for each job, as those of no other system do."""
worker: Any = None
"""The application by which a system's workers find their tasks."""


def noop(url: str, offset: int, length: int) -> int:
    del url, offset, length
    return 0


def read(url: str, offset: int, length: int) -> int:
    """Return the CRC-32C of a range, as a program without this project would."""
    import crc32c  # noqa: PLC0415  (only some processes need it)

    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return int(crc32c.crc32c(response.read()))


@dataclass(frozen=True)
class Client:
    """What a driver submits with: ``send`` returns when all are published, ``wait`` when all values are there."""

    send: Callable[[str, list[Call]], Any]
    wait: Callable[[Any], list[int]]


def ours(send: str) -> Client:
    from tasks import crc32c, submit_many  # noqa: PLC0415

    def delayed(name: str, calls: list[Call]) -> Any:
        del name
        return [crc32c.delay(*call) for call in calls]

    def many(name: str, calls: list[Call]) -> Any:
        del name
        return list(submit_many(crc32c, ({"data_url": url, "offset": at, "length": n} for url, at, n in calls)))

    return Client(
        {"delay": delayed, "submit_many": many}[send],
        lambda sent: [one.get(timeout=PATIENCE_S)["value"] for one in sent],
    )


def celery(*, acks_late: bool = True) -> Client:
    global worker  # noqa: PLW0603
    from celery import Celery  # noqa: PLC0415

    url = REDIS.replace("unix://", "redis+socket://")
    worker = Celery("peers", broker=url, backend=url)
    worker.conf.update(task_acks_late=acks_late, worker_prefetch_multiplier=1 if acks_late else 4)
    tasks = {one.__name__: worker.task(name=one.__name__)(one) for one in (noop, read)}
    return Client(
        lambda name, calls: [tasks[name].delay(*call) for call in calls],
        lambda sent: [one.get(timeout=PATIENCE_S) for one in sent],
    )


def dramatiq() -> Client:
    global worker  # noqa: PLW0603
    import dramatiq as library  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415
    from dramatiq.results import Results  # noqa: PLC0415
    from dramatiq.results.backends import RedisBackend  # noqa: PLC0415

    worker = RedisBroker(url=REDIS)
    worker.add_middleware(Results(backend=RedisBackend(url=REDIS)))
    library.set_broker(worker)
    tasks = {one.__name__: library.actor(store_results=True)(one) for one in (noop, read)}
    return Client(
        lambda name, calls: [tasks[name].send(*call) for call in calls],
        lambda sent: [one.get_result(block=True, timeout=int(PATIENCE_S * 1000)) for one in sent],
    )


def rq() -> Client:
    from redis import Redis  # noqa: PLC0415
    from rq import Queue  # noqa: PLC0415

    queue = Queue(connection=Redis.from_url(REDIS))

    def wait(sent: Any) -> list[int]:
        ended = [
            one.latest_result(timeout=int(PATIENCE_S)) for one in sent
        ]  # a blocking read of its stream, no polling
        return [one.return_value for one in ended]

    return Client(lambda name, calls: [queue.enqueue(f"_peers.{name}", *call) for call in calls], wait)


def taskiq() -> Client:
    global worker  # noqa: PLW0603
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend  # noqa: PLC0415

    # Its workers wait for a job without end, and die when redis-py, from 8 on, says after five seconds that none came.
    worker = ListQueueBroker(REDIS, socket_timeout=None).with_result_backend(
        RedisAsyncResultBackend(REDIS, result_ex_time=600)
    )
    tasks = {one.__name__: worker.task(task_name=one.__name__)(one) for one in (noop, read)}

    async def send(name: str, calls: list[Call]) -> Any:
        return [await tasks[name].kiq(*call) for call in calls]

    async def wait(sent: Any) -> list[int]:
        ended = [await one.wait_result(check_interval=0.001, timeout=PATIENCE_S) for one in sent]
        return [one.return_value for one in ended]

    loop = asyncio.new_event_loop()
    if __name__ == "__main__":
        loop.run_until_complete(worker.startup())
    return Client(
        lambda name, calls: loop.run_until_complete(send(name, calls)),
        lambda sent: loop.run_until_complete(wait(sent)),
    )


def arq() -> Client:
    global worker  # noqa: PLW0603
    from arq import create_pool  # noqa: PLC0415
    from arq.connections import RedisSettings  # noqa: PLC0415
    from arq.worker import func  # noqa: PLC0415

    where = RedisSettings(unix_socket_path=REDIS.removeprefix("unix://"))

    async def arq_noop(ctx: object, *call: Any) -> int:
        del ctx
        return noop(*call)

    async def arq_read(ctx: object, *call: Any) -> int:
        del ctx
        return await asyncio.to_thread(read, *call)

    functions = [func(one, name=one.__name__) for one in (arq_noop, arq_read)]
    worker = type("Worker", (), {"functions": functions, "redis_settings": where, "poll_delay": 0.01})
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(create_pool(where)) if __name__ == "__main__" else None

    async def send(name: str, calls: list[Call]) -> Any:
        return [await pool.enqueue_job(f"arq_{name}", *call) for call in calls]

    async def wait(sent: Any) -> list[int]:
        return [await one.result(timeout=PATIENCE_S, poll_delay=0.001) for one in sent]

    return Client(
        lambda name, calls: loop.run_until_complete(send(name, calls)),
        lambda sent: loop.run_until_complete(wait(sent)),
    )


def dask() -> Client:
    from distributed import Client as Scheduler  # noqa: PLC0415
    from distributed import LocalCluster  # noqa: PLC0415

    scheduler = Scheduler(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
    tasks = {"noop": noop, "read": read}
    return Client(
        lambda name, calls: [scheduler.submit(tasks[name], *call, pure=False) for call in calls],
        lambda sent: [one.result(timeout=PATIENCE_S) for one in sent],
    )


def lithops() -> Client:
    import lithops as library  # noqa: PLC0415

    # Version 1 has one process for each map, with a pool of workers; 2, its default, starts one for each call. It looks for
    # results every two seconds unless told.
    config = {
        "lithops": {
            "backend": "localhost", "storage": "localhost", "log_level": "ERROR", "telemetry": False,
            "monitoring_interval": 0.01, "data_cleaner": False,
        },
        "localhost": {"version": 1, "worker_processes": 2, "runtime": sys.executable},
    }  # fmt: skip
    executor = library.FunctionExecutor(config=config)
    tasks = {"noop": noop, "read": read}
    return Client(
        lambda name, calls: executor.map(tasks[name], calls),
        lambda sent: list(executor.get_result(sent, timeout=int(PATIENCE_S), show_progressbar=False)),
    )


@dataclass(frozen=True)
class Peer:
    """A task system: how its client is made, and the arguments that Python starts each of its workers with."""

    client: Callable[[], Client]
    concurrency: str
    workers: list[list[str]] = field(default_factory=list)
    needs: str = "system"
    """The file of its requirements, ``{needs}.requirements.txt``; empty for ours."""
    publishes: bool = True
    """Whether it has a broker, so that publishing is a part of its own."""
    slow: int = 1
    """By how much fewer jobs are submitted to it, since it needs long for each."""


_CELERY = ["-m", "celery", "-A", "_peers:worker", "worker", "-c", "2", "-l", "ERROR", "-n", "peer@%h"]
_ARQ = ["-m", "arq", "_peers.worker", "--custom-log-dict", "_peers.QUIET"]
_RQ = ["-m", "rq.cli", "worker", "--url", "{redis}", "--quiet"]

PEERS = {
    "packetfs, delay()": Peer(lambda: ours("delay"), "4 threads", needs=""),
    "packetfs, submit_many": Peer(lambda: ours("submit_many"), "4 threads", needs=""),
    "Celery": Peer(celery, "2 processes", [_CELERY]),
    "Celery, acks early": Peer(lambda: celery(acks_late=False), "2 processes", [_CELERY]),
    "Celery, threads": Peer(celery, "2 threads", [[*_CELERY, "--pool", "threads"]]),
    "dramatiq": Peer(
        dramatiq, "2 processes", [["-m", "dramatiq", "_peers:worker", "--processes", "2", "--threads", "1"]]
    ),
    "rq": Peer(rq, "2 processes, which fork", [_RQ] * 2, slow=10),
    "rq, SimpleWorker": Peer(rq, "2 processes", [[*_RQ, "--worker-class", "rq.SimpleWorker"]] * 2),
    "taskiq": Peer(
        taskiq,
        "2 processes, asyncio",
        [["-m", "taskiq", "worker", "_peers:worker", "--workers", "2", "--log-level", "ERROR"]],
    ),
    "arq": Peer(arq, "2 processes, asyncio", [_ARQ] * 2, needs="arq"),
    "dask.distributed": Peer(dask, "2 processes", publishes=False),
    "lithops": Peer(lithops, "2 processes a map", publishes=False, slow=30),
}  # fmt: skip


def drive(client: Client, answers: TextIO) -> None:
    """Do what each line asks for, and print the seconds and the values' sum.

    ``{"do": "many" | "alone" | "send", "task": …, "calls": […], "times": n}`` submits the calls ``times`` over, and waits
    for all of them, for each, or for none. ``{"do": "wait"}`` waits for those of the last ``send``. A failure is printed
    as ``{"failed": …}``, and ends the driver.
    """
    print(json.dumps("ready"), file=answers, flush=True)
    sent: Any = []
    for line in sys.stdin:
        asked = json.loads(line)
        calls = [tuple(call) for call in asked.get("calls", [])] * asked.get("times", 1)
        seconds, total = [], 0
        try:
            for some in [[call] for call in calls] if asked["do"] == "alone" else [calls]:
                begun = time.perf_counter()
                if asked["do"] != "wait":
                    sent = client.send(asked["task"], some)
                if asked["do"] != "send":
                    total += sum(client.wait(sent))
                seconds.append(time.perf_counter() - begun)
        except Exception as error:  # each system has its own
            print(json.dumps({"failed": f"{type(error).__name__} {error}".strip()}), file=answers, flush=True)
            raise
        print(json.dumps({"seconds": seconds, "sum": total}), file=answers, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)  # what a library prints is not an answer
        drive(PEERS[PEER].client(), stream)
elif PEER in PEERS and PEERS[PEER].workers and not PEER.startswith("rq"):
    PEERS[PEER].client()
