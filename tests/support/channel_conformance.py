"""What every method that prunes channels must do, from `fit` to a stripped model."""

import keras
import numpy as np
from keras import layers

from pdp_keras import PDPScheduleCallback, prune_model, sparsity_report, strip_pruning
from pdp_keras.channels.group import ChannelGroup
from pdp_keras.pruned import parts

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.tanh(X[:, :3] * X[:, 3:])


def network():
    """Groups with a BatchNormalization and a ReLU, and one without."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="na")(x))
    x = layers.Dense(10, name="b", use_bias=False)(x)
    x = keras.ops.relu(layers.BatchNormalization(name="nb", scale=False)(x))
    x = layers.Dense(6, activation="relu", name="c")(x)
    return keras.Model(inputs, layers.Dense(3, name="o")(x))


def pruned_network(method, sparsity=0.5, **arguments):
    """Compiled, from the same random weights whatever the method."""
    keras.utils.set_random_seed(0)
    pruned = prune_model(network(), sparsity, "channel", method=method, **arguments)
    pruned.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
    return pruned


def fit(pruned, *callbacks, epochs=5, **arguments):
    """One epoch of warm-up, three of the ramp, four steps each."""
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3)
    arguments |= {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": epochs}
    return pruned.fit(X, Y, callbacks=[schedule, *callbacks], **arguments)


def counts(pruned):
    """How many units of each group are pruned."""
    return {g.label: int(g.zeros.numpy()) for g in parts.channel_groups(pruned)}


def require_conformance(method, tmp_path, *callbacks):
    """Prunes, trains, saves, loads and strips; returns the trained model."""
    pruned = pruned_network(method)
    dense = network()
    dense.set_weights([v.numpy() for v in plain_variables(pruned)])
    np.testing.assert_array_equal(pruned(X), dense(X))  # until something is pruned

    history = fit(pruned, *callbacks).history
    assert history["sparsity"][0] == 0
    assert history["sparsity"][-1] == 0.5
    assert np.isfinite(history["loss"]).all()
    groups = parts.channel_groups(pruned)
    assert sum(counts(pruned).values()) == 12  # of 24
    for group in groups:
        assert int(group.target_zeros.numpy()) == counts(pruned)[group.label]
        assert group.kept().sum() == group.units - counts(pruned)[group.label]

    stripped = strip_pruning(pruned)
    expected = np.asarray(pruned(X))
    np.testing.assert_allclose(stripped(X), expected, atol=1e-5 * expected.max())
    for group in groups:
        assert stripped.get_layer(group.label).units == group.kept().sum()
    assert not any(type(x).__module__.startswith("pdp_keras") for x in stripped.layers)
    rows = {row.layer: row for row in sparsity_report(pruned).rows}
    for group in groups:
        assert rows[group.label].channels == (group.kept().sum(), group.units)

    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), pruned(X))
    assert counts(loaded) == counts(pruned)
    assert str(sparsity_report(loaded)) == str(sparsity_report(pruned))
    for old, new in zip(groups, parts.channel_groups(loaded), strict=True):
        assert new.get_config() == old.get_config()
        assert ChannelGroup.from_config(old.get_config()).method == old.method
        assert [r.path for r in new.readers] == [r.path for r in old.readers]
        assert [g.path for g in new.gates] == [g.path for g in old.gates]
        for name, variable in old.extras.items():
            np.testing.assert_array_equal(new.extras[name], variable)
    np.testing.assert_array_equal(strip_pruning(loaded)(X), stripped(X))
    return pruned


def require_resumable(method, tmp_path, epoch):
    """A run that is saved and goes on ends as the one that was not interrupted."""

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_end(self, done, logs=None):
            if done == epoch:
                self.model.save(tmp_path / "half.keras")

    straight = pruned_network(method)
    fit(straight, PowerCut(), epochs=4)
    resumed = keras.models.load_model(tmp_path / "half.keras")
    fit(resumed, initial_epoch=epoch + 1, epochs=4)
    for a, b in zip(straight.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)


def plain_variables(pruned):
    """The variables of the model's own layers."""
    names = ("a", "na", "b", "nb", "c", "o")
    layers_of = [pruned.get_layer(name) for name in names]
    inner = [getattr(layer, "layer", layer) for layer in layers_of]
    return [v for layer in inner for v in layer.variables]
