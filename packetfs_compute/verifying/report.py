"""A report: what came of every check, a row each, in a file that grows with them.

It is JSON Lines (``.jsonl``, ``.ndjson``), one JSON list (``.json``) or CSV (``.csv``), and is whole after each row: a row
is one write, and in a list it replaces the closing bracket and brings a new one. A report that exists is gone on with:
what matched stays and is not verified again; what did not is dropped, in one atomic step, and verified anew. Rows of
checks that are not asked for now stay as they are.

One run writes a report at a time: its file is locked (flock) for as long as it is open, and so is the one that replaces it
before that has its name. The kernel lets go of the lock of a run that dies.
"""

import csv
import fcntl
import io
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from packetfs_compute.errors import AlreadyRunning, ConfigurationError
from packetfs_compute.verifying.check import Check, Row, row_of

__all__ = ["Report", "open_report"]

_MAX_LOOKS: Final = 10
"""How often a report may be another file than the one that was locked, before somebody is taken to be writing it."""
_COLUMNS: Final = [field.name for field in fields(Row)]


@dataclass(frozen=True, slots=True)
class _Format:
    """``head``, then rows with ``between`` them, then ``tail``."""

    head: str
    between: str
    tail: str
    written: Callable[[Row], str]
    read: Callable[[str], dict[str, Any] | None]
    """A row's fields of one line; ``None`` for a line that is none. Raises :class:`ValueError` for nonsense."""


def _json_row(row: Row) -> str:
    return json.dumps(row.document(), separators=(",", ":"))


def _read_json(line: str) -> dict[str, Any] | None:
    text = line.strip().removesuffix(",")
    if text in ("", "[", "]"):
        return None
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("no object")  # noqa: TRY004  (of the file, not of a caller)
    return raw


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _read_csv(line: str) -> dict[str, Any] | None:
    cells = next(csv.reader([line], strict=True), [])
    if cells in ([], _COLUMNS):
        return None
    return dict(zip(_COLUMNS, cells, strict=True))


_LINES: Final = _Format("", "", "", lambda row: _json_row(row) + "\n", _read_json)
_FORMATS: Final = {
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".json": _Format("[\n", ",\n", "\n]\n", _json_row, _read_json),
    ".csv": _Format(
        _csv_line(_COLUMNS) + "\n", "", "", lambda row: _csv_line(row.document().values()) + "\n", _read_csv
    ),
}


class Report:
    """A report that is open for rows. ``done`` are the rows of checks that matched before, and need not be made again."""

    def __init__(self, path: Path, form: _Format, rows: Collection[Row], done: dict[Check, Row]) -> None:
        self.done = done
        self._form = form
        self._empty = not rows
        self._file = _replaced(path, form.head + form.between.join(map(form.written, rows)) + form.tail)

    def add(self, row: Row) -> None:
        """Write a row; it is there for others to read when this returns."""
        form = self._form
        self._file.seek(-len(form.tail), os.SEEK_END)
        text = ("" if self._empty else form.between) + form.written(row) + form.tail
        self._file.write(text.encode())
        self._empty = False

    def close(self) -> None:
        """Have all of it on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_report(path: Path, checks: Collection[Check]) -> Report:
    """Return the report at ``path`` for ``checks``, new or gone on with.

    Raises :class:`ConfigurationError` for a name that says no format, and for a file that is there and no report;
    :class:`AlreadyRunning` at once for one that another run writes.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ConfigurationError(
            f"{path} does not say its format", {"field": "--report", "hint": f"name it {', '.join(_FORMATS)}"}
        )
    asked = set(checks)
    try:
        with _locked(path):
            known = {row.check: row for row in _rows(path, form)}
            kept = [row for row in known.values() if row.status == "match" or row.check not in asked]
            return Report(path, form, kept, {row.check: row for row in kept if row.check in asked})
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}", {"field": "--report"}) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file at ``path``, which is made where there is none."""
    for _ in range(_MAX_LOOKS):
        with path.open("ab") as file:
            _lock(file, path)
            # Whoever had it may have put another file in its place meanwhile, and holds the lock of that.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return
    raise _taken(path)


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(path) from None


def _taken(path: Path) -> AlreadyRunning:
    hint = "wait for it, stop it, or name another report"
    return AlreadyRunning(f"another run writes {path}", {"field": "--report", "hint": hint})


def _rows(path: Path, form: _Format) -> list[Row]:
    """Return the rows of an earlier run. A last line that has no end was being written when that was killed."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    lines, _, torn = data.rpartition(b"\n")
    for number, line in enumerate(lines.split(b"\n") if lines else [torn], 1):
        try:
            raw = form.read(line.decode())
            if raw is not None:
                rows.append(row_of(raw))
        except (ValueError, TypeError, csv.Error):
            raise ConfigurationError(
                f"{path} line {number} is no row of a report",
                {"field": "--report", "hint": "name a report of packetfs verify, or a file that does not exist"},
            ) from None
    return rows


def _replaced(path: Path, text: str) -> BinaryIO:
    """Write a file whole or not at all, with the rights that it had; return it, open and locked."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        made.chmod(path.stat().st_mode & 0o777)
        locked = made.open("r+b", buffering=0)
        try:
            _lock(locked, path)
            made.replace(path)
        except BaseException:
            locked.close()
            raise
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise
    return locked
