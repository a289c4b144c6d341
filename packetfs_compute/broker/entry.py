"""How a message is entered in the ledger as it is put on its list: what the script ``enter`` is given."""

from typing import Any, Final

from packetfs_compute.names import LEDGER_JOBS, LEDGER_OPEN

__all__ = ["PATIENCE_S", "enter_arguments"]

PATIENCE_S: Final = 5.0
"""How long after it was published, or was to run, a job is looked at first."""


def enter_arguments(
    job_id: str, key: str, message: str, eta: float | None, patience_s: float = PATIENCE_S
) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of the script ``enter`` for a message, a JSON object, that goes on the list ``key``."""
    return [LEDGER_OPEN, LEDGER_JOBS, key], [job_id, message[:-1], patience_s, "" if eta is None else eta]
