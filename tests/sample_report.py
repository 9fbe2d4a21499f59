"""A small report for tests: one notebook with each kind of output, run by the runner, and its book."""

import contextlib
import io

import nbformat

from rossam_kit.config import load_profile
from rossam_kit.report import runner
from rossam_kit.report.book import build_book

NAME = "02_inference_pipeline"
CELLS = [
    ("# 2 · Sample\n\nNext: [3](03_training_pipeline.ipynb), then [8](08_static_datasets.ipynb)", ()),
    ("The overlap is $|A \\cap B|$, and\n\n$$\\mathrm{IoU} = \\frac{|A \\cap B|}{|A \\cup B|}.$$", ()),
    ('profile = "smoke"\noverrides = {}', ("parameters", "remove-cell")),
    ("""import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rossam_kit import load_profile
from rossam_kit.report import objects, show

settings = load_profile(profile, overrides)
show.begin("02_inference_pipeline", settings, overrides)""", ("hide-input", "remove-output")),
    ("""figure = Figure(figsize=(4, 3))
figure.add_subplot().plot([0, 1])
show.figure(figure, "A line", alt="a rising line", front="hero")""", ("hide-input",)),
    ("""scores = pd.DataFrame({"setting": ["b", "a", "c"], "rate": [settings.inference.rate, 7, None]})
show.table(scores, "Scores", front="table")""", ("hide-input",)),
    ("""target = np.zeros((60, 60), bool)
target[20:40, 15:45] = True
views = [objects.cut_object(np.full((60, 60, 3), 20 + 40 * i, np.uint8), (15, 20, 45, 40), target,
                            {"sam": np.roll(target, i, axis=0), "hq-sam": target}, key=f"v/{i} #1",
                            category="ship" if i < 3 else "train") for i in range(5)]
show.viewer(views, "Objects")""", ("hide-input",)),
    ("settings.inference.rate * 111", ()),
    ("Previous: [1 · Data](01_data.ipynb) | Next: [3 · Failing](03_training_pipeline.ipynb)", ()),
    ('show.text(f"**The rate is {settings.inference.rate}.**")', ()),
]  # fmt: skip


def write_sample(folder, name=NAME):
    cells = []
    for source, tags in CELLS:
        is_code = not source.startswith(("#", "The overlap", "Previous"))
        make = nbformat.v4.new_code_cell if is_code else nbformat.v4.new_markdown_cell
        cells.append(make(source, metadata={"tags": list(tags)} if tags else {}))
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")


def make_report(folder):
    """Run the sample and a failing notebook, and build their book; returns the report's folder and the warnings."""
    write_sample(folder / "source")
    failing = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# 3 · Failing"), nbformat.v4.new_code_cell("1 / 0")]
    )
    nbformat.write(failing, folder / "source/03_training_pipeline.ipynb")
    report, warnings = folder / "report", io.StringIO()
    runner.run([NAME], {"profile": "smoke", "overrides": {"inference.rate": 4}}, report, folder / "source")
    runner.run(["03_training_pipeline"], {}, report, folder / "source")
    profile = load_profile("smoke", {"notebooks": [NAME, "03_training_pipeline", "09_zero_shot_tracking"]})
    with contextlib.redirect_stderr(warnings):
        build_book(report, profile, {"09_zero_shot_tracking": "it needs masks"})
    return report, warnings.getvalue()
