"""Upkeep by Celery beat, for where no `packetfs up` runs: the substrates are probed, and a lost job is published again."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from support.processes import STALL_S, wait_until
from support.system import CELERY, ROOT, publishing_to
from support.valkey import valkey

from packetfs_compute.embedded.processes import Child
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.names import UPKEEP_QUEUE, queue_of
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings, to_environment
from packetfs_compute.substrates import load_fleet
from tasks import crc32c

pytestmark = pytest.mark.integration


@pytest.fixture
def beaten(tmp_path: Path) -> Iterator[Settings]:
    """A Redis, a beat, and a worker of the upkeep queue alone."""
    with valkey(tmp_path) as plain:
        settings = replace(plain, substrates=(SubstrateSpec("near", "stub"),))
        environ = {**os.environ, **to_environment(settings), "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
        alone = ("--without-mingle", "--without-gossip")
        worker = [*CELERY, "worker", "-Q", UPKEEP_QUEUE, "-P", "solo", "-n", "upkeep@%h", *alone]
        beat = [*CELERY, "beat", "-s", str(tmp_path / "schedule"), "--pidfile", ""]
        children = [
            Child(name, argv, environ, tmp_path / f"{name}.log") for name, argv in (("worker", worker), ("beat", beat))
        ]
        try:
            yield settings
        finally:
            for child in reversed(children):
                child.stop((signal.SIGTERM, 10 + STALL_S), (signal.SIGABRT, 5))  # who does not stop says where it is
        for child in children:
            assert child.exit_code == 0, child.last_words(100)


def test_substrates_are_probed_and_a_lost_job_is_published_again(beaten: Settings) -> None:
    fleet = open_fleet(beaten, [one.capabilities for one in load_fleet(beaten)])
    with publishing_to(beaten), redis.Redis.from_url(beaten.state_url) as client:
        pending = crc32c.apply_async(("https://host/object",), queue=queue_of("near"))
        assert client.delete(queue_of("near")) == 1, "the message is lost, as when a worker dies with it"
        wait_until(lambda: fleet.snapshot(time.time()).members[1].health.probe_streak >= 2, "it is probed", 60)
        wait_until(lambda: client.llen(queue_of("near")) == 1, "its message is there again", 60)
        assert client.llen(UPKEEP_QUEUE) <= 4, "what is not taken in time expires"
        pending.forget()
