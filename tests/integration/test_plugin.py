"""Another distribution brings a kind of substrate: the one of docs/substrates.md, word for word, installed by pip."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.system import PACKETFS, ROOT

pytestmark = pytest.mark.integration

_BLOCK = re.compile(r"```(?:toml|python)\n# ([a-z_.]+)\n(.*?)```", re.DOTALL)


@dataclass
class Site:
    """Where plug-ins are installed, and a shell that sees them."""

    packages: Path
    folder: Path

    def install(self, project: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
             "--disable-pip-version-check", "--target", str(self.packages), str(project)],
            check=True, timeout=100,
        )  # fmt: skip

    def packetfs(self, *arguments: str, **substrates: Any) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PACKETFS_")}
        environ |= {
            "PYTHONPATH": os.pathsep.join([str(self.packages), str(ROOT)]),
            "PACKETFS_CONFIG": os.devnull,
            "PACKETFS_DATA_DIR": str(self.folder),
            "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
            "PACKETFS_SUBSTRATES": json.dumps(substrates),
        }
        return subprocess.run(
            [*PACKETFS, *arguments], env=environ, cwd=self.folder, capture_output=True, text=True, timeout=100
        )


def project(folder: Path, name: str, module: str, kind: str = "command", target: str | None = None) -> Path:
    """Write a distribution with one module, whose entry point is ``target``."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\n[project.entry-points."packetfs.substrates"]\n'
        f'{kind} = "{target or module + ":Substrate"}"\n[tool.setuptools]\npy-modules = ["{module}"]\n'
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("plugin")
    written = folder / "documented"
    written.mkdir()
    blocks = dict(_BLOCK.findall((ROOT / "docs" / "substrates.md").read_text("utf-8")))
    assert set(blocks) == {"pyproject.toml", "packetfs_command.py"}
    for name, text in blocks.items():
        # The machine that the test logs in to is this one, whose Python is the one that runs the tests.
        (written / name).write_text(text.replace('"python3"', json.dumps(sys.executable)))
    site = Site(folder / "site", folder)
    site.install(written)
    return site


ATTIC = {"kind": "command", "script": {"command": ["env"]}, "slots": 2}


def test_it_keeps_the_contract(site: Site) -> None:
    checks = ("health", "bad requests", "repeats", "deadlines", "large ranges")
    only = [word for check in checks for word in ("--only", check)]
    done = site.packetfs("conform", "attic", *only, "--large", "32MiB", "--json", attic=ATTIC)
    found = json.loads(done.stdout)
    assert (done.returncode, found["failed"], set(found["cases"])) == (0, [], set(checks)), done.stderr


def test_the_router_considers_it(site: Site) -> None:
    done = site.packetfs(
        "explain",
        "crc32c",
        "http://127.0.0.1/x",
        "--length",
        "1MiB",
        "--policy",
        "exclude=local",
        "--json",
        attic=ATTIC,
    )
    decision = json.loads(done.stdout)
    assert decision["substrate"] == "attic"


def test_a_kind_that_nobody_brings_is_refused_and_the_ones_there_are_named(site: Site) -> None:
    done = site.packetfs("conform", "moon", moon={"kind": "rocket"})
    assert done.returncode == 2
    assert "of the unknown kind 'rocket'" in done.stderr
    assert "cloudflare" in done.stderr
    assert "command" in done.stderr


def test_a_plug_in_that_cannot_be_loaded_is_named(site: Site, tmp_path: Path) -> None:
    broken = project(tmp_path / "broken", "packetfs-broken", "packetfs_broken", "broken")
    (broken / "packetfs_broken.py").write_text("raise OSError('no licence')\n")
    site.install(broken)
    idle = project(tmp_path / "idle", "packetfs-idle", "packetfs_idle", "idle", "packetfs_idle:NOTHING")
    (idle / "packetfs_idle.py").write_text("NOTHING = 7\n")
    site.install(idle)
    for kind, says in (("broken", "OSError: no licence"), ("idle", "nothing to be called")):
        done = site.packetfs("conform", "place", place={"kind": kind})
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert "packetfs-broken" in site.packetfs("conform", "place", place={"kind": "broken"}).stderr


def test_two_of_one_kind_are_one_too_many(site: Site, tmp_path: Path) -> None:
    for name in ("first", "second"):
        twin = project(tmp_path / name, f"packetfs-{name}", f"packetfs_{name}", "twin")
        (twin / f"packetfs_{name}.py").write_text("Substrate = object\n")
        site.install(twin)
    done = site.packetfs("conform", "place", place={"kind": "twin"})
    assert "several plug-ins bring the kind 'twin'" in done.stderr
    assert "packetfs-first, packetfs-second" in done.stderr


def test_ours_cannot_be_replaced(site: Site, tmp_path: Path) -> None:
    thief = project(tmp_path / "thief", "packetfs-thief", "packetfs_thief", "local")
    (thief / "packetfs_thief.py").write_text("raise SystemExit(9)\n")
    site.install(thief)
    assert site.packetfs("conform", "local", "--only", "health").returncode == 0
