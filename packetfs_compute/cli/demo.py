"""``packetfs demo``: the main job on real input, every answer checked."""

import ipaddress
import json
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.cli.reference import reference
from packetfs_compute.cli.render import bytes_text, rate_text, seconds_text
from packetfs_compute.cli.session import Session, temporary_system
from packetfs_compute.embedded.files import serve_file
from packetfs_compute.program import Op
from packetfs_compute.settings import load_settings

__all__ = ["demo"]

_MIN_BYTES: Final = 64 << 20
_TIMEOUT_S: Final = 60.0
_OPS: Final = (Op("counteq", 10), Op("crc32c"), Op("fnv64"), Op("xor", 255), Op("add", 1))
_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Row:
    """One job of the demo: what was asked, what came back, and what it should be."""

    op: Op
    start: int
    stop: int
    result: dict[str, Any]
    expected: int | str

    @property
    def right(self) -> bool:
        """Whether the answer is the independent one, over the very bytes that were asked for."""
        return bool(self.result["value"] == self.expected and self.result["bytes_processed"] == self.stop - self.start)


@click.command(short_help="See it work: real bytes, every answer checked.")
@click.option(
    "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Serve this file instead of one of 64 MiB made of this Python's own library.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def demo(path: Path | None, as_json: bool) -> None:
    """Watch it work: real bytes of a real HTTP object on loopback, all five operations, through Redis and Celery.

    Starts a system of its own, submits jobs over several ranges, checks every answer against plain Python that shares no
    code with the kernels, and stops what it started.
    """
    started = time.monotonic()
    with interruptible(), tempfile.TemporaryDirectory(prefix="packetfs-demo-") as folder:
        rows = _run(path or _library_bytes(Path(folder) / "library.bin"))
    right = sum(row.right for row in rows)
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps({"right": right, "jobs": len(rows), "results": [row.result for row in rows]}))
    else:
        _print(rows)
        click.echo(f"{right} of {len(rows)} answers right, in {seconds:.1f} s with the start of Redis and worker")
    if right != len(rows):
        raise SystemExit(1)


def _run(path: Path) -> list[Row]:
    size = path.stat().st_size
    ranges = list(_ranges(size))
    settings = replace(load_settings(), allow_private_sources=(_LOOPBACK,))
    workers = os.cpu_count() or 1
    # Processes that are spawned share nothing with this one, which is about to have threads.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool, serve_file(path) as url:
        click.echo(f"serving {path.name} ({bytes_text(size)}) at {url}; starting Redis and a Celery worker", err=True)
        with temporary_system(settings) as session:
            cases = [(op, start, stop) for start, stop in ranges for op in _OPS]
            pending = [_submit(session, url, *case) for case in cases]
            results = [result.get(timeout=_TIMEOUT_S) for result in pending]
        click.echo("checking every answer with plain Python (FNV-1a is slow there)", err=True)
        expected = [pool.submit(_expected, path, *case) for case in cases]
        return [
            Row(*case, result, _rendered(case[0], value))
            for case, result, value in zip(cases, results, expected, strict=True)
        ]


def _ranges(size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges that a mistake would show in: the whole, an unaligned middle, the very end, nothing at all."""
    yield 0, size
    start = min(size, size // 3 + 1)
    yield start, start + size // 8
    yield max(0, size - 100_003), size
    yield size, size


def _submit(session: Session, url: str, op: Op, start: int, stop: int) -> Any:
    imm = {} if op.imm is None else {"imm": op.imm}
    return session.submit(op.name, data_url=url, offset=start, length=stop - start, **imm)


def _expected(path: Path, op: Op, start: int, stop: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return reference(op, file.read(stop - start))


def _rendered(op: Op, value: Future[int]) -> int | str:
    rendered: int | str = op.render(value.result())["value"]
    return rendered


def _library_bytes(path: Path) -> Path:
    """Write at least 64 MiB of real files, those of this Python's own library, one behind the other."""
    root = Path(sysconfig.get_paths()["stdlib"])
    with path.open("wb") as out:
        while out.tell() < _MIN_BYTES:
            for file in sorted(root.rglob("*.py")):
                if out.tell() >= _MIN_BYTES:
                    break
                out.write(file.read_bytes())
    return path


def _print(rows: list[Row]) -> None:
    table = Table(title="Five operations over one HTTP object", title_justify="left")
    for name, right in (("op", False), ("range", True), ("value", True), ("substrate", False), ("MB/s", True),
                        ("time", True), ("", False)):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        seconds = row.result["timing"]["fetch_s"] + row.result["timing"]["compute_s"]
        length = row.stop - row.start
        table.add_row(
            row.op.name if row.op.imm is None else f"{row.op.name}({row.op.imm})",
            f"{bytes_text(length)} at {row.start:,}",
            str(row.result["value"]),
            row.result["substrate"],
            rate_text(length, seconds),
            seconds_text(seconds),
            "right" if row.right else f"WRONG: {row.expected}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
