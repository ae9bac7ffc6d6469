"""Categories of a COCO file: their classes, those that are not classes, and the skeleton of their keypoints."""

from collections.abc import Collection, Sequence
from typing import Any

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.annotations.classes import BACKGROUND_NAMES, class_table, is_class, only_name
from mrcnn.data.annotations.fields import Unread, shown
from mrcnn.data.annotations.keypoint_fields import skeleton_of
from mrcnn.data.annotations.problems import AnnotationError

NO_CATEGORY = 1  # the class id when the file has no categories


class Categories:
    """The categories of one file, by id, and the classes that a dataset makes of them.

    Args:
        dataset: gets the classes, the skeleton and the problems.
        source: the source's name in the dataset.
        unread: collects fields that are not used.
    """

    def __init__(self, dataset: AnnotatedDataset, source: str, unread: Unread) -> None:
        self.dataset, self.source, self.file, self.unread = dataset, source, dataset.file, unread
        self.by_id: dict[Any, dict] = {}

    def entry(self, record: dict, name: str, number: int | str) -> dict[str, Any]:
        """The fields of a category that are used."""
        title = record.get("name")
        if type(title) in (int, float):
            title = str(title)
        if not isinstance(title, str) or not title:
            self.unread.add("category", name, "name", f"expected a string, got {shown(title)}", "named by its id")
            title = f"class {number}"
        above = record.get("supercategory")
        entry = {"name": title, "above": above if isinstance(above, str) else "", "place": name}
        return entry | {key: record[key] for key in ("keypoints", "skeleton") if record.get(key)}

    def name(self, key: Any) -> str:
        """The name of a category; "" for an unknown one."""
        return self.by_id[key]["name"] if key in self.by_id else ""

    def drop_unused(self, used: Collection[Any]) -> None:
        """Removes categories whose ids are not among the `used` ones and that are not classes.

        Some tools write one for the root of their hierarchy, sometimes with the name of the only class; others
        write one for the background.
        """
        names = [category["name"] for category in self.by_id.values()]
        for key, category in list(self.by_id.items()):
            name = category["name"]
            others = [other for number, other in self.by_id.items() if number != key]
            root = key == 0 and category["above"] == "none" and all(other["above"] == name for other in others)
            double = names.count(name) > 1
            background = not is_class(name) or name.lower() in BACKGROUND_NAMES
            if key in used or not others or not (double or root or background):
                continue
            del self.by_id[key]
            names.remove(name)
            where = self.file, category["place"], "name"
            if double:
                message = f"another category has the name {name!r}, and no annotation uses this one"
                self.dataset.problems.noted(problems.CLASH, *where, message, "the other one is used")
            else:
                message = f"no annotation uses {name!r}, the {'root' if root else 'background'}"
                self.dataset.problems.noted(problems.NOT_A_CLASS, *where, message, "not a class")

    def classes(
        self, used: Collection[Any], class_name: str | None, class_names: Sequence[str] | None
    ) -> dict[Any, int | None]:
        """Adds the classes and returns class ids by category; None: not read."""
        if not self.by_id:
            return self._unnamed(used, class_name, class_names)
        ids: dict[str, int] = {}
        numbers: dict[Any, int | None] = {}
        free = max(filter(_is_int, self.by_id), default=0)
        for key, category in self.by_id.items():
            name = category["name"]
            if not is_class(name):
                numbers[key] = None
            elif name not in ids:
                free += isinstance(key, str)
                ids[name] = numbers[key] = free if isinstance(key, str) else key
            elif self._is_same(name, category):
                numbers[key] = ids[name]
            else:
                message = (
                    f"another category has the name {name!r}, and classes are identified by name; rename one, "
                    "or move its annotations to the other"
                )
                where = self.file, category["place"], "name", message
                self.dataset.problems.broken(*where, problems.CLASH, images=0, instances=0)
        by_id = sorted(ids, key=lambda name: ids[name])
        chosen = class_table((), by_id if class_names is None else class_names)
        if unknown := [name for name in chosen if name not in ids]:
            raise AnnotationError(self.file, "", "categories", f"no classes {unknown}; known: {sorted(ids)}")
        for name in chosen:  # not add_class, which forbids id 0: many tools number their categories from 0
            self.dataset.class_info.append({"source": self.source, "id": ids[name], "name": name})
        return {key: None if number not in map(ids.get, chosen) else number for key, number in numbers.items()}

    def _is_same(self, name: str, category: dict) -> bool:
        """Whether two categories of one name are the same class, that is, have the same supercategory."""
        first = next(other for other in self.by_id.values() if other["name"] == name)
        if not category["above"] or first["above"] != category["above"]:
            return False
        message = f"{first['place']} has the name {name!r} and the same supercategory"
        self.dataset.problems.noted(problems.CLASH, self.file, category["place"], "name", message, "read as one class")
        return True

    def _unnamed(
        self, used: Collection[Any], class_name: str | None, class_names: Sequence[str] | None
    ) -> dict[Any, int | None]:
        """The classes of a file without categories: a single one, or one per category id, named after it."""
        names = {key: f"class {key}" for key in sorted(used, key=lambda key: (isinstance(key, str), key))}
        if class_name is not None or not names or (class_names is not None and len(class_names) == 1):
            names = {None: only_name(class_name, class_names)}
        chosen = class_table((), list(names.values()) if class_names is None else class_names)
        ids = {name: number for number, name in enumerate(names.values(), NO_CATEGORY)}
        if unknown := [name for name in chosen if name not in ids]:
            raise AnnotationError(self.file, "", "categories", f"no classes {unknown}; known: {sorted(ids)}")
        for name in chosen:
            self.dataset.add_class(self.source, ids[name], name)
        message, treatment = "the file has no categories", f"classes are {chosen}; class_name= names a single one"
        self.dataset.problems.noted(problems.UNREAD, self.file, "", "categories", message, treatment)
        if None in names:
            return dict.fromkeys((*used, None), NO_CATEGORY)
        return {key: ids[name] if name in chosen else None for key, name in names.items()}

    def read_skeleton(self, numbers: dict[Any, int | None]) -> None:
        """The keypoints of the categories that are read; all that have any must have the same."""
        read = [category for key, category in self.by_id.items() if numbers.get(key) and "keypoints" in category]
        for category in read:
            try:
                skeleton = skeleton_of(category)
            except ValueError as error:
                self.unread.add("category", category["place"], "keypoints", str(error), "no keypoints are read of it")
                continue
            if self.dataset.skeleton not in (None, skeleton):
                message = (
                    f"its keypoints {shown(category['keypoints'])} are others than those of {read[0]['name']!r}; read "
                    "one of them, by class_names="
                )
                where = self.file, category["place"], "keypoints", message, problems.CLASH
                self.dataset.problems.broken(*where, images=0, instances=0)
                continue
            self.dataset.skeleton = skeleton


def _is_int(value: Any) -> bool:
    return isinstance(value, int)
