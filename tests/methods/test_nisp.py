"""NISP: the importance that is carried back, and pruning by it once."""

import channel_models
import keras
import numpy as np
import pytest
from channel_conformance import (
    pruned_network,
    require_conformance,
)
from keras import layers

from pdp_keras import PDPScheduleCallback, PDPWrapper, prune_model
from pdp_keras.masks.reading import read
from pdp_keras.methods.nisp import propagate
from pdp_keras.pruned import parts


def carried_back(kernel, outputs):
    """s_in = |W|.T s_out of a kernel with its inputs and outputs as last axes."""
    *window, inputs, units = kernel.shape
    found = np.zeros(inputs)
    for place in np.ndindex(*window):
        for i in range(inputs):
            for j in range(units):
                found[i] += abs(kernel[(*place, i, j)]) * outputs[j]
    return found


def importance(model, **arguments):
    """What `propagate` finds for each group of a plain model."""
    pruned = prune_model(model, 0.5, "channel", method="nisp", **arguments)
    groups = parts.channel_groups(pruned)
    found = propagate(groups)
    return {group.label: values for group, values in zip(groups, found, strict=True)}


def test_three_dense_layers():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="a", activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(2, name="b", activation="relu"),
            layers.Dense(2, name="o"),
        ]
    )
    model.get_layer("b").kernel.assign([[1, 0], [-1, 1], [0, -2]])
    model.get_layer("o").kernel.assign([[1, -2], [0, 1]])
    found = importance(model)
    np.testing.assert_array_equal(found["b"], [3, 1])
    np.testing.assert_array_equal(found["a"], [3, 4, 2])


def test_a_window_is_summed_over_and_so_are_the_places_of_a_picture():
    inputs = keras.Input((2, 2, 1))
    x = layers.Conv2D(2, 1, name="a")(inputs)
    x = layers.Conv2D(2, (1, 2), padding="same", name="b")(x)
    outputs = layers.Dense(1, name="o")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    # Channels of the last picture run fastest.
    model.get_layer("o").kernel.assign(np.float32([[1, -5, 2, 0, 0, 0, -1, 1]]).T)
    window = np.float32([[[1, -1], [0, 2]], [[-3, 0], [0, -1]]])
    model.get_layer("b").kernel.assign(window[None])
    found = importance(model)
    np.testing.assert_array_equal(found["b"], [4, 6])
    np.testing.assert_array_equal(found["a"], [4 * 4 + 1 * 6, 3 * 6])
    np.testing.assert_array_equal(found["a"], carried_back(window, [4, 6]))


def test_residual_branches_meet_what_reads_them_later():
    """The stream gains what each branch carries back, from the last to the first."""
    model = channel_models.randomize(channel_models.residual())
    kernels = {
        name: np.float64(model.get_layer(name).kernel.numpy())
        for name in ("in0", "out0", "in1", "out1", "o")
    }
    stream = carried_back(kernels["o"], np.ones(3)).reshape(-1, 6).sum(0)
    inner = {}
    for k in (1, 0):
        inner[k] = carried_back(kernels[f"out{k}"], stream)
        stream = stream + carried_back(kernels[f"in{k}"], inner[k])
    found = importance(model)
    np.testing.assert_allclose(found["stem"], stream)
    np.testing.assert_allclose(found["in0"], inner[0])
    np.testing.assert_allclose(found["in1"], inner[1])


def test_what_is_not_pruned_has_importance_1():
    model = channel_models.randomize(channel_models.residual())
    found = importance(model, filters=["in0", "in1"])
    assert found.keys() == {"in0", "in1"}
    for name, values in found.items():
        kernel = model.get_layer(name.replace("in", "out")).kernel.numpy()
        np.testing.assert_allclose(values, carried_back(kernel, np.ones(6)))


