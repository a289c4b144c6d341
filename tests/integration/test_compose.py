"""``docker-compose.yml``: what it says, and its services running together as it says it, on a real Valkey with its ACL."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from celery import chord, group
from compose_spec import PyCompose
from support.compose import DEPLOY, ENV, FILE, ROOT, Stack, compose
from support.fly import FlyServer
from support.nginx import Nginx
from support.processes import descendants, peak_memory_mib, wait_until
from support.system import publishing_to

from packetfs_compute import __version__, kernels
from packetfs_compute.celery import app
from packetfs_compute.errors import SourceNotFound
from packetfs_compute.names import LOCAL, queue_of, rejected_of
from packetfs_compute.settings import load_settings, unknown_variables
from packetfs_compute.substrates import load_fleet
from tasks import crc32c, program

pytestmark = pytest.mark.integration

SERVICES = compose()["services"]
WORKERS = {
    name: service for name, service in SERVICES.items() if "PACKETFS_METRICS_PORT" in service.get("environment", {})
}
CHECKED = ("worker-local", "worker-fly", "worker-upkeep", "beat", "flower")
"""The services whose health check runs here; Redis' and Prometheus' are of their own images' programs."""
RUNNING = (*CHECKED, "prometheus")
DATA = b"a container's bytes" * 1000


class TestTheFile:
    def test_is_what_the_compose_specification_says(self) -> None:
        read = PyCompose.from_yaml(yaml.safe_dump(compose()))
        assert set(read.service_names()) == set(SERVICES)
        read.validate()

    def test_is_checked_by_a_validator_that_refuses(self) -> None:
        wrong = compose()
        wrong["services"]["redis"]["read_onli"] = True
        with pytest.raises(ValueError, match="read_onli"):
            PyCompose.from_yaml(yaml.safe_dump(wrong))

    def test_has_what_the_system_is_made_of(self) -> None:
        remote = {f"worker-{kind}" for kind in ("cloudflare", "lambda", "fly", "vercel", "cloudrun")}
        assert set(WORKERS) == {"worker-local", *remote}
        assert {name for name, service in SERVICES.items() if service.get("profiles")} == remote
        assert set(SERVICES) - set(WORKERS) == {"redis", "beat", "worker-upkeep", "flower", "prometheus"}

    def test_names_what_it_uses(self) -> None:
        whole = compose()
        for service in SERVICES.values():
            assert set(service.get("depends_on", {})) <= set(SERVICES)
            for volume in service.get("volumes", ()):
                source = volume.split(":")[0]
                assert (ROOT / source).exists() if source.startswith(".") else source in whole["volumes"]

    @pytest.mark.parametrize("name", SERVICES)
    def test_pins_and_confines_each_service(self, name: str) -> None:
        service = SERVICES[name]
        assert re.search(r":v?[0-9]+\.[0-9]+[0-9a-z.-]*$", service["image"])
        assert service["restart"] == "unless-stopped"
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith(("0", "root"))
        assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0
        assert limits["memory"].endswith("M")
        assert service["pids_limit"] > 0
        assert service["healthcheck"]["test"]
        assert service["logging"]["options"]["max-size"]

    def test_publishes_on_loopback_alone(self) -> None:
        published = [port for service in SERVICES.values() for port in service.get("ports", ())]
        assert published
        assert all(port.startswith("127.0.0.1:") for port in published)

    def test_keeps_redis_on_a_network_with_no_way_out(self) -> None:
        assert SERVICES["redis"]["networks"] == ["state"]
        assert compose()["networks"]["state"] == {"internal": True}

    def test_has_the_tag_of_this_version(self) -> None:
        assert SERVICES["worker-local"]["image"] == f"packetfs:{__version__}"

    def test_runs_the_redis_that_the_tests_run(self, redis_client: Any) -> None:
        version = redis_client.info("server")["valkey_version"]
        assert SERVICES["redis"]["image"] == f"valkey/valkey:{version}-alpine"

    def test_sets_only_variables_that_mean_something(self) -> None:
        for name, service in SERVICES.items():
            environ = {key: str(value) for key, value in service.get("environment", {}).items()}
            assert unknown_variables(environ) == [], name
            load_settings({**environ, "PACKETFS_CONFIG": os.devnull})

    def test_gives_keys_only_to_those_who_sign(self) -> None:
        holders = {name for name, service in SERVICES.items() if "PACKETFS_KEYS" in service.get("environment", {})}
        assert holders == {*WORKERS, "worker-upkeep"}

    @pytest.mark.parametrize("variable", ENV)
    def test_does_not_start_without_its_passwords(self, variable: str) -> None:
        with pytest.raises(KeyError, match=variable):
            compose({name: value for name, value in ENV.items() if name != variable})

    def test_reads_the_variables_of_the_example(self) -> None:
        example = dict(
            line.split("=", 1) for line in (DEPLOY / ".env.example").read_text().splitlines() if line and line[0] != "#"
        )
        used = set(re.findall(r"(?<!\$)\$\{(\w+)", FILE.read_text()))
        assert used - {"PACKETFS_TAG"} == set(example) - {"COMPOSE_PROFILES"}
        assert not any(example[name] for name in (*ENV, "PACKETFS_KEYS", "AWS_SECRET_ACCESS_KEY"))

    @pytest.mark.parametrize("name", WORKERS)
    def test_has_each_worker_consume_its_queue_and_asked_for_it(self, name: str) -> None:
        place, command = name.removeprefix("worker-"), WORKERS[name]["command"]
        assert command[command.index("--queues") + 1] == queue_of(place)
        assert command[command.index("--hostname") + 1] == f"{place}@%h"
        assert WORKERS[name]["healthcheck"]["test"][1:5] == ["python", "healthcheck.py", "consuming", place]
        if place != LOCAL:
            assert WORKERS[name]["profiles"] == [place]
            assert [word.replace(place, "fly") for word in command] == WORKERS["worker-fly"]["command"]

    def test_has_a_table_for_each_remote_worker(self, tmp_path: Path) -> None:
        lines = (DEPLOY / "packetfs.toml").read_text().splitlines()
        config = tmp_path / "packetfs.toml"
        config.write_text("\n".join(re.sub(r"^# (?=\[|\w+ = )", "", line) for line in lines))
        settings = load_settings({"PACKETFS_DATA_DIR": str(tmp_path)}, config)
        assert {f"worker-{spec.name}" for spec in settings.substrates} | {"worker-local"} == set(WORKERS)
        assert len(load_fleet(settings)) == len(WORKERS)
        assert load_settings({"PACKETFS_DATA_DIR": str(tmp_path)}, DEPLOY / "packetfs.toml").substrates == ()


