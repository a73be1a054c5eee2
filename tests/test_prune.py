"""prune_model on every kind of model; the model given is never touched."""

import re

import keras
import models
import numpy as np
import pytest
from keras import layers
from model_kinds import (
    MODELS,
    Unconfigurable,
    attention,
    autoencoder,
    encoder,
    flat,
    inputs_for,
    recurrent,
    two_in_two_out,
)

from pdp_keras import GlobalMagnitude, PDPWrapper, methods, prune_model, strip_pruning
from pdp_keras.models.kernels import find_kernels
from pdp_keras.pruned import parts as state


def names(model):
    return [weight.kernel.full_name for weight in state.pruned_weights(model)]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_pruned_model_starts_as_the_original(make):
    model = make()
    inputs = inputs_for(model)
    config = str(model.get_config())
    weights = [w.copy() for w in model.get_weights()]
    expected = flat(model(inputs))
    pruned = prune_model(model, 0.5)

    assert find_kernels(model)[0]
    assert len(names(pruned)) == len(find_kernels(model)[0])
    for actual, wanted in zip(flat(pruned(inputs)), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    assert type(pruned).__mro__[-1] is object
    assert isinstance(pruned, type(model))
    assert not {id(v) for v in model.variables} & {id(v) for v in pruned.variables}

    # The original is what it was, also after its copy has been pruned and changed.
    models.set_zeros(pruned)
    for variable in pruned.trainable_variables:
        variable.assign(variable + 1)
    assert str(model.get_config()) == config
    assert not any(isinstance(x, PDPWrapper) for x in model._flatten_layers())
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    for actual, wanted in zip(flat(model(inputs)), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_global_allocation_prunes_the_smallest_weights_of_the_whole_model(make):
    model = make()
    pruned = prune_model(model, 0.5, allocation=GlobalMagnitude(max_sparsity=1.0))
    models.set_zeros(pruned)
    weights = state.pruned_weights(pruned)
    values = np.concatenate([np.abs(np.ravel(w.variable.numpy())) for w in weights])
    masked = np.concatenate([np.ravel(w.hard_masked()) for w in weights])
    order = np.argsort(values, kind="stable")
    half = round(0.5 * values.size)
    assert np.count_nonzero(masked == 0) == half
    np.testing.assert_array_equal(np.sort(order[:half]), np.flatnonzero(masked == 0))


def test_layer_names_stay():
    pruned = prune_model(models.cnn())
    assert isinstance(pruned.get_layer("stem"), PDPWrapper)
    assert isinstance(pruned.get_layer("stem").layer, layers.Conv2D)
    assert [layer.name for layer in pruned.layers] == [
        layer.name for layer in models.cnn().layers
    ]
    assert names(pruned) == [
        "stem/kernel",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "nested/hidden/kernel",
        "logits/kernel",
    ]


def test_losses_by_output_name_still_work():
    pruned = prune_model(two_in_two_out(), 0.5)
    models.set_zeros(pruned)
    pruned.compile("sgd", {"first": "mse", "second": "mae"})
    x = models.random_inputs(pruned)
    y = {"first": np.zeros((16, 2)), "second": np.zeros((16, 1))}
    assert np.isfinite(pruned.fit(x, y, verbose=0).history["loss"][0])


def test_a_compiled_and_trained_model_keeps_its_weights_and_is_not_compiled():
    model = models.mlp()
    model.compile("adam", lambda y, p: keras.ops.mean(keras.ops.square(y - p)))
    x = models.random_inputs(model)
    model.fit(x, np.ones((16, 3)), verbose=0)
    pruned = prune_model(model)
    np.testing.assert_array_equal(pruned(x), model(x))
    assert not pruned.compiled and model.compiled


def test_frozen_layers_stay_frozen():
    model = models.mlp()
    model.get_layer("first").trainable = False
    pruned = prune_model(model)
    assert [v.path for v in pruned.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]
    model.trainable = False
    assert prune_model(model).trainable_variables == []


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Backbone(keras.Model):
    """A graph that its constructor makes: its config knows of no frozen layer."""

    def __init__(self, width=4, **kwargs):
        inputs = keras.Input((4,))
        x = layers.Dense(width, name="first")(inputs)
        x = layers.BatchNormalization(name="norm")(x)
        super().__init__(inputs, layers.Dense(width, name="second")(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name, "trainable": self.trainable}


def test_what_is_frozen_inside_a_backbone_stays_so():
    backbone = Backbone(name="backbone")
    backbone.get_layer("first").trainable = False
    backbone.get_layer("norm").trainable = False
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(backbone(inputs)))
    frozen = ["first/kernel", "first/bias", "norm/gamma", "norm/beta"]
    trained = ["second/kernel", "second/bias", "head/kernel", "head/bias"]
    for filters in (None, "second", "first"):
        pruned = prune_model(model, 0.5, filters=filters)
        models.set_zeros(pruned)
        for made in (pruned, strip_pruning(pruned)):
            assert [v.path for v in made.trainable_variables] == trained
            left = {v.path for v in made.non_trainable_variables}
            assert left >= set(frozen)
            norm = made.get_layer("backbone").get_layer("norm")
            assert not norm.trainable  # it does not update its statistics


class HoldsFrozen(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4)
        self.inside = keras.Sequential([layers.Dense(4), layers.Dense(4)])

    def call(self, x):
        return self.inside(self.first(x))


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_what_is_frozen_inside_a_subclassed_model_stays_so(mode):
    model = HoldsFrozen()
    model(np.ones((1, 3)))
    model.first.trainable = model.inside.layers[0].trainable = False
    pruned = prune_model(model, 0.5, mode=mode)
    models.set_zeros(pruned)
    for made in (pruned, strip_pruning(pruned)):
        inner = [made.first, made.inside, *made.inside.layers]
        assert [x.trainable for x in inner] == [False, True, False, True]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("stem", ["stem/kernel"]),
        ("nested", ["nested/hidden/kernel"]),
        ("nested/hidden", ["nested/hidden/kernel"]),
        (["stem", "logits"], ["stem/kernel", "logits/kernel"]),
        ("s.*", ["stem/kernel", "separable/depthwise_kernel"]),
        (re.compile("idd"), ["nested/hidden/kernel"]),
        (
            lambda layer: isinstance(layer, layers.Dense),
            ["nested/hidden/kernel", "logits/kernel"],
        ),
        (lambda layer: layer.name != "separable", ["stem/kernel", "nested/hidden"]),
    ],
    ids=["name", "around", "path", "list", "pattern", "search", "class", "negative"],
)
def test_filters(filters, expected):
    pruned = names(prune_model(models.cnn(), filters=filters))
    # The table gives the beginning of what is pruned, or all of it.
    assert [name[: len(e)] for name, e in zip(pruned, expected, strict=False)] == (
        expected
    )


