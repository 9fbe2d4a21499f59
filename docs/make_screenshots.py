"""The README's screenshots: the head of a report, and the inspector of notebook 10 in JupyterLab, by headless Chromium.

In: a report that was built, and its profile. Out: `report.png` and `inspector.png` beside this file, under 300 KB each.
Needs chromium with its driver, and the packages of `pip install -e ".[test]"`.
Usage: python docs/make_screenshots.py [--report reports/demo] [--profile demo] [--out docs] [--only report|inspector]
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/browser")]

import browser  # noqa: E402

MOST_BYTES = 300_000
PICTURES = "document.querySelectorAll('.rossam-inspector img')"


def report_picture(page, report: Path, most: int = 1000) -> bytes:
    """The report's head as it opens, down to the end of its first figure, 1280 px wide."""
    resize(page, 1280, most)
    page.get((report / "index.html").resolve().as_uri())
    browser.wait_for(page, "return [...document.images].every((image) => image.complete)")
    end = page.execute_script("return document.querySelector('figure.rossam').getBoundingClientRect().bottom")
    stream = io.BytesIO()
    Image.open(io.BytesIO(page.get_screenshot_as_png())).crop((0, 0, 1280, min(round(end), most))).save(stream, "PNG")
    return stream.getvalue()


def inspector_picture(page, profile: str, folder: Path, seconds: float) -> bytes:
    """The inspector alone, as JupyterLab shows it, at the object that SAM segments best."""
    resize(page, 1640, 1100)
    parameters = {"profile": profile, "overrides": {}}
    notebook = browser.read_notebook("10_inspect_predictions", parameters)
    place = next(i for i, cell in enumerate(notebook.cells) if "Inspector(source)" in cell.source)
    notebook.cells = notebook.cells[: place + 1]
    notebook.cells[place].source = 'inspector = Inspector(source, order="best")\ninspector'
    with browser.serve_notebook(folder, notebook) as address:
        browser.run_all_cells(page, address, seconds)
        page.execute_script("void jupyterapp.commands.execute('application:toggle-left-area')")
        loaded = f"[...{PICTURES}].every((image) => image.naturalWidth)"
        browser.wait_for(page, f"return {PICTURES}.length > 3 && {loaded}", 60, "no pictures")
        return browser.find(page, ".rossam-inspector").screenshot_as_png


def resize(page, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def save_small(png: bytes, path: Path) -> None:
    """Write a picture with 256 colours at the largest size that keeps it under `MOST_BYTES`."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for scale in (1.0, 0.85, 0.7, 0.6, 0.5):
        smaller = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        smaller.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if len(stream.getvalue()) <= MOST_BYTES:
            path.write_bytes(stream.getvalue())
            print(f"{path}  {smaller.width}×{smaller.height}, {len(stream.getvalue()):,} bytes")
            return
    sys.exit(f"{path}: over {MOST_BYTES:,} bytes even at half size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=ROOT / "reports/demo")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", choices=["report", "inspector"])
    parser.add_argument("--seconds", type=float, default=600, help="that notebook 10 may take to the inspector")
    options = parser.parse_args()
    if missing := browser.missing_programs():
        sys.exit(missing)
    if options.only != "inspector" and not (options.report / "index.html").exists():
        sys.exit(f"{options.report}/index.html: no such report; run ./run_all.sh --profile {options.profile} first")
    with tempfile.TemporaryDirectory() as folder, browser.open_browser(Path(folder)) as page:
        if options.only != "inspector":
            save_small(report_picture(page, options.report), options.out / "report.png")
        if options.only != "report":
            picture = inspector_picture(page, options.profile, Path(folder), options.seconds)
            save_small(picture, options.out / "inspector.png")


if __name__ == "__main__":
    main()
