"""Scans: ops over a whole object of any size, split into windows that run anywhere, and combined exactly.

What is decided is pure: ``request`` (what was asked), ``plan`` (which windows), ``windows`` (one of them as a job),
``combine`` (how values join), ``tally`` (what has been done so far, and what it means). What acts is apart: ``state`` keeps
it in Redis, ``coordinator`` has windows run as jobs by the desk, ``chain`` reads them in order in this process, and
``scanner`` is the way through them all.

A scan may be run by one process after another: the plan and what windows came to are in Redis, window jobs have ids that
follow from the scan's, and what is found done is not done again.
"""

from packetfs_compute.scanning.request import Scan, accept_scan, checked_window

__all__ = ["Scan", "accept_scan", "checked_window"]
