"""What an ONNX graph says of its outputs beside their shapes: the operator that made them, and who exported it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.modelstore import output_names

if TYPE_CHECKING:
    import onnx

    from shoal.modelconfig.model import ModelConfig

_SHAPING: Final = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast"}
"""Operators that change no value."""
_PROBABILITIES: Final = {"Softmax", "Sigmoid", "HardSigmoid"}
_UNSUPPORTED_TASKS: Final = {"pose": "poses", "obb": "oriented boxes", "segment": "masks of single objects"}
"""Ultralytics' words in a model's metadata
(https://github.com/ultralytics/ultralytics/blob/main/ultralytics/engine/exporter.py), and what they stand for."""
_DETECTORS: Final = {"yolov5", "yolov8", "end_to_end"}


def misfit(model: ModelConfig, proto: onnx.ModelProto) -> str:
    """Why the model's head can't read what the graph makes, and which can; empty: nothing speaks against it."""
    task = next((entry.value for entry in proto.metadata_props if entry.key == "task"), "")
    if model.head in _DETECTORS and task in _UNSUPPORTED_TASKS:
        return (
            f"the model was exported for {_UNSUPPORTED_TASKS[task]}, which are not supported; export one that answers "
            "boxes alone"
        )
    last = _operator(proto.graph, _scores(model))
    if model.head == "softmax" and last in _PROBABILITIES:
        return f"the graph ends in {last}, so it answers probabilities already; use head probabilities"
    if model.head == "sigmoid" and last in _PROBABILITIES:
        return f"the graph ends in {last}, so it answers probabilities already; use head foreground"
    if model.head == "probabilities" and last == "LogSoftmax":
        return "the graph ends in LogSoftmax, so it answers logarithms; use head softmax"
    if model.head == "detr" and last in _PROBABILITIES:
        return f"the graph ends in {last}, and the head takes logits; export the model without it"
    return ""


def _scores(model: ModelConfig) -> str:
    """The output that holds them."""
    names = [output.name for output in model.outputs]
    queries = output_names.query_outputs(names) if model.head == "detr" else None
    return queries[0] if queries else names[0]


def _operator(graph: onnx.GraphProto, name: str) -> str:
    """The operator that makes the values of ``name``; empty: none, or none that is known here."""
    makers = {output: node for node in graph.node for output in node.output if output}
    seen: set[str] = set()
    while name in makers and name not in seen:
        seen.add(name)
        node = makers[name]
        if node.op_type not in _SHAPING:
            return str(node.op_type) if node.domain in {"", "ai.onnx"} else ""
        name = node.input[0] if node.input else ""
    return ""
