"""`split_preprocessing`: two models that compute what the one did."""

import keras
import numpy as np
import pytest
from keras import layers

from pdp_keras.rewrites.preprocessing import split_preprocessing


def image():
    return keras.Input((8, 8, 3), name="image")


def normalization():
    layer = layers.Normalization(name="normalization")
    layer.adapt(np.random.default_rng(0).normal(3, 2, (20, 8, 8, 3)))
    return layer


def network(x):
    return layers.Dense(4)(layers.Flatten()(layers.Conv2D(4, 3)(x)))


def in_a_row():
    x = inputs = image()
    for layer in (
        layers.RandomFlip(name="flip"),
        layers.Resizing(10, 12, name="resizing"),
        layers.CenterCrop(6, 6, name="crop"),
        layers.Rescaling(0.5, offset=-1.0, name="rescaling"),
        normalization(),
    ):
        x = layer(x)
    return keras.Model(inputs, network(x))


def sequential():
    model = keras.Sequential([layers.Rescaling(2.0, name="rescaling")])
    model.add(layers.Conv2D(4, 3))
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


def nested():
    inputs = image()
    first = keras.Sequential(
        [
            layers.Resizing(4, 4, name="resizing"),
            layers.Rescaling(3.0, name="rescaling"),
        ]
    )
    return keras.Model(inputs, network(first(inputs)))


def none():
    inputs = image()
    return keras.Model(inputs, network(inputs))


def not_in_front():
    inputs = image()
    x = layers.Rescaling(2.0, name="rescaling")(layers.Conv2D(3, 1)(inputs))
    return keras.Model(inputs, network(x))


def read_twice():
    """What is between is read by something else, too: the cut comes before."""
    inputs = image()
    x = layers.Rescaling(2.0, name="rescaling")(inputs)
    y = layers.Resizing(4, 4, name="resizing")(x)
    return keras.Model(inputs, layers.Add()([network(x), network(y)]))


def input_read_twice():
    inputs = image()
    x = layers.Rescaling(2.0, name="rescaling")(inputs)
    return keras.Model(inputs, layers.Add()([network(x), network(inputs)]))


def also_output():
    inputs = image()
    x = layers.Rescaling(2.0, name="rescaling")(inputs)
    return keras.Model(inputs, {"scaled": x, "logits": network(x)})


def shared():
    rescaling = layers.Rescaling(2.0, name="rescaling")
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    return keras.Model([a, b], layers.Add()([network(rescaling(a)), network(b)]) + 1)


def two_inputs():
    inputs = {"b": keras.Input((8, 8, 3), name="b"), "a": keras.Input((3,), name="a")}
    x = network(layers.Rescaling(2.0, name="rescaling")(inputs["b"]))
    y = layers.Dense(4)(inputs["a"])
    return keras.Model(inputs, {"sum": layers.Add()([x, y])})


CASES = {
    in_a_row: ["flip", "resizing", "crop", "rescaling", "normalization"],
    sequential: ["rescaling"],
    nested: ["resizing", "rescaling"],
    none: [],
    not_in_front: [],
    read_twice: ["rescaling"],
    input_read_twice: [],
    also_output: [],
    shared: ["rescaling"],
    two_inputs: ["rescaling"],
}


def inputs_for(model):
    random = np.random.default_rng(1)
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda x: random.normal(size=(3, *x.shape[1:])).astype("float32"), structure
    )


def outputs_of(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_the_two_compute_what_the_one_did(make):
    model = make()
    before, rest = split_preprocessing(model)
    names = [
        layer.name
        for layer in before.layers
        if not isinstance(layer, layers.InputLayer | layers.Identity)
    ]
    assert names == CASES[make]
    assert not set(names) & {layer.name for layer in rest.layers}
    x = inputs_for(model)
    expected = outputs_of(model, x)
    for found, wanted in zip(
        outputs_of(rest, before(x, training=False)), expected, strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    # Neither shares a variable with the model.
    own = {id(v) for part in (before, rest) for v in part.variables}
    assert not own & {id(v) for v in model.variables}


def test_names_of_the_inputs_stay():
    rest = split_preprocessing(two_inputs()).model
    assert sorted(rest.input) == ["a", "b"]
    assert {x.name for x in rest.inputs} == {"a", "b"}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings")
def test_text_becomes_numbers_before_the_network():
    vectorize = layers.TextVectorization(
        max_tokens=10, output_sequence_length=4, name="vectorize"
    )
    vectorize.adapt(["a sparse model", "a fast model"])
    text = keras.Input((1,), dtype="string", name="text")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 3)(vectorize(text)))
    model = keras.Model(text, layers.Dense(2)(x))
    before, rest = split_preprocessing(model)
    import tensorflow as tf

    words = tf.constant([["a model"], ["fast"]])
    numbers = before(words)
    assert numbers.shape == (2, 4)
    np.testing.assert_array_equal(np.asarray(rest(numbers)), np.asarray(model(words)))


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="must be a built Sequential or Functional"):
        split_preprocessing(Subclassed())
