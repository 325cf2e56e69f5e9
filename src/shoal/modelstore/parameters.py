"""Reads the ``shoal.…`` parameters of a config.pbtxt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from shoal.modelconfig import keys
from shoal.modelconfig.model import Resize, ResizeFilter, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.modelconfig.model import Tensor

_CHANNELS = 3
_NO_MEAN = (0.0, 0.0, 0.0)
_NO_STD = (1.0, 1.0, 1.0)


class Parameters:
    """What one model's parameters say; a wrong one is reported and stands in with its default.

    Args:
        config: An ``inference.ModelConfig``.
        report: Takes faults: a field and what is wrong with it.
    """

    def __init__(self, config: Any, report: Callable[[str, str], None]) -> None:  # a protobuf message
        self._report = report
        self._texts: dict[str, str] = {
            key: value.string_value for key, value in config.parameters.items() if key.startswith(keys.PREFIX)
        }

    def model_filename(self) -> str:
        """The file that a ``model.py`` runs; empty where none is named."""
        return self._texts.get(keys.MODEL_FILENAME, "")

    def check_lanes(self) -> None:
        """Reports a number of lanes that is none; ``pbtxt.lanes`` reads it."""
        text = self._texts.get(keys.LANES, "1")
        if not text.isdecimal() or not int(text):
            self._error(keys.LANES, f"{text!r}: expected a whole number from 1")

    def task(self) -> Task:
        """What the model answers; it has no default."""
        choices = [task.value for task in Task]
        if keys.TASK not in self._texts:
            self._error(keys.TASK, f"missing; one of {', '.join(choices)}")
        return Task(self._choice(keys.TASK, choices, Task.CLASSIFICATION.value))

    def resize(self) -> Resize:
        """How a picture gets the input's size."""
        return Resize(self._choice(keys.RESIZE, [resize.value for resize in Resize], Resize.STRETCH.value))

    def resize_filter(self) -> ResizeFilter:
        """How pixels are mixed meanwhile."""
        choices = [resize_filter.value for resize_filter in ResizeFilter]
        return ResizeFilter(self._choice(keys.RESIZE_FILTER, choices, ResizeFilter.BILINEAR.value))

    def head(self, task: Task) -> str:
        """What turns the outputs into an answer, one of those for ``task``."""
        choices = [head for head, its_task in keys.HEADS.items() if its_task is task]
        return self._choice(keys.HEAD, choices, keys.DEFAULT_HEAD[task])

    def shorter_side(self, resize: Resize, input_: Tensor) -> int:
        """The pixels to which a picture's shorter side is resized before it is cropped; 0 where it isn't."""
        if resize is not Resize.CROP:
            return 0
        text = self._texts.get(keys.RESIZE_SHORTER_SIDE, "")
        crop = max(input_.shape[:2] if input_.dtype == "uint8" else input_.shape[1:], default=1)
        if text.isdecimal() and int(text) >= crop:
            return int(text)
        self._error(
            keys.RESIZE_SHORTER_SIDE, f"is {text or 'missing'}; {keys.RESIZE} crop needs pixels, {crop} or more"
        )
        return crop

    def mean(self) -> tuple[float, float, float]:
        """What is subtracted from pixels in [0, 255], for R, G and B."""
        return self._triple(keys.MEAN, _NO_MEAN)

    def std(self) -> tuple[float, float, float]:
        """What pixels are then divided by, for R, G and B; above 0."""
        std = self._triple(keys.STD, _NO_STD)
        if min(std) > 0:
            return std
        self._error(keys.STD, f"{list(std)} must be positive")
        return _NO_STD

    def head_parameters(self) -> dict[str, float]:
        """The head's numbers, by name."""
        prefix = f"{keys.HEAD}."
        parameters = {}
        for key in sorted(key for key in self._texts if key.startswith(prefix)):
            number = parameters[key.removeprefix(prefix)] = _number(self._texts[key])
            if not math.isfinite(number):
                self._error(key, f"{self._texts[key]!r} is no number")
            elif key.endswith("threshold") and not 0 <= number <= 1:
                self._error(key, f"{number:g} is not in [0, 1]")
        return parameters

    def report_unknown(self, head: str) -> None:
        """Reports each key that a model with ``head`` may not have."""
        choices = keys.known(head)
        for key in sorted(self._texts):
            if key not in choices:
                self._error(key, f"unknown; {keys.suggestion(key, choices)}")

    def _choice(self, key: str, choices: list[str], default: str) -> str:
        text = self._texts.get(key, default)
        if text in choices or text == default:
            return text
        self._error(key, f"{text!r} is unknown; {keys.suggestion(text, choices)}")
        return default

    def _triple(self, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        if key not in self._texts:
            return default
        numbers = [_number(word) for word in self._texts[key].replace(",", " ").split()]
        if len(numbers) == 1:
            numbers *= _CHANNELS
        if len(numbers) != _CHANNELS or not all(math.isfinite(number) for number in numbers):
            self._error(key, f"{self._texts[key]!r}: expected one number, or three for R, G and B")
            return default
        return numbers[0], numbers[1], numbers[2]

    def _error(self, key: str, message: str) -> None:
        self._report(f'parameters["{key}"]', message)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
