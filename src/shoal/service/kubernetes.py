"""The service file's ``kubernetes`` section: what only a cluster needs; ``shoal up`` reads past it.

Where Kubernetes has an object of its own for something (resources, tolerations, peers of a network policy …), it is
given as Kubernetes knows it, and Kubernetes checks it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from shoal.service.kubernetes_extras import ExtraMounts, ExtraVariables, ExtraVolumes  # noqa: TC001 - pydantic reads them
from shoal.service.kubernetes_monitoring import Autoscaling, Monitoring
from shoal.service.kubernetes_network import Gateway, NetworkPolicies
from shoal.service.section import HttpAddress, Name, ObjectName, Port, Quantity, Raw, Section, StoreUrl

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
    digest: str | None = Field(default=None, pattern="^sha256:[0-9a-f]{64}$")
    """What the tag has to lead to, ``sha256:…``. None: whatever it leads to when a node pulls it."""
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
    """Where the pods of a part run, and what they have beside the chart's own."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of nodes."""
    tolerations: list[Raw] = Field(default_factory=list)
    """Kubernetes' own objects."""
    affinity: Raw = Field(default_factory=dict)
    """Kubernetes' own object."""
    priority_class: ObjectName | None = None
    """A PriorityClass."""
    runtime_class: ObjectName | None = None
    """A RuntimeClass, such as ``nvidia`` where it isn't the nodes' default."""
    labels: PodLabels = Field(default_factory=dict)
    """Of the pods, beside the chart's own, such as ``azure.workload.identity/use: "true"``."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of the pods."""
    extra_env: ExtraVariables = Field(default_factory=list)
    """Kubernetes' ``EnvVar`` objects, for every container: a proxy, a certificate's path. Secrets by ``valueFrom``."""
    extra_volumes: ExtraVolumes = Field(default_factory=list)
    """Kubernetes' ``Volume`` objects."""
    extra_volume_mounts: ExtraMounts = Field(default_factory=list)
    """Kubernetes' ``VolumeMount`` objects of these volumes, for every container."""
    scratch_size: Quantity = "256Mi"
    """What a pod may write to ``/tmp``, and again to Shoal's home; one that writes more is evicted."""

    @model_validator(mode="after")
    def _mounted_volumes_are_there(self) -> Pods:
        there = {volume["name"] for volume in self.extra_volumes}
        if unknown := {str(mount.get("name")) for mount in self.extra_volume_mounts} - there:
            raise ValueError(f"extra_volume_mounts: {', '.join(sorted(unknown))}: extra_volumes has no such volume")
        return self


class ReplicatedPods(Pods):
    """Those of a Deployment: how many there are, and how many may be away."""

    topology_spread: list[Raw] | None = None
    """Kubernetes' ``topologySpreadConstraints``; the chart adds the selector. None: over nodes, as far as that goes."""
    max_unavailable: CountOrPercent = 1
    """Pods that the draining of nodes may take away at once (PodDisruptionBudget)."""
    scaled_elsewhere: bool = False
    """Whether somebody else says how many there are, such as an autoscaler of yours: the chart then leaves ``replicas``
    out, and a new Deployment begins with 1. What ``autoscaling`` names is so by itself."""


