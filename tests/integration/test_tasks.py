"""The tasks as a Python program uses them: published to a real broker, run by a real worker, caught by class."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from celery import group
from support.misbehaving import RawServer, says
from support.system import RunningSystem

from packetfs_compute.cli.reference import reference
from packetfs_compute.embedded.files import serve_file
from packetfs_compute.errors import (
    AttemptTimeout,
    BadPolicy,
    BadProgram,
    ForbiddenSource,
    NoSubstrate,
    RangeNotSatisfiable,
    SourceChanged,
    SourceFailed,
    SourceNotFound,
)
from packetfs_compute.program import Op
from tasks import add, counteq, crc32c, fnv64, program, xor

pytestmark = pytest.mark.integration

DATA = random.Random(1).randbytes(300_007)
META = {
    "job_id", "data_url", "offset", "length", "bytes_processed", "object_size", "etag", "substrate", "region",
    "attempts", "cost_usd", "cached", "timing",
}  # fmt: skip


@pytest.fixture(scope="module")
def path(system: RunningSystem) -> Path:
    file = system.files / "object.bin"
    file.write_bytes(DATA)
    return file


@pytest.fixture(scope="module")
def url(path: Path):
    with serve_file(path) as served:
        yield served


@pytest.mark.parametrize(
    ("task", "op"),
    [
        (counteq, Op("counteq", 10)),
        (crc32c, Op("crc32c")),
        (fnv64, Op("fnv64")),
        (xor, Op("xor", 9)),
        (add, Op("add", 7)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@pytest.mark.parametrize(("offset", "length"), [(0, None), (1, 100_001), (299_999, 8), (300_007, None), (5, 0)])
def test_every_operation_over_real_bytes(url, task, op, offset, length):
    imm = () if op.imm is None else (op.imm,)
    result = task.delay(url, *imm, offset=offset, length=length).get(timeout=10)
    part = DATA[offset:] if length is None else DATA[offset : offset + length]
    assert {key: result.pop(key) for key in ("op", "imm", "value") if key in result} == op.render(reference(op, part))
    assert set(result) == META
    assert result["bytes_processed"] == len(part)
    assert result["object_size"] == len(DATA)
    assert (result["data_url"], result["offset"], result["length"]) == (url, offset, length)
    assert result["substrate"] == "local"
    assert result["cost_usd"] == 0
    assert [(attempt["substrate"], attempt["ok"], attempt["error"]) for attempt in result["attempts"]] == [
        ("local", True, None)
    ]
    timing = result["timing"]
    assert set(timing) == {"queued_s", "fetch_s", "compute_s", "total_s"}
    assert timing["total_s"] >= timing["fetch_s"] + timing["compute_s"] > 0
    assert timing["queued_s"] >= 0


def test_the_smallest_use_from_another_process(system, url):
    code = f"from tasks import crc32c; print(crc32c.delay({url!r}, offset=7, length=1000).get(timeout=10)['value'])"
    done = system.run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == reference(Op("crc32c"), DATA[7:1007])


def test_a_program_of_several_operations_gives_them_in_order(url):
    ops = [{"op": "crc32c"}, {"op": "counteq", "imm": 10}, {"op": "counteq", "imm": 11}, {"op": "fnv64"}]
    result = program.delay(url, ops=ops, offset=3).get(timeout=10)
    assert result["results"] == [
        op.render(reference(op, DATA[3:])) for op in (Op("crc32c"), Op("counteq", 10), Op("counteq", 11), Op("fnv64"))
    ]
    assert set(result) == META | {"results"}


def test_fnv64_goes_on_from_a_seed(url):
    first = fnv64.delay(url, length=1234).get(timeout=10)["value"]
    assert fnv64.delay(url, offset=1234, seed=first).get(timeout=10)["value"] == f"{reference(Op('fnv64'), DATA):016x}"


def test_the_version_is_told_and_can_be_pinned(url):
    etag = crc32c.delay(url).get(timeout=10)["etag"]
    assert etag
    assert crc32c.delay(url, etag=etag).get(timeout=10)["etag"] == etag
    with pytest.raises(SourceChanged):
        crc32c.delay(url, etag='"another"').get(timeout=10)


def test_a_local_file_under_a_root(path):
    assert crc32c.delay(str(path)).get(timeout=10)["value"] == reference(Op("crc32c"), DATA)


BAD_INPUT = [
    (counteq, ("URL", 256), {}, BadProgram, "program.imm"),
    (counteq, ("URL", -1), {}, BadProgram, "program.imm"),
    (counteq, ("URL", "42"), {}, BadProgram, "program.imm"),
    (counteq, ("URL", None), {}, BadProgram, "program.imm"),
    (xor, ("URL", 1.5), {}, BadProgram, "program.imm"),
    (program, ("URL",), {"ops": [{"op": "sha256"}]}, BadProgram, "program.ops[0].op"),
    (program, ("URL",), {"ops": []}, BadProgram, "program.ops"),
    (program, ("URL",), {"ops": {"op": "crc32c"}}, BadProgram, "program.ops"),
    (fnv64, ("URL",), {"seed": "xyz"}, BadProgram, "program.seed"),
    (crc32c, ("URL",), {"offset": -1}, BadProgram, "program.offset"),
    (crc32c, ("URL",), {"offset": 10**4000}, BadProgram, "program.offset"),
    (crc32c, ("URL",), {"length": 10**30}, BadProgram, "program.length"),
    (crc32c, ("URL",), {"length": True}, BadProgram, "program.length"),
    (crc32c, ("URL",), {"etag": "W/\"1\""}, BadProgram, "program.etag"),
    (crc32c, (["URL"],), {}, BadProgram, "program.data_url"),
    (crc32c, (None,), {}, BadProgram, "program.data_url"),
    (crc32c, ("",), {}, BadProgram, "program.data_url"),
    (crc32c, ("no url",), {}, BadProgram, "program.data_url"),
    (crc32c, ("file:///etc/passwd",), {}, ForbiddenSource, "program.data_url"),
    (crc32c, ("/etc/passwd",), {}, ForbiddenSource, "program.data_url"),
    (crc32c, ("http://169.254.169.254/latest/meta-data/",), {}, ForbiddenSource, "program.data_url"),
    (crc32c, ("gopher://host/",), {}, ForbiddenSource, "program.data_url"),
    (crc32c, ("URL",), {"length": 300_008}, RangeNotSatisfiable, "program.length"),
    (crc32c, ("URL",), {"offset": 300_008}, RangeNotSatisfiable, "program.offset"),
    (crc32c, ("URL",), {"policy": {"goal": "best"}}, BadPolicy, "policy.goal"),
    (crc32c, ("URL",), {"policy": {"deadline": 5}}, BadPolicy, "policy.deadline"),
    (crc32c, ("URL",), {"policy": ["local"]}, BadPolicy, "policy"),
    (crc32c, ("URL",), {"policy": {"exclude": ["local"]}}, NoSubstrate, "policy"),
    (crc32c, ("URL",), {"policy": {"substrates": ["mars"]}}, NoSubstrate, "policy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "error", "field"), BAD_INPUT, ids=[f"{i}-{case[4]}" for i, case in enumerate(BAD_INPUT)]
)
def test_bad_input_is_a_typed_error_that_names_the_field(system, url, task, args, kwargs, error, field):
    before = system.worker_pids()
    args = [url if value == "URL" else [url] if value == ["URL"] else value for value in args]
    with pytest.raises(error) as caught:
        task.apply_async(args=args, kwargs=kwargs).get(timeout=10)
    assert type(caught.value) is error
    assert caught.value.details["field"] == field
    assert caught.value.details["job_id"]
    assert isinstance(caught.value.attempts, list)
    assert system.worker_pids() == before, "the worker did not live on"
    assert "Traceback" not in (system.data_dir / "worker.log").read_text()


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("argument", [10**5000, object(), _nested(5000)], ids=["huge", "object", "deep"])
def test_an_argument_that_json_cannot_hold_is_told_to_the_caller(system, url, argument):
    with pytest.raises(BadProgram) as caught:
        crc32c.delay(url, offset=argument)
    assert "crc32c" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error", "attempts"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", SourceNotFound, 1),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\nshort",
            SourceFailed,
            4,
        ),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-10/11\r\nContent-Length: 10\r\n\r\n0123456789",
            SourceFailed,
            1,
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n", SourceFailed, 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", SourceFailed, 4),
        (b"", SourceFailed, 4),
    ],
    ids=["404", "cut short", "another range", "503", "not HTTP", "nothing"],
)
def test_a_source_that_fails_is_tried_again_where_that_may_help_and_named_with_each_attempt(
    system, answer, error, attempts
):
    """The one that asks to be left alone for 7 s would have its next turn past the deadline: the job fails at once."""
    with RawServer(says(answer)) as server, pytest.raises(error) as caught:
        crc32c.delay(server.url(), length=10, policy={"deadline_s": 6}).get(timeout=10)
    assert len(caught.value.attempts) == attempts
    for attempt in caught.value.attempts:
        assert attempt["substrate"] == "local"
        assert attempt["ok"] is False
        assert attempt["error"] == {"type": error.type, "message": str(caught.value)}


def test_a_source_that_comes_back_is_read(system):
    body = bytes(range(100))
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + body

    def script(exchange):
        exchange.send(
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n" if exchange.number < 2 else good
        )

    with RawServer(script) as server:
        result = crc32c.delay(server.url(), length=100).get(timeout=20)
    assert result["value"] == reference(Op("crc32c"), body)
    assert [attempt["ok"] for attempt in result["attempts"]] == [False, False, True]
    assert result["timing"]["total_s"] >= 2, "it was left alone for as long as it asked"


def test_a_server_that_ignores_range_still_gives_the_right_bytes(system):
    body = bytes(range(200))
    with RawServer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + body)) as server:
        result = crc32c.delay(server.url(), offset=50, length=20).get(timeout=10)
    assert result["value"] == reference(Op("crc32c"), body[50:70])


def test_the_deadline_of_the_policy_ends_the_job(system):
    with RawServer(lambda exchange: exchange.wait(30)) as server, pytest.raises(AttemptTimeout):
        crc32c.delay(server.url(), policy={"deadline_s": 0.3}).get(timeout=10)


def test_a_job_that_waited_past_its_deadline_is_not_started(system, url):
    with pytest.raises(AttemptTimeout) as caught:
        crc32c.apply_async(args=[url], kwargs={"policy": {"deadline_s": 0.2}}, countdown=1).get(timeout=10)
    assert caught.value.attempts == []


def test_an_error_is_caught_by_its_family_in_another_process(system):
    code = (
        "from tasks import crc32c\n"
        "from packetfs_compute.errors import ProgramFault\n"
        "try: crc32c.delay('http://10.0.0.1/').get(timeout=10)\n"
        "except ProgramFault as error: print(type(error).__name__, error.details['attempts'][0]['error']['type'])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=system.environ, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["ForbiddenSource", "forbidden_source"], done.stderr


def test_a_group_works_as_any_celery_user_expects(url):
    results = group(crc32c.s(url, offset=i * 1000, length=1000) for i in range(20))().get(timeout=20)
    assert [result["value"] for result in results] == [
        reference(Op("crc32c"), DATA[i * 1000 : i * 1000 + 1000]) for i in range(20)
    ]
