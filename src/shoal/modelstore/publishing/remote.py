"""Published models in an object store: S3, GCS, Azure, or a folder."""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from shoal.errors import ConfigurationError, NotFound, ShoalError, Unavailable
from shoal.modelstore.publishing import manifest
from shoal.pictures.objectstore import load_credentials, open_store
from shoal.runtime import intake
from shoal.runtime.together import together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore

    from shoal.modelstore.publishing.manifest import FileEntry, Manifest
    from shoal.service import spec

CHUNK_BYTES = 8 * 2**20
"""What of a file is in memory at once; S3 takes parts of 5 MiB and more."""
_AT_ONCE = 4
"""Files on their way at the same time."""
_LIMITS: ClientConfig = {"timeout": timedelta(hours=1), "read_timeout": timedelta(seconds=20)}
"""A large file takes its time; a connection on which nothing comes is given up."""
_REFUSED = re.compile(r"\b40[13] |AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch")
"""In the text of a LIST's error, which has no kind of its own."""
_WRONG = (
    (re.compile("RequestTimeTooSkewed"), "this machine's clock and the store's differ by too much"),
    (
        re.compile("without LOCATION|PermanentRedirect|AuthorizationHeaderMalformed"),
        "the bucket is in another region; --region, or model_store.region, names it",
    ),
)
_ANSWER = re.compile(r"status code: (4\d\d) ")
_PASSING = frozenset({"408", "425", "429"})
_AWAY = (
    (re.compile("dns error|failed to lookup"), "its name can't be found"),
    (re.compile("[Cc]ertificate|UnknownIssuer"), "its certificate isn't trusted"),
    (re.compile("InvalidContentType|corrupt message"), "it speaks no TLS"),
    (re.compile("Connection refused"), "the connection is refused"),
    (re.compile("timed out|TimedOut"), "it takes too long"),
)


class Progress(Protocol):
    """Told of work as it goes on."""

    def expect(self, size: int) -> None:
        """So many bytes more are to do."""
        ...

    def advance(self, size: int) -> None:
        """So many bytes are done."""
        ...


