"""The whole system on one machine with nothing installed but Python: a real Redis, and Celery workers beside it.

What is started here is stopped here: every child process belongs to its :class:`System`, and dies with it even when the
parent is killed.
"""

__all__ = ()
