from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from shoal.cli.model import app
from shoal.errors import ConfigurationError, NotFound, Unavailable
from shoal.modelconfig import pbtxt
from shoal.modelconfig.model import Tensor
from shoal.modelstore.formats import Format
from shoal.modelstore.making import runners
from shoal.modelstore.repository import read_model, scan
from support.archives import ARCHIVES, archive
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
        "--max-queue-delay-microseconds", "0", "--resize-filter", "bicubic",
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.output.startswith("added colours version 1: classification, uint8 24x32x3, 4 labels, batches of 16")
    model = read_model(store, "colours")
    assert (model.height, model.width, model.labels, model.resize_shorter_side) == (24, 32, COLOURS, 37)
    assert model.resize_filter == "bicubic"
    assert (model.batching.max_queue_delay_microseconds, model.batching.instance_count) == (0, 3)


def test_the_python_runner_lies_beside_the_model(store: Path, file: Path) -> None:
    run("add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--runner", "python")
    model = read_model(store, "c")
    assert (model.path.name, model.backend) == ("model.onnx", "python")
    assert model.path.with_name("model.py").is_file()
    assert run("check", "c").output.endswith("c: good\n")


@pytest.fixture
def gpu_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the folder of its files."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    for name in ("__init__.py", "model.py", "kernels.cu", "notes.txt"):
        (folder / name).write_text(f"# {name}\n")
    monkeypatch.setattr(runners, "GPU_FOLDER", folder)
    return folder


def test_the_gpu_runner_and_what_it_needs_lie_beside_the_model(store: Path, file: Path, gpu_runner: Path) -> None:
    run(
        "add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--runner", "gpu",
        "--gpus", "0,1", "--instances", "3", "--warmup", "zero",
    )  # fmt: skip
    model = read_model(store, "c")
    assert (model.path.name, model.backend, model.encoded) == ("model.onnx", "python", True)
    assert (model.batching.max_batch_size, model.batching.instance_count) == (64, 6)
    assert {path.name for path in model.path.parent.iterdir()} == {
        "model.onnx", "model.py", "kernels.cu", "encoded_rows.py",
    }  # fmt: skip
    written = pbtxt.parse((store / "c" / "config.pbtxt").read_text())
    assert (written.instance_group[0].count, pbtxt.lanes(written)) == (1, 3)
    assert pbtxt.enum_name(written.instance_group[0], "kind") == "KIND_GPU"
    assert [(each.name, each.optional) for each in written.input] == [("image", True), ("encoded_rows", True)]
    assert [each.name for each in written.output] == ["logits", "row_report"]
    assert run("check", "c").output.endswith("c: good\n")
    run("add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--version", "2")
    assert (store / "c" / "2" / "kernels.cu").is_file()


@pytest.mark.parametrize(
    ("kind", "filename"),
    [(Format.TORCHSCRIPT, "model.pt"), (Format.EXPORTED, "model.pt2"), (Format.AOT_INDUCTOR, "model.pt2")],
)
def test_the_gpu_runner_takes_what_torch_writes(
    store: Path, tmp_path: Path, gpu_runner: Path, kind: Format, filename: str
) -> None:
    model = archive(tmp_path / "any.pt2", *ARCHIVES[kind])
    what = ("add", model, "--name", "t", "--task", "classification", "--runner", "gpu")
    with pytest.raises(ConfigurationError, match="tensors can't be read here: add --input and --output"):
        run(*what, "--input", "x:float32:3x32x32")
    run(*what, "--input", "x:float32:3x32x32", "--output", "y:float32:4", "--mean", "1,2,3", "--std", "4")
    read = read_model(store, "t")
    assert (read.path.name, read.encoded, read.input) == (filename, True, Tensor("x", "uint8", (32, 32, 3)))
    assert runner_parameters(store / "t") == ("FP32 NCHW", "1.0 2.0 3.0", "4.0 4.0 4.0")
    assert read.path.read_bytes() == model.read_bytes()
    assert read.path.with_name("model.py").is_file()
    assert run("check", "t").output.endswith("t: good\n")


