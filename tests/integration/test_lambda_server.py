"""The built zip in real environments of AWS's runtime client, behind the Invoke API: what it computes, and how it ends."""

import dataclasses
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from support.awslambda import LambdaServer
from support.lambdazip import COMMAND, ROOT, environment_variables, unpacked
from support.misbehaving import Exchange, RawServer, honest
from support.nginx import Nginx
from support.processes import STALL_S, alive, peak_memory_mib, wait_until
from support.reading import DATA, OPEN

from packetfs_compute import kernels
from packetfs_compute.executor import execute
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.aws_lambda import LambdaSubstrate

pytestmark = pytest.mark.integration

OPS = [{"op": "crc32c"}, {"op": "counteq", "imm": 0}]
PATH = "/2015-03-31/functions/packetfs-compute%3Alive/invocations"


def job(url: str, at: int = 0, timeout: int = 20_000, **more: Any) -> dict[str, Any]:
    return {"jobId": f"j{at}", "program": {"data_url": url, "ops": OPS, **more}, "timeout": timeout}


@pytest.fixture(autouse=True)
def _aws_keys(aws_keys: None) -> None:
    """Every test here may invoke."""


@pytest.fixture(scope="module")
def source() -> Iterator[RawServer]:
    """A good server of ``DATA``; ``/slow`` answers when it is closed, or after twenty seconds."""
    with RawServer(honest(DATA)) as server:
        server.routes["/slow"] = lambda exchange: exchange.wait(20)
        yield server


@contextmanager
def holding() -> Iterator[tuple[RawServer, list[int], threading.Event]]:
    """A source that keeps everyone waiting until it is told to go; the list holds how many are waiting."""
    lock, waiting, go, good = threading.Lock(), [0], threading.Event(), honest(DATA)

    def script(exchange: Exchange) -> bool:
        with lock:
            waiting[0] += 1
        go.wait(20)
        with lock:
            waiting[0] -= 1
        return bool(good(exchange))

    with RawServer(script) as server:
        try:
            yield server, waiting, go
        finally:
            go.set()


def client_of(server: LambdaServer, **more: Any) -> Any:
    """A plain client of boto3, which knows nothing of ours."""
    fields = {"endpoint_url": server.url, "region_name": server.region, "aws_access_key_id": server.key_id,
              "aws_secret_access_key": server.secret, **more}  # fmt: skip
    return boto3.session.Session().client("lambda", config=Config(retries={"total_max_attempts": 1}), **fields)


def asked(server: LambdaServer, event: object) -> dict[str, Any]:
    found = client_of(server).invoke(FunctionName="packetfs-compute", Payload=json.dumps(event))
    assert "FunctionError" not in found
    answer: dict[str, Any] = json.loads(found["Payload"].read())
    return answer


def test_a_job_gives_what_it_gives_here(lambda_server: LambdaServer, source: RawServer) -> None:
    substrate = lambda_server.substrate()
    for at, part in enumerate([{}, {"offset": 10, "length": 100}, {"offset": len(DATA)}, {"etag": '"v1"'}]):
        found = substrate.invoke(job(source.url(), at, **part))
        here = execute(job(source.url(), at, **part), OPEN)
        assert found["success"], found
        assert {key: found[key] for key in ("jobId", "results", "bytesProcessed", "objectSize", "etag")} == {
            key: here[key] for key in ("jobId", "results", "bytesProcessed", "objectSize", "etag")
        }
        assert (found["region"], found["cache"]) == ("us-east-1", None)
        assert 10 < found["memoryUsedMb"] < 150
    substrate.close()


@pytest.mark.parametrize(
    ("program", "kind"),
    [({"etag": '"v2"'}, "source_changed"), ({"length": len(DATA) + 1}, "range_not_satisfiable"),
     ({"data_url": "http://10.0.0.1/x"}, "forbidden_source"), ({"data_url": "s3://bucket/key"}, "forbidden_source"),
     ({"data_url": "file:///etc/passwd"}, "forbidden_source")],
)  # fmt: skip
def test_a_failure_comes_back_as_what_it_is(
    lambda_server: LambdaServer, source: RawServer, program: dict[str, Any], kind: str
) -> None:
    substrate = lambda_server.substrate()
    assert substrate.invoke(job(source.url(), **program))["error"]["type"] == kind
    substrate.close()


