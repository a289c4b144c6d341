"""The compute server on Fly Machines, or on any machine: settings, signals and limits around ``compute_app.py``.

Run it as ``python remote/fly/server.py``, or under uvicorn itself, which then has to be given the limits:
``python -m uvicorn --app-dir remote/fly --factory server:app``.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import uvicorn
from compute_app import create_app
from starlette.applications import Starlette

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.http_server import BoundedProtocol
from packetfs_compute.settings import Settings, load_settings

__all__ = ["app", "create_app", "main", "settings_of"]

_MAX_HEAD: Final = 1 << 14
_KEEP_ALIVE_S: Final = 75
"""Longer than Fly's proxy keeps an idle connection, so that it is the proxy that closes."""
_BACKLOG: Final = 512
_MAX_CONNECTIONS: Final = 1024
_GRACE_S: Final = 25
"""For attempts to end after SIGTERM, where nothing else is said; Fly's ``kill_timeout`` must be longer."""


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Return the server's settings: the region is the platform's where none is set."""
    settings = load_settings(environ)
    region = environ.get("FLY_REGION", "").strip()
    named = settings.region != Settings().region
    return replace(settings, region=region) if region and not named else settings


def app() -> Starlette:
    """Return the app, by the environment's settings: uvicorn's factory."""
    return create_app(settings_of(os.environ))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status, 2 where it is configured wrong."""
    parser = argparse.ArgumentParser(description="The HTTP compute server of PacketFS.", prog="server.py")
    parser.add_argument("--host", default=os.environ.get("PACKETFS_HOST") or "127.0.0.1", help="also PACKETFS_HOST")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT") or 8080, help="also PORT")
    grace_s = os.environ.get("PACKETFS_GRACE_S") or _GRACE_S
    parser.add_argument("--grace", type=int, default=grace_s, help="seconds for attempts to end; also PACKETFS_GRACE_S")
    parser.add_argument("--access-log", action="store_true", help="log every request")
    options = parser.parse_args(arguments)
    try:
        application = app()
    except ConfigurationError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error}{hint}\n")
        return 2
    config = uvicorn.Config(
        application, options.host, options.port,
        access_log=options.access_log, server_header=False, http=BoundedProtocol, ws="none", loop="asyncio", lifespan="off",
        proxy_headers=False, h11_max_incomplete_event_size=_MAX_HEAD, timeout_keep_alive=_KEEP_ALIVE_S, backlog=_BACKLOG,
        limit_concurrency=_MAX_CONNECTIONS, timeout_graceful_shutdown=max(0, options.grace),
    )  # fmt: skip
    server = uvicorn.Server(config)

    def end(*_: object) -> None:
        # uvicorn raises the signal again when it has shut down, and an end that was asked for is no failure.
        if not server.should_exit:
            raise SystemExit(0)

    for ended_by in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ended_by, end)
    try:
        server.run()
        status = 0 if server.started else 1
    except SystemExit as early:
        status = int(early.code or 0)
    application.state.threads.shutdown(wait=False, cancel_futures=True)
    if application.state.running:
        logging.shutdown()
        os._exit(status)  # attempts that outlasted the grace are in threads, for which Python would wait
    return status


if __name__ == "__main__":
    sys.exit(main())
