"""The two images, really built from their Dockerfiles and really run. Minutes; `make containers` runs it."""

import json
import secrets
import signal
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3
from support.compose import Stack, compose
from support.containers import FULL, ROOT, SLIM, Container, Engine, require_tools
from support.nginx import Nginx
from support.ports import free_port
from support.processes import alive, wait_until
from support.system import publishing_to

from packetfs_compute import __version__, kernels
from packetfs_compute.executor import health
from packetfs_compute.places import EndpointKey, SubstrateSpec
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.substrates.fly import FlySubstrate
from tasks import crc32c

pytestmark = [pytest.mark.containers, pytest.mark.integration, pytest.mark.timeout(1200)]

SERVER, WORKER = "packetfs-compute", "packetfs"
KEY = secrets.token_hex(16)
DATA = b"a container's bytes" * 100_000
FLY = tomllib.loads((ROOT / "remote" / "fly" / "fly.toml").read_text())


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    require_tools()
    engine = Engine()
    try:
        engine.make_bases()
        engine.build("remote/fly/Dockerfile.fly", SERVER)
        engine.build("Dockerfile", WORKER)
        yield engine
    finally:
        engine.close()
    assert not engine.folder.exists()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(engine: Engine, port: int) -> Iterator[Container]:
    """The compute server with the memory and the environment of ``fly.toml``."""
    with engine.run(
        SERVER,
        {
            **FLY["env"],
            "PORT": str(port),
            "PACKETFS_HOST": "127.0.0.1",
            "PACKETFS_SIGNING_KEYS": f"k1:{KEY}",
            "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
        },
        *(
            "--memory",
            FLY["vm"][0]["memory"].removesuffix("b"),
            "--volume",
            f"cache-{port}:{FLY['mounts'][0]['destination']}",
        ),
    ) as container:
        container.wait()
        yield container


def substrate(port: int, secret: str = KEY) -> FlySubstrate:
    spec = SubstrateSpec("fly", "fly", url=f"http://127.0.0.1:{port}")
    return FlySubstrate(spec, Settings(substrates=(spec,), keys=(EndpointKey("fly", "k1", secret),)))


def job(url: str) -> dict[str, object]:
    ops = [{"op": "crc32c"}, {"op": "counteq", "imm": 97}, {"op": "fnv64"}]
    return {"jobId": "j1", "program": {"data_url": url, "ops": ops}, "timeout": 60_000}


def test_the_sizes(engine: Engine) -> None:
    base = engine.image(SLIM)["Size"]
    for tag, bound in ((SERVER, 25), (WORKER, 120)):
        added = (engine.image(tag)["Size"] - base) / 1e6
        print(f"{tag}: {added:.1f} MB over a slim base of {base / 1e6:.0f} MB")
        assert 0 < added < bound


@pytest.mark.parametrize("tag", [SERVER, WORKER])
def test_an_image_has_no_compiler_no_root_and_nothing_of_the_machine(engine: Engine, tag: str) -> None:
    image = engine.image(tag)
    assert image["Config"]["User"] == "10001:10001"
    assert {"org.opencontainers.image.title", "org.opencontainers.image.licenses"} <= set(image["Config"]["Labels"])
    assert not any(name.startswith(("PIP_", "PACKETFS_SIGNING")) for name in image["Config"]["Env"])
    # buildah leaves an empty file where it mounted one.
    assert inside(engine, tag, "print(os.path.exists('/etc/pip.conf') and open('/etc/pip.conf').read())") in (
        [],
        ["False"],
    )
    uid, compiler, *found = inside(engine, tag, "print(os.getuid(), shutil.which('gcc'), *os.listdir('/srv/packetfs'))")
    assert (uid, compiler) == ("10001", "None")
    assert found
    assert set(found) <= {"healthcheck.py", "server.py", "compute_app.py"}


def inside(engine: Engine, tag: str, code: str) -> list[str]:
    """Return the words that Python in a container prints."""
    code = f"import os, shutil, importlib.metadata\n{code}"
    return engine.podman("run", "--rm", "--network", "none", "--entrypoint", "python", tag, "-c", code).stdout.split()


def test_the_server_has_no_more_than_it_needs(engine: Engine) -> None:
    held = set(inside(engine, SERVER, "print(*(one.name for one in importlib.metadata.distributions()))"))
    assert {"uvicorn", "packetfs-unified-compute"} <= held
    assert not {"celery", "kombu", "redis", "boto3", "flower"} & held


def test_the_server_computes_what_is_signed(server: Container, port: int, nginx: Nginx) -> None:
    (nginx.www / "image.bin").write_bytes(DATA)
    here = substrate(port)
    told = here.health(10)
    assert (told["status"], told["version"]) == ("healthy", __version__)
    assert told["kernel"] == health(Settings())["kernel"], "the image has the C kernels of this machine"
    answer = here.invoke(job(nginx.url("image.bin")))
    wanted = [kernels.crc32c(DATA), DATA.count(b"a"), f"{kernels.fnv64(DATA):016x}"]
    assert [one["value"] for one in answer["results"]] == wanted
    assert here.invoke(job(nginx.url("image.bin")))["cache"] == "HIT", "the volume is written to"
    assert substrate(port, "x" * 32).invoke(job(nginx.url("image.bin")))["error"]["type"] == "unauthorized"
    assert server.exec("id", "-u").stdout.strip() == "10001"
    assert server.exec("touch", "/srv/packetfs/file").returncode != 0
    assert server.stop(10) == 0, server.log()


