"""Export HQ-SAM or ROS-SAM as a pair of ONNX files, which onnxruntime runs without torch: encoder and decoder.

    encoder.onnx   images float32 B×3×S×S (RGB, 0-255) → final B×256×G×G, hq_features B×32×4G×4G; G = S/16
    decoder.onnx   final 1×256×G×G, hq_features 1×32×4G×4G, boxes float32 N×4 (xyxy, input pixels, pixel edges)
                   → logits N×S/4×S/4 of the model's own mask, above 0 where the object is; iou N, as predicted

Inputs and masks are those of windows: `rossam_core.inference.windows` cuts them out of a frame and puts masks back.

Usage: python -m tools.export_onnx --out DIR [--checkpoint RUN]    (needs pip install onnx onnxscript onnxruntime)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path
from rossam_core.model.build import build_model
from rossam_core.model.segmenter import ImageEmbeddings, SamSegmenter
from rossam_kit.convert.command import method_of

OPSET = 18


class Encoder(nn.Module):
    """Images to what the decoder needs of them."""

    def __init__(self, model: SamSegmenter):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.model.prepare(self.model.encode(images))
        return embeddings.final, embeddings.hq_features


class Decoder(nn.Module):
    """Boxes in one encoded image to mask logits and predicted IoU."""

    def __init__(self, model: SamSegmenter):
        super().__init__()
        self.model = model

    def forward(self, final: Tensor, hq_features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model.decode(ImageEmbeddings(final, hq_features=hq_features), [boxes])
        return output.named(self.model.default_mask_source), output.iou


def export(model: SamSegmenter, folder: str | Path) -> None:
    """Write `encoder.onnx`, for any number of images, and `decoder.onnx`, for any number of boxes.

    Raises:
        RossamError: the model has no HQ head.
    """
    if not model.has_hq_head:
        raise RossamError(f"method {model.method}", "has no HQ head", "export hq-sam or ros-sam")
    model = model.cpu().eval()
    images = torch.zeros(2, 3, model.input_size, model.input_size)
    with torch.no_grad():
        final, hq_features = Encoder(model)(images)
    boxes = torch.tensor([[0.0, 0, 9, 9], [8, 8, 40, 32], [16, 8, 64, 48]])
    _write(Encoder(model), {"images": images}, ["final", "hq_features"], "images", Path(folder, "encoder.onnx"))
    inputs = {"final": final[:1], "hq_features": hq_features[:1], "boxes": boxes}
    _write(Decoder(model), inputs, ["logits", "iou"], "boxes", Path(folder, "decoder.onnx"))


def _write(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], free: str, path: Path) -> None:
    """Export with example inputs; the first side of the input `free` may have any length."""
    shapes = {name: {0: torch.export.Dim.DYNAMIC} if name == free else None for name in inputs}
    with atomic_path(path) as temporary:
        torch.onnx.export(
            module.eval(), tuple(inputs.values()), temporary, input_names=list(inputs), output_names=outputs,
            dynamic_shapes=shapes, opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write encoder.onnx and decoder.onnx to")
    parser.add_argument("--method", choices=["hq-sam", "ros-sam"], help="default: that of the run, else hq-sam")
    parser.add_argument("--backbone", default="vit_t")
    parser.add_argument("--checkpoint", default="default", help="folder of a run, or a weights file")
    options = parser.parse_args()
    method = options.method or method_of(options.checkpoint)
    export(build_model(method, options.backbone, options.checkpoint), options.out)
    print(f"{options.out / 'encoder.onnx'}\n{options.out / 'decoder.onnx'}")
