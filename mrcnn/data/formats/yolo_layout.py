"""Where the parts of a YOLO dataset lie, and what its classes are called, by its yaml or by the names of its folders.

The keys of the yaml, and what relative paths in it mean, are those of Ultralytics
(https://docs.ultralytics.com/datasets/segment/).
"""

import os
from typing import Any, NamedTuple

from mrcnn.data.formats.fields import shown
from mrcnn.data.formats.folders import PICTURES, listed, names_in, paired_folders
from mrcnn.data.formats.problems import AnnotationError

YAML = (".yaml", ".yml")
CLASS_FILE = "classes.txt"
SUBSETS = ("train", "val", "test")
ALIASES = {"val": ("val", "valid", "validation"), "valid": ("valid", "val", "validation")}


class Layout(NamedTuple):
    """file: the yaml, or the folder where there is none. images: folders of pictures, or texts that list them. names:
    of the classes, by their numbers; None when nothing says them."""

    file: str
    images: list[str]
    names: dict[int, str] | None


def find_layout(dataset_dir: str | os.PathLike, subset: str | None) -> Layout:
    """The parts of a dataset.

    Args:
        dataset_dir: its folder, or its yaml.
        subset: a key of the yaml, or the name of a folder around or in images/.

    Raises:
        FileNotFoundError: nothing is there, or no images of the subset.
        AnnotationError: a damaged yaml, naming its line or field.
        ValueError: several yaml files, or several subsets, where one is to be named.
    """
    path = os.fspath(dataset_dir)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no folder or yaml {path!r}; check the path")
    file, root = (path, os.path.dirname(path)) if os.path.isfile(path) else (_yaml_in(path), path)
    content = read_yaml(file) if file else {}
    images = _images(root, subset, file, content)
    above = "" if file else _yaml_in(os.path.dirname(os.path.abspath(root)))  # for names; its paths are of others
    names = (
        _listed_names(root, images)
        if not file and not above
        else class_names(file or above, content if file else read_yaml(above))
    )
    return Layout(file or root, images, names)


def labels_of(image: str) -> str:
    """The path of an image's labels: the last folder images/ replaced by labels/, or beside it without one."""
    parts = os.path.splitext(image)[0].split(os.sep)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return os.sep.join(parts) + ".txt"


def labels_in(images: str) -> str:
    """The folder of the labels of a folder of images."""
    return os.path.dirname(labels_of(os.path.join(images, "x.jpg")))


def read_yaml(path: str) -> dict[str, Any]:
    """The content of a yaml. Raises AnnotationError naming the line that is damaged."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else ""
        raise AnnotationError(path, line, "", f"it is not yaml, damaged or cut off: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise AnnotationError(path, "", "names", f"expected keys such as names, got {shown(content)}")
    return content


def class_names(path: str, content: dict[str, Any]) -> dict[int, str] | None:
    """The names of the classes by their numbers; None where there is a count only. Raises AnnotationError."""
    names = content.get("names")
    if names is None and type(content.get("nc")) is int:
        return None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise AnnotationError(
            path, "", "names", f"expected a list of names, or names by numbers, got {shown(content.get('names'))}"
        )
    for number, name in names.items():
        if type(number) is not int or number < 0:
            raise AnnotationError(path, "", "names", f"expected numbers from 0 on, got {shown(number)}")
        if type(name) not in (str, int, float) or name == "":
            raise AnnotationError(path, "", f"names[{number}]", f"expected a name, got {shown(name)}; put it in quotes")
    names = {number: str(names[number]) for number in sorted(names)}
    if len(set(names.values())) < len(names):
        raise AnnotationError(path, "", "names", f"names repeat: {shown(list(names.values()))}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise AnnotationError(path, "", "nc", f"it says {shown(count)}, but there are {len(names)} names")
    return names


def _yaml_in(folder: str) -> str:
    """The yaml in a folder that names classes; "" when there is none."""
    found = [entry.path for entry in listed(folder) if entry.name.lower().endswith(YAML) and _has_names(entry.path)]
    if len(found) > 1:
        raise ValueError(f"several files name classes: {found}; give the path of one of them")
    return found[0] if found else ""


def _has_names(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return any(line.startswith(("names", "nc:")) for line in file)


def _images(root: str, subset: str | None, file: str, content: dict[str, Any]) -> list[str]:
    """Folders of images, or texts that list them."""
    tried: list[str] = []
    for name in ALIASES.get(subset, (subset,)):
        if name is not None and content.get(name):
            found = _of_yaml(file, content, name, tried)
            if found:
                return found
    for name in ALIASES.get(subset, (subset,)):
        images, _ = paired_folders(root, name, ["labels"], os.path.isdir)
        beside = os.path.join(root, name or "")
        for folder in (images, beside):
            if folder and (name or has_files(folder, PICTURES)) and (folder == images or _is_mixed(folder)):
                return [folder]
    subsets = [key for key in SUBSETS if content.get(key)]
    if subset is None and len(subsets) == 1:
        return _images(root, subsets[0], file, content)
    if subset is None and subsets:
        raise ValueError(f"{file!r} has the subsets {', '.join(subsets)}; name one, subset={subsets[0]!r}")
    raise FileNotFoundError(
        f"no images of YOLO's layout{f' and of the subset {subset!r}' * bool(subset)} in {root!r}, "
        f"which holds {names_in(root)}; expected images/ and labels/, the subset around them or in "
        f"both{f'; the yaml led to {tried}' * bool(tried)}"
    )


def _of_yaml(file: str, content: dict[str, Any], subset: str, tried: list[str]) -> list[str]:
    """The places that a key of the yaml means; [] when one is not there."""
    entries = content[subset] if isinstance(content[subset], list) else [content[subset]]
    base, above = content.get("path"), os.path.dirname(file)
    for field, values in ((subset, entries), ("path", [base] * (base is not None))):
        if not all(isinstance(value, str) for value in values):
            raise AnnotationError(file, "", field, f"expected a path, got {shown(values)}")
    # "path" may be relative to the folder of all datasets, of which the yaml's is one, or be another machine's
    bases = [above] if not base else [os.path.join(above, base), above, os.path.join(above, os.pardir, base)]
    found = []
    for entry in entries:
        # Exports of Roboflow begin with ../ and mean the folder of the yaml
        names = [entry, entry.removeprefix("../")]
        places = [os.path.normpath(os.path.join(place, name)) for place in bases for name in names]
        found.append(next(filter(os.path.exists, places), None))
        if found[-1] is None:
            tried += dict.fromkeys(places)
    return [] if None in found else found


def has_files(folder: str, suffixes: tuple[str, ...]) -> bool:
    """Whether files with one of these suffixes lie in a folder."""
    return any(entry.name.lower().endswith(suffixes) and entry.is_file() for entry in listed(folder))


def _is_mixed(folder: str) -> bool:
    """Whether labels lie beside the images."""
    return has_files(folder, PICTURES) and has_files(folder, (".txt",))


def _listed_names(root: str, images: list[str]) -> dict[int, str] | None:
    """The names in a classes.txt, a line each, in the dataset's folder or among the labels; None without one."""
    for folder in (root, os.path.join(root, "labels"), *map(labels_in, images)):
        path = os.path.join(folder, CLASS_FILE)
        if os.path.isfile(path):
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                names = [line.strip() for line in file if line.strip()]
            return class_names(path, {"names": names})
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
