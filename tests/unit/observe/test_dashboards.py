from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from shoal.observe import dashboards

DOCUMENTS = {name: json.loads(text) for name, text in dashboards.render().items()}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, document in DOCUMENTS.items()
    for panel in document["panels"]
    if panel["type"] != "row"
]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_about_the_chosen_service(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    assert all('service=~"$service"' in target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_panels_fill_rows_and_none_lies_on_another(name: str) -> None:
    panels = [panel["gridPos"] for panel in DOCUMENTS[name]["panels"]]
    cells = [{(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])} for p in panels]
    assert all(one.isdisjoint(other) for one, other in combinations(cells, 2))
    assert all(p["x"] + p["w"] <= 24 for p in panels)


def test_dashboards_are_told_apart() -> None:
    assert len({document["uid"] for document in DOCUMENTS.values()}) == len(DOCUMENTS) == 5
    titles = [panel["title"] for document in DOCUMENTS.values() for panel in document["panels"]]
    assert titles


def test_variables_that_queries_use_can_be_chosen() -> None:
    for document in DOCUMENTS.values():
        offered = {variable["name"] for variable in document["templating"]["list"]}
        text = json.dumps(document["panels"])
        assert {name for name in ("service", "model", "pool", "pipeline") if f'=~\\"${name}\\"' in text} <= offered


def test_the_same_code_gives_the_same_files() -> None:
    assert dashboards.render() == dashboards.render()
