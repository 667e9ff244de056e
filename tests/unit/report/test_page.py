"""The page: complete, bounded, without any way for a text to become markup or script."""

import base64
import hashlib
import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.hostile_texts import HOSTILE_TEXTS
from tests.helpers.made_up_run import make_header, write_run
from tests.helpers.simulated_run import START, MadeUpRun
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.report import report_files, rollouts
from verl_pipeline.report.page import Charts, encode_json
from verl_pipeline.report.report_files import write_report
from verl_pipeline.report.run_content import show_run
from verl_pipeline.report.run_view import make_view
from verl_pipeline.telemetry.records import ClockSample
from verl_pipeline.telemetry.run_folder import load_run


class PageReader(HTMLParser):
    """Reads scripts and attributes as a browser does."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._open = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def read_policy(page):
    return next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(runs, tmp_path):
    write_report([runs["ours"], runs["sync"]], tmp_path / "page.html")
    page = PageReader((tmp_path / "page.html").read_text("utf-8"))
    policy = read_policy(page)
    assert policy.startswith("default-src 'none';")
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe-eval" not in policy and "http" not in policy
    programs = [text for attributes, text in page.scripts if "type" not in attributes]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert len(programs) == 5
    assert allowed == [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs
    ]
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "action"} & attributes.keys(), tag
        assert attributes.get("href", "#").startswith(("#", "data:,"))
        assert not any(name.startswith("on") for name in attributes)
    for attributes, text in page.scripts:
        if attributes.get("type") == "application/json":
            json.loads(text)


@pytest.mark.slow
def show(folder):
    """What the template gets of a run."""
    return show_run(make_view(load_run(folder), "run"), Charts(), 1)[0]


def test_the_page_says_how_the_clocks_drifted(tmp_path):
    write_run(tmp_path, MadeUpRun(steps=2))
    assert "Clocks" not in dict(show(tmp_path)["facts"])
    samples = [ClockSample(START + 60 * i, 5.0 + 0.25 * i, 0.001 * (1 + i)) for i in range(3)]
    header = make_header(MadeUpRun(steps=2), role="trainer", host="node1", pid=7)
    lines = [json.dumps(asdict(record)) + "\n" for record in (header, *samples)]
    (tmp_path / "telemetry/run-trainer-node1-7-0.jsonl").write_text("".join(lines))
    told = dict(show(tmp_path)["facts"])["Clocks"]
    assert told.startswith("1 process,") and "0.0030 s" in told and "drift 0.5000 s" in told


def test_the_page_says_that_an_engine_does_not_tell_first_tokens(tmp_path):
    write_run(tmp_path, MadeUpRun(steps=2))
    assert not any("first token" in note for note in show(tmp_path)["timeline_notes"])
    for path in (tmp_path / "telemetry").glob("trajectories-*"):
        path.write_text(path.read_text().replace('"first_token"', '"unknown"'))
    assert any("first token" in note for note in show(tmp_path)["timeline_notes"])


def test_no_text_of_a_run_becomes_markup(runs, tmp_path, monkeypatch):
    """Names, settings, problems, versions and prompts, all of them hostile."""
    text = " ".join(HOSTILE_TEXTS.values())

    def load(folder):
        run = load_run(folder)
        header = replace(
            run.header,
            run_name=text,
            mode=text,
            versions={text: text},
            settings={"a": {"b": text}, text: [text]},
        )
        prompts = run.trajectories["prompt"].to_pylist()
        clean = text.encode(errors="replace").decode()
        table = run.trajectories.set_column(0, "prompt", [[f"{p} {clean}" for p in prompts]])
        return replace(run, headers=[header], problems=[text], trajectories=table)

    write_report([runs["ours"]], tmp_path / "clean.html")
    monkeypatch.setattr(report_files, "load_run", load)
    write_report([runs["ours"]], tmp_path / "page.html")
    clean, page = (
        PageReader((tmp_path / f"{one}.html").read_text("utf-8")) for one in ("clean", "page")
    )
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in clean.tags} | {
        "aside",
        "b",
        "ul",
        "li",
    }
    assert len(page.scripts) == len(clean.scripts)


@settings(deadline=None)
@given(st.text())
def test_json_in_a_page_reads_back_and_ends_no_element(text):
    encoded = encode_json({"x": text})
    assert json.loads(encoded) == {"x": text}
    assert encoded.isascii() and not set(encoded) & set("<>&")


def test_json_with_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError):
        encode_json([float("nan")])


def test_a_file_that_is_no_report_is_not_replaced(runs, tmp_path):
    path = tmp_path / "thesis.html"
    path.write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="choose another --output"):
        write_report([runs["ours"]], path)
    assert path.read_text() == "<html>mine</html>"


@pytest.mark.slow
def test_a_report_is_replaced_by_the_next_one(runs, tmp_path):
    for _ in range(2):
        written = write_report([runs["ours"]], tmp_path / "page.html")
    assert written.page.stat().st_size == written.size
    assert list(tmp_path.iterdir()) == [written.page]


@pytest.mark.slow
def test_a_page_stays_within_its_budget_and_says_what_it_leaves_out(tmp_path, monkeypatch):
    """A run of more steps, spans and texts than the budgets, which are made small for it."""
    monkeypatch.setattr(rollouts, "MAX_ROWS", 400)
    monkeypatch.setattr(rollouts, "MAX_PACKED", 60_000)
    monkeypatch.setattr("verl_pipeline.report.timeline.MAX_BARS", 300)
    monkeypatch.setattr("verl_pipeline.report.lanes.MAX_TRAJECTORIES", 200)
    write_run(tmp_path / "run", MadeUpRun(steps=120, prompts=8, group=4, texts_a_step=4))
    page = write_report([tmp_path / "run"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    packed = re.findall(r'"packed":"([^"]+)"', text)
    assert len(packed) == 120 and sum(map(len, packed)) <= 60_000 * 1.2
    assert page.size < 15_000_000
    assert "of 3,840 trajectories can be opened here" in text
    assert "of 3,840 trajectories are drawn" in text
    assert "are joined to one bar" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_steps_of_a_million_trajectories_fit_into_15_mb(tmp_path):
    run = MadeUpRun(
        steps=1000, prompts=64, group=16, replicas=8, slots=128, gauge_every_s=5.0, texts_a_step=16
    )
    story = write_run(tmp_path / "run", run)
    assert story.trajectories > 1_000_000
    assert write_report([tmp_path / "run"], tmp_path / "page.html").size < 15_000_000
