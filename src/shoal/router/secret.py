"""A Kubernetes Secret as the API has it now, where its mounted copy comes a minute later.

One request that doesn't end: a watch of one object by its name, for which a Role may name that object alone. Without a
``resourceVersion`` a watch begins with the object as it is
(https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch), so nothing else has to be read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import random
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from shoal.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the API's authority and its namespace."""

_WATCH_SECONDS: Final = 300
"""After so long the API ends a watch, and the next one begins with what there is."""
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 10.0
_LARGEST_EVENT: Final = 4 * 2**20
"""Bytes: a Secret has 1 MiB at most, and twice that with its encoding and fields."""
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
"""A watch is silent for as long as nothing changes: an API server that vanished is noticed in 11 s."""

_TROUBLES: Final = (aiohttp.ClientError, TimeoutError, OSError, Unavailable, ConfigurationError, ValueError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API is, and who we are to it."""

    url: str
    account: Path

    @classmethod
    def of_pod(cls, account: Path = ACCOUNT, environment: Mapping[str, str] = os.environ) -> Self:
        """That of the cluster that we run in.

        Raises:
            ConfigurationError: we run in none.
        """
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ConfigurationError("--keys-secret: works in a pod alone, where KUBERNETES_SERVICE_HOST is set")
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", account)

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self._read("namespace").strip()

    @property
    def token(self) -> str:
        """The token of the pod's ServiceAccount. It is replaced from time to time: read it for each request."""
        return self._read("token").strip()

    @property
    def trust(self) -> ssl.SSLContext:
        """In the cluster's own authority."""
        return ssl.create_default_context(cadata=self._read("ca.crt"))

    def _read(self, name: str) -> str:
        try:
            return (self.account / name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{self.account / name}: can't be read: {error.strerror}") from error


class SecretWatch:
    """One key of one Secret, followed for as long as somebody asks for it."""

    def __init__(self, api: Api, secret: str, key: str = "keys.json") -> None:
        self.name = f"Secret {secret}"
        self.current = False
        """Whether what was yielded last is what the API has, as far as anybody can know."""
        self._api = api
        self._secret = secret
        self._key = key

    async def contents(self) -> AsyncGenerator[str]:
        """Yields the present content, and each later one. Runs until it is closed; troubles are logged."""
        pause, told = _FIRST_PAUSE, ""
        try:
            while True:
                try:
                    async for content in self._watch():
                        pause, told = _FIRST_PAUSE, ""
                        yield content
                    # The API ends a watch when its time is over: the next one is a moment away, and this one's word
                    # holds until then.
                    await asyncio.sleep(_FIRST_PAUSE)
                except _TROUBLES as error:
                    self.current = False
                    reason = str(error) or type(error).__name__
                    if reason != told:
                        log.warning("%s isn't followed now, its mounted copy is: %s", self.name, reason)
                    told = reason
                    await asyncio.sleep(random.uniform(0.5, 1) * pause)  # not a secret
                    pause = min(2 * pause, _LAST_PAUSE)
        finally:
            self.current = False

    async def _watch(self) -> AsyncGenerator[str]:
        """One watch, until the API ends it."""
        parameters = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._secret}",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 60, sock_connect=_CONNECT_SECONDS)
        async with (
            aiohttp.ClientSession(
                self._api.url,
                connector=aiohttp.TCPConnector(ssl=self._api.trust),
                headers={"authorization": f"Bearer {self._api.token}"},
                timeout=timeout,
                read_bufsize=_LARGEST_EVENT,
            ) as session,
            session.get(f"/api/v1/namespaces/{self._api.namespace}/secrets", params=parameters) as response,
        ):
            if response.status != 200:  # OK
                raise Unavailable(f"the Kubernetes API answers {response.status} {response.reason}")
            _keep_alive(response)
            async for line in response.content:
                if (content := self._content(json.loads(line))) is not None:
                    self.current = True
                    yield content

    def _content(self, event: dict[str, Any]) -> str | None:
        """What an event brings; None: nothing."""
        kind, found = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise Unavailable(f"the Kubernetes API ended the watch: {found.get('reason') or found.get('code')}")
        if kind == "DELETED":
            log.warning("%s was deleted: the keys stay as they were", self.name)
        if kind not in {"ADDED", "MODIFIED"}:
            return None
        try:
            return base64.b64decode(found["data"][self._key], validate=True).decode()
        except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
            log.warning("%s has no %s that can be read: the keys stay as they were", self.name, self._key)
            return None


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection else None
    connected = transport.get_extra_info("socket") if transport else None
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            with suppress(AttributeError, OSError):  # not every system has them
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
