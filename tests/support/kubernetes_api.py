"""As much of a Kubernetes API server as serves Secrets: TLS, bearer tokens, and watches as the real one has them.

A watch without a ``resourceVersion`` begins with ADDED for what is there, and goes on with MODIFIED and DELETED. It
ends when its ``timeoutSeconds`` are over or, with an ERROR of 410, when the server has forgotten what came before.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from support.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAMESPACE, TOKEN = "vision", "a-token-of-the-pod"


class KubernetesApi:
    """Its Secrets, and who watches them. ``account`` is what a pod finds of it in its file system."""

    def __init__(self, account: Path) -> None:
        self.account = account
        self.token = TOKEN
        self.refuses = False
        """Whether no Role lets the pod watch."""
        self.queries: list[dict[str, str]] = []
        self._secrets: dict[str, dict[str, str]] = {}
        self._version = 0
        self._watches: dict[asyncio.Queue[dict[str, Any] | None], str] = {}

    @property
    def watches(self) -> int:
        """Those that are open."""
        return len(self._watches)

    def put(self, name: str, **data: bytes) -> None:
        """Creates or replaces a Secret."""
        kind = "MODIFIED" if name in self._secrets else "ADDED"
        self._secrets[name] = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
        self._tell(name, self._event(kind, name))

    def delete(self, name: str) -> None:
        """Deletes one."""
        event = self._event("DELETED", name)
        del self._secrets[name]
        self._tell(name, event)

    def forget(self) -> None:
        """Ends every watch with 410, as after a compaction."""
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        for queue in list(self._watches):
            queue.put_nowait({"type": "ERROR", "object": gone})
            queue.put_nowait(None)

    def end_watches(self) -> None:
        """Ends every watch as when its time is over."""
        for queue in list(self._watches):
            queue.put_nowait(None)

    def _tell(self, name: str, event: dict[str, Any]) -> None:
        for queue, watched in self._watches.items():
            if watched == name:
                queue.put_nowait(event)

    def _event(self, kind: str, name: str) -> dict[str, Any]:
        self._version += 1
        metadata = {"name": name, "namespace": NAMESPACE, "resourceVersion": str(self._version)}
        secret = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": self._secrets[name]}
        return {"type": kind, "object": secret}

    async def secrets(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        field, _, name = request.query.get("fieldSelector", "").partition("=")
        if self.refuses or field != "metadata.name" or request.query.get("watch") != "true":
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        if name in self._secrets:
            queue.put_nowait(self._event("ADDED", name))
        self._watches[queue] = name
        try:
            while (event := await queue.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionResetError:
            pass
        finally:
            del self._watches[queue]
        return response


@asynccontextmanager
async def kubernetes_api(folder: Path) -> AsyncIterator[tuple[KubernetesApi, dict[str, str]]]:
    """One, and the environment that a pod has because of it."""
    certificate = self_signed()
    certificate.write(folder / "tls")
    account = folder / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes(certificate.certificate)
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text(NAMESPACE)
    api = KubernetesApi(account)
    app = web.Application()
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/secrets", api.secrets)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls" / "tls.crt", folder / "tls" / "tls.key")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield api, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
    finally:
        api.end_watches()
        await runner.cleanup()
