"""Will it be faster on the device: what each layer is told, before and after."""

import keras
import numpy as np
import pytest
from image_models import mobile, randomized, zero_pointwise
from keras import layers

import pdp_keras
from pdp_keras.pruned import parts
from pdp_keras.targets.report import RUNS


def runs(check):
    return {row.layer: row.runs for row in check.layers}


def small(**arguments):
    # Its layers have automatic names, whatever was built when the tests were collected.
    keras.utils.clear_session()
    return randomized(mobile(**arguments))


def test_a_stock_network_could_run_sparse():
    check = pdp_keras.deploy_check(small(), "xnnpack")
    assert runs(check)["stem"] == "beside"
    assert runs(check)["last"] == "sparse with more zeros"
    assert runs(check)["logits"] == "dense"
    assert check.prunable == (
        *("conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4", "conv2d_5"),
        "last",
    )
    assert (check.sparsity, check.runs_sparse, check.turned) == (0.0, False, True)
    text = str(check)
    assert "they run sparse with more than 66.7%" in text
    assert "prune them to more than 66.7%" in text


def test_a_pruned_network_runs_sparse():
    check = pdp_keras.deploy_check(zero_pointwise(small(), 0.85), "xnnpack")
    assert check.runs_sparse
    assert set(runs(check).values()) == {"sparse", "beside", "dense"}
    assert check.sparsity == pytest.approx(0.85, abs=0.01)
    assert "so they run sparse" in check.summary


def test_the_rule_that_stops_a_network_is_named():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 7, strides=2, padding="same", name="wide_stem")(inputs)
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    check = pdp_keras.deploy_check(zero_pointwise(randomized(model)), "xnnpack")
    assert check.prunable == ()
    assert "wide_stem: it is a 7x7 convolution" in check.summary
    (stem, pointwise) = check.layers
    assert "only 1x1 with stride 1" in stem.reason
    assert stem.remedy
    assert "it reads what comes from or goes to a CONV_2D" in pointwise.reason


def test_what_breaks_a_rule_is_named_before_its_company():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(inputs)
    x = layers.Conv2D(8, 3, padding="same", name="full")(x)
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    check = pdp_keras.deploy_check(zero_pointwise(randomized(model)), "xnnpack")
    assert check.summary.startswith("everything runs dense; full: it is a 3x3")
    assert [row.runs for row in check.layers] == ["dense"] * 3


def test_the_model_stays_as_it_was():
    model = small()
    before = [v.numpy() for v in model.variables]
    nodes = [len(x._inbound_nodes) for x in model.layers]
    pdp_keras.deploy_check(model, "xnnpack")
    assert all(map(np.array_equal, before, [v.numpy() for v in model.variables]))
    assert nodes == [len(x._inbound_nodes) for x in model.layers]


def test_an_npu_wants_groups_of_four():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 8)),
            layers.Conv2D(4, 1, name="half"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(4, 3, name="whole"),
            layers.Flatten(),
            layers.Dense(3, name="short"),
        ]
    )
    randomized(model)
    kernel = model.get_layer("half").kernel
    kernel.assign(kernel * np.array([1, 0, 0, 1, 0, 1, 1, 0])[:, None])
    check = pdp_keras.deploy_check(model, "ethos-u")
    assert runs(check) == {
        "half": "sparse",
        "depthwise": "compressed",
        "whole": "compressed",
        "short": "compressed",
    }
    assert check.prunable == ("half", "whole", "short")
    assert "no input channels" in check.layers[1].reason
    assert 'mode="2:4"' in check.layers[2].remedy


def test_nothing_is_promised_for_no_device_in_particular():
    check = pdp_keras.deploy_check(small(), "generic")
    assert not check.runs_sparse
    assert "nothing faster" in check.summary
    # A check of every kind can be written down.
    dictionary = check.to_dict()
    assert dictionary["layers"][0]["layer"] == "stem"
    assert {row["runs"] for row in dictionary["layers"]} <= set(RUNS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda: (small(), "xnpack"), ValueError, r"one of \['generic', 'xnnpack'"),
        (lambda: (small(), None), ValueError, r"Received: target=None"),
        (lambda: ("model", "xnnpack"), TypeError, r"Received: model='model'"),
        (
            lambda: (pdp_keras.prune_model(small()), "xnnpack"),
            ValueError,
            r"free of pruning wrappers: check",
        ),
        (
            lambda: (mobile(size=None), "xnnpack"),
            ValueError,
            r"Every size but the batch must be fixed",
        ),
        (
            lambda: (keras.Sequential([layers.Dense(2)]), "generic"),
            ValueError,
            r"must be built",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        pdp_keras.deploy_check(*arguments())


# prune_model(target=...)


def test_prune_for_xnnpack_chooses_what_pays():
    pruned = pdp_keras.prune_model(small(), 0.85, target="xnnpack")
    # Not LAMP's, which spares small layers.
    found = {w.deferred_allocation for w in parts.find_wrappers(pruned)}
    assert found == {pdp_keras.GlobalMagnitude()}
    chosen = [x.name for x in pruned.layers if isinstance(x, pdp_keras.PDPWrapper)]
    assert chosen == [
        *(f"conv2d{i}" for i in ("", *(["_1", "_2", "_3", "_4", "_5"]))),
        "last",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 0.5}, r"above 0.6667 for target 'xnnpack'.*\n?.*sparsity=0.5"),
        ({"mode": "2:4"}, r"above 0.6667 for target 'xnnpack'"),
        ({"target": "phone"}, r"Received: target='phone'"),
    ],
)
def test_prune_refuses_what_would_not_be_faster(arguments, message):
    with pytest.raises(ValueError, match=message):
        pdp_keras.prune_model(small(), **{"target": "xnnpack", **arguments})


def test_prune_refuses_a_network_that_cannot_run_sparse():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r'prune its channels with mode="channel"'):
        pdp_keras.prune_model(model, 0.9, target="xnnpack")


def test_filters_of_ones_own_are_kept_with_a_warning():
    with pytest.warns(UserWarning, match=r"of 1 of the layers.*'logits'"):
        pruned = pdp_keras.prune_model(
            small(), 0.9, target="xnnpack", filters=["last", "logits"]
        )
    chosen = [x.name for x in pruned.layers if isinstance(x, pdp_keras.PDPWrapper)]
    assert chosen == ["last", "logits"]


def test_channels_and_npus():
    pdp_keras.prune_model(small(), 0.3, mode="channel", target="xnnpack")
    pruned = pdp_keras.prune_model(small(), mode="2:4", target="ethos-u")
    chosen = [x.name for x in pruned.layers if isinstance(x, pdp_keras.PDPWrapper)]
    assert chosen[-2:] == ["last", "logits"]
    assert not any("depthwise" in name for name in chosen)
