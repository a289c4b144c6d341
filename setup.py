"""Build the C extension of ``packetfs_compute.kernels``; everything else about the package is in setup.cfg.

The extension is optional: without a C compiler, or with ``PACKETFS_NO_EXTENSION=1``, the package installs and computes
the same values in Python, slower. pip shows the warning only with ``-v``; ``packetfs doctor`` shows it always.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("packetfs_compute/kernels/csrc")
NAME = "packetfs_compute.kernels._native"

# -g0: Python's own flags ask for debug information, which is most of the file's size.
FLAGS = ["/std:c11", "/O2"] if os.name == "nt" else ["-std=c11", "-O3", "-g0", "-Wall", "-Wextra"]


class BuildOptional(build_ext):
    """Say in plain words, and on stderr, that the extension was left out."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            without(f"it did not build: {error}")
            raise  # setuptools goes on because the extension is optional


def without(reason: str) -> None:
    """Warn that there will be no extension."""
    sys.stderr.write(
        f"warning: packetfs_compute is installed WITHOUT its C kernels ({reason}).\n"
        "         Results are the same; they take 5 to 1,000 times as long. A C compiler (gcc, clang, MSVC) and a\n"
        "         reinstall mend it; `packetfs doctor` says which kernels are in use.\n"
    )


def extensions() -> list[Extension]:
    """Return the one extension, or none where the environment says so."""
    if os.environ.get("PACKETFS_NO_EXTENSION") == "1":
        without("PACKETFS_NO_EXTENSION=1")
        return []
    return [
        Extension(
            NAME,
            sources=sorted(path.as_posix() for path in CSRC.glob("*.c")),
            depends=sorted(path.as_posix() for path in CSRC.glob("*.h")),
            extra_compile_args=FLAGS,
            optional=True,
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOptional})
