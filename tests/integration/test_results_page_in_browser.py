"""The results page in a real browser: numbers, samples, and that no model output is executed."""

import io
import json
import math
from collections import Counter
from urllib.parse import quote

import pytest
from PIL import Image

from tests.helpers.browser import WIDTHS, draw_charts, open_watched, start_browser
from tests.helpers.made_up_results import HOSTILE, HOSTILE_ID, WEIGHTS, write_results
from verl_pipeline.evaluation.results_page import write_results_page
from verl_pipeline.number_formats import format_decimal, format_percent, format_score

CODE, MATHEMATICS = "#humaneval", "#aime2024"


@pytest.fixture(scope="module")
def browser():
    with start_browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def results_and_path(tmp_path_factory):
    output = tmp_path_factory.mktemp("results")
    return write_results(output, problems=70, samples=8), write_results_page(output)


@pytest.fixture
def results(results_and_path):
    return results_and_path[0]


@pytest.fixture
def opened(browser, results_and_path):
    """Opens the page, with an optional fragment; afterwards checks for requests and errors."""
    page, requested, errors = open_watched(browser, 1280, 900)
    url = results_and_path[1].as_uri()

    def open_page(fragment=""):
        page.goto(url + fragment)
        return page

    yield open_page
    hacked = page.evaluate("window.hacked")
    page.close()
    # The icon is a data: URL, which requests nothing.
    assert {one for one in requested if not one.startswith("data:")} == {url}
    assert errors == [] and hacked is None


def list_problems(section):
    return section.locator(".list a span:first-child").all_inner_texts()


def wait_for_problems(page, section, expected):
    """The search begins when nobody has typed for a moment."""
    page.wait_for_function(
        "([section, ids]) => JSON.stringify([...document.querySelectorAll("
        "`${section} .list a span:first-child`)].map((one) => one.textContent)) === ids",
        arg=[section, json.dumps(expected, separators=(",", ":"))],
    )


def test_the_table_has_the_scores_of_the_results(opened, results):
    page = opened()
    assert page.title() == f"Evaluation of {results['model']['name']}"
    head = page.locator("header").inner_text()
    assert "humaneval: ran in the <degraded> tier rlimits" in head
    settings = page.locator("#settings").inner_text()
    for text in (WEIGHTS, "kind vllm", "Seed\n17", "verl 0.9.1"):
        assert text in settings
    rows = page.locator(".scores tr.ours")
    assert rows.count() == 2
    for row, task in zip(rows.all(), results["tasks"], strict=True):
        counts = task["counts"]
        cells = row.locator("th, td").all_inner_texts()
        assert cells[0] == task["title"] + "@rlimits" * (task["task"] == "humaneval")
        assert cells[1].startswith(f"pass@1 {format_score(task['pass@1'])}")
        assert cells[2] == f"{counts['problems']} × 8"
        assert cells[4] == format_percent(counts["truncated"] / counts["samples"])
        assert cells[5] == format_decimal(task["lengths"]["mean"], 0, group=True)
        assert cells[6] == f"{task['grader']}, {task['tier']}"
    votes = results["tasks"][1]["cons@k"][-1]
    assert rows.nth(0).locator("td").nth(2).inner_text() == "–"
    assert (
        rows.nth(1).locator("td").nth(2).inner_text() == f"{format_percent(votes['value'])} (k = 8)"
    )
    published = page.locator(".scores tr.published").all_inner_texts()
    assert published[1].split("\t")[:2] == ["DeepCoder-14B-Preview", "92.6 %"]
    assert published[1].endswith("pass@1 – DeepCoder blog post – <b>HumanEval+</b>")
    assert published[-1].split("\t")[:2] == ["o1-mini", "1,578"]


@pytest.mark.parametrize("width", WIDTHS)
def test_all_charts_are_drawn_at_every_width(opened, results, width):
    page = opened()
    page.set_viewport_size({"width": width, "height": 900})
    draw_charts(page)
    code, mathematics = page.locator(CODE), page.locator(MATHEMATICS)
    assert code.locator("figcaption").all_inner_texts() == [
        *("Score by number of samples", "Score by token budget", "Lengths of responses"),
        *("Verdicts", "By difficulty", "By month"),
    ]
    assert "Score by cost" in mathematics.locator("figcaption").all_inner_texts()
    cost = mathematics.locator("figure", has_text="Score by cost")
    assert cost.locator(".legend button").all_inner_texts() == ["vote", "best", "one sample"]
    verdicts = code.locator("figure", has_text="Verdicts")
    shown = {name.replace("_", " ") for name in results["tasks"][0]["verdicts"]}
    assert set(verdicts.locator(".legend button").all_inner_texts()) == shown
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_dot_says_which_score_it_is(opened, results):
    page = opened()
    draw_charts(page)
    page.locator("#scores").scroll_into_view_if_needed()
    chart = page.locator("#scores [data-chart]")
    at = page.evaluate(
        """() => {
          const view = drawn.get("0"), { x, y } = view.frame.bbox;
          const source = view.model.renderers[0].data_source;
          return [view.frame.x_scale.compute(source.get_column("value")[0]),
                  view.frame.y_scale.compute(source.get_column("x")[0])];
        }"""
    )
    box = chart.bounding_box()
    page.mouse.move(box["x"] + at[0] - 3, box["y"] + at[1])
    page.mouse.move(box["x"] + at[0], box["y"] + at[1], steps=3)
    score = format_score(results["tasks"][0]["pass@1"])
    page.locator(".bk-Tooltip").get_by_text(f"HumanEval@rlimits: {score}").first.wait_for()


