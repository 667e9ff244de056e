"""The results page: responses stay data, and omissions are reported."""

import errno
import html.parser
import json
import os
import re
from pathlib import Path

import pytest

from tests.helpers.made_up_results import HOSTILE, HOSTILE_ID, write_results, write_rows
from verl_pipeline.evaluation import results_page
from verl_pipeline.outputs.errors import OutputError


class Page(html.parser.HTMLParser):
    """Parses the page as a browser would: its elements, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += text


def write_page(output):
    return results_page.write_results_page(output).read_text()


def read_data(page):
    return json.loads(Page(page).scripts[0])


def get_problem(data, task, index):
    return data["tasks"][task]["problems"][index]


@pytest.fixture
def output(tmp_path):
    write_results(tmp_path)
    return tmp_path


def test_the_page_has_the_data_of_the_files(output):
    data = read_data(write_page(output))
    assert data["results"] == json.loads((output / "results.json").read_text())
    assert [len(task["problems"]) for task in data["tasks"]] == [12, 12]
    last = get_problem(data, 0, 11)
    assert last["id"] == HOSTILE_ID and HOSTILE_ID in last["prompt"][0]
    assert [sample["sample"] for sample in last["samples"]] == [0, 1, 2, 3]
    assert all(sample["response"][0].endswith(HOSTILE) for sample in last["samples"])
    assert data["tasks"][0]["notes"] == []


def test_a_response_is_never_markup(output):
    page = write_page(output)
    template = "html head meta meta meta meta link title style body noscript p main script script"
    assert [tag for tag, _ in Page(page).elements] == template.split()
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert data.isascii() and not set("<>&") & set(data)
    assert "\\u2028" in data and "\\u003c/script" in data
    code = Page(page).scripts[1]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|DOMParser", code
    )


def test_the_page_loads_nothing(output):
    page = write_page(output)
    loading = [
        value
        for _, attributes in Page(page).elements
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert loading == ["data:,"]
    style_and_code = re.sub(
        r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL
    )
    assert set(re.findall(r"https?:[^\"'\s]*", style_and_code)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", style_and_code)
    assert "default-src 'none'" in page


def test_omitted_samples_are_reported_and_counted(output, monkeypatch):
    monkeypatch.setattr(results_page, "MAX_SAMPLES", 30)
    data = read_data(write_page(output))
    problems = [one for task in data["tasks"] for one in task["problems"]]
    shown = [[sample["sample"] for sample in one["samples"]] for one in problems]
    assert sum(map(len, shown)) == 30 and all(numbers in ([0], [0, 1]) for numbers in shown)
    assert all(sum(one["verdicts"].values()) == 4 for one in problems)
    assert data["tasks"][1]["notes"] == [
        "15 of 48 samples are shown, the first of each problem; all are in aime2024/samples.jsonl"
    ]


def test_the_limit_may_be_below_the_number_of_problems(output, monkeypatch):
    monkeypatch.setattr(results_page, "MAX_SAMPLES", 5)
    data = read_data(write_page(output))
    assert sum(len(one["samples"]) for task in data["tasks"] for one in task["problems"]) == 5


def test_long_texts_lose_their_middle_and_the_page_says_so(output, monkeypatch):
    monkeypatch.setattr(results_page, "MAX_CHARACTERS", 10)
    row = {
        "id": "a",
        "sample": 0,
        "response": "x" * 5 + "y" * 7 + "z" * 5,
        "tokens": 3,
        "finish": "stop",
    }
    short = row | {"sample": 1, "response": "0123456789"}
    write_rows(
        output / "humaneval" / "problems.jsonl", [{"id": "a", "prompt": "p" * 11, "tags": {}}]
    )
    write_rows(output / "humaneval" / "samples.jsonl", [row, short])
    data = read_data(write_page(output))
    found = get_problem(data, 0, 0)
    assert found["prompt"] == ["ppppp", 1, "ppppp"]
    assert [sample["response"] for sample in found["samples"]] == [
        ["xxxxx", 7, "zzzzz"],
        ["0123456789"],
    ]
    assert data["tasks"][0]["notes"] == [
        "1 response longer than 10 characters: the middle is left out; the full text is in "
        "humaneval/samples.jsonl",
        "1 prompt longer than 10 characters: the middle is left out; the full text is in "
        "humaneval/problems.jsonl",
    ]


def test_a_sample_without_a_verdict_is_ungraded(output):
    path = output / "humaneval" / "verdicts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    first = get_problem(read_data(write_page(output)), 0, 0)
    assert (
        first["samples"][0]["verdict"] == results_page.UNGRADED
        and first["verdicts"][results_page.UNGRADED] == 1
    )
    assert first["samples"][0]["reason"] == first["samples"][0]["answer"] == [""]


def test_the_last_verdict_of_a_sample_counts(output):
    path = output / "humaneval" / "verdicts.jsonl"
    again = json.loads(path.read_text().splitlines()[0]) | {"verdict": "memory_limit"}
    path.open("a").write(json.dumps(again) + "\n")
    first = get_problem(read_data(write_page(output)), 0, 0)
    assert first["samples"][0]["verdict"] == "memory_limit" and sum(first["verdicts"].values()) == 4


@pytest.mark.parametrize("name", ["problems", "samples", "verdicts"])
def test_a_cut_off_last_line_is_skipped(output, name):
    whole = read_data(write_page(output))
    (output / "humaneval" / f"{name}.jsonl").open("a").write('{"id": "HumanEval/0", "sam')
    assert read_data(write_page(output)) == whole


def test_another_broken_line_is_named(output):
    path = output / "humaneval" / "samples.jsonl"
    path.write_text('{"id": "Hum\n' + path.read_text())
    with pytest.raises(ValueError, match=r"samples\.jsonl:1: "):
        results_page.write_results_page(output)


def test_an_infinite_log_prob_is_shown_as_text(output):
    path = output / "humaneval" / "samples.jsonl"
    rows = [
        json.loads(line) | {"mean_logprob": float("-inf")} for line in path.read_text().splitlines()
    ]
    write_rows(path, rows)
    assert (
        get_problem(read_data(write_page(output)), 0, 0)["samples"][0]["facts"]["mean logprob"]
        == "-inf"
    )


def test_a_task_without_rows(output):
    for name in ("problems", "samples", "verdicts"):
        (output / "humaneval" / f"{name}.jsonl").unlink()
    assert read_data(write_page(output))["tasks"][0] == {
        "name": "HumanEval@rlimits",
        "problems": [],
        "notes": [],
    }


def test_samples_beyond_n_are_left_out(output):
    results = json.loads((output / "results.json").read_text())
    before = read_data(write_page(output))["tasks"][0]["problems"][0]["verdicts"]
    results["tasks"][0]["sampling"]["n"] = 1
    (output / "results.json").write_text(json.dumps(results))
    after = read_data(write_page(output))["tasks"][0]["problems"][0]["verdicts"]
    assert sum(after.values()) == 1 < sum(before.values())


def test_a_failed_write_keeps_the_old_page(output, monkeypatch):
    before = write_page(output)

    def refuse_new_name(scratch, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse_new_name)
    with pytest.raises(OutputError, match="No space left"):
        results_page.write_results_page(output)
    assert (output / "report.html").read_text() == before
    assert sorted(os.listdir(output)) == ["aime2024", "humaneval", "report.html", "results.json"]
