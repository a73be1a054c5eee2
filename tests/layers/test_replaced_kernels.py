"""What would put another kernel in place of one that is pruned."""

import keras
import numpy as np
import pytest
from keras import layers

import pdp_keras

# Keras says it of every InputLayer.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")


def model():
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, name="a"), layers.Dense(4, name="b")]
    )


@pytest.mark.parametrize("mode", ["unstructured", "2:4", "channel"])
def test_quantization_waits_for_strip(mode):
    pruned = pdp_keras.prune_model(model(), mode=mode)
    before = [w.copy() for w in pruned.get_weights()]
    with pytest.raises(ValueError, match=r"must not be quantized, .*strip_pruning"):
        pruned.quantize("int8")
    for old, new in zip(before, pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_layer_is_quantized_where_one_is_pruned():
    """Keras goes from layer to layer; the first ones would be quantized by then."""
    pruned = pdp_keras.prune_model(model(), 0.5, filters="b")
    with pytest.raises(ValueError, match="must not be quantized"):
        pruned.quantize("int8")
    assert pruned.get_layer("a").quantization_mode is None
    pruned.quantize("int8", filters="a")
    assert pruned.get_layer("a").quantization_mode == "int8"
    with pytest.raises(ValueError, match=r"'quantize' would replace.*layer 'b'"):
        pruned.quantize("int8", filters="b")


def test_a_loaded_model_refuses_too(tmp_path):
    pdp_keras.prune_model(model(), 0.5).save(tmp_path / "pruned.keras")
    pruned = keras.models.load_model(tmp_path / "pruned.keras")
    with pytest.raises(ValueError, match=r"'quantize' would replace.*strip_pruning"):
        pruned.quantize("int8")
    pruned.compile("sgd", "mse")
    pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1).start(
        pruned, epochs=1, steps_per_epoch=1
    )
    with pytest.raises(ValueError, match="must not be quantized"):
        pruned.quantize("int8")


def test_lora_waits_for_strip():
    pruned = pdp_keras.prune_model(model(), 0.5)
    with pytest.raises(ValueError, match=r"'enable_lora' would replace.*layer 'a'"):
        pruned.get_layer("a").enable_lora(2)


def test_a_kernel_replaced_by_other_ways_is_noticed():
    pruned = pdp_keras.prune_model(model(), 0.5)
    layers.Dense.enable_lora(pruned.get_layer("a").layer, 2)
    with pytest.raises(ValueError, match=r"compute with the kernel .*'a/kernel'"):
        pruned(np.zeros((1, 8)))


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_stripped_model_keeps_its_zeros_when_quantized(mode):
    pruned = pdp_keras.prune_model(model(), 0.5)
    pruned.compile("sgd", "mse")
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    data = np.ones((4, 8)), np.zeros((4, 4))
    pruned.fit(*data, epochs=1, verbose=0, callbacks=[schedule])
    stripped = pdp_keras.strip_pruning(pruned)
    zeros = keras.ops.convert_to_numpy(stripped.get_layer("a").kernel) == 0
    stripped.quantize(mode)
    response = np.eye(8, dtype="float32")
    bias = keras.ops.convert_to_numpy(stripped.get_layer("a").bias)
    outputs = keras.ops.convert_to_numpy(stripped.get_layer("a")(response)) - bias
    assert zeros.sum() >= 40
    assert not outputs[zeros].any()


def test_a_quantized_model_is_told_the_order():
    quantized = model()
    quantized.quantize("int8")
    for mode in ("unstructured", "channel"):
        with pytest.raises(ValueError, match=r"before it is quantized.*\['a', 'b'\]"):
            pdp_keras.prune_model(quantized, mode=mode)


def test_weights_of_a_plain_model_are_refused_with_the_remedy(tmp_path):
    plain = model()
    plain.save_weights(tmp_path / "plain.weights.h5")
    pruned = pdp_keras.prune_model(plain, 0.5)
    with pytest.raises(ValueError, match="load, then prune"):
        pruned.load_weights(tmp_path / "plain.weights.h5")


def test_a_frozen_layer_has_a_frozen_wrapper():
    frozen = model()
    frozen.get_layer("a").trainable = False
    pruned = pdp_keras.prune_model(frozen, 0.5)
    assert not pruned.get_layer("a").trainable
    assert pruned.get_layer("b").trainable
