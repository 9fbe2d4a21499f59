"""SAM's mask decoder with HQ-SAM's second output, for many prompts on many images at once.

For every prompt the decoder gives SAM's single mask (output token 0), the HQ mask, and the predicted IoU of SAM's.
Parameter names are those of HQ-SAM's checkpoints (Ke et al., Segment Anything in High Quality, NeurIPS 2023).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rossam_core.errors import RossamError
from rossam_core.model.sam import Architecture, ChannelNorm, fuse_channel_norms, mask_decoder_settings
from rossam_core.model.sam_modules import MLP, MaskDecoder

HQ_TOKEN = 5
"""Index of the HQ token among the output tokens: after the IoU token and SAM's four mask tokens."""


class MaskLogits(NamedTuple):
    """Masks of ΣN prompts, those of the first image first; h = w = `mask_size`. Float32; above 0 is foreground."""

    sam: Tensor
    """ΣN×h×w: SAM's single-mask output."""
    hq: Tensor | None
    """ΣN×h×w: HQ-SAM's output alone (`hq_token_only`), None without an HQ head. HQ-SAM's own mask is sam + hq."""
    iou: Tensor
    """ΣN: predicted IoU of `sam`, about 0 to 1."""

    def named(self, source: Literal["sam", "hq", "sum"]) -> Tensor:
        """The logits of SAM's mask, of the HQ mask, or their sum; `RossamError` without an HQ head."""
        if source == "sam":
            return self.sam
        if self.hq is None:
            raise RossamError(f"mask source {source}", "needs an HQ head, which this network lacks", "use sam")
        return self.hq if source == "hq" else self.sam + self.hq


class BoxMaskDecoder(MaskDecoder):
    """SAM's decoder restricted to its single-mask output; the prompts may belong to different images."""

    def __init__(self, arch: Architecture):
        super().__init__(**mask_decoder_settings(arch))

    def forward(self, image: Tensor, hq_features: Tensor | None, image_pe: Tensor, prompts: Tensor) -> MaskLogits:
        """Decode ΣN prompts.

        Args:
            image: ΣN×C×H×W, each prompt's image embedding plus SAM's embedding of "no mask given".
            hq_features: ΣN×C/8×4H×4W, each prompt's `HQMaskDecoder.hq_features`; unused without an HQ head.
            image_pe: 1×C×H×W, positional encoding of the embedding grid.
            prompts: ΣN×T×C, T prompt tokens each (a box is two).
        """
        return self._sam_outputs(*self.attend(image, image_pe, prompts), hq=None)

    def attend(self, image: Tensor, image_pe: Tensor, prompts: Tensor, *more_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Two-way attention between tokens and image.

        Args:
            more_tokens: 1×C output tokens besides SAM's own five (IoU, then four masks). For the others see `forward`.

        Returns:
            Tokens ΣN×(T'+T)×C, the T' output tokens first, and upscaled features ΣN×C/8×4H×4W.
        """
        n, c, h, w = image.shape
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight, *more_tokens])
        tokens = torch.cat([output_tokens.expand(n, -1, -1), prompts], dim=1)
        tokens, image = self.transformer(image, image_pe, tokens)
        # ΣN×HW×C -> ΣN×C×H×W
        return tokens, self.output_upscaling(image.transpose(1, 2).reshape(n, c, h, w))

    def _sam_outputs(self, tokens: Tensor, upscaled: Tensor, hq: Tensor | None) -> MaskLogits:
        sam = _weighted_sum(self.output_hypernetworks_mlps[0](tokens[:, 1]), upscaled)
        return MaskLogits(sam, hq, self.iou_prediction_head(tokens[:, 0])[:, 0].float())


class HQMaskDecoder(BoxMaskDecoder):
    """SAM's decoder plus HQ-SAM's head: one more output token, and features fused with those of an early encoder block.

    By default the HQ token passes through SAM's own transformer and upscaling, which both masks share. After
    `copy_sam_decoder` it passes through a copy of them, `hq_base`, as in ROS-SAM's released code.
    """

    def __init__(self, arch: Architecture):
        super().__init__(arch)
        c = arch.prompt_dim
        self.hq_base: BoxMaskDecoder | None = None
        self.hf_token = nn.Embedding(1, c)
        self.hf_mlp = MLP(c, c, c // 8, 3)
        double, keep = {"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "padding": 1}
        self.compress_vit_feat = _two_layers(nn.ConvTranspose2d, arch.dim, c, c // 8, double)
        self.embedding_encoder = _two_layers(nn.ConvTranspose2d, c, c // 4, c // 8, double)
        self.embedding_maskfeature = _two_layers(nn.Conv2d, c // 8, c // 4, c // 8, keep)

    def hq_features(self, image_embeddings: Tensor, early: Tensor) -> Tensor:
        """Features of the image for the HQ mask, B×C/8×4H×4W: the final embedding and the early feature, fused.

        Args:
            image_embeddings: B×C×H×W.
            early: B×H×W×D, the output of the encoder's first block with global attention.
        """
        # B×H×W×D -> B×D×H×W
        return self.embedding_encoder(image_embeddings) + self.compress_vit_feat(early.permute(0, 3, 1, 2))

    def forward(self, image: Tensor, hq_features: Tensor, image_pe: Tensor, prompts: Tensor) -> MaskLogits:
        """As `BoxMaskDecoder.forward`, with `hq`."""
        base = self if self.hq_base is None else self.hq_base
        tokens, upscaled = base.attend(image, image_pe, prompts, self.hf_token.weight)
        hq = _weighted_sum(self.hf_mlp(tokens[:, HQ_TOKEN]), self.embedding_maskfeature(upscaled) + hq_features)
        if self.hq_base is not None:
            tokens, upscaled = self.attend(image, image_pe, prompts)
        return self._sam_outputs(tokens, upscaled, hq)

    def copy_sam_decoder(self, arch: Architecture) -> None:
        """Give the HQ head its own copy of SAM's decoder, with the present weights."""
        self.hq_base = BoxMaskDecoder(arch)
        fuse_channel_norms(self.hq_base)
        own = self.state_dict()
        self.hq_base.load_state_dict({name: own[name] for name in self.hq_base.state_dict()})


def _two_layers(layer: type[nn.Module], width: int, hidden: int, out: int, shape: dict) -> nn.Sequential:
    return nn.Sequential(layer(width, hidden, **shape), ChannelNorm(hidden), nn.GELU(), layer(hidden, out, **shape))


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Σ_c weights[n, c]·features[n, c, :, :] as float32; N×C and N×C×H×W -> N×H×W."""
    n, _, h, w = features.shape
    return torch.bmm(weights[:, None], features.flatten(2)).view(n, h, w).float()