def runner_parameters(folder: Path) -> tuple[str | None, ...]:
    written = pbtxt.parse((folder / "config.pbtxt").read_text()).parameters
    keys = (f"shoal.runner.{name}" for name in ("input", "mean", "std"))
    return tuple(written[key].string_value if key in written else None for key in keys)


@pytest.mark.parametrize(
    ("input_", "parameters"),
    [
        ("x:float16:3x32x24", ("FP16 NCHW", "0.0 0.0 0.0", "255.0 255.0 255.0")),
        ("x:float32:32x24x3", ("FP32 NHWC", "0.0 0.0 0.0", "255.0 255.0 255.0")),
        ("x:uint8:32x24x3", ("UINT8 NHWC", None, None)),
    ],
)
def test_the_gpu_runner_is_told_what_the_network_takes(
    store: Path, tmp_path: Path, gpu_runner: Path, input_: str, parameters: tuple[str | None, ...]
) -> None:
    model = archive(tmp_path / "m.pt", *ARCHIVES[Format.TORCHSCRIPT])
    what = ("add", model, "--name", "t", "--task", "classification", "--runner", "gpu")
    run(*what, "--input", input_, "--output", "y:float32:4")
    assert read_model(store, "t").input == Tensor("x", "uint8", (32, 24, 3)), "frames, whatever the network takes"
    assert runner_parameters(store / "t") == parameters


@pytest.mark.parametrize("input_", ["x:float32:4x32x32", "x:int64:3x32x32", "x:float32:32x32", "x:float32:3x-1x32"])
def test_the_gpu_runner_feeds_pictures(store: Path, tmp_path: Path, gpu_runner: Path, input_: str) -> None:
    model = archive(tmp_path / "m.pt", *ARCHIVES[Format.TORCHSCRIPT])
    what = ("add", model, "--name", "t", "--task", "classification", "--runner", "gpu")
    with pytest.raises(
        ConfigurationError, match=f"--input {input_}: the GPU runner feeds uint8, float16, float32 of 3x"
    ):
        run(*what, "--input", input_, "--output", "y:float32:4")
    assert not store.exists()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Format.EXPORTED, (), r"is an exported program, which Triton can't run as it is: add it with --runner gpu"),
        (Format.TORCHSCRIPT, ("--runner", "python"), "is TorchScript: --runner python runs ONNX; leave it out"),
        (Format.TORCHSCRIPT, ("--runner", "gpu", "--instance-kind", "cpu"), "decodes on a GPU; leave --instance-kind"),
    ],
)
def test_a_runner_says_what_it_can_not_run(
    store: Path, tmp_path: Path, gpu_runner: Path, kind: Format, options: tuple[str, ...], message: str
) -> None:
    model = archive(tmp_path / "m.pt2", *ARCHIVES[kind])
    with pytest.raises(ConfigurationError, match=message):
        run("add", model, "--name", "t", "--task", "classification", *options)
    assert not store.exists()


def test_a_plan_has_a_runner_of_its_own(store: Path, tmp_path: Path, gpu_runner: Path) -> None:
    (tmp_path / "m.plan").write_bytes(b"plan")
    with pytest.raises(ConfigurationError, match="is a TensorRT plan: --runner gpu runs ONNX, TorchScript"):
        run("add", tmp_path / "m.plan", "--name", "t", "--task", "classification", "--runner", "gpu")


def test_an_installation_without_the_gpu_runner_says_so(store: Path, file: Path, gpu_runner: Path) -> None:
    (gpu_runner / "model.py").unlink()
    with pytest.raises(ConfigurationError, match=r"has no model\.py; install shoal as a whole"):
        run("add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--runner", "gpu")


def test_a_runner_that_is_gone_is_missed(store: Path, file: Path) -> None:
    run("add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--runner", "python")
    (store / "c" / "1" / "model.py").unlink()
    told = run("check", "c")
    assert told.exit_code == 1
    assert "c/1/model.py: missing; Triton's Python backend runs it" in told.output


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


ADD = ("--name", "c", "--task", "classification", "--size", "32x32")


