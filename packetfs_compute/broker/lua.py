"""Lua scripts, run by their digest."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from redis.exceptions import NoScriptError

from packetfs_compute.broker.script import script_text

__all__ = ["Script"]


class Script:
    """A script by its file's name. It is bound to no client, unlike redis-py's own: kombu makes one for each publish."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def text(self) -> str:
        """What the file says."""
        return script_text(self.name)

    @cached_property
    def digest(self) -> str:
        """The name that Redis gives it."""
        return hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324  (Redis' choice)

    def __call__(self, client: Any, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        """Run it on ``client``: one round trip, or two the first time after the server started."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)

    def queue(self, pipeline: Any, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> None:
        """Add it to ``pipeline`` in full: an unknown digest in the middle of one could not be made good."""
        pipeline.eval(self.text, len(keys), *keys, *arguments)
