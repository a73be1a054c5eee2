"""sparsity_report: everything is in it, pruned or not, and it reads well."""

import json

import models
import pytest

from pdp_keras import prune_model, sparsity_report, strip_pruning


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
