"""Detections beside those that TensorFlow gave on a processor, stored here, with generated weights and images.

KERAS_BACKEND=tensorflow python -m accelerators.correctness resnet50    # in benchmarks/: stores them anew
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SIZES = {"resnet50": (256, 320), "small": (128, 160)}
NEAR = 2.0  # pixels: corners of partners are at most so far apart
STORED = 30  # detections of an image


def detections(outputs: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """boxes, class_ids, scores and masks of each image of the inference graph's outputs, without padding rows."""
    raw = {name: np.asarray(value) for name, value in outputs.items()}
    valid = raw["valid"].astype(bool)
    masks = raw["masks"][valid.reshape(-1)] if len(raw["masks"]) == valid.size else raw["masks"]
    ends = np.cumsum(valid.sum(axis=1))
    return [
        {name: raw[name][i][valid[i]] for name in ("boxes", "class_ids", "scores")}
        | {"masks": masks[end - valid[i].sum() : end]}
        for i, end in enumerate(ends)
    ]


def differences(found: dict[str, np.ndarray], stored: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of the stored detections with a partner (the same class, corners within NEAR), and the partners' largest
    differences: of corners in pixels, of scores, of mask probabilities."""
    pairs, used = [], set()
    for i, (box, class_id) in enumerate(zip(stored["boxes"], stored["class_ids"], strict=True)):
        apart = np.abs(found["boxes"] - box).max(axis=1, initial=0)
        near = [
            j for j in np.argsort(apart) if apart[j] <= NEAR and found["class_ids"][j] == class_id and j not in used
        ]
        if near:
            used.add(near[0])
            pairs.append((i, near[0]))
    rows, others = np.array(pairs, int).reshape(-1, 2).T
    masks = np.abs(found["masks"][others] - stored["masks"][rows] / np.float32(255))
    return {
        "partners": len(pairs) / len(stored["boxes"]),
        "boxes, px": float(np.abs(found["boxes"][others] - stored["boxes"][rows]).max(initial=0)),
        "scores": float(np.abs(found["scores"][others] - stored["scores"][rows]).max(initial=0)),
        "masks": float(masks.max(initial=0)),
        "masks, mean": float(masks.mean()) if masks.size else 0.0,
    }


def stored(network: str) -> dict[str, np.ndarray]:
    """The stored detections; masks are uint8, 255 for a probability of 1."""
    with np.load(HERE / f"{network}.npz") as file:
        return dict(file)


def check(network: str, precision: str, matmul: str | None) -> dict[str, float]:
    """`differences` of this machine's detections; `matmul`: JAX's precision of products, None for its default."""
    import jax

    from accelerators.detection import compiled
    from accelerators.networks import inputs

    given = inputs(1, *SIZES[network])
    with jax.default_matmul_precision(matmul):
        call, _, _ = compiled(network, precision, given, much=False)
        (found,) = detections(call(given))
    return differences(found, stored(network))


def store(network: str) -> None:
    """Writes what the backend that is set finds."""
    from accelerators.networks import inputs, seeded, settings
    from mrcnn.network.graph import inference_graph

    config = settings(network, precision="float32", batch=1)
    graph = inference_graph(seeded(config), config)
    (found,) = detections(graph.predict_on_batch(inputs(1, *SIZES[network])))
    print({name: (value.shape, value.std()) for name, value in found.items()}, found["scores"][:STORED])
    found["masks"] = np.rint(255 * found["masks"]).astype(np.uint8)
    np.savez_compressed(HERE / f"{network}.npz", **{name: value[:STORED] for name, value in found.items()})


if __name__ == "__main__":
    store(sys.argv[1])
