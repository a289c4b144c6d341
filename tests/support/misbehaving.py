"""A server on a raw socket that answers by script: the conformance suite's own, under the name that tests give it."""

from packetfs_compute.conform.origin import Exchange, Origin, Script, answer, honest, says

__all__ = ["Exchange", "RawServer", "Script", "answer", "honest", "says"]

RawServer = Origin
