"""Drawings of the method: the way from frame to mask, the two decoders, the encoder with its adapters (Figures 2 to 4).

They are drawn anew from the paper's text (section 3) in our own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch

from rossam_kit.report.style import BASE, INK, MUTED, SMALL, WIDTH, Figure

FILLS = {"frozen": "#e4e8ec", "trained": "#f6b9a9", "data": "#ffffff"}
"""Colour of what keeps its weights, of what is fine-tuned, and of what flows between them; lightness differs too."""
NAMES = {"frozen": "keeps SAM's weights", "trained": "fine-tuned", "data": "data"}


@dataclass(frozen=True)
class Node:
    """A box with a text in it.

    Attributes:
        x, y: its centre, in inches from the drawing's lower left corner.
        kind: key of `FILLS`.
    """

    text: str
    x: float
    y: float
    width: float = 1.45
    height: float = 0.62
    kind: str = "data"


def overview() -> Figure:
    """From a frame and a box to a mask in its place: what the inference pipeline adds, and what fine-tuning moves."""
    figure, ax = _sheet(2.0)
    frame, window = Node("frame\nand one box", 0.8, 1.5), Node("window cut around\nthe box, enlarged", 2.75, 1.5, 1.6)
    encoder = Node("image encoder\n+ LoRA, last block", 4.85, 1.5, 1.6, kind="trained")
    prompts = Node("prompt encoder", 4.85, 0.5, 1.6, 0.5, "frozen")
    decoders = Node("mask decoders\nSAM's and HQ", 7.0, 1.5, 1.6, kind="trained")
    logits, mask = Node("logits", 8.75, 1.5, 0.8), Node("mask, back\nin its place", 10.2, 1.5, 1.2)
    _draw(ax, [frame, window, encoder, prompts, decoders, logits, mask])
    for one, other in ((frame, window), (window, encoder), (encoder, decoders), (decoders, logits), (logits, mask)):
        _arrow(ax, one, other)
    _elbow(ax, [(window.x, window.y - 0.31), (window.x, prompts.y), (prompts.x - 0.8, prompts.y)], "the box")
    _elbow(ax, [(prompts.x + 0.8, prompts.y), (decoders.x, prompts.y), (decoders.x, decoders.y - 0.31)])
    return figure


def decoders() -> Figure:
    """SAM's mask decoder and the HQ decoder beside it: which features and which token make which mask."""
    figure, ax = _sheet(3.4)
    early, final = Node("early features\n(first global block)", 0.95, 2.9, 1.7), Node("final embedding", 0.95, 1.3, 1.7)
    tokens = Node("tokens: IoU, masks,\nbox, and one more: HQ", 0.95, 0.4, 1.8)
    transformer = Node("two-way\ntransformer", 3.35, 1.3, 1.4, kind="trained")
    upscaled = Node("upscaled\nfeatures", 5.4, 1.3, 1.2, kind="trained")
    fusion = Node("fusion of early,\nfinal, upscaled", 5.4, 2.9, 1.6, kind="trained")
    sam_mlp = Node("mask token\n→ MLP", 7.5, 0.4, 1.3, kind="trained")
    hq_mlp = Node("HQ token\n→ MLP", 7.5, 2.1, 1.3, kind="trained")
    sam, hq = Node("SAM mask", 9.9, 1.3, 1.3), Node("HQ mask:\nROS-SAM's answer", 9.9, 2.9, 1.6)
    _draw(ax, [early, final, tokens, transformer, upscaled, fusion, sam_mlp, hq_mlp, sam, hq])
    for one, other in ((final, transformer), (transformer, upscaled), (early, fusion), (upscaled, fusion)):
        _arrow(ax, one, other)
    _elbow(ax, [(0.95, 1.61), (0.95, 2.35), (4.95, 2.35), (4.95, fusion.y - 0.31)])
    _arrow(ax, upscaled, sam, "product at each pixel")
    _arrow(ax, fusion, hq, "product at each pixel")
    _elbow(ax, [(tokens.x + 0.9, tokens.y), (transformer.x, tokens.y), (transformer.x, transformer.y - 0.31)])
    _elbow(ax, [(transformer.x + 0.3, transformer.y - 0.31), (transformer.x + 0.3, 0.4), (sam_mlp.x - 0.65, 0.4)])
    _elbow(ax, [(transformer.x, transformer.y + 0.31), (transformer.x, 2.1), (hq_mlp.x - 0.65, 2.1)])
    _elbow(ax, [(sam_mlp.x + 0.65, 0.4), (sam.x, 0.4), (sam.x, sam.y - 0.31)])
    _elbow(ax, [(hq_mlp.x + 0.65, 2.1), (hq.x, 2.1), (hq.x, hq.y - 0.31)])
    return figure


