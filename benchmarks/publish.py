"""What publishing a job costs: plain Celery's ``delay()`` beside ours, with router and ledger, on one broker in one run.

The plain application is Celery as its documentation sets it up: Redis for broker and results, JSON, a task of the same
arguments. Ours is the application of this package: each publish asks the router (a fleet of five substrates with a
snapshot), enters the job in the ledger and pushes its message. Nobody consumes, so that nothing but publishing is timed.
``submit_many`` gives a handle for each job too; so that it is not measured on a cheaper job, every range is another one.
"""

import itertools
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from _harness import Timing, facts, interleaved, machine, markdown, options, ratio, write_json
from celery import Celery

from packetfs_compute.celery import app, celery_config, router_of
from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.names import task_of
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from tasks import crc32c, submit_many
from tasks.base import JobTask

URL = "https://bucket.s3.us-east-1.amazonaws.com/object"
FLEET = tuple(SubstrateSpec(f"place-{n}", "stub", region="us-east-1", slots=50) for n in range(4))
_BATCH = 50
_MANY = 2000


def main() -> None:
    given = options(__doc__.partition("\n")[0], rounds=40).parse_args()
    rounds = 4 if given.quick else given.rounds
    with _broker() as settings:
        ours = replace(settings, substrates=FLEET)
        app.conf.update(celery_config(ours))
        plain = _plain(settings)
        router = router_of(ours)
        router.refresh()
        calls: dict[str, Callable[[], object]] = {
            "plain Celery": lambda: _publish(lambda: plain.delay(URL, 0, 1 << 20)),
            "packetfs": lambda: _publish(lambda: crc32c.delay(URL, 0, 1 << 20)),
            "packetfs, ledger off": lambda: _publish(lambda: crc32c.apply_async((URL, 0, 1 << 20), ledger=False)),
            "submit_many": lambda: _many(crc32c),
            "submit_many, objects": lambda: _many_objects(crc32c),
            "router": lambda: router(task_of("crc32c"), (URL, 0, 1 << 20), {}, {}),
        }
        timings = interleaved(calls, rounds, sample_s=0.05)
    routing = timings.pop("router")
    timings = {name: _each(one, _MANY if name.startswith("submit_many") else _BATCH) for name, one in timings.items()}
    base = timings["plain Celery"]
    print(facts(machine()))
    print()
    print(markdown(["publishing one job", "to plain (best)", "to plain (median)", "µs"], [
        [name, ratio(one.best_s / base.best_s), ratio(one.median_s / base.median_s), f"{one.best_s * 1e6:.0f}"]
        for name, one in timings.items()
    ]))  # fmt: skip
    print(
        f"\nThe router alone, of five candidates: {routing.best_s * 1e6:.1f} µs a publish"
        f" (median {routing.median_s * 1e6:.1f})."
    )
    if given.json:
        write_json(given.json, {"machine": machine(), "publish_s": _seconds(timings), "router_s": routing.best_s})


def _publish(delay: Callable[[], object]) -> None:
    for _ in itertools.repeat(None, _BATCH):
        delay()


def _many(task: JobTask) -> None:
    for _ in submit_many(task, ({"offset": n << 20} for n in range(_MANY)), data_url=URL, length=1 << 20):
        pass


def _many_objects(task: JobTask) -> None:
    for _ in submit_many(task, ({"data_url": f"{URL}-{n}"} for n in range(_MANY)), length=1 << 20):
        pass


def _each(of: Timing, count: int) -> Timing:
    """Return the time of one publish of ``count``."""
    return Timing(of.best_s / count, of.median_s / count, of.rounds)


def _plain(settings: Settings) -> Callable[..., object]:
    url = settings.state_url.replace("unix://", "redis+socket://")
    plain = Celery("plain", broker=url, backend=url, set_as_current=False)

    @plain.task(name="plain.crc32c")
    def task(data_url: str, offset: int = 0, length: int | None = None) -> None:
        del data_url, offset, length

    return task


@contextmanager
def _broker() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="packetfs-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        server = start_redis_server(settings, persistent=False)
        try:
            yield settings
        finally:
            server.stop(*STOP, (signal.SIGKILL, 1.0))


def _seconds(timings: dict[str, Timing]) -> dict[str, float]:
    return {name: timing.best_s for name, timing in timings.items()}


if __name__ == "__main__":
    main()
