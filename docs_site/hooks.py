"""Hooks of mkdocs: pages that are generated, and links to files outside ``docs/``.

Invariants:
* Nothing generated is in the repository: pages follow from code and files at each build.
* A link to a file of the repository works on the site as it does on a checkout: Markdown becomes a
  page, any other file a page with its text.
* A link to what does not exist stays as it is, so that ``--strict`` finds it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs_site import generated_pages

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)([^)\s]*\))")
FENCE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "bash",
             ".json": "json"}  # fmt: skip
# Of a file that a page shows; results of benchmarks can be long.
MAX_CHARACTERS = 200_000


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the repository's own Markdown, and every file that one links to."""
    texts = generated_pages.make_pages()
    texts |= {_find_page(name): (ROOT / name).read_text() for name in ("README.md", "CHANGELOG.md")}
    pending = [(file.src_uri, Path(file.abs_src_path).read_text()) for file in files
               if file.is_documentation_page()]  # fmt: skip
    pending += texts.items()
    seen = {name for name, _text in pending}
    while pending:
        name, text = pending.pop()
        for target in _list_targets(_find_origin(name), text):
            page = _find_page(target)
            if page in seen or target.startswith("docs/"):
                continue
            seen.add(page)
            texts[page] = _show_file(target)
            if target.endswith(".md"):
                pending.append((page, texts[page]))
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages."""
    return point_links(page.file.src_uri, markdown)


def point_links(page: str, markdown: str) -> str:
    """The text of a page, with its links to files of the repository as links to pages."""
    origin = _find_origin(page)

    def point(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if (target := _resolve(origin, link)) is None:
            return match[0]
        return f"{before}{posixpath.relpath(_find_page(target), posixpath.dirname(page))}{after}"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(point, part) for part in parts)


def _find_origin(page: str) -> str:
    """The file of the repository that a page shows."""
    if page == "index.md":
        return "README.md"
    if page.startswith("source/"):
        return page.removeprefix("source/").removesuffix(".md")
    return page if (ROOT / page).exists() else f"docs/{page}"


def _find_page(target: str) -> str:
    """The page, or other file of the site, that shows a file of the repository."""
    if target == "README.md":
        return "index.md"
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return target if target.endswith(".md") else f"source/{target}.md"


def _resolve(origin: str, link: str) -> str | None:
    """The file of the repository that a link of a file leads to; None if there is none."""
    if re.match(r"\w+:", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if target.startswith(".."):
        return None
    if (ROOT / target).is_dir():
        readme = f"{target}/README.md"
        return readme if (ROOT / readme).is_file() else target
    return target if (ROOT / target).is_file() else None


def _list_targets(origin: str, text: str) -> list[str]:
    links = [link for _, link, _ in LINK.findall(FENCE.sub("", text))]
    return [target for link in links if (target := _resolve(origin, link)) is not None]


def _show_file(target: str) -> str:
    path = ROOT / target
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.name[0] not in "._")
        return f"# {target}\n\n" + "".join(f"* `{name}`\n" for name in names)
    text = path.read_text()
    if path.suffix == ".md":
        return text
    cut = "" if len(text) <= MAX_CHARACTERS else "\n(The rest is left out here.)\n"
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {target}\n\n````{language}\n{text[:MAX_CHARACTERS]}\n````\n{cut}"
