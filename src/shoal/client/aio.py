"""The asynchronous client: the one implementation that everything else here is derived from."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from shoal.client.arguments import choice, image_reference, max_age_us, model_name, positive
from shoal.client.asked_regions import ask, check_seen
from shoal.client.caller import caller_of
from shoal.client.channel import Methods, connect, open_channel, parse_target
from shoal.client.findings import Analysis, analysis
from shoal.client.mapping import bounded_map
from shoal.client.progress import tracked
from shoal.client.replies import Elapsed, classification, detection, parts, segmentation
from shoal.client.results import Classification, Detection, MaskForm, MaskSize, Outcome, Result, Segmentation
from shoal.client.retry import Retry, told
from shoal.client.senders import Senders
from shoal.client.upload import PresignedUploader, StoreUploader, Tickets, Uploader
from shoal.errors import Cancelled, DeadlineExceeded, Internal, ShoalError
from shoal.modelconfig.model import Task
from shoal.runtime.priority import Priority
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
    from types import TracebackType

    import grpc
    import grpc.aio
    from obstore.store import ObjectStore
    from rich.progress import Progress

    from shoal.client.channel import InferenceMethod
    from shoal.client.results import AsRegion, Image
    from shoal.client.token import Token
    from shoal.pictures.region import PictureRegion

    ReplyT = TypeVar("ReplyT", pb.ClassifyReply, pb.DetectReply, pb.SegmentReply)
    AnswerT = TypeVar("AnswerT", pb.ClassifyReply, pb.DetectReply, pb.SegmentReply, pb.AnalyzeReply)
    ResultT = TypeVar("ResultT", Classification, Detection, Segmentation)
    T = TypeVar("T")

_MICROSECONDS = 1_000_000
_GOODBYE_SECONDS = 0.5
"""For the service to end streams that carry nothing any more."""


class AsyncClient:
    """Talks to one Shoal service, with any number of calls in flight.

    Every call has a deadline; UNAVAILABLE, and nothing else, is tried again within it. A call raises an error of
    ``shoal.errors``. Use it in one event loop, as an async context manager or with ``close()``.

    Args:
        target: ``HOST:PORT``, ``https://HOST[:PORT]`` (or ``grpcs://``) for TLS, or a gRPC name such as ``dns:///…``.
        api_key: Sent with each call, never logged.
        token: In its place, the token (JWT) of an issuer that the service knows; or a function, also a coroutine
            function, that returns a fresh one, and is called anew in time. It may wait: it has a thread of its own.
        store: Uploads go straight to this bucket with its own credentials. None: through presigned URLs, with the
            API key alone.
        key_prefix: The prefix of the API key's owner, for ``store`` only.
        timeout_seconds: The deadline of a call that names none. It covers upload, call and retries.
        connections: Uploads at once; more wait. Calls share one connection.
        credentials: TLS credentials, such as ``grpc.ssl_channel_credentials(root_certificates)``. None with an
            ``https://`` target: the public certificate authorities.
        retry: How UNAVAILABLE is tried again.
        priority: Of calls that name none. ``bulk`` makes room for others; it lowers what the API key has.
        streams: None: many calls at a time share a stream, and a single one goes alone. False: each goes alone.
            True: none does, if the service has streams.

    Raises:
        ConfigurationError: the target, the key or the token can't be one, or both key and token are given, or neither.
        InvalidRequest: there is no such priority.
    """

    def __init__(
        self,
        target: str = "localhost:8080",
        *,
        api_key: str | None = None,
        token: Token | None = None,
        store: ObjectStore | None = None,
        key_prefix: str = "",
        timeout_seconds: float = 30.0,
        connections: int = 64,
        credentials: grpc.ChannelCredentials | None = None,
        retry: Retry | None = None,
        priority: Priority | str = Priority.INTERACTIVE,
        streams: bool | None = None,
    ) -> None:
        self._caller = caller_of(api_key, token)
        self.target = target
        parse_target(target)
        self._api_key = self._caller.api_key
        self._store = store
        self._key_prefix = key_prefix
        self._timeout = timeout_seconds
        self._connections = connections
        self._credentials = credentials
        self._retry = retry or Retry()
        self._priority = choice(Priority, priority)
        self._streams = streams
        self._channel: grpc.aio.Channel | None = None
        self._methods: Methods | None = None
        self._senders: Senders | None = None
        self._uploader: Uploader | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, {self._caller!r})"

    @property
    def sent(self) -> Mapping[str, int]:
        """Attempts at calls so far: ``alone``, as unary calls, and ``by_stream``."""
        return self._senders.sent if self._senders is not None else {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self, *, timeout_seconds: float = 5.0) -> None:
        """Connects now rather than with the first call, and without retries.

        Raises:
            Unavailable: nobody answers at the target.
        """
        self._open()
        assert self._channel is not None
        await connect(self._channel, self.target, timeout_seconds)

    async def classify(
        self,
        image: Image,
        model: str,
        *,
        top_k: int = 5,
        region: AsRegion | None = None,
        regions: Iterable[AsRegion] | None = None,
        max_age_seconds: float = 0.0,
        model_version: int = 0,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> Classification:
        """Uploads ``image``, unless it is a uuid, and classifies it.

        Args:
            image: A file, bytes of a picture, or the uuid of an uploaded one.
            model: The model's name.
            top_k: How many classes to answer.
            region: The part of the picture that the model sees; what it finds is told in the whole picture.
            regions: Several parts, 64 at most, each answered by itself in ``parts``.
            max_age_seconds: What a worker keeps of the picture is used without asking the store, if that was asked no
                longer ago. 0: it is asked.
            model_version: 0: the one that the service prefers.
            priority: None: the client's own.
            timeout_seconds: None: the client's own.

        Raises:
            ShoalError: what went wrong; see ``shoal.errors``.
        """
        request = pb.ImageRequest(
            api_key=self._api_key,
            model_name=model,
            model_version=model_version,
            top_k=top_k,
            max_age_us=max_age_us(max_age_seconds),
        )
        asked = ask(request, region, regions)
        return await self._infer(
            self._open().classify, classification, image, request, asked, priority, timeout_seconds
        )

    async def detect(
        self,
        image: Image,
        model: str,
        *,
        score_threshold: float | None = None,
        region: AsRegion | None = None,
        regions: Iterable[AsRegion] | None = None,
        max_age_seconds: float = 0.0,
        model_version: int = 0,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> Detection:
        """Uploads ``image``, unless it is a uuid, and finds objects in it.

        Args:
            image: A file, bytes of a picture, or the uuid of an uploaded one.
            model: The model's name.
            score_threshold: Boxes below it are left out. None: the model's own.
            region: The part of the picture that the model sees; what it finds is told in the whole picture.
            regions: Several parts, 64 at most, each answered by itself in ``parts``.
            max_age_seconds: What a worker keeps of the picture is used without asking the store, if that was asked no
                longer ago. 0: it is asked.
            model_version: 0: the one that the service prefers.
            priority: None: the client's own.
            timeout_seconds: None: the client's own.

        Raises:
            ShoalError: what went wrong; see ``shoal.errors``.
        """
        request = pb.ImageRequest(
            api_key=self._api_key,
            model_name=model,
            model_version=model_version,
            score_threshold=score_threshold,
            max_age_us=max_age_us(max_age_seconds),
        )
        asked = ask(request, region, regions)
        return await self._infer(self._open().detect, detection, image, request, asked, priority, timeout_seconds)

    async def segment(
        self,
        image: Image,
        model: str,
        *,
        mask_form: MaskForm | str = MaskForm.PNG,
        mask_size: MaskSize | str = MaskSize.MODEL,
        score_threshold: float | None = None,
        region: AsRegion | None = None,
        regions: Iterable[AsRegion] | None = None,
        max_age_seconds: float = 0.0,
        model_version: int = 0,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> Segmentation:
        """Uploads ``image``, unless it is a uuid, and tells the class of each of its pixels.

        Args:
            image: A file, bytes of a picture, or the uuid of an uploaded one.
            model: The model's name.
            mask_form: How the mask travels: ``png``, ``runs`` or ``class_map``.
            mask_size: ``model``: as fine as the model's output; ``picture``: the picture's own size.
            score_threshold: Where the model tells one class from background: the least probability. None: its own.
            region: The part of the picture that the model sees; what it finds is told in the whole picture.
            regions: Several parts, 64 at most, each answered by itself in ``parts``.
            max_age_seconds: What a worker keeps of the picture is used without asking the store, if that was asked no
                longer ago. 0: it is asked.
            model_version: 0: the one that the service prefers.
            priority: None: the client's own.
            timeout_seconds: None: the client's own.

        Raises:
            ShoalError: what went wrong; see ``shoal.errors``.
        """
        request = pb.ImageRequest(
            api_key=self._api_key,
            model_name=model,
            model_version=model_version,
            score_threshold=score_threshold,
            mask_form=f"MASK_FORM_{choice(MaskForm, mask_form).name}",
            mask_size=f"MASK_SIZE_{choice(MaskSize, mask_size).name}",
            max_age_us=max_age_us(max_age_seconds),
        )
        asked = ask(request, region, regions)
        return await self._infer(self._open().segment, segmentation, image, request, asked, priority, timeout_seconds)

    async def analyze(
        self,
        image: Image,
        pipeline: str,
        *,
        region: AsRegion | None = None,
        max_age_seconds: float = 0.0,
        mask_form: MaskForm | str = MaskForm.PNG,
        mask_size: MaskSize | str = MaskSize.MODEL,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> Analysis:
        """Uploads ``image``, unless it is a uuid, and has a pipeline find objects in it and look closer at each.

        What couldn't be told of one object has its own error in the answer; only what holds for the whole picture is
        raised.

        Args:
            image: A file, bytes of a picture, or the uuid of an uploaded one.
            pipeline: Its name in the service file.
            region: The first step looks at this part alone; see ``classify``.
            max_age_seconds: Before the analysis began; see ``classify``.
            mask_form: How masks travel, where a step segments; see ``segment``.
            mask_size: How many pixels they have.
            priority: None: the client's own.
            timeout_seconds: Of all steps together. None: the client's own.

        Raises:
            ShoalError: what went wrong; see ``shoal.errors``.
        """
        request = pb.ImageRequest(
            api_key=self._api_key,
            model_name=pipeline,
            mask_form=f"MASK_FORM_{choice(MaskForm, mask_form).name}",
            mask_size=f"MASK_SIZE_{choice(MaskSize, mask_size).name}",
            max_age_us=max_age_us(max_age_seconds),
        )
        ask(request, region, None)
        return analysis(*await self._ask(self._open().analyze, image, request, priority, timeout_seconds))

    async def infer(
        self,
        task: Task | str,
        image: Image,
        model: str,
        *,
        max_age_seconds: float = 0.0,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> Result:
        """``classify``, ``detect`` or ``segment``, by ``task``, with the model's own settings."""
        return await self._method(task)(
            image, model, max_age_seconds=max_age_seconds, priority=priority, timeout_seconds=timeout_seconds
        )

    async def upload(self, image: Path | bytes, *, timeout_seconds: float | None = None) -> str:
        """Uploads one picture, unchanged.

        Returns:
            Its new uuid, for any number of calls as long as the service keeps pictures.
        """
        self._open()
        deadline = self._retry.clock() + self._seconds(timeout_seconds)
        self._begin()
        try:
            return await self._upload(image, deadline)
        finally:
            self._end()

    async def upload_many(
        self, images: Iterable[Path | bytes], *, concurrency: int = 16, timeout_seconds: float | None = None
    ) -> list[str]:
        """Uploads pictures, ``concurrency`` at a time.

        Returns:
            Their uuids, in the order of ``images``.

        Raises:
            ShoalError: of the first that failed; the rest is given up.
        """
        one = partial(self.upload, timeout_seconds=timeout_seconds)
        return [uuid async for uuid in bounded_map(one, images, concurrency=positive(concurrency), ordered=True)]

    async def map(
        self,
        images: Iterable[Image],
        model: str,
        *,
        task: Task | str = Task.CLASSIFICATION,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Progress | bool = False,
        top_k: int = 5,
        score_threshold: float | None = None,
        mask_form: MaskForm | str = MaskForm.PNG,
        mask_size: MaskSize | str = MaskSize.MODEL,
        region: AsRegion | None = None,
        max_age_seconds: float = 0.0,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[Outcome[Result]]:
        """Yields the outcome of each of ``images``; one that fails never ends the others.

        The input is read as it is needed, and pictures in memory are ``concurrency`` at most, so it may be endless.

        Args:
            images: Files, bytes or uuids.
            model: The model's name.
            task: ``classification``, ``detection`` or ``segmentation``.
            concurrency: Pictures in flight.
            ordered: Outcomes in the order of ``images`` rather than as they finish.
            progress: True: a bar on stderr. A ``rich`` Progress: a task of it.
            top_k: For classification: how many classes to answer.
            score_threshold: For detection and segmentation; see ``detect`` and ``segment``.
            mask_form: For segmentation: how the mask travels.
            mask_size: For segmentation: how many pixels it has.
            region: The part of each picture that the model sees.
            max_age_seconds: See ``classify``.
            priority: None: the client's own.
            timeout_seconds: Of each picture. None: the client's own.
        """
        options: dict[Task, dict[str, object]] = {
            Task.CLASSIFICATION: {"top_k": top_k},
            Task.DETECTION: {"score_threshold": score_threshold},
            Task.SEGMENTATION: {"score_threshold": score_threshold, "mask_form": mask_form, "mask_size": mask_size},
        }
        shared = {
            "region": region,
            "max_age_seconds": max_age_seconds,
            "priority": priority,
            "timeout_seconds": timeout_seconds,
        }
        call = partial(self._method(task), **options[choice(Task, task)], **shared)
        outcomes = _outcomes(call, images, model, positive(concurrency), ordered, progress)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def map_analyze(
        self,
        images: Iterable[Image],
        pipeline: str,
        *,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Progress | bool = False,
        region: AsRegion | None = None,
        max_age_seconds: float = 0.0,
        mask_form: MaskForm | str = MaskForm.PNG,
        mask_size: MaskSize | str = MaskSize.MODEL,
        priority: Priority | str | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[Outcome[Analysis]]:
        """``map`` for a pipeline: yields what ``analyze`` answers for each of ``images``.

        Args:
            images: Files, bytes or uuids.
            pipeline: Its name in the service file.
            concurrency: Pictures in flight.
            ordered: Outcomes in the order of ``images`` rather than as they finish.
            progress: True: a bar on stderr. A ``rich`` Progress: a task of it.
            region: The first step looks at this part of each picture alone.
            max_age_seconds: See ``analyze``.
            mask_form: How masks travel, where a step segments.
            mask_size: How many pixels they have.
            priority: None: the client's own.
            timeout_seconds: Of each picture, all steps together. None: the client's own.
        """
        call = partial(
            self.analyze,
            region=region,
            max_age_seconds=max_age_seconds,
            mask_form=mask_form,
            mask_size=mask_size,
            priority=priority,
            timeout_seconds=timeout_seconds,
        )
        outcomes = _outcomes(call, images, pipeline, positive(concurrency), ordered, progress)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def close(self, *, grace_seconds: float = 5.0) -> None:
        """Refuses new calls, lets those in flight finish for ``grace_seconds``, then ends them with ``Cancelled``."""
        self._closed = True
        if self._in_flight:
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass
        if self._senders is not None:
            await self._senders.close(min(grace_seconds, _GOODBYE_SECONDS))
        if self._uploader is not None:
            await self._uploader.close()
        await self._caller.close()
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> Methods:
        if self._closed:
            raise Cancelled("the client is closed")
        if self._methods is None:  # not earlier: a channel belongs to the loop that runs when it is made
            self._channel = open_channel(self.target, self._credentials)
            self._methods = Methods(self._channel)
            self._senders = Senders(self._retry.clock, self._streams)
        return self._methods

    def _method(self, task: Task | str) -> Callable[..., Coroutine[object, object, Result]]:
        methods: dict[Task, Callable[..., Coroutine[object, object, Result]]] = {
            Task.CLASSIFICATION: self.classify,
            Task.DETECTION: self.detect,
            Task.SEGMENTATION: self.segment,
        }
        return methods[choice(Task, task)]

    async def _infer(
        self,
        method: InferenceMethod[ReplyT],
        convert: Callable[[ReplyT, Elapsed], ResultT],
        image: Image,
        request: pb.ImageRequest,
        regions: Sequence[PictureRegion],
        priority: Priority | str | None,
        timeout_seconds: float | None,
    ) -> ResultT:
        reply, elapsed = await self._ask(method, image, request, priority, timeout_seconds)
        result = convert(reply, elapsed)
        return replace(result, parts=parts(reply.region_replies, regions, convert, elapsed)) if regions else result

    async def _ask(
        self,
        method: InferenceMethod[AnswerT],
        image: Image,
        request: pb.ImageRequest,
        priority: Priority | str | None,
        timeout_seconds: float | None,
    ) -> tuple[AnswerT, Elapsed]:
        """Uploads the picture, if it has to be, and puts its uuid into ``request``; the reply, and what it took."""
        senders, clock = self._senders, self._retry.clock
        assert senders is not None
        started = uploaded = clock()
        deadline = started + self._seconds(timeout_seconds)
        kind = (
            self._caller,
            method,
            model_name(request.model_name),
            choice(Priority, priority or self._priority),
        )
        self._begin()
        try:
            if isinstance(image, Path | bytes):
                request.image_uuid = await self._upload(image, deadline)
                uploaded = clock()
            else:
                request.image_uuid = image_reference(image)
            message = request.SerializeToString()
            # A worker that keeps the picture does these best.
            uses_kept = request.HasField("region") or request.regions or request.max_age_us
            affinity = request.image_uuid if uses_kept else ""

            async def attempt(left: float) -> AnswerT:
                reply = method.reply.FromString(await senders.of(*kind)(message, left, affinity=affinity))
                if not isinstance(reply, pb.AnalyzeReply):  # a pipeline looks itself
                    check_seen(request, reply)
                return reply

            reply = await self._retry.call(partial(self._caller.attempt, attempt), deadline)
        finally:
            self._end()
        if reply.image_uuid != request.image_uuid:
            raise Internal(f"the answer for image {request.image_uuid} is one for {reply.image_uuid!r}")
        return reply, Elapsed(_microseconds(uploaded - started), _microseconds(clock() - started))

    async def _upload(self, image: Path | bytes, deadline: float) -> str:
        try:
            async with asyncio.timeout(deadline - self._retry.clock()):
                return await self._open_uploader().upload(image, deadline)
        except TimeoutError as error:
            failure = error.__cause__ and error.__cause__.__cause__
            raise DeadlineExceeded(f"the upload took longer than the deadline{told(failure)}") from None

    def _open_uploader(self) -> Uploader:
        if self._uploader is None:
            create = self._open().create_uploads
            self._uploader = (
                StoreUploader(self._store, self._key_prefix, self._retry)
                if self._store is not None
                else PresignedUploader(Tickets(create, self._caller, self._retry), self._retry, self._connections)
            )
        return self._uploader

    def _seconds(self, timeout_seconds: float | None) -> float:
        return self._timeout if timeout_seconds is None else timeout_seconds

    def _begin(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def _end(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()


async def _outcomes(
    call: Callable[[Image, str], Coroutine[object, object, T]],
    images: Iterable[Image],
    name: str,
    concurrency: int,
    ordered: bool,
    progress: Progress | bool,
) -> AsyncGenerator[Outcome[T]]:
    """What ``call`` answers about each of ``images`` for the model or pipeline ``name``."""

    async def one(item: tuple[int, Image]) -> Outcome[T]:
        index, image = item
        try:
            return Outcome(index, image, await call(image, name), None)
        except ShoalError as error:
            return Outcome(index, image, None, error)

    outcomes = bounded_map(one, enumerate(images), concurrency=concurrency, ordered=ordered)
    async with aclosing(outcomes):
        with tracked(images, progress, name) as advance:
            async for outcome in outcomes:
                advance(outcome)
                yield outcome


def _microseconds(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)
