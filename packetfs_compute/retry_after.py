"""What a server's Retry-After asks for, whether it is a source's or a substrate's."""

import email.utils
import re
from typing import Final

__all__ = ["MAX_RETRY_AFTER_S", "retry_after_s"]

MAX_RETRY_AFTER_S: Final = 300.0
"""Longer than this nobody is left alone for."""


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Return the seconds of a Retry-After (RFC 9110, section 10.2.3), at most 300; ``None`` when it says nothing.

    It is a number of seconds or a date; ``now_s`` is Unix time.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,10}", value.strip()):
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        at_s = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at_s - now_s, 0.0), MAX_RETRY_AFTER_S)
