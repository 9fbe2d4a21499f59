"""What each row of a table is: its resolved settings, and how they differ from the table's reference row.

`rossam rows` prints them. A row may differ from its reference only in the settings that its table names under `varies`
in `experiments.yaml`.
"""

from __future__ import annotations

from typing import Any

from rossam_core.model.build import trained_mask
from rossam_core.settings import flatten
from rossam_kit.experiments.experiments import Experiments, RowSpec

OWN_MASK = {"sam": "sam", "sam2": "sam", "sam3": "sam", "hq-sam": "sum", "ros-sam": "hq"}
"""The mask that each method answers with where nothing is trained and `inference.mask_source` is `default`."""
SPEED_ONLY = ("inference.batch_size", "inference.prompt_batch_size", "training.micro_batch", "training.workers")
"""Settings that move no number, left out of `row_settings`."""


def row_settings(experiments: Experiments, row: RowSpec) -> dict[str, Any]:
    """All settings of a row by flat key, as they take effect.

    Returns:
        `method`, `baseline`, `backbone`, `checkpoint`, `recipe`, `seeds`, `views` (training views of a run; 0 where
        nothing trains, None where they follow from epochs and the number of frames), `inference.*` and `training.*`.
        A whole frame is resized as the original does it, so there `inference.interpolation` is bilinear.
    """
    profile, base = experiments.profile, experiments.base(row.method) if row.method else {}
    training = experiments.training_config(row, profile.seeds[0]).model_dump(mode="json", exclude={"seed"})
    inference = experiments.inference(row).model_dump(mode="json")
    if inference["mode"] == "direct":
        inference["interpolation"] = "bilinear"
    if inference["mask_source"] == "default" and row.method:
        trained = trained_mask(row.method, training["trained_groups"], training["alternate"])
        inference["mask_source"] = trained if row.trains else OWN_MASK[row.method]
    views = training["samples"] if row.trains else 0
    settings = {
        "method": row.method,
        "baseline": row.baseline,
        "backbone": base.get("backbone"),
        "checkpoint": base.get("checkpoint", profile.model.checkpoint),
        "recipe": row.recipe or profile.model.recipe,
        "seeds": list(profile.seeds),
        "views": views,
        **dict(flatten({"inference": inference, "training": training})),
    }
    return {key: value for key, value in settings.items() if key not in SPEED_ONLY}


def table_rows(experiments: Experiments, table: str) -> list[dict[str, Any]]:
    """Every row of a table beside its reference row.

    Returns:
        One mapping per row: `table`, `row`, `reference`, `varies`, `differs` (flat key → the row's value and the
        reference's, None where it has no such setting) and `settings` (`row_settings`).
    """
    spec = experiments.specs[table]
    reference = row_settings(experiments, spec.row(spec.reference))
    rows = []
    for row in spec.rows:
        settings = row_settings(experiments, row)
        differs = {
            key: [settings.get(key), reference.get(key)]
            for key in dict.fromkeys([*settings, *reference])
            if settings.get(key) != reference.get(key)
        }
        place = {"table": table, "row": row.label, "reference": spec.reference, "varies": list(spec.varies)}
        rows.append(place | {"differs": differs, "settings": settings})
    return rows


def rows_text(rows: list[dict[str, Any]]) -> str:
    """`table_rows` for the screen: under each row the settings that differ, the row's value and the reference's."""
    lines = []
    for row in rows:
        is_reference = row["row"] == row["reference"]
        lines.append(f"{row['table']}  {row['row']}" + ("  (reference)" if is_reference else ""))
        lines += [f"    {key}: {own}  (reference: {other})" for key, (own, other) in row["differs"].items()]
        if not row["differs"] and not is_reference:
            lines.append("    the same settings as the reference")
    return "\n".join(lines)
