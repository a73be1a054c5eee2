"""What the accuracy comparison in benchmarks/ rests on; trainings are not run here."""

import csv
import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pdp_keras import PDPWrapper, count_macs, methods

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accuracy_runs
import accuracy_training
from accuracy_gradients import OtherGradientPDP
from accuracy_layers import FastConv2D, FastDepthwiseConv2D
from accuracy_networks import TASKS
from accuracy_recipes import LEARNED, RECIPES, recipe
from accuracy_training import Training

# name: weights in kernels, multiplications
NETWORKS = {
    "lenet": (266_200, 266_200),
    "resnet": (77_328, 725_952),
    "mobilenet": (76_512, 584_760),
}


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 14])
@pytest.mark.parametrize(
    ("fast", "stock", "arguments"),
    [
        (FastConv2D, layers.Conv2D, (5,)),
        (FastDepthwiseConv2D, layers.DepthwiseConv2D, ()),
    ],
)
def test_fast_convolutions_compute_the_stock_ones(
    fast, stock, arguments, size, window, strides
):
    settings = {"strides": strides, "padding": "same", "use_bias": False}
    images = np.random.default_rng(0).normal(size=(2, size, size, 4)).astype("float32")
    ours = fast(*arguments, window, **settings)
    theirs = stock(*arguments, window, **settings)
    expected = theirs(images)
    ours.build(images.shape)
    ours.kernel.assign(theirs.kernel)
    np.testing.assert_allclose(ours(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "figures"), NETWORKS.items())
def test_the_networks(name, figures):
    network = TASKS[name].build(keras)
    kernels = [v for v in network.trainable_variables if len(v.shape) > 1]
    assert network.output_shape == (None, 10)
    assert (sum(np.prod(v.shape) for v in kernels), count_macs(network)) == figures
    assert TASKS[name].images % TASKS[name].batch_size == 0


def test_every_method_is_tuned_with_the_same_effort():
    # Those that learn their sparsity are brought to it; of the others nothing is tuned.
    apart = {*LEARNED, "dense", "gmp_uniform", "tfmot"}
    for kind, candidates in (("unstructured", 3), ("nm", 3), ("channel", 2)):
        for name, recipes in RECIPES[kind].items():
            assert len(recipes) == (1 if name in apart else candidates), (kind, name)


def test_every_method_of_the_table_is_compared():
    for name, method in methods.METHODS.items():
        found = {kind for kind, recipes in RECIPES.items() if name in recipes}
        assert found and found <= set(method.modes), name


def test_a_killed_comparison_goes_on_from_its_file(tmp_path):
    path = tmp_path / "results.csv"
    first = dataclasses.replace(
        recipe("pdp", {"max_gain": None}, prune={"factor": 2.0}, warmup=0.2),
        network="lenet",
        structure="98",
        schedule={"fall": (0.5, 1.5)},
    )
    figures = {name: float(i) for i, name in enumerate(accuracy_runs.FIGURES)}
    accuracy_runs.Results(path).add(first, figures)
    again = accuracy_runs.Results(path)
    assert again[first] == figures
    assert again[dataclasses.replace(first, seed=1)] is None
    again.add(dataclasses.replace(first, seed=1), figures)
    with path.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    # In memory it is as in the file, where digits are lost, and a search goes on alike.
    again.add(dataclasses.replace(first, seed=2), figures | {"sparsity": 2 / 3})
    assert again.rows == accuracy_runs.Results(path).rows
    # Nothing is left to be run, and so no process is started.
    accuracy_runs.run_all([first], accuracy_runs.Results(path), jobs=1)


def test_results_of_before_a_setting_was_new(tmp_path):
    path = tmp_path / "results.csv"
    training = dataclasses.replace(recipe("gmp"), network="lenet", structure="98")
    figures = {name: float(i) for i, name in enumerate(accuracy_runs.FIGURES)}
    accuracy_runs.Results(path).add(training, figures)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    del row["l2"]
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    assert accuracy_runs.Results(path)[training] == figures
    with path.open(newline="") as file:
        (again,) = csv.DictReader(file)
    assert list(again)[-1] == accuracy_runs.FIGURES[-1] and again["l2"] == "0.0"
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_regularizer_of_all_kernels(network):
    training = dataclasses.replace(
        recipe("gmp"), network=network, structure="98", l2=0.5
    )
    model = accuracy_training.build(training)
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
    expected = sum(0.5 * float(np.sum(np.square(v))) for v in kernels)
    np.testing.assert_allclose(sum(model.losses), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        # Half of [1, 2, 3, 4] go: t = 2.5, and the temperature is t².
        ("mask", [1 / (1 + np.exp(1 - (w / 2.5) ** 2)) for w in (1, 2, 3, 4)]),
        ("straight_through", [1, 1, 1, 1]),
    ],
)
def test_other_gradients(gradient, expected):
    layer = layers.Dense(1, use_bias=False)
    wrapper = PDPWrapper(
        layer, sparsity=0.5, method=OtherGradientPDP(gradient=gradient)
    )
    wrapper.build((None, 4))
    layer.kernel.assign([[1.0], [2.0], [3.0], [4.0]])
    (weight,) = wrapper.pruned_weights
    weight.zeros.assign(2)
    wrapper.is_scheduled = True
    with tf.GradientTape() as tape:
        outputs = wrapper(np.ones((1, 4), "float32"), training=True)
    slope = tape.gradient(outputs, layer.kernel.value)
    np.testing.assert_allclose(slope[:, 0], expected, rtol=1e-5)


def test_a_training_is_described_by_what_is_not_the_default():
    plain = Training("lenet", "98", "pdp")
    assert accuracy_runs.describe(plain).split() == ["lenet", "98", "pdp", "sgd", "0"]
    longer = dataclasses.replace(plain, warmup=0.3)
    assert accuracy_runs.describe(longer).endswith('{"warmup": 0.3}')
