"""SAM here equals SAM there: `segment_anything` and transformers' `SamModel`, on the same weights."""

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from rossam_core.errors import RossamError
from rossam_core.model import sam
from rossam_core.model.sam import ARCHITECTURES, PIXEL_MEAN, PIXEL_STD, SplitAttention, architecture

from .official import save_official

TOLERANCE = 1e-4  # of logits, float32


def reference_sam(arch):
    """SAM from `segment_anything`'s own classes, its constants written out once more."""
    grid = arch.input_size // 16
    return Sam(
        ImageEncoderViT(
            depth=arch.depth,
            embed_dim=arch.dim,
            img_size=arch.input_size,
            mlp_ratio=4,
            norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6),
            num_heads=arch.heads,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=arch.global_attention,
            window_size=arch.window,
            out_chans=256,
        ),
        PromptEncoder(256, (grid, grid), (arch.input_size, arch.input_size), 16),
        MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048)),
        list(PIXEL_MEAN),
        list(PIXEL_STD),
    ).eval()


@torch.no_grad()
def test_equals_segment_anything(vit_b, images, boxes, tmp_path):
    ours = vit_b("sam")
    save_official(ours, tmp_path / "sam.pth")
    theirs = reference_sam(ours.arch)
    theirs.load_state_dict(torch.load(tmp_path / "sam.pth", weights_only=True), strict=True)
    prompts = [boxes[0], boxes[1][:1]]

    out = ours(images, prompts)
    records = [
        {"image": image, "original_size": image.shape[1:], "boxes": box}
        for image, box in zip(images, prompts, strict=True)
    ]
    expected = theirs(records, multimask_output=False)

    logits = torch.cat([record["low_res_logits"] for record in expected])[:, 0]
    iou = torch.cat([record["iou_predictions"] for record in expected])[:, 0]
    assert logits.std() > 0.5  # so that the tolerance means something
    assert (out.sam - logits).abs().max() <= TOLERANCE
    assert (out.iou - iou).abs().max() <= TOLERANCE


@torch.no_grad()
def test_points_refine_a_box_as_in_segment_anything(vit_b, images, boxes, tmp_path):
    ours = vit_b("sam")
    save_official(ours, tmp_path / "sam.pth")
    theirs = reference_sam(ours.arch)
    theirs.load_state_dict(torch.load(tmp_path / "sam.pth", weights_only=True), strict=True)
    prompts = [boxes[0], boxes[1][:1]]
    coords = [torch.tensor([[[30.0, 40], [55.5, 21]]]).repeat(3, 1, 1), torch.tensor([[[80.0, 20], [10, 12]]])]
    labels = [torch.tensor([[1, 0]] * 3), torch.tensor([[0, 1]])]
    out = ours.decode(ours.encode(images), prompts, list(zip(coords, labels, strict=True)))
    records = [
        {"image": image, "original_size": image.shape[1:], "boxes": box, "point_coords": at, "point_labels": signs}
        for image, box, at, signs in zip(images, prompts, coords, labels, strict=True)
    ]
    expected = torch.cat([record["low_res_logits"] for record in theirs(records, multimask_output=False)])[:, 0]
    assert (out.sam - expected).abs().max() <= TOLERANCE
    assert (out.sam - ours(images, prompts).sam).abs().max() > 0.1  # the points do something


def test_points_of_another_shape_are_refused(tiny, small_images):
    model = tiny("hq-sam")
    with torch.no_grad():
        embeddings = model.encode(small_images[:1])
    with pytest.raises(RossamError, match=r"coordinates \(1, 2, 2\), labels \(1, 1\) for 1 boxes"):
        model.decode(embeddings, [torch.tensor([[1.0, 1, 9, 9]])], [(torch.zeros(1, 2, 2), torch.ones(1, 1))])


@torch.no_grad()
def test_equals_transformers(vit_b, images, boxes, to_transformers):
    ours = vit_b("sam")
    theirs = to_transformers(ours)
    out = ours(images, boxes)
    pixels = (images - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)
    expected = theirs(pixels, input_boxes=torch.stack(boxes), multimask_output=False)
    logits = expected.pred_masks.flatten(0, 2)
    assert (out.sam - logits).abs().max() <= TOLERANCE
    assert (out.iou - expected.iou_scores.flatten()).abs().max() <= TOLERANCE


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_folded_relative_positions_equal_the_equation(grid):
    h, w = grid
    generator = torch.Generator().manual_seed(0)
    attention = SplitAttention(dim=16, heads=2, grid=5)
    for parameter in attention.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    attention.rel_pos_h.data = attention.rel_pos_h.data[: 2 * h - 1]
    attention.rel_pos_w.data = attention.rel_pos_w.data[: 2 * w - 1]
    x = torch.randn(2, h, w, 16, generator=generator)

    q, k, v = (
        p(x).reshape(2, h * w, 2, 8).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    row, column = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    r_h = attention.rel_pos_h[row[:, None] - row[None] + h - 1]
    r_w = attention.rel_pos_w[column[:, None] - column[None] + w - 1]
    logits = q @ k.transpose(-2, -1) / 8**0.5 + torch.einsum("bnqd,qkd->bnqk", q, r_h + r_w)
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(2, h, w, 16))

    torch.testing.assert_close(attention(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "scores"), [(64, 1 << 19), (64, 2 * 64 * 64), (64, 20 * 64), (700, 1 << 19)])
def test_attention_by_separate_products_equals_the_fused_kernel(tokens, scores, monkeypatch):
    monkeypatch.setattr(sam, "SCORES", scores)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, width, generator=generator) for width in (24, 24, 16))
    ways = {"exact": (torch.float32, True), "fused": (torch.bfloat16, True), "ours": (torch.bfloat16, False)}
    results = {}
    for name, (dtype, amx) in ways.items():
        monkeypatch.setattr(sam, "has_amx", lambda amx=amx: amx)
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in (q, k, v)]
        output = sam._attention(*inputs, 0.25)
        output.square().sum().backward()
        results[name] = [output, *(x.grad for x in inputs)]
    for exact, fused, ours in zip(*results.values(), strict=True):
        error, allowed = ((x.float() - exact).norm() / exact.norm() for x in (ours, fused))
        assert 0 < error < 2 * allowed < 0.04


def test_encoder_returns_the_first_global_block_as_early_feature(tiny, small_images):
    model = tiny("hq-sam", depth=3, global_attention=(1, 2))
    seen = []
    handle = model.image_encoder.blocks[1].register_forward_hook(lambda *args: seen.append(args[2]))
    embeddings = model.encode(small_images)
    handle.remove()
    assert embeddings.early.shape == (3, 4, 4, 192)
    assert torch.equal(embeddings.early, seen[0])


def test_published_sizes():
    sizes = {name: (a.dim, a.depth, a.heads, a.global_attention, a.grid) for name, a in ARCHITECTURES.items()}
    assert sizes["vit_l"] == (1024, 24, 16, (5, 11, 17, 23), 64)
    assert sizes["vit_t"] == (192, 12, 3, (2, 5, 8, 11), 16)


def test_unknown_architectures_are_refused():
    with pytest.raises(RossamError, match="vit_x"):
        architecture("vit_x")
    with pytest.raises(RossamError, match="depht"):
        architecture("vit_t", depht=3)
    with pytest.raises(RossamError, match="global attention"):
        architecture("vit_t", depth=2)
    with pytest.raises(RossamError, match=r"250(.|\n)*use 240"):
        architecture("vit_t", input_size=250)
