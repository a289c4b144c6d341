"""Servers that break HTTP's rules, each in its own way: the right bytes or a typed error, and always an end in time."""

import time
from dataclasses import replace

import pytest
from support.misbehaving import RawServer
from support.processes import STALL_S
from support.reading import OPEN, Read, read

from packetfs_compute.conform.misbehaviour import CASES, Case
from packetfs_compute.errors import JobError
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.http import HttpSource


def attempt(case: Case) -> Read | JobError:
    settings = replace(OPEN, stall_timeout_s=case.stall_s, max_skip_bytes=case.max_skip)
    source = HttpSource(settings, now=lambda: 60.0)
    with RawServer(case.script) as server:
        try:
            return read(source, RangeRequest(server.url(), case.offset, case.length, case.etag), case.budget_s)
        except JobError as error:
            return error
        finally:
            source.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_right_bytes_or_a_typed_error(case: Case) -> None:
    started = time.monotonic()
    result = attempt(case)
    assert time.monotonic() - started < case.budget_s + STALL_S
    if isinstance(case.want, bytes):
        assert isinstance(result, Read), result
        assert result.data == case.want
        return
    assert type(result) is case.want, result
    assert case.says in str(result)
    assert case.retryable in (None, result.retryable)
    for key, value in (case.details or {}).items():
        assert result.details[key] == value


def test_every_kind_is_there() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 52
