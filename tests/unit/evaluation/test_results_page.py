"""The results page: responses stay data, and omissions are reported."""

import errno
import html
import html.parser
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.hostile_texts import HOSTILE_TEXTS
from tests.helpers.made_up_results import HOSTILE, HOSTILE_ID, write_results, write_rows
from verl_pipeline.evaluation import results_page
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.number_formats import format_score
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.report.evaluation_page import describe_value


class Page(html.parser.HTMLParser):
    """Parses the page as a browser would: its elements, its texts, and its data by id."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.data, self.texts = [("", {})], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        tag, attributes = self.elements[-1]
        if tag not in ("script", "style"):
            self.texts.append(text)
        elif attributes.get("type") == "application/json":
            self.data.setdefault(attributes["id"], text)


def write_page(output):
    return results_page.write_results_page(output).read_text()


def read_problems(output, task=0):
    return results_page.read_tasks(output, read_results(output))[task].problems


def read_texts(page):
    return " ".join(" ".join(page.texts).split())


@pytest.fixture
def output(tmp_path):
    write_results(tmp_path)
    return tmp_path


def test_the_page_has_the_data_of_the_files(output):
    page = Page(write_page(output))
    for task in (0, 1):
        problems = read_problems(output, task)
        assert len(problems) == 12 and json.loads(page.data[f"samples-{task}"]) == problems
    last = read_problems(output)[11]
    assert last["id"] == HOSTILE_ID and HOSTILE_ID in last["prompt"]
    assert [sample["sample"] for sample in last["samples"]] == [0, 1, 2, 3]
    assert all(sample["response"].endswith(HOSTILE) for sample in last["samples"])
    assert last["count"] == 4 and last["accepted"] == last["verdicts"].get("accepted", 0)
    assert "samples are shown" not in read_texts(page)


def test_the_numbers_stand_in_the_page_itself(output):
    results = json.loads((output / "results.json").read_text())
    shown = read_texts(Page(write_page(output)))
    for task in results["tasks"]:
        for estimate in (task["pass@1"], *task["pass@k"], *task["budget"], *task["methods"]):
            assert format_score(estimate) in shown
        for rows in task["breakdown"].values():
            assert all(f"{row['name']}, {row['problems']} problems" in shown for row in rows)
        assert describe_value(task["sampling"]) in shown
    assert "rating 1,480 [1,390, 1,570], 21 of 24 contests" in shown
    assert "1,578" in shown and "DeepCoder-14B-Preview 92.6 %" in shown


def test_texts_of_models_and_files_are_never_markup(output):
    clean = Page(write_page(output)).elements
    results = json.loads((output / "results.json").read_text())
    hostile = " ".join(HOSTILE_TEXTS.values())
    results["model"]["name"] = results["machine"]["cpu"] = results["tasks"][0]["title"] = hostile
    for task in results["tasks"]:
        task["caveats"][0]["text"] = task["published"][0]["model"] = hostile
        task["breakdown"]["difficulty"][0]["name"] = task["data"]["bad_rows"][0] = hostile
        task["verdicts"][hostile] = 3
    (output / "results.json").write_text(json.dumps(results))
    found = Page(write_page(output))
    # Of the verdict, a row of its table.
    assert Counter(tag for tag, _ in found.elements) - Counter(tag for tag, _ in clean) == {
        "tr": 2,
        "td": 6,
    }
    assert all(data.isascii() and not set("<>&") & set(data) for data in found.data.values())
    assert "window.hacked" in read_texts(found)


def test_the_page_loads_nothing(output):
    page = write_page(output)
    for _, attributes in Page(page).elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    assert "default-src 'none'" in html.unescape(page)


def test_omitted_samples_are_reported_and_counted(output, monkeypatch):
    monkeypatch.setattr(results_page, "MAX_SAMPLES", 30)
    problems = read_problems(output) + read_problems(output, 1)
    shown = [[sample["sample"] for sample in one["samples"]] for one in problems]
    assert sum(map(len, shown)) == 30 and all(numbers in ([0], [0, 1]) for numbers in shown)
    assert all(sum(one["verdicts"].values()) == 4 for one in problems)
    assert (
        "15 of 48 samples are shown, the first of each problem; all are in aime2024/samples.jsonl"
        in read_texts(Page(write_page(output)))
    )


def test_the_limit_may_be_below_the_number_of_problems(output, monkeypatch):
    monkeypatch.setattr(results_page, "MAX_SAMPLES", 5)
    assert sum(len(one["samples"]) for task in (0, 1) for one in read_problems(output, task)) == 5


def test_long_texts_lose_their_middle_and_say_so(output, monkeypatch):
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
    found = read_problems(output)[0]
    cut = "\n[... {} characters are left out here; humaneval/{}.jsonl has them ...]\n"
    assert found["prompt"] == "ppppp" + cut.format(1, "problems") + "ppppp"
    assert [sample["response"] for sample in found["samples"]] == [
        "xxxxx" + cut.format(7, "samples") + "zzzzz",
        "0123456789",
    ]


def test_a_sample_without_a_verdict_is_ungraded(output):
    path = output / "humaneval" / "verdicts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    first = read_problems(output)[0]
    assert (
        first["samples"][0]["verdict"] == results_page.UNGRADED
        and first["verdicts"][results_page.UNGRADED] == 1
    )
    assert first["samples"][0]["reason"] == first["samples"][0]["answer"] == ""


def test_the_last_verdict_of_a_sample_counts(output):
    path = output / "humaneval" / "verdicts.jsonl"
    again = json.loads(path.read_text().splitlines()[0]) | {"verdict": "memory_limit"}
    path.open("a").write(json.dumps(again) + "\n")
    first = read_problems(output)[0]
    assert first["samples"][0]["verdict"] == "memory_limit" and sum(first["verdicts"].values()) == 4


@pytest.mark.parametrize("name", ["problems", "samples", "verdicts"])
def test_a_cut_off_last_line_is_skipped(output, name):
    whole = read_problems(output)
    (output / "humaneval" / f"{name}.jsonl").open("a").write('{"id": "HumanEval/0", "sam')
    assert read_problems(output) == whole


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
    assert "mean logprob -inf" in read_problems(output)[0]["samples"][0]["facts"]


def test_a_task_without_rows(output):
    for name in ("problems", "samples", "verdicts"):
        (output / "humaneval" / f"{name}.jsonl").unlink()
    assert read_problems(output) == []


def test_samples_beyond_n_are_left_out(output):
    results = json.loads((output / "results.json").read_text())
    before = read_problems(output)[0]["verdicts"]
    results["tasks"][0]["sampling"]["n"] = 1
    (output / "results.json").write_text(json.dumps(results))
    after = read_problems(output)[0]["verdicts"]
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


def test_preset_answers_have_no_charts_of_tokens(output):
    results = json.loads((output / "results.json").read_text())
    for task in results["tasks"]:
        task |= {"budget": [], "lengths": None, "cons@k": [], "pass@k": task["pass@k"][:1]}
        task["methods"] = [one | {"tokens_per_problem": 0.0} for one in task["methods"]]
    (output / "results.json").write_text(json.dumps(results))
    shown = read_texts(Page(write_page(output)))
    assert "Verdicts" in shown and "Lengths" not in shown and "Score by" not in shown
