"""The results page in a real browser: numbers, samples, and that no model output is executed."""

import io
import json
import math
import os
import shutil
from collections import Counter
from urllib.parse import quote

import pytest
from PIL import Image

from tests.helpers.made_up_results import HOSTILE, HOSTILE_ID, WEIGHTS, write_results
from verl_pipeline.evaluation.results_page import write_results_page
from verl_pipeline.number_formats import format_decimal, format_percent

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CODE, MATHEMATICS = "section >> nth=0", "section >> nth=1"


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, headless; playwright need not download one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        pytest.skip(
            f"NOT TESTED in a browser: {error}; pip install playwright, which is in "
            "requirements/dev.lock"
        )
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(
            f"NOT TESTED in a browser: none of {', '.join(BROWSERS)} is on PATH; install Debian's "
            "chromium"
        )
    # Chromium's sandbox refuses to run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


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
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(10_000)
    requested, errors = [], []
    page.on("request", lambda request: requested.append(request.url.partition("#")[0]))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
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
    return [text.split("\n")[0] for text in section.locator(".problems a").all_inner_texts()]


def test_header_and_table_have_the_numbers_of_the_results(opened, results):
    page = opened()
    head = page.locator("header").first.inner_text()
    for text in (
        results["model"]["name"],
        WEIGHTS[:12],
        "kind vllm",
        "Seed\n17",
        "verl 0.9.1",
        "humaneval: ran in the <degraded> tier rlimits",
    ):
        assert text in head
    assert page.title() == f"Evaluation of {results['model']['name']}"
    rows = page.locator(".summary tr.ours")
    assert rows.count() == 2
    for row, task in zip(rows.all(), results["tasks"], strict=True):
        score, counts = task["pass@1"], task["counts"]
        cells = row.locator("td").all_inner_texts()
        assert cells[0] == task["title"] + "@rlimits" * (task["task"] == "humaneval")
        assert cells[1].startswith(format_percent(score["value"]))
        assert cells[2] == " – ".join(
            format_percent(score[end]).removesuffix(" %") for end in ("low", "high")
        )
        assert cells[4] == f"{counts['problems']} × 8"
        assert cells[6] == format_percent(counts["truncated"] / counts["samples"])
        assert cells[7] == format_decimal(task["lengths"]["mean"], 0, group=True)
        assert cells[8] == f"{task['grader']}, {task['tier']}"
    votes = results["tasks"][1]["cons@k"][-1]
    assert rows.nth(0).locator("td").nth(5).inner_text() == "–"
    assert (
        rows.nth(1).locator("td").nth(5).inner_text() == f"{format_percent(votes['value'])} (k = 8)"
    )
    published = page.locator(".summary tr.published").all_inner_texts()
    assert published[1].split("\t")[:2] == ["DeepCoder-14B-Preview", "92.6 %"]
    assert published[1].endswith("pass@1 – DeepCoder blog post – <b>HumanEval+</b>")
    assert published[-1].split("\t")[:2] == ["o1-mini", "1,578"]


def test_a_section_has_charts_notes_and_breakdowns(opened, results):
    page = opened()
    code, mathematics = page.locator(CODE), page.locator(MATHEMATICS)
    assert code.locator("figure h3").all_inner_texts() == [
        *(
            "Score by number of samples",
            "Score by token budget",
            "Lengths of responses",
            "Verdicts",
        ),
        *("By difficulty", "By month"),
    ]
    assert "Score by cost" in mathematics.locator("figure h3").all_inner_texts()
    cost = mathematics.locator("figure", has_text="Score by cost")
    assert cost.locator(".legend span:not(.swatch)").all_inner_texts() == [
        "vote",
        "best",
        "one sample",
    ]
    assert cost.locator("tbody tr").all_inner_texts()[0].startswith("vote of 1\t")
    assert "Problems that are in the training data: 2" in code.inner_text()
    assert "the <first> version of the data" in code.inner_text()
    assert "1,480 (1,390 – 1,570), 21 contests" in mathematics.inner_text()
    tooltips = code.locator("svg.chart title").all_text_contents()
    for point in results["tasks"][0]["pass@k"]:
        assert any(
            text.startswith(f"pass@{point['k']}: {format_percent(point['value'])}")
            for text in tooltips
        )
    shares = dict(
        row.split("\t")[:2]
        for row in code.locator("figure", has_text="Verdicts").locator("tbody tr").all_inner_texts()
    )
    assert shares == {
        name.replace("_", " "): str(n) for name, n in results["tasks"][0]["verdicts"].items()
    }
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not page.evaluate(
        "/NaN|undefined|Infinity|\\[object/.test("
        "document.body.outerHTML.replace(/<script.*?<\\/script>/gs, ''))"
    )


