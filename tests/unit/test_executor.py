"""From a request to a response, over a real HTTP server and real files; and no exception, whatever comes in."""

import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.misbehaving import Exchange, RawServer
from support.untrusted import HUGE, json_values, nearly_requests, patient, python_values

from packetfs_compute import affinity, executor
from packetfs_compute.cli.reference import reference
from packetfs_compute.deadline import Deadline
from packetfs_compute.embedded.files import serve_file
from packetfs_compute.executor import execute
from packetfs_compute.names import OPS_WITH_IMM
from packetfs_compute.program import parse_program
from packetfs_compute.settings import Settings
from packetfs_compute.sources import open_source

CONTRACT = Path(__file__).parents[2] / "remote" / "contract"
RESPONSE = Draft202012Validator(json.loads((CONTRACT / "response.schema.json").read_text("utf-8")))
SIZE = 300_001
DATA = bytes(at * at % 251 for at in range(SIZE))
ALL_OPS: list[dict[str, Any]] = [
    {"op": "counteq", "imm": 42},
    {"op": "crc32c"},
    {"op": "fnv64"},
    {"op": "fnv64", "seed": "0000000000000007"},
    {"op": "xor", "imm": 255},
    {"op": "add", "imm": 1},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "object").write_bytes(DATA)
    (root / "empty").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def settings(root: Path) -> Settings:
    return Settings(
        region="here",
        file_roots=(root,),
        allow_private_sources=(ipaddress.ip_network("127.0.0.0/8"),),
        stall_timeout_s=5,
    )


@pytest.fixture(scope="module", params=["http", "file"])
def url(request: pytest.FixtureRequest, root: Path) -> Iterator[str]:
    """The object's URL."""
    if request.param == "file":
        yield str(root / "object")
    else:
        with serve_file(root / "object") as served:
            yield served


def run(settings: Settings, url: str, /, timeout: int = 20_000, **fields: Any) -> dict[str, Any]:
    answer = execute({"jobId": "j1", "program": {"data_url": url, **fields}, "timeout": timeout}, settings)
    assert list(RESPONSE.iter_errors(answer)) == []
    assert json.loads(json.dumps(answer)) == answer
    assert answer["jobId"] == "j1"
    return answer


def expected(ops: list[dict[str, Any]], data: bytes) -> list[dict[str, Any]]:
    parsed = parse_program({"data_url": "x", "ops": ops}).ops
    return [op.render(reference(op, data)) for op in parsed]


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, SIZE), (1, 1), (SIZE - 1, None), (SIZE - 1, 1), (262_143, 2), (100_003, 150_001), (SIZE, None),
     (SIZE, 0), (0, 0), (77, 0)],
)  # fmt: skip
def test_every_operation_over_a_range(settings: Settings, url: str, offset: int, length: int | None) -> None:
    answer = run(settings, url, ops=ALL_OPS, offset=offset, length=length)
    part = DATA[offset : None if length is None else offset + length]
    assert answer["success"] is True
    assert answer["results"] == expected(ALL_OPS, part)
    assert (answer["bytesProcessed"], answer["objectSize"], answer["region"]) == (len(part), SIZE, "here")
    assert answer["executionTimeMs"] >= answer["fetchTimeMs"] >= 0
    assert answer["memoryUsedMb"] > 0


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: "-".join(map(str, op.values())))
def test_one_operation_straight_in_the_program(settings: Settings, url: str, op: dict[str, Any]) -> None:
    answer = run(settings, url, offset=3, length=1000, **op)
    assert answer["results"] == expected([op], DATA[3:1003])
    assert ("imm" in answer["results"][0]) is (op["op"] in OPS_WITH_IMM)


def test_an_empty_range_is_every_operations_identity_or_seed(settings: Settings, url: str) -> None:
    values = [result["value"] for result in run(settings, url, ops=ALL_OPS, offset=5, length=0)["results"]]
    assert values == [0, 0, "cbf29ce484222325", "0000000000000007", 0, 0]


def test_an_empty_object(settings: Settings, root: Path) -> None:
    with serve_file(root / "empty") as served:
        for place in (served, str(root / "empty")):
            answer = run(settings, place, op="crc32c")
            assert (answer["results"][0]["value"], answer["bytesProcessed"], answer["objectSize"]) == (0, 0, 0)


