"""The packetfs command as a person types it, and what it leaves behind: nothing."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.misbehaving import RawServer
from support.processes import alive, descendants, wait_until
from support.system import CELERY, PACKETFS, RunningSystem, end_system, environment, start_system

from packetfs_compute import __version__
from packetfs_compute.cli.reference import reference
from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.program import Op
from packetfs_compute.settings import load_settings

pytestmark = pytest.mark.integration

DATA = bytes(range(256)) * 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file.bin"
    path.write_bytes(DATA)
    return path


def shell(tmp_path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PACKETFS, *arguments], env=environment(tmp_path / "data", **environ), cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def lines(text: str) -> int:
    return len(text.strip().splitlines())


def test_inline_needs_no_broker(tmp_path, file):
    done = shell(tmp_path, "run", "crc32c", file.name, "--inline", "--offset", "1KiB", "--length", "2kB")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(reference(Op("crc32c"), DATA[1024:3024]))
    assert not (tmp_path / "data").exists()


def test_run_brings_a_system_of_its_own_and_takes_it_away(tmp_path, file):
    done = shell(tmp_path, "run", "counteq:0x0a", str(file), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["op"], result["imm"], result["value"], result["substrate"]) == ("counteq", 10, 400, "local")
    assert not (tmp_path / "data").exists()


def test_run_uses_the_system_that_is_up(system, file):
    (system.files / "here.bin").write_bytes(DATA)
    done = system.packetfs("run", "fnv64", "here.bin", "--policy", "deadline_s=20", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == f"{reference(Op('fnv64'), DATA):016x}"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run"], 2, "Missing argument"),
        (["run", "sha256", "x"], 2, "use one of counteq, crc32c, fnv64, xor, add"),
        (["run", "counteq", "x"], 2, "give an integer from 0 to 255"),
        (["run", "counteq:256", "x"], 2, "give an integer from 0 to 255"),
        (["run", "counteq:ten", "x"], 2, "write 0 to 255"),
        (["run", "crc32c:1", "x"], 2, "crc32c takes no immediate"),
        (["run", "crc32c", "x", "--offset", "-1"], 2, "no size"),
        (["run", "crc32c", "x", "--length", "1 parsec"], 2, "no size"),
        (["run", "crc32c", "x", "--policy", "speed"], 2, "KEY=VALUE"),
        (["run", "crc32c", "x", "--policy", "goal=best"], 2, "use one of balanced, cheapest, fastest"),
        (["run", "crc32c", "x", "--etag", "W/\"1\""], 2, "weak"),
        (["run", "crc32c", "http://bad host/", "--inline"], 2, "percent-encode"),
        (["run", "crc32c", "http://169.254.169.254/", "--inline"], 1, "not a public address"),
        (["run", "crc32c", "file:///etc/passwd", "--inline"], 1, "PACKETFS_FILE_ROOTS"),
        (["run", "crc32c", "missing.bin", "--inline"], 1, "source_not_found"),
        (["run", "crc32c", "a file.bin", "--inline", "--length", "1GB"], 1, "reaches past the object's end (102400 bytes)"),
        (["fly"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value[1:4]) if isinstance(value, list) else None,
)  # fmt: skip
def test_what_is_typed_wrong_gets_a_line_and_a_code(tmp_path, file, arguments, code, says):
    done = shell(tmp_path, *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert lines(done.stderr) <= 4
    assert done.stdout == ""


def test_a_failure_as_json_is_one_document(tmp_path, file):
    done = shell(tmp_path, "run", "crc32c", str(file), "--length", "1GB", "--inline", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["object_size"]) == ("range_not_satisfiable", len(DATA))


def test_no_redis_where_settings_say_is_one_line_and_a_hint(tmp_path, file):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
    for command in (["run", "crc32c", str(file)], ["up"]):
        done = shell(tmp_path, *command, PACKETFS_REDIS_URL=f"redis://127.0.0.1:{closed}/0")
        assert done.returncode == 1
        assert "no Redis answers at PACKETFS_REDIS_URL" in done.stderr
        assert "hint:" in done.stderr
        assert lines(done.stderr) == 2


def test_a_queue_that_nobody_consumes_is_told(tmp_path, file):
    settings = load_settings(environment(tmp_path))
    server = start_redis_server(settings, persistent=False)
    try:
        for command in (["run", "crc32c", str(file)], ["doctor"]):
            done = shell(tmp_path, *command, PACKETFS_REDIS_URL=settings.state_url)
            assert done.returncode == 1
            assert "celery -A packetfs_compute worker -Q packetfs.local" in " ".join(
                (done.stdout + done.stderr).split()
            )
    finally:
        server.stop(*STOP)


@pytest.mark.parametrize("chatty", [True, False], ids=["not Redis", "silent"])
def test_something_else_on_the_port_is_no_redis(tmp_path, file, chatty):
    # A server that reads HTTP heads never sees one in Redis's protocol, and stays silent.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        process = subprocess.Popen(
            [*PACKETFS, "run", "crc32c", str(file)],
            env=environment(tmp_path / "data", PACKETFS_REDIS_URL=f"redis://127.0.0.1:{listener.getsockname()[1]}/0"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        connection, _ = listener.accept()
        with connection:
            if chatty:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.shutdown(socket.SHUT_WR)
                listener.close()
            out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "no Redis answers" in err
    assert "Traceback" not in err
    assert lines(err) == 2
    assert out == ""


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PACKETFS_REDIS_URL", "bogus"), ("PACKETFS_TIMEOUT_S", "soon"), ("PACKETFS_ALLOW_PRIVATE_SOURCES", "10.0.0.0")],
)
def test_a_wrong_setting_is_named(tmp_path, file, variable, value):
    value = value if variable != "PACKETFS_ALLOW_PRIVATE_SOURCES" else "10.0.0.0/99"
    done = shell(tmp_path, "run", "crc32c", str(file), **{variable: value})
    assert done.returncode == 2
    assert variable in done.stderr
    assert "hint:" in done.stderr
    assert lines(done.stderr) == 2


def test_version_and_help(tmp_path):
    assert shell(tmp_path, "--version").stdout.strip().endswith(__version__)
    for command in ([], ["run"], ["up"], ["demo"], ["doctor"]):
        done = shell(tmp_path, *command, "--help")
        assert done.returncode == 0
        assert "Usage: packetfs" in done.stdout
    assert "packetfs run crc32c https://host/object" in shell(tmp_path, "run", "--help").stdout


def test_doctor_beside_a_running_system(system):
    done = system.packetfs("doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, findings
    assert findings["kernels"]["state"] == "ok"
    assert "answers" in findings["redis"]["message"]
    assert findings["workers"]["message"].startswith("local@")


def test_doctor_tells_what_is_wrong(tmp_path):
    done = shell(tmp_path, "doctor", PACKETFS_REDIS_URL="redis://127.0.0.1:1/0", PACKETFS_RESULT_TTL="5")
    assert done.returncode == 1
    assert "PACKETFS_RESULT_TTL" in done.stdout
    assert "no Redis answers" in " ".join(done.stdout.split())


def test_a_second_up_says_that_there_is_a_first(system):
    done = system.packetfs("up")
    assert done.returncode == 1
    assert f"process {system.process.pid}" in done.stderr
    assert lines(done.stderr) == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_ends_with_nothing_left(tmp_path, how):
    system = start_system(tmp_path, gateway=True)
    everything = descendants(system.process.pid)
    assert len(everything) >= 3
    assert system.stop(how) == 0
    assert not [pid for pid in everything if alive(pid)]
    assert not (system.data_dir / "redis.sock").exists()
    end_system(system)


def test_kill_9_leaves_no_orphan_and_no_obstacle(tmp_path):
    system = start_system(tmp_path, gateway=True)
    everything = descendants(system.process.pid)
    assert system.stop(signal.SIGKILL) == -signal.SIGKILL
    end_system(system)
    wait_until(lambda: not [pid for pid in everything if alive(pid)], "its children have died with it")
    second = tmp_path / "second"
    second.mkdir()
    again = start_system(second, PACKETFS_DATA_DIR=str(system.data_dir))
    end_system(again)


@pytest.mark.timeout(300)  # three recoveries, each with its own bound of a minute
def test_what_dies_is_started_again(tmp_path):
    system = start_system(tmp_path)
    try:
        (system.files / "x.bin").write_bytes(DATA)
        for names in (["worker"], ["redis"], ["redis", "worker"]):
            for victim in [pid for name in names for pid in _pids_of(system, name)]:
                os.kill(victim, signal.SIGKILL)
            give_up = time.monotonic() + 60
            while system.packetfs("run", "crc32c", "x.bin", "--policy", "deadline_s=2").returncode != 0:
                assert time.monotonic() < give_up, f"no recovery after the death of {names}"
                assert system.process.poll() is None, system.process.communicate()[1]
    finally:
        end_system(system)


def _pids_of(system: RunningSystem, name: str) -> list[int]:
    """The processes of a part of the system as they are now, after restarts."""
    word = {"worker": b"celery", "redis": b"valkey-server"}[name]
    return [pid for pid in descendants(system.process.pid) if word in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_jobs_survive_a_restart(tmp_path):
    system = start_system(tmp_path)
    (system.files / "x.bin").write_bytes(DATA)
    code = (
        "from tasks import crc32c; from packetfs_compute.celery import app\n"
        "app.control.cancel_consumer('packetfs.local', reply=True)\n"
        "print(crc32c.delay('x.bin').id)"
    ).replace("'x.bin'", repr(str(system.files / "x.bin")))
    done = system.run(CELERY[0], "-c", code)
    job = done.stdout.strip()
    assert job, done.stderr
    time.sleep(1.2)  # appendfsync everysec
    end_system(system)
    second = tmp_path / "second"
    second.mkdir()
    again = start_system(second, PACKETFS_DATA_DIR=str(system.data_dir), PACKETFS_FILE_ROOTS=str(system.files))
    try:
        read = f"from tasks import crc32c; print(crc32c.AsyncResult({job!r}).get(timeout=20)['value'])"
        done = again.run(CELERY[0], "-c", read)
        assert done.stdout.strip() == str(reference(Op("crc32c"), DATA)), done.stderr
    finally:
        end_system(again)


def test_ctrl_c_of_a_run_stops_what_it_started(tmp_path):
    with RawServer(lambda exchange: exchange.wait(60)) as server:
        process = subprocess.Popen(
            [*PACKETFS, "run", "crc32c", server.url()], env=environment(tmp_path / "data", TMPDIR=str(tmp_path)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(lambda: server.heads, "the job has begun")
        everything = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "interrupted")
    assert not [pid for pid in everything if alive(pid)]
    assert not list(tmp_path.glob("packetfs-*"))


def test_a_broker_that_goes_away_in_the_middle_is_told(tmp_path):
    system = start_system(tmp_path)
    with RawServer(lambda exchange: exchange.wait(60)) as server:
        process = subprocess.Popen(
            [*PACKETFS, "run", "crc32c", server.url()],
            env=system.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(lambda: server.heads, "the job has begun")
        system.stop(signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    end_system(system)
    assert (process.returncode, out) == (1, "")
    assert "the broker went away while the job ran" in err
    assert "hint:" in err
    assert "Traceback" not in err


def test_a_long_data_directory_works_too(tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    system = start_system(folder)
    try:
        assert system.packetfs("doctor").returncode == 0
        socket_path = system.settings.socket_path
        assert socket_path.exists()
        assert not socket_path.is_relative_to(system.data_dir)
    finally:
        end_system(system)
    assert not socket_path.parent.exists()


def test_up_says_where_everything_is_and_how_to_use_it(tmp_path):
    process = subprocess.Popen(
        [*PACKETFS, "up", "--concurrency", "1"], env=environment(tmp_path / "data"), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = "".join(iter(process.stderr.readline, "to watch:            celery -A packetfs_compute status\n"))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "packetfs stopped\n"
    assert process.returncode == 0
    for expected in ("Ctrl-C stops it", f"unix://{tmp_path}/data/redis.sock", f"{tmp_path}/data/*.log", "packetfs run",
                     "open:                http://127.0.0.1:"):  # fmt: skip
        assert expected in said


@pytest.mark.parametrize("size", [3_000_017, 1, 0])
def test_the_demo_is_right(tmp_path, size):
    path = tmp_path / "real.bin"
    path.write_bytes(os.urandom(size))
    done = shell(tmp_path, "demo", "--file", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 of 20 answers right" in done.stdout
    assert "Traceback" not in done.stderr
    done = shell(tmp_path, "demo", "--file", str(path), "--json")
    document = json.loads(done.stdout)
    assert (document["right"], document["jobs"], len(document["results"])) == (20, 20, 20)