def encoder() -> Figure:
    """The image encoder's row of blocks, and one block's attention with LoRA on queries and values."""
    figure, ax = _sheet(3.4)
    row = [Node("patches\n16 × 16", 0.8, 2.9, 1.1), *(Node(f"block {i}", 2.3 + 1.35 * n, 2.9, 1.05, kind="frozen")
                                                         for n, i in enumerate((1, 2, "…", "n − 1")))]  # fmt: skip
    row += [Node("last block", 7.7, 2.9, 1.05, kind="trained"), Node("embedding", 9.4, 2.9, 1.2)]
    _draw(ax, row)
    for one, other in pairwise(row):
        _arrow(ax, one, other)
    for node in row[1:-1]:
        ax.add_patch(_plate(Node("", node.x, node.y - 0.42, 1.05, 0.14, "trained")))
    ax.text(2.3 - 0.55, 2.2, "LoRA in every block", fontsize=SMALL, color=MUTED, va="center")

    tokens, attention = Node("tokens x", 0.8, 0.95, 1.0), Node("attention", 8.6, 0.95, 1.2, kind="frozen")
    _draw(ax, [tokens, attention])
    for y, name, adapted in ((1.65, "q", True), (0.95, "k", False), (0.25, "v", True)):
        weight = Node(f"W{name} x", 3.0, y, 1.0, 0.42, "frozen")
        _draw(ax, [weight])
        _elbow(ax, [(tokens.x + 0.5, tokens.y), (1.8, tokens.y), (1.8, y), (weight.x - 0.5, y)])
        if adapted:
            thin = Node(f"+ (α/r) B{name} A{name} x", 5.3, y, 1.9, 0.42, "trained")
            _draw(ax, [thin])
            _arrow(ax, weight, thin)
        _elbow(ax, [((6.25 if adapted else 3.5), y), (7.4, y), (7.4, attention.y), (attention.x - 0.6, attention.y)])
    return figure


def _sheet(height: float) -> tuple[Figure, Axes]:
    """An empty drawing of the report's width; one data unit is an inch, the key stands below."""
    figure = Figure(figsize=(WIDTH, height + 0.35))
    ax = figure.add_axes((0, 0.35 / (height + 0.35), 1, height / (height + 0.35)))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    patches = [Patch(facecolor=fill, edgecolor=INK, label=NAMES[kind]) for kind, fill in FILLS.items()]
    ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(0, 0), ncols=3, frameon=False, fontsize=SMALL)
    return figure, ax


def _plate(node: Node) -> FancyBboxPatch:
    corner = node.x - node.width / 2, node.y - node.height / 2
    style = f"round,pad=0,rounding_size={min(0.08, node.height / 2)}"
    shape = {"boxstyle": style, "facecolor": FILLS[node.kind], "edgecolor": INK, "linewidth": 0.9}
    return FancyBboxPatch(corner, node.width, node.height, **shape)


def _draw(ax: Axes, nodes: Sequence[Node]) -> None:
    for node in nodes:
        ax.add_patch(_plate(node))
        ax.text(node.x, node.y, node.text, ha="center", va="center", fontsize=BASE, color=INK, linespacing=1.25)


def _arrow(ax: Axes, start: Node, end: Node, text: str = "") -> None:
    """A straight arrow between two nodes' facing sides."""
    if start.y == end.y:
        points = [(start.x + start.width / 2, start.y), (end.x - end.width / 2, end.y)]
    else:
        points = [(start.x, start.y + start.height / 2), (end.x, end.y - end.height / 2)]
    _elbow(ax, points, text)


def _elbow(ax: Axes, points: Sequence[tuple[float, float]], text: str = "") -> None:
    """A line through `points` with a head at its end, and a text above the middle of its last stretch."""
    for one, other in pairwise(points[:-1]):
        ax.plot(*zip(one, other, strict=True), color=INK, linewidth=1, solid_capstyle="round")
    head = {"arrowstyle": "-|>", "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}
    ax.annotate("", points[-1], points[-2], arrowprops=head)
    if text:
        (x0, y0), (x1, y1) = points[-2:]
        ax.text((x0 + x1) / 2, max(y0, y1) + 0.06, text, ha="center", va="bottom", fontsize=SMALL - 1, color=MUTED)