def test_settings_for_triton(store: Path, file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(picture)
    run(
        "add", file, *ADD, "--instances", "2", "--gpus", "0,1", "--version-policy", "specific:1,3",
        "--preferred-batch-size", "8,4", "--max-queue-size", "100",
        "--warmup", "zero", "--warmup", picture, "--warmup-batch-size", "1,8", "--warmup-count", "3",
    )  # fmt: skip
    config = pbtxt.parse((store / "c" / "config.pbtxt").read_text())
    (group,) = config.instance_group
    assert (group.count, list(group.gpus), pbtxt.enum_name(group, "kind")) == (2, [0, 1], "KIND_GPU")
    assert list(config.version_policy.specific.versions) == [1, 3]
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 100
    assert [(sample.batch_size, sample.count) for sample in config.model_warmup] == [(1, 3), (8, 3)] * 2
    assert (store / "c" / "warmup" / "red.png.raw").read_bytes() == bytes((255, 0, 0)) * 32 * 32
    assert read_model(store, "c").batching.instance_count == 4
    assert run("check", "c").stdout.splitlines()[-1] == "c: good"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--gpus", "0,x"], "--gpus 0,x: expected whole numbers from 0"),
        (["--gpus", "1,1"], "each once"),
        (["--gpus", "0", "--instance-kind", "cpu"], "--gpus goes with --instance-kind gpu"),
        (["--version-policy", "newest"], "expected latest:N, specific:N,… or all"),
        (["--version-policy", "latest:0"], "--version-policy latest:0"),
        (["--version-policy", "specific:2"], "version_policy.specific: wants version 2; present: 1"),
        (["--preferred-batch-size", "0"], "--preferred-batch-size 0: expected whole numbers from 1"),
        (["--preferred-batch-size", "16", "--max-batch-size", "8"], "is over --max-batch-size 8"),
        (["--preferred-batch-size", "16"], "preferred_batch_size.*max_batch_size"),
        (["--warmup-count", "3"], "--warmup-count: of what"),
        (["--warmup", "zero", "--warmup", "zero"], "each name once"),
        (["--warmup", "zero", "--warmup-batch-size", "9"], "--warmup-batch-size 9 is over the model's largest, 8"),
        (["--warmup", "gone.jpg"], "--warmup gone.jpg: can't be read"),
        (["--input", "a:uint8:1"], "--input: an ONNX file says it itself"),
        (["--config", "c"], "--size, --task: --config says it"),
    ],
)
def test_a_wrong_setting_is_named(store: Path, file: Path, extra: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run("add", file, *ADD, *extra)
    assert not (store / "c").exists()


def test_a_picture_that_is_none_is_named(store: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"--warmup {file}: "):
        run("add", file, *ADD, "--warmup", file)


def test_a_new_version_says_which_options_changed_nothing(store: Path, file: Path) -> None:
    run("add", file, *ADD)
    result = run("add", file, *ADD, "--version", "2", "--instances", "4", "--max-queue-delay-microseconds", "0")
    assert "stays as it was: --instances, --max-queue-delay-microseconds changed nothing" in result.stderr
    assert read_model(store, "c").batching.instance_count == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "is TorchScript, whose tensors can't be read here: add --input and --output"),
        (["--input", "x:uint8:32x32", "--output", "y:float32:4"], "input.dims"),
        (["--input", "x:byte:32x32x3", "--output", "y:float32:4"], "--input x:byte:32x32x3: expected NAME:DTYPE:DIMS"),
        (["--input", "x:uint8:32x0x3", "--output", "y:float32:4"], "expected NAME:DTYPE:DIMS"),
        (["--input", "x:uint8:32x32x3", "--output", "y:float32:4", "--mean", "3"], "--mean: TorchScript goes in as"),
    ],
)
def test_a_torchscript_file_is_described(store: Path, tmp_path: Path, extra: list[str], message: str) -> None:
    model = archive(tmp_path / "m.pt", *ARCHIVES[Format.TORCHSCRIPT])
    with pytest.raises(ConfigurationError, match=message):
        run("add", model, "--name", "t", "--task", "classification", *extra)
    done = run(
        "add", model, "--name", "t", "--task", "classification",
        "--input", "INPUT__0:uint8:32x32x3", "--output", "OUTPUT__0:float32:4",
    )  # fmt: skip
    assert "was not checked" in done.stderr
    assert "added t version 1" in done.stdout