def test_a_section_has_caveats_and_what_is_wrong_with_the_data(opened):
    code = opened().locator(CODE)
    for text in (
        "ran in the <degraded> tier rlimits",
        "the <first> version of the data",
        "Problems that are in the training data: 2",
        "Rows of the data that could not be read: 1",
    ):
        assert text in code.inner_text()


def test_search_filter_selection_and_paging(opened):
    page = opened()
    code = page.locator(CODE)
    assert list_problems(code) == [f"HumanEval/{i}" for i in range(50)]
    code.get_by_role("button", name="Next").click()
    assert list_problems(code) == [*(f"HumanEval/{i}" for i in range(50, 69)), HOSTILE_ID]

    code.get_by_label("Search").fill("eval/1")
    wait_for_problems(page, CODE, [f"HumanEval/{i}" for i in (1, *range(10, 20))])
    assert code.locator(".detail h3").inner_text() == "HumanEval/1"
    code.get_by_role("link", name="HumanEval/13").click()
    assert code.locator(".detail h3").inner_text() == "HumanEval/13"
    texts = code.locator(".detail pre").all_inner_texts()
    assert texts[0].startswith("HumanEval/13\nComplete the function.")
    samples = code.locator(".sample")
    assert [one.get_attribute("open") for one in samples.all()] == [""] * 5 + [None] * 3
    assert [text.split("\n")[0] for text in texts[1:6]] == [
        f"Sample {number} of HumanEval/13:" for number in range(5)
    ]
    samples.nth(7).locator("summary").click()
    assert samples.nth(7).locator("pre").inner_text().startswith("Sample 7 of HumanEval/13:")

    code.get_by_label("Search").fill("")
    code.get_by_label("Verdict").select_option("time_limit")
    page.wait_for_function(
        "section => document.querySelectorAll(`${section} .list a`).length > 15", arg=CODE
    )
    listed = list_problems(code)
    assert 0 < len(listed) < 50
    code.locator(".list a").nth(len(listed) - 1).click()
    verdicts = code.locator(".sample .fate").all_inner_texts()
    assert verdicts and set(verdicts) == {"time limit"}
    code.get_by_label("Search").fill("no problem has this id")
    wait_for_problems(page, CODE, [])
    assert code.locator(".detail").inner_text() == "No such problem."


def test_problems_are_sorted_by_what_is_accepted(opened):
    code = opened().locator(CODE)
    code.get_by_label("Sort").select_option("fewest accepted first")
    shares = [int(one[0]) for one in code.locator(".list .figures").all_inner_texts()]
    assert len(shares) == 50 and shares == sorted(shares)


def test_model_output_stays_text(opened):
    code = opened(f"#humaneval/{quote(HOSTILE_ID, safe='')}").locator(CODE)
    assert code.locator(".detail h3").inner_text() == HOSTILE_ID
    shown = code.locator(".sample pre").first.text_content()
    # Marks that separate lines are shown by their number.
    assert shown.endswith(HOSTILE.replace("\u2028\u2029", "⟨U+2028⟩⟨U+2029⟩"))
    assert code.locator("img, script, b, i, u").count() == 1  # the title of the warnings


@pytest.mark.parametrize("fragment", ["#aime2024/2024-II-30", "#aime2024/2024%2DII%2D30"])
def test_a_fragment_selects_its_problem(opened, fragment):
    page = opened(fragment)
    shown = page.locator(MATHEMATICS).locator(".detail h3")
    assert shown.inner_text() == "2024-II-30"
    chosen = page.locator(MATHEMATICS).locator(".list [aria-current]")
    assert chosen.inner_text().startswith("2024-II-30")
    page.wait_for_function(
        "section => { const y = document.querySelector(`${section} .detail h3`)"
        ".getBoundingClientRect().y; return y >= 0 && y < 900; }",
        arg=MATHEMATICS,
    )
    assert page.locator(CODE).locator(".detail h3").inner_text() == "HumanEval/0"


