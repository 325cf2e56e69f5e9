"""Models that also take JPEGs and decode them on their device: two tensors beside the picture and the answers.

``shoal.engine.triton.encoded_rows`` has what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shoal.modelconfig import pbtxt

if TYPE_CHECKING:
    from collections.abc import Sequence

ENCODED_ROWS: Final = "encoded_rows"
"""The input's name: TYPE_UINT8 [-1], optional."""
ROW_REPORT: Final = "row_report"
"""The output's name: TYPE_INT32 [4]."""

# Messages are inference.ModelConfig and its tensors: tritonclient ships no types.


def takes_rows(config: Any) -> bool:
    """Whether it has the input; the output has to be there, too."""
    return any(map(_is_rows, config.input))


def reports(config: Any) -> bool:
    """Whether it has the output."""
    return any(map(_is_report, config.output))


def pictures(config: Any) -> Sequence[Any]:
    """The inputs but for ``encoded_rows``: of a model that Shoal can feed, one."""
    return [tensor for tensor in config.input if not _is_rows(tensor)]


def answers(config: Any) -> Sequence[Any]:
    """The outputs but for the ``row_report`` that goes with ``encoded_rows``."""
    if not takes_rows(config):
        return list(config.output)
    return [tensor for tensor in config.output if not _is_report(tensor)]


def _is_rows(tensor: Any) -> bool:
    kind = pbtxt.enum_name(tensor, "data_type"), list(tensor.dims)
    return bool(tensor.name == ENCODED_ROWS and tensor.optional and kind == ("TYPE_UINT8", [-1]))


def _is_report(tensor: Any) -> bool:
    kind = pbtxt.enum_name(tensor, "data_type"), list(tensor.dims)
    return bool(tensor.name == ROW_REPORT and kind == ("TYPE_INT32", [4]))
