"""AWS Lambda on this machine: the Invoke API in front of real environments, each a process of AWS's own runtime client.

The environments run the *built zip*, unpacked, and nothing else: no package of this machine is on their path but the runtime
client. They talk to the Runtime API here, each under a path of its own. What Lambda does is done: an environment is started
when none is free, up to a bound past which an invoke is answered with 429; it is kept, and used again; it is ended when
the function's timeout is over or it ended itself, and what AWS says then is the answer. Invokes must be signed.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import pytest

from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.aws_lambda import LambdaSubstrate
from support.lambdazip import COMMAND, environment_variables, unpacked
from support.processes import alive
from support.sigv4 import Refused, SigV4

_RUNTIME = "/2018-06-01/runtime/"
_INVOKE = "/2015-03-31/functions/"
_MAX_PAYLOAD = 6 << 20
_INIT_S = 20.0


class Invocation:
    """One event, and what becomes of it."""

    def __init__(self, event: bytes) -> None:
        self.id = str(uuid.uuid4())
        self.event = event
        self.ended = threading.Event()
        self.taken_s: float | None = None
        self.payload = b""
        self.error: str | None = None

    def end(self, payload: bytes, error: str | None = None) -> None:
        self.payload, self.error = payload, error
        self.ended.set()

    def fail(self, kind: str, message: str) -> None:
        said = {"errorType": kind, "errorMessage": f"RequestId: {self.id} Error: {message}"}
        self.end(json.dumps(said).encode(), "Unhandled")


class Environment:
    """A process of the runtime client, which serves one invocation at a time."""

    def __init__(self, name: str, server: "LambdaServer") -> None:
        self.name = name
        self.waiting: queue.Queue[Invocation] = queue.Queue()
        self.current: Invocation | None = None
        with server.log.open("ab") as log:
            self.process = subprocess.Popen(
                COMMAND, env={**server.variables, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.port}/{name}"},
                cwd=unpacked(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class LambdaServer:
    """A running service with one function; ``more`` are further variables of its environments.

    It can be ended and started again, on the same port. Use it as a context manager.
    """

    function = "packetfs-compute"
    alias = "live"
    region = "us-east-1"
    key_id = secret = "testing"  # what support.objectstore sets too
    memory_mb = 1769

    def __init__(self, folder: Path, *, environments: int = 4, timeout_s: float = 60.0, **more: str) -> None:
        self.most, self.timeout_s = environments, timeout_s
        self.log = folder / f"lambda-{uuid.uuid4().hex[:8]}.log"
        self.variables = environment_variables(folder, **more)
        self.verifier = SigV4(self.key_id, self.secret, self.region, "lambda")
        self.invoked = 0
        """How many invokes were let in, ever."""
        self._started = 0
        self._lock = threading.Lock()
        self._all: dict[str, Environment] = {}
        self._idle: list[Environment] = []
        self._sockets: set[socket.socket] = set()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What lets a process invoke the function, and looks nowhere else for credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def pids(self) -> list[int]:
        """Return the processes of the environments that there are now."""
        with self._lock:
            return [one.process.pid for one in self._all.values() if alive(one.process.pid)]

    def start(self) -> None:
        """Serve; no environment is started before it is needed."""
        self.closing = threading.Event()
        service = self

        class Handler(_Handler):
            server_: LambdaServer = service

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """End everything as a crash would: no answer, no environment, nobody at the port."""
        self.closing.set()
        with self._lock:
            sockets, environments = list(self._sockets), list(self._all.values())
            self._all.clear()
            self._idle.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for one in environments:
            one.kill()

    stop = kill

    def freeze(self, pid: int) -> None:
        """Stop an environment's process as it is; SIGKILL still ends it."""
        os.kill(pid, signal.SIGSTOP)

    def spec(self, name: str = "lambda") -> SubstrateSpec:
        return SubstrateSpec(
            name, "lambda", url=self.url, function=f"{self.function}:{self.alias}", region=self.region, slots=self.most
        )

    def settings(self, name: str = "lambda") -> Settings:
        """Settings whose fleet has this function in it, under ``name``; who uses them needs :attr:`environ`."""
        return Settings(substrates=(self.spec(name),))

    def substrate(self, name: str = "lambda") -> LambdaSubstrate:
        return LambdaSubstrate(self.spec(name), self.settings(name))

    def run(self, event: bytes) -> Invocation | None:
        """Run an event in an environment; ``None`` is that all are busy."""
        environment = self._take()
        if environment is None:
            return None
        invocation = Invocation(event)
        environment.waiting.put(invocation)
        given_s = time.monotonic()
        while not invocation.ended.wait(0.02):
            now_s, taken_s = time.monotonic(), invocation.taken_s
            ended = environment.process.poll()
            if ended is not None and not invocation.ended.wait(0.05):
                how = f"signal: {signal.Signals(-ended).name[3:].lower()}ed" if ended < 0 else f"exit status {ended}"
                invocation.fail("Runtime.ExitError", f"Runtime exited with error: {how}")
            elif now_s - given_s > _INIT_S and taken_s is None:
                invocation.fail("Sandbox.Timedout", "Task timed out before it began")
            elif taken_s is not None and now_s - taken_s > self.timeout_s:
                invocation.fail("Sandbox.Timedout", f"Task timed out after {self.timeout_s:.2f} seconds")
        self._give_back(environment, invocation)
        return invocation

    def environment(self, name: str) -> Environment | None:
        with self._lock:
            return self._all.get(name)

    def _take(self) -> Environment | None:
        with self._lock:
            if self.closing.is_set():
                return None
            while self._idle:
                environment = self._idle.pop()  # the last one used, so that the others may grow cold
                if environment.process.poll() is None:
                    return environment
                del self._all[environment.name]
            if len(self._all) >= self.most:
                return None
            environment = Environment(f"e{self._started}", self)
            self._started += 1
            self._all[environment.name] = environment
            return environment

    def _give_back(self, environment: Environment, invocation: Invocation) -> None:
        if invocation.error is not None and invocation.error != "Function":
            environment.kill()
        with self._lock:
            if environment.process.poll() is not None:
                self._all.pop(environment.name, None)
            elif environment.name in self._all:
                self._idle.append(environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients and environments go away here; that is the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_: LambdaServer

    def setup(self) -> None:
        super().setup()
        self.server_._sockets.add(self.connection)

    def finish(self) -> None:
        self.server_._sockets.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self._route("GET")

    def do_POST(self) -> None:
        self._route("POST")

    def _route(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        first, _, rest = self.path.removeprefix("/").partition("/")
        environment = self.server_.environment(first)
        if environment is not None and f"/{rest}".startswith(_RUNTIME):
            self._runtime(environment, method, f"/{rest}".removeprefix(_RUNTIME), body)
        else:
            self._invoke(method, body)

    def _invoke(self, method: str, body: bytes) -> None:
        """The Invoke API: who is it, is there such a function, is the event of a size, is there an environment."""
        service = self.server_
        try:
            service.verifier.verify(method, self.path, self.headers, body)
        except Refused as refused:
            self._error(403, refused.code, message=str(refused))
            return
        named = unquote(self.path).removeprefix(_INVOKE).removesuffix("/invocations").rpartition("function:")[2]
        if method != "POST" or named not in (service.function, f"{service.function}:{service.alias}"):
            self._error(404, "ResourceNotFoundException", Message=f"Function not found: {named}", Type="User")
            return
        if len(body) > _MAX_PAYLOAD:
            self._error(413, "RequestTooLargeException", message=f"Request must be smaller than {_MAX_PAYLOAD} bytes")
            return
        service.invoked += 1
        invocation = service.run(body)
        if service.closing.is_set():
            self.close_connection = True
        elif invocation is None:
            reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
            self._error(429, "TooManyRequestsException", {"Retry-After": "3"}, message="Rate Exceeded.", Reason=reason)
        else:
            fields = {"X-Amz-Executed-Version": "1", "x-amzn-RequestId": invocation.id}
            if invocation.error is not None:
                fields["X-Amz-Function-Error"] = "Unhandled"
            self._answer(200, invocation.payload, fields)

    def _runtime(self, environment: Environment, method: str, path: str, body: bytes) -> None:
        """The Runtime API, as its specification says (2018-06-01)."""
        if (method, path) == ("GET", "invocation/next"):
            self._next(environment)
            return
        current = environment.current
        if current is not None and path == f"invocation/{current.id}/response":
            self._answer(202, b"{}", {})
            current.end(body)
        elif current is not None and path == f"invocation/{current.id}/error":
            self._answer(202, b"{}", {})
            current.end(body, "Function")
        else:
            self._error(400, "InvalidRequestID", message="there is no such invocation")

    def _next(self, environment: Environment) -> None:
        while True:
            with suppress(queue.Empty):
                invocation = environment.waiting.get(timeout=0.2)
                break
            if environment.process.poll() is not None or self.server_.closing.is_set():
                self.close_connection = True
                return
        service = self.server_
        environment.current = invocation
        invocation.taken_s = time.monotonic()
        arn = f"arn:aws:lambda:{service.region}:123456789012:function:{service.function}:{service.alias}"
        fields = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + service.timeout_s) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": arn,
            "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
        }
        self._answer(200, invocation.event, fields)

    def _error(self, status: int, code: str, fields: dict[str, str] | None = None, **said: Any) -> None:
        self._answer(status, json.dumps(said).encode(), {"x-amzn-ErrorType": code, **(fields or {})})

    def _answer(self, status: int, body: bytes, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **fields}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Print nothing."""


@pytest.fixture(scope="session")
def lambda_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LambdaServer]:
    """One function for all tests that only use it; this process may invoke it."""
    with LambdaServer(tmp_path_factory.mktemp("lambda")) as server, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        for name, value in server.environ.items():
            patch.setenv(name, value)
        yield server
