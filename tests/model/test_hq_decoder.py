"""HQ-SAM here equals transformers' `SamHQModel` on the same weights, with one of its faults corrected."""

import pytest
import torch

from rossam_core.model.sam import PIXEL_MEAN, PIXEL_STD

TOLERANCE = 1e-4  # of logits, float32


def attend_before_upscaling(theirs):
    """Give `SamHQModel` the image features that HQ-SAM upscales.

    Its mask decoder (seen in 5.23.0) drops the image features its transformer returns and upscales those that went
    in, rows and columns exchanged; HQ-SAM's code upscales what comes out. The hooks put that in its place, and change
    nothing in a version that is right.
    """
    decoder, attended = theirs.mask_decoder, []

    def keep(module, args, kwargs, output):
        attended[:] = [output[1]]  # B×N×HW×C

    def replace(module, args):
        n, c, h, w = args[0].shape
        return (attended[0].flatten(0, 1).transpose(1, 2).reshape(n, c, h, w),)

    decoder.transformer.register_forward_hook(keep, with_kwargs=True)
    decoder.upscale_conv1.register_forward_pre_hook(replace)
    return theirs


@torch.no_grad()
def test_equals_transformers(vit_b, images, boxes, to_transformers):
    ours = vit_b("hq-sam")
    theirs = attend_before_upscaling(to_transformers(ours))
    out = ours(images, boxes)
    pixels = (images - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)
    prompt = {"input_boxes": torch.stack(boxes), "multimask_output": False}
    hq = theirs(pixels, **prompt, hq_token_only=True)
    both = theirs(pixels, **prompt, hq_token_only=False)

    assert out.hq.std() > 0.5  # so that the tolerance means something
    assert (out.hq - hq.pred_masks.flatten(0, 2)).abs().max() <= TOLERANCE
    assert (out.sam + out.hq - both.pred_masks.flatten(0, 2)).abs().max() <= TOLERANCE
    assert (out.iou - hq.iou_scores.flatten()).abs().max() <= TOLERANCE


def test_hq_head_reads_early_and_final_features(tiny, small_images):
    model = tiny("hq-sam")
    boxes = [torch.tensor([[4.0, 5, 30, 40]])] * 3
    embeddings = model.encode(small_images)
    out = model.decode(embeddings, boxes)
    other = model.decode(embeddings._replace(early=torch.zeros_like(embeddings.early)), boxes)
    assert torch.equal(out.sam, other.sam)
    assert not torch.allclose(out.hq, other.hq, atol=1e-3)


def test_early_features_are_compressed_once_an_image(tiny, small_images):
    model = tiny("hq-sam")
    seen = []
    model.mask_decoder.compress_vit_feat.register_forward_hook(lambda *args: seen.append(len(args[2])))
    model(small_images, [torch.rand(7, 4) * 60] * 3)
    assert seen == [3]


def test_prepared_embeddings_give_the_same_masks_without_that_work(tiny, small_images):
    model, boxes = tiny("hq-sam"), [torch.tensor([[4.0, 5, 30, 40]])] * 3
    embeddings = model.encode(small_images)
    prepared = model.prepare(embeddings)
    hook = model.mask_decoder.compress_vit_feat.register_forward_hook(lambda *args: pytest.fail("computed again"))
    found = [model.decode(prepared.select(torch.tensor([i])), boxes[:1]).hq for i in range(3)]
    hook.remove()
    torch.testing.assert_close(torch.cat(found), model.decode(embeddings, boxes).hq, atol=1e-4, rtol=1e-4)
