"""A real S3 server with one empty bucket."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoal.local.store import store_part
from shoal.pictures.objectstore import Credentials, create_credentials, open_store
from shoal.service import spec
from support.ports import free

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from obstore.store import ObjectStore

    from shoal.runtime.endpoint import Endpoint


class Server:
    """The server and what opens it. It may be stopped and started again, over the same objects."""

    def __init__(self, root: Path, bucket: str) -> None:
        (root / "objects" / bucket).mkdir(parents=True)
        self.url = f"s3://{bucket}"
        self.credentials_file = root / "s3-credentials.json"
        self.credentials = create_credentials(self.credentials_file)
        listen = free()
        self.address = f"http://{listen}"
        self._part = store_part(listen, root / "objects", self.credentials)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it accepts connections."""
        self._process = subprocess.Popen(
            self._part.command, env=dict(self._part.environment), stderr=subprocess.DEVNULL
        )
        _await_port(self._part.listen, self._process)

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def store(self, credentials: Credentials | None = None) -> ObjectStore:
        """Opens the bucket."""
        return open_store(spec.ObjectStore(url=self.url), credentials or self.credentials, self.address)


@contextmanager
def running_s3(root: Path, bucket: str) -> Iterator[Server]:
    """A server that is stopped at the end."""
    server = Server(root, bucket)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _await_port(listen: Endpoint, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(listen, timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(listen)
