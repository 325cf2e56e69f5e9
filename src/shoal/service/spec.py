"""The service file ``shoal.yaml``: one strict description that drives ``shoal up``, the router and the Helm chart.

Every setting has a default, so no file at all is a complete service. Errors name file, line and key.
"""

from __future__ import annotations

import ipaddress
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from shoal.runtime.logs import LogLevel
from shoal.service import read_section
from shoal.service.defaults import RECENT_REQUESTS
from shoal.service.kubernetes import Kubernetes
from shoal.service.pipelines import Fault, Pipeline, faults, placed
from shoal.service.section import HttpAddress, Name, Port, Seconds, Section, StoreUrl
from shoal.service.tokens import TokenIssuer, one_issuer_each
from shoal.service.topology import SHARED_BATCHER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_WILDCARDS = re.compile(r"[*?]|\[[^]]*\]")
MOST_WORKER_PROCESSES = 32
"""Of one worker: far more than one Triton can be kept busy by."""


class ObjectStore(Section):
    """Where clients put their pictures."""

    url: StoreUrl = "s3://images"
    """``s3://bucket[/prefix]``, ``gs://``, ``az://``, ``file:///`` or ``memory://``."""
    endpoint: HttpAddress | None = None
    """The address of the S3 API. None, with an ``s3://`` url and ``managed``: ``shoal up`` starts a local S3 server."""
    managed: bool = True
    """Whether ``shoal up`` runs the store itself. Set false for a store that is already there."""
    region: str = "us-east-1"
    """The bucket's region, which is part of S3's signatures."""
    credentials_file: str | None = None
    """A JSON file, mode 0600, with ``access_key_id`` and ``secret_access_key``. None: for a managed store the file that
    ``shoal up`` makes, else the cloud's usual ways, such as the environment or an instance's role."""
    retention_hours: float = Field(default=24.0, gt=0, le=876_000)
    """How long after its upload a managed store deletes a picture."""
    upload_url_lifetime_seconds: int = Field(default=900, ge=1, le=604_800)
    """How long a presigned upload URL is valid. S3 allows 7 days at most."""
    max_image_bytes: int = Field(default=32 * 2**20, ge=1)
    """The largest picture. A larger one is refused with INVALID_ARGUMENT before it is fetched."""
    fetch_timeout_seconds: Seconds = 10.0
    """How long fetching one picture may take, retries included, however late the caller's deadline is."""

    @model_validator(mode="after")
    def _endpoint_is_for_s3(self) -> ObjectStore:
        if self.endpoint is not None and not self.url.startswith("s3://"):
            raise ValueError("endpoint goes with an s3:// url only")
        return self

    @property
    def runs_locally(self) -> bool:
        """Whether ``shoal up`` has to start an S3 server for it."""
        return self.managed and self.endpoint is None and self.url.startswith("s3://")


class ModelStore(Section):
    """A Triton model repository."""

    path: str | None = None
    """A folder. None: ``models`` in Shoal's home (``.shoal`` or ``$SHOAL_HOME``)."""
    url: StoreUrl | None = None
    """Where ``shoal model push`` publishes models, and from where ``shoal serve model-sync`` copies them to ``path``.
    None: nothing is copied, and you look after the folder yourself."""
    endpoint: HttpAddress | None = None
    """The address of the S3 API. None: that of AWS."""
    region: str = "us-east-1"
    """The bucket's region, which is part of S3's signatures."""
    credentials_file: str | None = None
    """A JSON file, mode 0600, with ``access_key_id`` and ``secret_access_key``. None: the cloud's usual ways, such as
    the environment or an instance's role."""
    poll_seconds: Seconds = 30.0
    """How often model-sync looks for new models. A notification makes it look at once."""
    max_model_bytes: int = Field(default=64 * 2**30, ge=1)
    """The largest published model, all of its files together. model-sync refuses a larger one; others are served."""

    @property
    def bucket(self) -> ObjectStore | None:
        """Where the published models are."""
        if self.url is None:
            return None
        return ObjectStore(
            url=self.url,
            endpoint=self.endpoint,
            managed=False,
            region=self.region,
            credentials_file=self.credentials_file,
        )

    @model_validator(mode="after")
    def _endpoint_is_for_s3(self) -> ModelStore:
        if self.endpoint is not None and not (self.url or "").startswith("s3://"):
            raise ValueError("endpoint goes with an s3:// url only")
        return self


class Tls(Section):
    """A server's certificate. Both files are watched: new connections get a new certificate at once."""

    certificate_file: str
    """A PEM file with the certificate, followed by the intermediate ones."""
    key_file: str
    """A PEM file with its private key, mode 0600 and without a passphrase."""


