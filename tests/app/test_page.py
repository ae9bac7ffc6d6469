"""The page in a headless browser: drop, slide, correct, download, and an error for a file that is no image."""

import json
import os
import shutil
import zipfile

import cv2
import numpy as np
import pytest

from mrcnn.app.session import NamedModel
from tests.cli.conftest import Model

gradio = pytest.importorskip("gradio", reason="needs gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; set CHROMIUM to its path")]
WAIT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def address():
    from mrcnn.app.page import build_page, serve

    page = build_page([NamedModel("fcn.h5", Model()), NamedModel("unet.h5", Model())])
    yield serve(page, "127.0.0.1", None)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, address):
    """The page, and what it asked of other machines, which must be nothing."""
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(WAIT)
    elsewhere = []
    opened.on("request", lambda request: elsewhere.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in elsewhere)


@pytest.fixture
def files(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((64, 64, 3), 150, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def drop(tab, *paths):
    tab.set_input_files("#files input[type=file]", [str(path) for path in paths])


def dropped(tab, *paths):
    drop(tab, *paths)
    tab.wait_for_selector("#picture0 img")
    tab.wait_for_selector("#picture1 img")


def source(tab, number=0):
    return tab.locator(f"#picture{number} img").get_attribute("src")


def changed(tab, before):
    tab.wait_for_function("before => document.querySelector('#picture0 img')?.src != before", arg=before)


def download(tab, button, path):
    with tab.expect_download() as waiting:
        tab.click(button)
    waiting.value.save_as(path)
    return waiting.value.suggested_filename


def test_dropped_images_show_the_masks_of_both_models(tab, files):
    dropped(tab, files / "a.png", files / "b.png")
    assert tab.locator("#instance input").input_value() == "0  cat  0.90"
    labels = tab.locator("#picture0, #picture1").all_inner_texts()
    assert "fcn.h5" in labels[0] and "unet.h5" in labels[1]
    assert not tab.locator("#problems").is_visible()


def test_the_slider_draws_anew(tab, files):
    dropped(tab, files / "a.png")
    before = source(tab)
    tab.fill("#score input[type=number]", "0.95")
    tab.press("#score input[type=number]", "Enter")
    changed(tab, before)
    tab.wait_for_function("document.querySelector('#instance input').value == ''")
    assert source(tab) != before


def test_a_corrected_class_is_downloaded(tab, files, tmp_path):
    dropped(tab, files / "a.png", files / "b.png")
    before = source(tab)
    tab.fill("#name input", "sea lion")
    tab.press("#name input", "Enter")
    tab.click("#correct")
    changed(tab, before)
    assert download(tab, "#json", tmp_path / "out.json") == "annotations.json"
    content = json.loads((tmp_path / "out.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    assert [names[one["category_id"]] for one in content["annotations"]][:2] == ["sea lion", "dog"]
    assert len(content["annotations"]) == 6
    assert download(tab, "#cutouts", tmp_path / "out.zip") == "cutouts.zip"
    assert "a.png/000_sea_lion.png" in zipfile.ZipFile(tmp_path / "out.zip").namelist()


def test_a_click_chooses_the_object_under_it(tab, files):
    """The boxes are (8, 8, 40, 40), (4, 30, 20, 60) and (50, 0, 60, 9), as y1, x1, y2, x2."""
    dropped(tab, files / "a.png")
    tab.locator("#picture1 img").click(position={"x": 50, "y": 10})
    tab.wait_for_function("document.querySelector('#instance input').value == '1  dog  0.80'")
    assert tab.locator("#which input").nth(1).is_checked()
    tab.locator("#picture1 img").click(position={"x": 60, "y": 60})  # where nothing is
    tab.locator("#picture0 img").click(position={"x": 4, "y": 55})
    tab.wait_for_function("document.querySelector('#instance input').value.startsWith('2  B')")


def test_a_text_file_is_an_error_that_names_it(tab, files):
    drop(tab, files / "notes.txt")
    tab.wait_for_selector("#problems textarea")
    assert tab.locator("#problems textarea").input_value().startswith("notes.txt: 'notes.txt' is not an image")
    assert tab.locator("#picture0 img").count() == 0


def test_nothing_to_download_is_said(tab):
    tab.click("#json")
    tab.wait_for_selector("text=Drop images first")
    assert tab.locator("text=Drop images first").is_visible()
