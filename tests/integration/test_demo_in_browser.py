"""The page of the demo in a real browser: drawn, hovered, nothing requested, no overflow."""

import pytest

from tests.helpers.browser import WIDTHS, draw_charts, open_watched, start_browser
from tests.helpers.planner_cases import make_small
from verl_pipeline.emulated.schedule_runs import run_schedules
from verl_pipeline.report.demo_page import write_demo_page

# The middle of an update of the first schedule, in pixels of the window.
FIND_UPDATE = """() => {
  const view = drawn.get("0").child_views[0], frame = view.frame;
  const place = view.el.getBoundingClientRect();
  const { left, right, label } = view.model.renderers
    .map(renderer => renderer.data_source.data)
    .find(data => data.label && data.seconds);
  const index = [...label].findIndex(text => text.startsWith("update"));
  return [
    place.x + frame.x_scale.compute((left[index] + right[index]) / 2),
    place.y + frame.y_scale.compute(0.5),
  ];
}"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "schedules.html"
    profile = make_small(description="<b>a cluster</b> with a rather long description of itself")
    write_demo_page(path, profile, run_schedules(profile))
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_the_schedules_are_drawn_and_an_update_tells_its_number(page_file, width):
    with start_browser() as browser:
        page, requested, errors = open_watched(browser, width)
        page.goto(page_file.as_uri())
        (place,) = draw_charts(page)
        place.evaluate("place => place.scrollIntoView({ block: 'center' })")
        x, y = page.evaluate(FIND_UPDATE)
        page.mouse.move(x, y)
        page.mouse.move(x + 2, y, steps=3)
        page.locator(".bk-Tooltip").get_by_text("update").first.wait_for()
        assert page.locator(".kicker b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()
    assert [url for url in requested if not url.startswith(("data:", "blob:"))] == [
        page_file.as_uri()
    ]
    assert errors == []
