"""The page shows all text of the data as text, and loads nothing."""

import json
import random
from html.parser import HTMLParser

from tests.helpers.problem_mixture import WRONG_PROGRAM, make_story, make_taco_row
from verl_pipeline.recipes.deepcoder.data.preparation_page import HASH_DIGITS

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;<!--"
VOID_TAGS = {"meta", "br", "img", "link", "input"}


class PageParser(HTMLParser):
    """Collects tags in order, text, and the tags that are still open.

    Fails at a tag that is closed in the wrong place.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.open_tags = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags and self.open_tags.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_shows_hostile_text_as_text(prepare, tmp_path):
    question, tests, program = make_story(random.Random(0))
    rows = [
        make_taco_row(HOSTILE, f"{question} {HOSTILE}", tests, [WRONG_PROGRAM]),
        make_taco_row("original", question, tests, [program]),
        make_taco_row(f"copy {HOSTILE}", question, tests, [program]),
        {HOSTILE: 1},
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare("sources={taco: {}}", "length.max_tokens=6000", data=tmp_path / "data")
    page = PageParser((tmp_path / "out" / "report.html").read_text())
    assert not page.open_tags
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any(
        name in attributes for _, attributes in page.tags for name in ("src", "href", "onerror")
    )
    shown = "".join(page.text)
    assert shown.count(HOSTILE) >= 3  # a question, an id, a broken row
    assert "default-src 'none'" in str(page.tags)


def test_the_page_shows_neither_zeros_nor_what_is_not_set_nor_whole_hashes(prepare, tmp_path):
    question, tests, program = make_story(random.Random(0))
    rows = [
        make_taco_row("original", question, tests, [program]),
        make_taco_row("copy", question, tests, [program]),
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare("sources={taco: {}}", "length.max_tokens=6000", data=tmp_path / "data")
    text = (tmp_path / "out" / "report.html").read_text()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    shown = "|".join(PageParser(text).text)
    # One row is a duplicate; the other stages have no column.
    assert "|source|rows|deduplicate|left|train|held out|taco|2|-1|1|" in shown.replace("\n", "")
    assert "No row was removed by ingest, language, tests," in shown
    assert "1 example|" in shown and "1 examples" not in shown
    assert "1 row|" in shown and "Prepared data: 1 problem|" in shown
    settings = shown.split("Settings and versions")[1]
    assert "seed|0|" in settings and "tests.min|5|" in settings
    assert not any(text in settings for text in ("None", "null", "[", "{", "||"))
    (digest,) = report["sources"]["taco"]["files"].values()
    assert digest not in shown and digest[:HASH_DIGITS] in shown and digest in text
