"""What one visitor of the page has dropped, found and corrected. It knows nothing of the page itself."""

import re
import tempfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mrcnn.app.view import reduced_image, reduced_result
from mrcnn.data.images import read_image, read_image_size
from mrcnn.files import atomic_path
from mrcnn.inference.class_names import names_of
from mrcnn.inference.results import Result
from mrcnn.inference.store import Record, ResultStore, cut_outs
from mrcnn.pictures.overlay import draw_result

LONGEST = 1600  # pixels of the longer side of what is shown
NAME_LENGTH = 80  # characters of a class name that a visitor types


class NamedModel:
    """A model of the page: a `MaskRCNN` or a `Predictor`, which one visitor at a time uses.

    Args:
        name: what the page calls it. options: further arguments of its `detect`, such as tile.

    Raises the errors of `detect` for options that the model does not take.
    """

    def __init__(self, name: str, model: Any, **options: Any) -> None:
        model.detect([], **options)
        self.name, self.model, self.options = name, model, options
        self.class_names = names_of(model.class_names, model.config.NUM_CLASSES)
        self.lock = threading.Lock()

    def find(self, path: str) -> Result:
        """What is in an image file."""
        with self.lock:
            (result,) = self.model.detect([path], **self.options)
        return result


class Choice(NamedTuple):
    """What is shown: instances from a score on, of some classes; all where none is named."""

    min_score: float = 0.5
    classes: Sequence[str] = ()


