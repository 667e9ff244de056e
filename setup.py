"""The package's description for a registry: the README with links that work outside the repository.

Everything else is declared in pyproject.toml. With a repository's address there
(``[project.urls] Source``), relative links lead to it; without one they become plain text.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# Relative targets only: no scheme, no heading of the same page.
RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def rewrite_links(text: str, source: str | None) -> str:
    """Markdown whose relative links lead to ``source``; without one, link texts and no images."""

    def rewrite(match: re.Match) -> str:
        image, words, target = match.groups()
        if source is None:
            return "" if image else words
        folder = "raw" if image else "blob"
        return f"{image}[{words}]({source.rstrip('/')}/{folder}/main/{target})"

    return RELATIVE_LINK.sub(rewrite, text)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    setup(
        long_description=rewrite_links(
            (ROOT / "README.md").read_text(), project.get("urls", {}).get("Source")
        ),
        long_description_content_type="text/markdown",
    )
