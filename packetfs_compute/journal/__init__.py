"""The journal: what has ended lately and how, counted by every worker and kept for a while where all gateways see it.

It is what the dashboard shows, and no more than that: nothing is decided by it, and nothing waits for it. A worker counts
in memory (:class:`Journal`, an :class:`~packetfs_compute.dispatch.Observer`), and a thread adds what was counted to Redis
twice a second in one round trip. While Redis is away some seconds' counts are kept, then they are dropped without a word.

What is kept: jobs and attempts by how they ended, what attempts took, bytes and dollars, all by substrate, in steps of two
seconds for ten minutes and in hours for a day; the last jobs, with their attempts and the table that was seen when the last
one began; and for each substrate what opened its breaker last.

A scan is told of while it runs, once a second, and when it has ended; its windows are counted as jobs, and those that went
well are not told of one by one.

``histogram.py`` and ``counts.py`` are pure, ``ended.py`` says what is told of a job, ``writer.py`` and ``reader.py`` are the
two ends in Redis, ``scans.py`` both for scans that run, ``document.py`` makes the dashboard's feed.
"""

from packetfs_compute.journal.document import overview_document
from packetfs_compute.journal.reader import JournalReader, Reading, open_reader
from packetfs_compute.journal.scans import ScanBoard, open_board
from packetfs_compute.journal.writer import Journal, open_journal

__all__ = [
    "Journal",
    "JournalReader",
    "Reading",
    "ScanBoard",
    "open_board",
    "open_journal",
    "open_reader",
    "overview_document",
]