Origin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.\[\]:-]+)$")]
"""As a browser names it: scheme, host and, if it isn't the usual one, port; no path."""


class Router(Section):
    """The public listener."""

    host: str = "127.0.0.1"
    """The address to listen on. ``0.0.0.0`` or ``::`` is every address of this machine."""
    port: Port = 8080
    tls: Tls | None = None
    """The listener's certificate. None: no TLS."""
    default_timeout_seconds: Seconds = 30.0
    """The deadline of a call that names none."""
    max_timeout_seconds: Seconds = 300.0
    """The longest deadline. A longer one is cut to this."""
    max_connections: int = Field(default=10_000, ge=1)
    """Client connections that each router accepts. More are closed at once."""
    max_connection_seconds: Seconds = 600.0
    """The age at which a client's or a batcher's connection is asked to reconnect, perhaps to another router. Calls in
    flight on it are finished."""
    max_requests: int = Field(default=100_000, ge=1)
    """Calls in flight in each router, over all connections. More are refused with RESOURCE_EXHAUSTED."""
    max_request_bytes: int = Field(default=65_536, ge=1024)
    """The largest message. It names a picture and never carries one, so it is small; a larger one is refused."""
    console: bool | None = None
    """Whether the router serves the console, a page that shows what runs, at ``/``. None: with ``shoal up`` yes, in a
    cluster no."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins whose pages may call from a browser, such as ``https://example.org``; ``"*"``: any. None: no page of
    another origin."""
    tokens: Annotated[dict[Name, TokenIssuer], AfterValidator(one_issuer_each)] = Field(default_factory=dict)
    """Issuers of tokens that callers may send in the place of an API key, by a name that logs and metrics show."""

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError("must be an IP address, such as 127.0.0.1 or 0.0.0.0") from None
        return host

    @model_validator(mode="after")
    def _default_within_limit(self) -> Router:
        if self.default_timeout_seconds > self.max_timeout_seconds:
            raise ValueError(
                f"default_timeout_seconds ({self.default_timeout_seconds:g}) is over max_timeout_seconds "
                f"({self.max_timeout_seconds:g})"
            )
        return self


class Auth(Section):
    """Who may call."""

    keys_file: str | None = None
    """The JSON file with the API keys, mode 0600, written by ``shoal keys``. None: ``keys.json`` in Shoal's home."""


JpegStrictness = Literal["strict", "normal", "lenient"]
"""Which damaged JPEGs are decoded."""
Decoding = Literal["exact", "fast"]
"""How close to Pillow's pixels a decoded picture has to come."""


Decode = Literal["auto", "gpu", "cpu"]
"""Where JPEGs are decoded."""


