"""Fixtures that tests of several modules share; each lives in ``support/``."""

pytest_plugins = [
    "support.awslambda",
    "support.edge",  # before those that import it, or its assertions would not be rewritten
    "support.browser",
    "support.fly",
    "support.nginx",
    "support.objectstore",
    "support.system",
    "support.valkey",
    "support.vercel",
    "support.workerd",
    "support.everywhere",  # of those before it
]
