"""A run with Dropout that is resumed draws what it would have drawn."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import pdp_keras

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


class Stop(Exception):
    pass


class StopAfter(keras.callbacks.Callback):
    """A power cut at the end of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Stop


def made():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.Dropout(0.5), layers.Dense(6)]
    )
    model = pdp_keras.prune_model(model, 0.5, allocation="uniform")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def fit(model, folder, *more, epochs=6, schedule=None):
    schedule = schedule or pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3)
    callbacks = [
        schedule,
        keras.callbacks.BackupAndRestore(folder / "backup"),
        pdp_keras.BackupSeeds(folder / "seeds" / "states.json"),
        *more,
    ]
    model.fit(
        X, X, batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks
    )
    return [np.asarray(v) for v in model.trainable_variables]


@pytest.mark.parametrize("last", [0, 3])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(last, tmp_path):
    straight = fit(made(), tmp_path / "straight")
    # Seeds of layers follow from that of Keras: this is another process to them.
    keras.utils.set_random_seed(0)
    with pytest.raises(Stop):
        fit(made(), tmp_path / "run", StopAfter(last))
    keras.utils.set_random_seed(5)
    resumed = fit(made(), tmp_path / "run")
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "run" / "seeds" / "states.json").exists()


def test_without_it_the_random_numbers_are_others(tmp_path):
    """Or else the test above would show nothing."""
    ends = []
    for seed in (0, 5):
        keras.utils.set_random_seed(0)
        model = made()
        for layer in model.layers:
            for generator in layer._seed_generators:
                generator.state.assign([seed, 0])
        ends.append(fit(model, tmp_path))
    assert not np.array_equal(ends[0][0], ends[1][0])


def test_the_file_holds_the_last_two_epochs(tmp_path):
    with pytest.raises(Stop):
        fit(made(), tmp_path, StopAfter(3))
    states = json.loads((tmp_path / "seeds" / "states.json").read_text())
    assert list(states) == ["3", "4"]
    assert [np.shape(state) for state in states["4"]] == [(2,)]


def test_another_model(tmp_path):
    with pytest.raises(Stop):
        fit(made(), tmp_path, StopAfter(3))
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6)])
    model.compile("sgd", "mse")
    seeds = pdp_keras.BackupSeeds(tmp_path / "seeds" / "states.json")
    with pytest.raises(ValueError, match="with 1 random states, and 0 in model="):
        model.fit(X, X, initial_epoch=4, epochs=5, verbose=0, callbacks=[seeds])


def test_a_path():
    with pytest.raises(
        TypeError, match=r"path must be that of a file\. Received: path=3"
    ):
        pdp_keras.BackupSeeds(3)


SCRIPT = """
import sys, pathlib
sys.path[:0] = {path!r}
import keras, numpy as np, test_seeds
keras.utils.set_random_seed({seed})
folder = pathlib.Path(sys.argv[1])
stop = [test_seeds.StopAfter(2)] if sys.argv[2] == "stop" else []
try:
    end = test_seeds.fit(test_seeds.made(), folder, *stop)
    np.savez(folder / "end.npz", *end)
except test_seeds.Stop:
    pass
"""


@pytest.mark.slow
def test_in_new_processes(tmp_path):
    def run(folder, seed, stop="no"):
        folder = tmp_path / folder
        folder.mkdir(exist_ok=True)
        path = [str(__file__).rpartition("/")[0], *sys.path]
        script = SCRIPT.format(path=path, seed=seed)
        subprocess.run([sys.executable, "-c", script, folder, stop], check=True)
        return folder

    straight = np.load(run("straight", 1) / "end.npz")
    run("run", 1, "stop")
    resumed = np.load(run("run", 2) / "end.npz")
    assert len(straight.files) == 4
    for name in straight.files:
        np.testing.assert_array_equal(straight[name], resumed[name])
