"""What a task's thread has to tell Redis and need not hear back: it goes along with the task's result, in one round trip.

Scripts that are put here while a task runs are run just before its result is stored, so whoever sees the result sees what
they did. A task that ends without a result has them run when it is over.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

__all__ = ["Errand", "along_with_result", "clear", "pending", "put", "run"]


class Errand(NamedTuple):
    """A script to run, by its digest where Redis knows that."""

    text: str
    digest: str
    keys: Sequence[str | bytes]
    arguments: Sequence[Any]


class _Mine(threading.local):
    open = False

    def __init__(self) -> None:
        self.errands: list[Errand] = []


_mine = _Mine()


@contextmanager
def along_with_result() -> Iterator[None]:
    """Say that this thread runs a task whose result will be stored: inside, :func:`put` takes errands."""
    before, _mine.open = _mine.open, True
    try:
        yield
    finally:
        _mine.open = before


def put(errand: Errand) -> bool:
    """Leave an errand; return whether it is taken: where no result follows it is not."""
    if _mine.open:
        _mine.errands.append(errand)
    return _mine.open


def pending() -> tuple[Errand, ...]:
    """Return this thread's errands."""
    return tuple(_mine.errands)


def clear() -> None:
    """Forget this thread's errands: they are run, or lost."""
    _mine.errands.clear()


def run(client: Any, errands: Sequence[Errand]) -> None:
    """Run errands in one round trip, two where Redis has forgotten a script. Only the error of the last is raised."""
    with client.pipeline(transaction=False) as pipe:
        for one in errands:
            pipe.evalsha(one.digest, len(one.keys), *one.keys, *one.arguments)
        answers = pipe.execute(raise_on_error=False)
    last = len(errands) - 1
    for at, (one, answer) in enumerate(zip(errands, answers, strict=True)):
        with suppress(ResponseError) if at < last else nullcontext():
            if isinstance(answer, NoScriptError):
                client.eval(one.text, len(one.keys), *one.keys, *one.arguments)
            elif isinstance(answer, Exception):
                raise answer
