"""Has the real Envoy read a rendered configuration, all of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.router.refused import complaint_about

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def complaint(files: Mapping[str, str], folder: Path) -> str:
    """What Envoy has against the configuration, rendered for ``folder``; empty if nothing."""
    for name, text in files.items():  # those that it insists on
        (folder / name).write_text(text)
    return asyncio.run(complaint_about(files, folder))[-2000:]
