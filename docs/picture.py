"""The README's picture of the report, drawn by a browser from the committed acceptance run: ``make report-picture``.

The report's own page is rendered; most criteria are hidden, so that the verdict, the top of the table and two figures
fit on one screen.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from harness.report.html import write_report

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "results" / "smollm2-135m" / "acceptance" / "acceptance.json"
PICTURE = ROOT / "docs" / "images" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH_PX, HEIGHT_PX, MARGIN_PX = 1240, 1600, 12
KEPT_CRITERIA = ("training.gpu_memory", "style.token_separation", "deployment.server_starts")
ABRIDGE = """
(kept) => {
  const plain = (element) => element.textContent.replace(/[^A-Za-z0-9._]/g, '');
  for (const body of document.querySelectorAll('.criteria tbody')) {
    if (!kept.some((id) => plain(body.querySelector('th')).startsWith(id))) body.remove();
    else body.querySelector('.evidence').parentElement.remove();
  }
  for (const figure of document.querySelectorAll('figure')) {
    if (!/answer length|training loss/i.test(figure.querySelector('figcaption').textContent)) figure.remove();
  }
  document.querySelectorAll('header nav, figcaption').forEach((element) => element.remove());
  return document.querySelector('.figures').getBoundingClientRect().bottom;
}
"""


def main() -> int:
    """Write the picture; the exit status is 1 where there is no browser."""
    from playwright.sync_api import sync_playwright

    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        print(f"no browser found (looked for {', '.join(BROWSERS)}): apt-get install chromium", file=sys.stderr)
        return 1
    options = ["--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = write_report(json.loads(DOCUMENT.read_text(encoding="utf-8")), Path(folder))
        browser = playwright.chromium.launch(executable_path=browser_path, args=options)
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, color_scheme="light")
        page.goto(page_file.as_uri())
        bottom_px = page.evaluate(ABRIDGE, list(KEPT_CRITERIA))
        drawn = PICTURE.with_suffix(".tmp.png")
        page.screenshot(path=drawn, clip={"x": 0, "y": 0, "width": WIDTH_PX, "height": bottom_px + MARGIN_PX})
        browser.close()
        drawn.replace(PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
