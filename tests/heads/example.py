"""A head that uses every part of the protocol, and small enough for tests."""

import keras
from keras import layers, ops

import heads


class Everything(heads.Head):
    """Reads every input, has two outputs besides its masks and two losses, infers at another size, and rescores."""

    fine_size = 8
    source_masks = True
    train_on_predicted_boxes = True

    def __init__(self, input_shape, num_classes, *, filters=8):
        super().__init__(input_shape, num_classes)
        self.body = layers.Conv2D(filters, 3, padding="same", activation="relu")
        self.edges = layers.Conv2D(1, 3, padding="same", activation="sigmoid", dtype="float32")
        self.masks = layers.Conv2D(num_classes, 1, activation="sigmoid", dtype="float32")
        self.quality = layers.Dense(1, activation="sigmoid", dtype="float32")

    def body_of(self, features, fine, pyramid, boxes, image_index):
        points = heads.SampleMap(self.strides[0], side=8)(pyramid[0], boxes, image_index)
        points = layers.Reshape((8, 8, self.input_shape[-1]))(points)
        return self.body(layers.Concatenate()([features, fine, points]))

    def call(self, features, fine, pyramid, boxes, class_ids, image_index, seed):
        x = self.body_of(features, fine, pyramid, boxes, image_index)
        own = layers.Embedding(self.num_classes, 2, dtype="float32")(class_ids)
        noise = 0.0 * ops.cast(seed, "float32")[:, None]
        quality = self.quality(layers.Concatenate()([layers.GlobalAveragePooling2D(dtype="float32")(x), own, noise]))
        return {"masks": self.masks(x), "edges": self.edges(x), "quality": quality}

    def infer(self, features, fine, pyramid, boxes, image_index):
        x = self.body_of(features, fine, pyramid, boxes, image_index)
        masks = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")(self.masks(x))
        return {"masks": masks, "certainty": ops.mean(ops.abs(masks - 0.5), axis=(1, 2, 3))}

    def loss(self, outputs, targets):
        edges = heads.cross_entropy(targets.boundary(8), outputs["edges"][..., 0])
        quality = ops.square(outputs["quality"][:, 0] - targets.area_ratio())
        own = {"edge_loss": targets.total(edges), "quality_loss": targets.total(quality)}
        return super().loss(outputs, targets) | own

    def rescore(self, outputs, scores, class_ids):
        return scores * outputs["certainty"] * 2.0


def features(rois, side=8, channels=8, seed=0):
    return keras.random.normal((rois, side, side, channels), seed=seed)
