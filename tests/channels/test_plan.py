"""Which channels prune_model(mode="channel") prunes, and how many."""

import channel_models
import keras
import models
import numpy as np
import pytest
import reference
from channel_models import ARCHITECTURES
from keras import layers
from reference import channel_scores

from pdp_keras import (
    Channel,
    GlobalMagnitude,
    PDPScheduleCallback,
    prune_model,
    sparsity_report,
    strip_pruning,
)
from pdp_keras.channels.wrapper import ChannelWrapper
from pdp_keras.pruned import parts


def randomized(make):
    return channel_models.randomize(make())


def targets(pruned):
    return {
        group.label: int(group.target_zeros.numpy())
        for group in parts.channel_groups(pruned)
    }


def prune(name, *arguments, **keywords):
    model = models.cnn if name == "cnn" else ARCHITECTURES[name]
    return prune_model(randomized(model), *arguments, mode="channel", **keywords)


# name: {label: (units, kernels that make them, layers of the group)}
GROUPS = {
    "cnn": {
        "stem": (
            8,
            {"stem/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel"},
            ["nested/hidden", "norm", "separable", "stem"],
        ),
        "nested/hidden": (12, {"nested/hidden/kernel"}, ["logits", "nested/hidden"]),
    },
    "residual": {
        "stem": (
            6,
            {"stem/kernel", "out0/kernel", "out1/kernel"},
            ["in0", "in1", "o", "out0", "out1", "stem"],
        ),
        "in0": (5, {"in0/kernel"}, ["batch_normalization", "in0", "out0"]),
        "in1": (5, {"in1/kernel"}, ["batch_normalization_1", "in1", "out1"]),
    },
    "sequential": {
        "a": (6, {"a/kernel"}, ["a", "b", "batch_normalization"]),
        "b": (4, {"b/kernel"}, ["b", "c"]),
        "c": (5, {"c/kernel"}, ["c", "o"]),
    },
    "unknown_layer": {
        "a": (6, {"a/kernel"}, ["a"]),
        "b": (5, {"b/kernel"}, ["b", "o"]),
    },
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name):
    pruned = prune(name, 0.5)
    found = {
        group.label: (group.units, {m.path for m in group.makers}, group.layer_paths)
        for group in parts.channel_groups(pruned)
    }
    assert found == GROUPS[name]
    not_removable = {g.label for g in parts.channel_groups(pruned) if not g.removable}
    assert not_removable == ({"a"} if name == "unknown_layer" else set())
    assert set(targets(pruned).values()) == {-1}  # until the end of warm-up


def test_only_layers_with_work_are_wrapped():
    pruned = prune("residual", 0.5, filters="in0")
    wrapped = {w.name for w in parts.find_wrappers(pruned)}
    assert wrapped == {"in0", "out0"}
    assert all(isinstance(w, ChannelWrapper) for w in parts.find_wrappers(pruned))


@pytest.mark.parametrize("name", ["cnn", "residual", "layer_normalizations", "mha"])
def test_a_pruned_model_starts_as_the_original(name):
    model = randomized(models.cnn if name == "cnn" else ARCHITECTURES[name])
    names = [layer.name for layer in model.layers]
    weights = [w.copy() for w in model.get_weights()]
    pruned = prune_model(model, 0.5, "channel")
    assert [layer.name for layer in pruned.layers] == names
    inputs = channel_models.inputs_for(model)[0]
    expected = np.asarray(model(inputs))
    # Statistics of a normalization are summed in another order.
    tolerance = 0 if name in ("cnn", "residual") else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(pruned(inputs), expected, rtol=0, atol=tolerance)
    models.set_zeros(pruned)
    for variable in pruned.trainable_variables:
        variable.assign(variable + 1)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model(inputs), expected)


