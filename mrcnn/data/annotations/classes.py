"""Names of classes, where a format says them itself or numbers them."""

from collections.abc import Iterable, Mapping, Sequence

from mrcnn.data.annotations.annotated import AnnotatedDataset

Labels = Mapping[int, str] | Sequence[str]
NO_CLASSES = (
    "_background_",
    "__background__",
    "__ignore__",
    "_ignore_",
)  # labels that tools write for what is no object
BACKGROUND_NAMES = ("background", "bg")  # are classes where something is annotated with them


class Classes:
    """The classes 1, 2, ... of a dataset, looked up by name.

    Args:
        dataset: they are added to it.
        found: the names that the annotations hold.
        class_names: the classes to have, in this order; None: those found, sorted.
    """

    def __init__(
        self, dataset: AnnotatedDataset, source: str, found: Iterable[str], class_names: Sequence[str] | None
    ) -> None:
        self.names, self._problems = class_table(found, class_names), dataset.problems
        self._numbers = {name: number for number, name in enumerate(self.names, 1)}
        for number, name in enumerate(self.names, 1):
            dataset.add_class(source, number, name)

    def number(self, name: str, file: str, record: str, field: str) -> int | None:
        """The class id of a name; a broken record, and None, when it is not among them."""
        if name not in self._numbers:
            self._problems.broken(
                file,
                record,
                field,
                f"the class {name!r} is not among {self.names}; add it to class_names, or correct it",
                images=0,
                instances=1,
            )
        return self._numbers.get(name)


def is_class(name: str) -> bool:
    """Whether a label names a class, rather than the background or what is to be ignored."""
    return name not in NO_CLASSES


def numbered(labels: Labels | None) -> dict[int, str]:
    """Names by the numbers that stand for them in the annotations; a sequence names 1, 2, ..."""
    if labels is None:
        return {}
    if isinstance(labels, str) or not isinstance(labels, (Mapping, Sequence)):
        raise TypeError(f"labels are a dict of numbers and names, or a list of the names of 1, 2, ...; got {labels!r}")
    return dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels, 1))


def only_name(class_name: str | None, class_names: Sequence[str] | None) -> str:
    """The class of what the annotations give no class: `class_name`, else the only one of `class_names`, or object."""
    if class_name is not None:
        return class_name
    return class_names[0] if class_names is not None and len(class_names) == 1 else "object"


def class_table(found: Iterable[str], class_names: Sequence[str] | None) -> list[str]:
    """The names of the classes 1, 2, ...: those given, or those found, sorted."""
    names = sorted(set(found)) if class_names is None else list(class_names)
    if len(set(names)) != len(names):
        raise ValueError(f"class names {names} repeat; give each class once")
    return names