def test_a_pinned_version_is_read_and_named(settings: Settings, url: str) -> None:
    etag = run(settings, url, op="crc32c", length=0)["etag"]
    assert run(settings, url, op="crc32c", etag=etag)["etag"] == etag
    answer = run(settings, url, op="crc32c", etag='"another"')
    assert answer["error"]["type"] == "source_changed"


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE + 1), (SIZE, 1), (SIZE + 1, None), (SIZE + 1, 0), ((1 << 53) - 1, 1 << 45)]
)
def test_past_the_end_is_an_error_that_names_the_size(
    settings: Settings, url: str, offset: int, length: int | None
) -> None:
    error = run(settings, url, op="crc32c", offset=offset, length=length)["error"]
    assert (error["type"], error["object_size"], error["retryable"]) == ("range_not_satisfiable", SIZE, False)
    assert str(SIZE) in error["message"]


def test_one_chunk_after_another_gives_the_value_of_all(settings: Settings, url: str) -> None:
    value = None
    for offset in range(0, SIZE, 70_000):
        answer = run(settings, url, op="fnv64", seed=value, offset=offset, length=min(70_000, SIZE - offset))
        value = answer["results"][0]["value"]
    assert value == run(settings, url, op="fnv64")["results"][0]["value"]


STATUSES = {
    "404 Not Found": ("source_not_found", False),
    "410 Gone": ("source_not_found", False),
    "403 Forbidden": ("source_failed", False),
    "503 Service Unavailable": ("source_failed", True),
    "500 Internal Server Error": ("source_failed", True),
    "204 No Content": ("source_failed", False),
}


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_source_answers_is_typed(settings: Settings, status: str) -> None:
    script = lambda exchange: exchange.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())  # noqa: E731
    with RawServer(script) as server:
        error = run(settings, server.url(), op="crc32c")["error"]
    assert (error["type"], error["retryable"]) == STATUSES[status]


def test_a_missing_file_is_not_found_and_one_outside_the_roots_is_forbidden(settings: Settings, root: Path) -> None:
    assert run(settings, str(root / "none"), op="crc32c")["error"]["type"] == "source_not_found"
    assert run(settings, "/etc/passwd", op="crc32c")["error"]["type"] == "forbidden_source"


@pytest.mark.parametrize(
    ("url", "error_type"),
    [
        ("http://127.0.0.1:9/object", "forbidden_source"),
        ("http://169.254.169.254/latest/meta-data/", "forbidden_source"),
        ("http://[::1]/object", "forbidden_source"),
        ("http://localhost/object", "forbidden_source"),
        ("ftp://example.com/object", "forbidden_source"),
        ("gopher://127.0.0.1/", "forbidden_source"),
        ("https://user:hunter2@example.com/object", "bad_program"),
        ("no url", "bad_program"),
        ("https://exa mple.com/", "bad_program"),
        ("s3://b", "bad_program"),
        ("/", "forbidden_source"),
        ("\x00", "bad_program"),
        ("☃", "bad_program"),
    ],
)
def test_a_hostile_url_is_refused(url: str, error_type: str) -> None:
    error = run(Settings(), url, op="crc32c")["error"]
    assert error["type"] == error_type
    assert "hunter2" not in json.dumps(error)


