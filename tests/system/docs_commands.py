"""Commands shown in README.md, CONTRIBUTING.md and docs/, with their places and outputs."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
PROGRAMS = ("pgx", "torchrun", "make", "python", "python3", "pip", "srun")
LANGUAGES = ("", "bash", "sh", "console", "text")  # of fenced blocks that may contain commands


@dataclass(frozen=True)
class Shown:
    """Command shown on a page.

    Args:
        page: path of the page.
        line: of the page.
        words: as a shell splits them, without the folder of the program and without redirections.
        output: lines below a command with a prompt.
    """

    page: str
    line: int
    words: tuple[str, ...]
    output: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def shown() -> list[Shown]:
    """Return all commands of all pages, each text once."""
    found: dict[str, Shown] = {}
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        for line, text, output in _lines(path.read_text()):
            for words in _commands(text):
                command = Shown(name, line, tuple(words), tuple(output))
                found.setdefault(command.text, command)
    return list(found.values())


def _lines(page: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield lines of code blocks (continued lines joined) and code within prose."""
    lines = page.splitlines()
    fence, number = None, 0
    while number < len(lines):
        first, line = number, lines[number]
        number += 1
        if line.startswith("```"):
            fence = None if fence is not None else line.removeprefix("```").strip()
            continue
        in_block = (
            fence in LANGUAGES
            if fence is not None
            else line.startswith("    ") and _after_blank(lines, first)
        )
        if in_block:
            text = line.strip()
            while text.endswith("\\") and number < len(lines):
                text = " ".join([text.removesuffix("\\").rstrip(), lines[number].strip()])
                number += 1
            below = lines[number:] if text.startswith("$ ") else []
            output = [each.strip() for each in below[: _length(below)]]
            yield first + 1, text.removeprefix("$ "), output
        elif fence is None:
            joined = (
                line
                if line.count("`") % 2 == 0
                else f"{line} {lines[number].strip()}"
                if number < len(lines)
                else line
            )
            for code in re.findall(r"`([^`]+)`", joined):
                yield first + 1, code, []


def _after_blank(lines: list[str], number: int) -> bool:
    """Return whether an indented line belongs to a code block, which follows a blank line, and not to a list."""
    while number >= 0 and lines[number].startswith("    "):
        number -= 1
    return number < 0 or not lines[number].strip()


def _length(lines: list[str]) -> int:
    return next(
        (i for i, line in enumerate(lines) if not line.startswith("    ") or line.strip().startswith("$ ")),
        len(lines),
    )


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a line; text after two blanks or a # is a comment."""
    said = re.split(r"\s{2,}(?![^']*'(?:[^']*'[^']*')*[^']*$)|\s#", text)[0]
    for part in said.split("&&"):
        try:
            words = shlex.split(part)
        except ValueError:  # prose
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if len(words) > 1 and words[0].rpartition("/")[2] in PROGRAMS:
            words[0] = words[0].rpartition("/")[2]
            yield words[: words.index(">")] if ">" in words else words
