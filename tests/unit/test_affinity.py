"""Where threads of a process may be run that stays on one core: asked of the real kernel, in a process of its own."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="it takes Linux and two cores"
)

BEGUN = """
import os, threading, time
from packetfs_compute.affinity import FEW_BYTES, away, stay

every = os.sched_getaffinity(0)

def where(thread=0):
    return os.sched_getaffinity(thread)

def until(true):
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.002)
"""


def passes(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGUN + textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_until_it_is_asked_for_nothing_is_pinned() -> None:
    passes("""
        with away(None):
            assert where() == every
        assert where() == every
    """)


def test_threads_before_and_after_stay_where_the_caller_is() -> None:
    passes("""
        end = threading.Event()
        before = threading.Thread(target=end.wait)
        before.start()
        stay()
        stay()
        assert sum(one.name == "packetfs-affinity" for one in threading.enumerate()) == 1
        until(lambda: len(where()) == 1)
        until(lambda: where(before.native_id) == where())
        found = []
        after = threading.Thread(target=lambda: found.append(where()))
        after.start()
        after.join()
        assert len(found[0]) == 1
        end.set()
    """)


def test_who_computes_many_bytes_leaves_and_comes_back() -> None:
    passes("""
        stay()
        until(lambda: len(where()) == 1)
        for count in (None, FEW_BYTES + 1):
            try:
                with away(count):
                    assert where() == every
                    raise KeyError
            except KeyError:
                pass
            until(lambda: len(where()) == 1)
        with away(FEW_BYTES):
            assert len(where()) == 1
    """)


def test_who_is_away_is_left_alone_when_the_others_settle() -> None:
    passes("""
        from packetfs_compute import affinity

        stay()
        until(lambda: len(where()) == 1)
        gone, end, back = threading.Event(), threading.Event(), threading.Event()

        def compute():
            with away(None):
                gone.set()
                end.wait()
            back.set()
            end_of_all.wait()

        end_of_all = threading.Event()
        one = threading.Thread(target=compute)
        one.start()
        gone.wait()
        affinity._homes[0].settle()
        assert len(where()) == 1
        assert where(one.native_id) == every
        end.set()
        back.wait()
        assert len(where(one.native_id)) == 1
        for core in every:
            affinity._core_of = lambda thread, core=core: core
            affinity._homes[0].settle()
            assert where(one.native_id) == {core}
        end_of_all.set()
    """)


def test_threads_follow_the_caller_to_another_core() -> None:
    """A thread that is busy on the caller's core has the kernel run the caller elsewhere, or not: where it is, all are."""
    passes("""
        from packetfs_compute import affinity

        stay()
        until(lambda: len(where()) == 1)
        end = threading.Event()
        other = threading.Thread(target=end.wait)
        other.start()
        for core in sorted(every):
            affinity._core_of = lambda thread, core=core: core
            affinity._homes[0].settle()
            assert where() == where(other.native_id) == {core}
        affinity._core_of = lambda thread: max(every) + 1  # not ours: it may have been, when it was last run
        affinity._homes[0].settle()
        assert where(other.native_id) == {max(every)}
        with away(None):
            pass
        assert where() == {max(every)}
        end.set()
    """)


def test_the_caller_is_let_go_before_it_is_asked_where_it_is() -> None:
    passes("""
        from packetfs_compute import affinity

        stay()
        until(lambda: len(where()) == 1)
        seen = []
        affinity.time = type("Time", (), {"sleep": lambda seconds: seen.append((seconds, where()))})
        affinity._homes[0].settle()
        assert (affinity._LET_GO_S, every) in seen
        assert len(where()) == 1
    """)


def test_the_core_is_read_from_the_kernel() -> None:
    passes("""
        from packetfs_compute.affinity import _core_of

        me = threading.get_native_id()
        for core in every:
            os.sched_setaffinity(0, {core})
            assert _core_of(me) == core
        assert _core_of(2**22 + 1) is None
    """)


def test_on_one_core_there_is_nothing_to_do() -> None:
    passes("""
        os.sched_setaffinity(0, {min(every)})
        stay()
        assert threading.active_count() == 1
        with away(None):
            assert where() == {min(every)}
    """)
