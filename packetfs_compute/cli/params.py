"""What is typed at the shell, turned into values: sizes, operations, policies, sources."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from packetfs_compute.names import OPS, OPS_WITH_IMM

__all__ = ["OPERATION", "POLICY", "SIZE", "local_file", "policy_of"]

_UNITS: Final = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "kib": 1 << 10, "m": 10**6, "mb": 10**6, "mib": 1 << 20,
                 "g": 10**9, "gb": 10**9, "gib": 1 << 30, "t": 10**12, "tb": 10**12, "tib": 1 << 40}  # fmt: skip
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SIZE: Final = re.compile(r"([0-9]{1,18})\s*([a-zA-Z]{0,3})")


class _Size(click.ParamType[int]):
    """A count of bytes: ``4096``, ``8MiB``, ``1GB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if not match or match[2].lower() not in _UNITS:
            self.fail(f"{value!r} is no size; write bytes or a unit, such as 4096, 8MiB, 1GB", param, ctx)
        return int(match[1]) * _UNITS[match[2].lower()]


class _Operation(click.ParamType[dict[str, Any]]):
    """An operation: ``crc32c``, or with its immediate ``counteq:10``, ``counteq:0x0a``."""

    name = "op"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        name, colon, imm = value.partition(":")
        if name not in OPS:
            self.fail(f"{name!r} is no operation; use one of {', '.join(OPS)}", param, ctx)
        if not colon:
            return {"op": name}
        if name not in OPS_WITH_IMM:
            self.fail(f"{name} takes no immediate; write {name} alone", param, ctx)
        try:
            return {"op": name, "imm": int(imm, 0)}
        except ValueError:
            self.fail(f"{imm!r} is no byte; write 0 to 255, such as {name}:10 or {name}:0x0a", param, ctx)


class _Policy(click.ParamType[dict[str, Any]]):
    """A part of the policy: ``deadline_s=5``, or a whole one as a JSON object."""

    name = "policy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        if value.lstrip().startswith("{"):
            try:
                return dict(json.loads(value))
            except ValueError as error:
                self.fail(f"not a JSON object: {error}", param, ctx)
        key, equals, text = value.partition("=")
        if not equals:
            self.fail(f"{value!r} is no policy; write KEY=VALUE or a JSON object", param, ctx)
        if key in ("substrates", "exclude"):
            return {key: [name for name in text.split(",") if name]}
        try:
            return {key: json.loads(text)}
        except ValueError:
            return {key: text}


SIZE: Final = _Size()
OPERATION: Final = _Operation()
POLICY: Final = _Policy()


def policy_of(parts: tuple[dict[str, Any], ...]) -> dict[str, Any] | None:
    """Return the policy that the parts make, later ones over earlier; ``None`` when there are none."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged.update(part)
    return merged or None


def local_file(source: str) -> Path | None:
    """Return the file that ``source`` names when it is a path at the shell rather than a URL.

    A ``file://`` URL is a URL: it may come from anywhere, so it opens nothing that settings do not.
    """
    if _URL.match(source):
        return None
    path = Path(source)
    with suppress(RuntimeError):  # "~nobody": there is no such user, so that is the file's name
        path = path.expanduser()
    return path.resolve()
