"""A manifest: many checks in a file, as JSON Lines (an object a line), or as CSV with the fields' names in its first line.

All of it is read and checked before anything is verified, so that a mistake in its last line is told at once.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.validation import show
from packetfs_compute.verifying.check import FIELDS, Check, Wrong, parse_check

__all__ = ["MAX_CHECKS", "read_manifest"]

MAX_CHECKS: Final = 1_000_000
_MAX_LINE_CHARS: Final = 16_384


def read_manifest(path: Path) -> list[Check]:
    """Return the checks in the file at ``path``, each once, in the order of their first lines.

    A name that ends in ``.csv`` is CSV, any other JSON Lines; empty lines are passed over. Raises
    :class:`ConfigurationError` naming the line and the field.
    """
    lines = _csv_lines if path.suffix.lower() == ".csv" else _json_lines
    checks: dict[Check, None] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, raw in lines(file, path):
                try:
                    checks[parse_check(raw)] = None
                except Wrong as wrong:
                    raise _bad(path, number, f"{wrong.field} {wrong.problem}", wrong.field, wrong.fix) from None
                if len(checks) > MAX_CHECKS:
                    raise _bad(path, number, f"is over the {MAX_CHECKS:,} checks of one manifest", None, "split it")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", {"field": "--manifest"}) from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8", {"field": "--manifest"}) from None
    if not checks:
        raise ConfigurationError(f"{path} has nothing to verify in it", {"field": "--manifest"})
    return list(checks)


def _json_lines(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while line := file.readline(_MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > _MAX_LINE_CHARS:
            raise _bad(path, number, f"is longer than {_MAX_LINE_CHARS} characters", None, "one JSON object a line")
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            raise _bad(path, number, "is no JSON", None, 'write {"source": "https://…", "crc32c": "…"}') from None
        if not isinstance(raw, dict):
            raise _bad(path, number, f"is {show(raw)}", None, 'write {"source": "https://…", "crc32c": "…"}')
        yield number, raw


def _csv_lines(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, restkey="…", strict=True)
    try:
        names = reader.fieldnames or []
        for name in names:
            if name not in FIELDS or names.count(name) > 1:
                raise _bad(path, 1, f"has the column {show(name)}", name, f"known are {', '.join(FIELDS)}, each once")
        for raw in reader:
            if "…" in raw:
                raise _bad(
                    path, reader.line_num, "has more cells than the first line", None, "quote what holds a comma"
                )
            if any(raw.values()):
                yield reader.line_num, raw
    except csv.Error as error:
        raise _bad(path, reader.reader.line_num, f"is no CSV: {error}", None, "quote cells as RFC 4180 does") from None


def _bad(path: Path, number: int, problem: str, field: str | None, fix: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} line {number}: {problem}", {"field": field or "--manifest", "line": number, "hint": fix}
    )
