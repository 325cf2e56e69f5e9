"""The service file's ``kubernetes`` section: what only a cluster needs; ``shoal up`` reads past it.

Where Kubernetes has an object of its own for something (resources, tolerations, peers of a network policy …), it is
given as Kubernetes knows it, and Kubernetes checks it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from shoal.kubernetes_monitoring import Autoscaling, Monitoring
from shoal.section import HttpAddress, Name, Port, Section, StoreUrl

Raw: TypeAlias = dict[str, Any]
"""An object of Kubernetes' own, passed on as it is."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")]
"""Of Kubernetes: ``500m``, ``2Gi``."""

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
"""Of a Kubernetes object."""

CountOrPercent = Annotated[str, Field(pattern=r"^[0-9]+%$")] | Annotated[int, Field(ge=0)]
"""Pods: ``1``, ``25%``."""

SELECTOR_LABELS = frozenset(
    {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
        "shoal.dev/pool",
        "shoal.dev/batcher",
    }
)
"""What Deployments, Services and policies find their pods by."""


def _no_selector(labels: dict[str, str]) -> dict[str, str]:
    if taken := sorted(SELECTOR_LABELS & labels.keys()):
        raise ValueError(f"{', '.join(taken)}: pods are selected by it, so the chart alone sets it")
    return labels


PodLabels = Annotated[dict[str, str], AfterValidator(_no_selector)]
"""Labels of pods, beside the chart's own."""

GraceSeconds = Annotated[int, Field(ge=1, le=86_400)]


def _resources(cpu: str, memory: str, limit: str) -> Raw:
    """Requests, and a limit for memory alone: one for CPU time would slow a pod down beside idle cores."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


class Image(Section):
    """A container image, ``registry/repository:tag``."""

    registry: str | None = None
    """Of a mirror, or your own. None: the cluster's default."""
    repository: str
    """The name within the registry."""
    tag: str | None = None
    """None: the chart's ``appVersion``."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """As Kubernetes' ``imagePullPolicy``."""


class ShoalImage(Image):
    """Shoal itself."""

    repository: str = "shoal"
    """The name within the registry."""


class EnvoyImage(Image):
    """Envoy, as its makers publish it."""

    registry: str | None = "docker.io"
    """Of a mirror, or your own. None: the cluster's default."""
    repository: str = "envoyproxy/envoy"
    """The name within the registry."""
    tag: str | None = "distroless-v1.39.3"
    """A version that Shoal's configuration was tested with."""


class TritonImage(Image):
    """Triton, as NVIDIA publishes it, or yours with models in ``/models``."""

    registry: str | None = "nvcr.io"
    """Of a mirror, or your own. None: the cluster's default."""
    repository: str = "nvidia/tritonserver"
    """The name within the registry."""
    tag: str | None = "26.04-py3"
    """From 26.04 on clients' shared memory has to be allowed, which the chart does by the year and month in it."""


class Images(Section):
    """What the containers run."""

    shoal: ShoalImage = ShoalImage()
    envoy: EnvoyImage = EnvoyImage()
    triton: TritonImage = TritonImage()
    pull_secrets: list[ObjectName] = Field(default_factory=list)
    """Names of Secrets for private registries."""


class Secrets(Section):
    """Names of Secrets that exist; the chart makes none. A changed one is followed, but for stores' credentials."""

    keys: ObjectName = "shoal-keys"
    """With ``keys.json``: the API keys, as ``shoal keys`` writes them."""
    tls: ObjectName | None = None
    """Of type ``kubernetes.io/tls``: the public listener's certificate. None: plaintext."""
    object_store: ObjectName | None = None
    """With ``credentials.json``, as ``object_store.credentials_file`` has it. None: the cloud's usual chain, such as a
    workload identity."""
    object_store_environment: ObjectName | None = None
    """In place of ``object_store``: with ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, as an
    ``ObjectBucketClaim`` leaves one."""
    model_store: ObjectName | None = None
    """The same for ``model_store``."""
    model_store_environment: ObjectName | None = None
    """The same for ``model_store``."""

    @model_validator(mode="after")
    def _one_form(self) -> Secrets:
        for store in ("object_store", "model_store"):
            if getattr(self, store) and getattr(self, f"{store}_environment"):
                raise ValueError(f"{store} and {store}_environment are two forms of the same: give one")
        return self


class ClusterStore(Section):
    """Where pods find the object store, if that is elsewhere than ``object_store`` says. None: as it says."""

    url: StoreUrl | None = None
    """``s3://bucket[/prefix]``, ``gs://`` or ``az://``."""
    endpoint: HttpAddress | None = None
    """The S3 API's address, for pods and for clients that upload."""
    region: str | None = None
    """Of the bucket."""


