"""``submit_many`` into the real system: values, errors by name, and a publisher that is killed in the midst of it."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from celery.result import EagerResult
from support.processes import wait_until
from support.system import RunningSystem

from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.errors import BadProgram, RangeNotSatisfiable
from packetfs_compute.kernels import crc32c as checksum
from packetfs_compute.names import JOB_STATE
from tasks import crc32c, program, submit_many

pytestmark = pytest.mark.integration

DATA = random.Random(6).randbytes(200_003)
PART = 1999

ENDLESS = """
import itertools, sys
from tasks import crc32c, submit_many
calls = ({"offset": n % 1000} for n in itertools.count())
for result in submit_many(crc32c, calls, data_url=sys.argv[1], length=64, batch=40):
    print(result.id, flush=True)
"""


@pytest.fixture(scope="module")
def path(system: RunningSystem) -> Path:
    file = system.files / "many.bin"
    file.write_bytes(DATA)
    return file


def test_values_in_order(path: Path) -> None:
    starts = range(0, len(DATA), PART)
    calls = ({"offset": at, "length": min(PART, len(DATA) - at)} for at in starts)
    results = submit_many(crc32c, calls, data_url=str(path), batch=30)
    values = [result.get(timeout=30)["value"] for result in results]
    assert values == [checksum(DATA[at : at + PART]) for at in starts]


def test_several_operations_and_errors_each_of_its_own_job(path: Path) -> None:
    ops = [{"op": "counteq", "imm": 10}, {"op": "crc32c"}]
    calls = [{"offset": 5}, {"offset": 10**9, "length": 1}, {"offset": "x"}, {"offset": 6}]
    good, beyond, refused, other = submit_many(program, calls, data_url=str(path), ops=ops)
    for result, at in ((good, 5), (other, 6)):
        told = [one["value"] for one in result.get(timeout=30)["results"]]
        assert told == [DATA[at:].count(10), checksum(DATA[at:])]
    with pytest.raises(RangeNotSatisfiable):
        beyond.get(timeout=30)
    assert type(refused) is EagerResult
    with pytest.raises(BadProgram):
        refused.get(timeout=30)


def test_a_publisher_that_is_killed_loses_no_job(system: RunningSystem, path: Path) -> None:
    publisher = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], env=system.environ, stdout=subprocess.PIPE, text=True
    )
    assert publisher.stdout is not None
    ids = [publisher.stdout.readline().strip() for _ in range(95)]
    publisher.send_signal(signal.SIGKILL)
    ids += publisher.stdout.read().split()
    publisher.wait(10)
    publisher.stdout.close()
    ids = [one for one in ids if len(one) == 36]
    with redis.Redis.from_url(system.settings.state_url) as client:
        wait_until(lambda: Ledger(client).open_count() == 0, "every job that was entered has ended")
        states = client.mget([JOB_STATE + one for one in ids])
    assert len(ids) >= 95
    assert all(state is not None and b'"SUCCESS"' in state for state in states)
