"""The short version of ``make chaos``: kill workers and Redis under some hundred jobs; none is lost, none is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]


def test_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [sys.executable, "-m", "chaos.nothing_lost", "--jobs", "800", "--worker-kills", "3", "--redis-kills", "2"]
    done = subprocess.run(
        [*argv, "--seed", "11", "--give-up-s", "90"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "800 jobs, 3 workers and 2 Redis servers killed (-9): 0 lost, 0 wrong, 0 failed;" in done.stdout
