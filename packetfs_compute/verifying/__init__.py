"""Whether objects are what they should be: checks of many, each against a checksum, a mirror or what its store declares.

``manifest.py`` reads what is to be checked, ``check.py`` says what one check is, ``verify.py`` makes it, ``report.py`` keeps
what came of each, so that a run that was interrupted goes on where it was. What computes is passed in: nothing here knows of
queues, and no object is read here.
"""

from packetfs_compute.verifying.check import Check, Row, parse_check
from packetfs_compute.verifying.manifest import read_manifest
from packetfs_compute.verifying.report import Report, open_report
from packetfs_compute.verifying.verify import Compute, Verifier, verify_all

__all__ = [
    "Check",
    "Compute",
    "Report",
    "Row",
    "Verifier",
    "open_report",
    "parse_check",
    "read_manifest",
    "verify_all",
]
