"""What the model card says of the shipped priors: IoU on generated held-out scenes by size, and how steady masks are.

Neither training nor the choice of weights used scenes of seed 0; nothing is trained.
Usage: python -m benchmarks.prior [--scenes 64] [--seed 0]
"""

import argparse

import numpy as np
import pandas as pd
import torch

from rossam_core import build_model
from rossam_core.model.segmenter import PromptableSegmenter
from rossam_kit.experiments.statistics import mean_interval
from tools.pretrain.config import PretrainConfig
from tools.pretrain.dataset import HeldOut, held_out_scenes, score

PRIORS = (("sam", "vit_t"), ("hq-sam", "vit_t"), ("sam2", "hiera_t"))
SIZES = {"under 16 px": (0, 16), "16-48 px": (16, 48), "48-128 px": (48, 128), "over 128 px": (128, np.inf)}
CPU = torch.device("cpu")


def by_size(table: pd.DataFrame, column: str) -> dict[str, float]:
    """Mean of a column of `score` over all prompts, and by the longer side of the box."""
    parts = {name: table[(table.extent >= low) & (table.extent < high)] for name, (low, high) in SIZES.items()}
    return {"all": table[column].mean()} | {name: part[column].mean() for name, part in parts.items()}


def interval(table: pd.DataFrame, column: str, scenes: HeldOut) -> str:
    """Mean of a column of `score` and its 95% interval over scenes."""
    scene = np.repeat(np.arange(len(scenes.boxes)), [len(boxes) for boxes in scenes.boxes])
    found = mean_interval(table.assign(video=scene), column)
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def masks(model: PromptableSegmenter, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """bool N×S/4×S/4, SAM's or SAM2's mask."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        return (model(pixels, [torch.from_numpy(np.ascontiguousarray(boxes)).float()]).sam > 0).numpy()


def steadiness(model: PromptableSegmenter, scenes: HeldOut, seed: int) -> dict[str, float]:
    """Mean IoU of the mask with that of the mirrored image, and with that of a box whose sides moved by 5%."""
    rng, mirrored, moved = np.random.default_rng(seed), [], []
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        first = masks(model, image, boxes)
        flipped = np.stack([256 - boxes[:, 2], boxes[:, 1], 256 - boxes[:, 0], boxes[:, 3]], axis=1)
        shift = 0.05 * np.tile(boxes[:, 2:] - boxes[:, :2], 2) * rng.choice([-1, 1], boxes.shape)
        others = masks(model, image[:, ::-1], flipped)[:, :, ::-1], masks(model, image, np.clip(boxes + shift, 0, 256))
        for found, other in zip((mirrored, moved), others, strict=True):
            found += ((first & other).sum((1, 2)) / np.maximum((first | other).sum((1, 2)), 1)).tolist()
    return {"mirrored image": np.mean(mirrored), "box moved by 5%": np.mean(moved)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scenes = held_out_scenes(PretrainConfig(seed=options.seed, held_out_scenes=options.scenes), 256)
    swapped = scenes._replace(images=scenes.images[1:] + scenes.images[:1])
    sizes, rest, intervals = {}, {}, {}
    for method, backbone in PRIORS:
        model = build_model(method, backbone)
        table, column = score(model, scenes, CPU, "float32"), "sum" if method == "hq-sam" else "sam"
        sizes[method], sizes["inscribed ellipse"] = by_size(table, column), by_size(table, "ellipse")
        table["gain"] = table[column] - table.ellipse
        intervals[method] = {"IoU": interval(table, column, scenes), "minus ellipse": interval(table, "gain", scenes)}
        intervals["inscribed ellipse"] = {"IoU": interval(table, "ellipse", scenes), "minus ellipse": ""}
        if method != "hq-sam":
            rest[method] = {
                "images swapped": score(model, swapped, CPU, "float32")[column].mean(),
                "embedding spread": table.spread.mean(),
                "rank correlation of predicted IoU": table[["predicted", column]].corr("spearman").iloc[0, 1],
            } | steadiness(model, scenes, options.seed)
    objects = {name: int(((table.extent >= low) & (table.extent < high)).sum()) for name, (low, high) in SIZES.items()}
    print(f"{options.scenes} scenes of seed {options.seed}, {len(table)} objects: {objects}")
    print(pd.DataFrame(intervals).T.to_string(), end="\n\n")
    print(pd.DataFrame(sizes).T.round(3).to_string(), pd.DataFrame(rest).round(3).to_string(), sep="\n\n")


if __name__ == "__main__":
    main()
