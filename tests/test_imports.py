"""A room imports only from the rooms above it, so that the data's way through the package stays one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rossam_core"
ROOMS = ["data", "model", "inference", "training", "evaluation", "conversion", "reporting"]
FOUNDATION = {"config", "devices", "environment", "errors", "files", "progress"}


def imports_of(path: Path) -> list[str]:
    """Dotted names this module imports, relative ones resolved against the package."""
    package = ["rossam_core", *path.relative_to(PACKAGE).parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            names += [".".join([*stem, alias.name]) for alias in node.names]
    return names


def room_of(name: str) -> str | None:
    parts = name.split(".")
    if parts[:3] == ["rossam_core", "evaluation", "metrics"]:
        return None  # stands on no room itself
    return parts[1] if parts[0] == "rossam_core" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_above_it(room):
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) - ({"data"} if room == "model" else set())
    for path in sorted((PACKAGE / room).rglob("*.py")):
        used = {room_of(name) for name in imports_of(path)} - {None}
        assert used <= allowed, f"{path.relative_to(PACKAGE)} imports from {sorted(used - allowed)}"


def test_the_package_imports_no_tool():
    for path in sorted(PACKAGE.rglob("*.py")):
        assert not any(name.split(".")[0] == "tools" for name in imports_of(path)), path.relative_to(PACKAGE)


@pytest.mark.parametrize("name", sorted(FOUNDATION))
def test_the_foundation_stands_on_no_room(name):
    path = PACKAGE / f"{name}.py"
    assert {room_of(used) for used in imports_of(path)} <= {None}


def test_reporting_draws_without_torch():
    for path in sorted((PACKAGE / "reporting").rglob("*.py")):
        if path.stem != "widgets":
            assert not any(name.split(".")[0] == "torch" for name in imports_of(path)), path.name


def test_every_module_says_what_it_is_for():
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path.relative_to(PACKAGE)} has no docstring"
