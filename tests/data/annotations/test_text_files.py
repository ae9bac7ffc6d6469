"""Untrusted text files: encodings, damage, decompression bombs."""

import os

import pytest

from mrcnn.data.annotations import text_files
from mrcnn.data.annotations.fields import shown
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import read_lines, read_text, read_xml, read_yaml


@pytest.fixture
def write(tmp_path):
    def written(content):
        path = tmp_path / "a.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(write, encoding):
    assert read_lines(write("é\n b ".encode(encoding)), "names") == ["é", "b"]


@pytest.mark.parametrize("target", ["/dev/zero", "fifo", "folder"])
def test_what_is_no_file(tmp_path, target):
    path = tmp_path / target
    if target == "fifo":
        os.mkfifo(path)
    elif target == "folder":
        path.mkdir()
    with pytest.raises(AnnotationError, match="expected a file with names, got a (device or a pipe|folder)"):
        read_text(path, "names")


def test_files_that_are_missing_too_large_or_no_text(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="no names at '.*gone'; check the path"):
        read_text(tmp_path / "gone", "names")
    with pytest.raises(FileNotFoundError, match="null byte"):
        read_text("a\0b", "names")
    with pytest.raises(AnnotationError, match="the file has 6 bytes; the limit for names is 5"):
        read_text(write("abcdef"), "names", most=5)
    with pytest.raises(AnnotationError, match="a.txt, byte 1: not valid UTF-8 text; export names again"):
        read_text(write(b"a\xff"), "names")


BOMB = "".join(
    [f"l0: &l0 [{', '.join(['lol'] * 9)}]\n"]
    + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12)]
    + ["names: *l11\n"]
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("names: [a\n", 2, "invalid or truncated YAML"),
        ("names: [a]\ndate: 2023-02-30\n", 2, "a value cannot be read: day is out of range for month; correct it"),
        ("nc: 1\nx: " + "9" * 5000, 2, "a value cannot be read: Exceeds the limit"),
        ("x: !!int ''", 1, "a value cannot be read"),
        ("names: " + "[" * 3000, 1, "nested more than 50 deep|maximum nesting depth"),
        ("- " * 3000, 1, "lists are nested more than 50 deep"),
        (BOMB, 7, "it expands to more than 1,000,000 values; write out its aliases"),
        ("a: &a [*a]\n", 1, "an alias refers to itself"),
        ("a: !!python/object/apply:os.system ['true']", 1, "could not determine a constructor"),
    ],
)
def test_damaged_yaml(write, text, line, message):
    with pytest.raises(AnnotationError, match=message) as raised:
        read_yaml(write(text), "yaml")
    assert raised.value.record == f"line {line}" and raised.value.file.endswith("a.txt")


def test_aliases_and_merged_keys_of_yaml(write):
    content = read_yaml(write("base: &b {x: 1}\nall:\n  <<: *b\n  names: [a, b]\n"), "yaml")
    assert content["all"] == {"x": 1, "names": ["a", "b"]}
    assert read_yaml(write("# nothing\n"), "yaml") is None


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('<?xml version="1.0" encoding="utf8x"?><a/>', 1, "'utf8x' is not a text encoding"),
        ('<?xml version="1.0" encoding="hex"?><a/>', 1, "'hex' is not a text encoding"),
        ('<?xml version="1.0" encoding="punycode"?><a/>', 1, "'punycode' is not a text encoding"),
        (b"<a>\n\n\xff</a>", 3, "not valid utf-8 text, although it declares"),
        ("<a>\n<b></a>", 2, "invalid XML: mismatched tag"),
        ("", 1, "invalid XML: no element found"),
        ('<a>\n<!DOCTYPE x [<!ENTITY y "z">]></a>', 2, "it declares a document type or entities"),
    ],
)
def test_damaged_xml(write, text, line, message):
    with pytest.raises(AnnotationError, match=message) as raised:
        read_xml(write(text), "xml")
    assert raised.value.record == f"line {line}"


def test_xml_in_other_encodings(write):
    for encoding in ("gbk", "shift_jis", "utf-8", "utf-16"):
        declared = f'<?xml version="1.0" encoding="{encoding}"?>\n<name>中</name>'
        assert read_xml(write(declared.encode(encoding)), "xml").text == "中"
    assert read_xml(write(b"<name>" + b"<x>" * 20_000 + b"</x>" * 20_000 + b"</name>"), "xml").tag == "name"


def test_values_are_shown_in_a_few_characters_however_large():
    nested = "lol"
    for _ in range(200):
        nested = [nested] * 9
    assert len(shown(nested)) <= 60 and len(shown("x" * 10**6)) <= 60
    assert shown([1, 2, 3, 4, 5, 6, 7]) == "[1, 2, 3, 4, 5, 6, 7]" and shown("0") == "'0'"
    assert shown(10**5000) == "a int"


def test_heads_look_as_far_as_it_takes(write, monkeypatch):
    monkeypatch.setattr(text_files, "HEADS", (10, 40, 100))
    tells = frozenset({"z"})
    for gap in (0, 5, 30, 200):
        head = text_files.read_head(write('{"a": "' + "x" * gap + '", "z": 1}'), tells)
        assert head.top == ({"a", "z"} if gap < 200 else {"a"})
