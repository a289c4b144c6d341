"""The text of a Lua script, each in a file of its own under ``scripts/``."""

from pathlib import Path

__all__ = ["script_text"]


def script_text(name: str) -> str:
    """Return the script of a name."""
    # importlib.resources would load zipfile first, and a command that runs two scripts waits for that.
    return (Path(__file__).parent / "scripts" / f"{name}.lua").read_text("utf-8")
