"""One lock for what is imported on first use: urllib3's modules import each other, and botocore imports urllib3.

Of two threads that begin at different ends, each waits for a module that the other has begun. Python breaks such a deadlock
by giving one of them a module that is only half there (importlib, ``_ModuleLock``).
"""

import threading
from typing import Final

__all__ = ["IMPORTING"]

IMPORTING: Final = threading.RLock()
"""Hold it around an import of boto3 or urllib3 inside a function."""
