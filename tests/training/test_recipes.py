"""Recipes: what a step updates follows from the trained groups and from whether updates alternate."""

import itertools

import pytest

from rossam_core.errors import RossamError
from rossam_core.model.build import trained_mask
from rossam_core.training.recipes import RunConfig, recipe

ENCODER = ("lora", "last_block")


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("paper", [((*ENCODER, "sam_decoder"), "sam"), ((*ENCODER, "hq_head"), "hq")]),
        ("released", [((*ENCODER, "prompt_encoder"), "hq"), (("hq_head",), "hq")]),
        ("corrected", [((*ENCODER, "sam_decoder", "hq_head"), "both")]),
    ],
)
def test_what_each_recipe_updates(name, phases):
    assert [tuple(phase) for phase in recipe(name).phases(has_hq_head=True)] == phases


@pytest.mark.parametrize(
    ("groups", "has_hq_head", "phases"),
    [
        (["sam_decoder"], False, [(("sam_decoder",), "sam")]),
        (["sam_decoder"], True, [(("sam_decoder",), "sam")]),
        (["hq_head"], True, [(("hq_head",), "hq")]),
        (["sam_decoder", "hq_head"], True, [(("sam_decoder",), "sam"), (("hq_head",), "hq")]),
        (["lora"], False, [(("lora",), "sam")]),
        (["lora"], True, [(("lora",), "sam"), (("lora",), "hq")]),
        (["lora", "hq_head"], True, [(("lora", "hq_head"), "hq")]),
    ],
)
def test_alternation_follows_from_the_groups_that_train(groups, has_hq_head, phases):
    assert [tuple(phase) for phase in recipe("paper", trained_groups=groups).phases(has_hq_head)] == phases


@pytest.mark.parametrize("alternate", ["masks", "groups", "none"])
@pytest.mark.parametrize(
    ("method", "groups"),
    [("sam", ["sam_decoder"]), *itertools.product(("hq-sam", "ros-sam"), (["lora"], ["sam_decoder"], ["hq_head"]))],
)
def test_a_run_answers_with_the_mask_that_its_steps_train(method, groups, alternate):
    training = recipe("paper", trained_groups=groups, alternate=alternate)
    masks = {phase.mask for phase in RunConfig(method=method, training=training).phases}
    assert trained_mask(method, training.trained_groups, training.alternate) == ("sam" if masks == {"sam"} else "hq")


@pytest.mark.parametrize(("method", "group"), [("sam", "hq_head"), ("sam2", "lora"), ("sam2", "hq_head")])
def test_a_group_that_the_method_lacks_is_refused(method, group):
    with pytest.raises(ValueError, match=f"name {group}, which {method} does not have: choose among"):
        RunConfig(method=method, training=recipe("paper", trained_groups=[group]))


def test_a_run_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="trained_groups are empty"):
        RunConfig(training=recipe("paper", trained_groups=[]))


def test_an_unknown_group_is_refused():
    with pytest.raises(RossamError, match=r"trained_groups\.0"):
        recipe("paper", trained_groups=["lara"])
