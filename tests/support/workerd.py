"""The Worker of ``remote/cloudflare/``, built as it is deployed, in a real workerd with its cache and storage."""

import json
import os
import secrets
import select
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import urllib3

from packetfs_compute.signature import HEADER
from support.endpoint import EndpointServer, SigningClient
from support.httpcache import HttpCache
from support.ports import free_port

ROOT = Path(__file__).parents[2]
REMOTE = ROOT / "remote"
SOURCE = REMOTE / "cloudflare"
CF_HEADER = "CF-Blob"
"""What a request says in it, a JSON object, the Worker finds in ``request.cf``."""

_CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [{modules}],
      compatibilityDate = "{date}",
      compatibilityFlags = [{flags}],
      bindings = [{bindings}],
      durableObjectNamespaces = [{objects}],
      durableObjectStorage = (localDisk = "storage"),
      cacheApiOutbound = "cache",
    )),
    (name = "internet", network = (allow = [{network}], tlsOptions = (trustBrowserCas = true))),
    (name = "cache", external = (address = "127.0.0.1:{cache}", http = ())),
    (name = "storage", disk = (path = "{storage}", writable = true)),
    (name = "probe", worker = (
      modules = [(name = "probe.js", esModule = embed "probe.js")],
      compatibilityDate = "{date}",
      bindings = [{objects_of_main}],
    )),
  ],
  sockets = [
    (name = "http", address = "127.0.0.1:{port}", http = (cfBlobHeader = "{cf}"), service = "main"),
    (name = "probe", address = "127.0.0.1:{probe}", service = "probe"),
  ],
);
"""

_PROBE = """
export default {
  async fetch(request, env) {
    const [binding, name, method, calls, atOnce] = await request.json();
    const object = env[binding].getByName(name);
    const found = [];
    while (calls.length > 0) {
      found.push(...(await Promise.all(calls.splice(0, atOnce).map((call) => object[method](...call)))));
    }
    return Response.json(found.map((each) => each ?? null));
  },
};
"""


@dataclass(frozen=True)
class WorkerBuild:
    """What ``wrangler deploy --dry-run`` wrote, and what it said."""

    folder: Path
    output: str

    @property
    def modules(self) -> list[Path]:
        """The script first, then what it imports."""
        return [self.folder / "index.js", *sorted(self.folder.glob("*.wasm"))]


def configuration() -> dict[str, Any]:
    """Return ``wrangler.jsonc``, whose comments all have lines of their own."""
    lines = (SOURCE / "wrangler.jsonc").read_text("utf-8").splitlines()
    document: dict[str, Any] = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    return document


def missing() -> str | None:
    """Return what is not installed of what the Worker needs to be built and run."""
    if not node_binary():
        return "node is not installed: make tools"
    if _workerd() is None or not (REMOTE / "node_modules" / "wrangler").is_dir():
        return "wrangler or workerd is not installed: npm ci in remote/"
    return None


def build_worker(folder: Path) -> WorkerBuild:
    """Build the Worker into ``folder / "dist"`` with the deploying tool; nothing is sent anywhere."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDFLARE_", "WRANGLER_"))}
    quiet = {"WRANGLER_SEND_METRICS": "false", "CLOUDFLARE_CF_FETCH_ENABLED": "false", "NO_COLOR": "1"}
    command = [
        node_binary(), str(REMOTE / "node_modules" / "wrangler" / "bin" / "wrangler.js"), "deploy", "--dry-run",
        "--outdir", str(folder / "dist"), "--config", str(SOURCE / "wrangler.jsonc"),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=SOURCE, env={**clean, **quiet, "HOME": str(home), "XDG_CONFIG_HOME": str(home)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return WorkerBuild(folder / "dist", done.stdout)


class WorkerdServer(EndpointServer):
    """A running Worker. ``more`` are further variables and secrets; the ones it needs are set.

    ``network`` is which addresses workerd itself lets the Worker reach. Several servers can run at once, and one can be
    started again, on the same port with the same storage. Use it as a context manager.
    """

    kind = "cloudflare"

    def __init__(
        self,
        folder: Path,
        build: WorkerBuild | None = None,
        network: Sequence[str] = ("public", "private"),
        **more: str,
    ) -> None:
        super().__init__()
        self.folder = folder / f"workerd-{secrets.token_hex(4)}"
        (self.folder / "storage").mkdir(parents=True)
        self.log = self.folder / "workerd.log"
        self.cache = HttpCache()
        self._variables = {
            "PACKETFS_SIGNING_KEYS": f"{self.key_id}:{self.secret}",
            "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
            "PACKETFS_REGION": "iad",
            **configuration()["vars"],
            **more,
        }
        self._probe_port = free_port()
        built = build or build_worker(self.folder / "build")
        shutil.copytree(built.folder, self.folder / "dist")  # workerd embeds only what is below its configuration
        config = _render(built, self, network, tuple(self._variables), self._probe_port)
        (self.folder / "config.capnp").write_text(config)
        (self.folder / "probe.js").write_text(_PROBE)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says that it listens."""
        binary = _workerd()
        assert binary is not None
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as events, self.log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    [str(binary), "serve", str(self.folder / "config.capnp"), f"--control-fd={writer}"],
                    env={"PATH": os.environ.get("PATH", ""), **self._variables}, cwd=self.folder, pass_fds=[writer],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip
            finally:
                os.close(writer)
            ready, _, _ = select.select([events], [], [], 30)
            if not ready or b'"listen"' not in events.readline():
                self.kill()
                raise AssertionError(f"workerd did not come up: {self.log.read_text()}")

    def ask(self, binding: str, name: str, method: str, *call: object) -> Any:
        """Call a method of a Durable Object as the Worker would, and return what it gives."""
        return self.ask_often(binding, name, method, [call])[0]

    def ask_often(
        self, binding: str, name: str, method: str, calls: Sequence[Sequence[object]], at_once: int = 100
    ) -> list[Any]:
        """Make many calls, which arrive in their order, ``at_once`` of them together."""
        with urllib3.PoolManager(retries=False, timeout=60) as http:
            body = json.dumps([binding, name, method, calls, at_once]).encode()
            answer = http.request("POST", f"http://127.0.0.1:{self._probe_port}/", body=body)
            assert answer.status == 200, answer.data
            found: list[Any] = answer.json()
            return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self.cache.close()


class WorkerdClient(SigningClient):
    """A client of the Worker, which can come in anywhere."""

    def post(self, document: object, path: str = "/compute", colo: str | None = None) -> urllib3.BaseHTTPResponse:
        """Send a document, as if it had come in at ``colo``."""
        body = json.dumps(document).encode()
        fields = {HEADER: self.header(body, path)}
        if colo is not None:
            fields[CF_HEADER] = json.dumps({"colo": colo})
        return self.raw(body, path, fields)

    def stats(self) -> dict[str, Any]:
        """What the Worker has counted, by region."""
        fields = {HEADER: self.header(b"", "/stats", method="GET")}
        answer = self.http.request("GET", self.server.url + "/stats", headers=fields)
        assert answer.status == 200, answer.data
        regions: dict[str, Any] = answer.json()["regions"]
        return regions


def _render(
    build: WorkerBuild, server: WorkerdServer, network: Sequence[str], variables: Sequence[str], probe_port: int
) -> str:
    """Return workerd's configuration: what ``wrangler.jsonc`` says, with the services of this machine."""
    document = configuration()
    script, *wasm = build.modules
    bindings = document["durable_objects"]["bindings"]
    return _CONFIG.format(
        modules=", ".join(
            [f'(name = "{script.name}", esModule = embed "dist/{script.name}")']
            + [f'(name = "./{path.name}", wasm = embed "dist/{path.name}")' for path in wasm]
        ),
        date=document["compatibility_date"],
        flags=_texts(document["compatibility_flags"]),
        bindings=", ".join(
            [f'(name = "{name}", fromEnvironment = "{name}")' for name in variables]
            + [f'(name = "{each["name"]}", durableObjectNamespace = "{each["class_name"]}")' for each in bindings]
        ),
        objects=", ".join(
            f'(className = "{each["class_name"]}", uniqueKey = "{each["class_name"]}", enableSql = true)'
            for each in bindings
        ),
        network=_texts(network),
        cache=server.cache.port,
        storage=server.folder / "storage",
        port=server.port,
        cf=CF_HEADER,
        probe=probe_port,
        objects_of_main=", ".join(
            f'(name = "{each["name"]}", durableObjectNamespace = (className = "{each["class_name"]}", '
            'serviceName = "main"))'
            for each in bindings
        ),
    )


def _texts(texts: Sequence[str]) -> str:
    return ", ".join(json.dumps(text) for text in texts)


def node_binary() -> str:
    """Return the node of the tools' environment, or the machine's."""
    return shutil.which("node", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}") or ""


def _workerd() -> Path | None:
    return next(iter(sorted((REMOTE / "node_modules" / "@cloudflare").glob("workerd-*/bin/workerd"))), None)


@pytest.fixture(scope="session")
def worker_build(tmp_path_factory: pytest.TempPathFactory) -> WorkerBuild:
    """The Worker, built once."""
    lacking = missing()
    if lacking is not None:
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    return build_worker(tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="session")
def workerd_server(worker_build: WorkerBuild, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerdServer]:
    """One server for all tests that only use it."""
    with WorkerdServer(tmp_path_factory.mktemp("workerd"), worker_build) as server:
        yield server
