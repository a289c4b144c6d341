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


@pytest.mark.parametrize(
    ("settings", "joint"),
    [
        (Settings(), True),
        (Settings(redis_url="redis://host/1"), True),
        (Settings(redis_url="redis://host", broker_url="redis://host"), True),
        (Settings(redis_url="redis://host", broker_url="redis://another"), False),
        (Settings(broker_url="amqp://mq"), False),
    ],
)
def test_publishing_enters_a_job_where_the_broker_holds_the_results(settings: Settings, joint: bool) -> None:
    assert celery_config(settings)["broker_transport_options"]["packetfs_ledger"] is joint


def test_the_application_has_the_ledgers_parts() -> None:
    code = (
        "from packetfs_compute.celery import app\n"
        "print(type(app.amqp).__module__, type(app.loader).__module__, type(app.backend).__module__,"
        " type(app.connection_for_write()).__module__)"
    )
    parts = ("amqp", "amqp", "results", "connection")
    assert run(code, PACKETFS_REDIS_URL="redis://127.0.0.1:1").split() == [
        f"packetfs_compute.broker.{part}" for part in parts
    ]


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
    names = ("add", "counteq", "crc32c", "fnv64", "probe", "program", "scan", "sweep", "xor")
    assert run(code).split() == [f"packetfs.{name}" for name in names]


PUBLISH = """
from tasks import crc32c, counteq, program
from packetfs_compute.errors import PacketFSError
def tell(publish):
    try:
        publish()
    except PacketFSError as error:
        print(type(error).__name__, error.details.get("field"), bool(error.hint), error.details.get("job_id"), sep=" ")
        if error.__cause__ is None:
            print("no cause")
    else:
        print("published")
"""


def test_without_a_broker_publishing_says_so(tmp_path: Path) -> None:
    code = PUBLISH + "tell(lambda: crc32c.apply_async(('https://host/object',), task_id='j1'))"
    for url in (f"unix://{tmp_path}/none.sock", "redis://127.0.0.1:1"):
        told = run(code, PACKETFS_REDIS_URL=url, PACKETFS_CONNECT_TIMEOUT_S="0.2")
        assert told.strip() == "BrokerUnavailable None True j1"


def test_a_failed_publish_tells_the_id_that_was_chosen(tmp_path: Path) -> None:
    code = PUBLISH + "tell(lambda: crc32c.delay('https://host/object'))"
    told = run(code, PACKETFS_REDIS_URL=f"unix://{tmp_path}/none.sock", PACKETFS_CONNECT_TIMEOUT_S="0.2")
    assert len(told.split()[-1]) == 36


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
    assert run(code).splitlines() == ["BadProgram arguments True None"] * 5 + ["published"]


OPT_OUT = """
from unittest.mock import patch
from celery import Task
from tasks import crc32c
from tasks.base import JobTask
def flags(*ways):
    with patch.object(Task, "apply_async") as published:
        for way in ways:
            way()
    print(*[call.kwargs.get("headers") for call in published.call_args_list], sep="; ")
at = ("https://host/object",)
flags(lambda: crc32c.apply_async(at), lambda: crc32c.apply_async(at, ledger=False))
flags(lambda: crc32c.apply_async(at, ledger=False, headers={"mine": 1}), lambda: crc32c.s(*at).set(ledger=False).delay())
with patch.object(JobTask, "ledger", False):
    flags(lambda: crc32c.delay(*at), lambda: crc32c.apply_async(at, ledger=True))
"""


def test_a_task_or_one_job_can_be_kept_out_of_the_ledger() -> None:
    off = {"packetfs_ledger": False}
    assert run(OPT_OUT).splitlines() == [f"None; {off}", f"{ {'mine': 1, **off} }; {off}", f"{off}; None"]


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
