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
    """What pods may open connections to, each part apart: DNS, the parts that it asks, and the stores."""

    enabled: bool = False
    """Off, since only you know all that your pods need: try it before you rely on it."""
    dns: list[Raw] = Field(default_factory=_cluster_dns)
    """Kubernetes' ``NetworkPolicyPeer`` objects: who answers names. With a DNS cache on every node its address, too:
    ``ipBlock: {cidr: 169.254.20.10/32}``."""
    stores: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``NetworkPolicyEgressRule`` objects: the ways to pictures and models, and to what tells the cloud
    whose pods these are. Empty: by the stores' addresses, a Service's namespace or else the address's port (443 if it
    has none) anywhere."""
    extra: list[Raw] = Field(default_factory=list)
    """``NetworkPolicyEgressRule`` objects for all of the release's pods, such as to a proxy, or to the Triton of
    ``pools.<name>.triton_url``."""


class NetworkPolicies(Section):
    """Who may open connections to pods, and to whom pods may."""

    enabled: bool = True
    """Needs a network that follows NetworkPolicies; another ignores them."""
    clients: list[Raw] = Field(default_factory=list)
    """Kubernetes' ``NetworkPolicyPeer`` objects: who may call the router. Empty: everybody."""
    monitoring: list[Raw] = Field(default_factory=_monitoring_namespace)
    """Who may read metrics. Empty: nobody."""
    egress: Egress = Egress()

    @model_validator(mode="after")
    def _egress_is_a_policy(self) -> NetworkPolicies:
        if self.egress.enabled and not self.enabled:
            raise ValueError("egress.enabled goes with enabled: true")
        return self


class Gateway(Section):
    """A route of the Gateway API to the router, beside its Service."""

    enabled: bool = False
    """Whether there is one. Its kinds have to be there, and a Gateway that is yours."""
    kind: Literal["GRPCRoute", "HTTPRoute"] = "GRPCRoute"
    """``GRPCRoute`` carries gRPC; ``HTTPRoute`` any HTTP/2, for gateways that know no ``GRPCRoute``."""
    parent_refs: list[Raw] = Field(default_factory=list)
    """The Gateways, as Kubernetes has it: ``[{name: public, namespace: gateways, sectionName: https}]``."""
    hostnames: list[str] = Field(default_factory=list)
    """What the route is for. Empty: every host of the listener."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Of the route."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of the route."""

    @model_validator(mode="after")
    def _parents_are_named(self) -> Gateway:
        if self.enabled and not self.parent_refs:
            raise ValueError("parent_refs is missing: a route belongs to a Gateway")
        return self
