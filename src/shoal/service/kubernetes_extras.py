"""What users may add to pods beside what the chart gives them, and which names and paths are the chart's own.

The API refuses a name that is there twice, in the middle of an upgrade; so it is refused here, and by the chart.
"""

from __future__ import annotations

from posixpath import normpath
from typing import Annotated

from pydantic import AfterValidator, Field

from shoal.service.section import Raw

OWN_VARIABLES = frozenset({"HOME", "POD_NAME", "SHOAL_TARGET", "SHOAL_CA", "SHOAL_API_KEY"})
"""Environment variables that the chart sets in every pod that needs them."""

OWN_VOLUMES = frozenset(
    {"service", "home", "tmp", "keys", "shm", "models", "run", "tls", "object-store", "model-store", "test"}
)
"""Names of the chart's volumes."""

OWN_FOLDERS = frozenset({"/tmp", "/dev/shm", "/models"})  # noqa: S108 - of pods
"""Where the chart mounts volumes of its own; below them there is room for others."""

OWN_TREES = frozenset({"/etc/shoal", "/var/lib/shoal"})
"""The same, and below them there is none."""

Named = Annotated[Raw, Field(json_schema_extra={"required": ["name"]})]
"""An object of Kubernetes' own that has a ``name``."""

Mount = Annotated[Raw, Field(json_schema_extra={"required": ["name", "mountPath"]})]
"""A ``VolumeMount`` of Kubernetes."""


def _names(items: list[Raw], own: frozenset[str]) -> set[str]:
    """The items' names.

    Raises:
        ValueError: an item has none, two share one, or it is among ``own``.
    """
    names: set[str] = set()
    for item in items:
        name = item.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError("each needs a name")
        if name in names:
            raise ValueError(f"{name} is there twice")
        if name in own:
            raise ValueError(f"{name} is the chart's own")
        names.add(name)
    return names


def _free_variables(items: list[Raw]) -> list[Raw]:
    _names(items, OWN_VARIABLES)
    return items


def _free_volumes(items: list[Raw]) -> list[Raw]:
    _names(items, OWN_VOLUMES)
    return items


def _free_paths(items: list[Raw]) -> list[Raw]:
    seen: set[str] = set()
    for item in items:
        path = item.get("mountPath")
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError("each needs a mountPath")
        path = normpath(path)
        if path in seen:
            raise ValueError(f"{path} is there twice")
        if path in OWN_FOLDERS or any(path == tree or path.startswith(f"{tree}/") for tree in OWN_TREES):
            raise ValueError(f"{path} is the chart's own")
        seen.add(path)
    return items


ExtraVariables = Annotated[list[Named], AfterValidator(_free_variables)]
"""``EnvVar`` objects."""

ExtraVolumes = Annotated[list[Named], AfterValidator(_free_volumes)]
"""``Volume`` objects."""

ExtraMounts = Annotated[list[Mount], AfterValidator(_free_paths)]
"""``VolumeMount`` objects."""