async def several(work: Iterable[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Does ``work``, a few at once; the first error ends the rest and is raised."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(piece: Callable[[], Coroutine[None, None, None]]) -> None:
        async with turns:
            await piece()

    await together(map(one, work))


class NoSpace(Unavailable):
    """The local disk is full, or can't be written to."""


class Mark(NamedTuple):
    """Differs once a manifest was written again."""

    e_tag: str | None
    modified: float
    size: int


class Remote:
    """The published models at one place.

    Args:
        store: The object store.
        name: Its address, for messages.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self.name = name

    @classmethod
    def open(cls, settings: spec.ObjectStore) -> Remote:
        """Opens what a service file or a command line names; connects when it is first used.

        Raises:
            ConfigurationError: the url, a setting or the credentials file is wrong.
        """
        if "?" in settings.url:
            raise ConfigurationError("the url of a model store holds no credentials; use a credentials file")
        file = settings.credentials_file
        credentials = load_credentials(intake.expanded(file)) if file else None
        return cls(open_store(settings, credentials, None, _LIMITS), settings.url)

    async def published(self) -> dict[str, dict[int, Mark]]:
        """Every model's versions; one LIST a thousand of them, no file is read.

        Raises:
            Unavailable: the store is away.
            NotFound: there is no such bucket.
            ConfigurationError: the store refuses the credentials.
        """
        found: dict[str, dict[int, Mark]] = {}
        with self._told("list"):
            async for chunk in obstore.list(self._store, manifest.MANIFESTS.rstrip("/")):
                for meta in chunk:
                    if key := manifest.parse_key(meta["path"]):
                        found.setdefault(key[0], {})[key[1]] = _mark(meta)
        return found

    async def contents(self, model: str) -> dict[str, int]:
        """The contents that are there, sha256 to size. Raises as ``published``."""
        prefix = manifest.files_prefix(model)
        with self._told("list"):
            chunks = [chunk async for chunk in obstore.list(self._store, prefix.rstrip("/"))]
        return {meta["path"].removeprefix(prefix): meta["size"] for chunk in chunks for meta in chunk}

    async def manifest(self, model: str, version: int) -> Manifest:
        """A version's manifest. Raises as ``published``, and ConfigurationError if it is no manifest."""
        key = manifest.manifest_key(model, version)
        content = await self._read(key, manifest.MAX_MANIFEST_BYTES)
        return manifest.parse(content, model, version)

    async def publish(self, made: Manifest) -> None:
        """Writes a manifest, in one PUT. Raises as ``published``."""
        with self._told("write"):
            await obstore.put_async(
                self._store, manifest.manifest_key(made.model, made.version), made.content, use_multipart=False
            )

    async def read(self, model: str, entry: FileEntry, most: int) -> bytes:
        """A small content. Raises as ``download``."""
        content = await self._read(manifest.file_key(model, entry.sha256), most)
        self._check(manifest.file_key(model, entry.sha256), entry, len(content), hashlib.sha256(content).hexdigest())
        return content

    async def upload(self, model: str, file: Path, entry: FileEntry, progress: Progress) -> None:
        """Streams ``file`` to where its checksum says; nothing is there before all of it is.

        Raises:
            ConfigurationError: the file changed since its checksum was taken, or the store refuses the credentials.
            Unavailable, NotFound: as ``published``.
        """
        key = manifest.file_key(model, entry.sha256)
        checksum = hashlib.sha256()
        with self._told("write"):
            async with obstore.open_writer_async(self._store, key, buffer_size=CHUNK_BYTES) as writer:
                async for chunk in _chunks(file):
                    checksum.update(chunk)
                    await writer.write(chunk)
                    progress.advance(len(chunk))
                if checksum.hexdigest() != entry.sha256:
                    # Raised within: the writer then leaves nothing behind.
                    raise ConfigurationError(f"{file}: changed while it was pushed; push again")

    async def download(self, model: str, entry: FileEntry, file: Path, progress: Progress) -> None:
        """Streams a content into ``file``, which appears only once it is whole and its checksum fits.

        Raises:
            ConfigurationError: the object isn't what the manifest says.
            NotFound: it is missing.
            Unavailable: the store is away; ``NoSpace``: the disk is full.
        """
        key = manifest.file_key(model, entry.sha256)
        partial = file.with_name(f".{file.name}.partial")
        checksum, size = hashlib.sha256(), 0
        with self._told("read"):
            found = await obstore.get_async(self._store, key)
            self._check_size(key, entry, found.meta["size"])
            with _written(partial), partial.open("wb") as out:
                async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                    checksum.update(chunk)
                    size += len(chunk)
                    if size > entry.size:
                        break
                    await asyncio.to_thread(out.write, chunk)
                    progress.advance(len(chunk))
        try:
            self._check(key, entry, size, checksum.hexdigest())
        except ConfigurationError:
            partial.unlink()
            raise
        partial.replace(file)

    async def _read(self, key: str, most: int) -> bytes:
        with self._told("read"):
            found = await obstore.get_async(self._store, key)
            if found.meta["size"] > most:
                raise ConfigurationError(f"{self.name}: {key} has {found.meta['size']:,} bytes; {most:,} at most")
            return bytes(await found.bytes_async())

    def _check(self, key: str, entry: FileEntry, size: int, sha256: str) -> None:
        self._check_size(key, entry, size)
        if sha256 != entry.sha256:
            raise ConfigurationError(f"{self.name}: {key} is damaged: its sha256 is {sha256}; push it with --again")

    def _check_size(self, key: str, entry: FileEntry, size: int) -> None:
        if size != entry.size:
            raise ConfigurationError(
                f"{self.name}: {key} has {size:,} bytes, the manifest says {entry.size:,}; push it with --again"
            )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns the store's errors into ours; their own texts, which may hold addresses, are left out."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._fault(error, what) from None

    def _fault(self, error: Exception, what: str) -> ShoalError:
        text = str(error)
        if wrong := next((told for pattern, told in _WRONG if pattern.search(text)), ""):
            return ConfigurationError(f"{self.name}: {wrong}")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _REFUSED.search(text):
            return ConfigurationError(f"{self.name}: the store doesn't let these credentials {what}")
        if "NoSuchBucket" in text:
            return NotFound(f"{self.name}: no such bucket")
        if isinstance(error, FileNotFoundError):
            return NotFound(f"{self.name}: {_missing(error)} is missing there")
        if (answer := _ANSWER.search(text)) and answer[1] not in _PASSING:
            return ConfigurationError(f"{self.name}: what answers there says {answer[1]} to {what}; is it an S3 API?")
        why = next((told for pattern, told in _AWAY if pattern.search(text)), type(error).__name__)
        return Unavailable(f"{self.name}: the store is away ({why}, at {what})")


def _missing(error: Exception) -> str:
    text = str(error)
    start = max(text.find(manifest.MANIFESTS), text.find("files/"))
    return text[start:].split(maxsplit=1)[0] if start >= 0 else "an object"


def _mark(meta: ObjectMeta) -> Mark:
    return Mark(meta["e_tag"], meta["last_modified"].timestamp(), meta["size"])


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    try:
        with intake.opened(file) as content:
            while chunk := await asyncio.to_thread(content.read, CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise ConfigurationError(f"{file}: can't be read: {error.strerror}") from error


@contextmanager
def _written(file: Path) -> Iterator[None]:
    """Removes what was written of ``file`` if that fails, and says so if the disk is why."""
    try:
        yield
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise NoSpace(f"{file.parent}: can't be written: {error.strerror}") from error
        raise
