from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from generate_chart import BEGIN, CHART, END, TABLES, defaults, documentation, schema, sections, values, with_tables
from ruamel.yaml import YAML

from shoal.service.kubernetes import RouterPods, TritonImage
from shoal.service.spec import Pool, Service, parse

if TYPE_CHECKING:
    from shoal.service.section import Section


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
    assert documentation(TritonImage)["pull_policy"].startswith("When nodes pull the image")


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


def leaves(tree: Any, known: set[str], path: str = "") -> dict[str, Any]:
    """Every value of a document that is a row of its own, by its path."""
    if path in known or not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {k: v for key, inner in tree.items() for k, v in leaves(inner, known, f"{path}.{key}".lstrip(".")).items()}


def test_the_readme_has_every_value_with_its_default() -> None:
    text = (CHART / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.<>]+)` \| `?(.*?)`? \| ", text, re.MULTILINE))
    reader = YAML(typ="safe")
    there = leaves(reader.load((CHART / "values.yaml").read_text(encoding="utf-8")), set(rows))
    sections_alone = {path for path, value in there.items() if value == {} and path not in rows}
    for path in there.keys() - sections_alone:
        assert reader.load(rows[path]) == there[path], path
    # Nothing by default, or a name of the user's within: values.yaml has a comment at most.
    assert {path for path in rows.keys() - there.keys() if rows[path] != "none" and "<name>" not in path} <= {
        path for path in rows if any(path.startswith(f"kubernetes.model_store.{way}.") for way in ("volume", "sync"))
    } | {
        path for path in rows if path.startswith(("router.tls.", "observe.tracing.", "kubernetes.autoscaling.router."))
    }
    assert all(f"\n## {section}\n" in text for section in (*TABLES, "object_store", "kubernetes", "observe"))
