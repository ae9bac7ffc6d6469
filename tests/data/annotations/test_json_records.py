"""Lists in a JSON file, read record by record, with json itself as the oracle."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrcnn.data.annotations import json_records
from mrcnn.data.annotations.json_records import read_records
from mrcnn.data.annotations.problems import AnnotationError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def collected(path):
    found = {}
    for key, place, records in read_records(path, "records", ("a", "b")):
        if place < 0:
            found[key] = records
        else:
            assert place == len(found[key]) and len(records) <= json_records.CHUNK
            found[key] += records
    return found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(json_records, "CHUNK", 2)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abcd"), VALUES), st.sampled_from([None, 1]))
def test_records_are_those_of_json(tmp_path_factory, content, indent):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(content, indent=indent))
    assert collected(path) == {key: value for key, value in content.items() if key in "ab"}


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"x"', "null"])
def test_other_json_has_no_records(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert collected(tmp_path / "a.json") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{a: 1}",
        '{"a"}',
        '{"a" 1}',
        '{"a": }',
        '{"a": [1,]}',
        '{"a": [1 2]}',
        '{"a": [1',
        '{"a": 1,}',
        '{"a": 1} 2',
        '{"a": [{"x": ]}',
        "[1",
    ],
)
def test_damage_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text("\n" + text)
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(AnnotationError, match="a.json, line 2: invalid or truncated JSON .*; export records"):
        collected(path)


def test_keys_that_repeat_and_nesting_without_end(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1],\n"a": [2]}')
    with pytest.raises(AnnotationError, match="a.json, line 2, field 'a': duplicate key"):
        collected(path)
    path.write_text('{"a": [' + "[" * 100_000)
    with pytest.raises(AnnotationError, match="a.json: it cannot be read .*recursion"):
        collected(path)
    path.write_text('{"a": [1, ' + "9" * 5000 + "]}")
    with pytest.raises(AnnotationError, match="a.json: it cannot be read .*4300 digits"):
        collected(path)
