"""Models stay of their class, whose constructor is their own, and are as they were."""

import copy
import pickle
import re

import keras
import models
import numpy as np
import own_classes
import pytest
from keras import layers

import pdp_keras
from pdp_keras.layers import MaskedLayer

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
TOKENS = np.random.default_rng(0).integers(0, 10, size=(8, 4))
MODES = ["unstructured", "2:4", "channel"]


def randomized(model):
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + generator.normal(size=variable.shape) * 0.3)
    return model


def outputs(model, x=X):
    return keras.ops.convert_to_numpy(model(x, training=False))


def pruned_and_cut(model, mode="channel", **arguments):
    model = randomized(model)
    pruned = pdp_keras.prune_model(model, mode=mode, **arguments)
    models.set_zeros(pruned)
    return pruned


def from_config(model):
    new = type(model).from_config(model.get_config())
    new.set_weights(model.get_weights())
    return new


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make_copy", [from_config, copy.deepcopy, pickled])
def test_copies_keep_the_class(make_copy, mode):
    pruned = pruned_and_cut(own_classes.Tower(), mode)
    expected = outputs(pruned)
    first, second = make_copy(pruned), make_copy(make_copy(pruned))
    for new in (first, second):
        assert isinstance(new, own_classes.Tower) and type(new) is not type(pruned)
        double = keras.ops.convert_to_numpy(new.double(X))
        np.testing.assert_allclose(double, 2 * expected, rtol=1e-5)
        assert new.hidden[0] in new.layers and isinstance(new.hidden[0], MaskedLayer)
    models.set_zeros(first, 0.0)
    assert np.abs(outputs(first) - expected).max() > 1e-4
    for other in (pruned, second):
        np.testing.assert_allclose(outputs(other), expected, rtol=1e-5)
        stripped = pdp_keras.strip_pruning(other)
        assert type(stripped) is own_classes.Tower
        np.testing.assert_allclose(outputs(stripped), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_clone_by_keras_is_a_plain_pruned_model(mode):
    """As `clone_model` of a plain model of such a class gives no such model either."""
    plain = keras.models.clone_model(own_classes.Tower())
    assert not isinstance(plain, own_classes.Tower)
    pruned = pruned_and_cut(own_classes.Tower(), mode)
    new = keras.models.clone_model(pruned)
    assert type(new) is type(plain)
    for layer in pruned.layers:
        new.get_layer(layer.name).set_weights(layer.get_weights())
    np.testing.assert_allclose(outputs(new), outputs(pruned), rtol=1e-5)
    stripped = pdp_keras.strip_pruning(new)
    np.testing.assert_allclose(outputs(stripped), outputs(pruned), atol=1e-5)


def test_a_smaller_model_is_made_by_its_class(tmp_path):
    pruned = pruned_and_cut(own_classes.Tower())
    small = pdp_keras.strip_pruning(pruned)
    assert (type(small), small.units) == (own_classes.Tower, 4)
    assert [hidden.units for hidden in small.hidden] == [4, 4]
    np.testing.assert_allclose(outputs(small), outputs(pruned), rtol=1e-5)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(small))
    skipped = pdp_keras.sparsity_report(pruned).skipped
    reasons = {(row.layer, row.weight): row.reason for row in skipped}
    assert reasons["stem", "kernel"] == (
        "no argument of Tower is their number, so that the smaller model would not be "
        "one"
    )


# A model, what it is pruned with, and why it does not stay of its class.
PLAIN = {
    "unequal": (
        own_classes.Tower,
        {"allocation": lambda weights, _: [0.25, 0.75]},
        "it has one argument 'units' for 6 of 'hidden_0' and 2 of 'hidden_1'; "
        "allocation='uniform', the default for such models, keeps them equal.",
    ),
    "chosen": (
        own_classes.Tower,
        {"filters": ["stem", "out_.*"]},
        "it has no argument that would make 'stem' as it is now; without "
        "`filters`, such layers are left as they are.",
    ),
    "number": (
        own_classes.Grouped,
        {},
        "it has no argument that would make 'norm_0' as it is now",
    ),
    "slice": (own_classes.Halves, {}, "is called with other arguments"),
}


@pytest.mark.parametrize(("cls", "arguments", "why"), PLAIN.values(), ids=PLAIN)
def test_what_no_argument_says_makes_a_plain_model(cls, arguments, why):
    pruned = pruned_and_cut(cls(), **arguments)
    with pytest.warns(UserWarning, match=re.escape(why)) as warned:
        small = pdp_keras.strip_pruning(pruned)
    (ours,) = [w for w in warned if w.category is UserWarning]
    assert f"the methods of {cls.__name__}: " in str(ours.message)
    assert ours.filename == __file__
    assert not isinstance(small, cls)
    assert small.count_params() < cls().count_params()
    np.testing.assert_allclose(outputs(small), outputs(pruned), rtol=1e-4, atol=1e-5)