def test_its_health(lambda_server: LambdaServer) -> None:
    substrate = lambda_server.substrate()
    found = substrate.health(10)
    assert (found["status"], found["region"]) == ("healthy", "us-east-1")
    assert found["kernel"] == ", ".join(sorted(set(kernels.active().values())))
    substrate.close()


def test_a_batch(lambda_server: LambdaServer, source: RawServer) -> None:
    jobs = [job(source.url(), at, offset=at) for at in range(40)]
    answer = asked(lambda_server, {"jobs": jobs})
    assert [found["jobId"] for found in answer["results"]] == [f"j{at}" for at in range(40)]
    assert [found["results"][0]["value"] for found in answer["results"]] == [
        kernels.crc32c(DATA[at:]) for at in range(40)
    ]
    assert asked(lambda_server, {"jobs": [{}] * 65})["error"]["type"] == "bad_program"


def test_an_environment_is_cold_once_and_then_kept(tmp_path: Path, source: RawServer) -> None:
    with LambdaServer(tmp_path) as server:
        assert server.pids() == []
        colds = [asked(server, job(source.url()))["coldStart"] for _ in range(4)]
        assert colds == [True, False, False, False]
        assert len(server.pids()) == 1


def test_environments_start_as_they_are_needed_and_past_their_number_it_is_busy(tmp_path: Path) -> None:
    with LambdaServer(tmp_path, environments=3) as server, holding() as (source, waiting, go):
        substrate = server.substrate()
        with ThreadPoolExecutor(3) as threads:
            held = [threads.submit(substrate.invoke, job(source.url(), at)) for at in range(3)]
            wait_until(lambda: waiting[0] == 3, "three attempts at the source")
            assert len(server.pids()) == 3
            for at in range(10):
                error = substrate.invoke(job(source.url(), 10 + at))["error"]
                assert (error["type"], error["retry_after_s"], error["retryable"]) == ("busy", 3, True)
                assert "ReservedFunctionConcurrentInvocationLimitExceeded" in error["message"]
            go.set()
            assert all(one.result()["success"] for one in held)
        assert substrate.invoke(job(source.url()))["success"]
        assert len(server.pids()) == 3
        substrate.close()


def test_many_at_once(lambda_server: LambdaServer, source: RawServer) -> None:
    substrate = lambda_server.substrate()
    with ThreadPoolExecutor(lambda_server.most) as threads:
        found = list(threads.map(substrate.invoke, [job(source.url(), at) for at in range(200)]))
    assert [one["jobId"] for one in found] == [f"j{at}" for at in range(200)]
    assert {one["results"][0]["value"] for one in found} == {kernels.crc32c(DATA)}
    assert len(lambda_server.pids()) <= lambda_server.most
    substrate.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_environment_that_dies_under_an_attempt(tmp_path: Path, source: RawServer, how: signal.Signals) -> None:
    with LambdaServer(tmp_path) as server, holding() as (slow, waiting, _), ThreadPoolExecutor(1) as threads:
        substrate = server.substrate()
        running = threads.submit(substrate.invoke, job(slow.url()))
        wait_until(lambda: waiting[0] == 1, "the attempt at the source")
        (pid,) = server.pids()
        os.kill(pid, how)
        error = running.result()["error"]
        assert (error["type"], error["retryable"]) == ("internal", True)
        assert "Runtime.ExitError" in error["message"]
        assert ("hint" in error) is (how == signal.SIGKILL)
        assert substrate.invoke(job(source.url()))["success"]
        assert server.pids() != [pid]
        substrate.close()


def test_an_idle_environment_that_died_is_replaced_unseen(tmp_path: Path, source: RawServer) -> None:
    with LambdaServer(tmp_path) as server:
        substrate = server.substrate()
        assert substrate.invoke(job(source.url()))["success"]
        os.kill(server.pids()[0], signal.SIGKILL)
        wait_until(lambda: server.pids() == [], "the end of the environment")
        assert substrate.invoke(job(source.url()))["success"]
        substrate.close()


def test_an_attempt_that_would_outlast_the_function_times_out_by_itself(tmp_path: Path, source: RawServer) -> None:
    """The handler sees to it, so that the environment is not ended, nor what it has kept lost."""
    with LambdaServer(tmp_path, timeout_s=2.0) as server:
        substrate = server.substrate()
        assert substrate.invoke(job(source.url()))["success"]
        pids = server.pids()
        error = substrate.invoke(job(source.url("/slow")))["error"]
        assert (error["type"], error["retryable"]) == ("timeout", True)
        assert "Lambda ended" not in error["message"]
        assert server.pids() == pids
        batch = asked(server, {"jobs": [job(source.url("/slow"), at) for at in range(8)]})
        assert [found["error"]["type"] for found in batch["results"]] == ["timeout"] * 8
        assert server.pids() == pids
        substrate.close()


