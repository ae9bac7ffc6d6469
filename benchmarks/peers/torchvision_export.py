"""Writes torchvision's Mask R-CNN as ONNX, without its mask pasting, for `engine_peer.py`: a Python with torchvision
and onnx runs it, with the case as json and the file as arguments.

As in `torchvision_peer.py`, the last layers are set so that each photograph gives 100 objects. The size of the input is
fixed, which the engines prefer. Outputs: boxes [n, (x1, y1, x2, y2)] in pixels of the network's input, labels, scores,
masks [n, 1, 28, 28].
"""

import json
import sys

import torch
import torchvision_peer
import worker


class WithoutPasting(torch.nn.Module):
    """From one image [1, 3, height, width] in 0..1 to boxes, labels, scores and masks as the heads give them."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        model.transform.postprocess = lambda result, image_shapes, original_sizes: result

    def forward(self, image):
        found = self.model([image[0]])[0]
        return found["boxes"], found["labels"], found["scores"], found["masks"]


def main():
    """Exports."""
    case, path = json.loads(sys.argv[1]), sys.argv[2]
    model = torchvision_peer.network(dict(case, work="detect")).to(memory_format=torch.contiguous_format)
    torchvision_peer.find_much(model)
    model.eval()
    image = torch.from_numpy(worker.photographs(case)[0]).permute(2, 0, 1).float()[None] / 255
    torch.onnx.export(
        WithoutPasting(model).eval(),
        (image,),
        path,
        input_names=["image"],
        output_names=["boxes", "labels", "scores", "masks"],
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    main()
