"""Where something is, as an option of a command says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path


def home_at(folder: Path | None) -> Home:
    """The home in ``folder``; None: the default one."""
    return Home(folder.absolute()) if folder else Home.default()


def endpoint_at(text: str | None) -> Endpoint | None:
    """The address that ``text`` names, if any.

    Raises:
        ConfigurationError: it is not ``HOST:PORT``.
    """
    return Endpoint.parse(text) if text else None
