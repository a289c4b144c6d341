"""The checks as data, and running them: each that can be asked of the endpoint, the others left out by name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from packetfs_compute.conform import checks_source, checks_wire
from packetfs_compute.conform.bench import Bench, Check, Outcome
from packetfs_compute.conform.contract import load_contract
from packetfs_compute.conform.origin import Origin, answer, honest, says
from packetfs_compute.errors import JobError

__all__ = ["CHECKS", "Report", "conform", "serving"]

CHECKS: Final = (
    Check("health", "says what it is", checks_wire.healthy),
    Check("vectors", "gives the contract's values", checks_wire.vectors, frozenset({"origin"})),
    Check("bad requests", "refuses them, naming the field", checks_wire.bad_requests),
    Check("bodies", "refuses what is no request", checks_wire.bodies, frozenset({"http"})),
    Check("errors", "answers other paths and methods as HTTP does", checks_wire.errors_of_http, frozenset({"http"})),
    Check("batches", "answers in order, each as alone", checks_wire.batches, frozenset({"origin", "batch"})),
    Check("signatures", "takes none but its key's, once", checks_wire.signatures, frozenset({"http", "key"})),
    Check("forgeries", "takes nothing altered", checks_wire.forgeries, frozenset({"http", "key"})),
    Check("hostile URLs", "reads no private place", checks_source.hostile_urls),
    Check("redirects", "is not led to one", checks_source.hostile_redirects, frozenset({"origin"})),
    Check("servers", "is not fooled by one", checks_source.misbehaving_servers, frozenset({"origin"})),
    Check("deadlines", "ends in time", checks_source.deadlines, frozenset({"origin"})),
    Check("repeats", "answers a repeated job alike", checks_source.repeats, frozenset({"origin"})),
    Check("large ranges", "streams", checks_source.large_ranges, frozenset({"origin"})),
)

_MISSING: Final = {
    "origin": "it has no way to the suite's own sources",
    "http": "it is not asked over HTTP",
    "key": "there is no key to sign with",
    "batch": "it takes no batches",
}


@dataclass
class Report:
    """What a run found. ``left_out`` is the reason for each check that could not be asked."""

    outcomes: list[Outcome] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Outcome]:
        """The cases that the endpoint did not pass."""
        return [one for one in self.outcomes if one.problem is not None]


def conform(
    bench: Bench, only: frozenset[str] = frozenset(), watch: Callable[[Check], None] = lambda _: None
) -> Report:
    """Run the checks (``only`` those, where any is named) and return the report; ``watch`` is told of each beforehand."""
    report, there = Report(), _there(bench)
    for check in CHECKS:
        if only and check.name not in only:
            continue
        lacking = sorted(check.needs - there)
        if lacking:
            report.left_out[check.name] = _MISSING[lacking[0]]
            continue
        watch(check)
        report.outcomes += _run(check, bench)
    return report


@contextmanager
def serving(address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[Origin]:
    """Serve the contract's objects, and what checks add to them, while the context lasts."""
    missing = says(answer("404 Not Found", "Content-Length: 0", "Connection: close"))
    with Origin(missing, address=address) as origin:
        for name, one in load_contract().objects.items():
            origin.routes[f"/objects/{name}"] = honest(one.data, one.etag)
        yield origin


def _run(check: Check, bench: Bench) -> Iterator[Outcome]:
    try:
        for case, problem in check.run(bench):
            yield Outcome(check.name, case, problem)
    except JobError as error:  # the endpoint does not answer
        yield Outcome(check.name, "the rest", error.message)


def _there(bench: Bench) -> frozenset[str]:
    http = bench.target.http
    facts = {
        "origin": bench.origin is not None,
        "http": http is not None,
        "key": http is not None and http.key is not None,
        "batch": bench.target.batches,
    }
    return frozenset(name for name, is_there in facts.items() if is_there)
