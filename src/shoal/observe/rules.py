"""What a rule is, and Prometheus' form of a set of them.

``recording`` has the signals that dashboards, alerts and autoscaling share; ``alerts`` what a person is told. The same
document is a rule file of Prometheus and the spec of a PrometheusRule
(https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Severity = Literal["critical", "warning", "info"]
"""critical: users are hurt now; warning: they soon may be, or a part is broken; info: money, not users."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus keeps: ``shoal:<level>_<what>:<how>``."""

    record: str
    expr: str

    def document(self) -> dict[str, Any]:
        """Prometheus' form."""
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Condition:
    """A signal, which has data whenever its part of the service runs, against a threshold."""

    signal: str
    operator: Literal["<", ">", "=="]
    threshold: float

    def __str__(self) -> str:
        return f"{self.signal} {self.operator} {self.threshold:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a person is told when all conditions have held for a while."""

    name: str
    conditions: tuple[Condition, ...]
    on: tuple[str, ...] = ()
    """The labels on which several conditions are about the same thing."""
    lasts: str
    """Prometheus' ``for``: a duration such as ``2m``."""
    severity: Severity
    summary: str
    """With Prometheus' templates of labels and value."""
    action: str
    """What to do first."""

    @property
    def expr(self) -> str:
        """In PromQL."""
        return f" and on ({', '.join(self.on)}) ".join(map(str, self.conditions))

    @property
    def runbook(self) -> str:
        """Where it is explained, in this repository."""
        return f"docs/alerts.md#{self.name.lower()}"

    def document(self, runbook_base: str = "") -> dict[str, Any]:
        """Prometheus' form; the runbook's path is relative where its base isn't known."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "action": self.action,
                "runbook_url": f"{runbook_base.rstrip('/')}/{self.runbook}".lstrip("/"),
            },
        }


def document(groups: Mapping[str, Sequence[Recording | Alert]], runbook_base: str = "") -> dict[str, Any]:
    """A rule file. A group's rules are evaluated in their order, so that one may read what the one before it wrote."""

    def form(rule: Recording | Alert) -> dict[str, Any]:
        return rule.document(runbook_base) if isinstance(rule, Alert) else rule.document()

    return {"groups": [{"name": name, "rules": [form(rule) for rule in rules]} for name, rules in groups.items()]}
