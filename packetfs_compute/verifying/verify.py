"""Making checks: ask what is known beforehand, have the rest computed where the bytes are, compare.

What costs nothing is compared first: an object of the wrong size is not read. An object whose version can be pinned is: so
that its size, what its store declares of it and what is computed are of one version, and what is known already of that
version is not computed again. Where this machine cannot reach a source, the places that compute may.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from packetfs_compute.errors import JobError, SourceNotFound
from packetfs_compute.sources.declared import Declared
from packetfs_compute.verifying.check import Check, Row, Status
from packetfs_compute.verifying.report import Report

__all__ = ["Compute", "Facts", "Verifier", "verify_all"]

_MAX_MESSAGE_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source says of an object before any of it is read; ``None`` is what it does not."""

    size: int | None = None
    etag: str | None = None


class Compute(Protocol):
    """What computes: a job, or a scan."""

    def __call__(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> Mapping[str, Any]:
        """Return the result of ``ops`` over all of an object, as DESIGN, section 4 has it; raise its ``JobError``.

        It is computed on the version in ``facts``, where one is known.
        """


@dataclass(frozen=True, slots=True)
class _Computed:
    text: str
    size: int
    etag: str | None
    cost_usd: float


@dataclass(frozen=True)
class Verifier:
    """Makes one check at a time, in any number of threads.

    ``learn`` asks a source for its facts and ``declared`` a store for its checksum; both raise ``JobError``. ``strict``:
    mirrors are compared by fnv64 too. ``stop`` ends what computes, which then raises.
    """

    compute: Compute
    learn: Callable[[str], Facts]
    declared: Callable[[str], Declared]
    strict: bool = False
    stop: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.monotonic

    def verify(self, check: Check) -> Row:
        """Return what comes of a check. A job's error is that of the check; any other is raised."""
        started = self.clock()
        try:
            status, more = {
                "crc32c": self._value, "fnv64": self._value, "against": self._against, "declared": self._declared
            }[check.kind](check)  # fmt: skip
        except JobError as error:
            status, more = "failed", {"error": error.type, "message": _one_line(error.message)}
        seconds = round(self.clock() - started, 3)
        return Row(check.source, check.kind, check.expected, check.size, status, seconds=seconds, **more)

    def _value(self, check: Check) -> tuple[Status, dict[str, Any]]:
        facts = self._facts(check.source)
        return self._compared(check, facts, f"{check.kind}:{check.expected}", check.size, [{"op": check.kind}])

    def _declared(self, check: Check) -> tuple[Status, dict[str, Any]]:
        said = self.declared(check.source)
        if said.crc32c is None:
            return "undeclared", {"message": said.why, "found_size": said.object_size, "etag": said.etag}
        facts = Facts(said.object_size, said.etag)
        return self._compared(check, facts, f"crc32c:{said.crc32c:08x}", check.size, [{"op": "crc32c"}])

    def _against(self, check: Check) -> tuple[Status, dict[str, Any]]:
        ops = [{"op": "crc32c"}, {"op": "fnv64"}] if self.strict else [{"op": "crc32c"}]
        with ThreadPoolExecutor(2, "packetfs-mirrors") as both:
            asked = both.map(self._facts, (check.source, check.expected))
            mine, other = asked
            sizes = {"found_size": mine.size, "wanted_size": other.size if check.size is None else check.size}
            if _differ(mine.size, other.size, check.size):
                return "mismatch", {**sizes, "etag": mine.etag}
            wanted_job = both.submit(self._computed, check.expected, ops, other)
            found = self._computed(check.source, ops, mine)
            wanted = wanted_job.result()
        same = (found.text, found.size) == (wanted.text, wanted.size) and not _differ(found.size, check.size)
        return "match" if same else "mismatch", {
            "found": found.text, "wanted": wanted.text, "found_size": found.size, "wanted_size": wanted.size,
            "etag": found.etag, "cost_usd": found.cost_usd + wanted.cost_usd,
        }  # fmt: skip

    def _compared(
        self, check: Check, facts: Facts, wanted: str, size: int | None, ops: list[dict[str, Any]]
    ) -> tuple[Status, dict[str, Any]]:
        """Compare a source with a value and, where one is expected, a size."""
        told: dict[str, Any] = {"wanted": wanted, "wanted_size": size}
        if _differ(facts.size, size):
            return "mismatch", {**told, "found_size": facts.size, "etag": facts.etag}
        found = self._computed(check.source, ops, facts)
        same = found.text == wanted and not _differ(found.size, size)
        return "match" if same else "mismatch", {
            **told, "found": found.text, "found_size": found.size, "etag": found.etag, "cost_usd": found.cost_usd
        }  # fmt: skip

    def _facts(self, source: str) -> Facts:
        """Return what can be learnt from here, which may be nothing: what computes meets the same, or does not.

        Raises :class:`SourceNotFound` for an object that is not there.
        """
        try:
            return self.learn(source)
        except SourceNotFound:
            raise
        except JobError:
            return Facts()

    def _computed(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> _Computed:
        result = self.compute(source, ops, facts)
        text = " ".join(_text(one) for one in result["results"])
        return _Computed(text, result["bytes_processed"], result["etag"], result["cost_usd"])


def verify_all(
    verifier: Verifier,
    checks: Collection[Check],
    report: Report,
    concurrency: int,
    told: Callable[[Row], object] = lambda _: None,
) -> Counter[Status]:
    """Make all checks that the report has not got, ``concurrency`` at once; return how many came to what, of all.

    A row is written as soon as its check is made. What is no ``JobError``, an interrupt above all, ends it: the report then
    holds what was made so far, and the next run goes on from there.
    """
    counts: Counter[Status] = Counter(row.status for row in report.done.values())
    left = iter([check for check in checks if check not in report.done])
    with ThreadPoolExecutor(concurrency, "packetfs-verify") as pool:
        running: set[Future[Row]] = _begun(pool, verifier, islice(left, concurrency))
        try:
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for one in sorted(ended, key=_broke):  # those that came to something are written first
                    row = one.result()
                    report.add(row)
                    counts[row.status] += 1
                    told(row)
                running |= _begun(pool, verifier, islice(left, len(ended)))
        except BaseException:
            for one in running:
                one.cancel()
            verifier.stop()
            raise
    return counts


def _begun(pool: ThreadPoolExecutor, verifier: Verifier, checks: Iterable[Check]) -> set[Future[Row]]:
    return {pool.submit(verifier.verify, check) for check in checks}


def _broke(one: Future[Row]) -> bool:
    return one.exception() is not None


def _differ(*sizes: int | None) -> bool:
    """Whether two of them are known and not the same."""
    return len({size for size in sizes if size is not None}) > 1


def _text(one: Mapping[str, Any]) -> str:
    value = one["value"]
    return f"{one['op']}:{value if isinstance(value, str) else f'{value:08x}'}"


def _one_line(message: str) -> str:
    return " ".join(message.split())[:_MAX_MESSAGE_CHARS]
