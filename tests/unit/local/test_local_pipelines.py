from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.local.pipelines import require_right
from shoal.service import spec
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from pathlib import Path

FILE = "pipelines:\n  look:\n    detect: {model: tiny-detector}\n    then:\n      - {model: tiny}\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path / "models")
    add_tiny_classifier(tmp_path / "models", "other")
    add_tiny_detector(tmp_path / "models")
    return tmp_path / "models"


def test_pipelines_that_fit_the_store_are_no_fault(store: Path) -> None:
    require_right(spec.parse(FILE, "s"), store, None)
    require_right(spec.Service(), store, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("tiny}", "tinny}", ":5: pipelines.look.then.0.model: no model 'tinny' is in "),
        ("look", "other", ":2: pipelines.other: the model store"),
        ("tiny}", "tiny, for: [dog]}", ":5: pipelines.look.then.0.for: 'dog': no label of model 'tiny-detector'"),
        ("tiny-detector", "other", ":3: pipelines.look.detect.model: 'other' is for classification"),
    ],
)
def test_what_the_store_lacks_is_told_with_line_and_key(
    store: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    file = tmp_path / "shoal.yaml"
    file.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        require_right(spec.load(file), store, file)
    assert str(caught.value).startswith(f"{file}{told}")


def test_a_triton_of_somebody_elses_may_have_the_model(store: Path) -> None:
    pools = "pools: {default: {}, far: {engine: triton, triton_url: 'x:1', models: ['far*']}}\n"
    require_right(spec.parse(pools + FILE.replace("model: tiny}", "model: far-one}"), "s"), store, None)
