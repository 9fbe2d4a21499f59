"""Tables of fine-tuning runs, from logs that are made up."""

import pandas as pd

from rossam_kit.experiments.experiments import RowSpec
from rossam_kit.report import fine_tuning


def test_a_group_that_never_had_its_step_in_a_short_run_was_updated_0_times(monkeypatch):
    logged = pd.DataFrame({"kind": ["step", "step", "validation"], "rate_sam_decoder": [1e-4, None, None]})
    monkeypatch.setattr(fine_tuning, "log", lambda *_: logged)
    both = RowSpec(label="both", method="ros-sam", trains=("sam_decoder", "hq_head"))
    one = RowSpec(label="one", method="sam", trains=("sam_decoder",))
    table = fine_tuning.update_table(None, [both, one])
    assert table.to_dict("list") == {
        "setting": ["both", "one"],
        "steps": [2, 2],
        "sam decoder": [1, 1],
        "hq head": [0, 0],
    }
