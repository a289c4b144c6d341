"""The TypeScript core of ``remote/edge/`` in a node process, to be called from tests as if it were here."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ROOT = Path(__file__).parents[2]
REMOTE = ROOT / "remote"
WASM = REMOTE / "edge" / "wasm"
HARNESS = ROOT / "tests" / "unit" / "edge" / "harness.mjs"
PATH = f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"


class Refused(Exception):
    """A ``JobError`` of the core."""

    def __init__(self, type: str, message: str, status: int, retryable: bool, details: dict[str, Any]) -> None:  # noqa: A002
        super().__init__(type, message, status, retryable, details)
        self.type, self.message, self.status, self.retryable, self.details = type, message, status, retryable, details

    @property
    def field(self) -> str | None:
        return self.details.get("field")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.message)


def need_node() -> str:
    """Return node, once all that the core's tests need is there; fail in CI, skip elsewhere where it is not."""
    node = shutil.which("node", path=PATH)
    lacking = None if node else "node is not installed: make tools"
    if not (REMOTE / "node_modules" / "esbuild").is_dir():
        lacking = "remote/node_modules is not installed: make types"
    if lacking is not None:
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    assert node is not None
    return node


def bundle(entry: Path, out: Path) -> None:
    """Bundle a module with all that it imports."""
    esbuild = REMOTE / "node_modules" / "esbuild" / "bin" / "esbuild"
    done = subprocess.run(
        [str(esbuild), str(entry), "--bundle", "--platform=node", "--format=esm", f"--outfile={out}", "--log-level=warning"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": PATH},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class Edge:
    """The running process. Use it as a context manager; calls are answered one after the other."""

    def __init__(self, folder: Path) -> None:
        node = need_node()
        bundle(HARNESS, folder / "harness.mjs")
        self._log = (folder / "harness.log").open("w+b")
        self._process = subprocess.Popen(
            [node, str(folder / "harness.mjs"), str(WASM)], cwd=folder, env={"PATH": PATH},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, name: str, *given: object) -> Any:
        """Call a function of the harness; raises :class:`Refused` for what the core throws."""
        return self.calls([(name, *given)])[0].value

    def calls(self, calls: list[tuple[object, ...]]) -> list["Outcome"]:
        """Make many calls at once."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        outcomes = []
        for start in range(0, len(calls), 64):
            some = calls[start : start + 64]
            stdin.write(b"".join(json.dumps(call, allow_nan=False).encode("ascii") + b"\n" for call in some))
            stdin.flush()
            for _ in some:
                line = stdout.readline()
                if not line:
                    self._log.seek(0)
                    raise AssertionError(f"the harness ended: {self._log.read().decode()[-2000:]}")
                outcomes.append(Outcome(json.loads(line)))
        return outcomes

    def platform(self, variables: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Give the harness a platform for ``execute`` and ``serve``."""
        opened = {"PACKETFS_ALLOW_UNSIGNED": "1", "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8"}
        return self.call("platform", {"variables": opened if variables is None else dict(variables), **options})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._log.close()
        self._process.terminate()
        self._process.wait(10)


class Outcome:
    """What a call gave: a value, or what the core threw."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.error = Refused(**raw["error"]) if "error" in raw else None
        self._value = raw.get("ok")

    @property
    def value(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._value


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """One process for all tests of the core."""
    with Edge(tmp_path_factory.mktemp("edge")) as running:
        yield running
