"""How a Hugging Face export wants its pictures: ``preprocessor_config.json`` beside the model.

Size, resize and normalisation are read as the image processors of transformers read them, where Shoal does the same;
what it can't do the same is left out, and named.
https://huggingface.co/docs/transformers/main_classes/image_processor
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Resize
from shoal.runtime import intake

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "preprocessor_config.json"
_CHANNELS: Final = 3
_CONVNEXT_CROPS_BELOW: Final = 384
_CONVNEXT_CROP: Final = 224 / 256


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the file says, in the words of ``Recipe``."""

    file: Path
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of ``Recipe``: ``size``, ``resize``, ``resize_shorter_side``, ``mean``, ``std``, ``channel_order``."""
    left_out: tuple[str, ...] = ()
    """What it says that Shoal doesn't do the same."""


def find(model: Path) -> Preprocessing | None:
    """What lies beside ``model``, or above it where its folder is ``onnx``, as on the Hub; None where nothing does.

    Raises:
        ConfigurationError: the file can't be read, or isn't one.
    """
    folder = model.absolute().parent
    places = [folder, folder.parent] if folder.name == "onnx" else [folder]
    file = next((place / FILE for place in places if (place / FILE).exists()), None)
    if file is None:
        return None
    try:
        said = intake.parse_json(intake.read(file))
        return _read(file, said)
    except OSError as error:
        raise ConfigurationError(f"{file}: can't be read: {error.strerror}; it lies beside the model") from error
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, OverflowError):
        raise ConfigurationError(
            f"{file}: isn't an image processor's settings; it lies beside the model: mend it or move it away"
        ) from None


def _read(file: Path, said: dict[str, Any]) -> Preprocessing:
    left_out: list[str] = []
    fields = _resizing(said, left_out) | _normalisation(said, left_out)
    if said.get("do_flip_channel_order"):
        fields["channel_order"] = "bgr"
    if said.get("do_pad") and "pad_size" in said:
        left_out.append("pad_size")
    return Preprocessing(file, fields, tuple(left_out))


def _normalisation(said: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    """``(pixel * rescale_factor - image_mean) / image_std``, as a mean and a std of pixels in [0, 255]."""
    if said.get("rescale_offset") or (said.get("include_top") and said.get("do_normalize", True)):
        left_out.append("its normalisation (--mean, --std)")
        return {}
    factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    normalises = said.get("do_normalize", True) and "image_mean" in said and "image_std" in said
    mean = _triple(said["image_mean"]) if normalises else (0.0,) * _CHANNELS
    std = _triple(said["image_std"]) if normalises else (1.0,) * _CHANNELS
    return {"mean": tuple(x / factor for x in mean), "std": tuple(x / factor for x in std)}


def _triple(numbers: Any) -> tuple[float, ...]:  # whatever the file holds
    found = tuple(map(float, numbers if isinstance(numbers, list) else [numbers] * _CHANNELS))
    if len(found) != _CHANNELS:
        raise ValueError("not three channels")
    return found


def _resizing(said: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    if not said.get("do_resize", True):
        return {}
    crops = bool(said.get("do_center_crop"))
    size, shortest = _size(said.get("size"), square=not crops and not _is_convnext(said))
    if crops and "crop_size" in said:
        crop, _ = _size(said["crop_size"], square=True)
        if shortest and crop and shortest >= max(crop):
            return {"size": crop, "resize": Resize.CROP, "resize_shorter_side": shortest}
        left_out.append("its resize before the crop (--resize)")
        return {"size": crop}
    if shortest and _is_convnext(said):
        return _convnext(shortest, float(said.get("crop_pct") or _CONVNEXT_CROP))
    if size:
        return {"size": size, "resize": Resize.STRETCH}
    if shortest:
        left_out.append("sizes that vary with the picture (--size)")
    return {}


def _is_convnext(said: dict[str, Any]) -> bool:
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")
    return kind.startswith("ConvNext")


def _convnext(shortest: int, crop_share: float) -> dict[str, Any]:
    """A crop out of a little more below 384, a stretch from there on, as ``ConvNextImageProcessor.resize`` says."""
    size = (shortest, shortest)
    if shortest >= _CONVNEXT_CROPS_BELOW:
        return {"size": size, "resize": Resize.STRETCH}
    return {"size": size, "resize": Resize.CROP, "resize_shorter_side": int(shortest / crop_share)}


def _size(said: Any, *, square: bool) -> tuple[tuple[int, int] | None, int]:  # whatever the file holds
    """Height and width, or the shorter side, of a number or a mapping; the other is None, or 0."""
    if said is None:
        return None, 0
    if isinstance(said, int) and not isinstance(said, bool):
        return ((_side(said), _side(said)), 0) if square else (None, _side(said))
    if not isinstance(said, dict):
        raise TypeError("no size")
    if "height" in said and "width" in said:
        return (_side(said["height"]), _side(said["width"])), 0
    return None, _side(said["shortest_edge"]) if "shortest_edge" in said else 0


def _side(said: Any) -> int:  # whatever the file holds
    side = int(said)
    if not 1 <= side <= 99_999:  # as --size
        raise ValueError("no side of a picture")
    return side
