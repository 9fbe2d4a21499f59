"""The modules of SAM's network, from the package `segment_anything` without its predictor.

`import segment_anything` loads its predictor as well, and with that torchvision and `torch._dynamo`: most of the time
that a process needed to start.
"""

import importlib.util
import sys
from types import ModuleType


def _modeling() -> ModuleType:
    """`segment_anything.modeling`; the package itself counts as not imported afterwards, unless it was before."""
    name, spec = "segment_anything", importlib.util.find_spec("segment_anything")
    if name in sys.modules or spec is None:
        return importlib.import_module(f"{name}.modeling")
    sys.modules[name] = importlib.util.module_from_spec(spec)  # a package whose `__init__` has not run
    try:
        return importlib.import_module(f"{name}.modeling")
    finally:
        del sys.modules[name]


modeling = _modeling()
ImageEncoderViT = modeling.ImageEncoderViT
LayerNorm2d = modeling.common.LayerNorm2d
MLP = modeling.mask_decoder.MLP
MaskDecoder = modeling.MaskDecoder
PositionEmbeddingRandom = modeling.prompt_encoder.PositionEmbeddingRandom
PromptEncoder = modeling.PromptEncoder
TwoWayTransformer = modeling.TwoWayTransformer