def test_an_environment_that_is_stuck_is_ended_by_the_functions_timeout(tmp_path: Path) -> None:
    with LambdaServer(tmp_path, timeout_s=2.0) as server, holding() as (slow, waiting, go):
        substrate = server.substrate()
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(substrate.invoke, job(slow.url()))
            wait_until(lambda: waiting[0] == 1, "the attempt at the source")
            (pid,) = server.pids()
            server.freeze(pid)
            error = running.result()["error"]
        assert (error["type"], error["retryable"]) == ("timeout", True)
        assert "Task timed out after 2.00 seconds" in error["message"]
        assert not alive(pid)
        go.set()
        assert substrate.invoke(job(slow.url()))["success"]
        substrate.close()


def test_the_callers_deadline_holds_where_the_service_is_stuck(tmp_path: Path, source: RawServer) -> None:
    with LambdaServer(tmp_path, timeout_s=30.0) as server:
        substrate = server.substrate()
        assert substrate.invoke(job(source.url()))["success"]
        server.freeze(server.pids()[0])
        started = time.monotonic()
        assert substrate.invoke(job(source.url(), timeout=500))["error"]["type"] == "timeout"
        assert time.monotonic() - started < 0.5 + STALL_S
        substrate.close()


def test_a_service_that_is_gone_and_comes_back(tmp_path: Path, source: RawServer) -> None:
    with LambdaServer(tmp_path) as server, holding() as (slow, waiting, _), ThreadPoolExecutor(1) as threads:
        substrate = server.substrate()
        assert substrate.invoke(job(source.url()))["success"]
        running = threads.submit(substrate.invoke, job(slow.url()))
        wait_until(lambda: waiting[0] == 1, "the attempt at the source")
        pids = server.pids()
        server.kill()
        assert running.result()["error"]["type"] == "internal"
        assert not any(alive(pid) for pid in pids)
        error = substrate.invoke(job(source.url()))["error"]
        assert (error["type"], error["retryable"]) == ("internal", True)
        server.start()
        assert substrate.invoke(job(source.url()))["success"]
        substrate.close()


@pytest.mark.parametrize(
    "function", ["other", "packetfs-compute:v9", "arn:aws:lambda:us-east-1:123456789012:function:no"]
)
def test_no_such_function(lambda_server: LambdaServer, source: RawServer, function: str) -> None:
    spec = dataclasses.replace(lambda_server.spec(), function=function)
    substrate = LambdaSubstrate(spec, Settings())
    error = substrate.invoke(job(source.url()))["error"]
    assert (error["type"], error["retryable"]) == ("internal", False)
    assert "ResourceNotFoundException (404)" in error["message"]
    substrate.close()


def test_an_arn_is_a_function_too(lambda_server: LambdaServer, source: RawServer) -> None:
    arn = "arn:aws:lambda:us-east-1:123456789012:function:packetfs-compute:live"
    substrate = LambdaSubstrate(dataclasses.replace(lambda_server.spec(), function=arn, region=None), Settings())
    assert substrate.invoke(job(source.url()))["success"]
    substrate.close()


def test_six_megabytes_and_no_more(lambda_server: LambdaServer) -> None:
    client, invoked = client_of(lambda_server), lambda_server.invoked
    fits = b'"' + b"x" * ((6 << 20) - 2) + b'"'
    answer = json.loads(client.invoke(FunctionName="packetfs-compute", Payload=fits)["Payload"].read())
    assert answer["error"]["type"] == "bad_program"
    with pytest.raises(ClientError) as caught:
        client.invoke(FunctionName="packetfs-compute", Payload=fits + b" ")
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert lambda_server.invoked == invoked + 1


