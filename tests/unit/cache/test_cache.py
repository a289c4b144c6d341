"""The cache of results: what is kept is what is told, under its own name and no other; what happens at its bounds."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.valkey import valkey

from packetfs_compute.cache import Known, ResultCache, StubCache, cache_key, op_key
from packetfs_compute.cache.redis import TTL_S, RedisCache, open_cache
from packetfs_compute.names import CACHE_COUNTS, CACHE_OBJECT, CACHE_OBJECTS, FNV64_OFFSET
from packetfs_compute.program import Op, Program
from packetfs_compute.settings import Settings

URL = "https://host/object"
PROGRAM = Program(URL, (Op("crc32c"), Op("counteq", 10), Op("fnv64")), 5, 90, '"v1"')
VALUES = (7, 3, 0xCBF29CE484222325)


def answer(program: Program, values: tuple[int, ...] = VALUES, **changes: Any) -> dict[str, Any]:
    length = 95 if program.length is None else program.length
    return {
        "results": [op.render(value) for op, value in zip(program.ops, values, strict=True)],
        "bytesProcessed": length, "objectSize": 100, "etag": program.etag, "region": "iad b", "executionTimeMs": 1.0,
        "fetchTimeMs": 0.5, **changes,
    }  # fmt: skip


def keep(
    cache: ResultCache, program: Program = PROGRAM, substrate: str = "fly", sure: bool = True, **changes: Any
) -> None:
    cache.keep(program, answer(program, **changes), substrate, sure=sure)


def told(cache: ResultCache, program: Program = PROGRAM) -> list[Any] | None:
    known = cache.look(program)
    return None if known is None else [one["value"] for one in known.answer()["results"]]


Make = Callable[..., ResultCache]


@pytest.fixture(params=["stub", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """Return the function that makes a cache of so many entries; those of one test share what they hold."""
    if request.param == "stub":
        return StubCache
    client = request.getfixturevalue("redis_client")
    return lambda entries=1000, store=None: RedisCache(client, entries, store)


class TestWhatIsKept:
    def test_nothing_is_known_at_first(self, make: Make) -> None:
        assert make().look(PROGRAM) is None

    def test_what_is_kept_is_told(self, make: Make) -> None:
        cache = make()
        keep(cache)
        known = cache.look(PROGRAM)
        assert isinstance(known, Known)
        assert known.places == {"fly"}
        assert known.answer() == {
            "success": True, "results": answer(PROGRAM)["results"], "bytesProcessed": 90, "objectSize": 100,
            "etag": '"v1"', "executionTimeMs": 0.0, "fetchTimeMs": 0.0, "region": "iad b",
        }  # fmt: skip

    def test_any_of_its_values_is_known_alone_and_in_any_order(self, make: Make) -> None:
        cache = make()
        keep(cache)
        assert told(cache, replace(PROGRAM, ops=PROGRAM.ops[::-1])) == ["cbf29ce484222325", 3, 7]
        assert told(cache, replace(PROGRAM, ops=(Op("counteq", 10),) * 2)) == [3, 3]

    def test_a_program_is_known_when_all_of_it_is(self, make: Make) -> None:
        cache = make()
        keep(cache, replace(PROGRAM, ops=PROGRAM.ops[:2]), values=VALUES[:2])
        assert told(cache) is None
        keep(cache, replace(PROGRAM, ops=PROGRAM.ops[2:]), "edge", values=VALUES[2:])
        assert told(cache) == [7, 3, "cbf29ce484222325"]
        known = cache.look(PROGRAM)
        assert known is not None
        assert known.places == {"fly", "edge"}

    @pytest.mark.parametrize(
        "other",
        [
            replace(PROGRAM, etag='"v2"'),
            replace(PROGRAM, etag=None),
            replace(PROGRAM, offset=6),
            replace(PROGRAM, length=89),
            replace(PROGRAM, length=None),
            replace(PROGRAM, offset=15, length=None),
            replace(PROGRAM, data_url=URL + "/"),
            replace(PROGRAM, data_url=URL + "?versionId=2"),
            replace(PROGRAM, data_url="http://host/object"),
            replace(PROGRAM, ops=(Op("counteq", 11),)),
            replace(PROGRAM, ops=(Op("xor", 10),)),
            replace(PROGRAM, ops=(Op("fnv64", seed=1),)),
            replace(PROGRAM, ops=(*PROGRAM.ops, Op("add", 0))),
        ],
        ids=str,
    )
    def test_another_version_range_object_or_operation_is_another(self, make: Make, other: Program) -> None:
        cache = make()
        keep(cache)
        assert cache.look(other) is None

    def test_the_rest_of_an_object_is_the_range_that_its_size_makes_it(self, make: Make) -> None:
        cache = make()
        keep(cache, replace(PROGRAM, length=None))
        assert told(cache, replace(PROGRAM, length=95)) == told(cache, replace(PROGRAM, length=None)) is not None
        assert cache.look(replace(PROGRAM, offset=101, length=None)) is None

    def test_a_seed_that_is_the_hash_of_nothing_is_no_seed(self, make: Make) -> None:
        cache = make()
        keep(cache)
        assert told(cache, replace(PROGRAM, ops=(Op("fnv64", seed=FNV64_OFFSET),))) == ["cbf29ce484222325"]

    @pytest.mark.parametrize("lacks", ["etag", "objectSize"])
    def test_what_no_version_or_size_is_known_of_is_let_go(self, make: Make, lacks: str) -> None:
        cache = make()
        keep(cache, **{lacks: None})
        assert cache.look(PROGRAM) is None

    def test_the_version_is_the_one_that_was_read_not_the_one_asked_for(self, make: Make) -> None:
        cache = make()
        keep(cache, replace(PROGRAM, etag=None), etag='"v1"')
        assert told(cache) == [7, 3, "cbf29ce484222325"]

    def test_every_signature_of_an_object_finds_it(self, make: Make) -> None:
        cache = make()
        signed = "?X-Amz-Signature={}&X-Amz-Date=1&versionId=3"
        keep(cache, replace(PROGRAM, data_url=URL + signed.format("aa")))
        assert told(cache, replace(PROGRAM, data_url=URL + signed.format("bb"))) is not None
        assert told(cache, replace(PROGRAM, data_url=URL + "?versionId=3")) is not None

    def test_sure_values_replace_and_others_only_add(self, make: Make) -> None:
        cache = make()
        keep(cache)
        keep(cache, substrate="browsers", sure=False, values=(8, 3, 1))
        assert told(cache) == [7, 3, "cbf29ce484222325"]
        keep(cache, values=(9, 3, 1))
        assert told(cache) == [9, 3, "0000000000000001"]

    def test_an_object_of_another_size_is_another_version_whatever_its_etag(self, make: Make) -> None:
        cache = make()
        keep(cache)
        keep(cache, replace(PROGRAM, ops=(Op("crc32c"),)), values=(1,), objectSize=101)
        assert cache.look(PROGRAM) is None
        known = cache.look(replace(PROGRAM, ops=(Op("crc32c"),)))
        assert known is not None
        assert known.object_size == 101


class TestBounds:
    def test_the_objects_written_to_longest_ago_go_whole(self, make: Make) -> None:
        cache = make(12)
        objects = [replace(PROGRAM, data_url=f"{URL}{at}") for at in range(6)]
        for at, program in enumerate(objects):
            keep(cache, program)
            if at == 3:  # the first is written to again, so that the second is the oldest
                keep(cache, replace(objects[0], offset=0))
        assert [program.data_url[-1] for program in objects if cache.look(program)] == ["0", "4", "5"]

    def test_one_object_holds_at_most_half(self, make: Make) -> None:
        cache = make(6)
        other = replace(PROGRAM, data_url=URL + "2")
        keep(cache, other)
        for offset in range(10):
            keep(cache, replace(PROGRAM, offset=offset, ops=(Op("crc32c"),)), values=(offset,))
        found = [told(cache, replace(PROGRAM, offset=offset, ops=(Op("crc32c"),))) for offset in range(10)]
        assert found == [[0], [1], [2], *[None] * 7]
        assert told(cache, other) is not None


class TestRedis:
    def test_the_counts_are_those_of_what_is_there(self, redis_client: Any) -> None:
        cache = RedisCache(redis_client, 20)
        for at in range(30):
            keep(cache, replace(PROGRAM, data_url=f"{URL}{at % 11}", offset=at))
        held = {
            key.removeprefix(CACHE_OBJECT.encode()): redis_client.hlen(key) - 1
            for key in redis_client.keys(CACHE_OBJECT + "*")
        }
        counts = {name: int(count) for name, count in redis_client.hgetall(CACHE_COUNTS).items()}
        assert counts.pop(b"all") == sum(held.values()) <= 20
        assert counts == held
        assert set(redis_client.zrange(CACHE_OBJECTS, 0, -1)) == set(held)

    def test_everything_has_an_end(self, redis_client: Any) -> None:
        keep(RedisCache(redis_client, 20))
        keys = redis_client.keys("*")
        assert len(keys) == 3
        assert all(TTL_S - 10 < redis_client.ttl(key) <= TTL_S for key in keys)

    def test_an_object_that_redis_dropped_is_counted_no_more(self, redis_client: Any) -> None:
        cache = RedisCache(redis_client, 20)
        keep(cache)
        for key in redis_client.keys(CACHE_OBJECT + "*"):
            redis_client.delete(key)
        keep(cache)
        assert int(redis_client.hget(CACHE_COUNTS, "all")) == 3

    def test_what_is_too_old_is_counted_no_more(self, redis_client: Any) -> None:
        cache = RedisCache(redis_client, 20)
        keep(cache)
        redis_client.zadd(CACHE_OBJECTS, {redis_client.zrange(CACHE_OBJECTS, 0, 0)[0]: time.time() - TTL_S - 1})
        keep(cache, replace(PROGRAM, data_url=URL + "2"))
        assert int(redis_client.hget(CACHE_COUNTS, "all")) == 3
        assert cache.look(PROGRAM) is None

    def test_a_lowered_bound_is_kept(self, redis_client: Any) -> None:
        for at in range(9):
            keep(RedisCache(redis_client, 1000), replace(PROGRAM, data_url=f"{URL}{at}"))
        keep(RedisCache(redis_client, 6), PROGRAM)
        assert int(redis_client.hget(CACHE_COUNTS, "all")) == 6

    def test_none_is_none(self, redis_client: Any) -> None:
        keep(RedisCache(redis_client, 0))
        assert redis_client.keys("*") == []
        keep(RedisCache(redis_client, 9))
        assert RedisCache(redis_client, 0).look(PROGRAM) is None

    @pytest.mark.parametrize("nonsense", ["", "7", "x fly iad", "7 fly"])
    def test_nonsense_is_not_known(self, redis_client: Any, nonsense: str) -> None:
        cache = RedisCache(redis_client, 9)
        keep(cache)
        (key,) = redis_client.keys(CACHE_OBJECT + "*")
        redis_client.hset(key, "5:90:crc32c", nonsense)
        assert cache.look(PROGRAM) is None

    def test_no_secret_of_a_url_is_in_it(self, redis_client: Any) -> None:
        keep(RedisCache(redis_client, 9), replace(PROGRAM, data_url="https://host/x?token=hunter2"))
        held = [redis_client.hgetall(key) for key in redis_client.keys(CACHE_OBJECT + "*")]
        assert "hunter2" not in repr((redis_client.keys("*"), held, redis_client.hgetall(CACHE_COUNTS)))

    def test_while_redis_is_away_nothing_is_known_and_nobody_waits_twice(self, tmp_path: Path) -> None:
        passed = [0.0]
        with valkey(tmp_path) as settings:
            client = redis.Redis.from_url(settings.state_url)
            cache = RedisCache(client, 9, clock=lambda: passed[0])
            keep(cache)
        assert cache.look(PROGRAM) is None
        with valkey(tmp_path):
            keep(cache)
            assert cache.look(PROGRAM) is None, "it is left alone for a while"
            assert redis.Redis.from_url(settings.state_url).keys("*") == []
            passed[0] = 6.0
            keep(cache)
            assert told(cache) is not None
        client.close()

    def test_who_goes_there_anyway_keeps_values_as_well(self, redis_client: Any) -> None:
        left: list[Any] = []
        taking = True

        def entrust(*script: Any) -> bool:
            left.append(script)
            return taking

        cache = RedisCache(redis_client, 9, entrust=entrust)
        keep(cache)
        assert cache.look(PROGRAM) is None
        ((text, digest, keys, arguments),) = left
        assert redis_client.script_load(text) == digest
        redis_client.evalsha(digest, len(keys), *keys, *arguments)
        assert told(cache) == [7, 3, "cbf29ce484222325"]
        taking = False
        keep(cache, values=(8, 3, 1))
        assert told(cache) == [8, 3, "0000000000000001"]

    def test_the_settings_lead_to_it(self, redis_settings: Settings) -> None:
        keep(open_cache(replace(redis_settings, s3_endpoint_url="http://minio")), replace(PROGRAM, data_url="s3://b/k"))
        assert told(open_cache(redis_settings), replace(PROGRAM, data_url="s3://b/k")) is None
        again = open_cache(replace(redis_settings, s3_endpoint_url="http://minio"))
        assert told(again, replace(PROGRAM, data_url="s3://b/k")) is not None
        assert open_cache(replace(redis_settings, cache_entries=0)).look(PROGRAM) is None

    def test_it_needs_no_command_that_the_system_may_not_use(self, redis_client: Any, redis_settings: Settings) -> None:
        rules = [
            word
            for line in (Path(__file__).parents[3] / "deploy/redis/users.acl").read_text().splitlines()
            if not line.startswith("#")
            for word in line.split()
        ]
        redis_client.execute_command("ACL", "SETUSER", "packetfs", "reset", "on", "nopass", *rules)
        try:
            with redis.Redis.from_url(redis_settings.state_url, username="packetfs", password="") as limited:
                cache = RedisCache(limited, 6)
                for at in range(3):
                    keep(cache, replace(PROGRAM, data_url=f"{URL}{at}"))
                assert told(cache, replace(PROGRAM, data_url=f"{URL}2")) is not None
        finally:
            redis_client.execute_command("ACL", "DELUSER", "packetfs")


class TestNames:
    def test_an_s3_key_is_taken_literally(self) -> None:
        keys = {cache_key(f"s3://b/{key}", '"e"') for key in ("a", "a?x", "a#1", "a#2", "A")}
        assert len(keys) == 5
        assert cache_key("S3://b/a", '"e"') == cache_key("s3://b/a", '"e"')

    def test_what_is_no_object_elsewhere_has_no_name(self) -> None:
        assert cache_key("/a/file", '"e"') is cache_key("file:///a/file", '"e"') is cache_key("nonsense", '"e"') is None

    def test_text_that_is_no_unicode_has_one(self) -> None:
        assert cache_key("https://host/\ud800", '"e"')

    def test_operations_have_names_of_their_own(self) -> None:
        ops = [Op("crc32c"), Op("xor", 1), Op("xor", 11), Op("add", 1), Op("fnv64"), Op("fnv64", seed=1)]
        assert len(set(map(op_key, ops))) == len(ops)


OPS = st.one_of(
    st.just(Op("crc32c")),
    st.builds(Op, st.sampled_from(["counteq", "xor", "add"]), st.integers(0, 255)),
    st.builds(Op, st.just("fnv64"), st.none(), st.none() | st.integers(0, 2**64 - 1)),
)
PROGRAMS = st.builds(
    Program,
    st.sampled_from([URL, URL + "?a", "s3://bucket/key", "s3://bucket/key#"]),
    st.lists(OPS, min_size=1, max_size=4, unique=True).map(tuple),
    st.integers(0, 3),
    st.none() | st.integers(0, 3),
    st.sampled_from(['"a"', '"b"', '""']),
)
SIZE = 6
PLENTY = 1000


def value_of(program: Program, op: Op, length: int) -> int:
    """What "computing" gives: something else for every object, version, range and operation."""
    seen = (program.data_url, program.etag, program.offset, length, op.name, op.imm, op.identity)
    return int.from_bytes(repr(seen).encode()) % 2**53


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PROGRAMS, min_size=1, max_size=12), st.integers(1, 30) | st.just(PLENTY))
def test_a_value_that_is_told_is_the_one_that_was_computed_for_just_that(
    redis_client: Any, programs: list[Program], entries: int
) -> None:
    redis_client.flushall()
    cache = RedisCache(redis_client, entries)
    for turn, program in [(turn, program) for turn in (1, 2) for program in programs]:
        length = SIZE - program.offset if program.length is None else program.length
        values = [value_of(program, op, length) for op in program.ops]
        rendered = [op.render(value) for op, value in zip(program.ops, values, strict=True)]
        found = cache.look(program)
        if found is not None:
            told_again = found.answer()
            assert told_again["results"] == rendered
            assert (told_again["bytesProcessed"], told_again["etag"]) == (length, program.etag)
        else:
            assert turn == 1 or entries < PLENTY, "where there is room, what was computed is known"
        cache.keep(
            program, {**answer(program, tuple(values), objectSize=SIZE), "bytesProcessed": length}, "a", sure=True
        )
        assert int(redis_client.hget(CACHE_COUNTS, "all")) <= max(1, entries)


class TestNotes:
    TEXTS = ("[1, 2]", "a", "ü b")

    def test_what_is_noted_last_is_told_whatever_the_version_and_the_length(self, make: Make) -> None:
        cache = make()
        assert cache.noted(PROGRAM) is None
        cache.note(PROGRAM, ("before",) * 3)
        cache.note(PROGRAM, self.TEXTS)
        assert cache.noted(replace(PROGRAM, etag='"v2"', length=None)) == self.TEXTS

    def test_of_every_op_or_none(self, make: Make) -> None:
        cache = make()
        cache.note(PROGRAM, self.TEXTS)
        assert cache.noted(replace(PROGRAM, ops=(PROGRAM.ops[1],))) == ("a",)
        assert cache.noted(replace(PROGRAM, ops=(*PROGRAM.ops, Op("counteq", 11)))) is None

    @pytest.mark.parametrize(
        "other", [{"data_url": "https://host/other"}, {"offset": 6}, {"ops": (Op("fnv64", seed=1),)}]
    )
    def test_of_another_object_range_or_start_nothing(self, make: Make, other: dict[str, Any]) -> None:
        cache = make()
        cache.note(PROGRAM, self.TEXTS)
        assert cache.noted(replace(PROGRAM, **other)) is None

    def test_a_note_is_no_value_and_a_value_no_note(self, make: Make) -> None:
        cache = make()
        keep(cache)
        assert cache.noted(PROGRAM) is None
        cache.note(PROGRAM, self.TEXTS)
        assert told(cache) == ["cbf29ce484222325" if one == FNV64_OFFSET else one for one in VALUES]

    def test_of_a_local_file_nothing_is_noted(self, make: Make) -> None:
        cache = make()
        cache.note(replace(PROGRAM, data_url="/a/file"), self.TEXTS)
        assert cache.noted(replace(PROGRAM, data_url="/a/file")) is None

    def test_they_are_counted_as_values_are(self, make: Make) -> None:
        cache = make(entries=6)
        cache.note(PROGRAM, self.TEXTS)
        for number in range(3):
            keep(cache, replace(PROGRAM, data_url=f"https://host/{number}"))
        assert cache.noted(PROGRAM) is None


def test_a_value_of_several_places_is_known_where_all_are_wanted(make: Make) -> None:
    cache = make()
    keep(cache, substrate="fly,local")
    known = cache.look(PROGRAM)
    assert known is not None
    assert known.places == {"fly", "local"}
