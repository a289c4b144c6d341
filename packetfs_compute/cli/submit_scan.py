"""Submit a scan to the system at hand and follow it to its end: what ``packetfs scan`` does without ``--inline``."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from packetfs_compute.cli.following import Show, follow
from packetfs_compute.embedded.lock import holder_pid
from packetfs_compute.hatch import Shut, open_hatch
from packetfs_compute.settings import Settings
from packetfs_compute.standing import Submission

__all__ = ["submit_scan_and_wait"]


def submit_scan_and_wait(
    settings: Settings, program: Mapping[str, Any], window: int | None, policy: Mapping[str, Any] | None, show: Show
) -> Mapping[str, Any]:
    """Run a scan on the system at hand and return its result; raise what it ended with. Who interrupts it cancels it."""
    one = Submission(str(uuid.uuid4()), program, policy, scan=True, window=window)
    if not settings.embedded or holder_pid(settings.data_dir) is not None:
        with suppress(Shut):
            return _by_hatch(settings, one, show)
    # It takes a third of a second to load, for what the hatch leaves to it: another broker, a system of our own, errors.
    from packetfs_compute.cli.desk_scan import scan_by_desk  # noqa: PLC0415

    return scan_by_desk(settings, one, show)


def _by_hatch(settings: Settings, one: Submission, show: Show) -> Mapping[str, Any]:
    def see_who_scans() -> None:
        from packetfs_compute.cli import desk_scan  # noqa: PLC0415  (Celery, once in many scans)

        desk_scan.see_who_scans(settings)

    with open_hatch(settings, one.job_id) as hatch:
        try:
            hatch.submit(one)
            return follow(hatch, hatch.wait, one.job_id, show, see_who_scans)
        except KeyboardInterrupt:
            from packetfs_compute.cli.desk_scan import cancel_by_desk  # noqa: PLC0415  (as above)

            cancel_by_desk(settings, one.job_id)
            raise
