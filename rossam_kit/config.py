"""The kit's settings: frozen pydantic models, unknown keys refused, every field with its unit and source.

`load_profile` takes a profile name or YAML path and dotted overrides. All problems are reported at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from rossam_core.errors import ProblemList, RossamError
from rossam_core.settings import Config, InferenceConfig, Recipe, flatten, merged, parse_config

CONFIGS = Path(__file__).parent
OWN_DATA = CONFIGS / "own_data.yaml"
"""Settings of the commands that take one's own data."""
PROFILES = CONFIGS / "profiles"

Split = Literal["train", "val", "test"]
Scene = Literal["airport", "sea", "rail", "road"]
BoxConvention = Literal["xywh", "xyxy", "cxcywh", "xywh-normalised", "xyxy-normalised", "cxcywh-normalised"]
OWN_SOURCES = ("coco", "authors", "dota")
"""Sources that are a format rather than one published dataset, so that no folder can be theirs by default."""


CHANGEABLE = (
    *("groups.*.learning_rate", "groups.*.schedule", "warmup", "step_every", "step_factor"),
    *("augment.scale", "augment.scale_of"),
)
"""Keys of a recipe that a profile may change without changing the method."""
BUDGET = (
    *("samples", "epochs", "batch", "micro_batch", "workers", "precision", "lora_rank", "augment.scale"),
    *("validate_every", "validation_objects", "checkpoint_every"),
)
"""Keys of `training` and of a table's budget in a profile's file; an override may name others, and reports state it."""


NOTEBOOKS = (
    *("00_setup", "01_data", "02_inference_pipeline", "03_training_pipeline", "04_mask_decoder", "05_image_encoder"),
    *("06_comparison", "07_robustness", "08_static_datasets", "09_zero_shot_tracking", "10_inspect_predictions"),
    *("11_boxes_to_masks", "12_your_own_data", "13_summary"),
)


class SyntheticConfig(Config):
    """Procedural satellite video (`datasets/synthetic`)."""

    seed: int = 2025
    """Seed of everything drawn; the same seed gives the same bytes."""
    variant: Literal["video", "static", "zero-shot", "aerial"] = "video"
    """`video`: moving objects as in SAT-MTB; `static`: still scenes of other kinds of objects as in NWPU VHR-10;
    `zero-shot`: moving objects under another sensor, ground resolution and place; `aerial`: crowded still patches of
    small objects as in iSAID."""
    scale: float = Field(0.25, gt=0, le=1)
    """Frame sides as a fraction of the paper's (512×512 to 2160×1080, Table 7). Object sizes do not scale."""
    train_videos: int = Field(32, ge=1)
    """Videos of the train split."""
    val_videos: int = Field(8, ge=1)
    """Videos of the val split (checkpoint choice)."""
    test_videos: int = Field(24, ge=1)
    """Videos of the test split; no video is in two splits."""
    frames_per_video: int = Field(16, ge=1)
    """Moments of each video; every `frame_stride`-th is rendered."""
    frame_stride: int = Field(4, ge=1)
    """Every n-th moment becomes a frame: the paper samples 1/4 of each video's frames (section 4.1)."""
    scenes: tuple[Scene, ...] = ("airport", "sea", "rail", "road")
    """Scenes, taken in turn by successive videos. Cars of `road` have boxes only, as in the paper."""

    @property
    def is_still(self) -> bool:
        """Whether every video is one frame."""
        return self.variant in ("static", "aerial")

    @property
    def moments(self) -> range:
        """The moments, from 0, of a video that are rendered."""
        return range(0, 1 if self.is_still else self.frames_per_video, self.frame_stride)


class SampleConfig(Config):
    """Which of a video dataset's frames are used (`datasets/sampling.py`)."""

    fraction: float = Field(0.25, gt=0, le=1)
    """Share of each video's usable frames (paper section 4.1: a quarter, at random)."""
    seed: int = 0
    """Of the draw (the paper's is not published)."""
    exclude_categories: tuple[str, ...] = ("car",)
    """Frames that show nothing else are not usable (paper section 4.1: cars, as good as filled boxes)."""


