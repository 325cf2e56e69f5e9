"""Pictures leave the object store when they are old enough. Whatever else lies in the bucket stays."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError

from shoal.errors import Unavailable
from shoal.pictures.reference import is_object_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obstore.store import ObjectStore

_log = logging.getLogger(__name__)

_DELETE_CHUNK: Final = 1000
"""What S3's DeleteObjects takes at once."""


def expire(store: ObjectStore, hours: float, *, now: datetime | None = None) -> int:
    """Deletes the pictures that were last written more than ``hours`` before ``now``. Blocks meanwhile.

    Returns:
        How many; those that vanished meanwhile are counted in.

    Raises:
        Unavailable: the store is away. What was deleted until then stays deleted.
    """
    limit = (now or datetime.now(UTC)) - timedelta(hours=hours)
    removed = 0
    try:
        for chunk in obstore.list(store, chunk_size=_DELETE_CHUNK):
            old = [found["path"] for found in chunk if found["last_modified"] < limit and is_object_key(found["path"])]
            _delete(store, old)
            removed += len(old)
    except (BaseError, OSError) as error:
        raise Unavailable("the object store is away: old pictures can't be listed or deleted now") from error
    _log.info("removed %d pictures older than %g h", removed, hours)
    return removed


def _delete(store: ObjectStore, paths: Sequence[str]) -> None:
    if not paths:
        return
    try:
        obstore.delete(store, paths)
    except FileNotFoundError:
        # Some stores stop at the first that is gone: go on one by one.
        for path in paths:
            try:
                obstore.delete(store, path)
            except FileNotFoundError:
                continue
