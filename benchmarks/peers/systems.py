"""The paper's systems that benchmarks measure, as settings of this package."""

# C4 and DC5 are Detectron2's, C4 with the paper's 300 proposals.
SINGLE = {"BACKBONE_STRIDES": [16], "PRE_NMS_LIMIT_TRAINING": 12000, "PRE_NMS_LIMIT": 6000}
SYSTEMS = {
    "fpn": {},
    "c4": {
        **SINGLE,
        "NECK": "c4",
        "POOL_SIZE": 14,
        "BOX_HEAD_FC_LAYERS": 0,
        "RPN_CHANNELS": 1024,
        "POST_NMS_ROIS_INFERENCE": 300,
        "MASK_HEAD": {"name": "fcn", "convolutions": 0},
    },
    "dc5": {**SINGLE, "NECK": "dc5", "RPN_CHANNELS": 2048},
    "keypoints": {"KEYPOINT_HEAD": "keypoints", "MASK_HEAD": None, "NUM_CLASSES": 2},
}