class ImageOptions(Config):
    """How the pixels of image files become 8-bit RGB (`datasets/images.py`), alike for all images of a dataset."""

    bands: tuple[int, ...] | None = None
    """Numbers (from 1) of the bands shown as red, green and blue, or of one shown as gray, e.g. `4,3,2`. None: the
    first three, or the first of fewer, and alpha where the file says so."""
    stretch: str = "full"
    """Which values become 0 and 255: `full` (the full range of the bit depth in use), `percentiles` (2 and 98 of all
    bands together) or `percentiles:LO,HI`, or the values themselves, `LO,HI`."""

    @field_validator("bands", mode="before")
    @classmethod
    def _split_bands(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
        if parts is None:
            return None
        try:
            numbers = tuple(int(part) for part in parts)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) not in (1, 3) or min(numbers) < 1:
            raise ValueError(f"expected three numbers from 1, e.g. 4,3,2, or one (found {value!r})")
        return numbers

    @field_validator("stretch", mode="before")
    @classmethod
    def _normalise_stretch(cls, value: Any) -> str:
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value).replace(" ", "")
        if text == "full":
            return text
        kind, _, limits = text.rpartition(":") if text != "percentiles" else (text, "", "2,98")
        try:
            if kind not in ("", "percentiles"):
                raise ValueError
            low, high = map(float, limits.split(","))
        except ValueError:
            low = high = 0.0
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"expected full, percentiles, percentiles:LO,HI or LO,HI with LO < HI (found {value!r})")
        if kind == "percentiles" and not 0 <= low < high <= 100:
            raise ValueError(f"expected percentiles from 0 to 100 (found {value!r})")
        return f"{kind}:{limits}" if kind else limits

    @property
    def stretch_kind(self) -> Literal["full", "percentiles", "limits"]:
        return "limits" if self.stretch != "full" and ":" not in self.stretch else self.stretch.split(":")[0]

    @property
    def stretch_values(self) -> tuple[float, float]:
        """The two percentiles or limits; none for `full`."""
        low, high = self.stretch.split(":")[-1].split(",")
        return float(low), float(high)


class DataConfig(ImageOptions):
    """Which frames, and how their images are read."""

    source: Literal[
        "synthetic", "nwpu-vhr10", "coco", "sat-mtb", "authors", "isaid", "satsot", "viso", "ootb", "dota"
    ] = "synthetic"
    """`synthetic`, a dataset reader's name, or `coco` for one's own annotations."""
    root: Path | None = None
    """Folder of a real dataset, or one that holds it (`--data DIR`); the readers find their files below it. None: where
    `rossam fetch` puts the dataset, `ROSSAM_CACHE/data/NAME`."""
    box_convention: BoxConvention | None = None
    """What `bbox` of one's own COCO file holds (`--box-convention`): corner, centre (`cxcywh`) or two corners, in
    pixels or fractions of the image. None: x, y, width, height in pixels, refused where the boxes look like another."""
    keep_crowd: bool = False
    """Read annotations of one's own COCO file that are marked `iscrowd` as objects (`--keep-crowd`)."""
    skip_bad: bool = False
    """Leave out what cannot be used in one's own COCO file, each listed with its reason (`--skip-bad`)."""
    sample: SampleConfig | None = None
    """Draw from the frames of `sat-mtb` or `authors`, train and test alike; None = all frames."""
    synthetic: SyntheticConfig = SyntheticConfig()
    limit_frames: int | None = Field(None, ge=1)
    """Use only this many frames a split, evenly spaced (tests); None = all."""


