"""The report in a real browser: charts, zoom, hover, search, the viewer; and texts stay texts."""

import gzip
import json
from dataclasses import asdict

import pytest

from tests.helpers.browser import WIDTHS, draw_charts, open_watched, start_browser
from tests.helpers.hostile_texts import HOSTILE_TEXTS
from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.report.report_files import write_report
from verl_pipeline.telemetry.records import FOLDER, Moment, Text, TrajectoryEvent
from verl_pipeline.telemetry.run_folder import load_run


@pytest.fixture(scope="module")
def browser():
    with start_browser() as chromium:
        yield chromium


def plant_hostile_texts(folder):
    """Add trajectories to step 1 whose every text is hostile."""
    began = load_run(folder).headers[0].started
    events, texts = [], []
    for session, (name, hostile) in enumerate(HOSTILE_TEXTS.items()):
        known = {"prompt": f"{name} {hostile[:400]}", "session": session, "batch": 1, "step": 1}
        for number, moment in enumerate((Moment.STARTED, Moment.GENERATED, Moment.TRAINED)):
            about = {"verdict": hostile[:200], "reason": hostile[:200], "reward": 9.0}
            if moment == Moment.GENERATED:
                about |= {"replica": f"replica {hostile[:60]}", "response_tokens": 9000 + session}
                about |= {"reward_worker": f"reward worker {hostile[:60]}"}
            events.append(TrajectoryEvent(moment, began + 30 + number, **known, **about))
        versions = [[0, 10], [1, 20]]
        texts.append(
            Text(known["prompt"], session, 1, f"Q {hostile}", f"A {hostile}", hostile, versions)
        )
    write_lines(folder / FOLDER / "trajectories-agent_loop-x-9-9.jsonl", events)
    lines = "".join(json.dumps(asdict(text)) + "\n" for text in texts)
    (folder / FOLDER / "texts-agent_loop-x-9-9.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


def write_lines(path, records):
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of one run, with hostile texts, and of two."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "ours", MadeUpRun(steps=6, texts_a_step=4))
    write_run(folder / "sync", MadeUpRun(steps=6, mode="sync"))
    plant_hostile_texts(folder / "ours")
    one, two = folder / "one.html", folder / "two.html"
    write_report([folder / "ours"], one)
    write_report([folder / "ours", folder / "sync"], two)
    return {"one": one, "two": two}


@pytest.fixture(params=WIDTHS)
def opened(browser, pages, request):
    """Opens a page; afterwards checks that nothing was requested, logged or executed."""
    width = request.param
    page, requested, errors = open_watched(browser, width)

    def open_page(name="one", fragment=""):
        page.goto(pages[name].as_uri() + fragment)
        return page

    yield open_page
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
    urls = {path.as_uri() for path in pages.values()}
    assert {url for url in requested if not url.startswith(("data:", "blob:"))} <= urls
    assert errors == []


def draw(page, name):
    """Draw all charts, so that nothing moves any more, and return the place of the figure."""
    found = None
    for place in draw_charts(page):
        chart = place.get_attribute("data-chart")
        if f'"name":"{name}"' in page.locator(f"#chart-{chart}").text_content():
            found = page.locator(f"[data-chart='{chart}']:visible")
    assert found is not None, f"no chart has the figure {name}"
    # Below the page's own bar, which stays at the top.
    found.evaluate("place => place.scrollIntoView({ block: 'center' })")
    return found


# The last expression is no function, which playwright would call.
FIND = """
window.findModel = (name) => {
  for (const one of Bokeh.documents) {
    for (const root of one.roots()) {
      for (const model of root.references()) if (model.name === name) return model;
    }
  }
  return null;
};
null
"""


@pytest.fixture
def read(opened):
    def open_page(name="one", fragment=""):
        page = opened(name, fragment)
        page.evaluate(FIND)
        return page

    return open_page


def test_all_charts_are_drawn_and_advice_and_bill_come_first(read):
    page = read()
    assert draw_charts(page)
    page.evaluate("scrollTo(0, 0)")
    advice, bill = page.locator(".advice"), page.locator("[data-chart]").first
    assert advice.bounding_box()["y"] < bill.bounding_box()["y"] < 1000
    assert len(advice.inner_text()) > 20


def test_the_timeline_zooms_hovers_and_hides(read):
    page = read()
    place = draw(page, "timeline")
    read_range = "() => [findModel('timeline').x_range.start, findModel('timeline').x_range.end]"
    before = page.evaluate(read_range)
    canvas = place.locator("canvas").first.bounding_box()
    # The lane of steps is the first one, the driver's the second.
    y = canvas["y"] + 45
    left, width = canvas["x"] + 60, canvas["width"] - 70
    page.mouse.move(left + 0.45 * width, y)
    page.mouse.move(left + 0.5 * width, y, steps=4)
    page.locator(".bk-Tooltip").get_by_text("seconds").first.wait_for()
    page.mouse.move(left + 0.4 * width, y)
    page.mouse.down()
    page.mouse.move(left + 0.6 * width, y + 3, steps=4)
    page.mouse.up()
    page.wait_for_function(
        "before => { const x = findModel('timeline').x_range;"
        " return x.end - x.start < 0.5 * (before[1] - before[0]); }",
        arg=before,
    )
    entry = place.locator("xpath=..").locator(".legend button").first
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    assert page.evaluate(
        "() => [...findModel('timeline').renderers].some((one) => one.visible === false)"
    )


def test_a_bar_opens_its_trajectory(read):
    page = read()
    draw(page, "timeline")
    opened = page.evaluate(
        """() => {
          const source = findModel('trajectories trained');
          source.selected.indices = [0];
          return [source.get_column('step')[0], source.get_column('id')[0]];
        }"""
    )
    page.locator(".detail h3").wait_for()
    assert page.url.endswith(f"#rollout-0-{opened[0]:.0f}-{opened[1]}")
    assert f"step {opened[0]:.0f}" in page.locator(".detail h3").inner_text()


def test_the_viewer_searches_sorts_and_filters(read):
    page = read()
    viewer = page.locator(".viewer")
    viewer.scroll_into_view_if_needed()
    viewer.locator(".list a").first.wait_for()
    viewer.get_by_label("Step").select_option("all")
    viewer.get_by_label("Search").fill("What is 3 + 2?")
    page.wait_for_function("() => document.querySelectorAll('.list li').length === 1")
    viewer.locator(".list a").click()
    assert viewer.locator(".detail pre").first.inner_text() == "What is 3 + 2?"
    assert viewer.locator(".detail pre").nth(1).inner_text() == "It is 5."
    viewer.get_by_label("Search").fill("")
    viewer.get_by_label("Step").select_option(label=read_option(viewer, "step 2 "))
    viewer.get_by_label("Sort").select_option("shortest first")
    page.wait_for_function("() => document.querySelectorAll('.list li').length > 20")
    figures = viewer.locator(".list .figures").all_inner_texts()
    tokens = [int(text.split()[0].replace(",", "")) for text in figures]
    assert tokens == sorted(tokens) and len(tokens) == 32
    viewer.get_by_label("What became of it").select_option("failed")
    page.wait_for_function("() => document.querySelectorAll('.list li').length === 0")
    assert "No such trajectory" in viewer.locator("[role=status]").inner_text()


def read_option(viewer, start):
    labels = viewer.get_by_label("Step").locator("option").all_inner_texts()
    return next(label for label in labels if label.startswith(start))


def test_hostile_texts_stay_texts(read):
    page = read()
    viewer = page.locator(".viewer")
    viewer.scroll_into_view_if_needed()
    viewer.get_by_label("Step").select_option(label=read_option(viewer, "step 1 "))
    viewer.get_by_label("Sort").select_option("highest reward first")
    page.wait_for_function("() => document.querySelectorAll('.list li').length > 20")
    for place, (name, hostile) in enumerate(HOSTILE_TEXTS.items()):
        viewer.locator(".list a").nth(place).click()
        page.wait_for_function(
            "place => document.querySelectorAll('.list a')[place].hasAttribute('aria-current')",
            arg=place,
        )
        shown = viewer.locator(".detail pre").nth(1).text_content()
        assert shown.startswith("A "), name
        if name in ("markup", "script", "template", "entities"):
            assert shown == f"A {hostile}"
        assert not any(ord(c) < 32 and c not in "\n\t" for c in shown), name
        assert not set(shown) & set("\x1b\x9b\u2028\u202e\x00"), name
    assert viewer.locator(".detail img, .detail svg, .detail b, .detail script").count() == 0
    draw(page, "timeline")


def test_two_runs_stand_side_by_side_with_ratios(read):
    page = read("two")
    head = page.locator("#comparison")
    assert head.locator("table.comparison").count() == 2
    row = head.locator("tr", has_text="Seconds a step").first.locator("td").all_inner_texts()
    assert float(row[1]) / float(row[0]) == pytest.approx(float(row[2].strip("× ")), abs=0.02)
    assert page.locator("#run-0").is_visible() and page.locator("#run-1").is_hidden()
    page.get_by_role("tab").nth(1).click()
    assert page.locator("#run-1").is_visible() and page.locator("#run-0").is_hidden()
    draw(page, "timeline")


def test_a_dark_page_has_light_texts_in_its_charts(browser, pages):
    page = browser.new_page(color_scheme="dark", viewport={"width": 1400, "height": 1000})
    page.goto(pages["one"].as_uri())
    page.evaluate(FIND)
    draw(page, "bill")
    ground, text = page.evaluate(
        "() => [findModel('bill').background_fill_color,"
        " findModel('bill').below[0].major_label_text_color]"
    )
    page.close()
    assert str(ground).endswith("0f141a") and str(text).endswith("e6eaef")
