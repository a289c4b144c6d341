"""Servers and helpers for tests; ``tests/`` is on the path, so that a test says ``from support.nginx import …``."""