class Pool(Section):
    """A group of identical workers, each with one engine, that serve the same models."""

    models: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    """The models to serve: names of models in the store, or patterns such as ``resnet*``. An exact name in one pool
    wins over a pattern in another."""
    replicas: int = Field(default=1, ge=1, le=1000)
    """Number of workers, each with an engine of its own."""
    engine: Literal["openvino", "triton"] = "openvino"
    """What runs the models: ``openvino`` in each worker itself, ``triton`` in a Triton beside it."""
    worker_processes: int = Field(default=1, ge=1, le=MOST_WORKER_PROCESSES)
    """With ``engine: triton``: number of processes that each worker consists of. They share its Triton, and what a
    worker may fetch and decode at once. One process can use one core fully, beside those for decoding."""
    triton_url: str | None = None
    """``HOST:PORT`` of a Triton that is running already. None: ``shoal up`` starts one for each worker."""
    triton_server: str | None = None
    """The path of the ``tritonserver`` to start. None: one on the PATH, else the one that ``shoal triton fetch``
    brought."""
    inference_precision: Literal["f32", "bf16"] = "f32"
    """The precision of ``openvino``'s arithmetic. ``bf16`` is faster on CPUs with AMX, and changes probabilities a
    little."""
    decode_threads: int | None = Field(default=None, ge=1)
    """How many pictures a worker decodes at once in its own process. None: one for each of its cores."""
    decode_processes: int | None = Field(default=None, ge=1)
    """How many pictures a worker decodes at once in separate processes, one process a picture: all but quick JPEGs.
    None: as ``decode_threads``, but 4 at most, since each may take ``max_decode_memory_bytes``."""
    max_decode_memory_bytes: int = Field(default=384 * 2**20, ge=16 * 2**20)
    """The most memory that decoding a picture in a separate process may take. A picture that needs more is refused."""
    max_decode_cpu_seconds: Seconds = 1.5
    """The most CPU time that decoding a picture in a separate process may take. A picture that needs more is
    refused."""
    max_fetched_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """The most memory that a worker uses for encoded pictures, from fetching until they are decoded. Further pictures
    wait; one that is larger than this is refused."""
    picture_cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """The most memory that a worker uses to keep pictures, for requests about other parts of them. 0: none."""
    fetch_concurrency: int = Field(default=64, ge=1)
    """How many pictures a worker fetches at once. More wait."""
    max_image_pixels: int = Field(default=100_000_000, ge=1)
    """The largest picture, by the size in its header. A larger one is refused before anything is decoded."""
    max_image_scans: int = Field(default=64, ge=1)
    """The most scans of a progressive JPEG: each costs a pass over the whole picture. One with more is refused."""
    jpeg_strictness: JpegStrictness = "normal"
    """Which damaged JPEGs are decoded. ``normal``: those that Pillow decodes. ``strict``: none that libjpeg warns
    about. ``lenient``: truncated files, too; what is missing is grey."""
    decoding: Decoding = "exact"
    """``exact`` gives Pillow's pixels to within one level. ``fast`` decodes large JPEGs at a smaller size: see
    docs/pictures.md."""
    decode: Decode = "auto"
    """With ``engine: triton``: where JPEGs are decoded, for models that decode on their GPU. ``auto``: each where it is
    done sooner. ``gpu``: there, if it can. ``cpu``: in the worker. See docs/gpu-decoding.md."""

    @field_validator("triton_url")
    @classmethod
    def _host_and_port(cls, url: str | None) -> str | None:
        host, _, port = (url or "localhost:1").rpartition(":")
        if not host or set("/@") & set(host) or not port.isdecimal():
            raise ValueError("must be HOST:PORT, such as localhost:8001")
        return url

    @field_validator("worker_processes")
    @classmethod
    def _beside_a_triton(cls, processes: int, info: ValidationInfo) -> int:
        if processes > 1 and info.data.get("engine") == "openvino":
            raise ValueError(
                "goes with engine: triton only; with openvino each process would load the models again, and all would "
                "compete for the same cores: set replicas instead"
            )
        return processes

    @model_validator(mode="after")
    def _engine_settings_fit(self) -> Pool:
        if self.engine != "triton" and (self.triton_url or self.triton_server):
            raise ValueError("triton_url and triton_server go with engine: triton only")
        if self.engine != "triton" and self.decode == "gpu":
            raise ValueError("decode: gpu goes with engine: triton only; openvino's models run on the CPU")
        if self.engine == "triton" and self.inference_precision != "f32":
            raise ValueError("inference_precision goes with engine: openvino only; Triton's models have their own")
        if self.triton_url and self.triton_server:
            raise ValueError("triton_url names a server that is there, triton_server one to start: not both")
        return self

    @property
    def fetched_bytes_a_process(self) -> int:
        """What each of a worker's processes may hold of ``max_fetched_bytes``."""
        return self.max_fetched_bytes // self.worker_processes

    @property
    def starts_triton(self) -> bool:
        """Whether each worker needs a Triton of its own."""
        return self.engine == "triton" and self.triton_url is None


class ModelOverride(Section):
    """Settings that replace those of the model's config.pbtxt. None: as there."""

    batchers: int = Field(default=0, ge=0, le=64)
    """Number of batcher processes for this model alone. 0: it uses the shared batcher."""
    max_batch_size: int | None = Field(default=None, ge=1)
    """The most pictures in a batch."""
    preferred_batch_size: list[Annotated[int, Field(ge=1)]] | None = None
    """Batch sizes that are sent at once, without waiting for more: the largest that the queue can fill. Sizes over
    ``max_batch_size`` are ignored."""
    max_queue_delay_microseconds: int | None = Field(default=None, ge=0)
    """How long the oldest request of a batch may wait for others. Then the batch is sent whatever its size."""
    latency_objective_ms: float | None = Field(default=None, gt=0, le=3_600_000)
    """Within how long a request is to be answered, from its arrival in the batcher. A batch is sent as late as that
    allows, in place of a delay."""
    max_queue_size: int | None = Field(default=None, ge=1)
    """The most requests that may wait. More are refused with RESOURCE_EXHAUSTED."""
    instance_count: int | None = Field(default=None, ge=1)
    """How many batches each worker executes at once."""
    cache_seconds: float = Field(default=0, ge=0, le=31_536_000, allow_inf_nan=False)
    """How long a worker gives its answer again to pictures of the same content. 0: every picture is computed. See
    docs/cache.md."""
    cache_max_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """The most memory that a worker uses for these answers. The one that nobody asked for longest makes room."""
    cache_shared: bool = False
    """Whether owners get answers that were made for others."""

    @model_validator(mode="after")
    def _preferred_fits(self) -> ModelOverride:
        largest = self.max_batch_size
        if largest is not None and self.preferred_batch_size and max(self.preferred_batch_size) > largest:
            raise ValueError(f"preferred_batch_size {self.preferred_batch_size} goes over max_batch_size ({largest})")
        return self

    @model_validator(mode="after")
    def _cache_is_on(self) -> ModelOverride:
        idle = {"cache_max_bytes", "cache_shared"} & self.model_fields_set
        if idle and not self.cache_seconds:
            raise ValueError(f"{', '.join(sorted(idle))}: nothing is cached without cache_seconds, such as 3600")
        return self

    @model_validator(mode="after")
    def _objective_or_delay(self) -> ModelOverride:
        if self.latency_objective_ms is not None and self.max_queue_delay_microseconds is not None:
            raise ValueError(
                "latency_objective_ms and max_queue_delay_microseconds both say when a batch is sent: name one of them"
            )
        return self


