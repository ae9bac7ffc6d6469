"""The shell commands of the README files and the user guide."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")]
    if not {".venv", "api", "node_modules"} & set(path.relative_to(ROOT).parts)
)
SHELL = {"", "bash", "sh", "shell", "console"}  # the languages of blocks that hold commands
PROGRAMS = ("python", "mrcnn", "make", "pip")


class Command(NamedTuple):
    """A command of a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def fenced(page: Path) -> list[tuple[str, str]]:
    """The language and the content of each block of code of a page."""
    found, language, lines = [], None, []
    for line in page.read_text().splitlines():
        fence = re.match(r"\s*```(.*)", line)
        if not fence:
            lines.append(line)
        elif language is None:
            language, lines = fence[1].strip(), []
        else:
            found.append((language, "\n".join(lines) + "\n"))
            language, lines = None, []
    return found


def commands(page: Path) -> list[Command]:
    """Every command of a page, those of its blocks first, with shell variables filled in."""
    name, found = str(page.relative_to(ROOT)), []
    for language, code in fenced(page):
        if language in SHELL:
            found += [Command(name, words) for words in split(code)]
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for code in re.findall(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`", text):
        if not re.search(r"\.\.\.|<|[A-Z]{5}", code):  # the pattern of a command
            found.append(Command(name, tuple(shlex.split(code))))
    return found


def split(code: str) -> list[tuple[str, ...]]:
    """The words of each command of a block."""
    variables, found, lines = {}, [], code.replace("\\\n", " ").splitlines()
    while lines:
        line = lines.pop(0).removeprefix("$ ")
        while lines and line.count("'") % 2:  # a quotation of several lines
            line += "\n" + lines.pop(0)
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", lambda _, value=value: value, line)
        words = shlex.split(line, comments=True)
        if len(words) == 1 and re.match(r"\w+=", words[0]):
            name, _, value = words[0].partition("=")
            variables[name] = value
        elif words:
            found.append(tuple(words))
    return found
