"""Conventions of other Mask R-CNN programs, so that their weights give their results, as `Config` subclasses.

Only structural differences are here; the importers in `mrcnn.weights` normalize everything linear.
Sources: the configuration of each program (matterport 3deaec5, torchvision 0.28, Detectron2 0.6).
"""

from typing import Any

from mrcnn.config import Config


class Matterport(Config):
    """The old TF1 package: 1024x1024 network inputs and its RPN, RoIAlign, sampling and schedule."""

    BACKBONE_STRIDE_IN_1X1 = True
    BACKBONE_STEM_PADDING = "same"
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MAX_DIM = 1024
    IMAGE_ANTIALIAS = False
    IMAGE_RESIZER = "skimage"
    IMAGE_PAD_PIXEL = (0, 0, 0)
    SIZE_DIVISOR = 64
    MEAN_PIXEL = (123.7, 116.8, 103.9)
    PIXEL_STD = (1.0, 1.0, 1.0)
    CHANNEL_ORDER = "rgb"
    RPN_CHANNELS = 512
    RPN_BBOX_STD_DEV = [0.1, 0.1, 0.2, 0.2]
    RPN_ANCHOR_RATIO_MEANING = "width/height"
    BOXES_INCLUSIVE = True
    RPN_PER_LEVEL = False
    PRE_NMS_LIMIT_TRAINING = 6000
    PRE_NMS_LIMIT = 6000
    RPN_CLIP_TO_PHOTOGRAPH = False
    RPN_MIN_SIZE = 0
    DETECTION_MIN_SIZE = 0
    DETECTION_ROUND_BOXES = True
    TRAIN_ROIS_PER_IMAGE = 200
    ROI_POSITIVE_RATIO = 0.33
    ROI_ADD_GROUND_TRUTH = False
    ROI_GEOMETRY = "crop"
    ROI_LEVEL_ROUNDING = "round"
    MINI_MASK_SHAPE = (56, 56)
    DETECTION_MIN_CONFIDENCE = 0.7
    DETECTION_NMS_THRESHOLD = 0.3
    DETECTION_BEST_CLASS_ONLY = True
    RPN_BBOX_LOSS_BETA = 1.0
    BBOX_LOSS_BETA = 1.0
    BBOX_LOSS_AVERAGE = "positives"
    LEARNING_RATE = 0.001
    WARMUP_STEPS = 0
    LR_SCHEDULE = "constant"
    HORIZONTAL_FLIP = 0.0


class Torchvision(Config):
    """`torchvision.models.detection.maskrcnn_resnet50_fpn`, whose classes keep COCO's own ids."""

    BACKBONE = "resnet50"
    NUM_CLASSES = 91
    IMAGE_ANTIALIAS = False
    RPN_ANCHOR_ROUNDED = True
    RPN_ANCHOR_STEP_FROM_SIZE = True
    ROI_ALIGNED = False
    GRADIENT_CLIP_NORM = None


class TorchvisionV2(Torchvision):
    """`torchvision.models.detection.maskrcnn_resnet50_fpn_v2` (Li et al. 2021, arXiv 2111.11429)."""

    RPN_CONVOLUTIONS = 2
    BOX_HEAD_CONVOLUTIONS = 4
    BOX_HEAD_FC_LAYERS = 1


class TorchvisionKeypoints(Torchvision):
    """`torchvision.models.detection.keypointrcnn_resnet50_fpn`: people with their keypoints."""

    NUM_CLASSES = 2
    MASK_HEAD = None
    KEYPOINT_HEAD = "keypoints"


class Detectron2(Config):
    """Detectron2's `mask_rcnn_R_50_FPN_3x`, and `mask_rcnn_R_101_FPN_3x` with BACKBONE = "resnet101"."""

    BACKBONE = "resnet50"
    BACKBONE_STRIDE_IN_1X1 = True
    NUM_CLASSES = 81
    IMAGE_RESIZER = "pillow"
    MEAN_PIXEL = (123.675, 116.28, 103.53)
    PIXEL_STD = (1.0, 1.0, 1.0)
    CHANNEL_ORDER = "bgr"
    ROI_SAMPLING_RATIO = 0
    RPN_MIN_SIZE = 1e-30  # drops only boxes without area
    DETECTION_MIN_SIZE = 1e-30
    RPN_BBOX_LOSS_BETA = 0.0
    BBOX_LOSS_BETA = 0.0
    GRADIENT_CLIP_NORM = None


class Detectron2Keypoints(Detectron2):
    """Detectron2's `keypoint_rcnn_R_50_FPN_3x` and its R101 and X101 twins: people with their keypoints."""

    NUM_CLASSES = 2
    MASK_HEAD = None
    KEYPOINT_HEAD = "keypoints"
    POST_NMS_ROIS_TRAINING = 1500
    BBOX_LOSS_BETA = 0.5  # with plain L1 keypoint AP is lower (Base-Keypoint-RCNN-FPN.yaml)


class Detectron2C4(Detectron2):
    """Detectron2's `mask_rcnn_R_50_C4_3x`, the paper's ResNet-C4: the heads share stage 5."""

    NECK = "c4"
    BACKBONE_STRIDES = [16]
    POOL_SIZE = 14
    BOX_HEAD_FC_LAYERS = 0
    RPN_CHANNELS = 1024
    PRE_NMS_LIMIT_TRAINING = 12000
    PRE_NMS_LIMIT = 6000
    MASK_HEAD = {"name": "fcn", "convolutions": 0}


class Detectron2DC5(Detectron2):
    """Detectron2's `mask_rcnn_R_50_DC5_3x`: a single feature map from a dilated stage 5 at stride 16."""

    NECK = "dc5"
    BACKBONE_STRIDES = [16]
    RPN_CHANNELS = 2048
    PRE_NMS_LIMIT_TRAINING = 12000
    PRE_NMS_LIMIT = 6000


def settings_of(preset: type[Config]) -> dict[str, Any]:
    """The settings that a preset and its base presets define."""
    said: dict[str, Any] = {}
    for base in reversed(preset.__mro__):
        if issubclass(base, Config) and base is not Config:
            said |= {name: value for name, value in vars(base).items() if name.isupper()}
    return said
