"""sparsity_report: everything is in it, pruned or not, and it reads well."""

import json

import channel_models
import keras
import models
import numpy as np
import pytest
from keras import layers

import pdp_keras
from pdp_keras import prune_model, sparsity_report, strip_pruning
from pdp_keras.channels.rules import base
from pdp_keras.models.kernels import find_kernels


def pruned_mlp():
    pruned = prune_model(models.mlp(), 0.5, filters="first")
    models.set_zeros(pruned)
    return pruned


def test_text():
    assert str(sparsity_report(pruned_mlp())) == (
        "Sparsity of 'mlp': 50.00% of the pruned weights, 29.56% of the model\n"
        "\n"
        "pruned weight  shape   size  target  sparsity  zeros\n"
        "-------------  ------  ----  ------  --------  -----\n"
        "first/kernel   6 x 20   120  50.00%    50.00%     60\n"
        "all of these            120            50.00%     60\n"
        "\n"
        "weight left dense  shape   size  reason\n"
        "-----------------  ------  ----  -----------------------\n"
        "last/kernel        20 x 3    60  not chosen by `filters`\n"
        "first/bias         20        20  not a kernel\n"
        "last/bias          3          3  not a kernel"
    )


def test_dict_is_json_and_complete():
    report = sparsity_report(pruned_mlp()).to_dict()
    assert json.loads(json.dumps(report))["zeros"] == 60
    assert report["size"] == 120 and report["sparsity"] == 0.5
    assert report["rows"][0]["layer"] == "first"
    assert report["rows"][0]["threshold"] > 0
    sizes = [row["size"] for row in (*report["rows"], *report["skipped"])]
    assert sum(sizes) == models.mlp().count_params()


def test_before_the_allocation_there_is_no_target():
    report = sparsity_report(prune_model(models.mlp(), 0.5))
    assert [row.target for row in report.rows] == [None, None]
    assert report.sparsity == 0 and "-" in str(report)


def test_every_weight_is_listed_with_its_reason():
    model = models.cnn()
    report = sparsity_report(prune_model(model, 0.5))
    listed = sum(row.size for row in (*report.rows, *report.skipped))
    assert listed == model.count_params()
    reasons = {w.layer: w.reason for w in report.skipped}
    assert reasons["norm"].startswith("normalization")
    assert reasons["nested/hidden"] == "not a kernel"


@pytest.mark.parametrize("make", [models.mlp, models.cnn])
def test_a_plain_model_shows_the_zeros_it_has(make):
    pruned = prune_model(make(), 0.5)
    models.set_zeros(pruned)
    before, after = sparsity_report(pruned), sparsity_report(strip_pruning(pruned))
    assert [row.zeros for row in after.rows] == [row.zeros for row in before.rows]
    assert all(row.target is None and row.threshold is None for row in after.rows)
    assert sparsity_report(make()).zeros == 0


def pruned_by_channels(make, **arguments):
    model = channel_models.randomize(make())
    pruned = prune_model(model, 0.5, "channel", **arguments)
    models.set_zeros(pruned)
    return pruned


def test_text_of_channels():
    # The unknown layer keeps what `a` makes; `b` is made smaller.
    reason = (
        "kept as zeros: layer 'doubling' of class Doubling has no channel rule: see "
        "pdp_keras.register_channel_rule"
    )
    pruned = pruned_by_channels(channel_models.ARCHITECTURES["unknown_layer"])
    assert str(sparsity_report(pruned)) == (
        "Sparsity of 'functional': 54.84% of the pruned weights, 47.66% of the model\n"
        "\n"
        "pruned weight  shape  size  target  sparsity  zeros  channels left\n"
        "-------------  -----  ----  ------  --------  -----  -------------\n"
        "a/kernel       8 x 6    48  50.00%    50.00%     24         3 of 6\n"
        "b/kernel       6 x 5    30  60.00%    60.00%     18         2 of 5\n"
        "o/kernel       5 x 3    15       -    60.00%      9\n"
        "all of these            93            54.84%     51\n"
        "\n"
        "not removed  reason\n"
        f"{'-' * 11}  {'-' * len(reason)}\n"
        f"a/kernel     {reason}\n"
        "\n"
        "weight left dense  shape  size  reason\n"
        "-----------------  -----  ----  ------------\n"
        "a/bias             6         6  not a kernel\n"
        "b/bias             5         5  not a kernel\n"
        "o/bias             3         3  not a kernel"
    )


