"""Fixtures that tests of several modules share; each lives in ``support/``."""

pytest_plugins = ["support.nginx", "support.objectstore", "support.system", "support.valkey", "support.fly"]