def test_the_server_takes_all_its_slots_in_the_machines_memory(server: Container, port: int, nginx: Nginx) -> None:
    with (nginx.www / "image-sparse.bin").open("wb") as sparse:
        sparse.truncate(256 << 20)
    slots = int(FLY["env"]["PACKETFS_MAX_CONCURRENCY"])
    here = substrate(port)
    with ThreadPoolExecutor(slots) as threads:
        answers = list(threads.map(here.invoke, [job(nginx.url("image-sparse.bin"))] * slots))
    assert [answer["success"] for answer in answers] == [True] * slots
    peak = Path(f"/proc/{server.state()['Pid']}/status").read_text().split("VmHWM:")[1].split()[0]
    print(f"peak resident memory with {slots} attempts at once: {int(peak) / 1024:.0f} MiB of {FLY['vm'][0]['memory']}")
    assert not server.state()["OOMKilled"]


def test_the_server_refuses_to_run_without_a_key(engine: Engine, port: int) -> None:
    with engine.run(SERVER, {"PORT": str(port), "PACKETFS_HOST": "127.0.0.1"}) as container:
        wait_until(lambda: not container.state()["Running"], "it has ended")
        assert container.state()["ExitCode"] == 2
        assert "no signing key" in container.log()


def test_the_health_check_finds_out_a_server_that_hangs(server: Container) -> None:
    pid = server.state()["Pid"]
    server.engine.podman("kill", "--signal", "STOP", server.id)
    try:
        assert not server.check()
    finally:
        server.engine.podman("kill", "--signal", "CONT", server.id)
    assert alive(pid)
    assert server.check()


def test_a_worker_of_the_compose_file(engine: Engine, tmp_path: Path, nginx: Nginx) -> None:
    """The worker's container beside the compose file's Redis, as that file confines it."""
    (nginx.www / "image.bin").write_bytes(DATA)
    service = compose()["services"]["worker-local"]
    with Stack(tmp_path) as stack:
        stack.start("redis")
        wait_until(lambda: "Ready to accept" in stack.log("redis"), "a Redis")
        environ = {
            name: value
            for name, value in stack.environ("worker-local").items()
            if name.startswith("PACKETFS_") and name not in ("PACKETFS_DATA_DIR", "PACKETFS_CONFIG")
        }
        memory = service["deploy"]["resources"]["limits"]["memory"].lower()
        with engine.run(WORKER, environ, "--memory", memory, command=tuple(service["command"])) as worker:
            worker.wait()
            assert worker.exec(*service["healthcheck"]["test"][1:]).returncode == 0
            with publishing_to(load_settings(stack.environ("worker-local"))):
                assert crc32c.delay(nginx.url("image.bin")).get(timeout=30)["value"] == kernels.crc32c(DATA)
            metrics = urllib3.request("GET", stack.url("worker-local", "/metrics"), retries=False, timeout=10)
            assert b'packetfs_jobs_total{op="crc32c",outcome="done",substrate="local"} 1.0' in metrics.data
            worker.engine.podman("kill", "--signal", signal.SIGTERM.name, worker.id)
            wait_until(lambda: not worker.state()["Running"], "it has ended")
            assert worker.state()["ExitCode"] == 0


def test_the_worker_image_has_the_gateway_whole(engine: Engine) -> None:
    """`--help` shows it with the extra or without."""
    code = "from packetfs_compute.gateway import app, server\nprint('whole')"
    assert inside(engine, WORKER, code) == ["whole"]


@pytest.mark.parametrize("service", ["beat", "flower", "worker-upkeep", "intake", "gateway"])
def test_the_worker_image_has_the_other_services_commands(engine: Engine, service: str) -> None:
    command = compose()["services"][service]["command"]
    program, verb = command[0], 1 if command[0] == "packetfs" else 3
    done = engine.podman(
        "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", WORKER, *command[: verb + 1], "--help"
    )
    assert f"{program} {command[verb]}" in done.stdout
    # Flower's options are tornado's, which says nothing of them here; tests/integration/test_compose.py starts it with them.
    for option in (word for word in command[verb + 1 :] if word.startswith("--") and service != "flower"):
        assert option in done.stdout


def test_the_bases_are_those_that_the_files_name(engine: Engine) -> None:
    for dockerfile in ("Dockerfile", "remote/fly/Dockerfile.fly"):
        text = (ROOT / dockerfile).read_text()
        assert f"ARG RUNTIME_IMAGE={SLIM.rpartition('/')[2]}\n" in text
        assert f"ARG BUILD_IMAGE={FULL.rpartition('/')[2]}\n" in text
    assert json.loads(engine.podman("images", "--format", "json").stdout)
