"""Gradients of our own: their values, and that nothing stays of the graphs that used them."""

import gc
import weakref

import pytest

from mrcnn.ops.own_gradient import own_gradient

tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def tripled():
    """x -> x squared, with a gradient of 3 in place of 2 x."""

    def backward(upstream, outputs, inputs):
        return (3 * upstream,)

    attach = own_gradient(backward, [tf.TensorSpec([None]), tf.TensorSpec([None])])
    return lambda x: attach(x * x, x)


def value_and_gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = function(x)
    return outputs, tape.gradient(outputs, x)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_replaces_that_of_the_operations(tripled, compiled):
    call = tf.function(value_and_gradient) if compiled else value_and_gradient
    outputs, gradient = call(tripled, tf.constant([1.0, 5.0]))
    assert outputs.numpy().tolist() == [1, 25] and gradient.numpy().tolist() == [3, 3]


def test_the_operations_have_no_gradient_beside_it(tripled):
    def counted(x):
        return tripled(tf.sin(x))

    graph = tf.function(value_and_gradient).get_concrete_function(counted, tf.TensorSpec([None])).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("Mul") == 2  # the square, and the sine's gradient; none of the square's


def test_graphs_that_use_it_are_freed(tripled):
    value_and_gradient(tripled, tf.ones(2))
    call = tf.function(lambda x: value_and_gradient(tripled, x), input_signature=[tf.TensorSpec([None])])
    graph = weakref.ref(call.get_concrete_function().graph)
    call(tf.ones(3))
    assert graph() is not None
    del call
    gc.collect()
    assert graph() is None
