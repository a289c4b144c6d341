"""What a container of ``docker-compose.yml`` asks itself: is its work being done, not merely does its process live.

``consuming NAME`` asks the fleet whether the worker ``NAME@<this host>`` says that it consumes the queue of substrate
NAME, or with ``scans`` that of scans. ``sweeping NODE`` asks the upkeep worker NODE whether it has swept the ledger since
the last time it was asked, for which beat must have sent the task and the worker taken it. ``taking`` asks Redis whether an
intake of this host says that it takes jobs. ``http URL`` wants a 2xx, ``answering URL`` any answer: a gateway's is 503 where
others do not do their work, and that is when it is looked at.

Docker does not start an unhealthy container again by itself. With ``--end PID`` that process is ended once all answers have
been bad for a minute and a half, and the restart policy does the rest; a Redis that does not answer is not held against it.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from packetfs_compute.celery import app, broker_errors, celery_config
from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.intake import is_taking
from packetfs_compute.names import SCANS, SWEEP_TASK
from packetfs_compute.settings import load_settings
from packetfs_compute.substrates import load_fleet

__all__ = ["main"]

_TIMEOUT_S: Final = 5.0


def consuming(substrate: str) -> bool:
    """Return whether this host's worker of ``substrate``, or the one of scans, says that it consumes its queue."""
    settings = load_settings()
    places = [one.capabilities for one in load_fleet(settings)]
    fleet = open_fleet(settings, [*places, replace(places[0], name=SCANS)])
    return f"{substrate}@{os.uname().nodename}" in fleet.consumers(time.time()).get(substrate, frozenset())


def sweeping(node: str, memory: Path) -> bool:
    """Return whether ``node`` has swept since this was asked last; what it had counted then is in ``memory``."""
    app.conf.update(celery_config(load_settings()))
    try:
        answer: dict[str, Any] = app.control.inspect([node], timeout=_TIMEOUT_S).stats() or {}
    except broker_errors(app) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error
    swept = int(answer.get(node, {}).get("total", {}).get(SWEEP_TASK, 0))
    before = int(memory.read_text()) if memory.exists() else 0
    memory.write_text(str(swept))
    return swept not in (0, before)


def answers(url: str, *, well: bool) -> bool:
    """Return whether ``url`` gives an answer; ``well``: a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S):  # noqa: S310  (the compose file's own URL)
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return not well
    except OSError:  # no connection, or no answer in time
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where the work is done, 1 where it is not."""
    parser = argparse.ArgumentParser(description="Is this container's work being done?")
    parser.add_argument("what", choices=("consuming", "sweeping", "taking", "http", "answering"))
    parser.add_argument("of", metavar="NAME|NODE|URL", nargs="?", default="")
    parser.add_argument("--end", type=int, metavar="PID", help="end this process when the answer stays bad")
    parser.add_argument(
        "--after", type=float, default=90.0, metavar="SECONDS", help="how long it may stay bad before that"
    )
    parser.add_argument("--memory", type=Path, default=Path(tempfile.gettempdir()), help="a directory to remember in")
    options = parser.parse_args(arguments)
    if not options.of and options.what != "taking":
        parser.error(f"say of what: {options.what} NAME, NODE or URL")
    try:
        if options.what == "consuming":
            good = consuming(options.of)
        elif options.what == "sweeping":
            good = sweeping(options.of, options.memory / "healthcheck.swept")
        elif options.what == "taking":
            good = is_taking(load_settings(), os.uname().nodename)
        else:
            good = answers(options.of, well=options.what == "http")
    except BrokerUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    since = options.memory / "healthcheck.bad"
    if good:
        since.unlink(missing_ok=True)
    elif not since.exists():
        since.write_text(str(time.time()))
    elif options.end and time.time() - float(since.read_text()) >= options.after:
        since.unlink()
        os.kill(options.end, signal.SIGTERM)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
