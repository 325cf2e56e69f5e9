"""The service file's ``kubernetes`` section: what only a cluster needs; ``shoal up`` reads past it.

Where Kubernetes has an object of its own for something (resources, tolerations, peers of a network policy …), it is
given as Kubernetes knows it, and Kubernetes checks it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from shoal.service.kubernetes_extras import ExtraMounts, ExtraVariables, ExtraVolumes
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
        "shoal.dev/pipeline",
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
    """The registry's host: a mirror's, or your own. None: the cluster's default registry."""
    repository: str
    """The image's name in the registry."""
    tag: str | None = None
    """The image's tag. None: the chart's ``appVersion``."""
    digest: str | None = Field(default=None, pattern="^sha256:[0-9a-f]{64}$")
    """The image's digest, ``sha256:…``: nodes pull exactly this image. None: whatever the tag names at that moment."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes pull the image: Kubernetes' ``imagePullPolicy``."""


class ShoalImage(Image):
    """Shoal itself."""

    repository: str = "shoal"
    """The image's name in the registry."""


class EnvoyImage(Image):
    """Envoy, as its makers publish it."""

    registry: str | None = "docker.io"
    """The registry's host: a mirror's, or your own. None: the cluster's default registry."""
    repository: str = "envoyproxy/envoy"
    """The image's name in the registry."""
    tag: str | None = "distroless-v1.39.3"
    """The image's tag. Shoal's configuration was tested with the default."""


class TritonImage(Image):
    """Triton, as NVIDIA publishes it, or yours with models in ``/models``."""

    registry: str | None = "nvcr.io"
    """The registry's host: a mirror's, or your own. None: the cluster's default registry."""
    repository: str = "nvidia/tritonserver"
    """The image's name in the registry."""
    tag: str | None = "26.04-py3"
    """The image's tag. From 26.04 on, Triton must be told to let clients share memory; the chart does so if the tag's
    year and month say that it is needed."""


class Images(Section):
    """What the containers run."""

    shoal: ShoalImage = ShoalImage()
    envoy: EnvoyImage = EnvoyImage()
    triton: TritonImage = TritonImage()
    pull_secrets: list[ObjectName] = Field(default_factory=list)
    """Names of Secrets for private registries."""


class Secrets(Section):
    """Names of Secrets that exist already: the chart makes none.

    A changed key or certificate takes effect while pods run; a store's new credentials take new pods.
    """

    keys: ObjectName = "shoal-keys"
    """The Secret with the API keys under ``keys.json``, as ``shoal keys`` writes them."""
    tls: ObjectName | None = None
    """The Secret, of type ``kubernetes.io/tls``, with the certificate that clients see. None: no TLS."""
    object_store: ObjectName | None = None
    """The Secret with the object store's credentials under ``credentials.json``, a file as
    ``object_store.credentials_file`` describes it. None: credentials are found in the cloud's usual ways, such as a
    workload identity."""
    object_store_environment: ObjectName | None = None
    """Instead of ``object_store``: a Secret with ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, such as an
    ``ObjectBucketClaim`` makes."""
    model_store: ObjectName | None = None
    """Like ``object_store``, for the model store's credentials."""
    model_store_environment: ObjectName | None = None
    """Like ``object_store_environment``, for the model store's credentials."""

    @model_validator(mode="after")
    def _one_form(self) -> Secrets:
        for store in ("object_store", "model_store"):
            if getattr(self, store) and getattr(self, f"{store}_environment"):
                raise ValueError(f"{store} and {store}_environment are two forms of the same: give one")
        return self


class ClusterStore(Section):
    """The object store as pods reach it, where that differs from ``object_store``. None: as there."""

    url: StoreUrl | None = None
    """``s3://bucket[/prefix]``, ``gs://`` or ``az://``."""
    endpoint: HttpAddress | None = None
    """The address of the S3 API, for pods and for clients that upload."""
    region: str | None = None
    """The bucket's region."""


class Nfs(Section):
    """A folder of an NFS server."""

    server: str = Field(min_length=1)
    """The server's name or address."""
    path: str = Field(pattern="^/")
    """The exported folder."""