_COLLECTOR = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}/?")


class Tracing(Section):
    """Spans of calls for an OpenTelemetry collector."""

    otlp_endpoint: str
    """``http://HOST:PORT`` or ``https://HOST:PORT`` of a collector that takes OTLP over gRPC; usual is port 4317."""
    sample_ratio: float = Field(default=0.01, ge=0, le=1, allow_inf_nan=False)
    """The share of calls that are traced, of those whose caller doesn't say. A caller that traces says so, and is
    followed."""

    @field_validator("otlp_endpoint")
    @classmethod
    def _host_and_port(cls, endpoint: str) -> str:
        if not _COLLECTOR.fullmatch(endpoint) or not 0 < int(endpoint.rstrip("/").rpartition(":")[2]) < 65_536:
            raise ValueError(
                "must be http://HOST:PORT or https://HOST:PORT, such as http://localhost:4317; headers, such as a "
                "token's, come from the variable OTEL_EXPORTER_OTLP_HEADERS"
            )
        return endpoint


class Observe(Section):
    """Logs, what ``shoal explain`` knows, and traces."""

    log_level: LogLevel = "info"
    """The least severe messages that are logged. ``debug`` also logs the uuids of every batch."""
    recent_requests: int = Field(default=RECENT_REQUESTS, ge=0, le=1_000_000)
    """How many recent requests each batcher and each worker remembers, at about 0.6 kB a request. 0: none."""
    tracing: Tracing | None = None
    """Where spans of calls go. None: nothing is traced."""


