"""The Celery application: what it is configured with, and what a caller meets when there is no broker."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten

from packetfs_compute.celery import celery_config
from packetfs_compute.names import MAX_TIMEOUT_MS
from packetfs_compute.settings import Settings

ROOT = Path(__file__).parents[2]
LONGEST_S = MAX_TIMEOUT_MS / 1000
CONFIG = celery_config(Settings())
TRANSPORT: dict[str, Any] = CONFIG["broker_transport_options"]


def run(code: str, **environ: str) -> str:
    """Run Python in a process of its own, with no setting but ``environ``, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PACKETFS_")}
    given = {"PACKETFS_CONFIG": os.devnull, **environ}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**inherited, **given}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_messages_can_hold_data_only() -> None:
    assert CONFIG["accept_content"] == ["json"]
    assert CONFIG["task_serializer"] == CONFIG["result_serializer"] == "json"


def test_a_job_is_given_back_when_its_worker_dies() -> None:
    assert CONFIG["task_acks_late"] is True
    assert CONFIG["task_reject_on_worker_lost"] is True
    assert CONFIG["worker_cancel_long_running_tasks_on_connection_loss"] is False


def test_a_long_job_holds_no_others_back() -> None:
    assert CONFIG["worker_prefetch_multiplier"] == 1
    assert celery_config(Settings(concurrency=7))["worker_concurrency"] == 7


def test_a_running_job_is_not_delivered_again() -> None:
    assert TRANSPORT["visibility_timeout"] >= 2 * LONGEST_S
    assert CONFIG["task_time_limit"] > LONGEST_S
    assert TRANSPORT["visibility_timeout"] > CONFIG["task_time_limit"]
    assert (TRANSPORT["unacked_restore_interval"], TRANSPORT["unacked_restore_throttle"]) == (1, 1)


def test_a_client_gives_up() -> None:
    for retries in (TRANSPORT, CONFIG["result_backend_transport_options"]["retry_policy"]):
        assert 0 < retries["max_retries"] <= 5
        assert retries["interval_max"] <= 1
    assert TRANSPORT["socket_connect_timeout"] == Settings().connect_timeout_s
    assert celery_config(Settings(connect_timeout_s=0.5))["redis_socket_connect_timeout"] == 0.5


@pytest.mark.parametrize(
    ("settings", "broker", "backend"),
    [
        (Settings(redis_url="redis://host/1"), "redis://host/1", "redis://host/1"),
        (Settings(redis_url="rediss://host"), "rediss://host", "rediss://host"),
        (Settings(redis_url="unix:///run/redis.sock"), "redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
        (Settings(data_dir=Path("/data")), "redis+socket:///data/redis.sock", "redis+socket:///data/redis.sock"),
        (Settings(data_dir=Path("/data"), broker_url="amqp://mq"), "amqp://mq", "redis+socket:///data/redis.sock"),
        (Settings(redis_url="redis://host", broker_url="unix:///b.sock"), "redis+socket:///b.sock", "redis://host"),
    ],
)  # fmt: skip
def test_urls_are_in_celerys_spelling(settings: Settings, broker: str, backend: str) -> None:
    config = celery_config(settings)
    assert (config["broker_url"], config["result_backend"]) == (broker, backend)


def test_celery_knows_every_setting() -> None:
    assert set(CONFIG) <= {name for name, _ in flatten(NAMESPACES)}


def test_results_are_kept_as_long_as_the_settings_say() -> None:
    assert CONFIG["result_expires"] == 86_400
    assert celery_config(Settings(result_ttl_s=60))["result_expires"] == 60


def test_importing_configures_nothing() -> None:
    # A setting that is wrong would be an error, were it read.
    code = "from packetfs_compute.celery import app; import tasks; print(app.configured)"
    assert run(code, PACKETFS_REDIS_URL="no-url").strip() == "False"


def test_celery_finds_the_app_and_the_app_its_tasks() -> None:
    code = (
        "from celery.bin.base import CLIContext; from celery.app.utils import find_app\n"
        "app = find_app('packetfs_compute'); app.loader.import_default_modules()\n"
        "print(*sorted(name for name in app.tasks if name.startswith('packetfs.')))"
    )
    names = "packetfs.add packetfs.counteq packetfs.crc32c packetfs.fnv64 packetfs.program packetfs.xor"
    assert run(code).split() == names.split()


PUBLISH = """
from tasks import crc32c, counteq, program
from packetfs_compute.errors import PacketFSError
def tell(publish):
    try:
        publish()
    except PacketFSError as error:
        print(type(error).__name__, error.details.get("field"), bool(error.hint), sep=" ")
        if error.__cause__ is None:
            print("no cause")
    else:
        print("published")
"""


def test_without_a_broker_publishing_says_so(tmp_path: Path) -> None:
    code = PUBLISH + "tell(lambda: crc32c.delay('https://host/object'))"
    for url in (f"unix://{tmp_path}/none.sock", "redis://127.0.0.1:1"):
        told = run(code, PACKETFS_REDIS_URL=url, PACKETFS_CONNECT_TIMEOUT_S="0.2")
        assert told.strip() == "BrokerUnavailable None True"


def test_an_argument_that_json_cannot_hold_is_a_bad_program() -> None:
    code = (
        PUBLISH
        + "from packetfs_compute.celery import app\n"
        + "app.conf.update(broker_url='memory://', result_backend='cache+memory://')\n"
        + "for value in (object(), 10**5000, {1, 2}, lambda: 1):\n"
        + "    tell(lambda: counteq.delay('https://host/object', value))\n"
        + "deep = []\n"
        + "for _ in range(100_000): deep = [deep]\n"
        + "tell(lambda: program.delay('https://host/object', ops=deep))\n"
        + "tell(lambda: counteq.delay('https://host/object', 10))\n"
    )
    assert run(code).splitlines() == ["BadProgram arguments True"] * 5 + ["published"]


def test_a_task_has_the_arguments_that_the_design_fixes() -> None:
    from inspect import signature

    import tasks

    common = "offset: int = 0, length: int | None = None, etag: str | None = None, policy: dict[str, Any] | None = None"
    expected = {
        "counteq": f"(data_url: str, imm: int, {common})",
        "crc32c": f"(data_url: str, {common})",
        "fnv64": f"(data_url: str, {common}, seed: str | None = None)",
        "xor": f"(data_url: str, imm: int, {common})",
        "add": f"(data_url: str, imm: int, {common})",
        "program": f"(data_url: str, ops: list[dict[str, Any]], {common})",
    }
    for name, parameters in expected.items():
        task = getattr(tasks, name)
        found = str(signature(task.run)).partition(" ->")[0].replace("typing.", "").replace("Optional", "")
        assert found == parameters
        assert task.name == f"packetfs.{name}"
