"""What was executed, as the service's own logs at level debug say it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.service.home import Home

_EXECUTED = re.compile(r"DEBUG shoal\.worker\.batch: model \S+: executed (.+)")


def executions(home: Home) -> Counter[str]:
    """How often each picture went through an engine to its end: uuid to number."""
    logs = [file.read_text() for file in home.logs.glob("worker-*.log")]
    return Counter(uuid for log in logs for batch in _EXECUTED.findall(log) for uuid in batch.split())
