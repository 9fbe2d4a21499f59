"""Tables of fine-tuning runs, from logs that are made up."""

import pandas as pd

from rossam_kit.config import load_profile
from rossam_kit.experiments.experiments import RowSpec
from rossam_kit.report import fine_tuning
from rossam_kit.report.rendering import Table


def test_a_group_that_never_had_its_step_in_a_short_run_was_updated_0_times(monkeypatch):
    logged = pd.DataFrame({"kind": ["step", "step", "validation"], "rate_sam_decoder": [1e-4, None, None]})
    monkeypatch.setattr(fine_tuning, "log", lambda *_: logged)
    both = RowSpec(label="both", method="ros-sam", trains=("sam_decoder", "hq_head"))
    one = RowSpec(label="one", method="sam", trains=("sam_decoder",))
    table = fine_tuning.update_table(None, [both, one])
    assert table.to_dict("list") == {
        "setting": ["both", "one"],
        "steps": [2, 2],
        "SAM decoder": [1, 1],
        "HQ head": [0, 0],
    }


def test_only_values_that_differ_from_the_recipe_are_listed_as_changes():
    table = fine_tuning.recipe_changes(load_profile("demo", {"recipe_changes.groups.lora.learning_rate": "1e-3"}))
    fields = table["field"].tolist()
    assert "groups.last_block.learning_rate" in fields and "groups.lora.learning_rate" not in fields


def test_a_profile_named_as_its_recipe_has_a_table_of_changes():
    table = fine_tuning.recipe_changes(load_profile("paper"))
    assert table.columns.tolist() == ["field", "recipe paper", "profile paper"]
    assert "nothing" in Table.from_frame(table).to_html()
