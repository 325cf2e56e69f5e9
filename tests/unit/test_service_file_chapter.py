"""``docs/service-file.md`` names every key of the service file, with its default."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_core import PydanticUndefined

from shoal.service.pipelines import Detector, Pipeline, Step
from shoal.service.spec import ModelOverride, Pool, Service, parse

if TYPE_CHECKING:
    from shoal.service.section import Section

CHAPTER = (Path(__file__).resolve().parents[2] / "docs" / "service-file.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)

SECTIONS: dict[str, type[Section]] = {
    name: {"pools": Pool, "models": ModelOverride, "pipelines": Pipeline}.get(name, type(value))
    for name, value in Service()
    if name != "kubernetes"  # `make chart` writes its tables into docs/reference/kubernetes.md
} | {"detect": Detector, "then": Step}


def told(section: str) -> dict[str, str]:
    """Key to default, as the chapter's table has them."""
    (text,) = re.findall(rf"^##+ {section}$(.*?)(?=^##+ |\Z)", CHAPTER, re.MULTILINE | re.DOTALL)
    return {key: default for key, default, _ in _ROW.findall(text)}


def shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_and_its_default(section: str) -> None:
    fields = SECTIONS[section].model_fields
    assert told(section) == {
        field.alias or key: shown(field.get_default(call_default_factory=True)) for key, field in fields.items()
    }


def test_the_example_is_a_service_file() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", CHAPTER, re.DOTALL)
    assert parse(example, "s").pools["default"].replicas == 2
