"""Every registered mask head, and the same heads with options that change what they give, small enough for tests."""

import heads

# Fewer filters, where a head has many: the checks take as long as the arithmetic.
OPTIONS = {
    "boundary": {"filters": 16},
    "dct": {"filters": 16, "units": 64, "mask_size": 32, "frequencies": 8},
    "fcn": {"filters": 32},
    "keypoints": {"filters": 32, "convolutions": 2},
    "mask_scoring": {"of": {"name": "fcn", "filters": 16}, "filters": 16, "units": 32},
    "mlp": {"units": 64, "mask_size": 14},
    "pointrend": {"fc_units": 64, "convolution_filters": 16, "point_units": 32, "train_points": 64, "steps": 4},
    "unet": {"filters": 32},
}
VARIANTS = {
    "fcn, softmax": {"name": "fcn", "filters": 32, "activation": "softmax"},
    "fcn, class-agnostic": {"name": "fcn", "filters": 32, "class_agnostic": True},
    "unet, two levels": {"name": "unet", "filters": 16, "levels": 2},
}
NAMES = [*heads.names("mask"), *VARIANTS]
# Uses each part of the protocol: several inputs and losses, its own inference, predicted boxes, scores.
SCORED_POINTS = {
    "name": "mask_scoring",
    "of": {"name": "pointrend", **OPTIONS["pointrend"], "fc_units": 32, "steps": 3},
    "filters": 8,
    "units": 16,
}


def small(name):
    """What MASK_HEAD takes, for a name of NAMES."""
    return VARIANTS.get(name) or {"name": name, **OPTIONS.get(name, {})}


def side(name):
    """Cells per side of features that suit the head."""
    return 8 if VARIANTS.get(name, {}).get("levels") else 14