# id: architecture, filters, labels
FILTERS = {
    "all": ("residual", None, {"stem", "in0", "in1"}),
    "by-name": ("residual", "in0", {"in0"}),
    "by-pattern": ("residual", "in.*", {"in0", "in1"}),
    # The residual sum is made by stem, out0 and out1: all of them or none.
    "one-maker-is-not-chosen": ("residual", ["stem", "out0", "in1"], {"in1"}),
    "all-makers-are-chosen": ("residual", ["stem", "out.*"], {"stem"}),
    "callable": ("residual", lambda layer: layer.name == "in1", {"in1"}),
    # A depthwise kernel follows, and need not be chosen.
    "depthwise": ("inverted_residual", ["expand", "excite"], {"expand"}),
    "gate-is-not-chosen": ("inverted_residual", ["expand", "squeeze"], {"squeeze"}),
    "heads": ("mha", "mha", {"mha"}),
    "nested": ("cnn", "nested", {"nested/hidden"}),
    "beside-an-unknown-layer": ("unknown_layer", "b", {"b"}),
    "before-an-unknown-layer": ("unknown_layer", "a", {"a"}),
}


@pytest.mark.parametrize(("name", "filters", "labels"), FILTERS.values(), ids=FILTERS)
def test_filters(name, filters, labels):
    assert targets(prune(name, 0.5, filters=filters)).keys() == labels


# id: arguments of prune_model, targets of the groups of 6, 5 and 5 units
ALLOCATIONS = {
    "uniform": ({"allocation": "uniform"}, {"stem": 3, "in0": 2, "in1": 2}),
    "erk": ({"allocation": "erk"}, {"stem": 3, "in0": 2, "in1": 2}),
    "mapping": (
        {"allocation": {"stem": 0.5, "in0": 0.2, "in1": 0.8}},
        {"stem": 3, "in0": 1, "in1": 4},
    ),
    "callable": (
        {"allocation": lambda infos, _: [info.values.size / 10 for info in infos]},
        {"stem": 4, "in0": 2, "in1": 2},
    ),
    "round": (
        {"mode": Channel(round_to=4), "allocation": "uniform"},
        {"stem": 2, "in0": 1, "in1": 1},
    ),
    "floor": (
        {"mode": Channel(min_channels=4), "allocation": "uniform"},
        {"stem": 2, "in0": 1, "in1": 1},
    ),
    # Groups that are too small for the floor are left alone.
    "high-floor": (
        {"mode": Channel(min_channels=5), "allocation": "uniform"},
        {"stem": 1},
    ),
    "default-sparsity": (
        {"sparsity": None, "allocation": "uniform"},
        {"stem": 3, "in0": 2, "in1": 2},
    ),
}


@pytest.mark.parametrize(
    ("arguments", "expected"), ALLOCATIONS.values(), ids=ALLOCATIONS
)
def test_allocations(arguments, expected):
    model = randomized(ARCHITECTURES["residual"])
    pruned = prune_model(model, **{"sparsity": 0.5, "mode": "channel", **arguments})
    assert targets(pruned) == expected


@pytest.mark.parametrize("max_sparsity", (1.0, 0.6))
def test_global_targets_are_one_ranking_of_all_scores(max_sparsity):
    model = randomized(ARCHITECTURES["residual"])
    pruned = prune_model(
        model, 0.5, "channel", allocation=GlobalMagnitude(max_sparsity)
    )
    parts.fix_targets(pruned)
    makers = {"stem": ("stem", "out0", "out1"), "in0": ("in0",), "in1": ("in1",)}
    scores = [
        channel_scores(
            [(model.get_layer(name).kernel.numpy(), 3, None) for name in names],
            model.get_layer(names[0]).filters,
            "l2",
        )
        for names in makers.values()
    ]
    counts = reference.global_counts(scores, 0.5, max_sparsity)
    limits = [min(count, scores[i].size - 1) for i, count in enumerate(counts)]
    assert sum(counts) == 8
    assert targets(pruned) == dict(zip(makers, limits, strict=True))


def test_no_group_dies_whatever_the_allocation_wants():
    model = randomized(ARCHITECTURES["residual"])
    model.get_layer("in0").kernel.assign(
        1e-6 * np.random.default_rng(0).normal(size=(3, 3, 6, 5))
    )
    pruned = prune_model(model, 0.9, "channel", allocation=GlobalMagnitude(1.0))
    models.set_zeros(pruned)
    left = {g.label: int(g.kept().sum()) for g in parts.channel_groups(pruned)}
    assert min(left.values()) >= 1
    assert strip_pruning(pruned).get_layer("in0").filters == left["in0"]


