from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.service import read_section, spec
from shoal.service.pipelines import Fault, placed

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
pipelines:
  street:
    detect:
      model: finder
      classes: [car, bird]
      padding: 0.1
    then:
      - {model: species, for: [bird], top_k: 3}
      - model: plates
        for: [car]
        max_boxes: 2
        then:
          - {model: letters, name: number}
"""


def test_steps_stand_in_the_order_of_the_file() -> None:
    street = spec.parse(FILE, "s").pipelines["street"]
    found = [(each.name, each.depth, each.key) for each in placed("street", street)]
    assert found == [
        ("finder", 1, "pipelines.street.detect"),
        ("species", 2, "pipelines.street.then.0"),
        ("plates", 2, "pipelines.street.then.1"),
        ("number", 3, "pipelines.street.then.1.then.0"),
    ]
    assert [each.most_calls for each in placed("street", street)] == [1, 20, 20, 40]
    assert street.then[0].labels == ["bird"]


def test_a_file_that_was_read_can_be_written_and_read_again() -> None:
    service = spec.parse(FILE, "s")
    assert spec.parse(service.model_dump_json(exclude_defaults=True), "s") == service


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("for: [bird]", "for: [boat]", "s:8: pipelines.street.then.0.for: 'boat': the step before keeps the classes"),
        ("for: [car]", "for: [car, boat]", "s:10: pipelines.street.then.1.for: 'boat'"),
        ("top_k", "topk", "s:8: pipelines.street.then.0.topk: unknown key; did you mean 'top_k'?"),
        ("for: [bird]", "fore: [bird]", "s:8: pipelines.street.then.0.fore: unknown key; did you mean 'for'?"),
        ("model: finder", "modle: finder", "s:4: pipelines.street.detect.modle: unknown key"),
        ("model: letters", "model: street", "s:13: pipelines.street.then.1.then.0.model: 'street' is a pipeline"),
        ("name: number", "name: species", "s:13: pipelines.street.then.1.then.0: pipelines.street.then.0 is called"),
        ("model: plates", "model: finder", "s:9: pipelines.street.then.1: pipelines.street.detect is called 'finder'"),
        ("name: number", "then: [{model: x}]", "pipelines.street.then.1.then.0.then.0: is step 4 in a row"),
        ("top_k: 3", "top_k: 3, square: true", "s:8: pipelines.street.then.0.top_k: goes with classification"),
        ("max_boxes: 2", "max_boxes: 60", "s:2: pipelines.street: one picture may lead to 1,241 calls"),
        ("padding: 0.1", "padding: .nan", "s:6: pipelines.street.detect.padding"),
        ("padding: 0.1", "max_boxes: 0", "s:6: pipelines.street.detect.max_boxes"),
    ],
)
def test_what_the_file_shows_to_be_wrong_is_told_with_line_and_key(old: str, new: str, told: str) -> None:
    assert FILE.count(old) == 1
    with pytest.raises(ConfigurationError) as caught:
        spec.parse(FILE.replace(old, new), "s")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("models: {street: {max_batch_size: 8}}", "s:14: models.street: is a pipeline"),
        ("pools: {default: {models: [street, '*']}}", "s:2: pipelines.street: pools.default.models names a model"),
        ("pools: {default: {models: [finder, plates, letters]}}", "s:8: pipelines.street.then.0.model: no pool serves"),
    ],
)
def test_it_fits_the_rest_of_the_file(more: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        spec.parse(FILE + more, "s")
    assert told in str(caught.value)


def test_two_pipelines_may_share_models_and_neither_is_in_a_pool() -> None:
    second = FILE.replace("pipelines:\n", "").replace("street", "road")
    service = spec.parse(FILE + second, "s")
    assert set(service.pipelines) == {"street", "road"}
    assert service.pool_of("street") is None
    assert service.pool_of("finder") == "default"
    assert service.models_of("default", ["finder", "road", "street"]) == ["finder"]


def test_a_fault_found_later_is_told_with_its_line_if_the_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "shoal.yaml"
    path.write_text(FILE)
    fault = Fault("pipelines.street.then.1.then.0.model", "is away")
    assert read_section.with_lines(path, [fault]) == [f"{path}:13: {fault}"]
    assert read_section.with_lines(None, [fault]) == [str(fault)]
    assert read_section.with_lines(path.with_name("gone"), [fault]) == [f"{path.with_name('gone')}:1: {fault}"]
