"""What a peer is to the harness: prepare, start, call; stopping is the process's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.peers import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.peers.environments import Environment
    from benchmarks.peers.servers.plan import Choice, Plan
    from shoal.client.load.generator import LoadClient

NO_VARIABLES: Callable[[Plan], Mapping[str, str]] = lambda _plan: {}  # noqa: E731 - typed, a default


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started."""

    command: Sequence[str]
    variables: Mapping[str, str]
    shared_memory: str = ""
    """How the names of its regions in /dev/shm begin, if a server that was killed may leave some."""


class Peer(Protocol):
    """Another server."""

    @property
    def name(self) -> str:
        """On the command line and in results."""
        ...

    @property
    def title(self) -> str:
        """For a reader."""
        ...

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Ways to run it; the first is what its documentation suggests for two cores."""
        ...

    def prepare(self) -> None:
        """Makes its environment."""
        ...

    def versions(self) -> dict[str, str]:
        """Of what the environment holds."""
        ...

    def launch(self, plan: Plan) -> Launch:
        """What to start; may write to the plan's scratch folder."""
        ...

    def connect(self, port: int) -> AbstractAsyncContextManager[LoadClient]:
        """A client."""
        ...


@dataclass(frozen=True, slots=True)
class HttpPeer:
    """A peer whose server is a Python module and speaks HTTP."""

    name: str
    title: str
    environment: Environment
    choices: tuple[Choice, ...]
    module: str
    path: str
    variables: Callable[[Plan], Mapping[str, str]] = field(default=NO_VARIABLES)

    def prepare(self) -> None:
        """See ``Peer``."""
        self.environment.prepare()

    def versions(self) -> dict[str, str]:
        """See ``Peer``."""
        return self.environment.versions()

    def launch(self, plan: Plan) -> Launch:
        """See ``Peer``."""
        variables = {**self.environment.variables(), **self.variables(plan)}
        return Launch([str(self.environment.python), "-m", self.module], variables)

    def connect(self, port: int) -> AbstractAsyncContextManager[LoadClient]:
        """See ``Peer``."""
        return clients.http(port, self.path)
