from __future__ import annotations

import os
import pickle
import random
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Task
from shoal.modelstore import external, formats, graph
from shoal.modelstore.check import check_folder
from shoal.modelstore.making import build, foreign
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.making.wrap import wrap
from support.tiny_models import classifier

if TYPE_CHECKING:
    from pathlib import Path


def recipe(**fields: Any) -> Recipe:
    return Recipe(name="m", task=Task.CLASSIFICATION, **fields)


def linear(
    axes: list[int | str], *tail: onnx.NodeProto, classes: int = 5, **outputs: onnx.ValueInfoProto
) -> onnx.ModelProto:
    """The mean of each channel, each channel its own class: ``mean`` is (batch, classes)."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "weights"], ["mean"]),
        *tail,
    ]
    picture = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, axes)
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [axes[0], classes])
    made = helper.make_graph(
        nodes, "g", [picture], list(outputs.values()) or [mean],
        [numpy_helper.from_array(np.eye(3, classes, dtype=np.float32), "weights")],
    )  # fmt: skip
    imports = [
        helper.make_opsetid("", 13),
        helper.make_opsetid("com.microsoft", 1),
        helper.make_opsetid("ai.onnx.ml", 3),
    ]
    return helper.make_model(made, opset_imports=imports, ir_version=8)


def outside(model: onnx.ModelProto, file: Path, location: str = "weights.bin") -> Path:
    """Saved with every weight in another file."""
    onnx.save(model, file, save_as_external_data=True, location=location, size_threshold=0)
    return file


def pictures(size: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def means(seen: np.ndarray, classes: int = 5) -> np.ndarray:
    expected = np.zeros((len(seen), classes))
    expected[:, :3] = seen.mean((1, 2)) / 255
    return expected


# Weights in other files.


@pytest.mark.parametrize("inline_bytes", [2**30, 0], ids=["taken in", "beside it"])
def test_a_model_with_its_weights_in_another_file_is_added_with_them(
    tmp_path: Path, inline_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_SMALL_BYTES", 0)
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "model.onnx")
    loaded = graph.load(file, inline_bytes=inline_bytes)
    added = build.add_model(tmp_path / "store", loaded, recipe(), weights=tmp_path)
    assert added.path.with_name(external.FILE).exists() == (inline_bytes == 0)
    file.unlink()
    (tmp_path / "weights.bin").unlink()
    (answer,) = ReferenceEvaluator(str(added.path)).run(None, {added.input.name: pictures()})
    np.testing.assert_allclose(answer, means(pictures()), rtol=1e-5)
    assert check_folder(added.path.parent.parent).errors == []


def test_weights_that_have_other_links_are_read(tmp_path: Path) -> None:
    """As package managers and caches leave them."""
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "model.onnx")
    os.link(tmp_path / "weights.bin", tmp_path / "another-name")
    assert external.tensors(graph.load(file)) == []


def test_a_missing_file_of_weights_is_named_with_its_folder(tmp_path: Path) -> None:
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "model.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ConfigurationError, match=rf"'weights.bin', which isn't in {tmp_path}; put it there"):
        build.add_onnx(tmp_path / "store", file, recipe())


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret", "a/../../secret", "..\\secret", "", "nul\0"])
def test_weights_are_read_from_the_models_own_folder_only(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(100))
    (tmp_path / "in").mkdir()
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "in" / "model.onnx")
    model = onnx.load(file, load_external_data=False)
    for entry in external.tensors(model)[0].external_data:
        if entry.key == "location":
            entry.value = location
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigurationError, match="only a file of the model's own folder is read"):
        graph.load(file)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "out" / "model.onnx")
    location = "weights.bin" if kind == "file" else "sub/weights.bin"
    model = onnx.load(file, load_external_data=False)
    next(entry for entry in external.tensors(model)[0].external_data if entry.key == "location").value = location
    (tmp_path / "in" / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "in" / location.partition("/")[0]).symlink_to(
        tmp_path / "out" / ("weights.bin" if kind == "file" else "")
    )
    with pytest.raises(ConfigurationError, match="a link that leads out of"):
        graph.load(tmp_path / "in" / "model.onnx")


def test_weights_that_are_cut_off_are_named(tmp_path: Path) -> None:
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "model.onnx")
    os.truncate(tmp_path / "weights.bin", 10)
    with pytest.raises(ConfigurationError, match="which has 10; it isn't whole"):
        graph.load(file)


def test_a_pipe_for_weights_is_not_waited_for(tmp_path: Path) -> None:
    file = outside(linear(["b", 3, 8, 8]), tmp_path / "model.onnx")
    (tmp_path / "weights.bin").unlink()
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(ConfigurationError, match="is a pipe, not a file"):
        graph.load(file)


def test_a_file_over_two_gibibytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.write(b"\x08\x08")
        file.truncate(2**31)
    with pytest.raises(ConfigurationError, match="over 2 GiB"):
        graph.load(tmp_path / "model.onnx")


# What is no model.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 17000000\n", "Git LFS .* 17,000,000 bytes"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b'{"error": "not found"}', "JSON"),
        (b"<?xml version='1.0'?><net/>", "XML"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"@\0\0\0\0\0\0\0{\"__metadata__\":{}}", "safetensors"),
        (pickle.dumps([1]), "pickle"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"Salted__abcdefgh", "encrypted"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_called_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"model\.onnx: .*{reason}"):
        formats.detect(file)


def test_an_archive_and_a_folder_name_the_model_in_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("export/model.onnx", b"x")
    with pytest.raises(ConfigurationError, match="unpack it first"):
        formats.detect(tmp_path / "model.zip")
    (tmp_path / "export" / "onnx").mkdir(parents=True)
    (tmp_path / "export" / "onnx" / "model.onnx").touch()
    with pytest.raises(ConfigurationError, match=r"is a folder; name the file, such as .*onnx/model\.onnx"):
        formats.detect(tmp_path / "export")


@pytest.mark.parametrize("length", [1, 40, 100, -1])
def test_a_file_that_is_cut_off_or_random_is_no_traceback(tmp_path: Path, length: int) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(classifier().SerializeToString()[:length])
    with pytest.raises(ConfigurationError, match=r"model\.onnx: "):
        build.add_onnx(tmp_path / "store", file, recipe())
    file.write_bytes(np.random.default_rng(length + 1).bytes(1000))
    with pytest.raises(ConfigurationError, match=r"model\.onnx: "):
        build.add_onnx(tmp_path / "store", file, recipe())


# Operators and versions that aren't known here.


def test_an_operator_beyond_onnx_keeps_the_shape_that_the_file_declares() -> None:
    gelu = helper.make_node("QuickGelu", ["mean"], ["logits"], domain="com.microsoft", alpha=1.7)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 5])
    wrapped = wrap(linear(["b", 3, 8, 8], gelu, logits=logits), recipe())
    assert [(output.name, output.shape) for output in wrapped.outputs] == [("logits", (5,))]
    assert graph.foreign_operators(wrapped.model) == ["com.microsoft.QuickGelu"]


def test_an_output_that_nobody_knows_the_shape_of_is_named() -> None:
    gelu = helper.make_node("QuickGelu", ["mean"], ["logits"], domain="com.microsoft")
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    with pytest.raises(ConfigurationError, match="'logits' has no shape in the file"):
        wrap(linear(["b", 3, 8, 8], gelu, logits=logits), recipe())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.opset_import[0].__setattr__("version", 99), "is of opset 99; onnx .* knows"),
        (lambda model: model.__setattr__("ir_version", 99), "IR version 99"),
        (lambda model: model.graph.node[0].__setattr__("domain", "org.x"), r"org\.x\.ReduceMean.*opset_import"),
        (lambda model: model.graph.output.pop(), "no outputs"),
        (lambda model: model.ClearField("graph"), "holds no graph"),
    ],
)  # fmt: skip
def test_what_is_newer_or_strange_is_called_so(change: Any, reason: str) -> None:
    model = linear(["b", 3, 8, 8])
    change(model)
    with pytest.raises(ConfigurationError, match=reason):
        graph.require_valid(model)


def test_an_output_without_a_shape_gets_the_inferred_one() -> None:
    wrapped = wrap(
        linear(["b", 3, 8, 8], mean=helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)), recipe()
    )
    assert wrapped.outputs[0].shape == (5,)


# Outputs that can't be served, beside those that can.


def _labels() -> tuple[onnx.NodeProto, onnx.NodeProto]:
    return (
        helper.make_node("ArgMax", ["mean"], ["index"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml", keys_int64s=[0], values_strings=["a"]
        ),
    )  # fmt: skip


def _value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _sequence() -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info("label", TensorProto.FLOAT, None)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (_value("label", TensorProto.STRING, ["b"]), "'label' is text"),
        (_sequence(), "'label' is a sequence"),
        (_value("index", TensorProto.INT64, ["b"]), "'index' is one number a picture"),
        (_value("half", TensorProto.BFLOAT16, ["b", 5]), "'half' is bfloat16"),
    ],
)
def test_an_output_that_is_no_tensor_of_numbers_is_named_and_can_be_left_out(
    output: onnx.ValueInfoProto, reason: str
) -> None:
    tail = [*_labels(), helper.make_node("Cast", ["mean"], ["half"], to=TensorProto.BFLOAT16)]
    if output.type.HasField("sequence_type"):
        tail[1] = helper.make_node("SequenceConstruct", ["mean"], ["label"])
    mean = _value("mean", TensorProto.FLOAT, ["b", 5])
    model = linear(["b", 3, 8, 8], *tail, first=output, mean=mean)
    with pytest.raises(ConfigurationError, match=rf"{reason}.*--output NAME"):
        wrap(model, recipe())
    wrapped = wrap(model, recipe(outputs=("mean",)))
    assert [output.name for output in wrapped.outputs] == ["mean"]
    assert {"ArgMax", "LabelEncoder", "Cast"} & {node.op_type for node in wrapped.model.graph.node[4:]} == set()
    (answer,) = ReferenceEvaluator(wrapped.model).run(None, {wrapped.input.name: pictures()})
    np.testing.assert_allclose(answer, means(pictures()), rtol=1e-5)


def test_leaving_an_output_out_leaves_the_inputs_that_it_alone_reads_out_too() -> None:
    text = helper.make_node("Identity", ["tokens"], ["text"])
    model = linear(
        ["b", 3, 8, 8], text,
        mean=_value("mean", TensorProto.FLOAT, ["b", 5]), text=_value("text", TensorProto.INT64, ["b", 7]),
    )  # fmt: skip
    model.graph.input.append(_value("tokens", TensorProto.INT64, ["b", 7]))
    with pytest.raises(ConfigurationError, match="inputs are pixels, tokens"):
        wrap(model, recipe())
    assert wrap(model, recipe(outputs=("mean",))).input.shape == (8, 8, 3)


def test_an_output_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="--output logits: the graph has no such output, but mean"):
        wrap(linear(["b", 3, 8, 8]), recipe(outputs=("logits",)))


# Every axis open.


@pytest.mark.parametrize(
    ("axes", "fields"),
    [
        (["batch_size", "num_channels", "height", "width"], {}),
        (["b", "?", "?", "?"], {"layout": "nchw"}),
        (["b", "x", 8, 8], {}),
        (["b", 3, "h", "x"], {}),
    ],
)
def test_open_axes_take_the_size_that_is_said(axes: list[int | str], fields: dict[str, Any]) -> None:
    wrapped = wrap(linear(axes), recipe(size=(8, 8), **fields))
    assert (wrapped.input.shape, [output.shape for output in wrapped.outputs]) == ((8, 8, 3), [(5,)])
    (answer,) = ReferenceEvaluator(wrapped.model).run(None, {wrapped.input.name: pictures()})
    np.testing.assert_allclose(answer, means(pictures()), rtol=1e-5)


def test_the_first_convolution_tells_where_open_channels_are() -> None:
    weights = numpy_helper.from_array(np.zeros((5, 3, 2, 2), np.float32), "w")
    for transposed in (False, True):
        nodes = [helper.make_node("Conv", ["t" if transposed else "pixels", "w"], ["y"])]
        if transposed:
            nodes.insert(0, helper.make_node("Transpose", ["pixels"], ["t"], perm=[0, 3, 1, 2]))
        picture = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["a", "b", "c", "d"])
        answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        made = helper.make_graph(nodes, "g", [picture], [answer], [weights])
        wrapped = wrap(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)]), recipe(size=(4, 6)))
        assert (wrapped.input.shape, wrapped.outputs[0].shape) == ((4, 6, 3), (5, 3, 5))


@pytest.mark.parametrize(
    ("axes", "fields", "reason"),
    [
        (["a", "b", "c", "d"], {"size": (8, 8)}, r"\[a, b, c, d\], and nothing tells .* --layout nchw"),
        (
            ["batch", "channels", "height", "width"],
            {},
            "leaves its size open.*--size HEIGHTxWIDTH.*preprocessor_config",
        ),
        (["b", 3, 8, 8], {"layout": "nhwc"}, "--layout nhwc: input 'pixels' is"),
        (["b", 1, "h", "w"], {"size": (8, 8), "layout": "nchw"}, "--layout nchw"),
        (["b", 1, 8, 8], {}, "expected a float or uint8 picture"),
        (["b", 3, "h"], {}, "expected a float or uint8 picture"),
    ],
)
def test_what_isnt_told_is_asked_for(axes: list[int | str], fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        wrap(linear(axes), recipe(**fields))


def test_with_a_config_of_its_own_the_weights_come_along_too(tmp_path: Path) -> None:
    described = build.add_onnx(tmp_path / "first", outside(linear(["b", 3, 8, 8]), tmp_path / "a.onnx"), recipe())
    config = described.path.parent.parent / "config.pbtxt"
    (tmp_path / "in").mkdir()
    file = outside(onnx.load(described.path), tmp_path / "in" / "b.onnx", "deep.bin")
    added = foreign.add_configured(tmp_path / "second", file, None, config, None)
    assert added.path.with_name("deep.bin").is_file()
    (tmp_path / "in" / "deep.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"'deep\.bin', which isn't in"):
        foreign.add_configured(tmp_path / "third", file, None, config, None)


def test_a_damaged_file_is_added_or_refused_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(2)
    whole = classifier(8).SerializeToString()
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 3))
        (tmp_path / "model.onnx").write_bytes(damaged)
        try:
            wrap(graph.load(tmp_path / "model.onnx"), recipe())
        except ConfigurationError:
            refused += 1
    assert refused > 75
