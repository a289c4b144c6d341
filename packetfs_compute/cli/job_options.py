"""The words that name a job at the shell, the same for every command that takes one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click

from packetfs_compute.cli.params import OPERATION, POLICY, SIZE, local_file, policy_of
from packetfs_compute.settings import Settings

__all__ = ["Asked", "job_options"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as it was typed: plain JSON, not validated yet."""

    program: dict[str, Any]
    policy: dict[str, Any] | None
    settings: Settings
    """Those given, with the directory of a local file among the roots: what is started here may read what the user names."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the operation's task."""
        return {**{key: value for key, value in self.program.items() if key != "op"}, "policy": self.policy}


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command OP, SOURCE and the options of a job; it gets them as one function from settings to :class:`Asked`."""

    @functools.wraps(command)  # which also carries over the options that the command has of its own
    def wrapper(
        op: dict[str, Any],
        source: str,
        imm: int | None,
        seed: str | None,
        offset: int,
        length: int | None,
        etag: str | None,
        policy: tuple[dict[str, Any], ...],
        **others: Any,
    ) -> Any:
        one = {**op, **{key: value for key, value in (("imm", imm), ("seed", seed)) if value is not None}}

        def asked(settings: Settings) -> Asked:
            path = local_file(source)
            url = source if path is None else str(path)
            if path is not None:
                settings = replace(settings, file_roots=(*settings.file_roots, path.parent))
            program = {"data_url": url, "offset": offset, "length": length, "etag": etag, **one}
            return Asked(program, policy_of(policy), settings)

        return command(asked, **others)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.argument("op", type=OPERATION),
    click.argument("source"),
    click.option("--imm", type=int, help="The operation's byte, 0 to 255 (counteq, xor, add)."),
    click.option("--seed", help="The running value to start from, 16 hex digits (fnv64)."),
    click.option("--offset", type=SIZE, default=0, show_default=True, help="First byte of the range: 4096, 8MiB."),
    click.option("--length", type=SIZE, help="Bytes in the range.  [default: to the end]"),
    click.option("--etag", help="Compute only on this version, such as '\"abc\"'."),
    click.option("--policy", type=POLICY, multiple=True, help="KEY=VALUE (repeatable) or JSON: goal=cheapest."),
)