def test_filters_reach_into_a_block():
    pruned = prune_model(attention(), 0.5, filters="block/.*attention.*")
    assert names(pruned) == [
        f"block/{find_kernels(pruned)[0][0].path.split('/')[1]}/{name}"
        for name in (
            "_query_dense.kernel",
            "_key_dense.kernel",
            "_value_dense.kernel",
            "_output_dense.kernel",
        )
    ]
    wrapper = pruned.get_layer("block")
    assert isinstance(wrapper, PDPWrapper) and len(wrapper.pruned_weights) == 4


@pytest.mark.parametrize(
    ("allocation", "expected"),
    [
        ("uniform", {"first/kernel": 60, "last/kernel": 30}),
        ({"first": 0.75, "last": 0.1}, {"first/kernel": 90, "last/kernel": 6}),
        (lambda weights, sparsity: [sparsity, 0], {"first/kernel": 60}),
    ],
    ids=["uniform", "mapping", "callable"],
)
def test_allocations_that_need_no_warm_up(allocation, expected):
    pruned = prune_model(models.mlp(), 0.5, allocation=allocation)
    targets = {
        w.kernel.full_name: int(w.target_zeros.numpy())
        for w in state.pruned_weights(pruned)
    }
    assert {name: zeros for name, zeros in targets.items() if zeros} == expected