class Nfs(Section):
    """A folder of an NFS server."""

    server: str = Field(min_length=1)
    """Its name or address."""
    path: str = Field(pattern="^/")
    """The exported folder."""


class ModelVolume(Section):
    """A volume that is there already, mounted read-only. Give one of the three."""

    nfs: Nfs | None = None
    """An NFS export."""
    persistent_volume_claim: ObjectName | None = None
    """A claim's name; with pods on several nodes, one that many may read."""
    host_path: str | None = Field(default=None, pattern="^/")
    """A folder of every node, such as one mounted there."""
    sub_path: str | None = Field(default=None, pattern="^[^/]")
    """The model store's folder within the volume. None: its top."""

    @model_validator(mode="after")
    def _one_kind(self) -> ModelVolume:
        if sum(kind is not None for kind in (self.nfs, self.persistent_volume_claim, self.host_path)) != 1:
            raise ValueError("give one of nfs, persistent_volume_claim and host_path")
        return self


class ModelSync(Section):
    """Copies of what is published at ``model_store.url``, brought before a pod starts and kept in line."""

    size_limit: Quantity = "20Gi"
    """Of the volume they lie in; the old and the new set of a model are there together for a while."""
    remove: bool = False
    """Whether models go that are no longer published, or no longer the pool's."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "256Mi", "1Gi"))
    """Of the container model-sync."""


class ModelWay(Section):
    """How models come into pods. Give one; none: ``sync`` if ``model_store.url`` is set."""

    image: bool = False
    """They are part of the image, in ``/models``: Triton's, or Shoal's for ``engine: openvino``. Pools then name them
    exactly, without patterns."""
    volume: ModelVolume | None = None
    """They lie in a volume."""
    sync: ModelSync | None = None
    """model-sync brings them."""

    @model_validator(mode="after")
    def _one_way(self) -> ModelWay:
        if sum((self.image, self.volume is not None, self.sync is not None)) > 1:
            raise ValueError("give one of image, volume and sync")
        return self


class ServiceAccount(Section):
    """Whom the pods are to the cloud. In the cluster they have no right and no token, but for ``router.watch_keys``."""

    name: ObjectName | None = None
    """One that exists. None: the chart makes one."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of the one that the chart makes, such as ``eks.amazonaws.com/role-arn``."""


class Pods(Section):
    """Where the pods of a part run, and how many may be away."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of nodes."""
    tolerations: list[Raw] = Field(default_factory=list)
    """Kubernetes' own objects."""
    affinity: Raw = Field(default_factory=dict)
    """Kubernetes' own object."""
    topology_spread: list[Raw] | None = None
    """Kubernetes' ``topologySpreadConstraints``; the chart adds the selector. None: over nodes, as far as that goes."""
    priority_class: ObjectName | None = None
    """A PriorityClass."""
    labels: PodLabels = Field(default_factory=dict)
    """Of the pods, beside the chart's own, such as ``azure.workload.identity/use: "true"``."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of the pods."""
    max_unavailable: CountOrPercent = 1
    """Pods that the draining of nodes may take away at once (PodDisruptionBudget)."""


class RouterService(Section):
    """How clients reach the router."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """As Kubernetes has it. A load balancer must pass TCP through: the router itself speaks HTTP/2 and TLS."""
    port: Port = 8080
    """The Service's own."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """For the cloud's load balancer."""


class RouterPods(Pods):
    """Envoy, and beside it what keeps its configuration current."""

    replicas: int = Field(default=2, ge=1, le=1000)
    """Pods."""
    concurrency: int = Field(default=2, ge=1, le=256)
    """Envoy's threads; each may keep one core busy."""
    service: RouterService = RouterService()
    resources: Raw = Field(default_factory=lambda: _resources("500m", "256Mi", "1Gi"))
    """Of Envoy."""
    config_resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Of the container that keeps Envoy's configuration current."""
    watch_keys: bool = False
    """Whether routers follow the Secret ``secrets.keys`` at the Kubernetes API: a revoked key is refused within 2 s,
    not in the minute or more that the kubelet takes. The pods get a token, and a Role to watch this one Secret."""
    leave_seconds: int = Field(default=5, ge=0, le=3600)
    """How long a pod that is to end still takes calls: until nodes and load balancers know that it leaves. A cloud's
    load balancer with pods as its targets may need minutes."""
    termination_grace_seconds: GraceSeconds = 60
    """``leave_seconds``, 30 s for those in flight, 2 s to hand streams over, and some to spare."""
    service_account: ServiceAccount = ServiceAccount()


