from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from typer.testing import CliRunner, Result

from shoal.cli.model import app
from shoal.errors import ConfigurationError, NotFound
from shoal.modelstore.repository import read_model
from support.tiny_models import COLOURS, add_tiny_classifier, classifier

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str | Path) -> Result:
    """Runs ``shoal model …``; Shoal's own errors rise, for the main command turns them into exit codes."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(classifier(None), tmp_path / "colours.onnx")
    (tmp_path / "names").write_text("\n".join(COLOURS))
    return tmp_path / "colours.onnx"


def test_add_a_file_with_all_it_needs(store: Path, file: Path) -> None:
    result = run(
        "add", file, "--name", "colours", "--task", "classification", "--size", "24x32",
        "--mean", "1,2,3", "--std", "4", "--resize", "crop", "--labels", file.with_name("names"),
        "--max-batch-size", "16", "--instances", "3",
        "--max-queue-delay-microseconds", "0",
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.output.startswith("added colours version 1: classification, uint8 24x32x3, 4 labels, batches of 16")
    model = read_model(store, "colours")
    assert (model.height, model.width, model.labels, model.resize_shorter_side) == (24, 32, COLOURS, 37)
    assert (model.batching.max_queue_delay_microseconds, model.batching.instance_count) == (0, 3)


def test_store_overrides_the_home(store: Path, file: Path, tmp_path: Path) -> None:
    run("add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--store", tmp_path / "other")
    assert read_model(tmp_path / "other", "c").version == 1
    assert not store.exists()


def test_force_and_version(store: Path, file: Path) -> None:
    arguments = ("add", file, "--name", "c", "--task", "classification", "--size", "8x8")
    run(*arguments)
    with pytest.raises(ConfigurationError, match="exists"):
        run(*arguments)
    assert "version 2" in run(*arguments, "--version", "2").output
    assert "version 1" in run(*arguments, "--force").output


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--size", "8"], "--size 8: expected HEIGHTxWIDTH"),
        (["--mean", "a"], "--mean a: expected one number"),
        (["--std", "1,2"], "--std 1,2"),
        (["--labels", "gone"], "--labels gone"),
        (["--head-parameter", "x=y"], "expected NAME=NUMBER"),
        ([], "leaves its size open"),
    ],
)
def test_a_wrong_option_is_named(store: Path, file: Path, extra: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run("add", file, "--name", "c", "--task", "classification", *extra)


def test_name_and_task_must_be_given(store: Path, file: Path) -> None:
    with pytest.raises(ConfigurationError, match="--name and --task"):
        run("add", file)


def test_an_unknown_source(store: Path) -> None:
    with pytest.raises(ConfigurationError, match="'resnet' is neither a file nor one of efficientnet-lite0"):
        run("add", "resnet")


def test_a_published_model_that_is_there_is_refused_before_the_download(store: Path) -> None:
    add_tiny_classifier(store, "efficientnet-lite0")
    with pytest.raises(ConfigurationError, match="exists"):
        run("add", "efficientnet-lite0")


def test_list(store: Path) -> None:
    assert "holds no models" in run("list").stderr
    add_tiny_classifier(store)
    (store / "broken").mkdir()
    result = run("list")
    assert result.exit_code == 0
    assert result.stdout == "tiny version 1: classification, uint8 32x32x3, 4 labels, batches of 4\n"
    assert f"broken: {store / 'broken' / 'config.pbtxt'}: missing" in result.stderr


def test_check(store: Path) -> None:
    add_tiny_classifier(store)
    assert run("check").stdout == "tiny: good\n"
    (store / "tiny" / "labels.txt").unlink()
    result = run("check", "tiny")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"error: {store / 'tiny' / 'labels.txt'}: missing")
    assert result.stdout.endswith("tiny: broken\n")
    with pytest.raises(NotFound):
        run("check", "other")
