"""HQ-SAM and SAM2 here equal their authors' packages, `segment_anything_hq` and `sam2`, on the same weights."""

import warnings

import numpy as np
import pytest
import torch

from rossam_core.model.build import build_model
from rossam_core.model.sam import PIXEL_MEAN, PIXEL_STD

from .official import save_official

TOLERANCE = 1e-4  # of logits, float32


def original_hq_sam(arch):
    """HQ-SAM from the classes of `segment_anything_hq`, with our test network's depth and input size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it registers models under names that timm has
        from segment_anything_hq.modeling import ImageEncoderViT, MaskDecoderHQ, PromptEncoder, Sam, TwoWayTransformer
    size, grid = arch.input_size, arch.input_size // 16
    encoder = ImageEncoderViT(
        depth=arch.depth,
        embed_dim=arch.dim,
        img_size=size,
        norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6),
        num_heads=arch.heads,
        use_rel_pos=True,
        global_attn_indexes=arch.global_attention,
        window_size=arch.window,
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoderHQ(transformer_dim=256, transformer=transformer, vit_dim=arch.dim)
    prompts = PromptEncoder(256, (grid, grid), (size, size), mask_in_chans=16)
    return Sam(encoder, prompts, decoder, list(PIXEL_MEAN), list(PIXEL_STD)).eval()


@torch.no_grad()
def test_hq_sam_equals_segment_anything_hq(vit_b, images, boxes, tmp_path):
    ours = vit_b("hq-sam")
    save_official(ours, tmp_path / "hq.pth")
    theirs = original_hq_sam(ours.arch)
    theirs.load_state_dict(torch.load(tmp_path / "hq.pth", weights_only=True), strict=True)
    records = [{"image": i, "original_size": i.shape[1:], "boxes": b} for i, b in zip(images, boxes, strict=True)]
    out = ours(images, boxes)
    hq, both = (theirs(records, multimask_output=False, hq_token_only=only) for only in (True, False))

    assert out.hq.std() > 0.5  # so that the tolerance means something
    assert (out.hq - torch.cat([r["low_res_logits"][:, 0] for r in hq])).abs().max() <= TOLERANCE
    assert (out.sam + out.hq - torch.cat([r["low_res_logits"][:, 0] for r in both])).abs().max() <= TOLERANCE
    assert (out.iou - torch.cat([r["iou_predictions"][:, 0] for r in hq])).abs().max() <= TOLERANCE


@torch.no_grad()
def test_sam2_equals_the_sam2_package(rng, tmp_path):
    pytest.importorskip("sam2", reason="sam2 is not installed (its build fetches PyTorch once more)")
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    torch.manual_seed(0)
    theirs = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu")
    for name, parameter in theirs.named_parameters():
        parameter += (0.3 if "pos" in name else 0.03) * torch.randn(parameter.shape)
    torch.save({"model": theirs.state_dict()}, tmp_path / "sam2.pt")
    ours = build_model("sam2", "hiera_tiny", tmp_path / "sam2.pt").eval()

    image = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    boxes = np.array([[100, 120, 300, 260], [512, 600, 560, 700], [0, 0, 1024, 1024]], dtype=np.float32)
    predictor = SAM2ImagePredictor(theirs)
    predictor.set_image(image)
    _, iou, logits = predictor.predict(box=boxes, multimask_output=False, return_logits=True)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    out = ours(pixels, [torch.from_numpy(boxes)])

    assert out.sam.std() > 0.2
    assert (out.sam.clamp(-32, 32) - torch.from_numpy(logits[:, 0])).abs().max() <= TOLERANCE
    assert (out.iou - torch.from_numpy(iou[:, 0])).abs().max() <= TOLERANCE
