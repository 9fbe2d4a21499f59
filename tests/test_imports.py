"""The core depends on nothing else of the repository, the kit on the core, tools and notebooks on both."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE_ORDER = ["model", "inference", "training"]


def imports_of(text: str) -> set[str]:
    """Dotted names that Python source imports; relative imports are not used in this repository."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, ast.unparse(node)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def top_level(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("path", modules("rossam_core"), ids=lambda path: path.stem)
def test_the_core_imports_nothing_else_of_the_repository(path):
    assert not top_level(path) & {"rossam_kit", "tools", "tests", "benchmarks"}


@pytest.mark.parametrize("path", modules("rossam_kit"), ids=lambda path: path.stem)
def test_the_kit_imports_no_tools(path):
    assert not top_level(path) & {"tools", "tests", "benchmarks"}


@pytest.mark.parametrize("room", CORE_ORDER)
def test_inside_the_core_model_comes_before_inference_and_inference_before_training(room):
    later = {f"rossam_core.{name}" for name in CORE_ORDER[CORE_ORDER.index(room) + 1 :]}
    for path in modules(f"rossam_core/{room}"):
        used = {".".join(name.split(".")[:2]) for name in imports_of(path.read_text(encoding="utf-8"))}
        assert not used & later, path.name


def test_notebooks_import_the_two_packages_only():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                used = {name.split(".")[0] for name in imports_of("".join(cell["source"]))}
                assert not used & {"tools", "tests", "benchmarks"}, path.name


def test_reports_are_drawn_without_torch():
    for path in modules("rossam_kit/report"):
        assert "torch" not in top_level(path), path.name


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("rossam_kit.cli", {"torch", "pandas", "cv2", "matplotlib", "scipy.stats"}),  # for a quick --help
        (  # in workers and notebooks
            "rossam_kit.convert.convert, rossam_kit.experiments.experiments",
            {"matplotlib", "scipy.stats", "peft", "transformers"},
        ),
    ],
)
def test_what_is_slow_to_load_is_loaded_where_it_is_used(names, absent):
    code = f"import sys, {names}; print(*({absent!r} & sys.modules.keys()))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.split() == []


@pytest.mark.parametrize("package", ["rossam_core", "rossam_kit", "tools"])
def test_every_module_says_what_it_is_for(package):
    for path in modules(package):
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path


def lines_of_code(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    return function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def test_functions_of_the_core_fit_a_screen_but_for_the_training_loop():
    longer = {
        node.name: lines_of_code(node)
        for path in modules("rossam_core")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and lines_of_code(node) > 50
    }
    assert list(longer) == ["fit"] and longer["fit"] <= 130
