"""From a model's folder to its ``ModelConfig``, with every fault on the way named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.modelconfig import encoded, keys, pbtxt
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Tensor
from shoal.modelstore import labels
from shoal.modelstore.formats import default_filename
from shoal.modelstore.parameters import Parameters
from shoal.modelstore.versions import served
from shoal.runtime import intake

if TYPE_CHECKING:
    from shoal.modelconfig.fault import FaultReport

_CHANNELS = 3
_LAYOUTS = {"uint8": (2, "[height, width, 3]"), "float32": (0, "[3, height, width]")}
"""What workers feed: a data type, where its channels are, and its layout."""
_ENSEMBLE = "ensemble"
_MOST_NUMBERS = 2**28
"""The most in one input, a square of 9,459 pixels: a worker that made room for more would end, with all its models."""


def read(folder: Path, report: FaultReport) -> ModelConfig | None:
    """The model in ``folder``; None, with the reasons in ``report``, if it can't be served.

    Reads config.pbtxt, the label file and the names of the version folders, not the model itself.
    """
    model = inspect(folder, report)
    return None if report.errors else model


def inspect(folder: Path, report: FaultReport) -> ModelConfig | None:
    """The model in ``folder``, also one with faults: its wrong fields are at their defaults. None: no config.pbtxt."""
    config = pbtxt.load(folder / pbtxt.FILE, report)
    return None if config is None else view(folder, config, report)


def view(folder: Path, config: pbtxt.Message, report: FaultReport) -> ModelConfig | None:
    """Does what ``inspect`` does with a config.pbtxt that was read already."""
    try:
        return _Reader(folder, config, report).model()
    except OSError as error:  # a folder that may not be listed, or that somebody just took away
        report.error(folder, "", f"can't be read: {error.strerror}")
        return None


def from_server(
    config: Any,  # a protobuf message
    version: int,
    labels: tuple[str, ...],
    report: FaultReport,
) -> ModelConfig | None:
    """The model that an inference server tells of; None, with the reasons in ``report``, if it can't be served.

    Args:
        config: Its ``inference.ModelConfig``.
        version: What it serves.
        labels: Of the output.
        report: Takes the faults.
    """
    model = _ServedReader(config, version, labels, report).model()
    return None if report.errors else model


class _Reader:
    """Reads one message field by field; a wrong field is reported and stands in with its default."""

    def __init__(self, folder: Path, config: Any, report: FaultReport) -> None:  # a protobuf message
        self._folder = folder
        self._file = folder / pbtxt.FILE
        self._config = config
        self._report = report
        self._parameters = Parameters(config, self._error)

    def model(self) -> ModelConfig:
        if self._config.name not in {"", self._folder.name}:
            self._error("name", f"is {self._config.name!r}, but the folder is {self._folder.name!r}")
        allowed, path = self._versions()
        task = self._parameters.task()
        head = self._parameters.head(task)
        self._parameters.report_unknown(head)
        input_ = self._input()
        outputs = tuple(self._tensor("output", tensor) for tensor in encoded.answers(self._config))
        if not outputs:
            self._error("output", "missing; name each output with data_type and dims")
        resize = self._parameters.resize()
        return ModelConfig(
            name=self._folder.name,
            version=allowed[-1] if allowed else 0,
            versions=tuple(allowed),
            path=path,
            task=task,
            input=input_,
            outputs=outputs,
            batching=self._batching(),
            labels=self._labels(),
            resize=resize,
            resize_shorter_side=self._parameters.shorter_side(resize, input_),
            resize_filter=self._parameters.resize_filter(),
            mean=self._parameters.mean(),
            std=self._parameters.std(),
            head=head,
            head_parameters=self._parameters.head_parameters(),
            backend=self._config.backend or (_ENSEMBLE if pbtxt.is_ensemble(self._config) else "onnxruntime"),
            encoded=self._takes_encoded_rows(),
        )

    def _error(self, field: str, message: str) -> None:
        self._report.error(self._file, field, message)

    # The model's file.

    def _versions(self) -> tuple[list[int], Path]:
        """The versions that version_policy allows, lowest first, and the file of the highest."""
        filename = self._filename()
        policy = self._config.version_policy
        present = versions(self._folder, filename)
        if pbtxt.is_ensemble(self._config):  # whose versions are empty folders
            filename, present = "", versions(self._folder)
        if allowed := served(policy, present):
            return allowed, self._folder / str(allowed[-1]) / filename
        if present:
            wanted = ", ".join(map(str, policy.specific.versions))
            self._error("version_policy.specific", f"wants version {wanted}; present: {', '.join(map(str, present))}")
        else:
            self._report.error(self._folder / "1" / filename, "", self._no_version(filename))
        return [], self._folder / "0" / filename

    def _filename(self) -> str:
        """The name of the model's file; where a ``model.py`` runs it, ``keys.MODEL_FILENAME`` says it."""
        usual = default_filename(self._config.backend, self._config.platform)
        named = {
            "default_model_filename": self._config.default_model_filename,
            f'parameters["{keys.MODEL_FILENAME}"]': self._parameters.model_filename(),
        }
        for field, filename in named.items():
            if filename and not pbtxt.is_plain(filename):
                self._error(field, f"{filename!r} leaves the model's folder")
                return usual
        default, run = named.values()
        return run or default or usual

    def _no_version(self, filename: str) -> str:
        strays = sorted(self._folder.glob(f"*/{filename}")) + sorted(self._folder.glob(filename))
        found = (
            f"; {strays[0].relative_to(self._folder)} is there, but not in a folder named by a number" if strays else ""
        )
        return f"missing; a model is at <version>/{filename}, such as 1/{filename}{found}"

    # Tensors.

    def _input(self) -> Tensor:
        inputs = encoded.pictures(self._config)
        if len(inputs) != 1:
            self._error("input", f"has {len(inputs)} entries; Shoal feeds one, the picture")
            return Tensor("", "uint8", (1, 1, _CHANNELS))
        tensor = self._tensor("input", inputs[0])
        if tensor.dtype not in _LAYOUTS:
            self._error("input.data_type", f"{tensor.dtype} can't be fed; use TYPE_UINT8, or TYPE_FP32")
            return tensor
        channel, layout = _LAYOUTS[tensor.dtype]
        if len(tensor.shape) != _CHANNELS or tensor.shape[channel] != _CHANNELS:
            self._error("input.dims", f"{list(tensor.shape)} of {tensor.dtype}: expected {layout}")
        elif min(tensor.shape) < 1:
            self._error("input.dims", f"{list(tensor.shape)} varies; Shoal resizes to one size, so write it here")
        elif math.prod(tensor.shape) > _MOST_NUMBERS:
            self._error("input.dims", f"{list(tensor.shape)} is over {_MOST_NUMBERS:,} numbers a picture")
        return tensor

    def _takes_encoded_rows(self) -> bool:
        """Whether it decodes on its device; a half of what that takes is reported."""
        takes, reports = encoded.takes_rows(self._config), encoded.reports(self._config)
        if takes and not reports:
            self._error("output", f"has no {encoded.ROW_REPORT} TYPE_INT32 [4]; {encoded.ENCODED_ROWS} needs it")
        return takes and reports

    def _tensor(self, kind: str, message: Any) -> Tensor:  # a protobuf message
        triton_name = pbtxt.enum_name(message, "data_type")
        if triton_name not in pbtxt.DTYPES:
            self._error(f"{kind}.data_type", f"{triton_name} of {message.name!r} can't be used")
        if not message.name:
            self._error(f"{kind}.name", "missing")
        if not message.dims:
            self._error(f"{kind}.dims", f"of {message.name!r} missing; write the shape without the batch dimension")
        return Tensor(message.name, pbtxt.DTYPES.get(triton_name, "uint8"), tuple(message.dims))

    # Batching.

    def _batching(self) -> BatchingSettings:
        largest = self._config.max_batch_size
        if largest < 1:
            self._error("max_batch_size", f"is {largest}; Shoal sends batches, so it must be at least 1")
        dynamic = self._config.dynamic_batching
        preferred = tuple(sorted(dynamic.preferred_batch_size))
        if preferred and not 1 <= preferred[0] <= preferred[-1] <= largest:
            message = f"{list(preferred)} must lie between 1 and max_batch_size ({largest})"
            self._error("dynamic_batching.preferred_batch_size", message)
        self._parameters.check_lanes()
        queue = dynamic.default_queue_policy
        return BatchingSettings(
            max_batch_size=max(largest, 1),
            preferred_batch_size=preferred,
            max_queue_delay_microseconds=dynamic.max_queue_delay_microseconds,
            max_queue_size=queue.max_queue_size,
            default_timeout_microseconds=queue.default_timeout_microseconds,
            instance_count=pbtxt.instances(self._config),
        )

    # Labels.

    def _labels(self) -> tuple[str, ...]:
        name = next((output.label_filename for output in self._config.output if output.label_filename), "")
        if not name:
            return ()
        path = self._folder / name
        if "\0" in name or not intake.is_inside(path, self._folder):
            self._error("output.label_filename", f"{name!r} leaves the model's folder")
            return ()
        try:
            found = labels.read(path)
        except (OSError, ValueError) as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else f"can't be read: {_reason(error)}"
            self._report.error(path, "", f"{reason}; output.label_filename of {pbtxt.FILE} names it")
            return ()
        if not found:
            self._report.error(path, "", "empty; write one label a line, in the order of the output")
        return found


class _ServedReader(_Reader):
    """The same for a model whose files are elsewhere: its paths are within the server's repository."""

    def __init__(self, config: Any, version: int, labels: tuple[str, ...], report: FaultReport) -> None:
        super().__init__(Path(config.name), config, report)
        self._served = version
        self._told = labels

    def _versions(self) -> tuple[list[int], Path]:
        return [self._served], self._folder / str(self._served) / self._filename()

    def _labels(self) -> tuple[str, ...]:
        return self._told


def versions(folder: Path, filename: str = "") -> list[int]:
    """The version numbers in ``folder`` that hold ``filename``, lowest first; all of them where it is empty."""
    numbers = (path for path in folder.iterdir() if path.name.isdecimal() and path.name[0] != "0")
    return sorted(int(path.name) for path in numbers if ((path / filename).is_file() if filename else path.is_dir()))


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)
