"""Settings of the core: frozen pydantic models, unknown keys refused, every field with its unit and source."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rossam_core.errors import RossamError

TrainedMethod = Literal["sam", "hq-sam", "ros-sam", "sam2"]
"""Methods that can be fine-tuned here."""
Method = Literal[TrainedMethod, "sam3"]
HQ_METHODS = ("hq-sam", "ros-sam")
"""Methods with HQ-SAM's head."""
Recipe = Literal["paper", "released", "corrected"]


class Config(BaseModel):
    """Base of every settings model: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)
Growth = Literal["none", "context", "sopseg"]


class InferenceConfig(Config):
    """How a frame and its boxes become model inputs, and logits become masks (paper section 3.2.3, Tables 1-2)."""

    mode: Literal["direct", "tiled", "shared", "object"] = "object"
    """`direct`: whole frame, resized as the original model does it. `tiled`: a fixed grid of overlapping windows.
    `shared`: windows that each serve several boxes (greedy cover). `object`: one window per box, centred."""
    rate: float = Field(2.0, gt=0, le=16)
    """Upsampling rate: a window is input_size / rate frame pixels wide (paper: 1024 / 2 = 512)."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling of windows to the model's input; when shrinking, both are applied with antialiasing. Not of whole
    frames (`direct`), which the originals resize bilinearly."""
    border: Literal["shift", "clamp_and_pad"] = "shift"
    """Windows that reach beyond the frame. `shift`: move inside (ours). `clamp_and_pad`: lose what lies outside, move
    to the top left of the input, and have 0 as padding (released code)."""
    overshoot: Literal["clamp", "wrap"] = "clamp"
    """Bicubic values outside 0-255. `clamp`: cut off (ours). `wrap`: torch's bicubic kernel, and what it gives cast to
    uint8, so that 256 becomes 0 (released code)."""
    growth: Growth = "none"
    """How the window's side follows d, the box's longer side. `none`: fixed at input_size / rate, so that longer boxes
    are cut (paper). `context`: at least context × d (ours). `sopseg`: 2 × d below 32 px, from there on
    context × d + (2 - context) × 32, whatever the rate (arXiv 2509.03002; its slope is not given, so `context`)."""
    context: float = Field(1.5, ge=1)
    """See `growth`."""
    batch_size: int = Field(16, ge=1)
    """Windows encoded at once."""
    prompt_batch_size: int = Field(64, ge=1)
    """Boxes decoded at once."""
    mask_source: Literal["default", "sam", "hq", "sum"] = "default"
    """Which logits make the mask: SAM's, the HQ head's, or their sum (HQ-SAM); `default`: the model's own."""
    mask_threshold: float = 0.0
    """Logits above it are foreground."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast where it is faster (`devices.has_fast_bfloat16`), else float32."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf of nested mappings.

    >>> dict(flatten({"a": {"b": 1}, "c": 2}))
    {'a.b': 1, 'c': 2}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; where both hold a mapping, these are merged in turn."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Config):
            value = value.model_dump()
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def parse_config(model: type[C], values: Mapping[str, Any], where: str | Path) -> C:
    """Validate `values` as `model`; every problem goes into one `RossamError` that names `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe(model, problem) for problem in error.errors()]
        raise RossamError(
            where,
            f"{len(lines)} problem{'s' if len(lines) > 1 else ''}\n  - " + "\n  - ".join(lines),
            f"correct these keys; the fields and their meaning stand at {model.__module__}.{model.__name__}",
        ) from error


def _describe(model: type[Config], problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "(whole)"
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(model, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(fields)}"
        return f"{place}: unknown key; {hint}"
    value = "" if problem["type"] in ("missing", "value_error") else f" (found {problem['input']!r})"
    return f"{place}: {problem['msg']}{value}"


def _fields_at(model: type[BaseModel], location: tuple) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
