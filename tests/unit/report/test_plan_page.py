"""The page of a plan: everything the command says, without a way for a name to become markup."""

import dataclasses
import json
import re

import pytest

from tests.helpers.hostile_texts import HOSTILE_TEXTS
from tests.helpers.planner_cases import make_small
from verl_pipeline.planner.estimate import Estimate, Reproduction
from verl_pipeline.planner.gain_map import AXES
from verl_pipeline.planner.plan_report import make_report
from verl_pipeline.planner.profile_reader import list_fields
from verl_pipeline.report.gain_maps import EVEN, choose_gain_colour
from verl_pipeline.report.plan_page import PAGE_MARK, write_plan_page

CHART = re.compile(r'<script type="application/json" id="chart-(\d+)">(.*?)</script>', re.DOTALL)


def plan(estimate=None, **options):
    estimate = estimate or Estimate(make_small(), ("A caveat.",), Reproduction("sync", 9, 2.0, 2.1))
    settings = {"gpus": None, "split": None, "price": 2.0, "seeds": 2, "show": lambda name: None}
    return make_report(estimate, **settings | options)


@pytest.fixture(scope="module")
def report():
    return plan(with_map=True)


@pytest.fixture(scope="module")
def text(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "plan.html"
    size = write_plan_page(path, report)
    assert path.stat().st_size == size
    return path.read_text("utf-8")


def read_charts(text):
    """The models of each chart by its name."""
    charts = {}
    for _, content in CHART.findall(text):
        for root in json.loads(content)["item"]["doc"]["roots"]:
            charts.setdefault(root["attributes"].get("name"), []).append(root)
    return charts


def test_the_page_says_what_the_command_says(report, text):
    assert PAGE_MARK in text[:3000]
    assert report.answer.sentence in text and "A caveat." in text
    assert "The run (sync) took 2.00 s a step" in text
    assert all(setting in text for setting in report.answer.overrides)
    rows = re.findall(r"<tr><td class=\"\">", text)
    assert len(rows) == 1 + len(report.plans) + len(report.refined)
    charts = read_charts(text)
    assert {"gains", "shares", "limits", "changes", "map"} <= charts.keys()


def test_there_is_a_map_for_each_reward_time_and_number_of_gpus(report, text):
    charts = read_charts(text)
    maps = [*charts["map"], *charts.get("map marked", [])]
    assert len(maps) == len(AXES.reward_shares) * len({c.place.gpus for c in report.cells})
    assert len(charts["map marked"]) == 1  # that of the profile's GPUs and nearest rewards


def test_without_a_map_or_a_split_the_page_is_shorter(tmp_path):
    path = tmp_path / "plan.html"
    write_plan_page(path, plan())
    assert 'id="map"' not in path.read_text("utf-8")
    write_plan_page(path, plan(Estimate(make_small(gpus=1))))
    page = path.read_text("utf-8")
    assert 'id="limit"' not in page and 'id="map"' not in page and 'id="loss"' in page
    assert "Stay with sync" in page


def test_names_and_notes_stay_texts(report, tmp_path):
    notes = tuple(text[:300] for text in HOSTILE_TEXTS.values())
    tags = []
    for texts in (("plain",) * len(notes), notes):
        sources = dict(zip((name for name, _ in list_fields()), texts, strict=False))
        profile = dataclasses.replace(
            report.profile, name=" ".join(texts), gpu=texts[1], sources=sources
        )
        path = tmp_path / "plan.html"
        write_plan_page(
            path, dataclasses.replace(report, estimate=Estimate(profile, texts), cells=[])
        )
        page = path.read_text("utf-8")
        tags.append(re.findall(r"<(script|img|svg|b|div|li|dd)\b", page))
    assert tags[0] == tags[1]


def test_colours_of_gains_have_one_in_the_middle():
    assert choose_gain_colour(1.0) == EVEN
    red, blue = choose_gain_colour(1 / 1.4), choose_gain_colour(1.4)
    assert red[0] > red[2] and blue[2] > blue[0]
    assert choose_gain_colour(9.0) == choose_gain_colour(99.0)