class TestPrometheusConfiguration:
    def test_is_one(self) -> None:
        done = subprocess.run(
            [tool("promtool"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_names_every_worker_and_its_port(self) -> None:
        (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
        (found,) = job["dns_sd_configs"]
        assert set(found["names"]) == set(WORKERS)
        assert {service["environment"]["PACKETFS_METRICS_PORT"] for service in WORKERS.values()} == {str(found["port"])}

    def test_alarms_on_metrics_that_there_are(self, stack: Stack) -> None:
        rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
        named = set(re.findall(r"packetfs_\w+", " ".join(rule["expr"] for rule in rules)))
        with publishing_to(stack_settings(stack)):
            crc32c.delay(stack.source_url).get(timeout=30)
        served = get(stack.url("worker-local", "/metrics")).decode()
        assert named <= set(re.findall(r"^(packetfs_\w+)", served, re.MULTILINE))


class TestTheAcl:
    """Redis alone, started by its own script."""

    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[Any]:
        with Stack(tmp_path) as alone:
            start_redis(alone)
            with redis.Redis.from_url(alone.redis_url) as client:
                yield client

    @pytest.mark.parametrize(
        "command",
        [
            "CONFIG GET *", "CONFIG SET maxmemory-policy allkeys-lru", "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0",
            "RANDOMKEY", "MONITOR", "SHUTDOWN NOSAVE", "ACL LIST", "ACL SETUSER default on nopass", "CLIENT LIST",
            "CLIENT KILL ID 1", "SLAVEOF 127.0.0.1 1", "REPLICAOF NO ONE", "MODULE LIST", "SAVE", "BGREWRITEAOF",
            "SCRIPT FLUSH", "FUNCTION LIST", "SWAPDB 0 1", "RENAME packetfs:a packetfs:b", "DUMP packetfs:a",
            "SORT packetfs:a", "CLUSTER INFO", "GET other", "SET other 1", "LPUSH queue 1", "DEL packetfs:a other",
            "SUBSCRIBE other", "PUBLISH other 1", "PSUBSCRIBE *",
        ],
    )  # fmt: skip
    def test_refuses(self, client: Any, command: str) -> None:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command.split())

    def test_holds_inside_scripts(self, client: Any) -> None:
        for script in ("redis.call('SET', 'other', '1')", "redis.call('FLUSHALL')"):
            with pytest.raises(redis.exceptions.ResponseError, match=r"ACL failure|NOPERM|permission"):
                client.eval(script, 0)

    @pytest.mark.parametrize("user", [":", ":the-password_of-redis@", "packetfs:wrong@", "packetfs:@"])
    def test_lets_nobody_else_in(self, client: Any, user: str) -> None:
        port = client.get_connection_kwargs()["port"]
        url = f"redis://127.0.0.1:{port}" if user == ":" else f"redis://{user}127.0.0.1:{port}"
        with (
            redis.Redis.from_url(url) as stranger,
            pytest.raises((redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)),
        ):
            stranger.ping()

    def test_shows_the_password_nowhere(self, client: Any, tmp_path: Path) -> None:
        kept = (tmp_path / "redis" / "users.acl").read_text()
        assert ENV["REDIS_PASSWORD"] not in kept
        assert (tmp_path / "redis" / "users.acl").stat().st_mode & 0o077 == 0
        handed = (tmp_path / "server.environ").read_text()
        assert "PATH=" in handed
        assert ENV["REDIS_PASSWORD"] not in handed

    def test_keeps_what_must_not_be_lost(self, client: Any) -> None:
        assert client.info("persistence")["aof_enabled"] == 1
        assert client.info("memory")["maxmemory_policy"] == "noeviction"
        assert client.info("memory")["maxmemory"] * 2 < memory_limit_mib("redis") << 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, fly_server: FlyServer, nginx: Nginx) -> Iterator[Stack]:
    """The services of the file with the profile ``fly``, whose place is a compute server of this test's."""
    tool("prometheus")
    (nginx.www / "compose.bin").write_bytes(DATA)
    config = f'[substrates.fly]\nurl = "{fly_server.url}"\n'
    key = f"fly={fly_server.key_id}:{fly_server.secret}"
    with Stack(tmp_path_factory.mktemp("compose"), config, key, nginx.url("compose.bin")) as stack:
        configure_prometheus(stack)
        start_redis(stack)
        stack.start(*RUNNING)
        stack.wait_healthy(*CHECKED)
        yield stack
        assert stack.observer().execute_command("ACL", "LOG") == [], "the ACL refused what a service needs"


def start_redis(stack: Stack) -> None:
    stack.start("redis")
    wait_until(lambda: "Ready to accept" in stack.log("redis"), "a Redis")


def configure_prometheus(stack: Stack) -> None:
    """Write Prometheus' file for here: names are looked up by DNS, which knows none of ours."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{stack.ports[name]}" for name in WORKERS]}]
    (stack.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", stack.folder)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed: apt-get install prometheus")
    return str(found)


def stack_settings(stack: Stack) -> Any:
    return load_settings(stack.environ("worker-local"))


def memory_limit_mib(service: str) -> int:
    return int(SERVICES[service]["deploy"]["resources"]["limits"]["memory"].removesuffix("M"))


def get(url: str, credentials: str | None = None) -> bytes:
    request = urllib.request.Request(url)
    if credentials:
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


class TestTheServicesTogether:
    @pytest.fixture(autouse=True)
    def published(self, stack: Stack) -> Iterator[None]:
        with publishing_to(stack_settings(stack)):
            yield

    @pytest.mark.parametrize("place", ["local", "fly"])
    def test_a_job_runs_at_each_place(self, stack: Stack, place: str) -> None:
        done = crc32c.delay(stack.source_url, policy={"substrates": [place]}).get(timeout=30)
        assert (done["value"], done["substrate"]) == (kernels.crc32c(DATA), place)

    def test_groups_chords_and_countdowns(self, stack: Stack) -> None:
        url = stack.source_url
        parts = [crc32c.s(url, offset=at) for at in range(3)]
        wanted = [kernels.crc32c(DATA[at:]) for at in range(3)]
        assert [one["value"] for one in group(parts).apply_async().get(timeout=30)] == wanted
        assert chord(parts, crc32c.si(url)).apply_async().get(timeout=30)["value"] == wanted[0]
        assert crc32c.apply_async((url,), countdown=1).get(timeout=30)["value"] == wanted[0]
        several = program.delay(url, ops=[{"op": "crc32c"}, {"op": "counteq", "imm": 97}]).get(timeout=30)
        assert [one["value"] for one in several["results"]] == [wanted[0], DATA.count(b"a")]

    def test_a_failure_is_the_callers(self, stack: Stack) -> None:
        with pytest.raises(SourceNotFound):
            crc32c.delay(stack.source_url + ".not").get(timeout=30)

    def test_remote_control_and_revoking(self, stack: Stack) -> None:
        nodes = {f"{name}@{os.uname().nodename}" for name in ("local", "fly", "upkeep")}
        assert set(app.control.inspect(timeout=5).ping()) == nodes
        later = crc32c.apply_async((stack.source_url,), countdown=600)
        later.revoke()
        later.forget()

    def test_a_lost_message_is_published_again(self, stack: Stack) -> None:
        nowhere = queue_of("nowhere")
        crc32c.apply_async((stack.source_url,), queue=nowhere).forget()
        with stack.observer() as observer:
            assert observer.delete(nowhere) == 1
            wait_until(lambda: observer.llen(nowhere) == 1, "beat and the upkeep worker swept the ledger", 60)

    def test_a_message_that_is_none_is_put_aside(self, stack: Stack) -> None:
        with stack.observer() as observer:
            observer.lpush(queue_of(LOCAL), b"\xff no message")
            wait_until(lambda: observer.llen(rejected_of(queue_of(LOCAL))) == 1, "it is put aside")

    def test_flower_wants_its_password(self, stack: Stack) -> None:
        url = stack.url("flower", "/api/workers?refresh=1")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(url)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(url, "flower:another")

        def known() -> bool:
            return {f"{name}@{os.uname().nodename}" for name in ("local", "fly")} <= set(
                json.loads(get(url, f"flower:{ENV['FLOWER_PASSWORD']}"))
            )

        wait_until(known, "flower knows the workers")

    def test_prometheus_scrapes_the_workers(self, stack: Stack) -> None:
        crc32c.delay(stack.source_url, policy={"substrates": ["local"]}).get(timeout=30)
        query = urllib.parse.quote('sum(packetfs_jobs_total{substrate="local",outcome="done"})')

        def counted() -> bool:
            found = json.loads(get(stack.url("prometheus", f"/api/v1/query?query={query}")))["data"]["result"]
            return bool(found) and float(found[0]["value"][1]) > 0

        wait_until(lambda: get(stack.url("prometheus", "/-/ready")), "Prometheus is ready")
        wait_until(counted, "Prometheus has scraped the worker")

    def test_the_shell_works_beside_them(self, stack: Stack) -> None:
        for command, wanted in (
            (["packetfs", "doctor"], "fly@"),
            (["packetfs", "fleet"], "closed"),
            (["packetfs", "run", "crc32c", stack.source_url], str(kernels.crc32c(DATA))),
            (["celery", "-A", "packetfs_compute", "status"], "local@"),
        ):
            done = subprocess.run(
                command, env=stack.environ("worker-local"), capture_output=True, text=True, timeout=60
            )
            assert (done.returncode, wanted in done.stdout) == (0, True), done.stdout + done.stderr

    @pytest.mark.parametrize("name", CHECKED)
    def test_the_memory_that_it_may_use_is_enough(self, stack: Stack, name: str) -> None:
        pid = stack.processes[name].pid
        peak = sum(peak_memory_mib(one) for one in (pid, *descendants(pid)))
        print(f"{name}: {peak:.0f} MiB of {memory_limit_mib(name)}")
        assert peak < 0.8 * memory_limit_mib(name)


class TestHealth:
    """A worker that lives and does not consume, and a Redis that is away."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Stack]:
        with Stack(tmp_path) as small:
            start_redis(small)
            small.start("worker-local")
            small.wait_healthy("worker-local")
            yield small

    def test_a_worker_that_idles_is_ended(self, small: Stack) -> None:
        worker = small.processes["worker-local"]
        worker.send_signal(signal.SIGSTOP)
        wait_until(lambda: small.check("worker-local").returncode == 1, "the check finds it out")
        assert worker.poll() is None, "it is given time first"
        small.check("worker-local", "--after", "0")
        worker.send_signal(signal.SIGCONT)
        worker.wait(30)

    def test_one_that_waits_for_redis_is_not(self, small: Stack) -> None:
        server = small.processes["redis"]
        server.send_signal(signal.SIGKILL)
        server.wait(10)
        for _ in range(2):
            done = small.check("worker-local", "--after", "0")
            assert done.returncode == 1
            assert "does not answer" in done.stderr
        assert small.processes["worker-local"].poll() is None
        assert "shutdown" not in small.log("worker-local")

    def test_without_beat_the_upkeep_worker_is_not_well(self, small: Stack) -> None:
        small.start("worker-upkeep")
        wait_until(
            lambda: "ready" in small.log("worker-upkeep") or small.check("worker-upkeep").returncode == 1, "asked"
        )
        assert small.check("worker-upkeep").returncode == 1
        small.start("beat")
        small.wait_healthy("worker-upkeep", "beat")
