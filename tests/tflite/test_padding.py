"""Strided convolutions get a PAD of their own in the file, and compute the same."""

import numpy as np
import pytest
from image_models import inputs_of, mobile, randomized, zero_pointwise
from keras import Input, Model, layers
from tflite_files import converted, outputs

from pdp_keras.tflite.graph import read_graph
from pdp_keras.tflite.padding import with_explicit_padding


def one_layer(size, layer):
    inputs = Input((size, size, 3), name="image")
    return randomized(Model(inputs, layer(inputs)))


@pytest.mark.parametrize(
    ("size", "layer", "pads"),
    [
        (7, lambda: layers.Conv2D(4, 3, 2, padding="same"), 1),
        (7, lambda: layers.DepthwiseConv2D(5, 2, padding="same"), 1),
        (8, lambda: layers.Conv2D(4, 3, 2, padding="same"), 0),
        (7, lambda: layers.Conv2D(4, 3, padding="same"), 0),
        (7, lambda: layers.Conv2D(4, 3, 2), 0),
    ],
)
def test_one_layer(size, layer, pads):
    model = one_layer(size, layer())
    data = converted(model)
    edited = with_explicit_padding(data)
    assert (edited is data) == (pads == 0)
    kinds = [op.kind for op in read_graph(edited).operators]
    assert kinds.count("PAD") == pads
    x = inputs_of(model)
    np.testing.assert_array_equal(outputs(edited, x), outputs(data, x))
    np.testing.assert_allclose(
        np.concatenate(outputs(edited, x)), np.asarray(model(x)), atol=1e-5
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_a_whole_file_sparse_encoded_too(sparse):
    model = zero_pointwise(randomized(mobile(size=33)), 0.9)
    data = converted(model, sparse)
    edited = with_explicit_padding(data)
    pads = [op for op in read_graph(edited).operators if op.kind == "PAD"]
    assert [op.inputs[1].values.tolist() for op in pads] == [
        [[0, 0], [1, 1], [1, 1], [0, 0]]
    ] * 2
    x = inputs_of(model)
    np.testing.assert_array_equal(outputs(edited, x), outputs(data, x))
    # A second time there is nothing left to do.
    assert with_explicit_padding(edited) is edited