def test_push_and_pull(store: Path, tmp_path: Path) -> None:
    add_tiny_classifier(store)
    add_tiny_classifier(store, version=2)
    url = f"file://{tmp_path / 'bucket'}"
    assert run("push", "tiny", url).stdout == "tiny: published versions 1, 2\n"
    assert run("push", "tiny", url).stdout == "tiny: nothing new\n"
    other = tmp_path / "other"
    assert run("pull", url, "--store", other).stdout == f"tiny: pulled to {other / 'tiny'}\n"
    assert run("pull", url, "tiny", "--store", other).stdout == "tiny: nothing new\n"
    assert read_model(other, "tiny").version == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["push", "tiny"], ConfigurationError, "expected one model or more and a URL"),
        (["push", "tiny", "http://x"], ConfigurationError, "URL: must start with s3://"),
        (["push", "tiny", "s3://b", "--endpoint", "x"], ConfigurationError, "--endpoint: must start with http://"),
        (["push", "tiny", "s3://key:hunter2@b"], ConfigurationError, "URL: must not hold a user or a password"),
        (["push", "nope", "file:///{}/b"], NotFound, "'nope' is not in"),
        (["pull", "file:///{}/b"], NotFound, "no model"),
        (["pull", "file:///{}/b", "nope"], NotFound, "has no model nope; there: no model"),
        (["pull", "s3://b", "--credentials-file", "gone"], ConfigurationError, "gone: can't be read"),
    ],
)
def test_a_wrong_transfer_is_named(
    store: Path, tmp_path: Path, arguments: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        run(*(argument.replace("/{}", str(tmp_path)) for argument in arguments))
    assert "hunter2" not in str(caught.value)


def test_check_against_a_triton_that_is_away(store: Path) -> None:
    add_tiny_classifier(store)
    with pytest.raises(Unavailable, match="is away"):
        run("check", "--triton", "127.0.0.1:1")


def test_an_export_with_every_axis_open_is_fed_as_its_preprocessor_says(store: Path, tmp_path: Path) -> None:
    model = classifier(None)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("b", "channels", "h", "w"), strict=True):
        dim.dim_param = name
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    arguments = ("add", file, "--task", "classification", "--name")
    with pytest.raises(ConfigurationError, match=r"leaves its size open.*--size"):
        run(*arguments, "asked")
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 40}, "do_center_crop": true, "crop_size": 32, "image_mean": [0, 0, 0], '
        '"image_std": [1, 1, 1]}'
    )
    result = run(*arguments, "told")
    assert "from " in result.output
    assert "size 32,32, resize crop, resize shorter side 40, mean 0,0,0, std 255,255,255" in result.output
    told = read_model(store, "told")
    assert (told.input.shape, told.resize.value, told.resize_shorter_side) == ((32, 32, 3), "crop", 40)
    run(*arguments, "overruled", "--size", "16x24")
    overruled = read_model(store, "overruled")
    assert (overruled.input.shape, overruled.resize.value) == ((16, 24, 3), "stretch")
    run(*arguments, "agreed", "--size", "32x32")
    assert read_model(store, "agreed").resize.value == "crop"


