"""What scans know of each other, by the cache that jobs have: asked before one is run, told when it is done."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from packetfs_compute.cache import Known, ResultCache
from packetfs_compute.program import Program
from packetfs_compute.routing import Survey
from packetfs_compute.routing.policy import unwanted
from packetfs_compute.scanning import recall
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import Head, Mark
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.tally import Part

__all__ = ["Done", "Memory", "Surveyor"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a range came to: the ops' values, the parts that it was made of, and marks that were taken on the way."""

    values: Sequence[int]
    parts: Sequence[Part]
    marks: Sequence[Mark] = ()

    @classmethod
    def before(cls, known: Known, whole: Plan) -> "Done":
        """Return what was known of all of ``whole``."""
        values = tuple(kept.value for kept in known.values)
        first = known.values[0]
        return cls(values, [Part(values, whole.length, first.places[0], first.region, cached=True)])

    def after(self, head: Head, offset: int) -> "Done":
        """Return the same with the parts and marks of ``head`` before its own; its values are of both already."""
        first, *_ = head.kept
        parts = [
            Part(head.values, head.end - offset if name == first.places[0] else 0, name, first.region, cached=True)
            for name in dict.fromkeys(name for kept in head.kept for name in kept.places)
        ]
        return Done(self.values, [*parts, *self.parts], [*head.marks, *self.marks])


class Surveyor(Protocol):
    """What of a router says which places there are."""

    def survey(self) -> Survey:
        """Return the fleet as it is known."""


@dataclass(frozen=True)
class Memory:
    """Asks and tells ``cache``, where there is one, for a scan whose policy lets it.

    What it is told of a place that the policy does not want does not count, and nothing is kept of one that is not trusted.
    """

    scan: Scan
    cache: ResultCache | None
    fleet: Surveyor
    rng: random.Random

    def known(self, whole: Plan) -> Known | None:
        """Return the values of all that ``whole`` is of, where every one is known."""
        if self.cache is None or not self.scan.policy.cache or whole.etag is None or not whole.length:
            return None
        return recall.known(self.cache, self._program(whole), self._wanted())

    def head(self, whole: Plan) -> tuple[Head | None, str | None]:
        """Return what the range begins with, where the scan may go on from there; or, where it asked to, why it may not.

        Nothing of it is proved yet.
        """
        if not self.scan.policy.append_only:
            return None, None
        if whole.etag is None or whole.object_size is None:
            return None, "the source gives no strong ETag"
        head = None if self.cache is None else recall.earlier(self.cache, self._program(whole), self._wanted())
        why = recall.unusable(head, whole)
        return (head, None) if why is None else (None, why)

    def keep(self, whole: Plan, done: Done) -> None:
        """Keep what the scan of ``whole`` came to."""
        if self.cache is None or not self.scan.policy.cache or whole.etag is None or whole.object_size is None:
            return
        places = {part.substrate: part.region for part in done.parts}
        trusts = {one.place.name: one.place.trust for one in self.fleet.survey().outlooks}
        program = self._program(whole)
        recall.keep(self.cache, program, whole.object_size, (done.values, done.marks), places, trusts, self.rng)

    def _wanted(self) -> set[str]:
        places = [one.place for one in self.fleet.survey().outlooks]
        return {place.name for place in places if unwanted(self.scan.policy, place) is None}

    def _program(self, whole: Plan) -> Program:
        return replace(self.scan.program, offset=whole.offset, length=whole.length, etag=whole.etag)
