"""Checks: what is asked of whom, what is compared, what comes of it; many at once, and an end in their middle."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from packetfs_compute.errors import BrokerUnavailable, Cancelled, JobError, SourceChanged, SourceFailed, SourceNotFound
from packetfs_compute.kernels import crc32c, fnv64
from packetfs_compute.sources.declared import Declared
from packetfs_compute.verifying import Check, Row, Verifier, open_report, verify_all
from packetfs_compute.verifying.verify import Facts

URL, MIRROR = "https://host/a", "https://mirror/a"
DATA = b"hello world\n"
CRC, FNV = f"{crc32c(DATA):08x}", f"{fnv64(DATA):016x}"


@dataclass
class Store:
    """Objects, and who asks for what of them."""

    objects: dict[str, bytes | JobError] = field(default_factory=lambda: {URL: DATA, MIRROR: DATA})
    said: Declared | JobError = field(default_factory=lambda: Declared(crc32c(DATA), None, len(DATA), '"v1"'))
    hidden: bool = False
    """Whether it can be reached only from where jobs run."""
    computed: list[tuple[str, list[str], Facts]] = field(default_factory=list)

    def compute(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
        self.computed.append((source, [op["op"] for op in ops], facts))
        data = self._data(source)
        values: dict[str, Any] = {"crc32c": crc32c(data), "fnv64": f"{fnv64(data):016x}"}
        results = [{"op": op["op"], "value": values[op["op"]]} for op in ops]
        return {"results": results, "bytes_processed": len(data), "etag": facts.etag, "cost_usd": 0.25}

    def learn(self, source: str) -> Facts:
        if self.hidden:
            raise SourceFailed("no route")
        return Facts(len(self._data(source)), '"v1"')

    def declared(self, source: str) -> Declared:
        self._data(source)
        if isinstance(self.said, JobError):
            raise self.said
        return self.said

    def _data(self, source: str) -> bytes:
        data = self.objects.get(source, SourceNotFound("the source has no such\n object (404)"))
        if isinstance(data, JobError):
            raise data
        return data

    def verify(self, check: Check, *, strict: bool = False) -> Row:
        clock = iter([10.0, 11.5])
        return Verifier(self.compute, self.learn, self.declared, strict, clock=lambda: next(clock)).verify(check)


class TestValues:
    @pytest.mark.parametrize(("kind", "value"), [("crc32c", CRC), ("fnv64", FNV)])
    def test_what_is_as_expected_matches(self, kind: Any, value: str) -> None:
        store = Store()
        row = store.verify(Check(URL, kind, value, len(DATA)))
        both = f"{kind}:{value}"
        assert row == Row(URL, kind, value, 12, "match", both, both, 12, 12, '"v1"', 0.25, 1.5)
        assert store.computed == [(URL, [kind], Facts(12, '"v1"'))], "once, and on the version that was looked at"

    @pytest.mark.parametrize(("kind", "value"), [("crc32c", "0" * 8), ("fnv64", "0" * 16)])
    def test_another_value_is_a_mismatch(self, kind: Any, value: str) -> None:
        row = Store().verify(Check(URL, kind, value))
        assert (row.status, row.wanted, row.found) == (
            "mismatch",
            f"{kind}:{value}",
            f"{kind}:{CRC if kind == 'crc32c' else FNV}",
        )

    def test_a_leading_nought_is_written(self) -> None:
        data = next(data for data in map(str.encode, map(str, range(10_000))) if 0 < crc32c(data) < 1 << 24)
        row = Store({URL: data}).verify(Check(URL, "crc32c", f"{crc32c(data):08x}"))
        assert row.status == "match"
        assert row.found == row.wanted == f"crc32c:0{crc32c(data):07x}"

    def test_of_a_wrong_size_nothing_is_read(self) -> None:
        store = Store()
        row = store.verify(Check(URL, "crc32c", CRC, 13))
        assert (row.status, row.found_size, row.wanted_size, row.found) == ("mismatch", 12, 13, None)
        assert store.computed == []

    def test_what_cannot_be_reached_from_here_is_computed_all_the_same(self) -> None:
        store = Store(hidden=True)
        assert store.verify(Check(URL, "crc32c", CRC, 12)).status == "match"
        assert store.verify(Check(URL, "crc32c", CRC, 13)).status == "mismatch"
        assert [facts for _, _, facts in store.computed] == [Facts()] * 2

    def test_what_is_not_there_failed(self) -> None:
        store = Store()
        row = store.verify(Check(URL + "?", "crc32c", CRC))
        assert store.computed == []
        assert (row.status, row.error) == ("failed", "source_not_found")
        assert row.message == "the source has no such object (404)", "on one line"
        assert (row.found, row.cost_usd, row.seconds) == (None, 0.0, 1.5)

    def test_an_error_that_is_no_jobs_is_raised(self) -> None:
        class Away(Store):
            def compute(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
                raise BrokerUnavailable("nobody")

        with pytest.raises(BrokerUnavailable):
            Away().verify(Check(URL, "crc32c", CRC))


class TestMirrors:
    def test_equal_ones_match(self) -> None:
        store = Store()
        row = store.verify(Check(URL, "against", MIRROR))
        assert (row.status, row.found, row.wanted, row.found_size, row.wanted_size) == (
            "match", f"crc32c:{CRC}", f"crc32c:{CRC}", 12, 12
        )  # fmt: skip
        assert row.cost_usd == 0.5
        assert sorted(source for source, _, _ in store.computed) == [URL, MIRROR]

    def test_strictly_by_both(self) -> None:
        store = Store()
        row = store.verify(Check(URL, "against", MIRROR), strict=True)
        assert row.found == row.wanted == f"crc32c:{CRC} fnv64:{FNV}"
        assert row.status == "match"

    def test_other_bytes_are_a_mismatch(self) -> None:
        store = Store({URL: DATA, MIRROR: DATA[::-1]})
        row = store.verify(Check(URL, "against", MIRROR))
        assert (row.status, row.wanted) == ("mismatch", f"crc32c:{crc32c(DATA[::-1]):08x}")

    def test_a_truncated_one_is_not_read(self) -> None:
        store = Store({URL: DATA, MIRROR: DATA[:-1]})
        row = store.verify(Check(URL, "against", MIRROR))
        assert (row.status, row.found_size, row.wanted_size) == ("mismatch", 12, 11)
        assert store.computed == []

    def test_a_size_holds_for_both(self) -> None:
        assert Store().verify(Check(URL, "against", MIRROR, 12)).status == "match"
        for hidden in (False, True):
            row = Store(hidden=hidden).verify(Check(URL, "against", MIRROR, 13))
            assert (row.status, row.found_size) == ("mismatch", 12)

    def test_one_of_another_size_and_the_same_checksum_is_told_by_what_was_read(self) -> None:
        class Colliding(Store):
            def compute(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
                size = 11 if source == MIRROR else 12
                results = [{"op": "crc32c", "value": 7}]
                return {"results": results, "bytes_processed": size, "etag": None, "cost_usd": 0}

        row = Colliding(hidden=True).verify(Check(URL, "against", MIRROR))
        assert (row.status, row.found, row.found_size, row.wanted_size) == ("mismatch", "crc32c:00000007", 12, 11)

    @pytest.mark.parametrize("gone", [URL, MIRROR])
    def test_one_that_is_gone_failed(self, gone: str) -> None:
        store = Store()
        store.objects[gone] = SourceNotFound("gone")
        assert store.verify(Check(URL, "against", MIRROR)).error == "source_not_found"


class TestDeclared:
    def test_what_its_store_declares_matches(self) -> None:
        store = Store()
        row = store.verify(Check(URL, "declared"))
        assert (row.status, row.wanted, row.etag) == ("match", f"crc32c:{CRC}", '"v1"')
        assert store.computed == [(URL, ["crc32c"], Facts(12, '"v1"'))], "on the version that it is declared of"

    def test_what_does_not_is_a_mismatch(self) -> None:
        assert Store(said=Declared(7, None, 12)).verify(Check(URL, "declared")).status == "mismatch"

    def test_a_size_is_compared_first(self) -> None:
        store = Store()
        assert store.verify(Check(URL, "declared", "", 13)).status == "mismatch"
        assert store.computed == []

    def test_where_nothing_is_declared_nothing_is_verified(self) -> None:
        store = Store(said=Declared(None, "composite", 12, '"v1"'))
        row = store.verify(Check(URL, "declared"))
        assert (row.status, row.message, row.found_size, row.error) == ("undeclared", "composite", 12, None)
        assert store.computed == []

    def test_what_changed_meanwhile_failed(self) -> None:
        class Changing(Store):
            def compute(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
                raise SourceChanged("it is another now")

        assert Changing().verify(Check(URL, "declared")).error == "source_changed"

    def test_what_cannot_be_asked_failed(self) -> None:
        assert Store(said=SourceFailed("no")).verify(Check(URL, "declared")).error == "source_failed"


def checks(count: int) -> list[Check]:
    return [Check(f"{URL}{at}", "crc32c", CRC) for at in range(count)]


def verifier(verify: Callable[[str], bytes], stop: Callable[[], object] = lambda: None) -> Verifier:
    """Return one whose objects are what ``verify`` gives for their URLs."""

    def compute(source: str, ops: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
        del ops, facts
        data = verify(source)
        return {"results": [{"op": "crc32c", "value": crc32c(data)}], "bytes_processed": 1, "etag": None, "cost_usd": 0}

    return Verifier(compute, lambda _: Facts(), lambda _: Declared(None), stop=stop)


class TestMany:
    def test_all_are_made_so_many_at_once(self, tmp_path: Path) -> None:
        at_once, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(3)

        def read(source: str) -> bytes:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            together.wait(10)
            with lock:
                at_once -= 1
            return b"x" if source.endswith("7") else DATA

        told: list[Row] = []
        with open_report(tmp_path / "r.jsonl", checks(12)) as report:
            counts = verify_all(verifier(read), checks(12), report, 3, told.append)
        assert counts == Counter(match=11, mismatch=1)
        assert most == 3
        assert {row.check for row in told} == set(checks(12))
        assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 12

    def test_the_next_run_makes_what_did_not_match(self, tmp_path: Path) -> None:
        asked: list[str] = []

        def read(source: str) -> bytes:
            asked.append(source)
            return b"x" if source.endswith("3") and len(asked) <= 5 else DATA

        for made, known in ((5, 0), (1, 4), (0, 5)):
            before = len(asked)
            with open_report(tmp_path / "r.csv", checks(5)) as report:
                counts = verify_all(verifier(read), checks(5), report, 2)
                assert len(report.done) == known
            assert (len(asked) - before, counts.total()) == (made, 5)
        assert counts == Counter(match=5)

    def test_an_end_in_the_middle_keeps_what_was_made(self, tmp_path: Path) -> None:
        stopped = threading.Event()

        def read(source: str) -> bytes:
            at = int(source.removeprefix(URL))
            if at == 4:
                raise BrokerUnavailable("it went away")
            if at > 4:
                assert stopped.wait(10), "what runs is stopped"
                raise Cancelled("stopped")
            return DATA

        with (
            pytest.raises(BrokerUnavailable),
            open_report(tmp_path / "r.jsonl", checks(50)) as report,
        ):
            verify_all(verifier(read, stopped.set), checks(50), report, 2)
        with open_report(tmp_path / "r.jsonl", checks(50)) as report:
            kept = [row.check for row in report.done.values()]
        assert stopped.is_set()
        assert set(kept) <= set(checks(4))
        assert len(kept) >= 3, "all but one had ended before the fifth began"
