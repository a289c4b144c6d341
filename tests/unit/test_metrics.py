"""What a worker's counters are told of."""

from packetfs_compute.dispatch import Course
from packetfs_compute.errors import SourceFailed
from packetfs_compute.job import Job
from packetfs_compute.metrics import _OWN as REGISTRY
from packetfs_compute.metrics import WorkerMetrics, scan_ended
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Policy

JOB = Job("j1", Program("https://host/object", (Op("crc32c"),)), Policy())


def test_jobs_whose_values_were_known_are_counted_among_those_that_were_done() -> None:
    for cached in (True, False, True):
        WorkerMetrics().finished(JOB, "cached-here", None, Course(cached=cached))
    done = {"op": "crc32c", "substrate": "cached-here", "outcome": "done"}
    assert REGISTRY.get_sample_value("packetfs_jobs_total", done) == 3
    assert REGISTRY.get_sample_value("packetfs_cached_total", {"substrate": "cached-here"}) == 2


def test_scans_are_counted_by_how_they_ended() -> None:
    scan_ended(None, cached=False, total_s=2.0)
    scan_ended(None, cached=True, total_s=0.2)
    scan_ended(SourceFailed("it broke off"), cached=False, total_s=7.0)
    for outcome in ("done", "cached", "source_failed"):
        assert REGISTRY.get_sample_value("packetfs_scans_total", {"outcome": outcome}) == 1
    assert REGISTRY.get_sample_value("packetfs_scan_seconds_sum") == 9.2
