"""Report: the findings of a dataset check, as text and as JSON."""

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import LEFT_OUT, Problem
from mrcnn.data.check.statistics import Statistics
from mrcnn.files import write_atomically

RAISES = "raises in training"
AS_IS = "used as is"

BOX = "box that does not match its mask"
SAME_MASK = "one mask with two classes"
CROWDED = "more instances than training uses"
LISTED_TWICE = "image listed twice"
SAME_IMAGE = "same image in two files"
TINY = "tiny image"
UNUSED = "class without instances"

WAYS_OUT = {
    problems.BROKEN: "correct the record, or export the annotations again; strict=False skips it",
    problems.MISSING: "copy the file there, or pass the right image folder",
    problems.UNREADABLE: "fetch, copy or export the file again",
    problems.SIZE: "annotate the existing file, or restore the annotated one",
    problems.CLASH: "give each record a unique id or name; of two, the first is used",
    problems.DEGENERATE: "delete these clicks in the annotation tool, or finish the polygons",
    problems.EMPTY: "delete them, or redraw them over at least one pixel center",
    problems.OUTSIDE: "check that the annotations belong to this image at its current size",
    problems.PARTLY_OUTSIDE: "nothing, if it is a few pixels; else check that the image was not resized or cropped",
    problems.SELF_CROSSING: "look at them: points in the wrong order do not enclose the object",
    problems.DUPLICATE: "delete one of the two; training uses both, and evaluation counts one of them as missed",
    problems.SMALL: "delete them if they are accidental clicks",
    problems.UNANNOTATED: "ALLOW_EMPTY_IMAGES = True trains on them as background; evaluation always counts them",
    problems.TAGGED: "compare an outline with its image: upright=False reads such images as stored, upright=True "
    "rotates them without this note",
    problems.BOXES_ONLY: "draw masks, or read only boxes with masks=False, for a model with MASK_HEAD = None",
    problems.NOT_A_CLASS: "nothing, unless objects were drawn with this label",
    problems.UNREAD: "nothing, unless one of your programs needs these fields",
    problems.FOUND: "nothing, if these are the right images; else pass their folder as image_dir=",
    BOX: "correct the box, or remove the boxes from the file: they are then computed from the masks",
    SAME_MASK: "decide which class it is",
    CROWDED: "raise MAX_GT_INSTANCES (and DETECTION_MAX_INSTANCES), or cut the images into tiles",
    LISTED_TWICE: "merge the records: instances in only one of them are background in the other",
    SAME_IMAGE: "delete one; never use one for training and the other for validation",
    TINY: "check that these are not icons or thumbnails",
    UNUSED: "annotate some instances, or leave the class out with class_names",
}


class Place(NamedTuple):
    """The location of a finding. box: (y1, x1, y2, x2) of the instance; None for the whole image."""

    image_id: int
    box: tuple[int, int, int, int] | None


