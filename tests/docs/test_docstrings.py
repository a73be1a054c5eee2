"""The examples in the docstrings of public names run."""

import doctest
import functools
import inspect
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import pdp_keras
import pdp_keras.plot

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "_ext"))

import public_names

NAMES = public_names.public_names()


def network():
    """Names of layers that the examples use."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="block1")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(8, 1, name="block2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x), name="network")


def mobile():
    """A network whose 1x1 convolutions can run sparse."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 1, name="block.1")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(4)(x), name="mobile")


@functools.cache
def trained():
    """A pruned model after a short run, with its history."""
    model = pdp_keras.prune_model(network(), 0.5)
    x, y = data()
    model.compile("sgd", "mse", metrics=["accuracy"])
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[schedule])
    return model, history


def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(32, 8, 8, 3)).astype("float32")
    return x, generator.normal(size=(32, 4)).astype("float32")


class RoundedDense(layers.Dense):
    """A layer of the same example."""

    def call(self, inputs):
        return inputs @ keras.ops.round(self.kernel) + self.bias


class ScaleLayer(layers.Layer):
    """The layer of the example of `register_channel_rule`."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape):
        self.scale = self.add_weight(shape=(self.size,), name="scale")

    def call(self, inputs):
        return inputs * self.scale


def namespace(name):
    """What the example of a public name is written for."""
    found = {
        **vars(pdp_keras),
        "keras": keras,
        "np": np,
        "os": os,
        "pdp_keras": pdp_keras,
        "ScaleLayer": ScaleLayer,
        "RoundedDense": RoundedDense,
        "model": network(),
        "samples": np.random.default_rng(0).normal(size=(128, 8, 8, 3)),
    }
    if name == "pdp_keras.prune_model":
        found["model"] = mobile()
    if name.startswith("pdp_keras.plot.") or name in AFTER_TRAINING:
        found["model"], found["history"] = trained()
        found |= dict(zip("xy", data(), strict=True))
    if name in DRIVEN:
        x, y = data()
        model = pdp_keras.prune_model(network(), 0.5)
        model.compile("sgd", "mse")
        batches = [(x, y)]
        step = lambda batch: model.train_on_batch(*batch)  # noqa: E731
        found |= {"model": model, "x": x, "y": y, "batches": batches}
        found["train_step"] = step
    return found


DRIVEN = (
    "pdp_keras.AtTarget",
    "pdp_keras.BackupSeeds",
    "pdp_keras.PDPScheduleCallback",
)
AFTER_TRAINING = (
    "pdp_keras.SparsityReport",
    "pdp_keras.sparsity_report",
    "pdp_keras.strip_pruning",
)


class ShownOutput(doctest.OutputChecker):
    """Where the docstring shows no output, none is compared."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def examples(value):
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


@pytest.mark.parametrize("name", [n for n, value in NAMES.items() if callable(value)])
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = examples(NAMES[name])
    assert found, f"{name} has no example"
    test = doctest.DocTest(found, namespace(name), name, None, 0, None)
    complaints = []
    runner = doctest.DocTestRunner(checker=ShownOutput())
    assert runner.run(test, out=complaints.append).failed == 0, "".join(complaints)


def test_faults_are_found():
    everything = set(NAMES)
    assert public_names.faults(everything) == []
    assert public_names.faults(everything - {"pdp_keras.NM"}) == [
        "pdp_keras.NM is public and stands nowhere in the reference"
    ]