class BatcherPods(Pods):
    """The shared batcher, and those of models with ``batchers``."""

    replicas: int = Field(default=1, ge=1, le=64)
    """Pods of the shared batcher. Each forms batches of its own, so one gives the largest."""
    resources: Raw = Field(default_factory=lambda: _resources("500m", "256Mi", "1Gi"))
    """Of each pod."""
    leave_seconds: GraceSeconds = 40
    """How long a pod that is to end still takes calls: until every router knows that it leaves. The cluster's DNS may
    hold the old answer for 30 s, and routers ask every 5 s."""
    termination_grace_seconds: GraceSeconds = 75
    """``leave_seconds``, 30 s for calls in flight, and some to spare."""
    service_account: ServiceAccount = ServiceAccount()


class PoolPods(Pods):
    """A pool's pods: a worker each, with ``engine: triton`` beside its own Triton."""

    gpus: int | None = Field(default=None, ge=0, le=64)
    """Of each pod. None: 1 with a Triton in the pod, else 0."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern="^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """What the device plugin calls them, such as ``nvidia.com/mig-1g.10gb``."""
    runtime_class: ObjectName | None = None
    """A RuntimeClass, such as ``nvidia`` where it isn't the nodes' default."""
    shared_memory: Quantity = "1Gi"
    """The size of ``/dev/shm``, which worker and Triton share. Counts as their memory."""
    allow_client_shared_memory: bool | None = None
    """Whether Triton is told ``--allow-client-shm=true``. None: if its image's tag says 26.04 or later."""
    resources: Raw = Field(default_factory=lambda: _resources("2", "2Gi", "4Gi"))
    """Of the worker. Without a limit for ``cpu`` it decodes as many pictures at once as its node has cores, unless the
    pool's ``decode_threads`` says otherwise."""
    triton_resources: Raw = Field(default_factory=lambda: _resources("1", "4Gi", "16Gi"))
    """Of Triton; GPUs are added."""
    startup_seconds: int = Field(default=600, ge=10, le=86_400)
    """How long fetching all models may take, and then loading and warming them, before the container is tried anew."""
    min_ready_seconds: int = Field(default=40, ge=0, le=3600)
    """In a rollout: how long a new pod is ready before the next old one goes. Routers learn of it from DNS, which may
    take 35 s."""
    rolling_update: Raw | None = None
    """A Deployment's ``maxSurge`` and ``maxUnavailable``. None: one more pod first; with GPUs one less, since a free
    GPU may not be there."""
    termination_grace_seconds: GraceSeconds = 75
    """1 s to be left alone, 30 s for batches in flight, 30 s for Triton's own end, and some to spare."""


class WorkerPods(PoolPods):
    """What holds for every pool's pods, unless ``pools.<name>`` says otherwise."""

    service_account: ServiceAccount = ServiceAccount()


class ImageRetention(Section):
    """A CronJob that deletes pictures older than ``object_store.retention_hours``."""

    enabled: bool = False
    """Off, since the bucket may hold more than Shoal's pictures, and its own lifecycle rules cost nothing."""
    schedule: str = "17 * * * *"
    """When, as cron has it."""
    labels: PodLabels = Field(default_factory=dict)
    """Of its pod, beside the chart's own."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Of its pod."""
    service_account: ServiceAccount = ServiceAccount()


def _monitoring_namespace() -> list[Raw]:
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


class NetworkPolicies(Section):
    """Who may open connections to pods; what they open themselves isn't limited."""

    enabled: bool = True
    """Needs a network that follows NetworkPolicies; another ignores them."""
    clients: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``NetworkPolicyPeer`` objects: who may call the router. Empty: everybody."""
    monitoring: list[Raw] = Field(default_factory=_monitoring_namespace)
    """Who may read metrics. Empty: nobody."""


class Kubernetes(Section):
    """What only a cluster needs."""

    images: Images = Images()
    secrets: Secrets = Secrets()
    object_store: ClusterStore = ClusterStore()
    model_store: ModelWay = ModelWay()
    router: RouterPods = RouterPods()
    batcher: BatcherPods = BatcherPods()
    worker: WorkerPods = WorkerPods()
    pools: dict[Name, PoolPods] = Field(default_factory=dict)
    """A pool's name, and what its pods have otherwise than ``worker`` says."""
    image_retention: ImageRetention = ImageRetention()
    network_policies: NetworkPolicies = NetworkPolicies()
    monitoring: Monitoring = Monitoring()
    autoscaling: Autoscaling = Autoscaling()
