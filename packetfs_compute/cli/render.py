"""Values as a person reads them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["bytes_text", "console_width", "rate_text", "result_lines", "seconds_text", "usd_text"]


def bytes_text(count: int) -> str:
    """Return a size with a binary unit: ``1536`` is ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if round(size, 1) < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def rate_text(count: int, seconds: float) -> str:
    """Return bytes a second as decimal MB/s; a dash where there is nothing to divide."""
    return f"{count / seconds / 1e6:,.0f}" if count and seconds > 0 else "-"


def usd_text(usd: float) -> str:
    """Return an amount of money with three digits that count: ``$0.0000123``; plain ``$0`` for none."""
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 10 else f"${usd:.3g}" if usd >= 1e-4 else f"${usd:.2e}"


def console_width() -> int | None:
    """Return how wide to print: the terminal's width, or enough for a whole table where there is none."""
    return None if sys.stdout.isatty() else 160


def result_lines(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return an op's result as the value's line, and a line on how it came to be."""
    timing = result["timing"]
    size = "" if result["object_size"] is None else f" of {bytes_text(result['object_size'])}"
    return str(result["value"]), (
        f"{result['op']} over {bytes_text(result['bytes_processed'])}{size} on {result['substrate']}, "
        f"{seconds_text(timing['fetch_s'] + timing['compute_s'])} (fetch {seconds_text(timing['fetch_s'])}), "
        f"{usd_text(result['cost_usd'])}{_detours(result['attempts'])}{_known(result)}"
    )


def _known(result: Mapping[str, Any]) -> str:
    return ", known already: nothing was read" if result.get("cached") else ""


def _detours(attempts: Sequence[Mapping[str, Any]]) -> str:
    """Return what failed before, if anything did."""
    failed = [f"{attempt['substrate']}: {attempt['error']['type']}" for attempt in attempts if attempt["error"]]
    return f", after {', '.join(failed)}" if failed else ""
