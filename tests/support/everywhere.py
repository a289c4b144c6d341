"""One running server of each vendor's runtime, and an object that all of them can read."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from packetfs_compute.places import to_json
from packetfs_compute.settings import Settings
from support.awslambda import LambdaServer
from support.fly import FlyServer
from support.nginx import Nginx
from support.vercel import VercelServer
from support.workerd import WorkerBuild, WorkerdServer

DATA = random.Random(17).randbytes(300_007)
REMOTES = ("cloudflare", "lambda", "fly", "vercel")
ALL_OPS = [
    {"op": "counteq", "imm": 10},
    {"op": "crc32c"},
    {"op": "fnv64"},
    {"op": "xor", "imm": 255},
    {"op": "add", "imm": 1},
]


@dataclass
class Places:
    """One running server of each kind."""

    servers: dict[str, Any]
    url: str

    @property
    def settings(self) -> Settings:
        """Settings whose fleet has all of them."""
        ours = [server.settings(name) for name, server in self.servers.items()]
        return Settings(
            substrates=tuple(spec for one in ours for spec in one.substrates),
            keys=tuple(key for one in ours for key in one.keys),
        )

    @property
    def environ(self) -> dict[str, str]:
        """The same as variables."""
        keys = ",".join(f"{key.substrate}={key.key_id}:{key.secret}" for key in self.settings.keys)
        return {"PACKETFS_SUBSTRATES": to_json(self.settings.substrates), "PACKETFS_KEYS": keys}


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, nginx: Nginx, lambda_server: LambdaServer, worker_build: WorkerBuild
) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("everywhere")
    (nginx.www / "everywhere.bin").write_bytes(DATA)
    with ExitStack() as stack:
        servers = {
            "cloudflare": stack.enter_context(WorkerdServer(folder, worker_build)),
            "lambda": lambda_server,
            "fly": stack.enter_context(FlyServer(folder)),
            "vercel": stack.enter_context(VercelServer(folder)),
        }
        yield Places(servers, nginx.url("shared/everywhere.bin"))
