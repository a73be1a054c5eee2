"""sparsity_report: everything is in it, pruned or not, and it reads well."""

import json

import channel_models
import models
import numpy as np
import pytest

from pdp_keras import prune_model, sparsity_report, strip_pruning
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
    not_chosen = "no channels that are pruned, or not chosen by `filters`"
    assert reasons["stem", "kernel"] == not_chosen
    assert [row.layer for row in report.rows] == ["nested/hidden", "logits"]
