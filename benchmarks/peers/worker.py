"""What every program of `against_peers.py` shares: it builds once, then makes one call whenever it is told to.

The peers' own interpreters import this, from Python 3.7 on, with NumPy alone. Requests and answers are json lines on
stdin and stdout: {"do": "start"}, {"do": "call"}, {"do": "found"}.
"""

import json
import os
import resource
import sys
import time

import numpy as np


class Job:
    """What a program measures.

    Args:
        call: one call of the work; its result goes to `found` and `apart`.
        found: says of a result how much was found, as a dict for json.
        apart: work by name that others do inside their call; each function is timed after a call, on its result.
        note: how the program was set, where that is not plain.
    """

    def __init__(self, call, found, apart=None, note=""):
        self.call, self.found, self.apart, self.note = call, found, apart or {}, note


def serve(load, build):
    """Answers until the program that started this one closes its end.

    load(case): imports the program, sets its threads, returns its version as text.
    build(case): makes the Job. `case` is the json of the first argument.
    """
    case = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else prints, C++ too, goes to the errors
    use_cores(case["threads"])
    state = {}
    for line in sys.stdin:
        answer = globals()["_" + json.loads(line)["do"]](state, case, load, build)
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _start(state, case, load, build):
    version = load(case)
    imported = peak_mb()
    start = time.perf_counter()
    state["job"] = build(case)
    built = time.perf_counter()
    state["result"] = state["job"].call()
    return {
        "version": version,
        "imported_mb": imported,
        "build_s": built - start,
        "first_s": time.perf_counter() - built,
        "note": state["job"].note,
    }


def _call(state, case, load, build):
    state["result"] = None  # as in a loop over photographs: the last one's masks are gone
    wall, cpu = time.perf_counter(), time.process_time()
    state["result"] = state["job"].call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": wall,
        "cpu_s": cpu,
        "peak_mb": peak_mb(),
        "apart_s": {name: seconds(lambda w=work: w(state["result"])) for name, work in state["job"].apart.items()},
    }


def _found(state, case, load, build):
    return state["job"].found(state["result"])


def seconds(call):
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def use_cores(count):
    """Keeps this process, and the threads of all its libraries, on the first `count` cores it may use."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def peak_mb():
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def resized(case):
    """(height, width) that the photographs have in the network, before any padding."""
    height, width = case["height"], case["width"]
    scale = min(case["min_dim"] / min(height, width), case["max_dim"] / max(height, width))
    return int(round(height * scale)), int(round(width * scale))


def photographs(case, size=None):
    """uint8 [height, width, 3] each: noise over waves, since speed does not depend on what is seen."""
    height, width = size or (case["height"], case["width"])
    rng = np.random.RandomState(0)
    waves = 127 + 80 * np.sin(np.arange(height)[:, None, None] / 17 + np.arange(width)[None, :, None] / 23)
    return [
        np.clip(waves + rng.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8) for _ in range(case["batch"])
    ]


def instances(case, size, seed=0):
    """Ellipses to learn from: boxes [n, (y1, x1, y2, x2)] int32 in pixels, class_ids [n] int32 from 1 on, masks
    [n, height, width] uint8. Sides are 1/4 to 1/2 of the photograph's: so many anchors overlap them that there are
    positive RoIs enough."""
    rng = np.random.RandomState(seed)
    count, (height, width) = case["instances"], size
    sides = np.stack([rng.randint(side // 4, side // 2 + 1, count) for side in size], axis=1)
    corners = np.stack([rng.randint(0, side - sides[:, axis] + 1) for axis, side in enumerate(size)], axis=1)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.int32)
    center, radius = (corners + sides / 2)[..., None, None], (sides / 2)[..., None, None]
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    inside = ((y - center[:, 0]) / radius[:, 0]) ** 2 + ((x - center[:, 1]) / radius[:, 1]) ** 2 <= 1
    return boxes, rng.randint(1, case["classes"], count).astype(np.int32), inside.astype(np.uint8)


def coco_batches(case, count=6):
    """Ids of learnable images of COCO: `count` batches of similar aspect ratio, from tall to wide."""
    content = json.loads(open(os.path.join(case["coco"], "annotations", "instances_train2017.json")).read())
    learnable = {a["image_id"] for a in content["annotations"] if not a["iscrowd"]}
    images = sorted(
        (i for i in content["images"] if i["id"] in learnable), key=lambda i: (i["width"] / i["height"], i["id"])
    )
    starts = np.linspace(0, len(images) - case["batch"], count).astype(int).tolist()
    return content, [[image["id"] for image in images[start : start + case["batch"]]] for start in starts]


def folder_calls(case):
    """Paths of the images of each call, for ever: two for the call of the start and two for the round that is not
    counted, then `images` of DIR/val2017 and DIR/train2017 in equal parts, a part a round."""
    paths = []
    for name in ("val2017", "train2017"):
        folder = os.path.join(case["coco"], name)
        paths += [os.path.join(folder, file) for file in sorted(os.listdir(folder)) if file.endswith(".jpg")]
    paths = paths[: case["images"]]
    bounds = np.linspace(0, len(paths), case["rounds"] + 1).astype(int).tolist()
    parts = [paths[bounds[i] : bounds[i + 1]] for i in range(case["rounds"])]
    yield paths[:2]
    yield paths[:2]
    while True:
        yield from parts


def generated(base, case):
    """The photographs and instances to learn from as a prepared dataset; `base`: the class Dataset of this package or
    of matterport's, which has the same methods."""
    size = resized(case)
    images = photographs(case, size)

    class Generated(base):
        def load_image(self, image_id):
            return images[image_id]

        def load_mask(self, image_id):
            _, class_ids, masks = instances(case, size, image_id)
            return masks.transpose(1, 2, 0).astype(bool), class_ids

    dataset = Generated()
    for i in range(1, case["classes"]):
        dataset.add_class("generated", i, f"class {i}")
    for i in range(len(images)):
        dataset.add_image("generated", i, path=None)
    dataset.prepare()
    return dataset