def test_problem_links_work_with_the_browsers_history(opened):
    page = opened()
    code = page.locator(CODE)
    code.get_by_role("link", name="HumanEval/13").click()
    assert page.url.endswith("#humaneval/HumanEval%2F13")
    code.get_by_role("link", name="HumanEval/14").click()
    page.go_back()
    code.locator(".detail h3", has_text="HumanEval/13").wait_for()


def test_an_unknown_fragment_is_ignored(opened):
    for fragment in ("#", "#nothing/at-all", "#%", "#humaneval/%E0%A4%A", "#samples-0"):
        assert opened(fragment).locator(".task").count() == 2


def test_lists_have_no_indices_and_nothing_empty_is_shown(browser, tmp_path):
    results = write_results(tmp_path)
    results["engine"] |= {"stop": ["```", "</s>"], "adapters": [], "extra": {"none": None}}
    results["machine"]["gpus"] = []
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = browser.new_page()
    page.goto(write_results_page(tmp_path).as_uri())
    facts = page.locator("#settings dd").all_inner_texts()
    page.close()
    assert "kind vllm, tensor_parallel 1, max_model_len 4096, stop [```, </s>]" in facts
    assert "cpu AMD EPYC 7B13, cores 2, memory_gb 16" in facts


@pytest.mark.parametrize("width", WIDTHS)
def test_no_dot_covers_another_in_the_plot_of_votes(browser, tmp_path, width):
    """All methods cost the same at one k, and their scores may be nearly equal."""
    results = write_results(tmp_path)
    methods = results["tasks"][1]["methods"]
    votes = [method for method in methods if method["name"].startswith("vote")]
    others = ["vote of 4 weighted by confidence", "best of 4 by mean_logprob"]
    results["tasks"][1]["methods"] = [
        methods[-1],
        *votes[1:],
        *({**votes[-1], "name": name, "value": votes[-1]["value"] + 0.001} for name in others),
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = browser.new_page()
    page.goto(write_results_page(tmp_path).as_uri())
    page.set_viewport_size({"width": width, "height": 900})
    draw_charts(page)
    cost = page.locator(MATHEMATICS).locator("figure", has_text="Score by cost")
    dots = page.evaluate(
        """id => {
          const view = drawn.get(id), { x_scale, y_scale } = view.frame;
          const drawnDots = view.model.renderers.filter((one) => one.glyph.type === "Scatter");
          return drawnDots.flatMap((one) => {
            const y = one.data_source.get_column("value"), size = one.glyph.size.value;
            return [...one.data_source.get_column("x")].map(
              (x, i) => [x_scale.compute(x), y_scale.compute(y[i]), size / 2]);
          });
        }""",
        cost.locator("[data-chart]").get_attribute("data-chart"),
    )
    page.close()
    assert len(dots) == 5
    for index, (x, y, radius) in enumerate(dots):
        for other_x, other_y, other_radius in dots[:index]:
            assert math.hypot(x - other_x, y - other_y) >= radius + other_radius


def test_a_table_that_goes_on_says_so_on_a_phone(opened):
    page = opened()
    page.set_viewport_size({"width": 400, "height": 900})
    wide = page.locator("#scores .wide")
    assert wide.evaluate("box => box.scrollWidth > box.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def read_edges():
        """The most frequent colours of the first and the last column of pixels."""
        image = Image.open(io.BytesIO(wide.screenshot())).convert("RGB")
        columns = (1, image.width - 2)
        return [
            Counter(image.getpixel((x, y)) for y in range(image.height)).most_common(1)[0][0]
            for x in columns
        ]

    ground = (255, 255, 255)
    left, right = read_edges()
    assert left == ground and right != ground
    wide.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    left, right = read_edges()
    assert left != ground and right == ground
    page.set_viewport_size({"width": 1280, "height": 900})
    assert read_edges() == [ground, ground]


def test_a_mean_reward_stands_where_there_is_no_pass_at_1(browser, tmp_path):
    results = write_results(tmp_path)
    results["tasks"][1] |= {
        "pass@1": None,
        "mean_reward": {"value": -0.25, "low": -0.5, "high": 1.125},
        "pass@k": [],
        "cons@k": [],
        "budget": [],
        "methods": [],
        "breakdown": {},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(write_results_page(tmp_path).as_uri())
    for place in (".scores", MATHEMATICS):
        shown = " ".join(page.locator(place).inner_text().split())
        assert "mean reward -0.250 [-0.500, 1.125]" in shown
    page.close()
    assert errors == []