@pytest.mark.parametrize("activation", (None, "sigmoid"))
def test_channels_that_an_unknown_layer_sees_stay_as_zeros(activation):
    inputs = keras.Input((8,))
    x = layers.Dense(6, name="a", activation=activation)(inputs)
    x = channel_models.Doubling()(x)
    model = keras.Model(inputs, layers.Dense(3, name="o")(x))
    pruned = prune_model(channel_models.randomize(model), 0.5, "channel")
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    sample = channel_models.inputs_for(model)[0]
    np.testing.assert_array_equal(stripped(sample), pruned(sample))
    assert stripped.count_params() == model.count_params()
    a = stripped.get_layer("a")
    scores = channel_scores([(model.get_layer("a").kernel.numpy(), 1, None)], 6, "l2")
    dead = reference.smallest(scores, 3)
    np.testing.assert_array_equal(~a.kernel.numpy().any(axis=0), dead)
    np.testing.assert_array_equal(a.bias.numpy() == 0, dead)
    (row,) = [r for r in sparsity_report(pruned).rows if r.layer == "a"]
    assert row.channels == (3, 6)
    assert row.kept_as_zeros.startswith("kept as zeros: layer 'doubling'")


def test_an_unknown_layer_in_training():
    """Its inputs are masked softly where they are made, bias and all."""
    pruned = prune("unknown_layer", 0.5, allocation="uniform", filters="a")
    models.set_zeros(pruned)
    (group,) = parts.channel_groups(pruned)
    mask = np.asarray(group.mask(training=True))
    wrapper = pruned.get_layer("a")
    inputs = np.ones((2, 8), "float32")
    expected = np.asarray(wrapper.layer(inputs)) * mask
    np.testing.assert_allclose(wrapper(inputs, training=True), expected, rtol=1e-5)


def encoder():
    model = models.Encoder()
    inputs = np.random.default_rng(1).normal(size=(8, 4, 8)).astype("float32")
    model(inputs)
    return channel_models.randomize(model), inputs


def test_a_subclassed_model_has_groups_of_one_kernel():
    model, inputs = encoder()
    pruned = prune_model(model, 0.5, "channel", allocation="uniform")
    np.testing.assert_array_equal(pruned(inputs), model(inputs))
    groups = parts.channel_groups(pruned)
    assert [(group.units, group.removable) for group in groups] == [
        (16, False),
        (8, False),
        (16, False),
        (8, False),
        (8, False),
    ]
    # Not the head, which makes the outputs, and not the attention.
    assert [group.label for group in groups if "dense" not in group.label] == [
        "stem/project"
    ]
    reasons = {r.kept_as_zeros for r in sparsity_report(pruned).rows if r.kept_as_zeros}
    assert reasons == {
        "kept as zeros: a subclassed model has no graph to remove channels from"
    }
    models.set_zeros(pruned)
    assert sparsity_report(pruned).sparsity == 0.5


@pytest.mark.slow
def test_a_subclassed_model_is_trained_saved_loaded_and_stripped(tmp_path):
    model, inputs = encoder()
    pruned = prune_model(model, 0.5, "channel")
    pruned.compile(keras.optimizers.Adam(1e-2), "mse")
    schedule = PDPScheduleCallback(ramp_epochs=2)
    history = pruned.fit(
        inputs,
        np.tanh(inputs[..., :3]),
        batch_size=4,
        epochs=4,
        verbose=0,
        callbacks=[schedule],
    ).history
    # After half of the ramp 7/8 of the target.
    np.testing.assert_allclose(history["sparsity"], [7 / 16, 0.5, 0.5, 0.5], atol=0.02)
    assert history["loss"][-1] < history["loss"][0]
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), pruned(inputs))
    assert targets(loaded) == targets(pruned)
    for net in (loaded, pruned):
        stripped = strip_pruning(net)
        assert type(stripped) is models.Encoder
        np.testing.assert_array_equal(stripped(inputs), pruned(inputs))
    report = sparsity_report(stripped)
    assert report.zeros == sparsity_report(pruned).zeros > 0


def test_filters_choose_the_output_layer_of_a_subclassed_model():
    """Who names it, wants it; without a graph nobody else could say."""
    model, _ = encoder()
    pruned = prune_model(model, 0.5, "channel", allocation="uniform", filters="head")
    assert targets(pruned) == {"head": 2}


