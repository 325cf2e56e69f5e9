"""What NetworkPolicies let through, by the rules of Kubernetes' chapter on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.rendered import Object, Rendered

_NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """A pod, or something outside of the cluster."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = "vision"
    """None: outside."""
    address: str = "10.1.2.3"


def allowed(rendered: Rendered, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection comes about: the source may open it, and the target take it."""
    policies = [each["spec"] for each in rendered.of("NetworkPolicy")]
    return _passes(policies, "Egress", source, target, port, protocol) and _passes(
        policies, "Ingress", target, source, port, protocol
    )


def _passes(policies: list[Object], way: str, subject: Peer, other: Peer, port: int, protocol: str) -> bool:
    """Who is selected by no policy may do everything; else one of their rules has to fit."""
    about = [
        each
        for each in policies
        if way in each["policyTypes"]
        and subject.namespace == "vision"
        and _selects(each["podSelector"], subject.labels)
    ]
    rules = [rule for each in about for rule in each.get(way.lower()) or []]
    end = "to" if way == "Egress" else "from"
    return not about or any(
        _fits_port(rule.get("ports"), port, protocol) and _fits_peer(rule.get(end), other) for rule in rules
    )


def _fits_port(ports: list[Object] | None, port: int, protocol: str) -> bool:
    return not ports or any(
        each.get("protocol", "TCP") == protocol and each["port"] <= port <= each.get("endPort", each["port"])
        for each in ports
    )


def _fits_peer(peers: list[Object] | None, other: Peer) -> bool:
    return not peers or any(_is(each, other) for each in peers)


def _is(peer: Object, other: Peer) -> bool:
    if block := peer.get("ipBlock"):
        address = ip_address(other.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(each) for each in block.get("except", [])
        )
    if other.namespace is None:
        return False
    namespaces = peer.get("namespaceSelector")
    there = other.namespace == "vision" if namespaces is None else _selects(namespaces, {_NAME: other.namespace})
    return there and _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Object, labels: Mapping[str, Any]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "expressions aren't read here"
    return selector.get("matchLabels", {}).items() <= labels.items()
