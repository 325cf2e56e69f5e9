"""A pod: init containers in their order, then the others together; probes; an end as the kubelet makes one."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from support.cluster.container import Container, Image, Mount, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from support.cluster.agent import Agent
    from support.cluster.network import Network
    from support.cluster.volumes import Volumes

_ASK_SECONDS = 0.2
_START_SECONDS = 120.0
_GRACE_SECONDS = 30
_VARIABLE = re.compile(r"\$\((\w+)\)")


class Node(NamedTuple):
    """What every pod of a node shares."""

    network: Network
    agent: Agent
    images: Callable[[str], Image]
    """An image's name to what stands in for it."""
    nameserver: str
    search: str
    secrets: Mapping[str, Mapping[str, str | bytes]]


class Pod:
    """One replica.

    Args:
        name: Its name.
        namespace: Of Kubernetes.
        spec: As rendered.
        node: Where it runs.
        volumes: By name.
        folder: Its own.
    """

    def __init__(
        self, name: str, namespace: str, template: dict[str, Any], node: Node, volumes: Volumes, folder: Path
    ) -> None:
        self.name = name
        self.labels: dict[str, str] = template["metadata"]["labels"]
        self.spec: dict[str, Any] = template["spec"]
        self.volumes = volumes
        self.ready = False
        self.leaving = False
        self.containers: dict[str, Container] = {}
        self._node = node
        self._folder = folder
        self._namespace = namespace
        self._network_namespace, self.address = node.network.add_pod()
        self._write_etc()

    async def start(self) -> None:
        """Returns once every probe for readiness succeeds.

        Raises:
            AssertionError: a container ended, or took too long.
        """
        async with asyncio.timeout(_START_SECONDS):
            for container in self.spec.get("initContainers", []):
                await self._run(container)
                if container.get("restartPolicy") == "Always":
                    await self._until(container, "startupProbe")
                else:
                    code = await self.containers.pop(container["name"]).ended
                    assert code == 0, self.explain(container["name"], code)
            for container in self.spec["containers"]:
                await self._run(container)
            for probe in ("startupProbe", "readinessProbe"):
                for container in [*self.spec.get("initContainers", []), *self.spec["containers"]]:
                    await self._until(container, probe)
        self.ready = True

    async def finish(self) -> None:
        """For a job: returns once every container has ended well."""
        for name, container in self.containers.items():
            code = await container.ended
            assert code == 0, self.explain(name, code)

    async def check_alive(self) -> None:
        """Asks every probe for liveness."""
        for container in self._described():
            if probe := container.get("livenessProbe"):
                assert await self._ask(container, probe), self.explain(container["name"])

    def leave(self) -> None:
        """It is about to be stopped, and no longer ready."""
        self.ready, self.leaving = False, True

    async def stop(self) -> None:
        """PreStop hooks, SIGTERM, and SIGKILL at the end of the grace period."""
        self.leave()
        grace = self.spec.get("terminationGracePeriodSeconds", _GRACE_SECONDS)
        sidecars = {each["name"] for each in self.spec.get("initContainers", [])}
        try:
            async with asyncio.timeout(grace):
                for last in (False, True):
                    group = [each for each in self._described() if (each["name"] in sidecars) is last]
                    await asyncio.gather(*(self._end(each) for each in group))
        except TimeoutError:
            raise AssertionError(f"pod {self.name} had to be killed after {grace} s") from None
        finally:
            self.kill()
            await asyncio.gather(*(container.ended for container in self.containers.values()))
            self._node.network.remove_pod(self._network_namespace)

    def kill(self) -> None:
        """Ends every process."""
        for container in self.containers.values():
            container.kill()

    def explain(self, name: str, code: int | None = None) -> str:
        """What a container came to."""
        folder = self._folder / f"{name}.log"
        said = "\n".join(folder.read_text(errors="replace").splitlines()[-30:])
        return f"{self.name}/{name} ended with {code}:\n{said}"

    def crashed(self) -> list[str]:
        """Containers that ended though nobody asked them to."""
        ended = [(name, each) for name, each in self.containers.items() if each.ended.done() and not self.leaving]
        return [self.explain(name, each.ended.result()) for name, each in ended]

    def _described(self) -> list[dict[str, Any]]:
        return [
            each
            for each in [*self.spec.get("initContainers", []), *self.spec["containers"]]
            if each["name"] in self.containers
        ]

    async def _end(self, described: dict[str, Any]) -> None:
        container = self.containers[described["name"]]
        sleep = described.get("lifecycle", {}).get("preStop", {}).get("sleep")
        if sleep:
            await asyncio.wait({container.ended}, timeout=sleep["seconds"])
        container.terminate()
        await asyncio.shield(container.ended)

    async def _run(self, described: dict[str, Any]) -> None:
        settings = self._settings(described)
        started = await Container.start(settings, self._node.network, self._network_namespace, self._folder)
        self.containers[described["name"]] = started

    def _settings(self, described: dict[str, Any]) -> Settings:
        security = {**self.spec.get("securityContext", {}), **described.get("securityContext", {})}
        environment = self._environment(described)
        words = [*described.get("command", []), *described.get("args", [])]
        return Settings(
            name=described["name"],
            image=self._node.images(described["image"]),
            command=[_VARIABLE.sub(lambda found: environment.get(found[1], found[0]), word) for word in words],
            environment=environment,
            mounts=[self._mount(each) for each in described.get("volumeMounts", [])],
            user=security["runAsUser"],
            group=security["runAsGroup"],
            read_only_root=security["readOnlyRootFilesystem"],
        )

    def _mount(self, described: dict[str, Any]) -> Mount:
        source = self.volumes.folders[described["name"]] / described.get("subPath", "")
        return Mount(source, described["mountPath"], described.get("readOnly", False))

    def _environment(self, described: dict[str, Any]) -> dict[str, str]:
        made: dict[str, str] = {}
        for each in described.get("env", []):
            made[each["name"]] = each["value"] if "value" in each else self._value(each["valueFrom"])
        return made

    def _value(self, source: dict[str, Any]) -> str:
        if field := source.get("fieldRef"):
            fields = {"metadata.name": self.name, "metadata.namespace": self._namespace, "status.podIP": self.address}
            return fields[field["fieldPath"]]
        key = source["secretKeyRef"]
        value = self._node.secrets[key["name"]][key["key"]]
        return value if isinstance(value, str) else value.decode()

    async def _until(self, described: dict[str, Any], kind: str) -> None:
        probe = described.get(kind)
        while probe and not await self._ask(described, probe):
            container = self.containers[described["name"]]
            assert not container.ended.done(), self.explain(described["name"], container.ended.result())
            await asyncio.sleep(_ASK_SECONDS)

    async def _ask(self, described: dict[str, Any], probe: dict[str, Any]) -> bool:
        """One probe, from the node, as the kubelet asks."""
        if grpc := probe.get("grpc"):
            return await self._node.agent.health(f"{self.address}:{grpc['port']}", grpc.get("service", ""))
        http = probe["httpGet"]
        ports = {port.get("name"): port["containerPort"] for port in described.get("ports", [])}
        port = ports.get(http["port"], http["port"])
        return await self._node.agent.http(f"http://{self.address}:{port}{http.get('path', '/')}")

    def _write_etc(self) -> None:
        etc = self._folder / "etc"
        etc.mkdir()
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        resolve = f"search {self._node.search}\nnameserver {self._node.nameserver}\noptions ndots:5\n"
        (etc / "resolv.conf").write_text(resolve)
        (etc / "nsswitch.conf").write_text("hosts: files dns\n")
