"""Small segmenters with weights far from their initial zeros, and prompts for two images."""

import pytest
import torch
import transformers

from rossam_core.model.build import build_model
from rossam_kit.checkpoints import transformers_name

from .official import save_official

SIZE = 256


def _perturb(model, seed=1):
    """Move every weight, those initialised to zero or one too, so that no comparison is vacuous."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if "pos" in name else 0.06
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="session")
def perturb():
    return _perturb


@pytest.fixture(scope="session")
def vit_b():
    """`vit_b(method)`: ViT-B's widths and windows (padded, since 14 does not divide 16), three blocks, input 256."""

    def build(method, **overrides):
        settings = {"depth": 3, "global_attention": (1,), "input_size": SIZE, **overrides}
        return _perturb(build_model(method, "vit_b", checkpoint=None, lora_rank=8, **settings))

    return build


@pytest.fixture(scope="session")
def tiny():
    """`tiny(method)`: ViT-T's widths, two blocks, input 64: for what does not depend on size."""

    def build(method, **overrides):
        settings = {"depth": 2, "global_attention": (0,), "input_size": 64, "decoder_mlp_dim": 64, **overrides}
        return _perturb(build_model(method, "vit_t", checkpoint=None, lora_rank=4, **settings))

    return build


@pytest.fixture(scope="session")
def images():
    """Two RGB images of 256 pixels, 0-255."""
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 255


@pytest.fixture(scope="session")
def small_images():
    """Three RGB images of 64 pixels, 0-255."""
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 255


@pytest.fixture(scope="session")
def boxes():
    """Three boxes for each of two images of 256 pixels."""
    first = torch.tensor([[10.0, 20, 60, 70], [100.5, 30.25, 190, 80], [0, 0, 256, 256]])
    return [first, first.flip(0) * 0.5 + 3]


@pytest.fixture
def to_transformers(tmp_path):
    """`to_transformers(model)`: a `SamModel` or `SamHQModel` with the same weights, all names matched."""

    def convert(model):
        hq, arch = model.has_hq_head, model.arch
        vision_config = {
            "hidden_size": arch.dim,
            "num_hidden_layers": arch.depth,
            "num_attention_heads": arch.heads,
            "image_size": arch.input_size,
            "window_size": arch.window,
            "global_attn_indexes": list(arch.global_attention),
            "mlp_dim": 4 * arch.dim,
        }
        prompt_encoder_config = {"image_size": arch.input_size, "image_embedding_size": arch.grid}
        mask_decoder_config = {"layer_norm_eps": 1e-5}  # SAM's own; transformers' default is 1e-6
        configs = {
            "vision_config": vision_config,
            "prompt_encoder_config": prompt_encoder_config,
            "mask_decoder_config": mask_decoder_config | ({"vit_dim": arch.dim} if hq else {}),
        }
        if hq:
            theirs = transformers.SamHQModel(transformers.SamHQConfig(**configs))
        else:
            theirs = transformers.SamModel(transformers.SamConfig(**configs))
        save_official(model, tmp_path / "official.pth")
        official = torch.load(tmp_path / "official.pth", weights_only=True)
        state = {transformers_name(name): value for name, value in official.items()}
        shared = "shared_image_embedding.positional_embedding"
        state["prompt_encoder.shared_embedding.positional_embedding"] = state[shared]
        theirs.load_state_dict(state, strict=True)
        return theirs.eval()

    return convert
