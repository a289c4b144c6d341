"""The Lambda function's zip as the tests run it: built for this machine, unpacked, and AWS's runtime client beside it."""

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

__all__ = [
    "BUILD",
    "COMMAND",
    "ROOT",
    "THIS_ARCH",
    "THIS_PYTHON",
    "built_zip",
    "environment_variables",
    "load_build",
    "unpacked",
]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "remote" / "aws_lambda" / "build.py"
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
THIS_ARCH = {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)

COMMAND = [sys.executable, "-S", "-m", "awslambdaric", "handler.handler"]
"""How an environment is started. Without ``site``, nothing of this Python's packages is found."""

_CLIENT = ("awslambdaric", "simplejson", "snapshot_restore_py", "runtime_client")


def load_build() -> ModuleType:
    """Return ``remote/aws_lambda/build.py`` as a module; it is no part of any package."""
    spec = importlib.util.spec_from_file_location("lambda_build", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def built_zip() -> Path:
    """Return the zip for this machine's CPU and Python, built once a process."""
    folder = Path(tempfile.mkdtemp(prefix="packetfs-lambda-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    module = load_build()
    try:
        return Path(module.build(THIS_ARCH, THIS_PYTHON, folder / "packetfs.zip"))
    except module.BuildError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@cache
def unpacked() -> Path:
    """Return a folder with what is in the zip: what Lambda has at ``/var/task``."""
    folder = built_zip().parent / "task"
    with zipfile.ZipFile(built_zip()) as archive:
        archive.extractall(folder)
    return folder


@cache
def runtime_client() -> Path:
    """Return a folder with AWS's runtime client and what it needs, and nothing else: what Lambda has at ``/var/runtime``."""
    if importlib.util.find_spec("awslambdaric") is None:
        if os.environ.get("CI"):
            pytest.fail("awslambdaric is not installed: pip install awslambdaric")
        pytest.skip("awslambdaric is not installed: pip install awslambdaric")
    folder = built_zip().parent / "runtime"
    folder.mkdir()
    for name in _CLIENT:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin)
            path = path.parent if path.name == "__init__.py" else path
            (folder / path.name).symlink_to(path)
    return folder


def environment_variables(folder: Path, **more: str) -> dict[str, str]:
    """Return what an environment of the function sees; ``more`` are the variables that it is deployed with."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": f"{unpacked()}:{runtime_client()}",
        "LAMBDA_TASK_ROOT": str(unpacked()),
        "PYTHONDONTWRITEBYTECODE": "1",  # /var/task cannot be written to
        "HOME": str(folder),
        "_HANDLER": "handler.handler",
        "AWS_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_NAME": "packetfs-compute",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
        **more,
    }
