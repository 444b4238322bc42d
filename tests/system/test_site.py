"""The site of docs/ builds without warnings, is complete, and loads nothing from other sites."""

import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml

from scripts.site_sources import INK
from tests.system.browser import Page, chromium

ROOT = Path(__file__).parents[2]
# Attributes that a browser loads by itself, unlike the `href` of a link.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src"}

TIMEOUT = 60  # seconds for a browser
# Type a word into the search field.
SEARCH = """
(() => {
  const field = document.querySelector(".md-search__input");
  field.focus();
  field.value = %s;
  field.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
  field.dispatchEvent(new Event("input", { bubbles: true }));
})()
"""


# Heights in pixels of the number and of the text of each line of a source page.
HEIGHTS = """
[...document.querySelectorAll(".linenos a")].map((number) => {
  const line = document.querySelector(".code " + number.getAttribute("href"));
  return [number.textContent.trim(), number.getBoundingClientRect().top, line.getBoundingClientRect().top];
})
"""
# Code blocks with lines that do not fit.
CLIPPED = """
[...document.querySelectorAll("pre > code")].filter((block) => !block.closest(".highlighttable"))
  .filter((block) => block.scrollWidth > block.clientWidth + 1).map((block) => block.textContent)
"""
SEEN = """
(document.body.setAttribute("data-md-color-scheme", "%s"),
  [...document.querySelectorAll(".md-content img")].filter((image) => image.getBoundingClientRect().width > 0)
  .map((image) => image.src))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        # test_notebooks.py executes the notebooks.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "EXECUTE_NOTEBOOKS": "false"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Found(HTMLParser):
    """Resources, links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.names |= {value for key in ("id", "name") if (value := values.get(key))}
        if tag == "link" and values.get("rel") not in ("stylesheet", "icon", "preload", "preconnect"):
            return
        if address := values.get(FETCHED.get(tag, "")):
            self.fetched.append(address)
        if tag == "a" and (address := values.get("href")):
            self.links.append(address)


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page


def test_navigation_and_pages_have_the_same_titles() -> None:
    """The navigation has the title up to a colon: TRPO for `TRPO: trust region policy optimization`."""
    text = (ROOT / "mkdocs.yml").read_text().replace("!ENV ", "")  # a tag of mkdocs
    entries: list[Any] = list(yaml.safe_load(text)["nav"])
    titles: dict[str, str] = {}
    for entry in entries:
        for name, target in entry.items():
            if isinstance(target, list):
                entries += target
            else:
                titles[target] = name
    assert len(titles) > 30
    for page, title in titles.items():
        found = re.search(r'^ *"?# (.+?)(?:\\n",|")?$', (ROOT / "docs" / page).read_text(), re.MULTILINE)
        assert found is not None and found[1].partition(":")[0] == title, page


def test_figures_have_no_white_background_in_either_scheme(site: Path) -> None:
    page = (site / "algorithms" / "trpo.html").read_text()
    assert {"../curves/trpo.light.svg#only-light", "../curves/trpo.dark.svg#only-dark"} <= set(
        re.findall(r'src="([^"]+)"', page)
    )
    for figure in (ROOT / "docs").rglob("*.svg"):
        for scheme, other in (("light", "dark"), ("dark", "light")):
            text = (site / figure.relative_to(ROOT / "docs")).with_suffix(f".{scheme}.svg").read_text()
            assert "#ffffff" not in text and "#000000" not in text, figure
            assert INK[scheme] in text and INK[other] not in text, figure


def test_pages_load_nothing_from_other_sites_and_internal_links_work(site: Path) -> None:
    pages = {path: Found(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    for path, found in pages.items():
        for address in found.fetched:
            assert not urlsplit(address).netloc, f"{path}: {address}"
            assert (path.parent / unquote(urldefrag(address).url)).exists(), f"{path}: {address}"
        for link in found.links:
            target, name = urldefrag(link)
            if not urlsplit(link).scheme:
                there = (path.parent / unquote(target)).resolve() if target else path
                assert there.exists(), f"{path}: {link}"
                assert not name or there.suffix != ".html" or unquote(name) in pages[there].names, (
                    f"{path}: {link}"
                )
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_code_that_a_page_refers_to_is_in_the_site_with_its_lines(site: Path) -> None:
    """The anchor of `pgx/algos/trpo.py#L57` shows line 57 of the file."""
    page = (site / "algorithms" / "trpo.html").read_text()
    lines = re.findall(r'href="\.\./source/pgx/algos/trpo\.py\.html#__codelineno-0-(\d+)"', page)
    assert lines == re.findall(
        r"pgx/algos/trpo\.py#L(\d+)", (ROOT / "docs" / "algorithms" / "trpo.md").read_text()
    )
    source = (ROOT / "pgx" / "algos" / "trpo.py").read_text().splitlines()
    listing = (site / "source" / "pgx" / "algos" / "trpo.py.html").read_text()
    for line in lines:
        after = listing.split(f'id="__codelineno-0-{line}"')[1].split("\n")[0]
        assert html.unescape(re.sub(r"<[^>]+>", "", f"<{after}")).strip() == source[int(line) - 1].strip()


@pytest.mark.skipif(chromium() is None, reason="needs Chromium (apt-get install chromium)")
def test_a_browser_opens_the_site_from_a_folder_and_searches_it(site: Path, tmp_path: Path) -> None:
    with Page(tmp_path) as page:
        page.open((site / "algorithms" / "trpo.html").as_uri())
        _until(lambda: "TRPO: trust region policy optimization" in page.text())
        assert page.evaluate("getComputedStyle(document.querySelector('.md-header')).position") == "sticky"
        _until(lambda: page.evaluate("document.querySelector('img[alt*=curves]').naturalWidth > 0"))
        assert [image.endswith("#only-light") for image in page.evaluate(SEEN % "default")] == [True]
        assert [image.endswith("#only-dark") for image in page.evaluate(SEEN % "slate")] == [True]
        for width in (1280, 400):
            page.resize(width, 900)
            assert page.evaluate(CLIPPED) == []
        page.evaluate(SEARCH % json.dumps("damping"))
        _until(lambda: page.count(".md-search-result__item") > 0)
        found = page.evaluate(
            "[...document.querySelectorAll('.md-search-result__link')].map(a => a.href).join()"
        )
        assert "trpo.html" in found
        page.resize(1280, 900)
        page.open((site / "source" / "pgx" / "algos" / "trpo.py.html").as_uri())
        _until(lambda: page.evaluate("document.readyState") == "complete" and page.count(".linenos a") > 100)
        heights = page.evaluate(HEIGHTS)
        assert [number for number, _, _ in heights] == [str(i + 1) for i in range(len(heights))]
        for number, submit, line in heights:
            assert abs(submit - line) < 3, f"number {number} is {submit - line:.0f} px from its line"


def _until(happened: Callable[[], object]) -> None:
    for _ in range(TIMEOUT * 10):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")
