"""Shoal's home: the folder that holds a local service's state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.runtime.intake import expanded

if TYPE_CHECKING:
    from shoal.service.spec import Service


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below ``.shoal`` (or ``$SHOAL_HOME``); nothing is created by asking."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """``$SHOAL_HOME``, else ``.shoal`` in the current folder."""
        return cls(Path(os.environ.get("SHOAL_HOME") or ".shoal").absolute())

    @property
    def models(self) -> Path:
        """The default model store."""
        return self.root / "models"

    @property
    def keys(self) -> Path:
        """The default keys file, mode 0600."""
        return self.root / "keys.json"

    @property
    def store_credentials(self) -> Path:
        """The managed object store's credentials, mode 0600."""
        return self.root / "store-credentials.json"

    @property
    def objects(self) -> Path:
        """What the managed object store keeps: a folder a bucket."""
        return self.root / "objects"

    @property
    def cache(self) -> Path:
        """Downloads and compiled models; safe to delete."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        """A file a process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The state of the running service."""
        return self.root / "run"

    @property
    def client(self) -> Path:
        """Where ``shoal classify`` and its like find the local service: ``{"target", "api_key"}``."""
        return self.run / "client.json"

    def model_store(self, service: Service) -> Path:
        """Where ``service`` keeps its models."""
        return expanded(service.model_store.path) if service.model_store.path else self.models

    def keys_file(self, service: Service) -> Path:
        """Where ``service`` keeps its keys."""
        return expanded(service.auth.keys_file) if service.auth.keys_file else self.keys

    def credentials_file(self, service: Service) -> Path:
        """Where the credentials of ``service``'s managed object store are."""
        given = service.object_store.credentials_file
        return expanded(given) if given else self.store_credentials
