"""All rules, as ``shoal render rules`` writes them and the chart carries them."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from shoal.observe import alerts, recording
from shoal.observe.foreign import FOREIGN, Origin, used
from shoal.observe.rules import document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.observe.rules import Alert, Recording

RECORDINGS: Sequence[Recording] = (*recording.REQUESTS, *recording.LOAD, *recording.PARTS)
ALERTS: Sequence[Alert] = (*alerts.LOAD, *alerts.ERRORS, *alerts.STORE, *alerts.GPU, *alerts.PARTS)

_GROUPS: Mapping[str, Sequence[Recording | Alert]] = {
    "shoal-signals": RECORDINGS,  # one group: later ones read what earlier ones wrote
    "shoal-load": alerts.LOAD,
    "shoal-errors": alerts.ERRORS,
    "shoal-store": alerts.STORE,
    "shoal-gpu": alerts.GPU,
    "shoal-parts": alerts.PARTS,
}
_RECORDED = re.compile(r"shoal:[a-z0-9_:]+")


def render(runbook_base: str = "") -> str:
    """A rule file of Prometheus; ``runbook_base`` is the URL of the folder that has ``docs``."""
    return to_yaml(document(_GROUPS, runbook_base))


def to_yaml(tree: Mapping[str, Any]) -> str:
    """YAML as people write it: a key a line, in the order of ``tree``."""
    yaml = YAML(typ="rt")
    yaml.default_flow_style = False
    yaml.width = 10_000
    out = io.StringIO()
    yaml.dump(dict(tree), out)
    return out.getvalue()


def expand(expression: str) -> str:
    """``expression`` with recorded series replaced by what they are made of, all the way down."""
    expressions = {rule.record: f"({rule.expr})" for rule in RECORDINGS}
    while _RECORDED.search(expression):
        expression = _RECORDED.sub(lambda found: expressions[found[0]], expression)
    return expression


def needs(expression: str) -> set[Origin]:
    """What must be there for an expression to have data, beside Shoal's own processes and the router."""
    return {FOREIGN[name].origin for name in used(expand(expression))} & {Origin.TRITON, Origin.GPU}
