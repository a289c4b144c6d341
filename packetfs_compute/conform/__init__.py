"""The conformance suite: everything that an endpoint of the wire must do, asked of it from outside.

Any endpoint can be pointed at, in any language and on any platform: a server by its URL, another substrate by its
``invoke``. The suite has the contract's vectors, and an origin of its own that serves their objects and, on other paths,
misbehaves in every way that was ever met. What cannot be asked (signatures of an endpoint without a key, HTTP's errors of
a function that is not behind HTTP, sources where the endpoint cannot reach the origin) is reported as left out.
"""

from packetfs_compute.conform.bench import Bench, Check, Outcome
from packetfs_compute.conform.suite import CHECKS, Report, conform, serving
from packetfs_compute.conform.target import HttpTarget, InvokedTarget, Key, Reply, Target

__all__ = [
    "CHECKS", "Bench", "Check", "HttpTarget", "InvokedTarget", "Key", "Outcome", "Reply", "Report", "Target", "conform",
    "serving",
]  # fmt: skip
