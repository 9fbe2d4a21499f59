"""Fit the map from quality signs to a mask's expected IoU, and report it on objects that it was not fitted on.

Masks of objects whose truth is known are made as `rossam convert` makes them by default (HQ-SAM, the shipped prior):
generated zero-shot clips, and NWPU VHR-10 images. Fitted on half of the generated videos (split train) and of NWPU's
training images; the report is on generated videos of the split test and the other half of those images. NWPU's val
split, which the tables are scored on, is not read.

Usage: python -m tools.calibrate_quality --nwpu DIR --work DIR [--objects 150]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from rossam_core.files import write_json, write_text
from rossam_kit.cache import load_table
from rossam_kit.config import SyntheticConfig, load_profile
from rossam_kit.convert import quality
from rossam_kit.convert.command import predictor_of
from rossam_kit.convert.convert import boxes_only, convert
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.nwpu_vhr10 import read_nwpu_vhr10
from rossam_kit.datasets.synthetic.video import generate

RESULTS = Path(__file__).parents[1] / "benchmarks/results/quality_calibration.md"
MOST_OF_A_FRAME = 4
"""Objects taken of a frame, drawn at random, so that crowded frames do not decide."""


def measured(name: str, frames: FrameSet, objects: int, work: Path) -> pd.DataFrame:
    """Signs and true IoU of about `objects` masks, spread over the frames; kept in `work`."""
    path = work / f"{name}.csv"
    if not path.exists():
        profile = load_profile("demo", {"inference.growth": "context"})
        chosen = some_objects(frames, objects)
        made = convert(predictor_of("hq-sam", profile), boxes_only(chosen), work / name)
        quality.with_true_iou(made, chosen).assign(data=name.split()[0]).to_csv(path, index=False)
    return load_table(path)


def some_objects(frames: FrameSet, objects: int) -> FrameSet:
    """Evenly spaced frames with at most `MOST_OF_A_FRAME` objects each, about `objects` in all."""
    rng, thinned = np.random.default_rng(0), []
    for frame in frames:
        masked = [item for item in frame.objects if item.has_mask]
        if masked:
            kept = sorted(rng.permutation(len(masked))[:MOST_OF_A_FRAME])
            thinned.append(frame.with_objects([masked[i] for i in kept]))
    total = sum(len(frame.objects) for frame in thinned)
    step = max(1, round(total / objects))
    return FrameSet(frames.name, thinned[::step])


def data(nwpu: Path, work: Path) -> dict[str, FrameSet]:
    """Name → frames: for each of the two kinds of data, those to fit on and those held out."""
    made = SyntheticConfig(variant="zero-shot", train_videos=36, test_videos=36, scenes=("airport", "sea", "rail"))
    photographs = read_nwpu_vhr10(nwpu, "train")
    return {
        "generated fit": generate(made, "train", work / "synthetic"),
        "generated held-out": generate(made, "test", work / "synthetic"),
        "nwpu fit": photographs[::2],
        "nwpu held-out": photographs[1::2],
    }


def fit(table: pd.DataFrame) -> dict:
    """Intercept and weights of a logistic function of the signs with the least expected log loss against the IoU.

    Each mask counts as IoU of a hit and 1 − IoU of a miss, so that what is estimated is the mean IoU. Both kinds of
    data count the same. A sign whose weight would go against its meaning is left out, the worst first.
    """
    share = 1 / table.groupby("data")["iou"].transform("size")
    names = list(quality.SCORED)
    while True:
        signs = np.tile(quality.features(table)[names].to_numpy(), (2, 1))
        weight = np.concatenate([share * table["iou"], share * (1 - table["iou"])]) * len(table) / 2
        hit = np.repeat([1, 0], len(table))
        model = LogisticRegression(C=10.0, max_iter=10_000).fit(signs, hit, sample_weight=weight)
        weights = dict(zip(names, model.coef_[0].tolist(), strict=True))
        wrong = {n: w if n in quality.HIGH_IS_BAD else -w for n, w in weights.items()}
        worst = max(wrong, key=wrong.get)
        if wrong[worst] < 0:
            rounded = {name: round(value, 4) for name, value in weights.items()}
            return {"intercept": round(float(model.intercept_[0]), 4), "weights": rounded}
        names.remove(worst)


def report(table: pd.DataFrame) -> dict:
    """Rank correlation with an interval, share of masks under 0.5 in the worst fifth, mean error, and reliability."""
    order = table.assign(review_rank=table["expected_iou"].rank(method="first"))
    rho, gain = quality.spearman(table, "expected_iou"), quality.review_gain(order, shares=(0.2,)).iloc[0]
    numbers = {"objects": len(table), "mean IoU": table["iou"].mean(), "under 0.5": (table["iou"] < 0.5).mean()}
    numbers |= {"spearman": rho.mean, "spearman low": rho.low, "spearman high": rho.high}
    numbers |= {"poor masks in the worst fifth": gain["poor masks found"], "at best": gain["at best"]}
    numbers |= {"mean absolute error": (table["expected_iou"] - table["iou"]).abs().mean()}
    return {name: round(float(value), 3) for name, value in numbers.items()}


def write_report(held_out: pd.DataFrame, fitted: dict, path: Path) -> None:
    """Markdown with the report on each kind of held-out data, and its reliability table."""
    groups = {**dict(iter(held_out.groupby("data"))), "both": held_out}
    rows = pd.DataFrame({name: report(part) for name, part in groups.items()}).T
    lines = ["# Expected IoU by quality signs, on held-out objects", "", " ".join(__doc__.split("\n\n")[1].split()), ""]
    lines += [_markdown(rows.reset_index(names="data")), "", f"Weights: `{json.dumps(fitted)}`", ""]
    for name, part in groups.items():
        lines += [f"## Reliability, {name}", "", _markdown(quality.reliability(part).round(3)), ""]
    write_text(path, "\n".join(lines))


def _markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in row)} |" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nwpu", type=Path, required=True, help="folder of NWPU VHR-10")
    parser.add_argument("--work", type=Path, required=True, help="folder of conversions; a second run continues it")
    parser.add_argument("--objects", type=int, default=150, help="of each kind of data and each half")
    options = parser.parse_args()
    sets = data(options.nwpu, options.work)
    tables = {name: measured(name, frames, options.objects, options.work) for name, frames in sets.items()}
    masked = {name: table[table["area"] > 0] for name, table in tables.items()}
    fitted = fit(pd.concat([masked["generated fit"], masked["nwpu fit"]]))
    source = {name: f"{len(table)} masks" for name, table in masked.items()}
    content = fitted | {"source": {"script": "tools/calibrate_quality.py", "network": "hq-sam vit_t, prior", **source}}
    write_json(quality.CALIBRATION, content)
    held_out = pd.concat([masked["generated held-out"], masked["nwpu held-out"]])
    held_out = held_out.assign(expected_iou=quality.expected_iou(held_out))
    write_report(held_out, fitted, RESULTS)
    print(RESULTS.read_text(encoding="utf-8"))
