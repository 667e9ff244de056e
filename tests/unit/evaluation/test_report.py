"""The page of results: nothing of a response gets out of its data, and what is left out is said."""

import html.parser
import json
import os
import re

import pytest

from tests.unit.evaluation.folders import HOSTILE, HOSTILE_ID, write_results, write_rows
from verl_pipeline.evaluation import report


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: its elements, and the text of each script."""

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


def written(output):
    return report.write_report(output).read_text()


def embedded(page):
    return json.loads(Page(page).scripts[0])


def problem(data, task, index):
    return data["tasks"][task]["problems"][index]


@pytest.fixture
def output(tmp_path):
    write_results(tmp_path)
    return tmp_path


def test_the_data_on_the_page_is_that_of_the_files(output):
    data = embedded(written(output))
    assert data["results"] == json.loads((output / "results.json").read_text())
    assert [len(task["problems"]) for task in data["tasks"]] == [12, 12]
    last = problem(data, 0, 11)
    assert last["id"] == HOSTILE_ID and HOSTILE_ID in last["prompt"][0]
    assert [sample["sample"] for sample in last["samples"]] == [0, 1, 2, 3]
    assert all(sample["response"][0].endswith(HOSTILE) for sample in last["samples"])
    assert data["tasks"][0]["notes"] == []


def test_nothing_of_a_response_is_markup(output):
    page = written(output)
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
    page = written(output)
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


def test_samples_left_out_are_said_and_counted(output, monkeypatch):
    monkeypatch.setattr(report, "MOST_SAMPLES", 30)
    data = embedded(written(output))
    problems = [one for task in data["tasks"] for one in task["problems"]]
    shown = [[sample["sample"] for sample in one["samples"]] for one in problems]
    assert sum(map(len, shown)) == 30 and all(numbers in ([0], [0, 1]) for numbers in shown)
    assert all(sum(one["verdicts"].values()) == 4 for one in problems)
    assert data["tasks"][1]["notes"] == [
        "15 of 48 samples are shown, the first of each problem; all: aime2024/samples.jsonl"
    ]


def test_fewer_samples_than_problems_still_fit(output, monkeypatch):
    monkeypatch.setattr(report, "MOST_SAMPLES", 5)
    data = embedded(written(output))
    assert sum(len(one["samples"]) for task in data["tasks"] for one in task["problems"]) == 5


def test_long_texts_lose_their_middle_and_that_is_said(output, monkeypatch):
    monkeypatch.setattr(report, "MOST_CHARACTERS", 10)
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
    data = embedded(written(output))
    found = problem(data, 0, 0)
    assert found["prompt"] == ["ppppp", 1, "ppppp"]
    assert [sample["response"] for sample in found["samples"]] == [
        ["xxxxx", 7, "zzzzz"],
        ["0123456789"],
    ]
    assert data["tasks"][0]["notes"] == [
        "1 response longer than 10 characters without the middle; whole: humaneval/samples.jsonl",
        "1 prompt longer than 10 characters without the middle; whole: humaneval/problems.jsonl",
    ]


def test_a_sample_without_verdict_is_ungraded(output):
    path = output / "humaneval" / "verdicts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    first = problem(embedded(written(output)), 0, 0)
    assert (
        first["samples"][0]["verdict"] == report.UNGRADED
        and first["verdicts"][report.UNGRADED] == 1
    )
    assert first["samples"][0]["reason"] == first["samples"][0]["answer"] == [""]


def test_the_last_verdict_of_a_sample_counts(output):
    path = output / "humaneval" / "verdicts.jsonl"
    again = json.loads(path.read_text().splitlines()[0]) | {"verdict": "memory_limit"}
    path.open("a").write(json.dumps(again) + "\n")
    first = problem(embedded(written(output)), 0, 0)
    assert first["samples"][0]["verdict"] == "memory_limit" and sum(first["verdicts"].values()) == 4


@pytest.mark.parametrize("name", ["problems", "samples", "verdicts"])
def test_a_last_line_that_was_cut_off_is_left_out(output, name):
    whole = embedded(written(output))
    (output / "humaneval" / f"{name}.jsonl").open("a").write('{"id": "HumanEval/0", "sam')
    assert embedded(written(output)) == whole


def test_another_line_that_is_cut_off_is_named(output):
    path = output / "humaneval" / "samples.jsonl"
    path.write_text('{"id": "Hum\n' + path.read_text())
    with pytest.raises(ValueError, match=r"samples\.jsonl:1: "):
        report.write_report(output)


def test_an_infinite_likelihood_does_not_spoil_the_page(output):
    path = output / "humaneval" / "samples.jsonl"
    rows = [
        json.loads(line) | {"mean_logprob": float("-inf")} for line in path.read_text().splitlines()
    ]
    write_rows(path, rows)
    assert problem(embedded(written(output)), 0, 0)["samples"][0]["facts"]["mean logprob"] == "-inf"


def test_a_task_without_rows(output):
    for name in ("problems", "samples", "verdicts"):
        (output / "humaneval" / f"{name}.jsonl").unlink()
    assert embedded(written(output))["tasks"][0] == {"problems": [], "notes": []}


def test_samples_that_do_not_count_are_left_out(output):
    results = json.loads((output / "results.json").read_text())
    before = embedded(written(output))["tasks"][0]["problems"][0]["verdicts"]
    results["tasks"][0]["sampling"]["n"] = 1
    (output / "results.json").write_text(json.dumps(results))
    after = embedded(written(output))["tasks"][0]["problems"][0]["verdicts"]
    assert sum(after.values()) == 1 < sum(before.values())


def test_a_page_that_cannot_be_written_leaves_the_one_before(output, monkeypatch):
    before = written(output)
    monkeypatch.setattr(report, "_embeddable", lambda data: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        report.write_report(output)
    assert (output / "report.html").read_text() == before
    assert sorted(os.listdir(output)) == ["aime2024", "humaneval", "report.html", "results.json"]
