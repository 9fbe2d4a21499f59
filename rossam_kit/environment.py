"""Does this Python have what pyproject.toml asks for? Standard library only: it runs before anything is installed.

Usage: python rossam_kit/environment.py [--test]; prints what is missing, exit status 0 when nothing is.
"""

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def missing_requirements(extras: tuple[str, ...] = ()) -> list[str]:
    """Requirements of pyproject.toml (and of `extras`) that are absent or of another version, as sentences."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [r for extra in extras for r in project["optional-dependencies"][extra]]
    return [problem for requirement in wanted if (problem := _problem(requirement))]


def _problem(text: str) -> str | None:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    # the two builds of OpenCV give the same module
    is_opencv = requirement.name == "opencv-python-headless"
    for candidate in (requirement.name, "opencv-python") if is_opencv else (requirement.name,):
        try:
            version = importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
        return None if requirement.specifier.contains(version, prereleases=True) else f"{text} (found {version})"
    return f"{text} (not installed)"


def main() -> int:
    if sys.version_info < (3, 11):
        print(f"Python >= 3.11 (found {sys.version.split()[0]})")
        return 1
    missing = missing_requirements(("test",) if "--test" in sys.argv else ())
    print(*missing, sep="\n", end="\n" if missing else "")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