def test_a_model_inside_another_keeps_its_channels_by_no_class():
    """Its methods are not those of the model that is returned."""
    tower = randomized(own_classes.Tower())
    model = keras.Sequential([keras.Input((4,)), tower, layers.Dense(2)])
    pruned = pruned_and_cut(model, allocation="global")
    small = pdp_keras.strip_pruning(pruned)
    np.testing.assert_allclose(outputs(small), outputs(pruned), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_a_model_inside_that_no_config_has_leads_to_a_plain_one(mode, tmp_path):
    pruned = pruned_and_cut(own_classes.Hidden(), mode)
    assert not isinstance(pruned, own_classes.Hidden)
    assert len(pdp_keras.sparsity_report(pruned).rows) == 3
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for new in (loaded, pdp_keras.strip_pruning(pruned)):
        np.testing.assert_allclose(outputs(new), outputs(pruned), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_frozen_stays_frozen(mode):
    model = randomized(own_classes.Tower())
    model.hidden[0].trainable = False
    pruned = pdp_keras.prune_model(model, mode=mode)
    models.set_zeros(pruned)
    for new in (pruned, pdp_keras.strip_pruning(pruned)):
        assert [layer.trainable for layer in new.hidden] == [False, True]
        assert len(new.trainable_variables) == len(model.trainable_variables)


def test_what_is_frozen_inside_a_layer_stays_frozen():
    inputs = keras.Input((4, 6))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    attention._query_dense.trainable = False
    pruned = pruned_and_cut(model, "unstructured")
    for new in (pruned, pdp_keras.strip_pruning(pruned)):
        assert len(new.trainable_variables) == len(model.trainable_variables) == 6
    assert pruned.get_layer("attention").layer._query_dense.trainable is False


needs_reversible = pytest.mark.skipif(
    not hasattr(layers, "ReversibleEmbedding"), reason="not in this Keras"
)


@needs_reversible
@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_a_layer_inside_another_is_pruned_once(mode, tmp_path):
    model = randomized(own_classes.Tied())
    pruned = pruned_and_cut(model, mode)
    rows = [f"{r.layer}/{r.weight}" for r in pdp_keras.sparsity_report(pruned).rows]
    assert len(rows) == len(set(rows))
    assert ("embedding/embeddings" in rows) == (mode == "unstructured")
    assert pruned.get_layer("reader").embedding is pruned.embedding
    expected = outputs(pruned, TOKENS)
    small = pdp_keras.strip_pruning(pruned)
    assert type(small) is own_classes.Tied
    assert small.reader.embedding is small.embedding
    copies = [small, copy.deepcopy(pruned), from_config(pruned)]
    for new in copies:
        np.testing.assert_allclose(outputs(new, TOKENS), expected, rtol=1e-4, atol=1e-5)
    for new in (small, pruned):
        new.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(outputs(loaded, TOKENS), expected, atol=1e-5)


@needs_reversible
def test_the_mask_of_a_layer_inside_another_has_its_gradient():
    pruned = pruned_and_cut(own_classes.Tied(), "unstructured")
    pruned.compile("sgd", "mse")
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    kernels = [pruned.embedding.layer.embeddings, pruned.reader.dense.kernel]
    before = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    shape = (*TOKENS.shape, 10)
    pruned.fit(TOKENS, np.ones(shape), epochs=2, verbose=0, callbacks=[schedule])
    for kernel, old in zip(kernels, before, strict=True):
        assert np.abs(keras.ops.convert_to_numpy(kernel) - old).max() > 1e-4


@needs_reversible
def test_channels_of_layers_that_share_weights_stay_equal():
    with pytest.raises(ValueError, match=r"share weights.*Received: allocation='erk'"):
        pdp_keras.prune_model(own_classes.Tied(), mode="channel", allocation="erk")


@own_classes.register
class Nameless(layers.Layer):
    """Its config is missing; its arguments are its attributes."""

    def __init__(self, units, **kwargs):
        self.power = kwargs.pop("power", 1)
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.dense(x) ** self.power

    def get_config(self):
        return {"units": self.unit_count}


def test_a_layer_without_a_config_is_copied_by_its_attributes():
    model = keras.Sequential([keras.Input((4,)), Nameless(3), layers.Dense(2)])
    pruned = pruned_and_cut(model, "unstructured")
    stripped = pdp_keras.strip_pruning(pruned)
    np.testing.assert_allclose(outputs(stripped), outputs(pruned), rtol=1e-5)


def test_not_if_they_do_not_say_all():
    model = keras.Sequential([keras.Input((4,)), Nameless(3, power=2)])
    with pytest.raises(ValueError, match=r"implement `get_config`.*says its power"):
        pdp_keras.prune_model(model, 0.5)
