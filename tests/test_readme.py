"""The README's reading order: what it names is there, and it is as long as it says."""

import ast
import re
from pathlib import Path

import rossam_core

CORE = Path(rossam_core.__file__).parent
README = CORE.with_name("README.md").read_text(encoding="utf-8")


def spans(path: Path) -> dict[str, int]:
    """Name of each function, class, method (with its class) and constant of a module → its lines."""
    found: dict[str, int] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        lines = node.end_lineno - node.lineno + 1
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = lines
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = lines
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, ast.FunctionDef):
                    found[f"{node.name}.{member.name}"] = member.end_lineno - member.lineno + 1
    return found


def test_the_reading_order_names_what_is_there_and_counts_its_lines():
    rows = re.findall(r"^\| 3\.\S+ .*\| `(\S+\.py)` \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) == 8
    lines = sum(spans(CORE / file)[name] for file, names in rows for name in re.findall(r"`([^`]+)`", names))
    stated = int(re.search(r"The method, (\d+) lines", README)[1])
    assert abs(lines - stated) <= 25, lines
