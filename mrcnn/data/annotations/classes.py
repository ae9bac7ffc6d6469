"""Class names, for formats that name or number their classes."""

from collections.abc import Iterable, Mapping, Sequence

from mrcnn.data.annotations.annotated import AnnotatedDataset

Labels = Mapping[int, str] | Sequence[str]
NO_CLASSES = ("_background_", "__background__", "__ignore__", "_ignore_")  # labels that tools write for non-objects
BACKGROUND_NAMES = ("background", "bg")  # treated as classes only if an instance has them


class Classes:
    """The classes 1, 2, ... of a dataset, looked up by name.

    Args:
        dataset: receives the classes.
        found: the names in the annotations.
        class_names: the classes, in this order; None: those found, sorted.
    """

    def __init__(
        self, dataset: AnnotatedDataset, source: str, found: Iterable[str], class_names: Sequence[str] | None
    ) -> None:
        self.names, self._problems = class_table(found, class_names), dataset.problems
        self._numbers = {name: number for number, name in enumerate(self.names, 1)}
        for number, name in enumerate(self.names, 1):
            dataset.add_class(source, number, name)

    def number(self, name: str, file: str, record: str, field: str) -> int | None:
        """The class id of a name; None, and an error, if it is not one of the classes."""
        if name not in self._numbers:
            self._problems.broken(
                file,
                record,
                field,
                f"class {name!r} is not among {self.names}; add it to class_names or correct it",
                images=0,
                instances=1,
            )
        return self._numbers.get(name)


def is_class(name: str) -> bool:
    """Whether a label names a class, rather than the background or an ignored region."""
    return name not in NO_CLASSES


def numbered(labels: Labels | None) -> dict[int, str]:
    """Class names by the number used in the annotations; a sequence names 1, 2, ..."""
    if labels is None:
        return {}
    if isinstance(labels, str) or not isinstance(labels, (Mapping, Sequence)):
        raise TypeError(
            f"labels must be a dict of names by number, or a list of the names of 1, 2, ...; got {labels!r}"
        )
    return dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels, 1))


def only_name(class_name: str | None, class_names: Sequence[str] | None) -> str:
    """The class of instances without one: `class_name`, else the only entry of `class_names`, else "object"."""
    if class_name is not None:
        return class_name
    return class_names[0] if class_names is not None and len(class_names) == 1 else "object"


def class_table(found: Iterable[str], class_names: Sequence[str] | None) -> list[str]:
    """The names of classes 1, 2, ...: the given ones, or those found, sorted."""
    names = sorted(set(found)) if class_names is None else list(class_names)
    if len(set(names)) != len(names):
        raise ValueError(f"duplicate class names in {names}; list each class once")
    return names
