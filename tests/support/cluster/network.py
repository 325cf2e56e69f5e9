"""Network namespaces: one for the node, with a bridge and DNS, and one for each pod."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.runtime import tether

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Iterable, Mapping

NODE_ADDRESS = "10.244.0.1"
DOMAIN = "cluster.local"
_LONGEST_LINE = 16 * 2**20
_TESTS = Path(__file__).resolve().parents[2]
_TTL_SECONDS = 30
"""As most clusters' CoreDNS has it for services."""


def ip(*words: object) -> None:
    """Runs iproute2."""
    subprocess.run(["ip", *map(str, words)], check=True)


class Network:
    """The node's namespace. Nothing of it reaches the machine's own network."""

    def __init__(self, folder: Path) -> None:
        self.node = f"shoal-{os.getpid()}"
        self._hosts = folder / "hosts"
        self._numbers = count(2)
        self._namespaces: list[str] = []
        self._dns: Process | None = None

    def inside(self, namespace: str, *command: object) -> list[str]:
        """``command`` as one that runs in a namespace, and ends with us however we end."""
        tied = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()))
        return [*tied, "ip", "netns", "exec", namespace, *map(str, command)]

    @asynccontextmanager
    async def helper(self, module: str) -> AsyncGenerator[Process]:
        """A Python module of the tests that runs on the node and talks over its standard input and output."""
        process = await asyncio.create_subprocess_exec(
            *self.inside(self.node, sys.executable, "-m", module),
            env={**os.environ, "PYTHONPATH": str(_TESTS)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def add_pod(self) -> tuple[str, str]:
        """A new namespace on the bridge: its name and its address."""
        number = next(self._numbers)
        namespace, address = f"{self.node}-{number}", f"10.244.{number // 256}.{number % 256}"
        self._add(namespace)
        ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", f"veth{number}", "netns", self.node)
        ip("-n", self.node, "link", "set", f"veth{number}", "master", "bridge", "up")
        ip("-n", namespace, "address", "add", f"{address}/16", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        return namespace, address

    def remove_pod(self, namespace: str) -> None:
        """Ends the address; connections to it learn it by silence, as from a node that vanished."""
        self._namespaces.remove(namespace)
        ip("netns", "delete", namespace)

    def resolve(self, names: Mapping[str, Iterable[str]]) -> None:
        """What names lead to from now on; others don't exist."""
        lines = [f"{address} {name}" for name, addresses in sorted(names.items()) for address in addresses]
        self._hosts.write_text("\n".join([*lines, ""]))
        if self._dns is not None:
            self._dns.send_signal(signal.SIGHUP)

    def _add(self, namespace: str) -> None:
        ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        ip("-n", namespace, "link", "set", "lo", "up")

    async def start(self) -> None:
        """Makes the bridge and starts the DNS server."""
        self._add(self.node)
        ip("-n", self.node, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.node, "address", "add", f"{NODE_ADDRESS}/16", "dev", "bridge")
        ip("-n", self.node, "link", "set", "bridge", "up")
        self.resolve({})
        options = (
            *("--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
            *(f"--addn-hosts={self._hosts}", f"--local=/{DOMAIN}/", f"--local-ttl={_TTL_SECONDS}", "--pid-file="),
            *(f"--listen-address={NODE_ADDRESS}", "--bind-interfaces", "--log-facility=-"),
        )
        command = self.inside(self.node, "dnsmasq", *options)
        started = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert started.stderr
        assert b"started" in await started.stderr.readline()  # before that it wouldn't take a SIGHUP
        self._dns = started

    async def stop(self) -> None:
        """Leaves no namespace behind."""
        if self._dns is not None:
            self._dns.kill()
            await self._dns.communicate()
        for namespace in self._namespaces:
            ip("netns", "delete", namespace)


@asynccontextmanager
async def network(folder: Path) -> AsyncGenerator[Network]:
    """A network that is gone at the end."""
    made = Network(folder)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