def test_kernels_that_make_channels_of_several_groups():
    """A kernel, half of whose outputs go on: the others count 1."""
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="a")(inputs)
    y = layers.Dense(6, name="b")(x)
    outputs = layers.Dense(2, name="o")(y[:, :3])
    model = channel_models.randomize(keras.Model(inputs, [outputs, y[:, 3:]]))
    found = importance(model)
    first = carried_back(model.get_layer("o").kernel.numpy(), np.ones(2))
    np.testing.assert_allclose(found["b"], first)
    expected = carried_back(model.get_layer("b").kernel.numpy(), [*first, 1, 1, 1])
    np.testing.assert_allclose(found["a"], expected)


def test_heads_of_attention():
    """Units of several places, in kernels of three axes."""
    model = channel_models.randomize(channel_models.ARCHITECTURES["mha"]())
    assert all(np.all(values > 0) for values in importance(model).values())


def test_deep_networks_do_not_overflow():
    """Sums of 4 x 1e30 in each of 12 layers; float64 ends at 1e308."""
    x = inputs = keras.Input((4,))
    for number in range(12):
        x = layers.Dense(4, name=f"d{number}", kernel_initializer="ones")(x)
    outputs = layers.Dense(2, kernel_initializer="ones", name="o")(x)
    model = keras.Model(inputs, outputs)
    for layer in model.layers[1:]:
        layer.kernel.assign(1e30 * layer.kernel)
    kernel = np.ones((4, 4), "float32")
    kernel[:, 0] = 2
    model.get_layer("d1").kernel.assign(1e30 * kernel.T)
    found = importance(model)
    assert np.isfinite(list(found.values())).all()
    np.testing.assert_allclose(found["d0"] / found["d0"][1], [2, 1, 1, 1], rtol=1e-6)


def test_channels_that_no_kernel_reads_are_scored_by_their_norm():
    model = channel_models.randomize(channel_models.ARCHITECTURES["unknown_layer"]())
    pruned = prune_model(model, 0.5, "channel", method="nisp")
    schedule = PDPScheduleCallback(ramp_epochs=1)
    schedule.start(pruned, epochs=1)
    schedule.start_epoch(0)
    (group,) = [g for g in parts.channel_groups(pruned) if not g.readers]
    norms = read(group.norms())
    found = read(group.extras["importance"])
    np.testing.assert_allclose(found, norms / norms.mean(), rtol=1e-6)


class Masks(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.kept = []

    def on_train_batch_end(self, batch, logs=None):
        groups = parts.channel_groups(self.model)
        self.kept.append(np.concatenate([group.kept() for group in groups]))


def test_all_go_at_once_after_warm_up_and_for_good(tmp_path):
    masks = Masks()
    pruned = require_conformance("nisp", tmp_path, masks)
    before, after = masks.kept[:4], masks.kept[4:]
    assert all(kept.all() for kept in before)
    assert all(np.array_equal(kept, after[0]) for kept in after)
    for group in parts.channel_groups(pruned):
        scores = read(group.extras["importance"])
        np.testing.assert_allclose(scores.mean(), 1, rtol=1e-6)
        assert scores[group.kept()].min() >= scores[~group.kept()].max()


def test_a_second_run_does_not_choose_anew():
    pruned = pruned_network("nisp")
    schedule = PDPScheduleCallback(ramp_epochs=1)
    schedule.start(pruned, epochs=2)
    schedule.start_epoch(0)
    groups = parts.channel_groups(pruned)
    kept = [group.kept() for group in groups]
    for reader in (reader for group in groups for reader in group.readers):
        reader.variable.assign(reader.variable.numpy()[::-1] * 2)
    schedule.start(pruned, epochs=2)
    schedule.start_epoch(1)
    for group, before in zip(groups, kept, strict=True):
        np.testing.assert_array_equal(group.kept(), before)


def test_errors():
    with pytest.raises(ValueError, match=r"\['channel'\] only.*mode=Unstructured"):
        prune_model(channel_models.residual(), method="nisp")
    with pytest.raises(ValueError, match=r"soft mask has a temperature.*'nisp'"):
        pruned_network("nisp", temperature=0.1)
    wrapper = PDPWrapper(layers.Dense(4), 0.5, mode="channel", method="nisp")
    with pytest.raises(ValueError, match=r"of a whole model.*a single layer"):
        wrapper(np.zeros((1, 3), "float32"))
