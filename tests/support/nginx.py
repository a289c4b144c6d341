"""A real nginx on a free loopback port, with a temporary directory of its own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
    uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
    types {{ }}
    server {{
        listen 127.0.0.1:{port};
        root {root}/www;
        location /shared/ {{
            alias {root}/www/;
            add_header Access-Control-Allow-Origin *;
            add_header Access-Control-Expose-Headers "Content-Range, ETag";
        }}
        location /listed/ {{ alias {root}/www/; autoindex on; }}
        location /slow/ {{ alias {root}/www/; limit_rate 1m; }}
        location /whole/ {{ alias {root}/www/; max_ranges 0; }}
        location /gzip/ {{ alias {root}/www/; gzip on; gzip_min_length 1; gzip_types *; }}
        if ($request_uri ~ "^/moved/(.*)$") {{ return 302 /$1; }}
    }}
}}
"""


class Nginx:
    """A running server; what is written under ``www`` is at :meth:`url`."""

    def __init__(self, root: Path, binary: str) -> None:
        self.www = root / "www"
        for directory in (self.www, root / "tmp"):
            directory.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        config = root / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""
        config.write_text(_CONFIG.format(root=root, port=self.port, user=user))
        with (root / "stderr.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "-p", str(root), "-e", str(root / "error.log"), "-c", str(config)], stdout=log, stderr=log
            )
        self._wait(root)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _wait(self, root: Path) -> None:
        for _ in range(200):
            if self._process.poll() is not None:
                raise RuntimeError((root / "stderr.log").read_text() + (root / "error.log").read_text())
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.close()
        raise RuntimeError("nginx did not start")


def nginx_binary() -> str | None:
    """Return the installed nginx."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    binary = nginx_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("nginx is not installed: apt-get install nginx-light")
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    server = Nginx(tmp_path_factory.mktemp("nginx"), binary)
    yield server
    server.close()
