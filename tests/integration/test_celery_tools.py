"""Celery's own tools against the running system, each run as a user runs it."""

import base64
import json
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from support.processes import wait_until
from support.system import CELERY, RunningSystem

from tasks import crc32c

pytestmark = pytest.mark.integration

TASKS = {
    f"packetfs.{name}" for name in ("add", "counteq", "crc32c", "fnv64", "probe", "program", "scan", "sweep", "xor")
}


@pytest.fixture(scope="module")
def object_path(system: RunningSystem) -> str:
    file = system.files / "watched.bin"
    file.write_bytes(b"watched")
    return str(file)


def test_status_names_the_worker(system):
    done = system.run(*CELERY, "status")
    assert done.returncode == 0, done.stderr
    assert "local@" in done.stdout
    assert "OK" in done.stdout


@pytest.mark.parametrize("what", ["active", "registered", "stats", "active_queues", "conf"])
def test_inspect(system, what):
    done = system.run(*CELERY, "inspect", what, "--json")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout).values()
    if what == "registered":
        assert set(answer) == TASKS
    elif what == "stats":
        assert answer["pool"]["max-concurrency"] == 2
    elif what == "active_queues":
        assert [queue["name"] for queue in answer] == ["packetfs.local"]
    elif what == "conf":
        assert answer["accept_content"] == ["json"]


def test_events_shows_what_happens(system, object_path, tmp_path):
    seen = tmp_path / "events.txt"
    with seen.open("wb") as out:
        environ = {**system.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen([*CELERY, "events", "--dump"], env=environ, stdout=out, stderr=subprocess.STDOUT)

    done = system.run(*CELERY, "control", "enable_events")
    assert done.returncode == 0, done.stderr

    def task_seen() -> bool:
        crc32c.delay(object_path).get(timeout=10)
        text = seen.read_text()
        return "packetfs.crc32c" in text and "task succeeded" in text.replace("-", " ")

    try:
        wait_until(task_seen, "celery events shows a task that succeeded")
    finally:
        process.terminate()
        process.wait(20)


def _get(url: str, credentials: str | None = None) -> object:
    request = urllib.request.Request(url)
    if credentials:
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_flower_shows_the_worker_and_the_tasks(system, object_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*CELERY, "flower", "--address=127.0.0.1", f"--port={port}", "--basic_auth=ada:lovelace"],
        env={**system.environ, "FLOWER_UNAUTHENTICATED_API": "false"},
        cwd=system.data_dir,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _status(f"{base}/healthcheck") == 200, "flower answers")
        assert _status(f"{base}/api/workers") == 401

        def worker_known() -> bool:
            workers = _get(f"{base}/api/workers?refresh=1", "ada:lovelace")
            return any(set(worker.get("registered", ())) == TASKS for worker in workers.values())

        wait_until(worker_known, "flower knows the worker's tasks")

        def task_seen() -> bool:
            crc32c.delay(object_path).get(timeout=10)
            tasks = _get(f"{base}/api/tasks", "ada:lovelace")
            return any(task["name"] == "packetfs.crc32c" and task["state"] == "SUCCESS" for task in tasks.values())

        wait_until(task_seen, "flower saw a task succeed")
    finally:
        process.terminate()
        process.wait(20)