class ModelConfig(Config):
    """Which network."""

    backbone: str = "vit_t"
    """Of SAM, HQ-SAM and ROS-SAM: `vit_t` (shipped prior), `vit_b`, `vit_l` (the paper's), `vit_h`."""
    sam2_backbone: str = "hiera_t"
    """Of SAM2: `hiera_t` (shipped prior), `hiera_tiny`, `hiera_small`, `hiera_base_plus`, `hiera_large` (SAM 2.1)."""
    checkpoint: str | None = "default"
    """`default` (shipped prior or official file), a path, or None for fresh weights. A path is SAM's; SAM2 and SAM 3
    then keep their default."""
    recipe: Recipe = "paper"
    """Recipe of fine-tuned rows that name none of their own (README, Reading the code)."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """Constants of `backbone` that are replaced, e.g. `{depth: 2, global_attention: [1]}` in tests (`model/sam.py`);
    weights must fit, so as a rule with `checkpoint: null`. SAM2 keeps its own."""
    sam3_architecture: dict[str, Any] = Field(default_factory=dict)
    """The same of SAM 3 (`model/sam3.py`)."""


class EvaluationConfig(Config):
    """Scoring and statistics."""

    protocols: tuple[Literal["frame", "object"], ...] = ("frame", "object")
    """`frame`: union mask of a frame's objects (released code); `object`: each object alone."""
    dilation_ratio: float = Field(0.02, gt=0, lt=1)
    """Boundary IoU band as a fraction of the image diagonal (Cheng et al. 2021; released code)."""
    size_bins: tuple[float, ...] = (0.0, 256.0, 1024.0, 9216.0)
    """Lower area bounds in square pixels: tiny, small (COCO: under 32²), medium (under 96²), large."""


class Profile(Config):
    """One way to run the kit end to end."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Names the report's folder."""
    title: str
    """Heading of the report."""
    notice: str
    """Shown under every table and figure: what was measured on what, and what it must not be taken for."""
    data: DataConfig = DataConfig()
    """What everything is scored on but the tables below."""
    datasets: dict[str, DataConfig] = Field(default_factory=dict)
    """What tables of another dataset (`dataset` in experiments.yaml) are scored on, by the dataset's name."""
    model: ModelConfig = ModelConfig()
    training: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the recipe's `TrainingConfig` (training/recipes.py) for every fine-tuned row: the budget."""
    recipe_changes: dict[str, Any] = Field(default_factory=dict)
    """What this profile changes of `model.recipe` besides the budget: learning rates, schedules, warm-up, and
    range and unit of scales, nothing else. The report lists them. A row with a recipe of its own does without."""
    budgets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Overrides of `training` for the fine-tuned rows of single tables: name in experiments.yaml → overrides. Within
    a table every row has the same budget."""
    skip_tables: tuple[str, ...] = ()
    """Names of tables in experiments.yaml that this profile does without."""
    extra_methods: tuple[Literal["sam3"], ...] = ()
    """Methods beyond the paper whose rows this profile's tables include."""
    seeds: tuple[int, ...] = (0,)
    """A fine-tuned row is trained once with each."""
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    disturbance_levels: int = Field(3, ge=1, le=3)
    """Levels of each disturbance in the robustness curves (notebook 07), besides 0 and always with the strongest."""
    notebooks: tuple[str, ...] = NOTEBOOKS
    """Notebooks this profile runs, in order; by default all."""
    device: str = "auto"
    """`auto` (cuda, then mps, then cpu), or a torch device."""
    seed: int = 0
    """Seed of what is drawn outside the data: jitter, batches."""

    @model_validator(mode="after")
    def _recipe_changes_keep_the_method(self) -> Profile:
        keys = [key for key, _ in flatten(self.recipe_changes)]
        refused = [key for key in keys if not any(fnmatchcase(key, pattern) for pattern in CHANGEABLE)]
        if refused:
            raise ValueError(f"recipe_changes name {', '.join(refused)}; only {', '.join(CHANGEABLE)} may change")
        return self

    @model_validator(mode="after")
    def _own_data_needs_a_root(self) -> Profile:
        for place, data in {"data": self.data, **{f"datasets.{k}": v for k, v in self.datasets.items()}}.items():
            if data.source in OWN_SOURCES and data.root is None:
                raise ValueError(
                    f"{place}.source is {data.source!r} but {place}.root is not set: name the folder with "
                    f"{'--data DIR' if place == 'data' else f'--set {place}.root=DIR'}, or {place}.root in the profile"
                )
        return self


