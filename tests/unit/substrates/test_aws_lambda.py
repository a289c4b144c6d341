"""Lambda's Invoke API, as a real server speaks it by script: what each of its answers becomes, and by when."""

import dataclasses
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from support.processes import STALL_S

from packetfs_compute.deadline import Token, cancelled_by
from packetfs_compute.errors import (
    AttemptTimeout,
    Busy,
    ConfigurationError,
    ForbiddenSource,
    Internal,
    JobError,
    SourceFailed,
    Unauthorized,
)
from packetfs_compute.executor import health
from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.places import Prices, SubstrateSpec
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Capabilities
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import aws_lambda
from packetfs_compute.substrates.aws_lambda import LambdaSubstrate
from packetfs_compute.wire import ComputeRequest, Measured, failure, success

pytestmark = pytest.mark.usefixtures("aws_keys")

ASKED = ComputeRequest(Program("https://host/object", (Op("crc32c"), Op("counteq", 42)), 0, 100), "j1", 5000)
REQUEST = ASKED.to_wire()
GOOD = success(ASKED, [7, 3], Measured(100, 900, '"v1"', 0.01, 0.009, "us-east-1", 34, None))
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:compute"

Answer = tuple[int, dict[str, str], bytes]
Script = Callable[["Handler"], Answer | None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    aws: "Aws"

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.aws.requests.append((self.path, dict(self.headers), self.body))
        self.aws.ports.add(self.client_address[1])
        found = self.aws.script(self)
        if found is None:
            self.close_connection = True
            return
        status, fields, body = found
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Amzn-RequestId": "r1", **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Aws:
    """A server whose script answers every request; ``requests`` are all that came, on connections from ``ports``."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.ports: set[int] = set()
        self.closing = threading.Event()
        self._server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"aws": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def says(status: int, document: object = b"", **fields: str) -> Script:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda _: (status, {name.replace("_", "-"): value for name, value in fields.items()}, body)


def crashed(kind: str | None, message: str, **more: str) -> Script:
    said = {"errorMessage": message, **({"errorType": kind} if kind else {}), **more}
    return says(200, said, X_Amz_Function_Error="Unhandled")


def refused(status: int, code: str, message: str = "why", **fields: str) -> Script:
    return says(status, {"Type": "User", "message": message}, x_amzn_ErrorType=code, **fields)


@pytest.fixture
def new() -> Iterator[Callable[..., tuple[LambdaSubstrate, Aws]]]:
    """Make a substrate whose AWS answers by ``script``."""
    made: list[tuple[LambdaSubstrate, Aws]] = []

    def make(script: Script, **more: Any) -> tuple[LambdaSubstrate, Aws]:
        aws = Aws(script)
        fields = {"url": aws.url, "region": "us-east-1", "function": "compute:live", **more}
        made.append((LambdaSubstrate(SubstrateSpec("far", "lambda", **fields), Settings(), now=lambda: 960.0), aws))
        return made[-1]

    yield make
    for substrate, aws in made:
        substrate.close()
        aws.close()


At = Callable[..., tuple[LambdaSubstrate, Aws]]


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[LambdaSubstrate, Aws]]:
    """One for many tests: it takes boto3 a while to make a client."""
    aws = Aws(says(500))
    spec = SubstrateSpec("far", "lambda", url=aws.url, region="us-east-1", function="compute:live")
    substrate = LambdaSubstrate(spec, Settings(), now=lambda: 960.0)
    yield substrate, aws
    substrate.close()
    aws.close()


@pytest.fixture
def at(shared: tuple[LambdaSubstrate, Aws]) -> At:
    """Have the shared one's AWS answer by ``script``."""

    def use(script: Script) -> tuple[LambdaSubstrate, Aws]:
        substrate, aws = shared
        aws.script = script
        aws.requests.clear()
        return substrate, aws

    return use


def test_a_good_answer(at: At) -> None:
    substrate, _ = at(says(200, {**GOOD, "coldStart": True}))
    assert substrate.invoke(REQUEST) == GOOD


def test_what_is_sent(at: At) -> None:
    substrate, aws = at(says(200, GOOD))
    substrate.invoke(REQUEST)
    ((path, fields, body),) = aws.requests
    assert path == "/2015-03-31/functions/compute%3Alive/invocations"
    assert json.loads(body) == REQUEST
    assert fields["X-Amz-Invocation-Type"] == "RequestResponse"
    assert fields["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=testing/")
    assert "/us-east-1/lambda/aws4_request" in fields["Authorization"]


@pytest.mark.parametrize("function", [ARN, ARN + ":live"])
def test_an_arn_says_where_it_is(new: At, function: str) -> None:
    substrate, aws = new(says(200, GOOD), function=function, region=None)
    assert substrate.invoke(REQUEST) == GOOD
    assert substrate.capabilities.region == "eu-west-1"
    path, fields, _ = aws.requests[0]
    assert path == f"/2015-03-31/functions/{function.replace(':', '%3A')}/invocations"
    assert "/eu-west-1/lambda/" in fields["Authorization"]


def test_a_failure_of_the_contract_is_the_answer(at: At) -> None:
    refusal = failure("j1", ForbiddenSource("a private address", {"field": "program.data_url"}), 0.001)
    substrate, _ = at(says(200, {**refusal, "coldStart": False}))
    assert substrate.invoke(REQUEST) == refusal
    failed = failure("j1", SourceFailed("silent", {"retry_after_s": 4}), 0.001)
    assert at(says(200, failed))[0].invoke(REQUEST)["error"] == failed["error"]


@pytest.mark.parametrize(
    "document",
    [b"", b"null", b"{}", b"[]", b"<html>", b"\xff", b'{"success": NaN}', b"[" * 100_000, {**GOOD, "jobId": "j2"},
     {**GOOD, "bytesProcessed": 99}, {**GOOD, "results": GOOD["results"][::-1]}],
)  # fmt: skip
def test_what_cannot_be_the_answer(at: At, document: object) -> None:
    error = at(says(200, document))[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", True)
    assert "cannot be trusted" in error["message"]


CRASHES: dict[str, tuple[Script, str, bool, str]] = {
    "timeout": (crashed("Sandbox.Timedout", "RequestId: 1 Error: Task timed out after 3.00 seconds"), "timeout", True,
                "Task timed out after 3.00 seconds"),
    "timeout, as it was said before": (crashed(None, "2026-11-24T00:00:00Z 1 Task timed out after 3.00 seconds"),
                                       "timeout", True, "Task timed out"),
    "exit": (crashed("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: exit status 1"), "internal",
             True, "Runtime.ExitError"),
    "killed": (crashed("Runtime.ExitError", "Runtime exited with error: signal: killed"), "internal", True, "killed"),
    "out of memory": (crashed("Runtime.OutOfMemory", "Runtime exited"), "internal", True, "Runtime.OutOfMemory"),
    "no module": (crashed("Runtime.ImportModuleError", "Unable to import module 'handler'"), "internal", False,
                  "Unable to import"),
    "no handler": (crashed("Runtime.HandlerNotFound", "Handler 'handler' missing"), "internal", False, "missing"),
    "another zip": (crashed("Runtime.UserCodeSyntaxError", "Syntax error in module"), "internal", False, "Syntax"),
    "raised": (crashed("ValueError", "no", stackTrace="x"), "internal", True, "ValueError: no"),
    "too long": (crashed("Function.ResponseSizeTooLarge", "Response payload size exceeded"), "too_large", False,
                 "exceeded"),
    "says nothing": (says(200, b"", X_Amz_Function_Error="Unhandled"), "internal", True, "does not say why"),
    "says null": (says(200, b"null", X_Amz_Function_Error="Unhandled"), "internal", True, "does not say why"),
    "says no JSON": (says(200, b"<x>", X_Amz_Function_Error="Unhandled"), "internal", True, "no JSON"),
    "looks like an answer": (says(200, GOOD, X_Amz_Function_Error="Handled"), "internal", True, "does not say why"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRASHES)
def test_an_environment_that_ended_without_an_answer(at: At, name: str) -> None:
    script, kind, retryable, words = CRASHES[name]
    error = at(script)[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == (kind, retryable)
    assert words in error["message"]
    assert ("hint" in error) is (name in ("killed", "out of memory", "no module", "no handler", "another zip"))


def test_their_words_are_made_fit_to_be_shown(at: At) -> None:
    error = at(crashed("Error\x1b[31m", "a\nb\x00" + "c" * 10_000))[0].invoke(REQUEST)["error"]
    assert error["message"].isprintable()
    assert len(error["message"]) < 700
    error = at(refused(500, "Oops", "a\nb" + "c" * 10_000))[0].invoke(REQUEST)["error"]
    assert error["message"].isprintable()
    assert len(error["message"]) < 500


REFUSALS = [
    (403, "AccessDeniedException", "unauthorized", False, "lambda:InvokeFunction"),
    (403, "UnrecognizedClientException", "unauthorized", False, "lambda:InvokeFunction"),
    (403, "InvalidSignatureException", "unauthorized", False, "lambda:InvokeFunction"),
    (400, "ExpiredTokenException", "unauthorized", False, "lambda:InvokeFunction"),
    (400, "IncompleteSignatureException", "unauthorized", False, "lambda:InvokeFunction"),
    (404, "ResourceNotFoundException", "internal", False, "deployed"),
    (413, "RequestTooLargeException", "too_large", False, None),
    (413, "SerializedRequestEntityTooLargeException", "too_large", False, None),
    (400, "InvalidParameterValueException", "internal", False, None),
    (400, "InvalidRequestContentException", "internal", False, None),
    (415, "UnsupportedMediaTypeException", "internal", False, None),
    (408, "SnapStartTimeoutException", "internal", True, None),
    (409, "ResourceConflictException", "internal", True, None),
    (409, "SnapStartNotReadyException", "internal", True, None),
    (500, "ServiceException", "internal", True, None),
    (502, "EC2ThrottledException", "internal", True, None),
    (502, "ENILimitReachedException", "internal", True, None),
    (502, "ResourceNotReadyException", "internal", True, None),
    (502, "EC2AccessDeniedException", "internal", False, None),
    (502, "InvalidZipFileException", "internal", False, None),
    (502, "InvalidRuntimeException", "internal", False, None),
    (502, "KMSAccessDeniedException", "internal", False, None),
    (503, "Nameless", "internal", True, None),
]


@pytest.mark.parametrize(("status", "code", "kind", "retryable", "hint"), REFUSALS, ids=str)
def test_what_aws_refuses(at: At, status: int, code: str, kind: str, retryable: bool, hint: str | None) -> None:
    substrate, aws = at(refused(status, code))
    answer = substrate.invoke(REQUEST)
    error = answer["error"]
    assert (answer["jobId"], error["type"], error["retryable"]) == ("j1", kind, retryable)
    assert f"{code} ({status}): why" in error["message"]
    assert hint is None or hint in error["hint"]
    assert len(aws.requests) == 1  # that is the dispatcher's to try again


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("0", 0), ("86400", 300), ("soon", 1), ("-1", 1), ("", 1), (None, 1)]
)
def test_no_room(at: At, value: str | None, seconds: float) -> None:
    said = {"message": "Rate Exceeded.", "Reason": "ConcurrentInvocationLimitExceeded"}
    fields = {} if value is None else {"Retry_After": value}
    substrate, aws = at(says(429, said, x_amzn_ErrorType="TooManyRequestsException", **fields))
    error = substrate.invoke(REQUEST)["error"]
    assert (error["type"], error["retry_after_s"], error["retryable"]) == ("busy", seconds, True)
    assert "ConcurrentInvocationLimitExceeded" in error["message"]
    assert len(aws.requests) == 1


def test_a_throttling_that_is_no_429(at: At) -> None:
    assert at(refused(400, "ThrottlingException"))[0].invoke(REQUEST)["error"]["type"] == "busy"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>no</html>", b"\xff\x00", b"[]", b"null", b"[" * 100_000, b'{"message": []}', b'{"__type": 7, "code": {}}',
     b'{"Error": {"Code": 3}}', b'{"message": NaN}'],
)  # fmt: skip
@pytest.mark.parametrize(("status", "retryable"), [(502, True), (400, False)])
def test_a_refusal_that_is_not_awss(at: At, status: int, retryable: bool, body: bytes) -> None:
    error = at(says(status, body))[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", retryable)


def drip(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    while not handler.aws.closing.wait(0.1):
        handler.wfile.write(b" ")


SLOW: dict[str, Script] = {
    "silence": lambda handler: (handler.aws.closing.wait(20), None)[1],
    "a drip": drip,
}


@pytest.mark.parametrize("name", SLOW)
def test_an_attempt_ends_at_its_deadline(at: At, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    substrate, aws = at(says(200, GOOD))
    substrate.invoke(REQUEST)  # the client is made
    monkeypatch.setattr(aws_lambda, "_MARGIN_S", 0.3)
    aws.script = SLOW[name]
    started = time.monotonic()
    error = substrate.invoke({**REQUEST, "timeout": 200})["error"]
    assert (error["type"], error["retryable"]) == ("timeout", True)
    assert 0.45 <= time.monotonic() - started < 0.5 + STALL_S


@pytest.mark.parametrize("name", SLOW)
def test_an_invocation_of_a_cancelled_job_is_waited_for_no_longer(at: At, name: str) -> None:
    substrate, aws = at(says(200, GOOD))
    token = Token()
    aws.script = lambda handler: (threading.Timer(0.1, token.cancel).start(), SLOW[name](handler))[1]
    with cancelled_by(token):
        assert substrate.invoke({**REQUEST, "timeout": 60_000})["error"]["type"] == "cancelled"
    aws.script = says(200, GOOD)
    assert substrate.invoke(REQUEST) == GOOD


def test_the_network_and_a_new_environment_have_their_time_too(at: At) -> None:
    substrate, _ = at(lambda handler: (time.sleep(0.5), (200, {}, json.dumps(GOOD).encode()))[1])
    assert substrate.invoke({**REQUEST, "timeout": 100}) == GOOD


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    spec = SubstrateSpec("far", "lambda", url=f"http://127.0.0.1:{port}", region="us-east-1", function="compute")
    error = LambdaSubstrate(spec, Settings()).invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", True)
    assert "Connection refused" in error["message"]


def test_a_connection_that_is_cut(at: At) -> None:
    error = at(lambda _: None)[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", True)


def test_an_answer_without_end(at: At) -> None:
    error = at(says(200, b" " * 2_000_000))[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", True)
    assert "longer than" in error["message"]


def test_a_request_that_is_too_long_is_not_sent(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_lambda, "_MAX_PAYLOAD", len(json.dumps(REQUEST)) - 1)
    substrate, aws = at(says(200, GOOD))
    assert substrate.invoke(REQUEST)["error"]["type"] == "too_large"
    assert aws.requests == []
    monkeypatch.setattr(aws_lambda, "_MAX_PAYLOAD", len(json.dumps(REQUEST)))
    assert substrate.invoke(REQUEST) == GOOD


@pytest.mark.parametrize("request_", [{}, {"jobId": "j1"}, {**REQUEST, "jobId": "a b"}, {**REQUEST, "timeout": 0}])
def test_a_request_that_is_none_is_not_sent(at: At, request_: dict[str, Any]) -> None:
    substrate, aws = at(says(200, GOOD))
    assert substrate.invoke(request_)["error"]["type"] == "bad_program"
    assert aws.requests == []


def test_without_credentials(new: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    substrate, aws = new(says(200, GOOD))
    error = substrate.invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("unauthorized", False)
    assert "AWS_ACCESS_KEY_ID" in error["hint"]
    assert aws.requests == []


def test_without_a_region(new: At, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    error = new(says(200, GOOD), region=None)[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", False)
    assert "region" in error["message"]
    assert "AWS_REGION" in error["hint"]


def test_a_profile_that_is_none(new: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    error = new(says(200, GOOD))[0].invoke(REQUEST)["error"]
    assert (error["type"], error["retryable"]) == ("internal", False)
    assert "AWS_PROFILE" in error["hint"]


def test_connections_are_kept_and_shared(new: At) -> None:
    substrate, aws = new(says(200, GOOD), slots=4)
    with ThreadPoolExecutor(4) as threads:
        assert all(found == GOOD for found in threads.map(substrate.invoke, [REQUEST] * 100))
    assert len(aws.requests) == 100
    assert len(aws.ports) <= 4


def test_the_client_is_made_once_by_whichever_thread(new: At, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = boto3.session.Session

    def session() -> object:
        made.append(1)
        time.sleep(0.1)
        return original()

    monkeypatch.setattr(boto3.session, "Session", session)
    substrate, _ = new(says(200, GOOD))
    with ThreadPoolExecutor(8) as threads:
        assert all(found == GOOD for found in threads.map(substrate.invoke, [REQUEST] * 8))
    assert len(made) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_makes_a_client_of_its_own(new: At) -> None:
    substrate, aws = new(says(200, GOOD))
    assert substrate.invoke(REQUEST) == GOOD
    substrate._api._lock.acquire()  # as another thread of the parent may hold it at that moment
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os._exit(0 if substrate.invoke(REQUEST) == GOOD else 1)
        finally:
            os._exit(2)
    substrate._api._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert substrate.invoke(REQUEST) == GOOD
    assert len(aws.ports) == 2


def test_each_attempt_has_a_deadline_of_its_own(new: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_lambda, "_MARGIN_S", 0.3)

    def script(handler: Handler) -> Answer:
        handler.aws.closing.wait(1.0)
        return 200, {}, json.dumps({**GOOD, "jobId": json.loads(handler.body)["jobId"]}).encode()

    substrate, _ = new(script)
    both = threading.Barrier(2, timeout=20)
    # Neither sends before both have begun.
    substrate._api._made().boto3.meta.events.register("before-sign.lambda.Invoke", lambda **_: both.wait() and None)
    with ThreadPoolExecutor(2) as threads:
        for first, second in [(100, 9000), (9000, 100)]:
            attempts = {}
            for timeout in (first, second):
                attempts[timeout] = threads.submit(
                    substrate.invoke, {**REQUEST, "jobId": f"j{timeout}", "timeout": timeout}
                )
                time.sleep(0.1)
            assert attempts[100].result()["error"]["type"] == "timeout"
            assert attempts[9000].result()["success"]


def test_no_secret_is_shown(new: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws")
    substrate, aws = new(refused(403, "InvalidSignatureException"))
    answer = substrate.invoke(REQUEST)
    assert "a-secret-of-aws" not in repr(substrate) + str(vars(substrate)) + json.dumps(answer) + str(aws.requests)


def test_its_health(at: At) -> None:
    found = health(Settings(region="us-east-1"))
    substrate, aws = at(says(200, {**found, "coldStart": True}))
    assert substrate.health(2) == found
    assert json.loads(aws.requests[0][2]) == {"health": True}


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (says(200, {"status": "healthy"}), Internal),
        (says(200, b"ok"), Internal),
        (crashed("Runtime.ImportModuleError", "no"), Internal),
        (refused(429, "TooManyRequestsException"), Busy),
        (refused(403, "AccessDeniedException"), Unauthorized),
        (SLOW["silence"], AttemptTimeout),
    ],
)
def test_it_is_not_well(at: At, script: Script, kind: type[JobError]) -> None:
    with pytest.raises(JobError) as caught:
        at(script)[0].health(0.5)
    assert type(caught.value) is kind


def test_what_it_declares() -> None:
    spec = SubstrateSpec("lambda", "lambda", function=ARN)
    declared = LambdaSubstrate(spec, Settings()).capabilities
    assert declared == Capabilities(
        "lambda", "own", 1769, MAX_RANGE_BYTES, 900.0, frozenset({"http", "https"}), "lambda", "aws", "eu-west-1", 100,
        0.06, 7e7, Prices(usd_per_request=0.2e-6, usd_per_gb_s=0.0000133334, step_s=0.001),
    )  # fmt: skip
    own = dataclasses.replace(spec, name="far", function="f", region="us-west-2", slots=7, memory_mb=512)
    found = LambdaSubstrate(own, Settings()).capabilities
    assert found == dataclasses.replace(declared, name="far", region="us-west-2", slots=7, memory_mb=512)


@pytest.mark.parametrize(
    ("fields", "field"),
    [({}, "function"), ({"function": ARN, "region": "us-east-1"}, "region")],
)
def test_a_setting_that_is_wrong(fields: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LambdaSubstrate(SubstrateSpec("far", "lambda", **fields), Settings())  # type: ignore[arg-type]
    assert caught.value.details["field"] == f"substrates.far.{field}"
    assert caught.value.hint


def test_an_arn_and_its_own_region_agree() -> None:
    LambdaSubstrate(SubstrateSpec("far", "lambda", function=ARN, region="eu-west-1"), Settings())


def test_building_one_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    monkeypatch.setattr(boto3.session, "Session", lambda: pytest.fail("boto3 was asked"))
    LambdaSubstrate(SubstrateSpec("lambda", "lambda", function="f"), Settings()).close()