def test_a_source_that_falls_silent_ends_at_the_timeout(settings: Settings) -> None:
    def silent(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        exchange.wait(20)

    with RawServer(silent) as server:
        error = run(settings, server.url(), timeout=150, op="crc32c")["error"]
    assert (error["type"], error["retryable"]) == ("timeout", True)


def test_a_timeout_that_is_over_before_it_began(settings: Settings, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Deadline):
        @classmethod
        def after(cls, budget_s: float, *_: Any, **__: Any) -> Deadline:
            assert budget_s == 0.001
            return Deadline.after(-1)

    monkeypatch.setattr(executor, "Deadline", Late)
    assert run(settings, url, timeout=1, op="crc32c")["error"]["type"] == "timeout"


BAD_REQUESTS = [None, [], "request", 7, {}, {"program": {}}, {"program": {"op": "crc32c"}}, {"jobid": "j1"}, b"{}"]


@pytest.mark.parametrize("request_", [*BAD_REQUESTS, pytest.param({"timeout": HUGE}, id="huge")])
def test_a_malformed_request_is_a_bad_program(request_: object) -> None:
    answer = execute(request_, Settings())
    assert list(RESPONSE.iter_errors(answer)) == []
    assert answer["error"]["type"] == "bad_program"
    assert answer["error"]["field"]
    assert answer["jobId"] is None


def test_a_malformed_request_still_names_its_job() -> None:
    assert execute({"jobId": "j9", "program": None})["jobId"] == "j9"


@pytest.mark.parametrize("broken", ["open_source", "load_settings", "parse_request", "success"])
def test_what_has_no_type_is_internal_and_logged(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def fail(*args: object) -> None:
        raise LookupError("what is this?")

    monkeypatch.setattr(executor, broken, fail)
    request = {"jobId": "j1", "program": {"data_url": str(root / "object"), "op": "crc32c"}}
    answer = execute(request, None if broken == "load_settings" else settings)
    assert list(RESPONSE.iter_errors(answer)) == []
    assert answer["jobId"] == "j1"
    assert answer["error"] == {"type": "internal", "message": "LookupError: what is this?", "retryable": True}
    assert "LookupError" in caplog.text


def test_settings_are_read_from_the_environment_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACKETFS_FILE_ROOTS", str(root))
    monkeypatch.setenv("PACKETFS_REGION", "there")
    request = {"program": {"data_url": str(root / "object"), "op": "crc32c"}}
    assert execute(request)["region"] == "there"
    monkeypatch.setenv("PACKETFS_TIMEOUT_S", "never")
    error = execute(request)["error"]
    assert (error["type"], error["field"], error["retryable"]) == ("internal", "PACKETFS_TIMEOUT_S", False)


@patient
@given(json_values)
def test_any_json_gets_an_answer_of_the_contract(raw: object) -> None:
    answer = execute(raw, Settings())
    assert list(RESPONSE.iter_errors(answer)) == []
    assert answer["error"]["type"] == "bad_program"


@patient
@given(python_values | st.dictionaries(st.sampled_from(["jobId", "program", "timeout"]), python_values))
def test_so_does_anything_else(raw: object) -> None:
    answer = execute(raw, Settings())
    assert list(RESPONSE.iter_errors(answer)) == []
    assert answer["success"] is False


@patient
@given(request=nearly_requests, name=st.sampled_from(["object", "empty", "none"]))
def test_and_a_request_that_is_nearly_right(settings: Settings, root: Path, request: dict[str, Any], name: str) -> None:
    program = request["program"]
    if isinstance(program, dict) and isinstance(program.get("data_url"), str):  # else it might lead off this machine
        request = {**request, "program": {**program, "data_url": str(root / name)}}
    answer = execute(request, settings)
    assert list(RESPONSE.iter_errors(answer)) == []
    assert answer["success"] or answer["error"]["type"] != "internal"


@pytest.mark.parametrize("length", [None, 0, 1000])
def test_the_thread_may_be_run_anywhere_from_opening_the_source_on(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    told: list[object] = []

    @contextmanager
    def away(byte_count: int | None) -> Iterator[None]:
        told.append(byte_count)
        yield
        told.append("back")

    def opened(*given: Any) -> Any:
        told.append("open")
        return open_source(*given)

    monkeypatch.setattr(affinity, "away", away)
    monkeypatch.setattr(executor, "open_source", opened)
    assert run(settings, str(root / "object"), op="crc32c", length=length)["success"]
    assert told == [length, "open", "back"]


def test_memory_that_has_grown_is_seen(settings: Settings, root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from packetfs_compute.executor import execute;"
        "from packetfs_compute.settings import Settings;"
        "request = {'program': {'data_url': sys.argv[1], 'op': 'crc32c'}};"
        "settings = Settings(file_roots=(Path(sys.argv[1]).parent,));"
        "before = execute(request, settings)['memoryUsedMb']; held = b'x' * (200 << 20);"
        "print(execute(request, settings)['memoryUsedMb'] - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root / "object")], capture_output=True, text=True)
    assert 190 < int(done.stdout) < 210


def test_memory_is_this_processs_own_not_that_of_whoever_started_it(tmp_path: Path) -> None:
    """A large process starts a small one, as a test run or a supervisor does."""
    (tmp_path / "object").write_bytes(b"packetfs")
    code = (
        "import sys; from pathlib import Path; from packetfs_compute.executor import execute;"
        "from packetfs_compute.settings import Settings;"
        "request = {'program': {'data_url': sys.argv[1], 'op': 'crc32c'}};"
        "print(execute(request, Settings(file_roots=(Path(sys.argv[1]).parent,)))['memoryUsedMb'])"
    )
    run = f"subprocess.run([sys.executable, '-c', {code!r}, sys.argv[1]])"
    large = f"import subprocess, sys; held = b'x' * (200 << 20); {run}"
    done = subprocess.run([sys.executable, "-c", large, str(tmp_path / "object")], capture_output=True, text=True)
    assert 5 < int(done.stdout) < 100
