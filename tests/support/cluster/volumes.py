"""A pod's volumes, as folders of this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.mounted import Mounted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Files = dict[str, str | bytes]

_MODE = 0o644
_GROUP_READ = 0o440


@dataclass
class Storage:
    """What a cluster has beside what it is told to make."""

    memory: Path
    """A folder in memory."""
    secrets: dict[str, Files] = field(default_factory=dict)
    """Name to keys."""
    shared: Mapping[str, Path] = field(default_factory=dict)
    """What lies at an NFS path or a path of every node, or under the name of a claim."""


class Volumes:
    """Of one pod. ConfigMaps and Secrets follow ``refresh``."""

    def __init__(self, spec: dict[str, Any], folder: Path, config_maps: Mapping[str, Files], storage: Storage) -> None:
        self._folder = folder
        self._config_maps = config_maps
        self._storage = storage
        self._group = spec.get("securityContext", {}).get("fsGroup")
        self._mounted: list[tuple[Mounted, dict[str, Any]]] = []
        self.folders = {volume["name"]: self._make(volume) for volume in spec.get("volumes", [])}

    def refresh(self) -> None:
        """What the kubelet does after a ConfigMap or a Secret changed."""
        for mounted, volume in self._mounted:
            mounted.update(self._files(volume))

    def _make(self, volume: dict[str, Any]) -> Path:
        if "emptyDir" in volume:
            return self._empty(volume["name"], in_memory=(volume["emptyDir"] or {}).get("medium") == "Memory")
        if "configMap" in volume or "secret" in volume:
            return self._mount(volume)
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        path = volume.get("nfs", volume.get("hostPath", {})).get("path")
        return self._storage.shared[claim or path]

    def _empty(self, name: str, *, in_memory: bool) -> Path:
        path = (self._storage.memory / self._folder.name if in_memory else self._folder) / name
        path.mkdir(parents=True)
        if self._group is not None:
            shutil.chown(path, group=self._group)
        path.chmod(0o2777)
        return path

    def _mount(self, volume: dict[str, Any]) -> Path:
        path = self._folder / volume["name"]
        source = volume.get("secret") or volume["configMap"]
        mode = source.get("defaultMode", _MODE)
        mounted = Mounted(path, mode=mode | (_GROUP_READ if self._group is not None else 0), group=self._group)
        mounted.update(self._files(volume))
        self._mounted.append((mounted, volume))
        return path

    def _files(self, volume: dict[str, Any]) -> Files:
        if secret := volume.get("secret"):
            found, items = self._storage.secrets[secret["secretName"]], secret.get("items")
        else:
            config_map = volume["configMap"]
            found, items = self._config_maps[config_map["name"]], config_map.get("items")
        return {item["path"]: found[item["key"]] for item in items} if items else dict(found)
