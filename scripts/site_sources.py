"""A hook of mkdocs: files of the repository that a page links to are pages of the site, with an anchor for each line.

On disk such a link leads to the file itself (`../../pgx/algos/trpo.py#L57`); in the site, to the file's page.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(?:#L(\d+))?\)")
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file outside of docs/ that a page of docs/ links to."""
    root = Path(config["config_file_path"]).parent
    for name in sorted({name for file in files.documentation_pages() for name in _outside(file)}):
        if (root / name).is_file():
            page = File.generated(config, f"source/{name}.md", content=_listing(root / name, name))
            files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to such files, as links to their pages."""
    here = page.file.src_uri

    def renamed(link: re.Match[str]) -> str:
        name = _name(here, link[1])
        if name is None:
            return link[0]
        path = posixpath.relpath(f"source/{name}.md", posixpath.dirname(here) or ".")
        line = f"#__codelineno-0-{link[2]}" if link[2] else ""
        return f"]({path}{line})"

    return LINK.sub(renamed, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Let mkdocs know of the lines' anchors, which it looks for in prose alone."""
    if page.file.src_uri.startswith("source/"):
        page.present_anchor_ids |= set(re.findall(r'id="(__codelineno-[\d-]+)"', html))
    return html


def _outside(file: File) -> list[str]:
    """Files of the repository that a page links to."""
    names = (_name(file.src_uri, link[1]) for link in LINK.finditer(file.content_string))
    return [name for name in names if name is not None]


def _name(here: str, link: str) -> str | None:
    """A link of a page as a path in the repository; None: it stays within docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), link))
    return None if path.startswith(("docs/", "../")) else path


def _listing(path: Path, name: str) -> str:
    fence = "`" * 4
    language = LANGUAGES.get(path.suffix, "text")
    # Line numbers beside the code are what links lead to.
    return (
        f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
        f'{fence}{language} linenums="1"\n{path.read_text()}{fence}\n'
    )
