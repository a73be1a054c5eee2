"""Equal small kernels are masked together where that changes nothing but the time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import pdp_keras
from pdp_keras.layers import masked_at_once, stacks

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(4, 6)).astype("float32")


@pytest.fixture
def made(monkeypatch):
    """How many kernels were made together, one number for each time."""
    counts = []
    make = stacks._Call._make

    def counted(self, group, masking):
        counts.append(len(group))
        return make(self, group, masking)

    monkeypatch.setattr(stacks._Call, "_make", counted)
    return counts


def dense(name=None):
    return layers.Dense(6, activation="tanh", name=name)


def chain(count=4):
    return keras.Sequential([keras.Input((6,)), *(dense() for _ in range(count))])


def pruned(model, zeros=(3, 10, 0, 36), **arguments):
    """With so many zeros in its layers."""
    model = pdp_keras.prune_model(model, 0.5, **arguments)
    for wrapper in find_wrappers(model):
        wrapper.is_scheduled = True
    for i, weight in enumerate(find_weights(model)):
        weight.zeros.assign(zeros[i % len(zeros)])
        weight.temperature_scale.assign(1 - 0.2 * (i % 4))
    return model


def find_wrappers(model):
    found = {id(x): x for x in model._flatten_layers() if hasattr(x, "pruned_weights")}
    return list(found.values())


def find_weights(model):
    return [w for wrapper in find_wrappers(model) for w in wrapper.pruned_weights]


def one_by_one(model, x, training):
    """The same layers, each called by itself."""
    for layer in model.layers:
        x = layer(x, training=training)
    return x


def outputs_and_gradients(call, model, training, in_graph):
    def run(x):
        with tf.GradientTape() as tape:
            outputs = call(x, training=training)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, *tape.gradient(loss, model.trainable_variables)

    return (tf.function(run) if in_graph else run)(tf.constant(X))


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("training", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    "method",
    [
        "pdp",
        "gmp",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("dnw", "sr_ste")),
    ],
)
def test_together_equals_one_by_one(method, training, in_graph, made):
    model = pruned(chain(), method=method)
    together = outputs_and_gradients(model, model, training, in_graph)
    assert made == [4]
    alone = outputs_and_gradients(
        lambda x, training: one_by_one(model, x, training), model, training, in_graph
    )
    assert made == [4]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_groups_are_of_one_shape_and_setting(made):
    inputs = keras.Input((6,))
    a, b = dense()(inputs), dense()(inputs)
    outputs = layers.Dense(3)(layers.Concatenate()([a, b]))
    outputs = layers.Dense(3)(outputs) + layers.Dense(3)(outputs)
    model = pruned(keras.Model(inputs, outputs))
    model(X, training=True)
    # Two of (6, 6), two of (3, 3), and (12, 3) by itself.
    assert sorted(made) == [2, 2]


def test_a_nested_graph_is_part_of_the_call(made):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, dense()(chain(2)(chain(3)(inputs))))
    pruned(model)(X, training=True)
    assert made == [6]


def test_a_shared_layer_is_made_once(made):
    inputs, shared = keras.Input((6,)), chain(1)
    both = keras.Model(inputs, dense()(shared(dense()(shared(inputs)))))
    model = pruned(both)
    assert len(find_weights(model)) == 3
    result = model(X, training=False)
    assert made == [3]
    first, a, b = (layer for layer in model.layers[1:])
    np.testing.assert_allclose(result, b(first(a(first(X)))), rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Either(keras.Model):
    """Runs one of its layers, which nobody can know before."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b, self.c = dense("a"), dense("b"), chain(2)

    def build(self, shape):
        for part in (self.a, self.b):
            part.build(shape)

    def call(self, x, training=None):
        return self.c(self.a(x, training=training), training=training)


def test_a_model_of_ones_own_is_masked_layer_by_layer(made):
    model = Either()
    model(X)
    model = pruned(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X, training=True))
    gradients = tape.gradient(loss, [model.a.layer.kernel, model.b.layer.kernel])
    assert made == []
    assert gradients[0] is not None
    # Zeros would let its momentum go on.
    assert gradients[1] is None


@keras.saving.register_keras_serializable("tests")
class Half(keras.Sequential):
    """A graph that does not run all of its layers."""

    def call(self, x, training=None, mask=None):
        return self.layers[0](x, training=training)


def test_a_graph_with_a_call_of_its_own_is_masked_layer_by_layer(made):
    model = pruned(Half([keras.Input((6,)), dense(), dense()]))
    model(X, training=True)
    assert made == []


def test_each_call_sees_the_weights_of_its_time():
    model = pruned(chain(2))
    kernel = model.layers[0].layer.kernel

    @tf.function
    def twice(x):
        before = model(x, training=True)
        kernel.assign(2 * kernel)
        return before, model(x, training=True)

    before, after = twice(tf.constant(X))
    np.testing.assert_allclose(after, one_by_one(model, X, True), rtol=1e-5, atol=1e-6)
    assert not np.allclose(before, after)
    first = model.predict(X, verbose=0)
    kernel.assign(0.5 * kernel)
    assert not np.allclose(first, model.predict(X, verbose=0))


def test_what_is_computed_again_is_masked_by_itself(made):
    plain = pruned(chain())
    with keras.RematScope(mode="full"):
        again = chain()
    again = pruned(again)
    again.set_weights(plain.get_weights())
    expected = outputs_and_gradients(plain, plain, True, in_graph=False)
    assert made == [4]
    found = outputs_and_gradients(again, again, True, in_graph=False)
    assert made == [4]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_half_precision(made):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = pruned(chain())
    finally:
        keras.config.set_dtype_policy("float32")
    together = outputs_and_gradients(model, model, True, in_graph=True)
    alone = outputs_and_gradients(
        lambda x, training: one_by_one(model, x, training), model, True, in_graph=True
    )
    assert made == [4]
    assert together[0].dtype == "float16"
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)


def test_masked_at_once(made):
    model = pruned(chain())
    weights = find_weights(model)
    alone = [np.asarray(w.hard_masked()) for w in weights]
    assert made == []
    with masked_at_once(weights):
        together = [np.asarray(w.hard_masked()) for w in weights]
    assert made == [4]
    np.testing.assert_array_equal(together, alone)
    assert [int(np.sum(kernel == 0)) for kernel in together] == [3, 10, 0, 36]


def test_a_deep_graph_does_not_grow_by_more_than_some_operations_a_layer():
    def operations(model):
        call = tf.function(lambda x: model(x, training=True))
        graph = call.get_concrete_function(tf.TensorSpec((4, 6))).graph
        return len(graph.get_operations())

    def of_a_layer(make):
        return (operations(make(chain(30))) - operations(make(chain(10)))) / 20

    # Three variables more to read, with their handles, and its part of the stack.
    assert of_a_layer(pruned) - of_a_layer(lambda model: model) <= 8
