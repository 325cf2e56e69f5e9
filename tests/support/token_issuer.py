"""An issuer of tokens (JWT) for tests: keys, key sets, and a server that publishes one."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.jwk import RSAKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ISSUER = "https://issuer.example"
AUDIENCE = "shoal"
HOUR = 3600


class Issuer:
    """Signs tokens with its newest key."""

    def __init__(self, name: str = ISSUER) -> None:
        self.name = name
        self.key = _new_key("1")

    def rotate(self) -> None:
        """Signs with a new key from now on."""
        self.key = _new_key(str(int(self.key.kid or "0") + 1))

    @property
    def key_set(self) -> str:
        """The public key that it signs with, as JWKS."""
        return json.dumps({"keys": [self.key.as_dict(private=False)]})

    def token(self, **claims: object) -> str:
        """For an hour, of alice; a claim that is None is left out."""
        told: dict[str, Any] = {"iss": self.name, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + HOUR}
        told |= claims
        told = {claim: value for claim, value in told.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, told, self.key)

    def bearer(self, **claims: object) -> tuple[str, str]:
        """A token as metadata."""
        return "authorization", f"Bearer {self.token(**claims)}"


class KeyServer(ThreadingHTTPServer):
    """Publishes an issuer's key set at any path."""

    daemon_threads = True

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.issuer = issuer
        self.broken = False
        self.failed = 0
        self.asked = threading.Semaphore(0)
        """Goes up with each question."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Answer(BaseHTTPRequestHandler):
    server: KeyServer

    def do_GET(self) -> None:
        text = self.server.issuer.key_set.encode()
        self.server.failed += self.server.broken
        self.send_response(503 if self.server.broken else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.server.asked.release()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def publishing(issuer: Issuer, certificate: Path | None = None) -> Iterator[KeyServer]:
    """A server on the loopback; with the folder of a ``certificate``, through TLS."""
    server = KeyServer(issuer)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})