class Session:
    """The images of a visitor, with a result per model.

    Args:
        models: one, or several to compare.
    """

    def __init__(self, models: Sequence[NamedModel]) -> None:
        self.models = list(models)
        self.class_names = [list(model.class_names) for model in models]  # with those that the visitor added
        self.paths: list[str] = []
        self._lock = threading.Lock()  # a page asks for the same result more than once
        self._results: dict[tuple[str, int], Result] = {}
        self._view: tuple[str, np.ndarray] | None = None

    def __deepcopy__(self, memo: Any) -> "Session":
        """A session for another visitor, as Gradio copies the first one; models are not copied."""
        return Session(self.models)

    # Images

    def take(self, paths: Sequence[str]) -> list[str]:
        """These images instead of those before; results of known ones stay.

        Returns a line for each file that is no image.
        """
        good, problems = [], []
        for path in paths:
            try:
                read_image_size(path, max_pixels=self._max_pixels)
                good.append(path)
            except (ValueError, TypeError, OSError) as error:
                problems.append(f"{Path(path).name}: {_without_folder(error, path)}")
        self.paths = good
        self._results = {key: value for key, value in self._results.items() if key[0] in good}
        return problems

    @property
    def labels(self) -> list[str]:
        """A name for each image, different from those of the others."""
        taken: dict[str, int] = {}
        labels = []
        for name in (Path(path).name for path in self.paths):
            label = name
            while label in taken:
                taken[name] += 1
                label = f"{name} ({taken[name]})"
            taken[label] = 1
            labels.append(label)
        return labels

    @property
    def _max_pixels(self) -> int:
        return self.models[0].model.config.IMAGE_MAX_PIXELS

    def _image(self, index: int) -> np.ndarray:
        return read_image(self.paths[index], 3, max_pixels=self._max_pixels)

    def _reduced(self, index: int) -> np.ndarray:
        """The image as it is shown; the last one is kept."""
        path = self.paths[index]
        if self._view is None or self._view[0] != path:
            self._view = path, reduced_image(self._image(index), LONGEST)
        return self._view[1]

    # Results

    def result(self, index: int, which: int) -> Result:
        """All that a model finds in an image, computed once."""
        key = self.paths[index], which
        with self._lock:
            if key not in self._results:
                self._results[key] = self.models[which].find(key[0])
            result = self._results[key]
        result.class_names = tuple(self.class_names[which])
        return result

    def chosen(self, index: int, which: int, choice: Choice) -> np.ndarray:
        """Numbers of the instances that are shown."""
        result = self.result(index, which)
        kept = result.scores >= choice.min_score
        if choice.classes:
            kept &= np.isin(result.names, list(choice.classes))
        return np.flatnonzero(kept)

    def picture(self, index: int, which: int, choice: Choice) -> np.ndarray:
        """The image, reduced, with what is shown of a model's results; each instance is labeled by its number."""
        numbers = self.chosen(index, which, choice)
        view = self._reduced(index)
        shown = reduced_result(self.result(index, which).keep(numbers), (view.shape[0], view.shape[1]))
        labels = [f"{number} {name}" for number, name in zip(numbers, shown.names, strict=True)]
        return draw_result(view, shown, labels=labels)

    def instances(self, index: int, which: int, choice: Choice) -> list[tuple[str, int]]:
        """A line for each instance that is shown, and its number."""
        result = self.result(index, which)
        return [
            (f"{number}  {result.names[number]}  {result.scores[number]:.2f}", number)
            for number in self.chosen(index, which, choice).tolist()
        ]

    def at(self, index: int, which: int, choice: Choice, x: float, y: float) -> int | None:
        """The best instance at a pixel of the reduced image."""
        height, width = self._reduced(index).shape[:2]
        result = self.result(index, which)
        row, column = int(y * result.size[0] / height), int(x * result.size[1] / width)
        for number in self.chosen(index, which, choice).tolist():
            mask, top, left = result.keep([number]).crops[0]
            if 0 <= row - top < mask.shape[0] and 0 <= column - left < mask.shape[1] and mask[row - top, column - left]:
                return number
        return None

    def correct(self, index: int, which: int, number: int, name: str) -> None:
        """Gives an instance another class, which need not be one that the model knows.

        Raises ValueError for an empty or a very long name, or a number that there is not.
        """
        name, names, result = " ".join(name.split()), self.class_names[which], self.result(index, which)
        if not 0 < len(name) <= NAME_LENGTH:
            raise ValueError(f"a class name has 1 to {NAME_LENGTH} characters, got {len(name)}")
        if not 0 <= number < result.count:
            raise ValueError(f"there is no object {number}; they are 0 to {result.count - 1}")
        if name not in names[1:]:
            names.append(name)
        class_ids = np.array(result.class_ids)
        class_ids[number] = names.index(name, 1)
        result["class_ids"] = class_ids
        result.class_names = tuple(names)

    def all_names(self) -> list[str]:
        """The classes of all models, and those added."""
        return list(dict.fromkeys(name for names in self.class_names for name in names[1:]))

    # Files

    def write_json(self, path: Path, which: int, choice: Choice, step: Callable[[], Any] = lambda: None) -> Path:
        """COCO's json of all images, as `mrcnn detect` writes it; images that nobody looked at are detected in now.

        Args:
            step: called after each image.
        """
        with tempfile.TemporaryDirectory() as folder, ResultStore(Path(folder) / "results.sqlite", {}) as store:
            for index, label in enumerate(self.labels):
                numbers = self.chosen(index, which, choice)
                store.add(label, Record.of(self.result(index, which).keep(numbers)))
                step()
            store.commit()
            store.write_coco(path, self.class_names[which])
        return path

    def write_cut_outs(self, path: Path, which: int, choice: Choice, step: Callable[[], Any] = lambda: None) -> Path:
        """A zip with each instance of all images alone, as a transparent PNG."""
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for index, label in enumerate(self.labels):
                numbers = self.chosen(index, which, choice)
                kept = self.result(index, which).keep(numbers)
                for i, pixels in cut_outs(kept, self._image(index)):
                    name = re.sub(r"[^\w-]+", "_", kept.names[i])[:40]
                    archive.writestr(f"{label}/{numbers[i]:03d}_{name}.png", _png(pixels))
                step()
        return path


def _png(pixels: np.ndarray) -> bytes:
    """[h, w, RGBA] as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1].tobytes()


def _without_folder(error: Exception, path: str) -> str:
    """The message of an error without the folder that the page keeps its uploads in."""
    return " ".join(str(error).split()).replace(str(Path(path).parent) + "/", "")
