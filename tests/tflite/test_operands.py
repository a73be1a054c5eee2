"""Sums and products of images of one pixel read images, and compute the same."""

import numpy as np
import pytest
from image_models import inputs_of, randomized, zero_pointwise
from keras import Input, Model, layers
from tflite_files import converted, outputs

import pdp_keras
from pdp_keras.tflite.graph import read_graph
from pdp_keras.tflite.operands import with_image_operands


def merged(merge, size):
    """Two branches of 1x1 convolutions on an image that has shrunk to size x size."""
    inputs = Input((4 * size, 4 * size, 3), name="image")
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3, 2, padding="same")(x)
    x = layers.Conv2D(8, 1, activation="relu")(x)
    y = layers.Conv2D(8, 1)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(merge()([x, y]))
    return zero_pointwise(randomized(Model(inputs, layers.Dense(4)(x))), 0.85)


def shapes_of(data, kind):
    operators = read_graph(data).operators
    return [[x.shape for x in op.inputs] for op in operators if op.kind == kind]


@pytest.mark.parametrize(
    ("merge", "kind"),
    [(layers.Add, "ADD"), (layers.Multiply, "MUL"), (layers.Subtract, "SUB")],
)
def test_a_pixel_is_an_image(merge, kind):
    model = merged(merge, 1)
    data = converted(model)
    edited = with_image_operands(data)
    assert shapes_of(edited, kind)[0] == [(1, 1, 1, 8), (1, 1, 1, 8)]
    if merge is layers.Add:
        assert shapes_of(data, kind)[0] == [(1, 1, 1, 8), (8,)]  # TensorFlow's doing
    assert shapes_of(edited, "RESHAPE") == []
    x = inputs_of(model)
    np.testing.assert_array_equal(outputs(edited, x), outputs(data, x))
    assert with_image_operands(edited) is edited


def test_larger_images_stay_as_they_are():
    data = converted(merged(layers.Add, 2))
    assert with_image_operands(data) is data


def vector_and_pixel():
    """The vector is an output of its own: its reshape must stay."""
    inputs = Input((4, 4, 3), name="image")
    x = layers.Conv2D(8, 4)(inputs)
    y = layers.Conv2D(8, 1)(x)
    return randomized(Model(inputs, [layers.Add()([x, y]), layers.Reshape((8,))(x)]))


def test_what_else_is_read_stays():
    model = vector_and_pixel()
    data = converted(model)
    edited = with_image_operands(data)
    x = inputs_of(model)
    for before, after in zip(outputs(data, x), outputs(edited, x), strict=True):
        np.testing.assert_array_equal(before, after)
    assert len(read_graph(edited).outputs) == 2


def test_a_network_that_ends_in_a_pixel_runs_sparse(tmp_path):
    """As MobileNetV2 does on images of 32x32."""
    model = merged(layers.Add, 1)
    path = tmp_path / "model.tflite"
    report = pdp_keras.export_tflite(model, path, target="xnnpack")
    assert report.check.runs_sparse
    assert report.relative_difference < 1e-5
    # In so small a network zeros stored sparse take more room, but they are faster.
    assert report.sparse_encoding
    assert report.size_bytes > report.dense_encoded_bytes
