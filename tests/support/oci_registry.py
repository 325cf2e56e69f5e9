"""As much of an OCI registry (the Distribution Specification's push and pull) as `helm push` and `helm pull` take."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>blobs|manifests)/(?P<reference>[^/]*)$")


class _Handler(BaseHTTPRequestHandler):
    stored: ClassVar[dict[tuple[str, str, str], tuple[bytes, str]]]
    """Name, kind and digest or tag to bytes and media type."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""

    def do_GET(self) -> None:
        self._give(with_body=True)

    def do_HEAD(self) -> None:
        self._give(with_body=False)

    def do_POST(self) -> None:
        self._body()
        self._answer(202, {"Location": f"{urlsplit(self.path).path.rstrip('/')}/one"})

    def do_PUT(self) -> None:
        parts, body = urlsplit(self.path), self._body()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if "/blobs/uploads/" in parts.path:
            assert parse_qs(parts.query)["digest"] == [digest]
            name = parts.path.removeprefix("/v2/").partition("/blobs/")[0]
            self.stored[name, "blobs", digest] = body, "application/octet-stream"
        else:
            found = _PATH.fullmatch(parts.path)
            assert found
            for reference in (digest, found["reference"]):
                self.stored[found["name"], "manifests", reference] = body, self.headers["Content-Type"]
        self._answer(201, {"Location": parts.path, "Docker-Content-Digest": digest})

    def _give(self, *, with_body: bool) -> None:
        found = _PATH.fullmatch(urlsplit(self.path).path)
        stored = found and self.stored.get((found["name"], found["kind"], found["reference"]))
        if not stored:
            self._answer(200 if self.path == "/v2/" else 404, {})
            return
        body, media_type = stored
        headers = {
            "Content-Type": media_type,
            "Docker-Content-Digest": f"sha256:{hashlib.sha256(body).hexdigest()}",
        }
        self._answer(200, headers, body, with_body=with_body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, code: int, headers: dict[str, str], body: bytes = b"", *, with_body: bool = True) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def oci_registry() -> Iterator[str]:
    """The ``HOST:PORT`` of a registry in memory, in plaintext."""

    class Handler(_Handler):
        stored: ClassVar = {}

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