def test_of_an_onnx_model_an_output_is_named_alone(store: Path, tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    name = classifier().graph.output[0].name
    arguments = ("add", tmp_path / "model.onnx", "--task", "classification", "--name", "c", "--output")
    with pytest.raises(ConfigurationError, match="has no such output"):
        run(*arguments, f"{name}:float32:4")
    run(*arguments, name)
    assert [output.name for output in read_model(store, "c").outputs] == [name]


def test_a_label_file_from_windows_is_read(store: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(COLOURS).encode() + b"\r\n")
    arguments = ("--task", "classification", "--size", "8x8", "--labels", tmp_path / "names")
    run("add", file, "--name", "c", *arguments)
    assert read_model(store, "c").labels == COLOURS
    (tmp_path / "names").write_bytes("Grün\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"names: not UTF-8 from byte 2 \(line 1\)"):
        run("add", file, "--name", "d", *arguments)


def test_of_several_models_one_that_cannot_be_had_leaves_the_others_alone(store: Path, tmp_path: Path) -> None:
    add_tiny_classifier(store, "good")
    add_tiny_classifier(store, "odd")
    url = f"file://{tmp_path / 'bucket'}"
    run("push", "good", "odd", url)
    (tmp_path / "bucket" / "manifests" / "odd" / "1.json").write_text("[" * 100_000)
    result = run("pull", url, "--store", tmp_path / "other")
    assert (result.exit_code, (tmp_path / "other" / "good").is_dir()) == (1, True)
    assert "odd: manifests/odd/1.json: not a manifest: nested too deep" in result.output
    with pytest.raises(ConfigurationError, match="not a manifest"):
        run("pull", url, "odd", "--store", tmp_path / "other")


def test_a_step_that_decodes_stands_before_a_model_in_its_own_backend(
    store: Path, file: Path, gpu_runner: Path
) -> None:
    run(
        "add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--runner", "gpu-decode",
        "--labels", file.with_name("names"), "--instances", "3",
    )  # fmt: skip
    whole = read_model(store, "c")
    assert (whole.encoded, whole.backend, whole.labels) == (True, "ensemble", COLOURS)
    assert (whole.batching.max_batch_size, whole.batching.instance_count) == (64, 3)
    assert list(scan(store)[0]) == ["c"]
    configs = {each.name: pbtxt.parse((each / "config.pbtxt").read_text()) for each in store.iterdir()}
    assert {name: pbtxt.part_of(each) for name, each in configs.items()} == {"c": "", "c_decode": "c", "c_model": "c"}
    assert [step.model_name for step in configs["c"].ensemble_scheduling.step] == ["c_decode", "c_model"]
    assert configs["c_model"].backend == "onnxruntime"
    assert configs["c_model"].dynamic_batching.max_queue_delay_microseconds == 0
    assert not configs["c"].instance_group
    (pixels, report) = configs["c_decode"].output
    assert (list(pixels.dims), list(report.dims)) == ([8, 8, 3], [4])
    assert {path.name for path in (store / "c_decode" / "1").iterdir()} == {
        "model.py", "kernels.cu", "encoded_rows.py",
    }  # fmt: skip
    told = run("check").output
    assert all(f"{name}: good\n" in told for name in configs)
    assert 'c_model/config.pbtxt: parameters["shoal.part_of"]: a step of c' in told
    with pytest.raises(ConfigurationError, match="c is an ensemble; add the version to c_model"):
        run("add", file, "--name", "c", "--task", "classification", "--size", "8x8", "--version", "2")
    with pytest.raises(ConfigurationError, match="add the version to d_model, which d runs"):
        run(
            "add", file, "--name", "d", "--task", "classification", "--size", "8x8", "--runner", "gpu-decode",
            "--version", "2",
        )  # fmt: skip


def test_a_plan_may_be_the_second_step_and_what_fails_leaves_nothing(
    store: Path, tmp_path: Path, gpu_runner: Path
) -> None:
    (tmp_path / "m.plan").write_bytes(b"plan")
    what = (
        "add", tmp_path / "m.plan", "--name", "t", "--task", "classification", "--runner", "gpu-decode",
        "--input", "x:float32:3x8x8", "--output", "y:float32:4", "--mean", "1,2,3", "--std", "4", "--resize", "crop",
    )  # fmt: skip
    kept = (gpu_runner / "model.py").rename(tmp_path / "kept")
    with pytest.raises(ConfigurationError, match="install shoal as a whole"):
        run(*what)
    assert list(store.iterdir()) == []
    kept.rename(gpu_runner / "model.py")
    run(*what)
    decode = pbtxt.parse((store / "t_decode" / "config.pbtxt").read_text())
    assert runner_parameters(store / "t_decode") == ("FP32 NCHW", "1.0 2.0 3.0", "4.0 4.0 4.0")
    assert (list(decode.input[0].dims), list(decode.output[0].dims)) == ([8, 8, 3], [3, 8, 8])
    assert read_model(store, "t").input == Tensor("x", "uint8", (8, 8, 3)), "frames, whatever the network takes"
    assert pbtxt.parse((store / "t_model" / "config.pbtxt").read_text()).platform == "tensorrt_plan"