def test_search_filter_selection_and_paging(opened):
    code = opened().locator(CODE)
    assert list_problems(code) == [f"HumanEval/{i}" for i in range(60)]
    code.get_by_label("Pages of problems").get_by_role("button", name="Next").click()
    assert list_problems(code) == [*(f"HumanEval/{i}" for i in range(60, 69)), HOSTILE_ID]

    search = code.get_by_label("Search by problem id")
    search.fill("eval/1")
    assert list_problems(code) == [f"HumanEval/{i}" for i in (1, *range(10, 20))]
    assert code.locator(".problem h3").inner_text() == "HumanEval/1"
    code.get_by_role("link", name="HumanEval/13").click()
    assert code.locator(".problem h3").inner_text() == "HumanEval/13"
    assert (
        code.locator(".problem details pre")
        .inner_text()
        .startswith("HumanEval/13\nComplete the function.")
    )
    assert [text.split("\n")[0] for text in code.locator("article pre").all_inner_texts()] == [
        f"Sample {number} of HumanEval/13:" for number in range(5)
    ]
    code.get_by_label("Pages of samples").first.get_by_role("button", name="Next").click()
    assert code.locator("article").count() == 3

    search.fill("")
    code.get_by_label("Filter by verdict").select_option("time_limit")
    listed = list_problems(code)
    assert 0 < len(listed) < 70
    code.locator(".problems a").nth(len(listed) - 1).click()
    verdicts = code.locator("article .verdict").all_inner_texts()
    assert verdicts and set(verdicts) == {"time limit"}
    search.fill("no problem has this id")
    assert list_problems(code) == [] and code.locator(".problem").inner_text() == "No such problem."


def test_model_output_stays_text(opened):
    code = opened(f"#humaneval/{quote(HOSTILE_ID, safe='')}").locator(CODE)
    assert code.locator(".problem h3").inner_text() == HOSTILE_ID
    assert code.locator("article pre").first.text_content().endswith(HOSTILE)
    assert code.locator("img, script, b, i, u").count() == 0


@pytest.mark.parametrize("fragment", ["#aime2024/2024-II-30", "#aime2024/2024%2DII%2D30"])
def test_a_fragment_selects_its_problem(opened, fragment):
    page = opened(fragment)
    shown = page.locator(MATHEMATICS).locator(".problem h3")
    assert shown.inner_text() == "2024-II-30"
    assert (
        page.locator(MATHEMATICS)
        .locator(".problems [aria-current]")
        .inner_text()
        .startswith("2024-II-30")
    )
    assert 0 <= shown.bounding_box()["y"] < 900
    assert page.locator(CODE).locator(".problem h3").inner_text() == "HumanEval/0"


def test_problem_links_work_with_the_browsers_history(opened):
    page = opened()
    code = page.locator(CODE)
    code.get_by_role("link", name="HumanEval/13").click()
    assert page.url.endswith("#humaneval/HumanEval%2F13")
    code.get_by_role("link", name="HumanEval/14").click()
    page.go_back()
    code.locator(".problem h3", has_text="HumanEval/13").wait_for()


def test_an_unknown_fragment_is_ignored(opened):
    for fragment in ("#", "#nothing/at-all", "#%", "#humaneval/%E0%A4%A", "#data"):
        assert opened(fragment).locator("section").count() == 2


def test_lists_have_no_indices_and_nothing_empty_is_shown(browser, tmp_path):
    results = write_results(tmp_path)
    results["engine"] |= {"stop": ["```", "</s>"], "adapters": [], "extra": {"none": None}}
    results["machine"]["gpus"] = []
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = browser.new_page()
    page.goto(write_results_page(tmp_path).as_uri())
    facts = page.locator("header dd").all_inner_texts()
    page.close()
    assert "kind vllm, tensor_parallel 1, max_model_len 4096, stop [```, </s>]" in facts
    assert "cpu AMD EPYC 7B13, cores 2, memory_gb 16" in facts


def test_no_dot_covers_another_in_the_plot_of_votes(browser, tmp_path):
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
    cost = page.locator(MATHEMATICS).locator("figure", has_text="Score by cost")
    dots = cost.locator("circle").evaluate_all(
        "dots => dots.map(dot => ['cx', 'cy', 'r'].map(name => +dot.getAttribute(name)))"
    )
    ticks = cost.locator("line.axis").evaluate_all(
        "lines => lines.map(line => line.x1.baseVal.value)"
    )
    page.close()
    assert len(dots) == 5
    # A dot alone at its cost stands above its tick.
    assert dots[0][0] in ticks and dots[1][0] in ticks
    for index, (x, y, radius) in enumerate(dots):
        for other_x, other_y, other_radius in dots[:index]:
            assert math.hypot(x - other_x, y - other_y) >= radius + other_radius


def test_a_table_that_goes_on_says_so_on_a_phone(opened):
    page = opened()
    page.set_viewport_size({"width": 400, "height": 900})
    wide = page.locator(".summary .wide")
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
    assert "mean reward -0.250 (-0.500 – 1.125)" in page.locator(".summary").inner_text()
    assert "-0.250 (-0.500 – 1.125)" in page.locator(MATHEMATICS).inner_text()
    page.close()
    assert errors == []
