"""The segmenter's contract: groups partition the parameters, encode once and decode often, any number of boxes."""

import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.model.build import METHODS, build_model
from rossam_core.model.segmenter import GROUPS, set_trainable
from rossam_core.model.weights import SHIPPED

BOXES = [torch.tensor([[4.0, 5, 30, 40], [20, 10, 60, 22]]), torch.zeros(0, 4), torch.tensor([[1.0, 1, 9, 9]])]

TOLERANCE = 1e-4  # of logits, float32: another batch is summed in another order


@pytest.mark.parametrize("method", METHODS)
def test_groups_partition_the_parameters(tiny, method):
    model = tiny(method)
    groups = model.parameter_groups()
    members = [id(parameter) for group in groups.values() for _, parameter in group]
    assert tuple(groups) == GROUPS
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    assert bool(groups["lora"]) == (method == "ros-sam")
    assert bool(groups["hq_head"]) == (method != "sam")
    assert all(".blocks.1." in name for name, _ in groups["last_block"])


def test_last_block_of_a_deep_encoder_is_one_block(tiny):
    groups = tiny("sam", depth=12).parameter_groups()
    assert {name.split(".")[2] for name, _ in groups["last_block"]} == {"11"}
    assert any(".blocks.1." in name for name, _ in groups["encoder"])


def test_only_named_groups_train(tiny, small_images):
    model = tiny("ros-sam")
    trained = set_trainable(model, ["lora", "hq_head"])
    model(small_images, BOXES).hq.sum().backward()
    names = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {model.group_of(name) for name in names} == {"lora", "hq_head"}
    assert {id(p) for p in trained} == {id(p) for n, p in model.named_parameters() if n in names}


def test_each_mask_trains_its_own_path(tiny, small_images):
    model = tiny("ros-sam")
    model(small_images, BOXES).sam.sum().backward()
    reached = {model.group_of(name) for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"lora", "last_block", "encoder", "sam_decoder"} <= reached
    head = [p.grad for name, p in model.parameter_groups()["hq_head"] if "hf_token" not in name]
    assert all(grad is None for grad in head)  # the token alone takes part, in the decoder's self-attention


def test_groups_that_match_nothing_are_refused(tiny):
    with pytest.raises(RossamError, match="lora, typo") as error:
        set_trainable(tiny("hq-sam"), ["typo", "lora", "hq_head"])
    assert "last_block" in str(error.value)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_one_encoding_serves_many_prompts(tiny, small_images, method):
    model = tiny(method)
    whole = model(small_images, BOXES)
    embeddings = model.encode(small_images)
    parts = [
        model.decode(embeddings.select(torch.tensor([image])), [box[None]])
        for image, boxes in enumerate(BOXES)
        for box in boxes
    ]
    torch.testing.assert_close(torch.cat([part.sam for part in parts]), whole.sam, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(torch.cat([part.iou for part in parts]), whole.iou, atol=TOLERANCE, rtol=0)
    if method != "sam":
        torch.testing.assert_close(torch.cat([part.hq for part in parts]), whole.hq, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_no_boxes_give_empty_masks(tiny, small_images, method):
    out = tiny(method)(small_images, [torch.zeros(0, 4)] * 3)
    assert out.sam.shape == (0, 16, 16)
    assert out.iou.shape == (0,)
    assert (out.hq is None) if method == "sam" else out.hq.shape == (0, 16, 16)


@torch.no_grad()
def test_bfloat16_autocast_stays_close(tiny, small_images):
    model = tiny("ros-sam")
    exact = model(small_images, BOXES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(small_images, BOXES)
    for logits, reference in ((rough.sam, exact.sam), (rough.hq, exact.hq)):
        assert logits.dtype == torch.float32
        assert (logits - reference).abs().mean() <= 0.03 * reference.std()


@torch.no_grad()
def test_box_positions_keep_their_digits_under_autocast(tiny, small_images):
    model, seen = tiny("sam"), []
    model.mask_decoder.register_forward_pre_hook(lambda module, args: seen.append(args[3]))
    model(small_images, BOXES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(small_images, BOXES)
    assert torch.equal(seen[0], seen[1])


def test_the_box_offset_is_added_to_boxes(tiny, small_images):
    moved = [box + 0.5 for box in BOXES]
    plain, offset = tiny("sam", box_offset=0.0)(small_images, BOXES), tiny("sam", box_offset=-0.5)(small_images, moved)
    assert torch.allclose(plain.sam, offset.sam, atol=1e-6)


def test_seed_decides_fresh_weights_and_leaves_the_global_generator(tiny):
    state = torch.random.get_rng_state()
    first, same, other = (
        build_model("sam", "vit_t", None, seed=seed, depth=1, global_attention=(0,)).mask_decoder.iou_token.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 32, 64), r"\(1, 3, 32, 64\), expected \(B, 3, 64, 64\)"),
        (torch.zeros(3, 64, 64), r"\(3, 64, 64\)"),
        (torch.zeros(0, 3, 64, 64), "at least 1"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "uint8"),
    ],
)
def test_bad_images_are_refused(tiny, images, message):
    with pytest.raises(RossamError, match=message):
        tiny("sam").encode(images)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOXES[:2], "2 tensors for 3 images"),
        (torch.zeros(3, 4), r"\(3, 4\) for 3 images"),
        ([torch.zeros(1, 4), torch.zeros(0), torch.zeros(1, 4)], r"boxes\[1\].*\(0,\)"),
        ([torch.zeros(1, 4, dtype=torch.long)] * 3, r"boxes\[0\].*int64"),
    ],
)
def test_bad_boxes_are_refused(tiny, small_images, boxes, message):
    with pytest.raises(RossamError, match=message):
        tiny("sam")(small_images, boxes)


