"""Adapters on Q and V of every encoder block, by peft: LoRA (ROS-SAM, section 3.2.1) and three others.

The parameters of every kind are the group `lora`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from rossam_core.errors import RossamError

if TYPE_CHECKING:
    from peft import PeftConfig  # peft takes seconds to load, which networks without adapters need not wait for

AdapterKind = Literal["lora", "dora", "loha", "ia3"]
TARGETS = r"image_encoder\.blocks\.\d+\.attn\.(q_proj|v_proj)"
PEFT_NAME_PARTS = (".lora_", ".hada_", ".ia3_")
"""Parts of the names that peft gives to adapter parameters, and that occur in no other name."""


def default_rank(dim: int) -> int:
    """Half the encoder's width: the released code's 512 at ViT-L's 1024 (the paper gives no rank)."""
    return dim // 2


def add_adapter(model: nn.Module, rank: int, kind: AdapterKind = "lora") -> None:
    """Put a fresh adapter on Q and V of every block of `model.image_encoder`, in place; nothing is frozen.

    A fresh adapter does not change the model's output (DoRA: but for rounding). With W a Linear's weight, m×n:

    - `lora`: W + B·A of the given rank, A drawn kaiming_uniform(a=√5), B zero, as in the released code;
    - `dora`: the same, every row rescaled to a trained length (Liu et al., ICML 2024);
    - `loha`: W + B₁A₁ ∘ B₂A₂, the elementwise product of two such (Hyeon-Woo et al., ICLR 2022), each of half the
      rank, so that it has as many parameters as LoRA of that rank;
    - `ia3`: the output scaled, diag(l)·(Wx + b), m numbers, whatever the rank (Liu et al., NeurIPS 2022).
    """
    from peft import inject_adapter_in_model

    trainable = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    inject_adapter_in_model(_config(kind, rank), model)
    for parameter in model.parameters():  # peft freezes what it does not add
        parameter.requires_grad_(trainable.get(id(parameter), True))


def merge_adapters(model: nn.Module) -> None:
    """Replace every adapted Linear by one with the merged weight, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())


def is_adapter(name: str) -> bool:
    """Whether a parameter or buffer of that name belongs to an adapter."""
    return any(mark in name for mark in PEFT_NAME_PARTS)


def _config(kind: AdapterKind, rank: int) -> PeftConfig:
    """Settings of peft; its alpha = rank is a factor of 1 on what is added, as in the released code."""
    from peft import IA3Config, LoHaConfig, LoraConfig

    match kind:
        case "lora" | "dora":
            return LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, use_dora=kind == "dora")
        case "loha":
            half = max(rank // 2, 1)
            return LoHaConfig(r=half, alpha=half, target_modules=TARGETS)
        case "ia3":
            return IA3Config(target_modules=TARGETS, feedforward_modules=[])
    raise RossamError(f"adapter {kind}", "is not known", f"use one of {', '.join(get_args(AdapterKind))}")