LAMP = GlobalMagnitude(1.0, moving=True, score="lamp")
# id: arguments, what waits for the end of warm-up
DEFAULTS = {
    "pdp": ({}, LAMP),
    "pdp by name": ({"mode": "unstructured", "method": "pdp"}, LAMP),
    "pdp by its other name": ({"method": "idp"}, LAMP),
    "pdp with an object": ({"method": methods.PDP()}, LAMP),
    "pdp with None": ({"allocation": None}, LAMP),
    "pdp with another": ({"allocation": "global"}, GlobalMagnitude()),
    "pdp with none that waits": ({"allocation": "uniform"}, None),
    "pdp of channels": ({"mode": "channel"}, GlobalMagnitude()),
    "pdp of 2:4": ({"mode": "2:4"}, None),
    "pdp_paper": ({"method": "pdp_paper"}, GlobalMagnitude()),
    "pdp_paper of channels": (
        {"method": "pdp_paper", "mode": "channel"},
        GlobalMagnitude(),
    ),
    "pdp_paper of 2:4": ({"method": "pdp_paper", "mode": "2:4"}, None),
    "gmp": ({"method": "gmp"}, GlobalMagnitude()),
    "gmp with lamp": ({"method": "gmp", "allocation": "lamp"}, LAMP),
    "gmp of channels": ({"method": "gmp", "mode": "channel"}, GlobalMagnitude()),
    "dnw": ({"method": "dnw"}, GlobalMagnitude()),
    "str": ({"method": "str"}, GlobalMagnitude()),
    "rigl": ({"method": "rigl"}, GlobalMagnitude()),
    "sr_ste of 2:4": ({"method": "sr_ste", "mode": "2:4"}, None),
    "nisp": ({"method": "nisp", "mode": "channel"}, GlobalMagnitude()),
}


def waiting_for(model):
    """The allocations of all that is pruned, each once."""
    owners = [w for w in state.find_wrappers(model) if isinstance(w, PDPWrapper)]
    return {x.deferred_allocation for x in [*owners, *state.channel_groups(model)]}


@pytest.mark.parametrize(("arguments", "expected"), DEFAULTS.values(), ids=DEFAULTS)
def test_the_default_allocation_is_left_to_the_method(arguments, expected, tmp_path):
    pruned = prune_model(models.mlp(8), **arguments)
    assert waiting_for(pruned) == {expected}
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert waiting_for(loaded) == {expected}


def test_the_config_of_the_default_allocation():
    pruned = prune_model(models.mlp(), 0.5)
    config = pruned.get_layer("first").get_config()
    lamp = {"max_sparsity": 1.0, "moving": True, "score": "lamp"}
    assert config["allocation"] == lamp
    # As those were written that had no other score.
    old = {"max_sparsity": 0.99, "moving": None}
    copy = PDPWrapper.from_config({**config, "allocation": old})
    assert copy.deferred_allocation == GlobalMagnitude(0.99)


@pytest.mark.parametrize("make", [encoder, recurrent], ids=["subclassed", "graph"])
def test_all_layers_share_the_default_allocation(make):
    assert waiting_for(prune_model(make(), 0.5)) == {LAMP}


