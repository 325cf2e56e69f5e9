"""Holds a model's files against each other: config.pbtxt, labels, the ONNX graph and what the head reads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.engine.limits import excess
from shoal.errors import ConfigurationError, NotFound
from shoal.modelconfig import keys, pbtxt
from shoal.modelconfig.fault import Fault, FaultReport
from shoal.modelconfig.pbtxt import FILE
from shoal.modelstore import ending, graph, outputs, reader, repository, trial
from shoal.modelstore.check_settings import check_settings
from shoal.modelstore.values import dtype_of, shape_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from shoal.modelconfig.model import ModelConfig, Tensor

_STARTED = "model.py"


def check(store: Path, name: str, *, run: bool = False) -> list[Fault]:
    """Every fault of a model, and notes on what it costs to serve as it is.

    Args:
        store: The model store.
        name: The model.
        run: Whether to try a model without faults as a worker does: see ``trial``.

    Raises:
        NotFound: no such model.
    """
    if name not in repository.names(store):
        raise NotFound(f"model {name!r} is not in {store}; `shoal model list` shows what is")
    report = check_folder(store / name)
    if run and not report.errors and not is_step(report):
        trial.add_to(report, store / name)
    return report.faults


def is_step(report: FaultReport) -> bool:
    """Whether the folder that was checked has a step of an ensemble."""
    return any(keys.PART_OF in fault.field for fault in report.faults)


def check_folder(folder: Path) -> FaultReport:
    """The same for a model's folder, wherever it is."""
    report = FaultReport(folder.name)
    config = pbtxt.load(folder / FILE, report)
    if config is not None and (whole := pbtxt.part_of(config)):
        check_settings(folder, config, report)
        report.note(folder / FILE, f'parameters["{keys.PART_OF}"]', f"a step of {whole}, and served as that alone")
        return report
    model = None if config is None else reader.view(folder, config, report)
    if model is None:
        _check_strays(folder, report)
    else:
        sound = not report.errors
        check_settings(folder, config, report)
        if found := excess(model):
            report.error(folder / FILE, *found)
        for version in model.versions:
            _check_graph(folder, replace(model, path=folder / str(version) / model.path.name), report)
            _check_runner(folder / str(version), config, report)
        if sound:
            _check_head(folder, model, report)
            _check_labels(folder, model, report)
            _note_float_input(folder, model, report)
    return report


def _check_runner(version: Path, config: pbtxt.Message, report: FaultReport) -> None:
    """Whether what Triton's Python backend starts is there."""
    file = version / (config.default_model_filename or _STARTED)
    if config.backend == "python" and not file.is_file():
        report.error(file, "", "missing; Triton's Python backend runs it; `shoal model add --runner …` puts it there")


def _check_strays(folder: Path, report: FaultReport) -> None:
    """What can be said of the graphs where config.pbtxt says nothing."""
    for path in sorted(folder.glob("*/*.onnx")):
        _load(path, report)


def _load(path: Path, report: FaultReport) -> tuple[onnx.ModelProto, onnx.ValueInfoProto] | None:
    """The graph at ``path`` and its picture."""
    try:
        proto = graph.read(path)
        return proto, graph.picture_input(proto)
    except ConfigurationError as error:
        report.error(path, "", f"not a model that can be loaded: {error}")
        return None


def _check_graph(folder: Path, model: ModelConfig, report: FaultReport) -> None:
    """Names, data types and shapes of config.pbtxt against the graph's."""
    if model.path.suffix != ".onnx":
        report.note(model.path, "", "not ONNX: its tensors, and whether it loads, were not checked")
        return
    loaded = _load(model.path, report)
    if loaded is None:
        return
    proto, picture = loaded
    wrong = {fault.field.partition(".")[0] for fault in report.errors}  # found already: comparing would only echo them
    if "input" not in wrong:
        _compare(folder, "input", model.input, {picture.name: picture}, report)
    if "output" not in wrong:
        given = {value.name: value for value in proto.graph.output}
        for tensor in model.outputs:
            _compare(folder, "output", tensor, given, report)
        if message := ending.misfit(model, proto):
            report.error(folder / FILE, f'parameters["{keys.HEAD}"]', message)
    batch = shape_of(picture)[:1]
    largest = model.batching.max_batch_size
    if batch and batch[0] not in (outputs.VARIES, largest):
        report.error(
            folder / FILE,
            "max_batch_size",
            f"is {largest}, but the graph's batch is fixed at {batch[0]}; export it dynamic",
        )


def _compare(
    folder: Path, kind: str, tensor: Tensor, graph: dict[str, onnx.ValueInfoProto], report: FaultReport
) -> None:
    file = folder / FILE
    value = graph.get(tensor.name)
    if value is None:
        report.error(
            file, f"{kind}.name", f"{tensor.name!r} is not in the graph; {keys.suggestion(tensor.name, [*graph])}"
        )
        return
    if not value.type.HasField("tensor_type"):
        report.error(file, f"{kind}.name", f"{tensor.name!r} is no tensor in the graph, and can't be read")
        return
    if dtype_of(value) != tensor.dtype:
        report.error(
            file, f"{kind}.data_type", f"of {tensor.name!r} is {tensor.dtype}; the graph's is {dtype_of(value)}"
        )
    own = shape_of(value)[1:]
    fits = len(own) == len(tensor.shape) and all(
        outputs.VARIES in pair or pair[0] == pair[1] for pair in zip(own, tensor.shape, strict=True)
    )
    # A graph may leave an output's shape out altogether.
    if not fits and value.type.tensor_type.HasField("shape"):
        report.error(
            file,
            f"{kind}.dims",
            f"of {tensor.name!r} are {list(tensor.shape)}; the graph's, without the batch, {list(own)}",
        )


def _check_head(folder: Path, model: ModelConfig, report: FaultReport) -> None:
    """Whether the outputs have the shapes that the head reads."""
    if message := outputs.misfit(model):
        report.error(folder / FILE, "output", message)


def _check_labels(folder: Path, model: ModelConfig, report: FaultReport) -> None:
    if not model.labels:
        report.note(folder / FILE, "output.label_filename", "missing; answers carry an index and no label")
        return
    classes = outputs.VARIES if outputs.misfit(model) else outputs.classes(model)
    if classes not in (outputs.VARIES, len(model.labels)):
        report.error(
            folder / FILE,
            "output.label_filename",
            f"names {len(model.labels)} labels for {classes} classes; write one a line, in the order of the output",
        )


def _note_float_input(folder: Path, model: ModelConfig, report: FaultReport) -> None:
    if model.input.dtype == "uint8":
        return
    pixels = 3 * model.height * model.width
    way_out = (
        f"`shoal model add {model.path} --name {model.name}-uint8 --task {model.task} "
        f"--mean {_numbers(model.mean)} --std {_numbers(model.std)}` puts the normalisation into the graph"
        if model.path.suffix == ".onnx"
        else "put the normalisation into the graph before it is exported"
    )
    report.note(
        folder / FILE,
        "input.data_type",
        f"float32 takes {4 * pixels:,} bytes a picture, uint8 {pixels:,}, and the worker's time to normalise; "
        + way_out,
    )


def _numbers(triple: tuple[float, float, float]) -> str:
    return ",".join(f"{number:g}" for number in triple)
