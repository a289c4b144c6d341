"""A watched child: started again when it ends, and when it lives and does nothing, each time a little later."""

from typing import Any

import pytest

from packetfs_compute.embedded.watch import Watched
from packetfs_compute.errors import BrokerUnavailable


class Child:
    name = "worker"

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class World:
    """A clock, the children that were started, and whether the current one works."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.children: list[Child] = []
        self.works: bool | None = True
        self.fails = False
        self.watched: Any = Watched(self.start, lambda: self.works, lambda: self.now)  # type: ignore[arg-type,return-value]

    def start(self) -> Child:
        if self.fails:
            raise BrokerUnavailable("it did not start")
        self.children.append(Child())
        return self.children[-1]

    def passes(self, seconds: float, step: float = 0.5) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += step
            self.watched.look()


@pytest.fixture
def world() -> World:
    return World()


def test_one_that_works_is_left_alone(world: World) -> None:
    world.passes(500)
    assert len(world.children) == 1


def test_one_that_ends_is_started_again_and_what_is_left_of_it_stopped(world: World) -> None:
    world.passes(5)
    world.children[0].exit_code = -9
    world.passes(0.5)
    assert len(world.children) == 2
    assert world.children[0].stopped
    assert world.watched.child is world.children[1]


def test_one_that_ends_at_once_is_started_later_each_time(world: World) -> None:
    for child in range(20):
        world.children[-1].exit_code = 1
        world.passes(0.5)
        del child
    assert 3 <= len(world.children) <= 7
    world.passes(100)
    world.children[-1].exit_code = 1
    before = len(world.children)
    world.passes(0.5)
    assert len(world.children) == before + 1, "it had run for long: at once again"


def test_one_that_lives_and_no_longer_works_is_started_again(world: World) -> None:
    world.passes(30)
    world.works = False
    world.passes(11)
    assert len(world.children) == 1
    world.passes(2)
    assert len(world.children) == 2
    assert world.children[0].stopped


def test_one_that_was_only_just_started_may_take_its_time(world: World) -> None:
    world.works = False
    world.passes(55)
    assert len(world.children) == 1
    world.passes(10)
    assert len(world.children) == 2
    world.passes(45)
    assert len(world.children) == 2, "so may the next"


def test_while_nothing_can_be_told_nothing_is_done(world: World) -> None:
    world.passes(30)
    world.works = None
    world.passes(500)
    assert len(world.children) == 1


def test_a_start_that_fails_is_tried_again(world: World) -> None:
    world.fails = True
    world.children[0].exit_code = 1
    world.passes(30)
    assert len(world.children) == 1
    world.fails = False
    world.passes(20)
    assert len(world.children) == 2
