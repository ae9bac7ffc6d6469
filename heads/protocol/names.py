"""Names of a head's layers in the files of other programs.

`Head.weight_names` maps a program to a dict of "layer", or "model/layer" inside a head, to the name of that layer in
the program's files, without the prefix of its mask head ("roi_heads.mask_head." in Detectron2) and without ".weight".
Kernels are brought into Keras's layout by their rank. A dense layer that reads or gives a flattened map is an
`Imported`, with the size of the map: torch flattens channels first, Keras channels last.
"""

from typing import NamedTuple


class Imported(NamedTuple):
    """A layer in a file.

    name: without ".weight". inputs_side, outputs_side: cells per side of the map that is flattened before a dense
    layer, or that is made of its outputs; None where there is none.
    """

    name: str
    inputs_side: int | None = None
    outputs_side: int | None = None