class ModelVolume(Section):
    """An existing volume with the models, mounted read-only.

    Give one of ``nfs``, ``persistent_volume_claim`` and ``host_path``.
    """

    nfs: Nfs | None = None
    """An NFS export."""
    persistent_volume_claim: ObjectName | None = None
    """The name of a PersistentVolumeClaim. With pods on several nodes, all of them must be able
    to read its volume."""
    host_path: str | None = Field(default=None, pattern="^/")
    """A folder that every node has, such as a mounted file system."""
    sub_path: str | None = Field(default=None, pattern="^[^/]")
    """The folder in the volume that holds the models. None: the volume's top folder."""

    @model_validator(mode="after")
    def _one_kind(self) -> ModelVolume:
        if sum(kind is not None for kind in (self.nfs, self.persistent_volume_claim, self.host_path)) != 1:
            raise ValueError("give one of nfs, persistent_volume_claim and host_path")
        return self


class ModelSync(Section):
    """Copies of the models published at ``model_store.url``: fetched before a pod starts, then kept up to date."""

    size_limit: Quantity = "20Gi"
    """The largest size of the volume with these copies. While a model is replaced, its old and new files are both
    there."""
    remove: bool = False
    """Whether copies are deleted of models that are no longer published, or that the pool no longer serves."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "256Mi", "1Gi"))
    """Kubernetes' resources of the container model-sync."""


class ModelWay(Section):
    """How models come into pods. Give at most one; without any it is ``sync`` if ``model_store.url`` is set."""

    image: bool = False
    """Whether the models are part of a container image, in ``/models``: Triton's image, or Shoal's for
    ``engine: openvino``. Pools must then list their models by exact name, without patterns."""
    volume: ModelVolume | None = None
    """The models are in an existing volume."""
    sync: ModelSync | None = None
    """The container model-sync copies the models into each pod."""

    @model_validator(mode="after")
    def _one_way(self) -> ModelWay:
        if sum((self.image, self.volume is not None, self.sync is not None)) > 1:
            raise ValueError("give one of image, volume and sync")
        return self


class ServiceAccount(Section):
    """The pods' ServiceAccount, by which a cloud knows them.

    It has no rights in the cluster, and pods get no token, except for ``router.watch_keys``.
    """

    name: ObjectName | None = None
    """The name of an existing ServiceAccount. None: the chart makes one."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the ServiceAccount that the chart makes, such as ``eks.amazonaws.com/role-arn``."""


class Pods(Section):
    """Where a component's pods run, and what is added to them."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have to get these pods."""
    tolerations: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``Toleration`` objects."""
    affinity: Raw = Field(default_factory=dict)
    """Kubernetes' ``Affinity`` object."""
    priority_class: ObjectName | None = None
    """The name of a PriorityClass."""
    runtime_class: ObjectName | None = None
    """The name of a RuntimeClass, such as ``nvidia`` where that isn't the nodes' default."""
    labels: PodLabels = Field(default_factory=dict)
    """Labels added to the pods, such as ``azure.workload.identity/use: "true"``."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations added to the pods."""
    extra_env: ExtraVariables = Field(default_factory=list)
    """Kubernetes' ``EnvVar`` objects, added to every container, such as a proxy's address. Take secrets by
    ``valueFrom``."""
    extra_volumes: ExtraVolumes = Field(default_factory=list)
    """Kubernetes' ``Volume`` objects, added to the pods."""
    extra_volume_mounts: ExtraMounts = Field(default_factory=list)
    """Kubernetes' ``VolumeMount`` objects of ``extra_volumes``, added to every container."""
    scratch_size: Quantity = "256Mi"
    """How much a pod may write to ``/tmp``, and as much again to Shoal's home. A pod that writes more is evicted."""

    @model_validator(mode="after")
    def _mounted_volumes_are_there(self) -> Pods:
        there = {volume["name"] for volume in self.extra_volumes}
        if unknown := {str(mount.get("name")) for mount in self.extra_volume_mounts} - there:
            raise ValueError(f"extra_volume_mounts: {', '.join(sorted(unknown))}: extra_volumes has no such volume")
        return self


class ReplicatedPods(Pods):
    """Pods of a Deployment: how many there are, and how many may be missing at once."""

    topology_spread: list[Raw] | None = None
    """Kubernetes' ``topologySpreadConstraints``; the chart adds the selector. None: spread over nodes where
    possible."""
    max_unavailable: CountOrPercent = 1
    """How many pods may be evicted at once when nodes are drained: a number or a percentage (PodDisruptionBudget)."""
    scaled_elsewhere: bool = False
    """Whether something outside the chart sets the number of pods, such as an autoscaler of yours. The chart then
    leaves ``replicas`` out, and a new Deployment starts with 1 pod. What ``autoscaling`` names needs no such
    setting."""


