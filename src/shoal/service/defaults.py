"""Defaults that commands share with the service file, in a module that costs nothing to import."""

from __future__ import annotations

RECENT_REQUESTS = 10_000
"""Remembered by each batcher and worker, where the file names no number."""
