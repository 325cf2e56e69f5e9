from __future__ import annotations

import pytest

from shoal.modelconfig.model import Task
from shoal.pipeline.check import Known, faults
from shoal.service import spec

FILE = """\
pipelines:
  street:
    detect: {model: finder, classes: [car]}
    then:
      - {model: species, for: [car], top_k: 3}
      - model: plates
        then: [{model: letters, for: [plate]}]
"""
GOOD = {
    "finder": Known(Task.DETECTION, ("car", "bird")),
    "species": Known(Task.CLASSIFICATION, ("robin",)),
    "plates": Known(Task.DETECTION, ("plate",)),
    "letters": Known(Task.SEGMENTATION),
}
AT = "pipelines.street"


def found(models: dict[str, Known]) -> list[str]:
    return [str(fault) for fault in faults("street", spec.parse(FILE, "s").pipelines["street"], models)]


def test_models_that_fit_are_no_fault() -> None:
    assert found(GOOD) == []


def test_what_is_not_known_yet_is_passed_over() -> None:
    assert found({}) == []


@pytest.mark.parametrize(
    ("model", "known", "told"),
    [
        ("finder", Known(Task.CLASSIFICATION, ("car",)), f"{AT}.detect.model: 'finder' is for classification"),
        ("finder", Known(Task.DETECTION, ("bird",)), f"{AT}.detect.classes: 'car': no label of model 'finder'"),
        ("finder", Known(Task.DETECTION), "it has no labels"),
        ("species", Known(Task.DETECTION), f"{AT}.then.0.top_k: goes with classification, and 'species' is for"),
        ("plates", Known(Task.CLASSIFICATION, ("plate",)), f"{AT}.then.1.then: goes with detection, and 'plates' is"),
        ("plates", Known(Task.DETECTION, ("x",) * 20), f"{AT}.then.1.then.0.for: 'plate': no label of model 'plates'"),
    ],
)
def test_what_does_not_fit_is_named(model: str, known: Known, told: str) -> None:
    lines = found(GOOD | {model: known})
    assert any(told in line for line in lines), lines


def test_a_threshold_is_nothing_for_a_classifier() -> None:
    text = FILE.replace("top_k: 3", "score_threshold: 0.5")
    (line,) = faults("street", spec.parse(text, "s").pipelines["street"], GOOD)
    assert line.key == f"{AT}.then.0.score_threshold"
