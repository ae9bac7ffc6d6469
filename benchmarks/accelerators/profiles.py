"""Where the time of a traced program goes."""

from typing import Any


def summed(data: Any, calls: int) -> dict[str, dict]:
    """Milliseconds a call by part of the network, and of the operations that take most.

    Parts are the first names of the scopes that Keras gives to layers, where the device's events carry them. Only
    events that name an operation of XLA count.

    Args:
        data: a `jax.profiler.ProfileData`.
        calls: how many calls it recorded.
    """
    parts: dict[str, float] = {}
    operations: dict[str, float] = {}
    planes = list(data.planes)
    on_device = [plane for plane in planes if plane.name.startswith("/device:") and "CUSTOM" not in plane.name]
    for plane in on_device or planes:
        for line in plane.lines:
            for event in line.events:
                facts = {str(name): value for name, value in event.stats}
                if "hlo_op" not in facts and "tf_op" not in facts:
                    continue
                ms = event.duration_ns / 1e6 / calls
                part = _part(str(facts.get("tf_op") or facts.get("name") or ""))
                parts[part] = parts.get(part, 0.0) + ms
                operations[event.name] = operations.get(event.name, 0.0) + ms
    return {"parts": _largest(parts, 20), "operations": _largest(operations, 20)}


def _part(scope: str) -> str:
    names = [name for name in scope.split("/") if name and not name.startswith(("jit(", "mask_rcnn"))]
    return names[0] if names else "other"


def _largest(found: dict[str, float], count: int) -> dict[str, float]:
    ordered = sorted(found.items(), key=lambda item: -item[1])[:count]
    return {name: round(ms, 4) for name, ms in ordered}