WRONG: dict[str, dict[str, Any]] = {
    "another secret": {"AWS_SECRET_ACCESS_KEY": "x" * 40},
    "another key": {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"},
    "a token that is none": {"AWS_SESSION_TOKEN": "token"},
}


@pytest.mark.parametrize("name", WRONG)
def test_who_has_no_key_is_refused(
    lambda_server: LambdaServer, source: RawServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in WRONG[name].items():
        monkeypatch.setenv(variable, value)
    heads, invoked = len(source.heads), lambda_server.invoked
    substrate = lambda_server.substrate()
    found = substrate.invoke(job(source.url()))
    if name == "a token that is none":  # it is signed with the rest, and nobody here knows what it should be
        assert found["success"]
    else:
        assert (found["error"]["type"], found["error"]["retryable"]) == ("unauthorized", False)
        assert "lambda:InvokeFunction" in found["error"]["hint"]
        assert (len(source.heads), lambda_server.invoked) == (heads, invoked)
    substrate.close()


def test_another_region_is_refused(lambda_server: LambdaServer, source: RawServer) -> None:
    substrate = LambdaSubstrate(dataclasses.replace(lambda_server.spec(), region="eu-west-1"), Settings())
    assert substrate.invoke(job(source.url()))["error"]["type"] == "unauthorized"
    substrate.close()


class Signed:
    """A signed invoke as its parts, to be sent as they are."""

    def __init__(self, server: LambdaServer, at_s: float | None = None) -> None:
        self.method, self.path = "POST", PATH
        self.body = json.dumps({"health": True}).encode()
        request = AWSRequest("POST", server.url + PATH, {"X-Amz-Invocation-Type": "RequestResponse"}, self.body)
        auth = SigV4Auth(Credentials(server.key_id, server.secret), "lambda", server.region)
        if at_s is None:
            auth.add_auth(request)
        else:
            moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))
            request.context["timestamp"] = request.headers["X-Amz-Date"] = moment
            signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
            auth._inject_signature_to_request(request, signature)
        self.fields = dict(request.headers.items())
        self.fields["Host"] = f"127.0.0.1:{server.port}"

    def send(self, connection: http.client.HTTPConnection) -> int:
        connection.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**self.fields, "Content-Length": str(len(self.body))}.items():
            connection.putheader(name, value)
        connection.endheaders(self.body)
        answer = connection.getresponse()
        answer.read()
        return answer.status