def test_rows_of_channels():
    report = sparsity_report(pruned_by_channels(models.cnn, allocation="uniform"))
    assert json.loads(json.dumps(report.to_dict()))["rows"][0]["channels"] == [4, 8]
    found = {
        f"{row.layer}/{row.weight}": (row.channels, row.group, row.target, row.zeros)
        for row in report.rows
    }
    assert found == {
        "stem/kernel": ((4, 8), "stem", 0.5, 27 * 4),
        "separable/depthwise_kernel": ((4, 8), "stem", 0.5, 9 * 4),
        # Half of its inputs and half of its outputs.
        "separable/pointwise_kernel": ((4, 8), "stem", 0.5, 64 - 16),
        "nested/hidden/kernel": ((6, 12), "nested/hidden", 0.5, 6144 * 3 // 4),
        # It makes the model's outputs, and reads what is pruned.
        "logits/kernel": (None, None, None, 60),
    }
    assert {row.threshold for row in report.rows} == {None}
    assert {row.kept_as_zeros for row in report.rows} == {""}
    listed = sum(row.size for row in (*report.rows, *report.skipped))
    assert listed == models.cnn().count_params()


@pytest.mark.parametrize("name", ["residual", "mha", "recurrent_states", "inception"])
def test_the_zeros_of_channels_are_what_stripping_removes(name):
    pruned = pruned_by_channels(channel_models.ARCHITECTURES[name])
    rows = {f"{r.layer}/{r.weight}": r for r in sparsity_report(pruned).rows}
    kernels = find_kernels(strip_pruning(pruned))[0]
    assert rows.keys() <= {kernel.full_name for kernel in kernels}
    for kernel in kernels:
        if kernel.full_name in rows:
            row = rows[kernel.full_name]
            assert row.size - row.zeros == kernel.size, kernel.full_name
            assert np.all(kernel.variable)


def test_channels_before_the_allocation():
    model = prune_model(models.cnn(), 0.5, "channel")
    report = sparsity_report(model)
    assert {row.target for row in report.rows} == {None}
    assert report.zeros == 0 and " 8 of 8\n" in str(report)


def test_kernels_whose_channels_stay_say_why():
    model = channel_models.randomize(models.cnn())
    report = sparsity_report(prune_model(model, 0.5, "channel", filters="nested"))
    reasons = {(w.layer, w.weight): w.reason for w in report.skipped}
    not_chosen = "'stem', which makes them, is not chosen by `filters`"
    assert reasons["stem", "kernel"] == not_chosen
    assert [row.layer for row in report.rows] == ["nested/hidden", "logits"]


def test_frozen_layers_are_marked():
    model = models.mlp()
    model.layers[0].trainable = False
    for mode in ("unstructured", "channel"):
        report = sparsity_report(prune_model(model, 0.5, mode))
        assert [row.frozen for row in report.rows][:2] == [True, False]
        first, second = (f"{row.layer}/{row.weight}" for row in report.rows[:2])
        assert f"\n{first} (frozen)  " in str(report)
        assert f"\n{second}  " in str(report)
        assert report.to_dict()["rows"][0]["frozen"] is True


def attention_over_places():
    """CBAM: a gate for each place, made of what all channels have there."""
    x = i = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="c")(x)
    found = [keras.ops.mean(x, -1, keepdims=True), keras.ops.max(x, -1, keepdims=True)]
    gate = layers.Conv2D(1, 3, padding="same", name="gate")(layers.Concatenate()(found))
    x = layers.Conv2D(6, 1, name="d")(x * keras.ops.sigmoid(gate))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(i, layers.Dense(2, name="out")(x))


def test_what_stopped_the_channels_of_a_kernel_that_is_left_dense():
    pruned = prune_model(attention_over_places(), 0.5, "channel", filters="c|d|gate")
    for model in (pruned, keras.models.clone_model(pruned)):
        skipped = sparsity_report(model).skipped
        reasons = {w.layer: w.reason for w in skipped if w.weight == "kernel"}
        assert reasons["c"].endswith("(Mean) mixes them, and not by a kernel")


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Rounded(layers.Dense):
    """Computes with another kernel, which no rule foresees."""

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.round(self.kernel * 16) / 16) + self.bias


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Pair(layers.Layer):
    """Two layers in one, without a rule."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(6), layers.Dense(8)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 6))

    def call(self, x):
        return self.second(self.first(x))


ROUNDED = (
    "layer 'own' of class Rounded has no channel rule: see "
    "pdp_keras.register_channel_rule, and if its own `call` does to channels what that "
    "of Dense does, say pdp_keras.register_channel_rule(Rounded, Dense)"
)
PAIR = (
    "layer 'own' of class Pair has no channel rule: see pdp_keras.register_channel_rule"
)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(lambda: Rounded(8, name="own"), ROUNDED), (lambda: Pair(name="own"), PAIR)],
    ids=["Rounded", "Pair"],
)
def test_layers_without_a_rule_are_named_in_report_and_error(layer, reason):
    inputs = [keras.Input((5,))]
    model = keras.Sequential([*inputs, layers.Dense(6, name="a"), layer()])
    report = sparsity_report(prune_model(model, 0.5, "channel"))
    assert [row.kept_as_zeros for row in report.rows] == [f"kept as zeros: {reason}"]
    own = [w.reason for w in report.skipped if w.weight == "kernel"]
    assert set(own) == {reason}
    alone = keras.Sequential([keras.Input((8,)), layer()])
    with pytest.raises(ValueError, match="The model must have channels") as error:
        prune_model(alone, 0.5, "channel")
    text = str(error.value)
    assert reason in text
    assert "`rule = pdp_keras.ChannelRule(lambda call: call.first())`" in text


def test_the_rule_of_another_class_may_be_taken_over(monkeypatch):
    monkeypatch.setitem(base.RULES, Rounded, None)  # removed again after the test
    pdp_keras.register_channel_rule(Rounded, layers.Dense)
    middle = Rounded(8, name="own")
    model = keras.Sequential([keras.Input((5,)), middle, layers.Dense(2)])
    pruned = prune_model(model, 0.5, "channel", allocation="uniform")
    models.set_zeros(pruned)
    assert strip_pruning(pruned).layers[0].units == 4
    with pytest.raises(TypeError, match=r"or a class that has one\. Received: rule="):
        pdp_keras.register_channel_rule(Rounded, Pair)
