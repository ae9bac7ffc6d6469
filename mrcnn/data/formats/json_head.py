"""The keys at the start of a json file, without reading the rest, which may be hundreds of megabytes."""

import json
import os
import re
from typing import NamedTuple

HEAD = 2**16  # characters
TOKEN = re.compile(r'\s*(?:"(?P<text>(?:[^"\\]|\\.)*)"(?P<key>\s*:)?|(?P<open>[\[{])|(?P<close>[\]}])|[^\s"\[\]{}]+)')


FILE_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


class Head(NamedTuple):
    """Keys of the outermost object (`top`), and of the objects that lie directly in it, or in a list (`second`).

    file_name: the first value of such a key; "" without one.
    """

    top: frozenset[str] = frozenset()
    second: frozenset[str] = frozenset()
    file_name: str = ""


def read_head(path: str | os.PathLike) -> Head:
    """The keys in the first 64 thousand characters; none when the file is not json, or cannot be read as text."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(HEAD)
    except OSError:
        return Head()
    keys: dict[int, set[str]] = {}
    depth, place = 0, 0
    while token := TOKEN.match(text, place):  # ends at a text that is cut off
        place = token.end()
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif token["key"]:
            keys.setdefault(depth, set()).add(_unescaped(f'"{token["text"]}"'))
        elif depth == 0:
            break  # a number, or no json at all
    name = FILE_NAME.search(text)
    return Head(frozenset(keys.get(1, ())), frozenset(keys.get(2, ())), _unescaped(name[1]) if name else "")


def _unescaped(text: str) -> str:
    try:
        return json.loads(text, strict=False)
    except ValueError:  # the reader says what is wrong
        return text
