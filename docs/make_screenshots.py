"""The README's screenshots: the head of a report, and the inspector of notebook 09 in JupyterLab, by headless Chromium.

In: a report that was built, and its profile. Out: `report.png` and `inspector.png` beside this file, under 400 KB each.
Needs chromium, and the packages of `pip install -e ".[test]"`.
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

import driver  # noqa: E402

MOST_BYTES = 400_000
INSPECTOR = "document.querySelector('.rossam-inspector')"
SHOWN = (
    f"[...{INSPECTOR}?.querySelectorAll('img.widget-image, .wrapper img') ?? []].filter((image) => image.naturalWidth)"
)


def report_picture(page: driver.Page, report: Path, most: int = 1400) -> bytes:
    """The report's head as it opens, down to the end of its first figure, 1280 px wide."""
    resize(page, 1280, most)
    page.call("Page.navigate", url=(report / "index.html").resolve().as_uri())
    page.wait("document.readyState === 'complete' && [...document.images].every((image) => image.complete)")
    end = page.evaluate("document.querySelector('#top').getBoundingClientRect().bottom")
    return page.screenshot((0, 0, 1280, min(round(end), most)))


def inspector_picture(page: driver.Page, profile: str, folder: Path, seconds: float) -> bytes:
    """The inspector alone, as JupyterLab shows it after all cells have run."""
    resize(page, 1640, 1100)
    parameters = {"profile": profile, "overrides": "{}", "report_dir": str(folder / "report")}
    with driver.serve_notebook(folder, "09_inspect_predictions", parameters) as address:
        driver.run_all_cells(page, address, seconds)
        page.evaluate("void jupyterapp.commands.execute('application:toggle-left-area')")
        page.wait(f"{SHOWN}.length > 2 && !!{INSPECTOR}.querySelector('.wrapper img')?.naturalWidth", 60, "pictures")
        left, top, _, height = page.rectangle(INSPECTOR)
        right = page.evaluate(f"Math.max(...{SHOWN}.map((image) => image.getBoundingClientRect().right))")
        return page.screenshot((left, top, right + 12 - left, height))


def resize(page: driver.Page, width: int, height: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


def save_small(png: bytes, path: Path) -> None:
    """Write a picture with the most colours, and then at the largest size, that keep it under `MOST_BYTES`."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for scale in (1.0, 0.85, 0.7, 0.6, 0.5):
        smaller = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)
        for colours in (256, 128, 64):
            stream = io.BytesIO()
            smaller.quantize(colours, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
            if len(stream.getvalue()) <= MOST_BYTES:
                path.write_bytes(stream.getvalue())
                print(f"{path}  {smaller.width}×{smaller.height}, {colours} colours, {len(stream.getvalue()):,} bytes")
                return
    sys.exit(f"{path}: over {MOST_BYTES:,} bytes even at half size with 64 colours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=ROOT / "reports/demo")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", choices=["report", "inspector"])
    parser.add_argument("--seconds", type=float, default=600, help="that notebook 09 may take")
    options = parser.parse_args()
    if not driver.find_chromium():
        sys.exit("chromium is not installed (Debian: apt install chromium)")
    if options.only != "inspector" and not (options.report / "index.html").exists():
        sys.exit(f"{options.report}/index.html: no such report; run ./run_all.sh --profile {options.profile} first")
    with tempfile.TemporaryDirectory() as folder, driver.open_tab(Path(folder)) as page:
        if options.only != "inspector":
            save_small(report_picture(page, options.report), options.out / "report.png")
        if options.only != "report":
            picture = inspector_picture(page, options.profile, Path(folder), options.seconds)
            save_small(picture, options.out / "inspector.png")


if __name__ == "__main__":
    main()