class RouterService(Section):
    """How clients reach the router."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """The Service's type in Kubernetes. A load balancer must pass TCP through: the router itself handles HTTP/2 and
    TLS."""
    port: Port = 8080
    """The Service's port."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the Service, such as a cloud's load balancer reads."""


class RouterPods(ReplicatedPods):
    """The router's pods: Envoy, and a container that keeps its configuration up to date."""

    replicas: int = Field(default=2, ge=1, le=1000)
    """Number of pods."""
    concurrency: int = Field(default=2, ge=1, le=256)
    """Envoy's worker threads. Each can use one core fully."""
    service: RouterService = RouterService()
    resources: Raw = Field(default_factory=lambda: _resources("500m", "256Mi", "1Gi"))
    """Kubernetes' resources of the container with Envoy."""
    config_resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Kubernetes' resources of the container that keeps Envoy's configuration up to date."""
    watch_keys: bool = False
    """Whether routers watch the Secret ``secrets.keys`` through the Kubernetes API. A revoked key is then refused
    within 2 s; otherwise it takes a minute or more, until the kubelet has updated the mounted file. The pods get a
    token, and a Role that lets them watch this Secret only."""
    leave_seconds: int = Field(default=5, ge=0, le=3600)
    """How long a pod that was told to stop still takes calls, so that nodes and load balancers learn that it is
    leaving. A cloud load balancer that targets pods directly may need minutes."""
    termination_grace_seconds: GraceSeconds = 60
    """Kubernetes' ``terminationGracePeriodSeconds``: at least ``leave_seconds``, plus 30 s for calls in flight and 2 s
    to hand batching streams over."""
    service_account: ServiceAccount = ServiceAccount()


class BatcherPods(ReplicatedPods):
    """The pods of the shared batcher, and of models that have ``batchers`` of their own."""

    replicas: int = Field(default=1, ge=1, le=64)
    """Number of pods of the shared batcher. Each forms its own batches, so one pod makes the largest batches."""
    resources: Raw = Field(default_factory=lambda: _resources("500m", "256Mi", "1Gi"))
    """Kubernetes' resources of each pod."""
    leave_seconds: GraceSeconds = 40
    """How long a pod that was told to stop still takes calls, so that every router learns that it is leaving. Routers
    ask the cluster's DNS every second, which may give the old answer for 30 s."""
    termination_grace_seconds: GraceSeconds = 75
    """Kubernetes' ``terminationGracePeriodSeconds``: at least ``leave_seconds``, plus 30 s for calls in flight."""
    service_account: ServiceAccount = ServiceAccount()


class PoolPods(ReplicatedPods):
    """A pool's pods: one worker in each, and with ``engine: triton`` a Triton of its own beside it.

    Each of the pool's ``worker_processes`` is a container.
    """

    gpus: int | None = Field(default=None, ge=0, le=64)
    """GPUs of each pod. None: 1 if the pod runs a Triton, else 0."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern="^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """The resource name that the device plugin gives GPUs. It may name a slice, such as ``nvidia.com/mig-1g.10gb``, or
    a share in time, such as ``nvidia.com/gpu.shared``."""
    shared_memory: Quantity = "1Gi"
    """The size of ``/dev/shm``, which worker and Triton share. What is written there counts against their memory
    limits. More ``worker_processes`` need more of it."""
    allow_client_shared_memory: bool | None = None
    """Whether Triton is started with ``--allow-client-shm=true``. None: yes if its image's tag says 26.04 or later."""
    resources: Raw = Field(default_factory=lambda: _resources("2", "2Gi", "4Gi"))
    """Kubernetes' resources of each of the worker's processes. Without a limit for ``cpu`` a worker decodes as many
    pictures at once as its node has cores; the pool's ``decode_threads`` sets another number."""
    triton_resources: Raw = Field(default_factory=lambda: _resources("1", "4Gi", "16Gi"))
    """Kubernetes' resources of Triton; the chart adds the GPUs."""
    startup_seconds: int = Field(default=600, ge=10, le=86_400)
    """How long a container may take to start before Kubernetes restarts it: once to fetch all models, and as long again
    to load and warm them."""
    min_ready_seconds: int = Field(default=40, ge=0, le=3600)
    """How long a new pod must have been ready before a rollout goes on to the next old pod. Routers find new pods by
    DNS, which may take 35 s."""
    rolling_update: Raw | None = None
    """The Deployment's ``maxSurge`` and ``maxUnavailable``. None: a rollout adds a new pod before it removes an old
    one; with GPUs it removes the old one first, because there may be no free GPU."""
    termination_grace_seconds: GraceSeconds = 75
    """Kubernetes' ``terminationGracePeriodSeconds``: at least 1 s until no new batches come, 30 s for batches in
    flight, and 30 s for Triton to stop."""
    scratch_size: Quantity = "4Gi"
    """How much a pod may write to ``/tmp``, where Triton unpacks Python environments, and as much again to Shoal's
    home, where OpenVINO keeps compiled models. A pod that writes more is evicted."""


