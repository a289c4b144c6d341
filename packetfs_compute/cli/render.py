"""Values as a person reads them."""

from collections.abc import Mapping
from typing import Any

__all__ = ["bytes_text", "rate_text", "result_lines", "seconds_text"]


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


def result_lines(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return an op's result as the value's line, and a line on how it came to be."""
    timing = result["timing"]
    size = "" if result["object_size"] is None else f" of {bytes_text(result['object_size'])}"
    return str(result["value"]), (
        f"{result['op']} over {bytes_text(result['bytes_processed'])}{size} on {result['substrate']}, "
        f"{seconds_text(timing['fetch_s'] + timing['compute_s'])} (fetch {seconds_text(timing['fetch_s'])}), "
        f"${result['cost_usd']:g}"
    )
