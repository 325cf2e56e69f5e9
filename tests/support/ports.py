"""TCP ports for the processes that tests start."""

from __future__ import annotations

from shoal.runtime.ports import FreePorts

free = FreePorts()
"""A loopback endpoint that no other test is given, also of those that run beside it in processes of their own."""


def free_port() -> int:
    return free().port
