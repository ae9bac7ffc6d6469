"""Keras's private names: each does what the package needs, and no other file of the package uses one.

Run on the oldest Keras that is allowed, too: `make test-oldest`.
"""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.ops.keras_internals import Built, OwnReduction, all_layers, node_of, nodes_of, replace_layers

ROOT = Path(__file__).resolve().parents[2]


def chain():
    image = keras.Input((4, 4, 2), name="image")
    x = layers.Conv2D(3, 1, name="a")(image)
    return keras.Model(image, layers.Add(name="c")([x, layers.ReLU(name="b")(x)]))


def test_nodes_come_in_the_order_of_computation():
    model = chain()
    nodes = nodes_of(model)
    assert [node.operation.name for node in nodes] == ["image", "a", "b", "c"]
    assert [node.is_input for node in nodes] == [True, False, False, False]
    assert node_of(model.output) is nodes[-1]
    assert [node_of(tensor).operation.name for tensor in nodes[-1].input_tensors] == ["a", "b"]
    assert nodes[-1].outputs[0] is model.output


def test_a_layer_called_twice_has_a_node_for_each_call():
    layer = layers.Dense(2)
    first, second = layer(keras.Input((2,))), layer(keras.Input((2,)))
    assert node_of(first).outputs[0] is first and node_of(second).outputs[0] is second


def test_all_layers_reach_inside():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="deep")])
    model = keras.Sequential([keras.Input((2,)), inner, layers.Dense(1, name="flat")])
    names = [layer.name for layer in all_layers(model)]
    assert {"deep", "flat", inner.name, model.name} <= set(names)
    assert model not in all_layers(model, include_self=False)


def test_layers_inside_a_built_one_are_replaced():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.rest, self.fixed = layers.Dense(2), [layers.Dense(2)], (layers.ReLU(), 3)

        def call(self, x):
            return self.rest[0](self.first(x))

    block = Block()
    block(np.ones((1, 2)))
    new = {layer: layers.Activation("relu") for layer in (block.first, block.rest[0])}
    replace_layers(block, lambda layer: new.get(layer, layer))
    assert {block.first, block.rest[0]} == set(new.values())
    assert set(new.values()) <= set(all_layers(block)) and not set(new) & set(all_layers(block))
    np.testing.assert_array_equal(block(np.array([[-1.0, 2.0]])), [[0, 2]])


def test_an_optimizer_combines_gradients_before_it_clips_them():
    class Doubling(OwnReduction, keras.optimizers.SGD):
        def combined(self, gradients):
            return [2 * gradient for gradient in gradients]

    optimizer = Doubling(1.0, global_clipnorm=3.0)
    variable, other = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer.build([variable, other])
    optimizer.apply([np.array([1.0], "float32"), np.array([0.0], "float32")])
    np.testing.assert_allclose(variable.numpy() if hasattr(variable, "numpy") else variable, [-1.0], rtol=1e-5)
    assert [optimizer.index_of(v) for v in (variable, other)] == [0, 1]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_a_model_knows_the_strategy_of_its_scope_and_asks_for_no_batch():
    import tensorflow as tf

    class Model(Built, keras.Model):
        pass

    def model():
        image = keras.Input((2,))
        return Model(image, layers.Dense(1)(image))

    assert model().strategy is None
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        assert model().strategy is strategy
    assert model()._maybe_symbolic_build(iterator=None) is None


def private_names():
    """Private attributes of Keras's own objects."""
    model = chain()
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse")
    tensor = model.output
    things = [model, *model.layers, keras.Sequential(), optimizer, tensor, nodes_of(model)[0], keras.metrics.Mean()]
    names = {name for thing in things for name in [*dir(thing), *vars(thing)]}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.slow
def test_no_other_file_uses_a_private_name_of_keras():
    private, found = private_names(), set()
    assert {"_nodes_by_depth", "_keras_history", "_inbound_nodes", "_flatten_layers", "_layers"} <= private
    for path in [*(ROOT / "mrcnn").rglob("*.py"), *(ROOT / "heads").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            of_keras = isinstance(node, ast.Attribute) and node.attr in private and node.attr not in own
            if of_keras and not _is_assigned(tree, node.attr):
                found.add((path.name, node.attr))
            if isinstance(node, ast.FunctionDef) and node.name in private and _is_in_a_class(tree, node):
                found.add((path.name, node.name))
    assert {name for name, _ in found} == {"keras_internals.py"}, sorted(found)


def _is_assigned(tree, name):
    """Whether a file sets `self.name` itself: an attribute of its own with a name that Keras has as well."""
    targets = [t for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign) for t in _targets(node)]
    return any(isinstance(target, ast.Attribute) and target.attr == name for target in targets)


def _targets(node):
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [inner for target in targets for inner in (target.elts if isinstance(target, ast.Tuple) else [target])]


def _is_in_a_class(tree, function):
    """Whether a function is a method of a class that has a base."""
    return any(isinstance(node, ast.ClassDef) and node.bases and function in node.body for node in ast.walk(tree))
