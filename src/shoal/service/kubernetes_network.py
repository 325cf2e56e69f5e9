"""Who reaches a service in a cluster, and what it reaches: parts of the service file's ``kubernetes``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from shoal.service.section import Raw, Section


def _monitoring_namespace() -> list[Raw]:
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def _cluster_dns() -> list[Raw]:
    return [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ]


class Egress(Section):
    """What pods may open connections to: DNS, the components that they call, and the stores."""

    enabled: bool = False
    """Whether connections from pods are restricted. Off by default, for your cluster may need more than is listed here:
    try it before you rely on it."""
    dns: list[Raw] = Field(default_factory=_cluster_dns)
    """Kubernetes' ``NetworkPolicyPeer`` objects: the DNS servers. If every node has a DNS cache, add its address:
    ``ipBlock: {cidr: 169.254.20.10/32}``."""
    stores: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``NetworkPolicyEgressRule`` objects: how pods reach the stores of pictures and models, and the
    cloud's identity service. Empty: derived from the stores' addresses. If one names a Service, its namespace is
    allowed; otherwise any address, at the port given (443 by default)."""
    extra: list[Raw] = Field(default_factory=list)
    """More ``NetworkPolicyEgressRule`` objects, for all pods of the release: to a proxy, for instance, or to the Triton
    at ``pools.<name>.triton_url``."""


class NetworkPolicies(Section):
    """Which connections to and from pods are allowed."""

    enabled: bool = True
    """Whether the chart makes NetworkPolicies. They only work if the cluster's network plugin enforces them."""
    clients: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``NetworkPolicyPeer`` objects: who may call the router. Empty: anyone."""
    monitoring: list[Raw] = Field(default_factory=_monitoring_namespace)
    """Kubernetes' ``NetworkPolicyPeer`` objects: who may read metrics. Empty: nobody."""
    egress: Egress = Egress()

    @model_validator(mode="after")
    def _egress_is_a_policy(self) -> NetworkPolicies:
        if self.egress.enabled and not self.enabled:
            raise ValueError("egress.enabled goes with enabled: true")
        return self


class Gateway(Section):
    """A route of the Gateway API to the router, beside its Service."""

    enabled: bool = False
    """Whether the chart makes this route. The cluster must have the Gateway API's kinds, and a Gateway of yours."""
    kind: Literal["GRPCRoute", "HTTPRoute"] = "GRPCRoute"
    """The route's kind. ``HTTPRoute`` is for gateways without support for ``GRPCRoute``."""
    parent_refs: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``ParentReference`` objects: the Gateways that the route belongs to, such as
    ``[{name: public, namespace: gateways, sectionName: https}]``."""
    hostnames: list[str] = Field(default_factory=list)
    """Host names that the route serves. Empty: all of the listener's."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the route."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the route."""

    @model_validator(mode="after")
    def _parents_are_named(self) -> Gateway:
        if self.enabled and not self.parent_refs:
            raise ValueError("parent_refs is missing: a route belongs to a Gateway")
        return self
