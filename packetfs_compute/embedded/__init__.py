"""The whole system on one machine with nothing installed but Python: a real Redis, and Celery workers beside it.

What is started here is stopped here: every child process belongs to its :class:`System`, and dies with it even when the
parent is killed.
"""

from packetfs_compute.embedded.faces import Flower, plan_flower
from packetfs_compute.embedded.lock import holder_pid
from packetfs_compute.embedded.server import check_redis, redis_server_binary
from packetfs_compute.embedded.system import System

__all__ = ["Flower", "System", "check_redis", "holder_pid", "plan_flower", "redis_server_binary"]
