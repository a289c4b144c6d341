"""The other task systems of ``system.py``: each as its documentation sets it up, with two worker processes and results kept.

One file for all, read in an environment that has them. The variable ``PEER`` says which one a process is of: as a worker
(what ``WORKERS`` runs imports this file) or, started as a script, as the driver, which measures what a line on its standard
input asks for and prints the seconds.
"""

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any, TextIO

REDIS = os.environ.get("PEER_REDIS", "")
PEER = os.environ.get("PEER", "")
PATIENCE_S = 60.0

WORKERS = {
    "Celery": [["-m", "celery", "-A", "_peers:worker", "worker", "-c", "2", "-l", "ERROR", "-n", "peer@%h"]],
    "dramatiq": [["-m", "dramatiq", "_peers:worker", "--processes", "2", "--threads", "1"]],
    "rq": [["-m", "rq.cli", "worker", "--url", "{redis}", "--quiet"]] * 2,
    "taskiq": [["-m", "taskiq", "worker", "_peers:worker", "--workers", "2", "--log-level", "ERROR"]],
    "arq": [["-m", "arq", "_peers.worker"]] * 2,
    "dask.distributed": [],  # its cluster starts them
    "lithops": [],
}
"""The arguments that Python starts each system's workers with."""


def noop(url: str, offset: int, length: int) -> int:
    del url, offset, length
    return 0


def read(url: str, offset: int, length: int) -> int:
    """Return the CRC-32C of a range, as a program without this project would."""
    import crc32c  # noqa: PLC0415  (only some processes need it)

    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return int(crc32c.crc32c(response.read()))


Call = tuple[str, int, int]
Many = Callable[[str, list[Call]], list[int]]
worker: Any = None


def celery() -> Many:
    global worker  # noqa: PLW0603  (by this name its worker finds it)
    from celery import Celery  # noqa: PLC0415

    url = REDIS.replace("unix://", "redis+socket://")
    worker = Celery("peers", broker=url, backend=url)
    worker.conf.update(task_default_queue="peers", task_acks_late=True, worker_prefetch_multiplier=1)
    tasks = {one.__name__: worker.task(name=one.__name__)(one) for one in (noop, read)}

    def many(name: str, calls: list[Call]) -> list[int]:
        sent = [tasks[name].delay(*call) for call in calls]
        return [one.get(timeout=PATIENCE_S) for one in sent]

    return many


def dramatiq() -> Many:
    global worker  # noqa: PLW0603
    import dramatiq as library  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415
    from dramatiq.results import Results  # noqa: PLC0415
    from dramatiq.results.backends import RedisBackend  # noqa: PLC0415

    worker = RedisBroker(url=REDIS)
    worker.add_middleware(Results(backend=RedisBackend(url=REDIS)))
    library.set_broker(worker)
    tasks = {one.__name__: library.actor(store_results=True)(one) for one in (noop, read)}

    def many(name: str, calls: list[Call]) -> list[int]:
        sent = [tasks[name].send(*call) for call in calls]
        return [one.get_result(block=True, timeout=int(PATIENCE_S * 1000)) for one in sent]

    return many


def rq() -> Many:
    from redis import Redis  # noqa: PLC0415
    from rq import Queue  # noqa: PLC0415

    queue = Queue(connection=Redis.from_url(REDIS))

    def many(name: str, calls: list[Call]) -> list[int]:
        sent = [queue.enqueue(f"_peers.{name}", *call) for call in calls]
        give_up = time.monotonic() + PATIENCE_S
        for one in sent:
            while not one.is_finished:
                if time.monotonic() > give_up or one.is_failed:
                    raise SystemExit("rq: a job did not finish")
                time.sleep(0.001)
        return [one.return_value() for one in sent]

    return many


def taskiq() -> Many:
    global worker  # noqa: PLW0603
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend  # noqa: PLC0415

    worker = ListQueueBroker(REDIS).with_result_backend(RedisAsyncResultBackend(REDIS, result_ex_time=600))
    tasks = {one.__name__: worker.task(task_name=one.__name__)(one) for one in (noop, read)}

    async def one_by_one(name: str, calls: list[Call]) -> list[int]:
        sent = [await tasks[name].kiq(*call) for call in calls]
        ended = [await one.wait_result(check_interval=0.001, timeout=PATIENCE_S) for one in sent]
        return [one.return_value for one in ended]

    loop = asyncio.new_event_loop()
    if __name__ == "__main__":
        loop.run_until_complete(worker.startup())
    return lambda name, calls: loop.run_until_complete(one_by_one(name, calls))


def arq() -> Many:
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

    async def one_by_one(name: str, calls: list[Call]) -> list[int]:
        sent = [await pool.enqueue_job(f"arq_{name}", *call) for call in calls]
        return [await one.result(timeout=PATIENCE_S, poll_delay=0.001) for one in sent]

    return lambda name, calls: loop.run_until_complete(one_by_one(name, calls))


def dask() -> Many:
    from distributed import Client, LocalCluster  # noqa: PLC0415

    client = Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
    tasks = {"noop": noop, "read": read}
    return lambda name, calls: client.gather(
        [client.submit(tasks[name], *call, pure=False) for call in calls]  # type: ignore[no-any-return]
    )


def lithops() -> Many:
    import lithops as library  # noqa: PLC0415

    config = {"lithops": {"backend": "localhost", "storage": "localhost", "log_level": "ERROR", "telemetry": False}}
    executor = library.FunctionExecutor(config=config, worker_processes=2)
    tasks = {"noop": noop, "read": read}

    def many(name: str, calls: list[Call]) -> list[int]:
        return list(executor.get_result(executor.map(tasks[name], calls)))

    return many


MAKERS = {
    "Celery": celery,
    "dramatiq": dramatiq,
    "rq": rq,
    "taskiq": taskiq,
    "arq": arq,
    "dask.distributed": dask,
    "lithops": lithops,
}


def drive(many: Many, answers: TextIO) -> None:
    """Do what each line asks for, ``{"task", "calls", "one_by_one"}``, and print the seconds and the values' sum."""
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        calls = [(url, offset, length) for url, offset, length in asked["calls"]]
        seconds, total = [], 0
        for some in [[call] for call in calls] if asked["one_by_one"] else [calls]:
            begun = time.perf_counter()
            total += sum(many(asked["task"], some))
            seconds.append(time.perf_counter() - begun)
        print(json.dumps({"seconds": seconds, "sum": total}), file=answers, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)  # what a library prints is not an answer
        drive(MAKERS[PEER](), stream)
elif PEER in MAKERS and PEER not in ("dask.distributed", "lithops", "rq"):
    MAKERS[PEER]()