def test_erk_keeps_the_sum_and_spares_the_small_layer():
    pruned = prune_model(models.cnn(), 0.8, allocation="erk")
    weights = state.pruned_weights(pruned)
    zeros = sum(int(w.target_zeros.numpy()) for w in weights)
    size = sum(w.kernel.size for w in weights)
    assert abs(zeros - 0.8 * size) <= len(weights)
    by_name = {w.kernel.full_name: w.target_sparsity for w in weights}
    assert by_name["logits/kernel"] < by_name["nested/hidden/kernel"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        pruned = prune_model(models.cnn(), 0.5)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    models.set_zeros(pruned)
    pruned.compile("sgd", "mse")
    x = models.random_inputs(pruned)
    history = pruned.fit(x, np.zeros((16, 10)), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert pruned(x).dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize(
    "settings",
    [
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 2},
        {"optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)},
    ],
    ids=["eager", "xla", "steps_per_execution", "gradient_accumulation"],
)
def test_fit_gives_the_same_weights_however_it_is_run(settings):
    def train(settings):
        keras.utils.set_random_seed(1)
        constraint = keras.constraints.MaxNorm(1.0)
        pruned = prune_model(
            models.mlp(kernel_regularizer="l2", kernel_constraint=constraint), 0.5
        )
        models.set_zeros(pruned)
        pruned.compile(
            **{"optimizer": keras.optimizers.SGD(0.1), **settings}, loss="mse"
        )
        x = models.random_inputs(pruned, 32)
        pruned.fit(x, np.tile(x[:, :3], 1), batch_size=8, verbose=0, shuffle=False)
        return pruned.get_weights()

    reference = dict(settings)
    if "optimizer" in settings:
        # Two accumulated batches of 8 are one batch of 16 for a mean of losses.
        settings["optimizer"] = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        reference["optimizer"] = keras.optimizers.SGD(
            0.1, gradient_accumulation_steps=2
        )
        reference["run_eagerly"] = True
    else:
        reference = {}
    for a, b in zip(train(settings), train(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_subclassed_model_trains_saves_and_loads(tmp_path):
    pruned = prune_model(encoder(), 0.5)
    models.set_zeros(pruned)
    pruned.compile("adam", "mse")
    x = inputs_for(encoder())
    logs = pruned.fit(x, np.zeros((8, 4, 3)), epochs=2, verbose=0).history
    assert "own_steps" in logs
    pruned.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    assert isinstance(loaded, models.Encoder)
    assert len(names(loaded)) == len(names(pruned))
    np.testing.assert_array_equal(loaded(x), pruned(x))
    loaded.fit(x, np.zeros((8, 4, 3)), verbose=0)
    # Loaded models can be loaded again.
    loaded.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again(x), loaded(x))


def test_parts_called_one_by_one_are_masked():
    pruned = prune_model(autoencoder(), 0.5)
    models.set_zeros(pruned)
    code = pruned.encoder.get_layer("code")
    assert isinstance(code, PDPWrapper) and isinstance(pruned.decoder, PDPWrapper)
    pruned.compile("sgd")
    x = inputs_for(autoencoder())
    before = pruned.decoder.layer.kernel.numpy().copy()
    pruned.fit(x, x, verbose=0)
    assert np.any(pruned.decoder.layer.kernel.numpy() != before)


def test_inplace_where_a_copy_is_impossible():
    model = Unconfigurable(layers.Dense(4))
    x = np.ones((2, 8), "float32")
    expected = np.asarray(model(x))
    with pytest.raises(ValueError, match=r"inplace=True.*Received: model="):
        prune_model(model, 0.5)
    assert isinstance(model.head, layers.Dense)
    pruned = prune_model(model, 0.5, inplace=True)
    assert pruned is model and isinstance(model.head, PDPWrapper)
    np.testing.assert_array_equal(pruned(x), expected)
    models.set_zeros(pruned)
    assert np.any(np.asarray(pruned(x)) != expected)


class Telling(layers.Dense):
    """Its config tells what its constructor works out, and does not take."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.doubled = 2 * units

    def get_config(self):
        config = super().get_config()
        return {**config, "doubled": self.doubled}


class Numbered(layers.Layer):
    """A layer around one named after it, whose constructor adds to its name."""

    def __init__(self, name=None, **kwargs):
        super().__init__(name=f"{name}_0", **kwargs)
        self.dense = layers.Dense(4, name=f"{self.name}_dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)


def telling(**attributes):
    layer = Telling(4, name="telling")
    for name, value in attributes.items():
        setattr(layer, name, value)
    return keras.Sequential([keras.Input((3,)), layer, layers.Dense(2)])


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_a_config_may_have_what_the_constructor_works_out(mode):
    model = telling()
    pruned = prune_model(model, 0.5, mode)
    assert pruned.layers[0].layer.doubled == 8
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    inputs = models.random_inputs(model)
    np.testing.assert_allclose(stripped(inputs), pruned(inputs), atol=1e-6)
    # Of two channels: the smaller layer works it out for itself.
    left = 2 if mode == "channel" else 4
    assert stripped.layers[0].get_config()["doubled"] == 2 * left


@pytest.mark.parametrize("doubled", [9, np.array([8, 8])])
def test_what_the_copy_would_not_work_out_is_not_left_out(doubled):
    with pytest.raises(ValueError, match=r"copy of itself.*'telling'.*\bdoubled\b"):
        prune_model(telling(doubled=doubled))


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_a_constructor_that_adds_to_the_name_does_not_add_twice(mode):
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(6), Numbered("block"), layers.Dense(2)]
    )
    pruned = prune_model(model, 0.5, mode)
    models.set_zeros(pruned)
    for copy in (pruned, strip_pruning(pruned)):
        assert copy.layers[1].name == "block_0"
        assert copy.layers[1].dense.name == "block_0_dense"


class Hidden:
    """Holds a layer where Keras does not look."""

    def __init__(self, layer):
        self.layer = layer


class Hiding(keras.Model):
    def __init__(self):
        super().__init__()
        dense = layers.Dense(3)
        self._layers.append(dense)
        self.hidden = Hidden(dense)

    def call(self, inputs):
        return self.hidden.layer(inputs)


def tied():
    """Two layers that share one variable."""

    class Tied(layers.Layer):
        def __init__(self, source, **kwargs):
            super().__init__(**kwargs)
            self.source = source

        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.transpose(self.source.kernel))

        def get_config(self):
            return {**super().get_config(), "source": self.source}

    inputs = keras.Input((4,))
    dense = layers.Dense(3, name="dense")
    return keras.Model(inputs, Tied(dense, name="tied")(dense(inputs)))


def built_hiding():
    model = Hiding()
    model(np.zeros((1, 2)))
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prune_model("model"), TypeError, "Received: model='model'"),
        (lambda: prune_model(layers.Dense(2)), TypeError, "PDPWrapper"),
        (
            lambda: prune_model(prune_model(models.mlp())),
            ValueError,
            r"only once.*Received: model='mlp'",
        ),
        (
            lambda: prune_model(models.Encoder()),
            ValueError,
            "must be built.*Received: unbuilt model='encoder'",
        ),
        (
            lambda: prune_model(keras.Sequential([layers.Dense(3)])),
            ValueError,
            "must be built.*Received",
        ),
        (
            lambda: prune_model(models.mlp(), 90),
            ValueError,
            r"\[0, 1\).*Received: sparsity=90",
        ),
        (
            lambda: prune_model(models.mlp(), mode="blocks"),
            ValueError,
            "Received: mode='blocks'",
        ),
        (
            lambda: prune_model(models.mlp(), allocation="magic"),
            ValueError,
            "Received: allocation='magic'",
        ),
        (
            lambda: prune_model(models.mlp(), temperature="warm"),
            TypeError,
            "Received: temperature='warm'",
        ),
        (
            lambda: prune_model(models.mlp(), filters="frist"),
            ValueError,
            r"\['first', 'last'\].*Received: filters='frist'",
        ),
        (
            lambda: prune_model(models.mlp(), filters=["first", "lsat"]),
            ValueError,
            "'lsat' matches none",
        ),
        (
            lambda: prune_model(models.mlp(), filters=lambda layer: False),
            ValueError,
            "at least one",
        ),
        (lambda: prune_model(models.mlp(), filters=[]), ValueError, "at least one"),
        (lambda: prune_model(models.mlp(), filters="("), ValueError, "regular"),
        (lambda: prune_model(models.mlp(), filters=[3]), TypeError, "Received: 3"),
        (
            lambda: prune_model(keras.Sequential([keras.Input((2,)), layers.ReLU()])),
            ValueError,
            "at least one prunable layer.*Received",
        ),
        (
            lambda: prune_model(models.mlp(), inplace=True),
            ValueError,
            "only for subclassed",
        ),
        (
            lambda: prune_model(models.mlp(), allocation={"first": 0.5}),
            ValueError,
            r"no sparsity for \['last/kernel'\]",
        ),
        (lambda: prune_model(tied()), ValueError, "belong to one layer"),
        (lambda: prune_model(built_hiding()), ValueError, "1 chosen.*0 could be"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_lambda_of_python_code_is_copied():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, name="hidden")(inputs)
    doubled = keras.layers.Lambda(lambda x: 2 * x)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3)(doubled))
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    np.testing.assert_array_equal(prune_model(model, 0.5)(x), model(x))
