"""The README's picture: the charts of ``verl-pipeline demo``, as a browser draws them.

``python -m benchmarks.demo_picture [--output docs/demo.png]``, from the repository's folder; half a
minute. It needs Debian's chromium.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import sync_playwright

from verl_pipeline.demo import DEFAULT_PROFILE
from verl_pipeline.emulated.schedule_runs import run_schedules
from verl_pipeline.outputs.files import replace_file
from verl_pipeline.path_options import path_option
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.report.demo_page import write_demo_page

# In pixels: so wide that texts can be read where the README shows it.
WIDTH = 900


def main(
    output: Annotated[Path, path_option(help="The picture.")] = Path("docs/demo.png"),
) -> None:
    """Write the page, and take a picture of its charts."""
    browser = shutil.which("chromium")
    if browser is None:
        raise SystemExit("chromium is not on PATH: install Debian's package chromium")
    profile = load_profile(DEFAULT_PROFILE)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "schedules.html"
        write_demo_page(page_file, profile, run_schedules(profile))
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(
            viewport={"width": WIDTH, "height": 1000}, device_scale_factor=1.5, color_scheme="light"
        )
        page.goto(page_file.as_uri())
        chart = page.locator("[data-chart]")
        chart.scroll_into_view_if_needed()
        page.wait_for_function("e => e.hasAttribute('data-drawn')", arg=chart.element_handle())
        with replace_file(output) as file:
            file.write(chart.screenshot())
        chromium.close()


if __name__ == "__main__":
    typer.run(main)
