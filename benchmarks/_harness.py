"""What the benchmarks share: interleaved timing, Markdown tables, JSON, and a description of the machine.

Candidates are timed in rounds, each once a round and in another order every time, so that a neighbour's burst or a
change of clock hits all of them alike; a candidate's *best* round is then compared with the others' best ones. On a
quiet machine best and median agree; where they do not, the median is in the JSON too.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "Timing",
    "facts",
    "interleaved",
    "machine",
    "markdown",
    "options",
    "ratio",
    "size",
    "size_text",
    "write_json",
]

Key = TypeVar("Key", bound=Hashable)

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NOTABLE_FLAGS = ("sse4_2", "pclmulqdq", "avx2", "gfni", "vpclmulqdq", "avx512bw", "avx512vbmi", "avx512_vnni", "asimd")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over the rounds that were run."""

    best_s: float
    median_s: float
    rounds: int

    @classmethod
    def of(cls, samples_s: Sequence[float]) -> "Timing":
        """Sum up the samples, one a round."""
        return cls(min(samples_s), statistics.median(samples_s), len(samples_s))

    def of_each(self, count: int) -> "Timing":
        """Return the timing of one of ``count`` equal parts of the call."""
        return Timing(self.best_s / count, self.median_s / count, self.rounds)

    def rate(self, count: int) -> float:
        """Return GB/s (10**9 bytes a second) of the best round, for a call over ``count`` bytes."""
        return count / self.best_s / 1e9


def interleaved(calls: Mapping[Key, Callable[[], object]], rounds: int, sample_s: float = 0.002) -> dict[Key, Timing]:
    """Time every call in ``rounds`` interleaved rounds; a short one is repeated until a sample takes ``sample_s``."""
    timers = {key: timeit.Timer(call) for key, call in calls.items()}
    repeats = {key: _repeats(timer, sample_s) for key, timer in timers.items()}
    samples: dict[Key, list[float]] = {key: [] for key in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for key in order:
            samples[key].append(timers[key].timeit(repeats[key]) / repeats[key])
    return {key: Timing.of(taken) for key, taken in samples.items()}


def _repeats(timer: timeit.Timer, sample_s: float) -> int:
    repeats = 1
    while (took_s := timer.timeit(repeats)) < sample_s / 2:
        repeats *= 2
    return max(1, round(repeats * sample_s / took_s))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table; the first ``left`` columns are text, the others numbers, set to the right."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[i]) for row in table)) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([line(table[0]), f"|{rule}|", *map(line, table[1:])])


def ratio(value: float | None) -> str:
    """Return a ratio or a rate with the digits that count; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.1g}" if value < 0.095 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def size_text(count: int) -> str:
    """Return a size that is a whole number of KiB or MiB."""
    return f"{count >> 20} MiB" if count % (1 << 20) == 0 else f"{count / 1024:g} KiB"


def size(text: str) -> int:
    """Parse ``64KiB``, ``1MiB`` or a number of bytes, at least 4 KiB and a whole number of 8-byte words."""
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return max(int(text.removesuffix(unit)), 1) * factor
    return -(-max(int(text), 4096) // 8) * 8


def options(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smaller and with fewer rounds: to see that it runs")
    parser.add_argument("--json", type=Path, help="write the raw numbers to this file")
    return parser


def facts(described: Mapping[str, Any]) -> str:
    """Return a Markdown list of what :func:`machine` and a benchmark know."""
    plain = {key: ", ".join(value) or "none" if isinstance(value, list) else value for key, value in described.items()}
    return "\n".join(f"- {key}: {value}" for key, value in plain.items())


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write the raw numbers."""
    path.write_text(json.dumps(document, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Describe where this runs, as far as Linux tells; the load is that of now, which is the honest part."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "family_model": f"{info.get('cpu family', '?')}/{info.get('model', '?')}",
        "hypervisor": "hypervisor" in flags,
        "features": [flag for flag in _NOTABLE_FLAGS if flag in flags],
        "cpus": os.cpu_count(),
        "caches": _caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
        "load_1m": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *sys.argv]),
    }


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _caches() -> list[str]:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return found
