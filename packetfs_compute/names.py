"""Every name that another program may call: operations, queues, tasks, Redis keys, bounds.

One place, so that a rename is one line and a reader can see the whole vocabulary at once.
Nothing here is computed and nothing here imports another module of this package.
"""

from typing import Final, Literal

PROTOCOL: Final = 1
"""Version of the wire between dispatcher and substrate (``remote/contract/``)."""

OpName = Literal["counteq", "crc32c", "fnv64", "xor", "add"]

OPS: Final[tuple[OpName, ...]] = ("counteq", "crc32c", "fnv64", "xor", "add")
OPS_WITH_IMM: Final[frozenset[str]] = frozenset({"counteq", "xor", "add"})
OPS_WITH_SEED: Final[frozenset[str]] = frozenset({"fnv64"})

FNV64_OFFSET: Final = 0xCBF29CE484222325
"""The FNV-1a 64 offset basis: the hash of no bytes at all."""

MAX_INTEGER: Final = (1 << 53) - 1
"""Largest offset or length: the largest integer that every JSON reader holds exactly (RFC 8259, section 6)."""

MAX_RANGE_BYTES: Final = 1 << 45
"""Longest range of one program (32 TiB): 255 * 2**45 < 2**53, so that even ``add`` stays exact in every JSON reader."""

MAX_OPS: Final = 16
"""Most operations in one program."""

MAX_URL_CHARS: Final = 2048
MAX_ETAG_CHARS: Final = 1024
MAX_JOB_ID_CHARS: Final = 128

DEFAULT_TIMEOUT_MS: Final = 30_000
MAX_TIMEOUT_MS: Final = 3_600_000

TASK_TIME_LIMIT_S: Final = MAX_TIMEOUT_MS // 1000 + 60
"""After which Celery ends a task that did not end itself."""

MAX_PRIORITY: Final = 9
"""The last to be run; 0 is the first (kombu's order on Redis)."""

QUEUE_PREFIX: Final = "packetfs."
TASK_PREFIX: Final = "packetfs."
LOCAL: Final = "local"
"""The substrate that computes in the worker's own process with the C kernels."""

SUBSTRATES_GROUP: Final = "packetfs.substrates"
"""The entry points by which another distribution brings a kind of substrate."""

UPKEEP_QUEUE: Final = "packetfs.upkeep"
PROBE_TASK: Final = "packetfs.probe"
SWEEP_TASK: Final = "packetfs.sweep"
"""What Celery beat sends, and the queue that it goes to."""

SCANS: Final = "scans"
SCAN_TASK: Final = "packetfs.scan"
SCANS_QUEUE: Final = "packetfs.scans"
"""What runs scans of whole objects: no substrate, but it says that it consumes its queue as one does, under this name."""

MAX_WINDOWS: Final = 20_000
"""Most windows of one scan."""

ENV_PREFIX: Final = "PACKETFS_"
CONFIG_FILE: Final = "packetfs.toml"


def queue_of(substrate: str) -> str:
    """Return the Celery queue whose consumers run attempts on ``substrate``."""
    return QUEUE_PREFIX + substrate


def task_of(op: str) -> str:
    """Return the registered Celery name of the task for ``op``."""
    return TASK_PREFIX + op


def fleet_key(substrate: str, part: str | None = None) -> str:
    """Return the Redis key of a substrate's shared health, or of another ``part`` of its state."""
    return f"packetfs:fleet:{substrate}" if part is None else f"packetfs:fleet:{substrate}:{part}"


# Redis keys
LEDGER_LEASES: Final = "packetfs:ledger:leases"
"""Running jobs by when their attempt's lease ends (a sorted set)."""
LEDGER_OPEN: Final = "packetfs:ledger:open"
"""Jobs whose result is not stored yet, by when the sweeper looks at them next (a sorted set, Unix seconds)."""
LEDGER_JOBS: Final = "packetfs:ledger:jobs"
"""Their messages (a hash)."""
LEDGER_RUNS: Final = "packetfs:ledger:runs"
"""How often each was published again (a hash)."""
LEDGER_RESUBMITTED: Final = "packetfs:ledger:resubmitted"
"""How many messages were ever published again (a counter)."""
LEDGER_GIVEN_UP: Final = "packetfs:ledger:given_up"
"""How many jobs were ever given up (a counter)."""
REJECTED_PREFIX: Final = "packetfs:rejected:"
"""What could not be used of a queue, with the reason: a list of JSON objects, the newest first."""