def profile_names() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read a shipped profile by name, or one's own YAML file by path.

    A file may extend another: the key `extends` holds a profile's name, or a path from the file's folder. Groups of
    keys are joined; all other values replace those of the extended profile.

    Args:
        overrides: dotted keys over the file's values, e.g. `{"data.root": "~/data", "inference.rate": 4}`.

    Raises:
        RossamError: unknown profile, broken YAML, or any number of unknown keys and bad values, all at once,
            each with the nearest known key.
    """
    values = _read_profile(name_or_path)
    _check_budgets(values, _profile_path(name_or_path))
    for dotted, value in (overrides or {}).items():
        _set_dotted(values, dotted, value)
    _anchor_paths(values, Path.cwd())
    return parse_config(Profile, values, where=_profile_path(name_or_path))


def _check_budgets(values: Mapping[str, Any], path: Path) -> None:
    """Refuse a file whose budgets change the method."""
    groups = {
        "training": values.get("training"),
        **{f"budgets.{k}": v for k, v in (values.get("budgets") or {}).items()},
    }
    problems = ProblemList(path)
    for place, group in groups.items():
        keys = [key for key, _ in flatten(group)] if isinstance(group, dict) else []
        problems.extend((f"{place}.{key}", "is no part of a budget") for key in keys if key not in BUDGET)
    problems.raise_if_any("name changes of the method in a row of experiments.yaml, or try them with --set")


def _profile_path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    return path if path.suffix in (".yaml", ".yml") else PROFILES / f"{name_or_path}.yaml"


def _read_profile(name_or_path: str | Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Values of a profile's file over those of the profile that it `extends`, paths absolute."""
    path = _profile_path(name_or_path)
    if path.parent == PROFILES and not path.exists():
        known = ", ".join(profile_names())
        raise RossamError(name_or_path, "no profile of that name", f"use one of {known}, or a path to a .yaml file")
    if path in extended_by:
        raise RossamError(path, "extends itself", "correct the key `extends` of these files")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RossamError(path, "no such profile file", "check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RossamError(path, f"cannot be read ({error})", "name a YAML text file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a 13th month
        raise RossamError(path, f"is not valid YAML ({error})", "correct the line named above") from error
    if not isinstance(values, dict):
        raise RossamError(
            path, f"holds {type(values).__name__}, expected keys and values", "see rossam_kit/profiles/demo.yaml"
        )
    _anchor_paths(values, path.resolve().parent)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise RossamError(path, f"extends holds {base!r}", "give the name of a profile or the path of its file")
    is_path = Path(base).suffix in (".yaml", ".yml")
    return merged(_read_profile(path.parent / base if is_path else base, (*extended_by, path)), values)


def without_effect(profile: Profile, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Dotted override → why nothing reads it: it is about a source of data that the profile does not have there."""
    reasons = {}
    for place, data in {"data": profile.data, **{f"datasets.{k}": v for k, v in profile.datasets.items()}}.items():
        generated, sampled = data.source == "synthetic", data.source in ("sat-mtb", "authors")
        used = {f"{place}.synthetic": generated, f"{place}.root": not generated, f"{place}.sample": sampled}
        for key, is_used in used.items():
            for dotted in overrides:
                if f"{dotted}.".startswith(f"{key}.") and not is_used:
                    reasons[dotted] = f"has no effect: {place}.source is {data.source}"
    return reasons


def _anchor_paths(values: dict, folder: Path) -> None:
    """Make the paths a profile holds absolute: those in its file start at the file, those of overrides where one is."""
    datasets = values.get("datasets", {})
    places = [(values.get("data"), "root"), (values.get("model"), "checkpoint")]
    places += [(data, "root") for data in datasets.values()] if isinstance(datasets, dict) else []
    for group, key in places:
        found = group.get(key) if isinstance(group, dict) else None
        if isinstance(found, str | Path) and str(found) != "default":
            group[key] = str(folder / Path(found).expanduser())


def _set_dotted(values: dict, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        group = {} if values.get(key) is None else values[key]
        if not isinstance(group, dict):
            raise RossamError(f"override {dotted}", f"{key!r} is a value, not a group of keys", "check the dotted key")
        values[key] = values = dict(group)  # a copy: a YAML file may use one group in several places
    values[last] = value