def test_unknown_methods_and_recipes_are_refused():
    with pytest.raises(RossamError, match=r"sam4.*\n.*sam, hq-sam, ros-sam, sam2, sam3"):
        build_model("sam4", "hiera_t", checkpoint=None)


def test_ros_sam_without_fine_tuned_weights_is_refused():
    with pytest.raises(RossamError, match=r"no fine-tuned weights.*\n.*fit.*or use hq-sam"):
        build_model("ros-sam", "vit_t")
    assert build_model("ros-sam", "vit_t", for_training=True).method == "ros-sam"
    with pytest.raises(RossamError, match="never fine-tuned as ROS-SAM"):
        build_model("ros-sam", "vit_t", SHIPPED["vit_t"])


@pytest.mark.parametrize("method", ["sam", "hq-sam", "ros-sam"])
def test_adapters_are_an_option_of_every_sam_method(tiny, method, small_images):
    adapted, plain = tiny(method, adapter="lora"), tiny(method, adapter=None)
    assert adapted.parameter_groups()["lora"] and not plain.parameter_groups()["lora"]
    assert (adapted.has_hq_head, adapted.default_mask_source) == (plain.has_hq_head, plain.default_mask_source)


def test_sam2_has_no_adapters():
    with pytest.raises(RossamError, match="sam2: has no adapters"):
        build_model("sam2", "hiera_t", checkpoint=None, adapter="lora")


def test_a_copied_decoder_is_a_group_of_its_own_and_starts_as_the_original(tiny, small_images):
    model = tiny("hq-sam")
    prompts = [torch.tensor([[8.0, 8, 40, 50]])] * len(small_images)
    with torch.no_grad():
        shared = model(small_images, prompts)
        model.mask_decoder.copy_sam_decoder(model.arch)
        copied = model.eval()(small_images, prompts)
    torch.testing.assert_close(copied.hq, shared.hq)
    assert all(name.startswith("mask_decoder.hq_base.") for name, _ in model.parameter_groups()["decoder_copy"])


def test_training_sams_decoder_moves_the_hq_mask_only_where_it_is_shared(tiny, small_images):
    prompts, moved = [torch.tensor([[8.0, 8, 40, 50]])] * len(small_images), {}
    for kind in ("shared", "copy"):
        model = tiny("hq-sam", hq_decoder=kind)
        with torch.no_grad():
            before = model(small_images, prompts)
            for _, parameter in model.parameter_groups()["sam_decoder"]:
                parameter += 0.05
            after = model(small_images, prompts)
        assert not torch.equal(before.sam, after.sam)
        moved[kind] = not torch.equal(before.hq, after.hq)
    assert moved == {"shared": True, "copy": False}


def test_with_a_copy_sams_mask_is_that_of_sam_alone(tiny, small_images):
    hq, sam = tiny("hq-sam", hq_decoder="copy"), tiny("sam")
    sam.load_state_dict({name: hq.state_dict()[name] for name in sam.state_dict()})
    prompts = [torch.tensor([[8.0, 8, 40, 50]])] * len(small_images)
    with torch.no_grad():
        torch.testing.assert_close(hq(small_images, prompts).sam, sam(small_images, prompts).sam)
