"""The command group and the one place where an error becomes lines on stderr and an exit code."""

import json
import os
import pkgutil
import sys
from typing import Any, Final, cast

import click

from packetfs_compute import __version__
from packetfs_compute.errors import (
    BadPolicy,
    BadProgram,
    ConfigurationError,
    JobError,
    PacketFSError,
)

__all__ = ["cli", "main"]

_COMMANDS: Final = {
    "demo": "packetfs_compute.cli.demo:demo",
    "run": "packetfs_compute.cli.run:run",
    "scan": "packetfs_compute.cli.scan:scan",
    "verify": "packetfs_compute.cli.verify:verify",
    "explain": "packetfs_compute.cli.explain:explain",
    "up": "packetfs_compute.cli.up:up",
    "fleet": "packetfs_compute.cli.fleet:fleet",
    "upkeep": "packetfs_compute.cli.upkeep:upkeep",
    "intake": "packetfs_compute.cli.intake:intake",
    "simulate": "packetfs_compute.cli.simulate:simulate",
    "doctor": "packetfs_compute.cli.doctor:doctor",
    "conform": "packetfs_compute.cli.conform:conform",
    "gateway": "packetfs_compute.cli.gateway:gateway",
    "keys": "packetfs_compute.cli.keys:keys",
}
_USAGE_ERRORS: Final = (BadProgram, BadPolicy, ConfigurationError)
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class _Commands(click.Group):
    """Loads a command's module when it is asked for, so that none waits for what only another needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        return cast("click.Command", pkgutil.resolve_name(_COMMANDS[cmd_name]))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="packetfs")
def cli() -> None:
    """Compute on bytes without downloading them.

    \b
    packetfs demo                                    see it work on this machine
    packetfs run crc32c https://host/object          one operation over an object
    packetfs run counteq:10 ./log.txt --inline       here, with no broker
    packetfs scan https://host/object --op crc32c    a whole object, split over all places
    packetfs verify s3://bucket/key --crc32c HEX     whether an object is what it should be
    packetfs explain crc32c https://host/object      where it would run, and why
    packetfs up                                      the whole system on this machine
    packetfs fleet                                   the substrates: health, load, prices
    packetfs doctor                                  what is well and what is not
    packetfs gateway                                 jobs over HTTP
    packetfs conform https://endpoint                whether an endpoint keeps the contract
    """


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="packetfs", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away (`packetfs … | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except PacketFSError as error:
        _show_error(error, as_json="--json" in arguments)
        return EXIT_USAGE if isinstance(error, _USAGE_ERRORS) else EXIT_FAILED
    return code if isinstance(code, int) else 0


def _show_error(error: PacketFSError, *, as_json: bool) -> None:
    name = error.type if isinstance(error, JobError) else "error"
    click.echo(f"{name}: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    if as_json:
        document: dict[str, Any] = {"error": {"type": name, "message": error.message, **error.details}}
        click.echo(json.dumps(document, default=str))