@pytest.mark.parametrize(
    ("shift_s", "status"), [(0, 200), (-120, 200), (120, 200), (-320, 403), (320, 403), (-86_400, 403)]
)
def test_a_signature_has_its_time(lambda_server: LambdaServer, shift_s: int, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", lambda_server.port, timeout=20)
    assert Signed(lambda_server, time.time() + shift_s).send(connection) == status
    connection.close()


def flip(text: str, rng: random.Random, alphabet: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice([char for char in alphabet if char != text[at]]) + text[at + 1 :]


def flip_authorization(signed: Signed, rng: random.Random) -> None:
    parts = signed.fields["Authorization"].split("Signature=")
    if rng.random() < 0.7:
        signed.fields["Authorization"] = parts[0] + "Signature=" + flip(parts[1], rng, "0123456789abcdef")
    else:
        signed.fields["Authorization"] = flip(signed.fields["Authorization"], rng, "abcdefXYZ0189/=,; ")


def shift_date(signed: Signed, rng: random.Random) -> None:
    moment = signed.fields["X-Amz-Date"]
    signed.fields["X-Amz-Date"] = time.strftime(
        "%Y%m%dT%H%M%SZ", time.gmtime(time.time() - rng.choice([2, 5, 60, 200, 400, 90_000]) - rng.randrange(100))
    )
    assert signed.fields["X-Amz-Date"] != moment


def change_body(signed: Signed, rng: random.Random) -> None:
    kind = rng.randrange(3)
    text = signed.body.decode()
    signed.body = [flip(text, rng, 'abc{}": '), text + " ", text[:-1]][kind].encode()


def change_field(signed: Signed, rng: random.Random) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        signed.fields["X-Amz-Invocation-Type"] = "Event"
    elif kind == 1:
        signed.fields["X-Amz-Log-Type"] = rng.choice(["Tail", "None"])  # added, and not signed
    elif kind == 2:
        signed.fields["Host"] = rng.choice(["lambda.us-east-1.amazonaws.com", "127.0.0.1", "localhost:1"])
    else:
        del signed.fields["X-Amz-Invocation-Type"]


def change_line(signed: Signed, rng: random.Random) -> None:
    if rng.random() < 0.3:
        signed.method = "GET"
    else:
        signed.path = rng.choice([PATH + "?Qualifier=1", PATH.replace("live", "test"), PATH.replace("%3A", ":") + "/",
                                  PATH.replace("invocations", "invoke-async"), PATH + "/x"])  # fmt: skip


def drop(signed: Signed, rng: random.Random) -> None:
    kind = rng.randrange(4)
    name, value = "Authorization", signed.fields["Authorization"]
    if kind == 0:
        del signed.fields[name]
    elif kind == 1:
        signed.fields[name] = value.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1")
    elif kind == 2:
        signed.fields[name] = value.replace("SignedHeaders=host;", "SignedHeaders=")
    else:
        signed.fields[name] = value.replace("us-east-1", "us-west-2")


TAMPERINGS: list[Callable[[Signed, random.Random], None]] = [
    flip_authorization, shift_date, change_body, change_field, change_line, drop,
]  # fmt: skip


def test_of_ten_thousand_tampered_invokes_none_is_accepted(lambda_server: LambdaServer) -> None:
    rng = random.Random(20261124)
    connection = http.client.HTTPConnection("127.0.0.1", lambda_server.port, timeout=20)
    assert Signed(lambda_server).send(connection) == 200
    invoked, statuses = lambda_server.invoked, Counter[int]()
    for at in range(10_000):
        signed = Signed(lambda_server)
        TAMPERINGS[at % len(TAMPERINGS)](signed, rng)
        statuses[signed.send(connection)] += 1
    assert statuses == {403: 10_000}
    assert lambda_server.invoked == invoked
    assert Signed(lambda_server).send(connection) == 200
    connection.close()


def test_memory_is_flat(tmp_path: Path, nginx: Nginx) -> None:
    with (nginx.www / "lambda-sparse.bin").open("wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    with LambdaServer(tmp_path, environments=1) as server:
        substrate = server.substrate()
        assert substrate.invoke(job(nginx.url("lambda-sparse.bin"), length=1 << 20))["success"]
        (pid,) = server.pids()
        before = peak_memory_mib(pid)
        answer = substrate.invoke(job(nginx.url("lambda-sparse.bin"), timeout=60_000))
        assert (answer["bytesProcessed"], answer["results"][1]["value"]) == (1 << 30, 1 << 30)
        assert server.pids() == [pid]
        after = peak_memory_mib(pid)
        seconds = answer["executionTimeMs"] / 1000
        print(f"peak resident memory after 1 MiB: {before:.1f} MiB, after 1 GiB: {after:.1f} MiB, in {seconds:.1f} s")
        assert after < 100
        assert after - before < 8
        substrate.close()


def emulator() -> str:
    machine = {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    found = [*(ROOT / ".tools").glob(f"lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}")]
    if not found:
        if os.environ.get("CI"):
            pytest.fail("AWS's emulator is missing: make kit")
        pytest.skip("AWS's emulator is missing: make kit")
    return str(found[0])


def test_under_awss_own_emulator(tmp_path: Path, source: RawServer) -> None:
    """It knows one function, ``function``, one event at a time, and no signature; it is AWS's code all the same."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    variables = environment_variables(tmp_path, AWS_LAMBDA_FUNCTION_TIMEOUT="3")
    with (tmp_path / "rie.log").open("wb") as log:
        process = subprocess.Popen(
            [emulator(), "--runtime-interface-emulator-address", f"127.0.0.1:{ports[0]}",
             "--runtime-api-address", f"127.0.0.1:{ports[1]}", *COMMAND],
            env=variables, cwd=unpacked(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{ports[0]}"
        spec = SubstrateSpec("rie", "lambda", url=url, function="function", region="us-east-1")
        substrate = LambdaSubstrate(spec, Settings())
        wait_until(lambda: process.poll() is None and reachable(ports[0]), "the emulator")
        assert substrate.health(20)["status"] == "healthy"
        found = substrate.invoke(job(source.url()))
        assert found["results"] == [{"op": "crc32c", "value": kernels.crc32c(DATA)},
                                    {"op": "counteq", "imm": 0, "value": DATA.count(0)}]  # fmt: skip
        assert substrate.invoke(job(source.url(), etag='"v2"'))["error"]["type"] == "source_changed"
        started = time.monotonic()
        assert substrate.invoke(job(source.url("/slow")))["error"]["type"] == "timeout"
        assert time.monotonic() - started < 3 + STALL_S
        assert substrate.invoke(job(source.url()))["success"]
        substrate.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
