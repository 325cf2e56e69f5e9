"""What watches and scales a service in a cluster: parts of the service file's ``kubernetes``; see docs/metrics.md."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from shoal.service.section import HttpAddress, Name, ObjectName, Section


class Monitoring(Section):
    """What Prometheus and Grafana find by themselves: PodMonitors, rules and dashboards."""

    enabled: bool = False
    """Whether there are any. PodMonitors and rules are kinds of the Prometheus operator's, which has to be there."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Of PodMonitors and rules: what your Prometheus selects by, such as ``release: kube-prometheus-stack``."""
    scrape_interval_seconds: int = Field(default=15, ge=1, le=60)
    """Rules look at windows of a minute: four scrapes."""
    rules: bool = True
    """A PrometheusRule with the recorded signals, which dashboards and autoscaling need, and the alerts. Of several
    releases under one Prometheus, one has it for all."""
    runbook_base: HttpAddress | None = None
    """URL of the folder that has ``docs/alerts.md``, for the alerts' annotation ``runbook_url``, such as
    ``https://git.example/shoal/blob/main``. None: the annotation is the path alone."""
    dashboards: bool = True
    """A ConfigMap with Grafana's dashboards."""
    dashboard_labels: dict[str, str] = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """What Grafana's sidecar selects by."""
    dashboard_annotations: dict[str, str] = Field(default_factory=dict)
    """Such as ``grafana_folder: Shoal``."""


class Scale(Section):
    """How many there may be."""

    min_replicas: int = Field(default=1, ge=1, le=1000)
    """Pods that are there without any load."""
    max_replicas: int = Field(ge=1, le=1000)
    """Pods that there are at most."""

    @model_validator(mode="after")
    def _least_is_not_most(self) -> Scale:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is over max_replicas ({self.max_replicas})")
        return self


class PoolScale(Scale):
    """A pool's workers, by the slots that are asked of them."""

    slot_demand: float = Field(default=0.7, gt=0, le=1)
    """Share of its slots that a pool is to be asked for, the queue's included; over it replicas come."""
    queue_seconds: float = Field(default=0.25, gt=0, le=60)
    """A tenth of the requests may wait so long for a worker; over it replicas come, too."""


class BatcherScale(Scale):
    """A group of batchers, by what they carry."""

    requests_per_second: float = Field(default=2000, gt=0)
    """Of each. More batchers make smaller batches."""


class RouterScale(Scale):
    """The routers, by what they carry."""

    min_replicas: int = Field(default=2, ge=1, le=1000)
    """Pods that are there without any load."""
    calls_per_second: float = Field(default=1500, gt=0)
    """Of each."""


class Autoscaling(Section):
    """What KEDA scales, each apart; what isn't named keeps its ``replicas``."""

    prometheus_url: HttpAddress | None = None
    """Of the Prometheus that has the recorded signals (``monitoring.rules``), such as
    ``http://prometheus-operated.monitoring.svc:9090``."""
    authentication: ObjectName | None = None
    """A TriggerAuthentication of KEDA's, where that Prometheus asks for one."""
    authentication_modes: list[Literal["basic", "bearer", "custom", "tls"]] = Field(default_factory=list)
    """What it holds, such as ``[bearer]``; KEDA takes nothing else of it (``authModes``)."""
    poll_seconds: int = Field(default=15, ge=1, le=3600)
    """How often Prometheus is asked."""
    scale_down_seconds: int = Field(default=300, ge=0, le=3600)
    """The load must have been lower for so long before pods are taken away."""
    pools: dict[Name, PoolScale] = Field(default_factory=dict)
    """By pool."""
    batchers: dict[Name, BatcherScale] = Field(default_factory=dict)
    """By group: ``shared``, or a model with ``batchers``."""
    router: RouterScale | None = None
    """None: ``kubernetes.router.replicas``."""

    @model_validator(mode="after")
    def _prometheus_is_named(self) -> Autoscaling:
        if (self.pools or self.batchers or self.router) and self.prometheus_url is None:
            raise ValueError("prometheus_url is missing: what is to be scaled is asked of Prometheus")
        return self

    @model_validator(mode="after")
    def _modes_are_of_an_authentication(self) -> Autoscaling:
        if (self.authentication is None) != (not self.authentication_modes):
            raise ValueError("authentication and authentication_modes go together: without modes KEDA ignores it")
        return self
