"""Every error that the package raises on purpose, as one tree.

::

    PacketFSError
    ├── ConfigurationError      a setting is wrong; nothing was started
    ├── BrokerUnavailable       no Redis (or RabbitMQ) answers where settings say it is
    ├── AlreadyRunning          a second `packetfs up` beside the first
    └── JobError                how a job can end other than well; has a type on the wire
        ├── ProgramFault        the caller's to mend: the job fails at once
        │   ├── BadProgram              bad_program            400
        │   ├── BadPolicy               bad_policy             400
        │   ├── NoSubstrate             no_substrate           400
        │   ├── ForbiddenSource         forbidden_source       403
        │   ├── RangeNotSatisfiable     range_not_satisfiable  416
        │   └── Cancelled               cancelled              499
        ├── SourceFault         the place where the bytes live
        │   ├── SourceNotFound          source_not_found       404
        │   ├── SourceChanged           source_changed         409
        │   └── SourceFailed            source_failed          502
        └── SubstrateFault      the place that was to compute: another one may do better
            ├── Unauthorized            unauthorized           401
            ├── TooLarge                too_large              413
            ├── Busy                    busy                   429
            ├── AttemptTimeout          timeout                504
            └── Internal                internal               500

An error is built from two plain JSON values, ``message`` and ``details``, which are also its ``args``: that is
how Celery's result backend stores an exception, so one raised in a worker is raised again, as the same class
with the same details, by ``AsyncResult.get()`` in the caller's process.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

__all__ = [
    "AlreadyRunning",
    "AttemptTimeout",
    "BadPolicy",
    "BadProgram",
    "BrokerUnavailable",
    "Busy",
    "Cancelled",
    "ConfigurationError",
    "ForbiddenSource",
    "Internal",
    "JobError",
    "NoSubstrate",
    "PacketFSError",
    "ProgramFault",
    "RangeNotSatisfiable",
    "SourceChanged",
    "SourceFailed",
    "SourceFault",
    "SourceNotFound",
    "SubstrateFault",
    "TooLarge",
    "Unauthorized",
    "error_class",
]

Fault = Literal["program", "source", "substrate"]


class PacketFSError(Exception):
    """Root of every error of this package.

    ``message`` is one line for a person. ``details`` is a JSON object for a program; its usual keys are ``field``
    (what was wrong in the input), ``hint`` (what to do), ``attempts``, ``job_id`` and ``retry_after_s``.
    """

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        super().__init__(message, self.details)

    def __str__(self) -> str:
        return self.message

    @property
    def hint(self) -> str | None:
        """What the reader can do about it, when that is known."""
        return self.details.get("hint")


class ConfigurationError(PacketFSError):
    """A setting cannot be used; ``details["field"]`` names it."""


class BrokerUnavailable(PacketFSError):
    """The broker or the result store does not answer."""


class AlreadyRunning(PacketFSError):
    """Another `packetfs up` holds this data directory; ``details["pid"]`` is its process."""


class JobError(PacketFSError):
    """How a job ended other than well.

    ``type`` and ``status`` are its name and HTTP status on the wire; ``fault`` says whose it is, which decides
    what a dispatcher does next.
    """

    type: ClassVar[str]
    status: ClassVar[int]
    fault: ClassVar[Fault]
    retryable_by_default: ClassVar[bool] = False

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed on the same substrate a little later."""
        return bool(self.details.get("retryable", self.retryable_by_default))

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Every attempt that was made, as in a result's ``attempts``."""
        return list(self.details.get("attempts", ()))


class ProgramFault(JobError):
    """The caller's to mend: no place and no later time would make it succeed."""

    fault = "program"


class SourceFault(JobError):
    """The place where the bytes live did not give them."""

    fault = "source"


class SubstrateFault(JobError):
    """The place that was to compute did not; another one may."""

    fault = "substrate"


class BadProgram(ProgramFault):
    """The request is malformed; ``details["field"]`` names the part."""

    type = "bad_program"
    status = 400


class BadPolicy(ProgramFault):
    """The policy is malformed; ``details["field"]`` names the part."""

    type = "bad_policy"
    status = 400


class NoSubstrate(ProgramFault):
    """The policy leaves no place to run; ``details["vetoes"]`` gives each one's reason."""

    type = "no_substrate"
    status = 400


class ForbiddenSource(ProgramFault):
    """The address guard refuses the source: a private address, a scheme, a port, a path outside the roots."""

    type = "forbidden_source"
    status = 403


class RangeNotSatisfiable(ProgramFault):
    """The range reaches past the object's end; ``details["object_size"]`` is its size in bytes."""

    type = "range_not_satisfiable"
    status = 416


class Cancelled(ProgramFault):
    """Nobody wants the job any more, and so its attempt was stopped.

    No answer of a substrate says so: who cancels a job has stopped listening. Its status is nginx's for a client that left.
    """

    type = "cancelled"
    status = 499


class SourceNotFound(SourceFault):
    """The source says that there is no such object."""

    type = "source_not_found"
    status = 404


class SourceChanged(SourceFault):
    """The object is no longer the version that the program pinned, or changed while it was read."""

    type = "source_changed"
    status = 409


class SourceFailed(SourceFault):
    """The source broke HTTP's rules, refused, or fell silent: no byte of it was trusted."""

    type = "source_failed"
    status = 502
    retryable_by_default = True


class Unauthorized(SubstrateFault):
    """The substrate did not accept the request's signature."""

    type = "unauthorized"
    status = 401


class TooLarge(SubstrateFault):
    """The range is larger than this substrate takes."""

    type = "too_large"
    status = 413


class Busy(SubstrateFault):
    """The substrate has no room; ``details["retry_after_s"]`` says when to ask again."""

    type = "busy"
    status = 429
    retryable_by_default = True


class AttemptTimeout(SubstrateFault):
    """The attempt did not end within its deadline."""

    type = "timeout"
    status = 504
    retryable_by_default = True


class Internal(SubstrateFault):
    """The substrate failed in a way that has no name of its own."""

    type = "internal"
    status = 500
    retryable_by_default = True


_BY_TYPE: dict[str, type[JobError]] = {
    cls.type: cls
    for cls in (
        BadProgram, BadPolicy, NoSubstrate, ForbiddenSource, RangeNotSatisfiable, Cancelled,
        SourceNotFound, SourceChanged, SourceFailed,
        Unauthorized, TooLarge, Busy, AttemptTimeout, Internal,
    )
}  # fmt: skip


def error_class(wire_type: str) -> type[JobError]:
    """Return the class of a wire error type; a type this version does not know is :class:`Internal`."""
    return _BY_TYPE.get(wire_type, Internal)
