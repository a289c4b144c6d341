"""DEPLOYMENT.md is true: what can be run here is run, in its order and as it stands; what cannot is marked, and says why.

Blocks of ``sh run`` become one script; one of ``sh serve "probe"`` is started in the background at its place, and the
script goes on when its probe succeeds. The script runs in a copy of the checkout, so that it can write where it likes.
"""

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.processes import alive, descendants
from support.system import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOCUMENT = (ROOT / "DEPLOYMENT.md").read_text("utf-8")
PHASES = ["Needs", "Deploy", "Verify", "Roll back", "Cost", "Monitoring", "Troubleshooting", "Checklist"]
KINDS = ["local", "fly", "cloudrun", "cloudflare", "lambda", "vercel"]
_BLOCK = re.compile(r'^```(\w+)(?: (run|serve))?(?: "([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)

_HEAD = """
set -euo pipefail
serving=()
end() {
    status=$?
    for pid in "${serving[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${serving[@]}"; do wait "$pid" 2>/dev/null || true; done
    exit $status
}
trap end EXIT
up() {
    for _ in $(seq 150); do
        if eval "$1" >/dev/null 2>&1; then return 0; fi
        kill -0 "${serving[-1]}" || { echo "it ended before it was up" >&2; return 1; }
        sleep 0.2
    done
    echo "it never was up: $1" >&2
    return 1
}
set -v
"""


@dataclass(frozen=True)
class Block:
    language: str
    how: str
    probe: str
    text: str


BLOCKS = [Block(*(found or "" for found in match)) for match in _BLOCK.findall(DOCUMENT)]


def script() -> str:
    """Return the document's commands as one script."""
    parts = [_HEAD]
    for block in BLOCKS:
        if block.how == "run":
            parts.append(block.text)
        elif block.how == "serve":
            command = block.text.partition("#")[0].strip()
            parts.append(f'{command} >>served.log 2>&1 &\nserving+=($!)\nup "{block.probe}"\n')
    return "\n".join(parts)


def test_there_are_eight_phases_and_every_place_is_in_each_that_differs() -> None:
    assert re.findall(r"^## Phase \d: (.*)$", DOCUMENT, re.MULTILINE) == PHASES
    sections = re.split(r"^## Phase \d: .*$", DOCUMENT, flags=re.MULTILINE)[1:]
    for phase in ("Needs", "Roll back", "Cost"):
        section = sections[PHASES.index(phase)]
        assert all(f"`{kind}`" in section or kind == "local" for kind in KINDS), phase


def test_what_cannot_be_run_here_says_why() -> None:
    shell = [block for block in BLOCKS if block.language == "sh"]
    assert all(
        block.how or block.text.startswith("# needs a") or block.text.startswith("# needs Docker") for block in shell
    )
    assert sum(bool(block.how) for block in shell) >= 12


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT):
        assert (ROOT / target).exists(), target


def test_every_command_that_can_run_here_does(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".tools", "node_modules", "__pycache__", ".hypothesis", ".*_cache"
    )
    shutil.copytree(ROOT, checkout, ignore=ignored, symlinks=True)
    for installed in (".venv", ".tools", "remote/node_modules"):
        (checkout / installed).symlink_to(ROOT / installed)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PACKETFS_", "AWS_"))}
    environ |= {
        "PACKETFS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(checkout), "HOME": str(tmp_path),
        "SAM_CLI_TELEMETRY": "0", "PATH": f"{environ['PATH']}:/usr/sbin",
    }  # fmt: skip
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(
            ["bash", "-c", script()], cwd=checkout, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(280)
        finally:
            everything = descendants(process.pid)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        said = output.read()
    served = checkout / "served.log"
    assert status == 0, said[-4000:] + (served.read_text()[-2000:] if served.exists() else "")
    assert not [pid for pid in everything if alive(pid)]
    assert "cases passed" in said
    assert "Flower" not in said or "Traceback" not in said
