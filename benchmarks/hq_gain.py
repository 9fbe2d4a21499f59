"""Where HQ-SAM, as it comes, gains on SAM and where not: by class, both IoUs, how alike and how large the masks are.

Nothing is trained. Windows are those of the profile; the interval is a 95% interval over videos or images.
Usage: python benchmarks/hq_gain.py [--profile demo] [--data DIR]
"""

import argparse

import pandas as pd

from rossam_core import Predictor, build_model
from rossam_core.metrics import mask_iou
from rossam_kit import load_profile
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.experiments.statistics import mean_interval

SHOWN = ["SAM", "HQ-SAM", "alike", "SAM's area", "HQ-SAM's area"]


def compare(experiments: Experiments) -> pd.DataFrame:
    """A row for each object with a mask: IoU in percent, areas as multiples of the object's."""
    inference = experiments.profile.inference
    sam, hq = (Predictor(build_model(method, "vit_t"), inference) for method in ("sam", "hq-sam"))
    rows = []
    for frame in experiments.frames.keep_objects(lambda thing: thing.has_mask, "no mask to compare with"):
        if not frame.objects:
            continue
        image = frame.image()
        answers = (predictor.predict(image, frame.boxes_xyxy) for predictor in (sam, hq))
        for thing, *found in zip(frame.objects, *answers, strict=True):
            truth, (first, second) = thing.mask(frame.size_hw), (answer.full() for answer in found)
            row = {"SAM": 100 * mask_iou(first, truth), "HQ-SAM": 100 * mask_iou(second, truth)}
            row |= {"alike": 100 * mask_iou(first, second)}
            row |= {"SAM's area": first.sum() / truth.sum(), "HQ-SAM's area": second.sum() / truth.sum()}
            rows.append({"video": frame.video, "class": thing.category, **row})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", help="folder that holds the datasets' folders, for profiles that need one")
    options = parser.parse_args()
    objects = compare(Experiments(load_profile(options.profile, {"data.root": options.data} if options.data else {})))
    objects["gain"] = objects["HQ-SAM"] - objects["SAM"]
    for name, part in [("all", objects), *objects.groupby("class")]:
        gain = mean_interval(part, "gain")
        print(f"{name}, {len(part)}: gain {gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})", end="; ")
        print(", ".join(f"{column} {part[column].mean():.2f}" for column in SHOWN))


if __name__ == "__main__":
    main()