class RouterService(Section):
    """How clients reach the router."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """As Kubernetes has it. A load balancer must pass TCP through: the router itself speaks HTTP/2 and TLS."""
    port: Port = 8080
    """The Service's own."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """For the cloud's load balancer."""


class RouterPods(ReplicatedPods):
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


class BatcherPods(ReplicatedPods):
    """The shared batcher, and those of models with ``batchers``."""

    replicas: int = Field(default=1, ge=1, le=64)
    """Pods of the shared batcher. Each forms batches of its own, so one gives the largest."""
    resources: Raw = Field(default_factory=lambda: _resources("500m", "256Mi", "1Gi"))
    """Of each pod."""
    leave_seconds: GraceSeconds = 40
    """How long a pod that is to end still takes calls: until every router knows that it leaves. The cluster's DNS may
    hold the old answer for 30 s, and routers ask every second."""
    termination_grace_seconds: GraceSeconds = 75
    """``leave_seconds``, 30 s for calls in flight, and some to spare."""
    service_account: ServiceAccount = ServiceAccount()


class PoolPods(ReplicatedPods):
    """A pool's pods: a worker each, with ``engine: triton`` beside its own Triton."""

    gpus: int | None = Field(default=None, ge=0, le=64)
    """Of each pod. None: 1 with a Triton in the pod, else 0."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern="^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """What the device plugin calls them: a slice, such as ``nvidia.com/mig-1g.10gb``, or a turn on a GPU, such as
    ``nvidia.com/gpu.shared``."""
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
    scratch_size: Quantity = "4Gi"
    """What a pod may write to ``/tmp``, where Triton unpacks Python environments, and again to Shoal's home, where
    OpenVINO keeps compiled models; one that writes more is evicted."""


class WorkerPods(PoolPods):
    """What holds for every pool's pods, unless ``pools.<name>`` says otherwise."""

    service_account: ServiceAccount = ServiceAccount()


class ImageRetention(Pods):
    """A CronJob that deletes pictures older than ``object_store.retention_hours``."""

    enabled: bool = False
    """Off, since the bucket may hold more than Shoal's pictures, and its own lifecycle rules cost nothing."""
    schedule: str = "17 * * * *"
    """When, as cron has it."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Of its pod."""
    service_account: ServiceAccount = ServiceAccount()


class HelmTest(Pods):
    """What ``helm test`` runs: a pod that asks the router for its health, and has a picture answered."""

    enabled: bool = True
    """Whether the release has it. Nothing runs before ``helm test``."""
    key_secret: ObjectName | None = None
    """A Secret with an API key under ``api_key``. None: health alone is asked."""
    model: Name | None = None
    """A model that the key may ask. Goes with ``key_secret``."""
    task: Literal["classify", "detect", "segment"] = "classify"
    """The model's."""
    target: str | None = None
    """``HOST:PORT``, or ``https://HOST[:PORT]``. None: the router's Service, which with TLS its certificate has to
    name."""
    ca_secret: ObjectName | None = None
    """With TLS: a Secret with ``ca.crt``, whom to trust, such as the one that cert-manager keeps the certificate in.
    None: the public authorities."""
    timeout_seconds: int = Field(default=60, ge=1, le=3600)
    """For health, which may have to come yet, and again for the picture."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Of its containers."""

    @model_validator(mode="after")
    def _key_and_model(self) -> HelmTest:
        if (self.key_secret is None) != (self.model is None):
            raise ValueError("key_secret and model go together: a picture needs both, health neither")
        return self


class Namespace(Section):
    """The release's namespace."""

    look_up: bool = True
    """Whether the chart reads the namespace's Pod Security label where pods ask for more than ``restricted`` allows, to
    say so before anything is made. It takes the right to ``get`` that Namespace."""


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
    gateway: Gateway = Gateway()
    namespace: Namespace = Namespace()
    test: HelmTest = HelmTest()
    monitoring: Monitoring = Monitoring()
    autoscaling: Autoscaling = Autoscaling()

    @model_validator(mode="after")
    def _pools_mount_what_they_have(self) -> Kubernetes:
        for name, pool in self.pools.items():
            mounts = pool if "extra_volume_mounts" in pool.model_fields_set else self.worker
            volumes = pool if "extra_volumes" in pool.model_fields_set else self.worker
            there = {volume["name"] for volume in volumes.extra_volumes}
            if lacking := {str(mount["name"]) for mount in mounts.extra_volume_mounts} - there:
                raise ValueError(
                    f"pools.{name}.extra_volumes: takes the place of the workers', "
                    f"whose extra_volume_mounts then lacks {', '.join(sorted(lacking))}"
                )
        return self
