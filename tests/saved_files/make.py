"""Makes the files of `tests/pruned/test_saved_files.py`, with the package as it is now.

    python tests/saved_files/make.py FOLDER

Those beside this script were made by 0.1.0 of 26 November 2026, before the modules of
the package moved into sub-packages: what users have saved must go on loading. Each is
a model in the middle of its ramp, with its optimizer; `expected.npz` has what it
predicts for `inputs`, the zeros of each weight, what the stripped model predicts, and
what the model predicts once it has been trained to the end.
"""

import sys
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers

import pdp_keras

INPUTS = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype("float32")
EPOCHS, SAVED_AFTER = 5, 3
# What each file's model was pruned with.
CASES = {
    "unstructured": {},
    "unstructured_uniform": {"allocation": "uniform", "temperature": 1e-3},
    "unstructured_global": {"allocation": "global"},
    "2_4": {"sparsity": None, "mode": "2:4"},
    "1_4_sr_ste": {"sparsity": None, "mode": "1:4", "method": "sr_ste"},
    "pdp_paper": {"method": "pdp_paper"},
    "str": {"method": "str"},
    "optg": {"method": "optg"},
    "rigl": {"method": "rigl"},
    "soft_movement": {"method": "soft_movement"},
    "channel": {"mode": "channel"},
    "channel_dcp": {"mode": "channel", "method": "dcp"},
    "channel_scp": {"mode": "channel", "method": "scp"},
    "subclassed": {},
    "subclassed_2_4": {"sparsity": None, "mode": "2:4"},
}


@keras.saving.register_keras_serializable("pdp_keras_saved_files")
class Small(keras.Model):
    """A subclassed model with layers in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.hidden = [layers.Dense(8, activation="relu", name="hidden")]
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        x = self.flatten(inputs)
        for layer in self.hidden:
            x = layer(x)
        return self.head(x)


def graph():
    """A convolution, a residual around another, and a Dense layer."""
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    branch = layers.Conv2D(8, 1, name="branch")(x)
    x = layers.Add(name="add")([x, branch])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="graph")


def make(case):
    """The compiled model of a case, before training."""
    keras.utils.set_random_seed(1)
    model = graph()
    if case.startswith("subclassed"):
        model = Small(name="small")
        model(INPUTS)
    model = pdp_keras.prune_model(model, **{"sparsity": 0.5, **CASES[case]})
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


class _Stop(keras.callbacks.Callback):
    """Ends training after so many epochs of a run that was to be longer."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == SAVED_AFTER


def fit(model, begin, *callbacks):
    """Trains from epoch `begin` on: one epoch of warm-up, three of ramp, one more."""
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3)
    model.fit(
        INPUTS,
        INPUTS.mean(axis=(1, 2)),
        batch_size=4,
        shuffle=False,
        initial_epoch=begin,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[schedule, *callbacks],
    )


def observed(model):
    """What a model predicts now, its zeros, and what it predicts when stripped."""
    report = pdp_keras.sparsity_report(model)
    with warnings.catch_warnings():
        # The ramp has not ended yet.
        warnings.simplefilter("ignore", UserWarning)
        stripped = pdp_keras.strip_pruning(model)
    return {
        "": model.predict(INPUTS, verbose=0),
        "/zeros": np.array([row.zeros for row in report.rows]),
        "/stripped": stripped.predict(INPUTS, verbose=0),
    }


def finished(model):
    """What it predicts after the epochs that are left."""
    fit(model, SAVED_AFTER)
    return model.predict(INPUTS, verbose=0)


def main(folder):
    """Writes a file for each case, and what all of them predict."""
    expected = {}
    for case in CASES:
        model = make(case)
        fit(model, 0, _Stop())
        model.save(folder / f"{case}.keras")
        expected |= {case + what: value for what, value in observed(model).items()}
        expected[f"{case}/finished"] = finished(model)
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
