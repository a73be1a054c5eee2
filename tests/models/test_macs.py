"""Multiplications of models that were counted by hand, and of known networks."""

import keras
import numpy as np
import pytest
from keras import layers
from models import Encoder, cnn, mlp

import pdp_keras
from pdp_keras.models.macs import count_macs

TABLE = {
    "dense": ((6,), layers.Dense(4), 6 * 4),
    "dense on positions": ((5, 6), layers.Dense(4), 5 * 6 * 4),
    "convolution": ((8, 8, 3), layers.Conv2D(4, 3), 6 * 6 * 9 * 3 * 4),
    "stride": ((9, 9, 3), layers.Conv2D(4, 3, 2, "same"), 5 * 5 * 9 * 3 * 4),
    "dilation": ((9, 9, 3), layers.Conv2D(4, 3, dilation_rate=2), 5 * 5 * 9 * 3 * 4),
    "groups": ((8, 8, 6), layers.Conv2D(4, 1, groups=2), 8 * 8 * 3 * 4),
    "1D": ((8, 3), layers.Conv1D(4, 3), 6 * 3 * 3 * 4),
    "3D": ((4, 4, 4, 2), layers.Conv3D(3, 2), 27 * 8 * 2 * 3),
    "depthwise": (
        (8, 8, 3),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        6 * 6 * 9 * 3 * 2,
    ),
    "separable": (
        (8, 8, 3),
        layers.SeparableConv2D(5, 3, 2, "same", depth_multiplier=2),
        4 * 4 * (9 * 3 * 2 + 6 * 5),
    ),
    "transposed": (
        (4, 4, 3),
        layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        4 * 4 * 9 * 3 * 5,
    ),
    "einsum": ((7, 6), layers.EinsumDense("abc,cde->abde", (None, 2, 3)), 7 * 36),
    "einsum with ...": ((7, 6), layers.EinsumDense("...c,cd->...d", 5), 7 * 6 * 5),
    "simple": ((7, 6), layers.SimpleRNN(4), 7 * (6 + 4) * 4),
    "lstm": ((7, 6), layers.LSTM(4, return_sequences=True), 7 * (6 + 4) * 16),
    "bidirectional": ((7, 6), layers.Bidirectional(layers.GRU(4)), 2 * 7 * 10 * 12),
    "stacked cells": (
        (7, 6),
        layers.RNN([layers.LSTMCell(4), layers.SimpleRNNCell(5)]),
        7 * (10 * 16 + 9 * 5),
    ),
    "at each time": (
        (7, 4, 4, 3),
        layers.TimeDistributed(layers.Conv2D(5, 3)),
        7 * 4 * 9 * 3 * 5,
    ),
    "no weights": ((8, 8, 3), layers.MaxPooling2D(), 0),
    "not counted": ((8, 8, 3), layers.BatchNormalization(), 0),
}


@pytest.mark.parametrize("case", TABLE)
def test_one_layer(case):
    shape, layer, expected = TABLE[case]
    layer = type(layer).from_config(layer.get_config())
    assert count_macs(keras.Sequential([keras.Input(shape), layer])) == expected


def test_attention_counts_its_projections():
    inputs = keras.Input((7, 6))
    outputs = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    assert count_macs(keras.Model(inputs, outputs)) == 7 * 4 * 6 * 6


def test_channels_first():
    # The CPU kernels of TensorFlow do not run it; its shapes are known all the same.
    inputs = keras.Input((3, 8, 8))
    outputs = layers.Conv2D(4, 3, data_format="channels_first")(inputs)
    assert count_macs(keras.Model(inputs, outputs)) == 6 * 6 * 9 * 3 * 4


def test_graph_with_residual_and_nested_model():
    convolutions = 64 * (27 * 8 + 72 + 64)
    assert count_macs(cnn()) == convolutions + 512 * 12 + 12 * 10


def test_each_call_of_a_shared_layer_counts_at_its_own_size():
    shared = layers.Conv2D(4, 1)
    block = keras.Sequential([keras.Input((None, None, 4)), layers.Dense(4)])
    first, second = keras.Input((8, 8, 3)), keras.Input((4, 4, 3))
    outputs = [block(shared(first)), block(shared(second))]
    model = keras.Model([first, second], outputs)
    assert count_macs(model) == (64 + 16) * (3 * 4 + 4 * 4)


def test_dict_of_inputs_and_integers():
    tokens, weight = (
        keras.Input((7,), name="tokens", dtype="int32"),
        keras.Input((4,), name="weight"),
    )
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4)(tokens))
    model = keras.Model(
        {"tokens": tokens, "weight": weight}, layers.Dense(3)(x * weight)
    )
    assert count_macs(model) == 12


def test_subclassed_model():
    model = Encoder()
    model(np.zeros((2, 5, 6), "float32"))
    attention, feed_forward = 4 * 8 * 8, 2 * 8 * 16
    assert count_macs(model) == 5 * (6 * 8 + 2 * (attention + feed_forward) + 8 * 3)


def test_zeros_and_wrappers_change_nothing():
    model = mlp()
    pruned = pdp_keras.prune_model(model, sparsity=0.5)
    assert count_macs(pruned) == count_macs(model) == 6 * 20 + 20 * 3


def test_model_stays_as_it_was():
    model = cnn()
    x = np.ones((1, 8, 8, 3), "float32")
    expected = model.predict(x, verbose=0)
    before = [set(vars(layer)) for layer in model._flatten_layers()]
    count_macs(model)
    assert [set(vars(layer)) for layer in model._flatten_layers()] == before
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # He et al. 2015 say 3.8 billion; the shapes of Keras's 224 give this.
        pytest.param("ResNet50", 224, 3_857_973_248, marks=pytest.mark.slow),
        # Sandler et al. 2018, table 4: 300 million.
        ("MobileNetV2", 224, 300_774_272),
        # Howard et al. 2017, table 4: 569 million.
        ("MobileNet", 224, 568_740_352),
    ],
)
def test_known_networks(name, size, expected):
    network = getattr(keras.applications, name)
    assert count_macs(network(weights=None, input_shape=(size, size, 3))) == expected


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.Dense(3), TypeError, "Received: model=<Dense"),
        (lambda: keras.Sequential([layers.Dense(3)]), ValueError, "must be built"),
        (
            lambda: keras.Sequential([keras.Input((None, 3)), layers.Dense(3)]),
            ValueError,
            r"must be fixed. Received: .* shape=\(None, None, 3\)",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((3, 8, 8, 1)), layers.ConvLSTM2D(2, 3)]
            ),
            ValueError,
            r"Received: layer='conv_lstm2d' with \['ConvLSTMCell'\]",
        ),
    ],
)
def test_what_cannot_be_counted(make, error, message):
    with pytest.raises(error, match=message):
        count_macs(make())
