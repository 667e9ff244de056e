"""The page holds what the data says as text, whatever it says, and nothing it would load."""

import json
import random
from html.parser import HTMLParser

from tests.unit.recipes.data.mixture import WRONG, planted_mixture, story, taco

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;<!--"
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Tags in order; text; what is not closed where it should be."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_shows_hostile_text_as_text(prepare, tmp_path):
    generator = random.Random(0)
    question, tests, program = story(generator)
    rows = [
        taco(HOSTILE, f"{question} {HOSTILE}", tests, [WRONG]),
        taco("twin", question, tests, [program]),
        taco(f"twin {HOSTILE}", question, tests, [program]),
        {HOSTILE: 1},
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare("sources={taco: {}}", "length.max_tokens=6000", data=tmp_path / "data")
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert not page.open
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any(
        name in attributes for _, attributes in page.tags for name in ("src", "href", "onerror")
    )
    shown = "".join(page.text)
    assert shown.count(HOSTILE) >= 3  # a question, an id, a broken row
    assert "default-src 'none'" in str(page.tags)


def test_the_report_counts_every_row_and_is_the_same_elsewhere(prepare, tmp_path):
    mixture = planted_mixture(0, clean=6)
    pages = []
    for name in ("one", "two"):
        data = mixture.write(tmp_path / name)
        rates = tmp_path / "rates.jsonl"
        rates.write_bytes((data / "rates.jsonl").read_bytes())
        given = [
            "sources={taco: {}, primeintellect: {}}",
            "difficulty.mode=given",
            f"difficulty.rates={rates}",
        ]
        given += [
            "length.max_tokens=6000",
            "contamination.tasks=[humaneval]",
            f"output={tmp_path / name / 'out'}",
        ]
        prepare(*given, data=data)
        out = tmp_path / name / "out"
        pages.append({file.name: file.read_bytes() for file in out.iterdir() if file.is_file()})
    assert pages[0] == pages[1]
    report = json.loads(pages[0]["report.json"])
    for source in report["sources"].values():
        came = source["rows"]
        for stage in report["stages"]:
            step = source["stages"][stage]
            assert step["came"] == came and step["went"] == sum(step["reasons"].values())
            came -= step["went"]
        assert came == source["left"] == sum(source["splits"].values())
    twins = [example for example in report["examples"] if example["twin"]]
    assert twins and all(example["text"] and example["twin_text"] for example in twins)
    assert report["schema"] == 1 and report["broken"]["count"] == 5
