"""``packetfs keys``: the gateway's API keys."""

import json
import time
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from packetfs_compute.cli.render import console_width
from packetfs_compute.embedded.server import check_redis
from packetfs_compute.errors import ConfigurationError
from packetfs_compute.gateway import Key, KeyStore, open_keys
from packetfs_compute.gateway.keys import MAX_NAME_CHARS, SCOPES, Scope
from packetfs_compute.settings import load_settings

__all__ = ["keys"]


@click.group(short_help="The gateway's API keys: add, list, revoke.")
def keys() -> None:
    """Make and revoke API keys of the gateway. They are kept in Redis as hashes.

    \b
    packetfs keys add --scope submit --scope read --name ci
    packetfs keys list
    packetfs keys revoke 9f86d081884c
    """


@keys.command("add", short_help="Make a key, and print it once.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="What it may do.")
@click.option("--name", default="", help="To tell it from others.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def add(scopes: tuple[Scope, ...], name: str, as_json: bool) -> None:
    """Make a key and print it on stdout, for the only time."""
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise ConfigurationError(
            "the name cannot be used",
            {"field": "--name", "hint": f"give at most {MAX_NAME_CHARS} printable characters"},
        )
    secret, key = _store().add(scopes, name)
    if as_json:
        click.echo(json.dumps({"key": secret, **asdict(key)}))
    else:
        click.echo(f"key {key.id} for {', '.join(key.scopes)}; it is not shown again:", err=True)
        click.echo(secret)


@keys.command("list", short_help="What is known of every key.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def listing(as_json: bool) -> None:
    """Print what is known of every key, which is not the keys."""
    known = _store().all()
    if as_json:
        click.echo(json.dumps({"keys": [asdict(key) for key in known]}))
    else:
        _print(known)


@keys.command("revoke", short_help="Forget a key.")
@click.argument("key_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def revoke(key_id: str, as_json: bool) -> None:
    """Forget the key KEY_ID: no request is let in with it any more."""
    key = _store().revoke(key_id)
    if key is None:
        raise ConfigurationError(
            "there is no such key", {"field": "KEY_ID", "hint": "`packetfs keys list` gives the ids"}
        )
    if as_json:
        click.echo(json.dumps(asdict(key)))
    else:
        click.echo(f"key {key.id} is revoked", err=True)


def _store() -> KeyStore:
    settings = load_settings()
    check_redis(settings)
    return open_keys(settings)


def _print(known: list[Key]) -> None:
    table = Table(title="API keys", title_justify="left")
    for name in ("id", "name", "scopes", "made"):
        table.add_column(name)
    for key in known:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created_at))
        table.add_row(key.id, key.name, ", ".join(key.scopes), made)
    Console(width=console_width()).print(table)
