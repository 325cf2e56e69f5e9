"""Model files that aren't ONNX, and those that bring their config.pbtxt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.modelconfig.fault import Severity
from shoal.modelconfig.model import Task, Tensor
from shoal.modelstore.check import check
from shoal.modelstore.formats import Format, default_filename, detect
from shoal.modelstore.making.foreign import add_configured, add_described
from shoal.modelstore.making.recipe import Recipe
from support.archives import ARCHIVES, archive
from support.tiny_models import COLOURS, add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = Tensor("INPUT__0", "uint8", (32, 32, 3))
LOGITS = (Tensor("OUTPUT__0", "float32", (4,)),)
RECIPE = Recipe(name="m", task=Task.CLASSIFICATION, labels=COLOURS)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_are_told_by_what_is_in_them(tmp_path: Path, kind: Format) -> None:
    assert detect(archive(tmp_path / "any.name", *ARCHIVES[kind])) is kind


def test_an_exported_program_of_an_older_pytorch(tmp_path: Path) -> None:
    assert detect(archive(tmp_path / "m.pt2", "serialized_exported_program.json", "version")) is Format.EXPORTED


def test_an_exported_program_needs_the_gpu_runner(tmp_path: Path) -> None:
    file = archive(tmp_path / "m.pt2", *ARCHIVES[Format.EXPORTED])
    with pytest.raises(ConfigurationError, match=r"an exported program.*--runner gpu.*aoti_compile_and_package"):
        add_described(tmp_path / "store", file, Format.EXPORTED, RECIPE, IMAGE, LOGITS)


def test_other_files_go_by_their_suffix(tmp_path: Path) -> None:
    for name, kind in (("m.plan", Format.TENSORRT), ("m.engine", Format.TENSORRT), ("m.bin", Format.ONNX)):
        (tmp_path / name).write_bytes(b"content")
        assert detect(tmp_path / name) is kind


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["m/data.pkl", "m/version"], "weights without a graph.*torch.jit.save"),
        (["readme.txt"], "neither TorchScript"),
    ],
)
def test_what_triton_cannot_run_is_refused_with_the_way_out(tmp_path: Path, members: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        detect(archive(tmp_path / "m.pt2", *members))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        detect(tmp_path / "gone")


@pytest.mark.parametrize(
    ("backend", "platform", "filename"),
    [
        ("pytorch", "", "model.pt"),
        ("pytorch", "torch_aoti", "model.pt2"),
        ("", "tensorrt_plan", "model.plan"),
        ("python", "", "model.py"),
        ("onnxruntime", "", "model.onnx"),
        ("", "", "model.onnx"),
    ],
)
def test_the_file_that_triton_looks_for(backend: str, platform: str, filename: str) -> None:
    assert default_filename(backend, platform) == filename


def test_a_described_model_is_served_from_its_own_file(tmp_path: Path) -> None:
    file = archive(tmp_path / "m.pt", *ARCHIVES[Format.TORCHSCRIPT])
    store = tmp_path / "store"
    model = add_described(store, file, Format.TORCHSCRIPT, RECIPE, IMAGE, LOGITS)
    assert model.path == store / "m" / "1" / "model.pt"
    assert model.path.read_bytes() == file.read_bytes()
    assert (model.input, model.outputs, model.labels) == (IMAGE, LOGITS, COLOURS)
    (note,) = check(store, "m")
    assert note.severity is Severity.NOTE
    assert "were not checked" in note.message
    assert 'platform: "pytorch_libtorch"' in (store / "m" / "config.pbtxt").read_text()
    assert add_described(store, file, Format.TORCHSCRIPT, RECIPE, IMAGE, LOGITS, version=2).version == 2


def test_a_float_input_is_normalised_by_the_worker(tmp_path: Path) -> None:
    (tmp_path / "m.plan").write_bytes(b"plan")
    recipe = Recipe(name="m", task=Task.CLASSIFICATION, mean=(1, 2, 3), std=(4, 5, 6))
    picture = Tensor("x", "float32", (3, 32, 48))
    model = add_described(tmp_path / "store", tmp_path / "m.plan", Format.TENSORRT, recipe, picture, LOGITS)
    assert (model.mean, model.std, model.height, model.width) == ((1, 2, 3), (4, 5, 6), 32, 48)


@pytest.mark.parametrize(
    ("picture", "outputs", "message"),
    [
        (Tensor("x", "uint8", (3, 32, 32)), LOGITS, "input.dims"),
        (Tensor("x", "int8", (32, 32, 3)), LOGITS, "input.data_type"),
        (IMAGE, (Tensor("y", "float32", (4, 4)),), "head softmax reads"),
        (IMAGE, (Tensor("y", "float32", (5,)),), "4 labels for 5 classes"),
    ],
)
def test_a_wrong_description_leaves_the_store_alone(
    tmp_path: Path, picture: Tensor, outputs: tuple[Tensor, ...], message: str
) -> None:
    (tmp_path / "m.plan").write_bytes(b"plan")
    with pytest.raises(ConfigurationError, match=message):
        add_described(tmp_path / "store", tmp_path / "m.plan", Format.TENSORRT, RECIPE, picture, outputs)
    assert list((tmp_path / "store").iterdir()) == []


def test_a_version_must_be_of_the_same_kind(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path / "store", "m")
    (tmp_path / "m.plan").write_bytes(b"plan")
    picture, logits = Tensor("image", "uint8", (32, 32, 3)), (Tensor("logits", "float32", (4,)),)
    with pytest.raises(ConfigurationError, match="another kind of file"):
        add_described(tmp_path / "store", tmp_path / "m.plan", Format.TENSORRT, RECIPE, picture, logits, version=2)


def test_a_config_goes_in_byte_for_byte(tmp_path: Path) -> None:
    made = add_tiny_classifier(tmp_path / "first", "m")
    folder = made.path.parent.parent
    config = tmp_path / "own.pbtxt"
    config.write_text("# mine\n" + (folder / "config.pbtxt").read_text() + "response_cache { enable: true }\n")
    labels = folder / "labels.txt"
    model = add_configured(tmp_path / "store", made.path, None, config, labels)
    assert (tmp_path / "store" / "m" / "config.pbtxt").read_bytes() == config.read_bytes()
    assert (model.labels, model.path.read_bytes()) == (COLOURS, made.path.read_bytes())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "m', "missing ending quote"),
        ('backend: "pytorch"', "name: missing; add --name"),
        ('name: "m" default_model_filename: "../x"', "leaves the model's folder"),
        ('name: "m" backend: "pytorch"', "max_batch_size|input"),
    ],
)
def test_a_wrong_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.plan").write_bytes(b"plan")
    (tmp_path / "c").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        add_configured(tmp_path / "store", tmp_path / "m.plan", None, tmp_path / "c", None)