class Service(Section):
    """The whole service file."""

    object_store: ObjectStore = ObjectStore()
    model_store: ModelStore = ModelStore()
    router: Router = Router()
    auth: Auth = Auth()
    pools: dict[Name, Pool] = Field(default_factory=lambda: {"default": Pool()}, min_length=1)
    models: dict[Name, ModelOverride] = Field(default_factory=dict)
    pipelines: dict[Name, Pipeline] = Field(default_factory=dict)
    observe: Observe = Observe()
    kubernetes: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _one_pool_a_model(self) -> Service:
        owners: dict[str, str] = {}
        for pool_name, pool in self.pools.items():
            for pattern in pool.models:
                if pattern in owners:
                    raise ValueError(
                        f"pools.{pool_name}.models: {pattern!r} is in pool {owners[pattern]!r} already; "
                        "a model routes to one pool"
                    )
                owners[pattern] = pool_name
        return self

    @model_validator(mode="after")
    def _pictures_fit_into_a_share(self) -> Service:
        largest = self.object_store.max_image_bytes
        for name, pool in self.pools.items():
            if pool.worker_processes > 1 and pool.fetched_bytes_a_process < largest:
                raise ValueError(
                    f"pools.{name}: {pool.worker_processes} worker_processes share max_fetched_bytes, and a picture of "
                    f"object_store.max_image_bytes ({largest:,}) doesn't fit into the {pool.fetched_bytes_a_process:,} "
                    f"of each: set max_fetched_bytes to {pool.worker_processes * largest} or more"
                )
        return self

    @model_validator(mode="after")
    def _shared_is_the_common_batcher(self) -> Service:
        if self.override(SHARED_BATCHER).batchers:
            raise ValueError(
                f"models.{SHARED_BATCHER}.batchers: {SHARED_BATCHER!r} is the name of the common batcher; "
                "leave it out, or give the model another name"
            )
        return self

    @model_validator(mode="after")
    def _pods_are_of_pools(self) -> Service:
        if unknown := self.kubernetes.pools.keys() - self.pools.keys():
            raise ValueError(f"kubernetes.pools: {', '.join(sorted(unknown))}: pools has {', '.join(self.pools)}")
        return self

    @model_validator(mode="after")
    def _what_scales_is_there(self) -> Service:
        scaling = self.kubernetes.autoscaling
        groups = {SHARED_BATCHER, *(name for name, model in self.models.items() if model.batchers)}
        if unknown := scaling.pools.keys() - self.pools.keys():
            raise ValueError(
                f"kubernetes.autoscaling.pools: {', '.join(sorted(unknown))}: pools has {', '.join(self.pools)}"
            )
        if unknown := scaling.pipelines.keys() - self.pipelines.keys():
            there = ", ".join(sorted(self.pipelines)) or "none"
            raise ValueError(f"kubernetes.autoscaling.pipelines: {', '.join(sorted(unknown))}: pipelines has {there}")
        if unknown := scaling.batchers.keys() - groups:
            raise ValueError(
                f"kubernetes.autoscaling.batchers: {', '.join(sorted(unknown))}: there are {', '.join(sorted(groups))}"
            )
        return self

    @model_validator(mode="after")
    def _pipelines_are_right(self) -> Service:
        for name, pipeline in self.pipelines.items():
            found = [*self._taken(name), *faults(name, pipeline, self.pipelines), *self._without_pool(name, pipeline)]
            for fault in found:
                raise ValueError(str(fault))
        return self

    def _taken(self, pipeline: str) -> Iterable[Fault]:
        """A pipeline's name is in no other use."""
        for pool in self.pools:
            if pipeline in self.exact_models(pool):
                yield Fault(f"pipelines.{pipeline}", f"pools.{pool}.models names a model {pipeline!r}; rename one")
        if pipeline in self.models:
            yield Fault(f"models.{pipeline}", "is a pipeline, and has no settings of a model; see pipelines")
        if pipeline == SHARED_BATCHER:
            yield Fault(f"pipelines.{pipeline}", "is the name of the common batcher; give the pipeline another one")

    def _without_pool(self, name: str, pipeline: Pipeline) -> Iterable[Fault]:
        """Each step's model has a pool."""
        for each in placed(name, pipeline):
            if each.step.model not in self.pipelines and self.pool_of(each.step.model) is None:
                text = f"no pool serves {each.step.model!r}; pools.*.models say which models are served"
                yield Fault(f"{each.key}.model", text)

    def pool_of(self, model: str) -> str | None:
        """The pool that serves ``model``: by exact name, else by the pattern that spells out most of it.

        No order of pools counts, since Helm knows none. A pipeline has none, whatever the patterns say.
        """
        if model in self.pipelines:
            return None
        owners = {pattern: name for name, pool in self.pools.items() for pattern in pool.models}
        if model in owners:
            return owners[model]
        fitting = [pattern for pattern in owners if fnmatchcase(model, pattern)]
        return owners[max(fitting, key=_spelt_out)] if fitting else None

    def models_of(self, pool: str, store: Iterable[str]) -> list[str]:
        """Those of the ``store``'s models that ``pool`` serves."""
        return [model for model in store if self.pool_of(model) == pool]

    def exact_models(self, pool: str) -> list[str]:
        """The models that ``pool`` names without a pattern."""
        return [name for name in self.pools[pool].models if not set("*?[") & set(name)]

    def named_models(self, pool: str) -> frozenset[str]:
        """The models that the file names for ``pool``: in its list, or with overrides of their own."""
        return frozenset([*self.exact_models(pool), *self.models_of(pool, self.models)])

    @property
    def elsewhere(self) -> set[str]:
        """Models that a Triton of somebody else's has, as far as they are named: ours may not be there."""
        return {
            name for pool, settings in self.pools.items() if settings.triton_url for name in self.exact_models(pool)
        }

    def override(self, model: str) -> ModelOverride:
        """The overrides of ``model``, empty ones if the file has none."""
        return self.models.get(model, ModelOverride())


def _spelt_out(pattern: str) -> tuple[int, str]:
    """Sorts patterns: by their letters that are no wildcards, then alphabetically."""
    return len(_WILDCARDS.sub("", pattern)), pattern


def load(path: Path | None) -> Service:
    """Reads a service file; None gives the default service.

    Raises:
        ConfigurationError: naming file, line and key of each fault.
    """
    return Service() if path is None else read_section.load(Service, path)


def parse(text: str, source: str) -> Service:
    """Reads a service file from ``text``; ``source`` names it in errors.

    Raises:
        ConfigurationError: as ``load``.
    """
    return read_section.parse(Service, text, source)
