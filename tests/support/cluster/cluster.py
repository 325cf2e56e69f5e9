"""Deployments, Services and Jobs of rendered objects, on one node."""

from __future__ import annotations

import asyncio
import math
import secrets
from base64 import b64decode
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from support.cluster.agent import agent
from support.cluster.network import DOMAIN, NODE_ADDRESS, network
from support.cluster.pod import Node, Pod
from support.cluster.volumes import Storage, Volumes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from support.cluster.container import Image

NAMESPACE = "vision"


class Cluster:
    """Runs what ``objects`` ask for."""

    def __init__(self, objects: Sequence[dict[str, Any]], node: Node, storage: Storage, folder: Path) -> None:
        self.node = node
        self.storage = storage
        self.pods: dict[str, list[Pod]] = {}
        """Deployment to its pods, the leaving ones too."""
        self._objects = objects
        self._folder = folder
        self._leaving: set[asyncio.Task[None]] = set()
        self._config_maps = {each["metadata"]["name"]: _files(each) for each in self._of("ConfigMap")}

    async def start(self) -> None:
        """Returns once every Deployment is there."""
        async with asyncio.TaskGroup() as starting:
            for deployment in self._of("Deployment"):
                for _ in range(deployment["spec"].get("replicas", 1)):
                    starting.create_task(self._add(deployment))

    async def roll(self, name: str) -> None:
        """Replaces a Deployment's pods as its strategy says; returns once no old one is left."""
        deployment = next(each for each in self._of("Deployment") if each["metadata"]["name"] == name)
        update = deployment["spec"]["strategy"]["rollingUpdate"]
        replicas = deployment["spec"].get("replicas", 1)
        surge = _pods(update["maxSurge"], replicas, math.ceil)
        for old in list(self.pods[name]):
            if not surge:
                self._remove(name, old)
            new = await self._add(deployment)
            await asyncio.sleep(deployment["spec"].get("minReadySeconds", 0))
            assert new.ready
            if surge:
                self._remove(name, old)
        await asyncio.gather(*self._leaving)

    async def end(self, name: str) -> None:
        """Ends one of a Deployment's pods, as a scale-down does; returns once it is gone."""
        self._remove(name, self.pods[name][0])
        await asyncio.gather(*self._leaving)

    async def run_job(self, name: str) -> str:
        """Runs a CronJob's pod once, and answers what its container said."""
        job = next(each for each in self._of("CronJob") if each["metadata"]["name"] == name)
        return await self._run_once(name, job["spec"]["jobTemplate"]["spec"]["template"])

    async def run_pod(self, name: str) -> str:
        """Runs a Pod that ends by itself, as `helm test` does, and answers what its last containers said."""
        return await self._run_once(name, next(each for each in self._of("Pod") if each["metadata"]["name"] == name))

    async def _run_once(self, name: str, template: dict[str, Any]) -> str:
        pod = self._make(name, template)
        try:
            await pod.start()
            await pod.finish()
            return "\n".join(container.tail() for container in pod.containers.values())
        finally:
            await pod.stop()

    def refresh_secrets(self) -> None:
        """What every kubelet does some time after a Secret changed."""
        for pod in self.everyone():
            pod.volumes.refresh()

    def everyone(self) -> list[Pod]:
        """All pods, the leaving ones too."""
        return [pod for pods in self.pods.values() for pod in pods]

    async def check_alive(self) -> None:
        """Every probe for liveness succeeds, and no container ended by itself."""
        for pod in self.everyone():
            assert not pod.crashed(), "\n".join(pod.crashed())
            await pod.check_alive()

    async def stop(self) -> None:
        """Ends everything at once."""
        for task in self._leaving:
            task.cancel()
        for pod in self.everyone():
            pod.kill()
        ended = [container.ended for pod in self.everyone() for container in pod.containers.values()]
        await asyncio.gather(*self._leaving, *ended, return_exceptions=True)

    async def _add(self, deployment: dict[str, Any]) -> Pod:
        name = deployment["metadata"]["name"]
        pod = self._make(name, deployment["spec"]["template"])
        self.pods.setdefault(name, []).append(pod)
        self._publish()
        await pod.start()
        self._publish()
        return pod

    def _remove(self, deployment: str, pod: Pod) -> None:
        """Begins a pod's end."""

        async def end() -> None:
            try:
                await pod.stop()
            finally:
                self.pods[deployment].remove(pod)
                self._publish()

        pod.leave()
        self._publish()
        task = asyncio.create_task(end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _make(self, owner: str, template: dict[str, Any]) -> Pod:
        name = f"{owner}-{secrets.token_hex(3)}"
        folder = self._folder / name
        folder.mkdir()
        volumes = Volumes(template["spec"], folder, self._config_maps, self.storage)
        return Pod(name, NAMESPACE, template, self.node, volumes, folder)

    def _publish(self) -> None:
        self.node.network.resolve(
            {
                f"{service['metadata']['name']}.{NAMESPACE}.svc.{DOMAIN}": self._behind(service["spec"])
                for service in self._of("Service")
            }
        )

    def _behind(self, service: dict[str, Any]) -> list[str]:
        wanted = service["selector"].items()
        everyone = service.get("publishNotReadyAddresses", False)
        return [pod.address for pod in self.everyone() if (pod.ready or everyone) and wanted <= pod.labels.items()]

    def _of(self, kind: str) -> Iterator[dict[str, Any]]:
        return (each for each in self._objects if each["kind"] == kind)


def _files(config_map: dict[str, Any]) -> dict[str, str | bytes]:
    binary = config_map.get("binaryData", {})
    return {**config_map.get("data", {}), **{name: b64decode(content) for name, content in binary.items()}}


@asynccontextmanager
async def cluster(
    objects: Iterable[dict[str, Any]], storage: Storage, images: Callable[[str], Image], folder: Path
) -> AsyncGenerator[Cluster]:
    """A cluster with nothing in it yet; nothing is left of it at the end."""
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(network(folder))
        watcher = await stack.enter_async_context(agent(net))
        search = f"{NAMESPACE}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
        node = Node(net, watcher, images, NODE_ADDRESS, search, storage.secrets)
        made = Cluster(list(objects), node, storage, folder)
        stack.push_async_callback(made.stop)
        yield made


def _pods(count: int | str, replicas: int, rounded: Callable[[float], int]) -> int:
    """A number of pods, or a share of them."""
    if isinstance(count, int):
        return count
    return rounded(int(count.removesuffix("%")) * replicas / 100)
