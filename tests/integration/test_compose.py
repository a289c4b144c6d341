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
from support.gateway import Client
from support.misbehaving import RawServer
from support.nginx import Nginx
from support.processes import descendants, peak_memory_mib, wait_until
from support.system import publishing_to

from packetfs_compute import __version__, kernels
from packetfs_compute.celery import app
from packetfs_compute.errors import SourceNotFound
from packetfs_compute.gateway import open_keys
from packetfs_compute.names import JOBS_ALIVE, JOBS_QUEUE, JOBS_RESULTS, LOCAL, queue_of, rejected_of
from packetfs_compute.settings import load_settings, unknown_variables
from packetfs_compute.substrates import load_fleet
from tasks import crc32c, program, scan

pytestmark = pytest.mark.integration

SERVICES = compose()["services"]
METERED = {
    name: service for name, service in SERVICES.items() if "PACKETFS_METRICS_PORT" in service.get("environment", {})
}
WORKERS = {name: service for name, service in METERED.items() if name != "worker-scans"}
"""Those of the places."""
CHECKED = ("worker-local", "worker-fly", "worker-upkeep", "worker-scans", "beat", "intake", "gateway", "flower")
"""The services whose health check runs here; Redis' and Prometheus' are of their own images' programs."""
RUNNING = (*CHECKED, "prometheus")
DATA = b"a container's bytes" * 1000
RULES = ROOT / "monitoring" / "prometheus"


