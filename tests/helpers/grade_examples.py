"""The examples of docs/grade-command.md: one line of ``problems.jsonl`` for each reader."""

import re

from tests.helpers.repository import ROOT

_PAGE = (ROOT / "docs" / "grade-command.md").read_text()
_BLOCK = re.search(r"<!-- examples.*?-->\n```json\n(.*?)```", _PAGE, re.DOTALL)
EXAMPLE_LINES = _BLOCK[1].splitlines() if _BLOCK else []