@dataclasses.dataclass(frozen=True)
class Report:
    """The findings of a check; `print(report)` shows the text.

    name: of the dataset. statistics: of the readable images and instances. findings: all, in the order they were
    found. records: how many "images", "instances" and "others" of the file are "used", "raises in training" and
    "left out". checked: number of images checked, out of `images`. decoded: whether their pixels were checked.
    examples: number shown of each kind. places: locations of the findings in images.
    """

    name: str
    statistics: Statistics
    findings: Sequence[Problem]
    records: dict[str, dict[str, int]]
    checked: int
    images: int
    decoded: bool
    seconds: float
    examples: int = 3
    places: Mapping[Problem, Place] = dataclasses.field(default_factory=dict)

    @property
    def broken(self) -> list[Problem]:
        """The findings for which a record had to be left out or training would stop."""
        return [problem for problem in self.findings if is_broken(problem)]

    def counts(self) -> dict[str, int]:
        """Findings by kind, broken ones first."""
        counts: dict[str, int] = defaultdict(int)
        for (kind, _), found in self.groups().items():
            counts[kind] += len(found)
        return dict(counts)

    def groups(self) -> dict[tuple[str, str], list[Problem]]:
        """The findings by (kind, treatment), broken ones first, then by frequency."""
        groups = defaultdict(list)
        for problem in self.findings:
            groups[problem.kind, problem.treatment].append(problem)
        return dict(sorted(groups.items(), key=lambda item: (not is_broken(item[1][0]), -len(item[1]))))

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON, with all findings rather than only the examples."""
        return {
            "name": self.name,
            "checked_images": self.checked,
            "images_in_dataset": self.images,
            "decoded": self.decoded,
            "seconds": round(self.seconds, 3),
            "broken": len(self.broken),
            "records": self.records,
            "statistics": self.statistics.as_dict(),
            "findings": [
                {
                    "kind": kind,
                    "treatment": treatment,
                    "count": len(found),
                    "broken": is_broken(found[0]),
                    "way_out": WAYS_OUT.get(kind, ""),
                    "records": [{k: getattr(p, k) for k in ("file", "record", "field", "message")} for p in found],
                }
                for (kind, treatment), found in self.groups().items()
            ],
        }

    def save(self, path: str | os.PathLike) -> None:
        """Writes `as_dict` as JSON, completely or not at all."""
        write_atomically(Path(path), json.dumps(self.as_dict(), indent=1))

    def __str__(self) -> str:
        findings = [self._group_text(*key, found) for key, found in self.groups().items()]
        legend = ["Findings (!: left out, or raises in training; -: worth a look)"] if findings else []
        return "\n\n".join([self._head(), str(self.statistics), *legend, *findings, self.verdict()])

    def _head(self) -> str:
        part = f"the first {self.checked:,} of {self.images:,} images, " if self.checked < self.images else ""
        pixels = "" if self.decoded else "; image pixels were not checked (use --images)"
        kinds = [what for what, count in self.records[LEFT_OUT].items() if count or what != "others"]
        lines = [
            f"{self.name}: {part}checked in {self.seconds:.1f} s{pixels}",
            "",
            " " * 20 + "".join(f"{what:>12}" for what in kinds),
        ]
        lines += [
            f"{treatment:20}" + "".join(f"{counts[what]:12,}" for what in kinds)
            for treatment, counts in self.records.items()
        ]
        return "\n".join(lines)

    def _group_text(self, kind: str, treatment: str, found: list[Problem]) -> str:
        mark = "!" if is_broken(found[0]) else "-"
        lines = [f"{mark} {len(found):,} x {kind}: {treatment}"]
        lines += [f"    {self._where(problem)}: {problem.message}" for problem in found[: self.examples]]
        if len(found) > self.examples:
            lines.append(f"    ... and {len(found) - self.examples:,} more")
        if kind in WAYS_OUT:
            lines.append(f"    What to do: {WAYS_OUT[kind]}.")
        return "\n".join(lines)

    def _where(self, problem: Problem) -> str:
        """The location of a problem; the file is named if it is not the one in the headline."""
        file = "" if problem.file == self.name else problem.file
        return ", ".join(filter(None, [file, problem.record, problem.field])) or self.name

    def verdict(self) -> str:
        """The result as a sentence."""
        if not self.findings:
            return "Nothing found."
        left_out = sum(problem.treatment == LEFT_OUT for problem in self.findings)
        raising = len(self.broken) - left_out
        said = [
            f"{left_out:,} record{'s' * (left_out > 1)} had to be left out" * bool(left_out),
            f"{raising:,} would stop training" * bool(raising),
        ]
        count = len(self.findings)
        total = f"{count:,} finding{'s' * (count != 1)} in total"
        return f"{' and '.join(filter(None, said)) or 'Nothing is broken'}; {total}."


def is_broken(problem: Problem) -> bool:
    """Whether a record had to be left out, or training would stop at it."""
    return problem.treatment in (LEFT_OUT, RAISES)
