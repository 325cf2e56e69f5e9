from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from generate_chart import BEGIN, END, defaults, documentation, schema, sections, values, with_tables
from ruamel.yaml import YAML

from shoal.kubernetes import RouterPods, TritonImage
from shoal.spec import Pool, Service, parse

if TYPE_CHECKING:
    from shoal.section import Section


def test_the_charts_values_are_the_default_service() -> None:
    assert parse(values(), "values.yaml") == Service()
    tree = YAML(typ="safe").load(values())
    assert "pools" not in tree, "Helm would add them to the user's"
    assert tree["kubernetes"]["router"]["replicas"] == RouterPods().replicas


def test_templates_know_a_pools_defaults() -> None:
    assert Pool.model_validate(defaults()["pool"]) == Pool()


@pytest.mark.parametrize("kind", list(sections(Service)), ids=lambda kind: kind.__name__)
def test_every_key_is_described(kind: type[Section]) -> None:
    undescribed = kind.model_fields.keys() - documentation(kind).keys()
    assert undescribed <= {"port"}


def test_a_key_has_the_words_of_its_own_section() -> None:
    assert "26.04" in documentation(TritonImage)["tag"]
    assert documentation(TritonImage)["pull_policy"].startswith("As Kubernetes'")


def test_the_schema_is_strict_and_leaves_helm_its_key() -> None:
    found = schema()
    assert found["additionalProperties"] is False
    assert found["properties"]["global"]["type"] == "object"
    assert found["properties"]["pools"]["additionalProperties"] is False
    assert "a load balancer" not in found["properties"]["router"]["description"]


def test_tables_stand_between_their_marks() -> None:
    once = with_tables(f"before\n{BEGIN}\nstale rows\n{END}\nafter\n")
    assert once.startswith("before\n")
    assert once.endswith(f"{END}\nafter\n")
    assert "| `service.type` | `ClusterIP` |" in once
    assert "| `volume.nfs.server` | required |" in once
    assert "stale rows" not in once
    assert with_tables(once) == once