class Branching(keras.Model):
    """What it computes depends on its inputs: a symbolic call is no use."""

    def __init__(self, hidden):
        super().__init__(name="branching")
        self.hidden = hidden
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        x = self.hidden(inputs)
        if float(keras.ops.sum(inputs)) > 0:
            x = -x
        return self.head(x)


def test_outputs_that_cannot_be_traced_need_filters():
    model = Branching(layers.Dense(6, name="hidden"))
    inputs = np.ones((2, 4), "float32")
    model(inputs)
    message = r"Say with `filters` which layers.*Received: model='branching' \("
    with pytest.raises(ValueError, match=message):
        prune_model(model, 0.5, "channel", inplace=True)
    pruned = prune_model(model, 0.5, "channel", filters="hidden", inplace=True)
    assert pruned is model
    models.set_zeros(pruned)
    expected = np.asarray(pruned(inputs))
    stripped = strip_pruning(pruned)
    assert stripped is model and type(model) is Branching
    np.testing.assert_array_equal(stripped(inputs), expected)
    assert np.count_nonzero(~stripped.hidden.kernel.numpy().any(axis=0)) == 3


class TwoHeads(Branching):
    """The two heads make the outputs; nothing but an activation comes behind."""

    def __init__(self, hidden):
        super().__init__(hidden)
        self.other = layers.Dense(2, name="other")

    def call(self, left, right):
        x = self.hidden(left) + right
        return {"a": keras.ops.relu(self.head(x)), "b": self.other(x)}


class OfOneDict(TwoHeads):
    def call(self, inputs):
        return super().call(inputs["left"], inputs["right"])


def test_keras_records_one_input_shape_of_several_so_filters_are_needed():
    model = TwoHeads(layers.Dense(6, name="hidden"))
    model(np.ones((2, 4)), np.ones((2, 6)))
    with pytest.raises(ValueError, match="Say with `filters` which layers"):
        prune_model(model, 0.5, "channel", inplace=True)


def test_output_layers_of_a_dict_of_inputs_are_found():
    model = OfOneDict(layers.Dense(6, name="hidden"))
    model({"left": np.ones((2, 4)), "right": np.ones((2, 6))})
    pruned = prune_model(model, 0.5, "channel", allocation="uniform", inplace=True)
    assert targets(pruned) == {"hidden": 3}


def test_outputs_behind_an_unknown_layer_are_not_pruned():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="hidden")(inputs)
    logits = layers.Dense(6, name="logits")(hidden)
    model = keras.Model(inputs, channel_models.Doubling()(logits))
    pruned = prune_model(model, 0.5, "channel", allocation="uniform")
    assert targets(pruned) == {"hidden": 4}


# id: call, message
ERRORS = {
    "nothing-to-prune": (
        lambda: prune_model(
            keras.Sequential([keras.Input((4,)), layers.Dense(2)]), mode="channel"
        ),
        "channels that can be pruned.*Received: model='sequential.*chosen",
    ),
    "one-of-the-makers": (lambda: prune("residual", 0.5, filters="out0"), "chosen"),
    "floor": (
        lambda: prune_model(ARCHITECTURES["residual"](), mode=Channel(min_channels=6)),
        "channels that can be pruned",
    ),
    "missing": (
        lambda: prune("residual", 0.5, allocation={"stem": 0.5}),
        r"Received: no sparsity for \['in0', 'in1'\]",
    ),
    "unknown": (
        lambda: prune("residual", 0.5, allocation={"o": 0.5}),
        r"of \['in0', 'in1', 'stem'\]. Received: \['o'\]",
    ),
    "filter": (lambda: prune("residual", 0.5, filters="no_such"), "no_such"),
    "sparsity": (lambda: prune("residual", 1.0), r"in \[0, 1\).*sparsity=1.0"),
    "twice": (lambda: prune_model(prune("sequential", 0.5)), "pruned only once"),
    "inplace": (lambda: prune("residual", 0.5, inplace=True), "inplace=True is only"),
    "unbuilt": (
        lambda: prune_model(keras.Sequential([layers.Dense(2)]), mode="channel"),
        "must be built",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
