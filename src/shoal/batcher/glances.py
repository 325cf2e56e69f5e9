"""Which of the remembered requests are worth a look: those that failed, and the slowest."""

from __future__ import annotations

import re
from heapq import nlargest
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from shoal.errors import Code
from shoal.service.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from shoal.batcher.request import Request
    from shoal.explain.recent import Recent
    from shoal.explain.views import Glance, Glances

MOST: Final = 25
"""Of each kind."""
_UUID: Final = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_SLICE: Final = 256
"""Requests that are looked at in one go, some 0.1 ms; between two of them the batcher has its turn."""
_PAUSE_SECONDS: Final = 0.0005


def glances(recent: Recent[Request], key_ids: AbstractSet[str], pause: Callable[[float], object] = sleep) -> Glances:
    """Of the requests of some keys: the newest that failed, and the slowest of the others, answered or not."""
    from shoal.explain.views import Glances  # only who is asked pays for pydantic

    now = monotonic()
    failed: list[Request] = []
    others: list[Request] = []
    for number, request in enumerate(recent.newest_first(), 1):
        if request.key_id in key_ids:
            (failed if request.ended and request.code is not Code.OK else others).append(request)
        if number % _SLICE == 0:
            pause(_PAUSE_SECONDS)
    slowest = nlargest(MOST, others, key=lambda request: (request.ended or now) - request.arrived)
    return Glances(
        failed=tuple(_glance(request, now) for request in failed[:MOST]),
        slow=tuple(_glance(request, now) for request in slowest),
    )


def _glance(request: Request, now: float) -> Glance:
    from shoal.explain.views import Glance  # as above

    return Glance(
        image_uuid=_uuid(request),
        model=request.called[1],
        key_id=request.key_id,
        seconds_ago=now - request.arrived,
        total_seconds=(request.ended or now) - request.arrived,
        code=request.code.name if request.ended else "",
        message=request.text,
    )


def _uuid(request: Request) -> str:
    """The first in its opaque message, where an API key may look like one, too."""
    identity = Identity.parse(request.caller.identity)
    found = (match.group().decode() for match in _UUID.finditer(request.message))
    return next((text.lower() for text in found if identity is None or not identity.is_of(text)), "")