class WorkerPods(PoolPods):
    """Settings of every pool's pods; ``pools.<name>`` sets others for one pool."""

    service_account: ServiceAccount = ServiceAccount()


class PipelinePods(ReplicatedPods):
    """The pods of pipelines, a Deployment each; ``pipelines.<name>.replicas`` says how many."""

    resources: Raw = Field(default_factory=lambda: _resources("250m", "256Mi", "512Mi"))
    """Kubernetes' resources of each pod."""
    min_ready_seconds: int = Field(default=40, ge=0, le=3600)
    """How long a new pod must have been ready before a rollout goes on to the next old pod. Routers find new pods by
    DNS, which may take 35 s."""
    startup_seconds: int = Field(default=600, ge=10, le=86_400)
    """How long a pod may take to start before Kubernetes restarts it: its models' workers have to answer first."""
    termination_grace_seconds: GraceSeconds = 75
    """Kubernetes' ``terminationGracePeriodSeconds``: at least 1 s until no new pictures come, and 60 s for those in
    flight."""
    service_account: ServiceAccount = ServiceAccount()


class ImageRetention(Pods):
    """A CronJob that deletes pictures older than ``object_store.retention_hours``."""

    enabled: bool = False
    """Whether there is such a CronJob. Off by default: a bucket's own lifecycle rules cost nothing, and the bucket may
    hold other things too."""
    schedule: str = "17 * * * *"
    """When the job runs, in cron's notation."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Kubernetes' resources of the job's pod."""
    service_account: ServiceAccount = ServiceAccount()


class HelmTest(Pods):
    """What ``helm test`` runs: a pod that asks for the router's health, and calls a model with a picture."""

    enabled: bool = True
    """Whether the release contains this test. It runs only when you call ``helm test``."""
    key_secret: ObjectName | None = None
    """The Secret with an API key under ``api_key``. None: the test asks for health only."""
    model: Name | None = None
    """The model to call, which the key must allow. Goes with ``key_secret``."""
    task: Literal["classify", "detect", "segment"] = "classify"
    """The model's task."""
    target: str | None = None
    """The address to call: ``HOST:PORT``, or ``https://HOST[:PORT]``. None: the router's Service; with TLS the
    certificate must then name it."""
    ca_secret: ObjectName | None = None
    """With TLS: the Secret with the authority to trust under ``ca.crt``, such as the one where cert-manager keeps the
    certificate. None: the public authorities."""
    timeout_seconds: int = Field(default=60, ge=1, le=3600)
    """How long the test waits for the service to become healthy, and as long again for the picture's answer."""
    resources: Raw = Field(default_factory=lambda: _resources("50m", "128Mi", "512Mi"))
    """Kubernetes' resources of each of the test's containers."""

    @model_validator(mode="after")
    def _key_and_model(self) -> HelmTest:
        if (self.key_secret is None) != (self.model is None):
            raise ValueError("key_secret and model go together: a picture needs both, health neither")
        return self


class Namespace(Section):
    """The release's namespace."""

    look_up: bool = True
    """Whether the chart reads the namespace's Pod Security label if pods ask for more than ``restricted`` allows, so
    that it can refuse before anything is created. Whoever installs it needs the right to ``get`` the Namespace."""


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
    """By pool: settings that differ from those in ``worker``."""
    pipeline: PipelinePods = PipelinePods()
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
