"""The tree of errors: what is on the wire, and what survives the trip through Celery's result backend."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend

from packetfs_compute import errors
from packetfs_compute.errors import (
    BadProgram,
    Busy,
    ConfigurationError,
    Internal,
    JobError,
    PacketFSError,
    ProgramFault,
    SourceFailed,
    SourceFault,
    SubstrateFault,
    error_class,
)

WIRE = {
    "bad_program": (400, "BadProgram", ProgramFault, False),
    "bad_policy": (400, "BadPolicy", ProgramFault, False),
    "no_substrate": (400, "NoSubstrate", ProgramFault, False),
    "forbidden_source": (403, "ForbiddenSource", ProgramFault, False),
    "range_not_satisfiable": (416, "RangeNotSatisfiable", ProgramFault, False),
    "cancelled": (499, "Cancelled", ProgramFault, False),
    "source_not_found": (404, "SourceNotFound", SourceFault, False),
    "source_changed": (409, "SourceChanged", SourceFault, False),
    "source_failed": (502, "SourceFailed", SourceFault, True),
    "unauthorized": (401, "Unauthorized", SubstrateFault, False),
    "too_large": (413, "TooLarge", SubstrateFault, False),
    "busy": (429, "Busy", SubstrateFault, True),
    "timeout": (504, "AttemptTimeout", SubstrateFault, True),
    "internal": (500, "Internal", SubstrateFault, True),
}
"""DESIGN, section 3, and the three types that only a dispatcher gives: type to status, class, parent, retryable."""

ALL = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, PacketFSError)]
ON_THE_WIRE = [cls for cls in ALL if "type" in vars(cls)]
DETAILS = {
    "field": "program.imm",
    "hint": "é ☃",
    "attempts": [{"ok": False, "seconds": 0.25, "error": None}],
    "n": 2**60,
}


@pytest.mark.parametrize("wire_type", WIRE)
def test_a_type_is_one_class_with_its_status_and_fault(wire_type: str) -> None:
    status, name, parent, retryable = WIRE[wire_type]
    cls = error_class(wire_type)
    assert cls is getattr(errors, name)
    assert (cls.type, cls.status) == (wire_type, status)
    assert cls.__bases__ == (parent,)
    assert cls.fault == parent.fault == parent.__name__.removesuffix("Fault").lower()
    assert cls("broken").retryable is retryable


def test_every_class_that_is_no_family_is_on_the_wire() -> None:
    assert {cls.type for cls in ON_THE_WIRE} == set(WIRE)


@pytest.mark.parametrize("wire_type", ["", "teapot", "Internal", "BAD_PROGRAM", "None"])
def test_an_unknown_type_is_internal(wire_type: str) -> None:
    assert error_class(wire_type) is Internal


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    drawn: list[tuple[str, str]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: {2,}(.*))?", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        above = [*above[:depth], match[2]]
        drawn.append((match[2], above[depth - 1] if depth else "Exception"))
        cls = getattr(errors, match[2])
        if cls in ON_THE_WIRE:
            assert (match[3] or "").split() == [cls.type, str(cls.status)]
    assert dict(drawn) == {cls.__name__: cls.__base__.__name__ for cls in ALL}
    assert len(drawn) == len(ALL)


def test_every_class_is_exported() -> None:
    assert {cls.__name__ for cls in ALL} < set(errors.__all__)


@pytest.mark.parametrize("cls", ALL)
def test_an_error_is_a_message_and_details(cls: type[PacketFSError]) -> None:
    error = cls("one line", {"hint": "do this", "n": 1})
    assert (str(error), error.message, error.hint) == ("one line", "one line", "do this")
    assert error.args == ("one line", {"hint": "do this", "n": 1})
    assert (cls("bare").details, cls("bare").hint) == ({}, None)


def test_details_are_a_copy_and_what_is_added_later_is_in_args() -> None:
    given = {"field": "program"}
    error = BadProgram("wrong", given)
    error.details.update(job_id="j1", attempts=[{"ok": False}])
    assert given == {"field": "program"}
    assert error.args[1] == {"field": "program", "job_id": "j1", "attempts": [{"ok": False}]}
    assert error.attempts == [{"ok": False}]
    assert BadProgram("wrong").attempts == []


@pytest.mark.parametrize(
    ("cls", "details", "retryable"),
    [
        (SourceFailed, {}, True),
        (SourceFailed, {"retryable": False}, False),
        (BadProgram, {}, False),
        (BadProgram, {"retryable": True}, True),
        (Busy, {"retry_after_s": 3}, True),
    ],
)
def test_details_override_whether_it_is_retryable(
    cls: type[JobError], details: dict[str, Any], retryable: bool
) -> None:
    assert cls("broken", details).retryable is retryable


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_can_be_copied_and_pickled(cls: type[PacketFSError], clone: Any) -> None:
    again = clone(cls("one line", DETAILS))
    assert (type(again), again.message, again.details) == (cls, "one line", DETAILS)


@pytest.fixture(scope="module")
def backend() -> Backend:
    """A result backend of Celery as this project configures it: JSON."""
    app = Celery("errors", set_as_current=False)
    app.conf.update(result_serializer="json", accept_content=["json"])
    return Backend(app, serializer="json")


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("details", [{}, DETAILS])
def test_an_error_raised_in_a_worker_is_the_same_error_in_the_caller(
    backend: Backend, cls: type[PacketFSError], details: dict[str, Any]
) -> None:
    error = cls("no “such” thing", details)
    stored = backend.encode(backend.prepare_exception(error))
    again = backend.exception_to_python(backend.decode(stored))
    assert type(again) is cls
    assert (again.message, again.details, again.args, str(again)) == (
        error.message, error.details, error.args, str(error),
    )  # fmt: skip


def test_a_setting_is_wrong_outside_of_any_job() -> None:
    assert not issubclass(ConfigurationError, JobError)
