"""MkDocs hook: pages for source files that the docs link to, and figures for the dark scheme.

On disk a link to code points to the file (`../../pgx/algos/trpo.py#L57`). In the site it points to a page with the text
of the file and an anchor for each line.

Figures on disk are SVG files with a white background. The site has two versions of each with a transparent background:
dark lines for the light scheme, light lines for the dark one. Material hides one by the end of its address
(`#only-dark`).
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(?:#L(\d+))?\)")
FIGURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\.svg\)")
INK = {"light": "#1b1f24", "dark": "#e6edf3"}
# Colours of curves that are too dark for a dark background, and their replacements.
LIGHTER = {
    "#0072b2": "#4aa8e0",
    "#1f77b4": "#5aa9e6",
    "#d55e00": "#ff8a4c",
    "#d62728": "#ff7b72",
    "#009e73": "#2fc79a",
}
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each linked file outside docs/, and both versions of each figure."""
    for figure in [file for file in files if file.src_uri.endswith(".svg")]:
        text = Path(str(figure.abs_src_path)).read_text()
        for scheme in INK:
            uri = _version(figure.src_uri.removesuffix(".svg"), scheme)
            files.append(File.generated(config, uri, content=recoloured(text, scheme)))
    root = Path(config["config_file_path"]).parent
    for name in sorted({name for file in files.documentation_pages() for name in _outside(file)}):
        if (root / name).is_file():
            page = File.generated(config, f"source/{name}.md", content=_listing(root / name, name))
            files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links to source files to their pages, and show the version of a figure that fits the scheme."""
    here = page.file.src_uri

    def renamed(link: re.Match[str]) -> str:
        name = _name(here, link[1])
        if name is None:
            return link[0]
        path = posixpath.relpath(f"source/{name}.md", posixpath.dirname(here) or ".")
        line = f"#__codelineno-0-{link[2]}" if link[2] else ""
        return f"]({path}{line})"

    def both(image: re.Match[str]) -> str:
        shown = (f"![{image[1]}]({_version(image[2], scheme)}#only-{scheme})" for scheme in INK)
        return "\n".join(shown)

    return FIGURE.sub(both, LINK.sub(renamed, markdown))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Register the anchors of lines, which mkdocs only finds in prose; point links of notebooks to pages."""
    if page.file.src_uri.startswith("source/"):
        page.present_anchor_ids |= set(re.findall(r'id="(__codelineno-[\d-]+)"', html))
    if page.file.src_uri.endswith(".ipynb"):
        html = re.sub(r'(href="\.\./[^"#]+)\.md([#"])', r"\1.html\2", html)
    return html


def recoloured(text: str, scheme: str) -> str:
    """Return a matplotlib figure without its white background, in the colours of a scheme."""
    text = text.replace("fill: #ffffff", "fill: none")
    text = text.replace("#000000", INK[scheme]).replace("<svg ", f'<svg fill="{INK[scheme]}" ', 1)
    if scheme == "dark":
        for colour, lighter in LIGHTER.items():
            text = re.sub(colour, lighter, text, flags=re.IGNORECASE)
    return text


def _version(name: str, scheme: str) -> str:
    return f"{name}.{scheme}.svg"


def _outside(file: File) -> list[str]:
    """Return the files of the repository that a page links to."""
    names = (_name(file.src_uri, link[1]) for link in LINK.finditer(file.content_string))
    return [name for name in names if name is not None]


def _name(here: str, link: str) -> str | None:
    """Return a link of a page as a path in the repository; None if it stays within docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), link))
    return None if path.startswith(("docs/", "../")) else path


def _listing(path: Path, name: str) -> str:
    fence = "`" * 4
    language = LANGUAGES.get(path.suffix, "text")
    # Links point to the line numbers next to the code.
    return (
        f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
        f'{fence}{language} linenums="1"\n{path.read_text()}{fence}\n'
    )
