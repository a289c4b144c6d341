"""The Dockerfiles, Fly's and Cloud Run's files, held against the code; and the server run as Cloud Run runs it."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, ClassVar

import pytest
import urllib3
import yaml
from support.nginx import Nginx
from support.ports import free_port
from support.processes import wait_until

from packetfs_compute import __version__
from packetfs_compute.names import MAX_TIMEOUT_MS
from packetfs_compute.places import EndpointKey, SubstrateSpec
from packetfs_compute.routing import prices
from packetfs_compute.settings import Settings, load_settings, unknown_variables
from packetfs_compute.substrates import load_substrate

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile", "remote/fly/Dockerfile.fly")
LOCKS = ("build", "server", "worker")


def constant(name: str) -> int:
    """Return a constant of remote/fly/server.py, which a test must not import: it is a program."""
    for node in ast.parse((ROOT / "remote" / "fly" / "server.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert isinstance(node.value, ast.Constant)
            return int(node.value.value)
    raise AssertionError(f"server.py has no {name}")


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"([0-9]+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def capabilities(kind: str) -> Any:
    spec = SubstrateSpec(kind, kind, url="https://host.example")
    return load_substrate(kind, Settings(substrates=(spec,), keys=(EndpointKey(kind, "k1", "s" * 32),))).capabilities


class TestDockerfiles:
    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_pass_hadolint(self, name: str) -> None:
        linter = shutil.which("hadolint") or shutil.which(ROOT / ".tools" / "bin" / "hadolint")
        if linter is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("hadolint is not installed: make kit")
        done = subprocess.run([linter, "--failure-threshold", "style", ROOT / name], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        assert "hadolint ignore" not in (ROOT / name).read_text()

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_end_as_a_user_that_is_a_number(self, name: str) -> None:
        instructions = (ROOT / name).read_text().splitlines()
        final = instructions[max(at for at, line in enumerate(instructions) if line.startswith("FROM ")) :]
        assert "USER 10001:10001" in final
        assert "STOPSIGNAL SIGTERM" in final
        assert sum(line.startswith("HEALTHCHECK ") for line in final) == 1
        assert not any("apt-get" in line or "curl" in line for line in instructions if not line.startswith("#"))

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_copy_only_what_there_is_and_what_is_not_ignored(self, name: str) -> None:
        kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
        for line in (ROOT / name).read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                for source in line.split()[1:-1]:
                    found = list(ROOT.glob(source))
                    assert found, f"{source} is not there"
                    for path in found:
                        at = path.relative_to(ROOT)
                        assert any(at.match(pattern) or str(at).startswith(pattern + "/") for pattern in kept), at

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_install_by_hash_alone(self, name: str) -> None:
        installs = [line for line in (ROOT / name).read_text().splitlines() if re.search(r"pip\b.* install ", line)]
        assert len(installs) == 3
        for line in installs:
            assert "--no-deps" in line
            assert "--require-hashes" in line or "/wheels/*.whl" in line


class TestLocks:
    @pytest.mark.parametrize("name", LOCKS)
    def test_pin_what_the_tests_run_with(self, name: str) -> None:
        tested, here = pins(ROOT / "requirements" / "dev.txt"), pins(ROOT / "deploy" / f"{name}.txt")
        assert here
        for package, (version, hashes) in here.items():
            assert (version, hashes) == tested[package], package

    def test_give_the_server_what_it_imports_and_no_more(self, nginx: Nginx) -> None:
        """What a server that computes has loaded, by distribution, is in the list; and all of the list but anyio's idna."""
        (nginx.www / "imports.bin").write_bytes(b"bytes")
        program = {"data_url": nginx.url("imports.bin"), "op": "crc32c"}
        code = (
            "import json, sys\n"
            "sys.path.insert(0, 'remote/fly')\n"
            "import server, uvicorn.protocols.http.h11_impl, uvicorn.loops.asyncio, uvicorn.lifespan.on\n"
            "from packetfs_compute.executor import execute\n"
            f"answer = execute({ {'program': program} })\n"
            "print(json.dumps([answer['success'], sorted({name.partition('.')[0] for name in sys.modules})]))"
        )
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
        )
        computed, modules = json.loads(done.stdout)
        assert computed
        known = packages_distributions()
        ours = {"packetfs-unified-compute", "setuptools", "coverage", "pytest-cov"}
        loaded = {name.lower().replace("_", "-") for module in modules for name in known.get(module, ())} - ours
        listed = set(pins(ROOT / "deploy" / "server.txt"))
        assert loaded <= listed
        assert listed - loaded <= {"idna"}, "anyio declares it, and imports it when it first needs it"


