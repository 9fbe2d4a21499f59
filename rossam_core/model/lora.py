"""Low-rank adapters on Q and V of every encoder block (ROS-SAM, section 3.3): W' = W + scale·B·A.

In: a model whose encoder attends through `q_proj` and `v_proj`. Out: the same model, adapted in place by peft, or
with its adapters merged into plain Linears again.
"""

from __future__ import annotations

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ..errors import RossamError

TARGETS = r"image_encoder\.blocks\.\d+\.attn\.(q_proj|v_proj)"


def default_rank(dim: int) -> int:
    """Half the encoder's width: the released code's 512 at ViT-L's 1024 (the paper gives no rank)."""
    return dim // 2


def add_lora(model: nn.Module, rank: int, scale: float = 1.0) -> None:
    """Put a fresh adapter on Q and V of every block of `model.image_encoder`, in place.

    A is drawn kaiming_uniform(a=√5) and B is zero, as in the released code, so the model's output does not change
    until B does. Nothing is frozen.

    Args:
        scale: factor of B·A (released code: 1).

    Raises:
        RossamError: rank below 1.
    """
    if rank < 1:
        raise RossamError("LoRA rank", f"is {rank}, expected 1 or more", "choose a rank, e.g. half the encoder's width")
    trainable = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=TARGETS, lora_dropout=0.0, bias="none")
    inject_adapter_in_model(config, model)
    for parameter in model.parameters():  # peft freezes what it does not add
        parameter.requires_grad_(trainable.get(id(parameter), True))


def merge_lora(model: nn.Module) -> None:
    """Fold every adapter into its Linear, in place; a model without adapters stays as it is."""
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