def scraped(name: str) -> dict[str, Any]:
    """Return a job of Prometheus' configuration."""
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (job,) = [job for job in jobs if job["job_name"] == name]
    return dict(job)


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
        remote = {f"worker-{kind}" for kind in ("cloudflare", "lambda", "fly", "vercel", "cloudrun", "browser")}
        assert set(WORKERS) == {"worker-local", *remote}
        assert {name for name, service in SERVICES.items() if service.get("profiles")} == remote
        assert set(SERVICES) - set(WORKERS) == {
            "redis", "beat", "worker-upkeep", "worker-scans", "intake", "gateway", "flower", "prometheus",
        }  # fmt: skip

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
        assert holders == {*WORKERS, "worker-upkeep", "worker-scans"}

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
        assert not any(
            example[name] for name in (*ENV, "PACKETFS_KEYS", "PACKETFS_BROWSER_SECRET", "AWS_SECRET_ACCESS_KEY")
        )

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
    @pytest.mark.parametrize("root", [".", "container"])
    def test_is_one(self, tmp_path: Path, root: str) -> None:
        """In a checkout, and where the container has its files; and with the key, for whose file promtool looks."""
        places = {"deploy/prometheus": "etc/prometheus"} if root == "container" else {}
        for name in ("deploy/prometheus", "monitoring/prometheus"):
            shutil.copytree(ROOT / name, tmp_path / places.get(name, name))
        config = tmp_path / places.get("deploy/prometheus", "deploy/prometheus")
        (config / "gateway-key").write_text("pfs_key")
        done = subprocess.run(
            [tool("promtool"), "check", "config", config / "prometheus.yml"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 rule files found" in done.stdout

    def test_is_mounted_where_it_looks_for_its_rules(self) -> None:
        volumes = dict(volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"])
        assert (volumes["./deploy/prometheus"], volumes["./monitoring/prometheus"]) == (
            "/etc/prometheus", "/monitoring/prometheus",
        )  # fmt: skip

    def test_names_every_worker_and_its_port(self) -> None:
        (found,) = scraped("packetfs")["dns_sd_configs"]
        assert "worker-scans" in METERED
        assert set(found["names"]) == set(METERED)
        assert {service["environment"]["PACKETFS_METRICS_PORT"] for service in METERED.values()} == {str(found["port"])}

    def test_names_the_gateway_and_its_port(self) -> None:
        (found,) = scraped("packetfs-gateway")["dns_sd_configs"]
        command = SERVICES["gateway"]["command"]
        assert (found["names"], str(found["port"])) == (["gateway"], command[command.index("--port") + 1])

    def test_has_a_key_that_is_kept_nowhere(self) -> None:
        name = scraped("packetfs-gateway")["authorization"]["credentials_file"]
        assert f"deploy/prometheus/{name}" in (ROOT / ".gitignore").read_text().splitlines()

    def test_alarms_on_metrics_that_there_are(self, stack: Stack) -> None:
        rules = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
        named = set(re.findall(r"packetfs_\w+", " ".join(rule["expr"] for rule in rules)))
        with publishing_to(stack_settings(stack)):
            crc32c.delay(stack.source_url).get(timeout=30)
        served = get(stack.url("worker-local", "/metrics")).decode()
        named = {name for name in named if not name.startswith("packetfs_browsers_")}  # of a gateway that has some
        assert named <= set(re.findall(r"^(packetfs_\w+)", served, re.MULTILINE))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("acl")) as alone:
        start_redis(alone)
        yield alone


class TestTheAcl:
    """Redis alone, started by its own script."""

    def test_allows_what_the_scripts_call(self) -> None:
        scripts = [path.read_text() for path in (ROOT / "packetfs_compute").rglob("*.lua")]
        called = {name.lower() for text in scripts for name in re.findall(r"redis\.p?call\(['\"](\w+)", text)}
        assert called
        assert called <= set(re.findall(r"\+([\w|]+)", (DEPLOY / "redis" / "users.acl").read_text()))

    @pytest.fixture
    def client(self, alone: Stack) -> Iterator[Any]:
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

    def test_shows_the_password_nowhere(self, alone: Stack) -> None:
        kept = alone.folder / "redis" / "users.acl"
        assert ENV["REDIS_PASSWORD"] not in kept.read_text()
        assert kept.stat().st_mode & 0o077 == 0
        handed = (alone.folder / "server.environ").read_text()
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
        start_redis(stack)
        keys = open_keys(load_settings(stack.environ("gateway")))
        configure_prometheus(stack, keys.add(["read"])[0])
        stack.key = keys.add(["submit", "read"])[0]
        stack.start(*RUNNING)
        stack.wait_healthy(*CHECKED)
        yield stack
        assert stack.observer().execute_command("ACL", "LOG") == [], "the ACL refused what a service needs"


def start_redis(stack: Stack) -> None:
    stack.start("redis")
    wait_until(lambda: "Ready to accept" in stack.log("redis"), "a Redis")


def configure_prometheus(stack: Stack, key: str) -> None:
    """Write Prometheus' file for here: names are looked up by DNS, which knows none of ours."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config["rule_files"] = [str(RULES / Path(name).name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        (names,) = [found["names"] for found in job.pop("dns_sd_configs")]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{stack.ports[name]}" for name in names]}]
    (stack.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (stack.folder / "gateway-key").write_text(f"{key}\n")


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


@pytest.fixture(scope="module")
def lost(stack: Stack) -> str:
    """The queue of a message that is lost; the ledger gives it some seconds, in which other tests have their time."""
    nowhere = queue_of("nowhere")
    with publishing_to(stack_settings(stack)):
        crc32c.apply_async((stack.source_url,), queue=nowhere).forget()
    with stack.observer() as observer:
        assert observer.delete(nowhere) == 1
    return nowhere


@pytest.mark.usefixtures("lost")
class TestTheServicesTogether:
    @pytest.fixture(autouse=True)
    def published(self, stack: Stack) -> Iterator[None]:
        with publishing_to(stack_settings(stack)):
            yield

    @pytest.mark.parametrize("place", ["local", "fly"])
    def test_a_job_runs_at_each_place(self, stack: Stack, place: str) -> None:
        done = crc32c.delay(stack.source_url, policy={"substrates": [place]}).get(timeout=30)
        assert (done["value"], done["substrate"]) == (kernels.crc32c(DATA), place)

    def test_scans_are_coordinated(self, stack: Stack) -> None:
        for op, value in (("crc32c", kernels.crc32c(DATA)), ("fnv64", f"{kernels.fnv64(DATA):016x}")):
            done = scan.delay(stack.source_url, [{"op": op}], window=5000, cache=False).get(timeout=30)
            assert (done["results"], done["windows"]) == ([{"op": op, "value": value}], 4)

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
        # Named, they are waited for only until all have answered.
        assert set(app.control.inspect(sorted(nodes), timeout=20).ping()) == nodes
        later = crc32c.apply_async((stack.source_url,), countdown=600)
        later.revoke()
        later.forget()

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

    def test_the_gateway_wants_its_key_and_runs_jobs(self, stack: Stack) -> None:
        client = Client(stack.url("gateway"))
        job = {"program": {"data_url": stack.source_url, "op": "crc32c"}}
        assert client.post("/v1/jobs", job).status == 401
        with_key = client.with_key(stack.key)
        where = with_key.post("/v1/jobs", job).headers["Location"]
        status = with_key.get(f"{where}?wait_s=30").json
        assert status["result"]["results"][0]["value"] == kernels.crc32c(DATA)
        assert with_key.post("/v1/explain", job).status == 200
        client.pool.clear()

    def test_the_intake_takes_what_is_pushed(self, stack: Stack) -> None:
        job = {"job_id": "pushed", "program": {"data_url": stack.source_url, "op": "crc32c"}}
        with stack.observer() as observer:
            observer.lpush(JOBS_QUEUE, json.dumps(job))
            wait_until(lambda: observer.get(JOBS_RESULTS + "pushed"), "it has ended")
            assert json.loads(observer.get(JOBS_RESULTS + "pushed"))["status"] == "done"

    def test_prometheus_scrapes_the_workers(self, stack: Stack) -> None:
        crc32c.delay(stack.source_url, policy={"substrates": ["local"]}).get(timeout=30)

        def counted(query: str) -> bool:
            path = f"/api/v1/query?query={urllib.parse.quote(query)}"
            found = json.loads(get(stack.url("prometheus", path)))["data"]["result"]
            return bool(found) and float(found[0]["value"][1]) > 0

        wait_until(lambda: get(stack.url("prometheus", "/-/ready")), "Prometheus is ready")
        query = 'sum(packetfs_jobs_total{substrate="local",outcome="done"})'
        wait_until(lambda: counted(query), "Prometheus has scraped the worker")
        wait_until(lambda: counted('up{job="packetfs-gateway"}'), "Prometheus has the gateway's key")

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

    def test_a_lost_message_is_published_again(self, stack: Stack, lost: str) -> None:
        with stack.observer() as observer:
            wait_until(lambda: observer.llen(lost) == 1, "beat and the upkeep worker swept the ledger", 60)

    @pytest.mark.parametrize("name", CHECKED)
    def test_the_memory_that_it_may_use_is_enough(self, stack: Stack, name: str) -> None:
        pid = stack.processes[name].pid
        peak = sum(peak_memory_mib(one) for one in (pid, *descendants(pid)))
        print(f"{name}: {peak:.0f} MiB of {memory_limit_mib(name)}")
        assert peak < 0.8 * memory_limit_mib(name)


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Redis, and a worker that has stopped; whoever waits for what comes of it need not be the only one who waits."""
    with Stack(tmp_path_factory.mktemp("ill")) as ill:
        start_redis(ill)
        ill.start("worker-local")
        ill.wait_healthy("worker-local")
        worker = ill.processes["worker-local"]
        worker.send_signal(signal.SIGSTOP)
        yield ill
        worker.send_signal(signal.SIGCONT)


class TestHealth:
    """A worker that lives and does not consume, and a Redis that is away."""

    def test_without_beat_the_upkeep_worker_is_not_well(self, ill: Stack) -> None:
        ill.start("worker-upkeep")
        wait_until(lambda: "ready" in ill.log("worker-upkeep") or ill.check("worker-upkeep").returncode == 1, "asked")
        assert ill.check("worker-upkeep").returncode == 1
        ill.start("beat")
        ill.wait_healthy("worker-upkeep", "beat")

    def test_a_worker_that_idles_is_ended(self, ill: Stack) -> None:
        worker = ill.processes["worker-local"]
        wait_until(lambda: ill.check("worker-local").returncode == 1, "the check finds it out")
        assert worker.poll() is None, "it is given time first"
        ill.check("worker-local", "--after", "0")
        worker.send_signal(signal.SIGCONT)
        worker.wait(30)

    def test_an_intake_that_hangs_is_ended(self, ill: Stack) -> None:
        ill.start("intake")
        ill.wait_healthy("intake")
        intake = ill.processes["intake"]
        with ill.observer() as observer:  # as when it has given no sign of life for ten seconds
            intake.send_signal(signal.SIGSTOP)
            (alive,) = observer.keys(f"{JOBS_ALIVE}*")
            observer.delete(alive)
        assert ill.check("intake").returncode == 1
        ill.check("intake", "--after", "0")
        intake.send_signal(signal.SIGCONT)
        assert intake.wait(30) == 0

    def test_one_that_waits_for_redis_is_not(self, tmp_path: Path) -> None:
        with Stack(tmp_path) as alone:
            start_redis(alone)
            alone.start("worker-local")
            alone.wait_healthy("worker-local")
            server = alone.processes["redis"]
            server.send_signal(signal.SIGKILL)
            server.wait(10)
            for _ in range(2):
                done = alone.check("worker-local", "--after", "0")
                assert done.returncode == 1
                assert "does not answer" in done.stderr
            assert alone.check("intake").returncode == 1
            assert alone.processes["worker-local"].poll() is None
            assert "shutdown" not in alone.log("worker-local")

    def test_a_gateway_that_says_that_others_are_unwell_is_well(self, tmp_path: Path) -> None:
        """And Flower is not, when it says so."""
        with RawServer(lambda x: x.send(b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n")) as server:
            stack = Stack(tmp_path)
            stack.ports |= {"gateway": server.port, "flower": server.port}
            assert stack.check("gateway").returncode == 0
            assert stack.check("flower").returncode == 1
        assert stack.check("gateway").returncode == 1