def pins(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Return a lock's packages, with their versions and hashes."""
    found = {}
    for entry in re.split(r"\n(?=[a-z])", path.read_text()):
        match = re.match(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", entry)
        if match:
            found[match[1]] = (match[2], frozenset(re.findall(r"--hash=(\S+)", entry)))
    return found


class TestFly:
    fly: ClassVar = tomllib.loads((ROOT / "remote" / "fly" / "fly.toml").read_text())

    def test_sets_variables_that_the_server_reads(self) -> None:
        assert unknown_variables(self.fly["env"]) == []
        load_settings({**self.fly["env"], "PACKETFS_CONFIG": os.devnull})

    def test_names_the_dockerfile_and_the_port(self) -> None:
        assert (ROOT / "remote" / "fly" / self.fly["build"]["dockerfile"]).is_file()
        assert self.fly["http_service"]["internal_port"] == int(self.fly["env"]["PORT"])
        assert self.fly["env"]["PACKETFS_HOST"] == "0.0.0.0"

    def test_has_the_proxy_send_no_more_than_the_server_takes(self) -> None:
        limits = self.fly["http_service"]["concurrency"]
        taken = load_settings({**self.fly["env"], "PACKETFS_CONFIG": os.devnull}).max_concurrency
        assert limits["type"] == "requests"
        assert limits["hard_limit"] == taken == Settings().max_concurrency
        assert taken / 2 <= limits["soft_limit"] < limits["hard_limit"]

    def test_gives_running_attempts_their_grace(self) -> None:
        assert self.fly["kill_signal"] == "SIGTERM"
        assert constant("_GRACE_S") < seconds(self.fly["kill_timeout"]) <= 300

    def test_starts_and_stops_machines_and_keeps_one(self) -> None:
        service = self.fly["http_service"]
        assert (service["auto_stop_machines"], service["auto_start_machines"]) == ("stop", True)
        assert service["min_machines_running"] == 1

    def test_checks_what_is_served(self) -> None:
        (check,) = self.fly["http_service"]["checks"]
        assert (check["method"], check["path"]) == ("GET", "/health")
        assert seconds(check["timeout"]) < seconds(check["interval"])

    def test_keeps_the_cache_on_the_volume_and_within_it(self) -> None:
        (mount,) = self.fly["mounts"]
        assert mount["destination"] == self.fly["env"]["PACKETFS_CACHE_DIR"]
        size = int(mount["initial_size"].removesuffix("gb")) * 10**9
        assert int(self.fly["env"]["PACKETFS_CACHE_BYTES"]) * 17 / 16 < 0.95 * size

    def test_is_the_machine_that_the_router_counts_with(self) -> None:
        (machine,) = self.fly["vm"]
        assert machine["size"] == "shared-cpu-1x"
        assert int(machine["memory"].removesuffix("mb")) == capabilities("fly").memory_mb
        assert capabilities("fly").prices == prices.FLY

    def test_holds_no_secret(self) -> None:
        assert "SIGNING" not in (ROOT / "remote" / "fly" / "fly.toml").read_text()


class TestCloudRun:
    text = (ROOT / "remote" / "cloudrun" / "service.yaml").read_text()
    service: ClassVar = yaml.safe_load(text)
    template: ClassVar = service["spec"]["template"]
    container: ClassVar = template["spec"]["containers"][0]
    env: ClassVar = {one["name"]: one.get("value") for one in container["env"]}

    def test_is_a_knative_service(self) -> None:
        assert (self.service["apiVersion"], self.service["kind"]) == ("serving.knative.dev/v1", "Service")
        assert len(self.template["spec"]["containers"]) == 1
        assert set(re.findall(r"PROJECT|REGION", self.text)) == {"PROJECT", "REGION"}
        assert self.container["image"].endswith(f"packetfs-compute:{__version__}")

    def test_sets_variables_that_the_server_reads(self) -> None:
        given = {name: value or "k1:" + "s" * 32 for name, value in self.env.items()}
        assert unknown_variables(given) == []
        assert load_settings({**given, "PACKETFS_CONFIG": os.devnull}).region == "REGION"
        assert self.env["PACKETFS_HOST"] == "0.0.0.0"
        assert "PORT" not in self.env, "Cloud Run sets it"
        assert "PACKETFS_CACHE_DIR" not in self.env

    def test_takes_its_key_from_the_secret_manager(self) -> None:
        (key,) = [one for one in self.container["env"] if one["name"] == "PACKETFS_SIGNING_KEYS"]
        assert set(key) == {"name", "valueFrom"}
        assert key["valueFrom"]["secretKeyRef"] == {"name": "packetfs-signing-keys", "key": "latest"}

    def test_has_as_many_slots_as_the_server_and_the_router_say(self) -> None:
        annotations = self.template["metadata"]["annotations"]
        concurrency, most = (
            self.template["spec"]["containerConcurrency"],
            annotations["autoscaling.knative.dev/maxScale"],
        )
        assert concurrency == int(self.env["PACKETFS_MAX_CONCURRENCY"]) == Settings().max_concurrency
        assert concurrency * int(most) == capabilities("cloudrun").slots
        assert annotations["run.googleapis.com/execution-environment"] == "gen2"

    def test_lets_the_longest_attempt_end(self) -> None:
        assert self.template["spec"]["timeoutSeconds"] == MAX_TIMEOUT_MS // 1000
        assert capabilities("cloudrun").max_duration_s <= self.template["spec"]["timeoutSeconds"]

    def test_ends_before_cloud_run_ends_it(self) -> None:
        environ = {entry["name"]: entry.get("value") for entry in self.container["env"]}
        assert int(environ["PACKETFS_GRACE_S"]) < 10

    def test_has_the_memory_that_the_router_counts_with(self) -> None:
        assert self.container["resources"]["limits"]["memory"] == f"{capabilities('cloudrun').memory_mb}Mi"

    def test_probes_what_is_served(self) -> None:
        for probe in (self.container["startupProbe"], self.container["livenessProbe"]):
            assert probe["httpGet"] == {"path": "/health", "port": self.container["ports"][0]["containerPort"]}
            assert probe["timeoutSeconds"] <= probe["periodSeconds"]

    @pytest.fixture
    def instance(self, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """The server as Cloud Run's container contract runs it: its variables and those of the file, and not even HOME.

        That nothing need be written, and the image's user, are tests/containers' to show.
        """
        here = tmp_path / "srv"
        shutil.copytree(ROOT / "remote" / "fly", here, ignore=shutil.ignore_patterns("__pycache__"))
        here.chmod(0o555)
        port = free_port()
        environ = {
            **{name: value or "k1:" + "s" * 32 for name, value in self.env.items()},
            "PORT": str(port),
            "K_SERVICE": self.service["metadata"]["name"],
            "K_REVISION": "packetfs-compute-00001-abc",
            "K_CONFIGURATION": self.service["metadata"]["name"],
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]),
            "PACKETFS_HOST": "127.0.0.1",  # of a test
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        }
        process = subprocess.Popen(
            [sys.executable, str(here / "server.py")], cwd=here, env=environ, stderr=subprocess.PIPE, text=True
        )
        yield process, f"http://127.0.0.1:{port}"
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)

    def test_runs_as_cloud_run_runs_it(self, instance: tuple[subprocess.Popen[str], str]) -> None:
        process, url = instance
        probe = self.container["startupProbe"]
        with urllib3.PoolManager(retries=False, timeout=5) as http:

            def healthy() -> Any:
                assert process.poll() is None, process.communicate()[1]
                try:
                    return http.request("GET", url + probe["httpGet"]["path"])
                except urllib3.exceptions.HTTPError:
                    return None

            wait_until(healthy, "the startup probe", probe["failureThreshold"] * probe["periodSeconds"])
            told = healthy().json()
            assert (told["status"], told["region"]) == ("healthy", "REGION")
            unsigned = http.request("POST", f"{url}/compute", body=b"{}", headers={"Content-Type": "application/json"})
            assert (unsigned.status, unsigned.json()["error"]["type"]) == (401, "unauthorized")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, "Cloud Run sends SIGKILL after ten seconds"
        assert "Traceback" not in process.communicate()[1]
