"""The page of a plan in a real browser: all charts drawn, nothing requested, no overflow."""

import pytest

from tests.helpers.browser import WIDTHS, draw_charts, open_watched, start_browser
from tests.helpers.planner_cases import make_small
from verl_pipeline.planner.estimate import Estimate
from verl_pipeline.planner.plan_report import make_report
from verl_pipeline.report.plan_page import write_plan_page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "plan.html"
    report = make_report(
        Estimate(make_small(name="a long-named_profile_of_some_cluster"), ("A caveat.",)),
        gpus=None,
        split=None,
        price=2.0,
        seeds=2,
        show=lambda name: None,
        with_map=True,
    )
    write_plan_page(path, report)
    return path


@pytest.fixture(scope="module")
def browser():
    with start_browser() as chromium:
        yield chromium


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_drawn_and_the_map_tells_its_cells(browser, page_file, width):
    page, requested, errors = open_watched(browser, width)
    page.goto(page_file.as_uri())
    assert len(draw_charts(page)) == 4 + 9
    heat_map = page.locator("#map [data-chart]").first
    heat_map.evaluate("place => place.scrollIntoView({ block: 'center' })")
    box = heat_map.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.45 * box["height"], steps=4)
    page.locator(".bk-Tooltip").get_by_text("split").first.wait_for()
    assert page.locator(".advice").inner_text().startswith(("Use", "Stay"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
    assert {url for url in requested if not url.startswith(("data:", "blob:"))} <= {
        page_file.as_uri()
    }
    assert errors == []