JOURNAL_STEPS: Final = "packetfs:journal:step:"
"""What ended in one step of two seconds, by the number of the step since 1970 (a hash each, of counts)."""
JOURNAL_HOURS: Final = "packetfs:journal:hour:"
"""The same in an hour."""
JOURNAL_DONE: Final = "packetfs:journal:done"
"""The last jobs that were done: a list of JSON objects, the newest first."""
JOURNAL_FAILED: Final = "packetfs:journal:failed"
"""The last that failed."""
JOURNAL_SCANS: Final = "packetfs:journal:scans"
"""Scans that run, or have not said that they ended (a set of ids)."""
JOURNAL_SCAN: Final = "packetfs:journal:scan:"
"""How far each is (JSON), for as long as somebody says so."""
JOURNAL_OPENED: Final = "packetfs:journal:opened"
"""What opened each substrate's breaker last (a hash of JSON objects)."""

CACHE_OBJECT: Final = "packetfs:cache:object:"
"""What is known of one version of an object, by its digest (a hash each)."""
CACHE_OBJECTS: Final = "packetfs:cache:objects"
"""All such versions by when they were last written to (a sorted set, Unix seconds)."""
CACHE_COUNTS: Final = "packetfs:cache:counts"
"""How many values each holds, and ``all`` together (a hash)."""

JOBS_QUEUE: Final = "packetfs:jobs:queue"
"""What the intake takes: jobs as JSON, pushed on the left (a list)."""
JOBS_PROCESSING: Final = "packetfs:jobs:processing:"
"""What one instance of the intake has taken and not finished with (a list an instance)."""
JOBS_INSTANCES: Final = "packetfs:jobs:instances"
"""Instances of the intake that may have taken something (a set)."""
JOBS_ALIVE: Final = "packetfs:jobs:alive:"
"""Is there as long as an instance of the intake lives."""
JOBS_REJECTED: Final = "packetfs:jobs:rejected"
"""What was no job, with the reason: a list of JSON objects, the newest first."""
JOB_STATE: Final = "celery-task-meta-"
"""A job's state and result by its id: Celery's own key (celery.backends.base, ``task_keyprefix``)."""
REPLIES: Final = "packetfs-reply-"
"""With a client's UUID after it, the ``reply_to`` of its messages: :data:`JOB_STATE` and that is the channel which tells it
of their results. The script that stores them knows it too."""
JOBS_KNOWN: Final = "packetfs:jobs:known:"
"""What was asked under a job's id (JSON), for jobs that came in by the desk."""
JOBS_RESULTS: Final = "packetfs:results:"
"""How such a job ended (JSON), for clients that know nothing but Redis."""

SCAN_STATE: Final = "packetfs:scan:"
"""What a scan has done so far, by its id (a hash)."""

REPLY_FLAG: Final = "packetfs_reply"
"""The message header of a job that came in by the desk: its end is written to :data:`JOBS_RESULTS` too."""

SCAN_HEADER: Final = "packetfs_scan"
"""The message header of a scan's window: the scan's id."""

SUBMITTED_AT: Final = "packetfs_submitted_at"
"""The message header of the publisher's wall clock in Unix seconds, from which a job's deadline and queue wait are told."""

LEDGER_FLAG: Final = "packetfs_ledger"
"""The message header that keeps a job out of the ledger where it is false; also the transport option that keeps one."""


def rejected_of(queue: str) -> str:
    """Return the Redis key of what was moved out of ``queue`` because no worker could use it."""
    return REJECTED_PREFIX + queue
