"""The Worker as it is deployed: that its configuration holds what it must, and that it builds without a warning."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest
from support.workerd import REMOTE, SOURCE, WorkerBuild, build_worker, configuration, node_binary

pytestmark = pytest.mark.integration

FREE_PLAN_BYTES = 3 << 20
"""What a Worker may have on the free plan, compressed."""


def test_it_builds_without_a_warning(worker_build: WorkerBuild) -> None:
    assert not re.search(r"(?i)warn|error|deprecat", worker_build.output), worker_build.output
    assert re.search(r"--dry-run: exiting now", worker_build.output), worker_build.output
    script, *others = (path.name for path in worker_build.modules)
    assert script == "index.js"
    assert [re.sub("^[0-9a-f]+-", "", name) for name in others] == ["kernels-simd.wasm"]


def test_it_is_small(worker_build: WorkerBuild) -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in worker_build.modules}
    print(f"the Worker, compressed: {sizes}")
    assert sum(sizes.values()) < FREE_PLAN_BYTES / 20


def test_two_builds_are_equal(worker_build: WorkerBuild, tmp_path: Path) -> None:
    again = build_worker(tmp_path)
    assert [path.name for path in again.modules] == [path.name for path in worker_build.modules]
    for one, other in zip(again.modules, worker_build.modules, strict=True):
        assert one.read_bytes() == other.read_bytes()


_WATCH = """
const { appendFileSync } = require("node:fs");
const note = (what) => { appendFileSync(process.env.WATCH_LOG, `${what}\\n`); throw new Error(`no network: ${what}`); };
require("node:net").Socket.prototype.connect = (...how) => note(`connect ${JSON.stringify(how)}`);
require("node:dns").lookup = (name) => note(`lookup ${name}`);
"""


def test_it_builds_without_asking_the_network_for_anything(
    worker_build: WorkerBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, log = tmp_path / "watch.cjs", tmp_path / "watch.log"
    watch.write_text(_WATCH)
    monkeypatch.setenv("WATCH_LOG", str(log))
    monkeypatch.setenv("NODE_OPTIONS", f"--require {watch}")
    build = build_worker(tmp_path)
    assert not log.exists(), log.read_text()
    assert build.modules[0].read_bytes() == worker_build.modules[0].read_bytes()
    probe = [node_binary(), "-e", "fetch('http://127.0.0.1:8080/').catch(() => {})"]
    subprocess.run(probe, check=True, capture_output=True, timeout=20)
    assert "127.0.0.1" in log.read_text()  # it does see what goes out


def test_its_configuration() -> None:
    document = configuration()
    assert "global_fetch_strictly_public" in document["compatibility_flags"]
    assert document["limits"]["cpu_ms"] <= 300_000
    assert document["observability"]["enabled"] is True
    classes = {each["class_name"] for each in document["durable_objects"]["bindings"]}
    assert set(document["migrations"][0]["new_sqlite_classes"]) == classes
    assert not {"account_id", "zone_id", "routes", "route"} & set(document)


def test_there_is_no_secret_in_it() -> None:
    text = (SOURCE / "wrangler.jsonc").read_text("utf-8")
    assert re.findall(r'"PACKETFS_[A-Z_]+"', text) == []
    assert not list(SOURCE.glob(".dev.vars*"))


def test_its_types_hold() -> None:
    """Against the platform's types. The core has a check of its own, against the Web's."""
    compiler = REMOTE / "node_modules" / "typescript" / "bin" / "tsc"
    command = [node_binary(), str(compiler), "--noEmit", "--pretty", "false", "-p", str(SOURCE / "tsconfig.json")]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=100)
    assert [line for line in done.stdout.splitlines() if not line.startswith(("../edge/", " "))] == []
    assert done.stderr == ""
