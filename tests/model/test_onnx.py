"""The ONNX pair gives the masks of the network that it was exported from, for any number of images and boxes."""

import numpy as np
import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.model.build import build_model
from tools.export_onnx import export

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SMALL = {"dim": 48, "depth": 2, "heads": 3, "global_attention": (1,), "input_size": 64, "window": 2}


@pytest.mark.parametrize("method", ["hq-sam", "ros-sam"])
def test_onnxruntime_gives_the_same_masks(method, perturb, rng, tmp_path):
    model = perturb(build_model(method, "vit_t", checkpoint=None, lora_rank=2, **SMALL)).eval()
    export(model, tmp_path)
    encoder, decoder = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("encoder", "decoder"))
    images = rng.uniform(0, 255, (3, 3, 64, 64)).astype(np.float32)
    final, hq_features = encoder.run(None, {"images": images})
    with torch.no_grad():
        embeddings = model.prepare(model.encode(torch.from_numpy(images)))
    np.testing.assert_allclose(final, embeddings.final, atol=1e-4)
    for image, count in enumerate((1, 2, 5)):
        boxes = np.sort(rng.uniform(0, 64, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
        of_image = {"final": final[image : image + 1], "hq_features": hq_features[image : image + 1]}
        logits, iou = decoder.run(None, of_image | {"boxes": boxes})
        with torch.no_grad():
            expected = model.decode(embeddings.select(torch.tensor([image])), [torch.from_numpy(boxes)])
        own = expected.hq if method == "ros-sam" else expected.sam + expected.hq
        np.testing.assert_allclose(logits, own, atol=1e-3, rtol=1e-4)
        np.testing.assert_allclose(iou, expected.iou, atol=1e-4)
        assert logits.std() > 1e-2


def test_a_network_without_an_hq_head_is_refused(tmp_path):
    with pytest.raises(RossamError, match="has no HQ head"):
        export(build_model("sam", "vit_t", checkpoint=None, **SMALL), tmp_path)
