"""`mrcnn app`: what it loads and serves, without Gradio."""

from types import SimpleNamespace

import pytest

from mrcnn.app import address, page
from mrcnn.cli import app
from mrcnn.inference import extras


class Served:
    """In place of the page."""

    def close(self, verbose):
        self.closed = True


@pytest.fixture
def served(monkeypatch):
    """What would be served: the models, and the arguments of `serve`."""
    seen = {"page": Served()}
    monkeypatch.setattr(extras, "require", lambda *_: None)
    monkeypatch.setattr(address, "check_address", lambda *_: None)  # ::1 does not exist everywhere
    monkeypatch.setattr(
        page, "build_page", lambda models, score: seen.update(models=models, score=score) or seen["page"]
    )
    monkeypatch.setattr(page, "serve", lambda _, *arguments: seen.update(serve=arguments) or "http://here")

    def wait(event):
        raise KeyboardInterrupt

    monkeypatch.setattr(app.threading.Event, "wait", wait)
    return seen


def test_two_models_on_this_machine_only(run_json, models, served):
    code, values = run_json("app", "--weights", "runs/a.h5", "--against", "old/a.h5", "--tile", 512)
    assert code == 0 and values == {"address": "http://here"} and served["page"].closed
    assert [model.name for model in served["models"]] == ["a.h5", "a.h5 (2)"] and len(models) == 2
    assert served["models"][0].options == {"tile": 512}
    assert served["serve"] == ("127.0.0.1", None, False) and served["score"] == 0.5


def test_a_model_that_cannot_do_what_is_asked_starts_no_page(run, models, served):
    given = ("--set", "KEYPOINT_HEAD={'name': 'keypoints'}")
    code, _, err = run("app", "--weights", "keypoints.h5", "--tile", 512, *given)
    assert code == 1 and "tiles merge boxes and masks, not keypoints" in err and "serve" not in served
    assert run("app", "--weights", "keypoints.h5", *given)[0] == 0


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, NotImplementedError])
def test_what_fails_in_one_image_is_a_message_on_the_page(error):
    class Message(Exception):
        def __init__(self, text, duration):
            super().__init__(text)

    def find():
        raise error("not with\n  this one")

    events = page._Events(SimpleNamespace(Error=Message), None, [], [])
    with pytest.raises(Message, match="^not with this one$"):
        events._guarded(find)


@pytest.mark.parametrize("host, said", [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)])
def test_an_open_address_is_mentioned(run, models, served, host, said):
    code, _, err = run("app", "--weights", "a.h5", "--host", host)
    assert code == 0 and ("everybody who can reach" in err) == said


def test_a_wrong_address_is_said_before_a_model_is_loaded(run, models, monkeypatch):
    monkeypatch.setattr(extras, "require", lambda *_: None)
    code, _, err = run("app", "--weights", "a.h5", "--port", "70000")
    assert code == 1 and "port 70000 does not exist" in err and not models


def test_without_gradio_the_command_that_installs_it_is_named(run, models, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    code, _, err = run("app", "--weights", "a.h5")
    assert code == 1 and "gradio is not installed; run: pip install 'mask-rcnn-keras[app]'" in err and not models
