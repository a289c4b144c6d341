"""The ``packetfs`` command: one module a subcommand, each parsing its words, calling the package, printing the answer.

stdout is data, stderr is talk. Exit codes: 0 done, 1 the job failed or the system is unwell, 2 bad usage, 130 interrupted.
"""

from packetfs_compute.cli.main import main

__all__ = ["main"]
