"""Callbacks that look for the best epoch, and how they are held back."""

import keras
import numpy as np
import pytest

import pdp_keras


class Recording(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(f"end {epoch}")

    def on_train_end(self, logs=None):
        self.seen.append("over")


def pruned_model():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    pruned = pdp_keras.prune_model(model, 0.5, allocation="uniform")
    # So large that every epoch is worse than the first.
    pruned.compile(keras.optimizers.SGD(0.5), "mse")
    return pruned


def fit(model, *callbacks, epochs=4):
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("float32") * 2
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
    fitted = {"epochs": epochs, "verbose": 0, "batch_size": 4}
    return model.fit(x, x[:, :4], callbacks=[schedule, *callbacks], **fitted)


def test_only_the_epochs_at_the_target_are_seen():
    recording = Recording()
    fit(pruned_model(), pdp_keras.AtTarget(recording))
    begun = [f"epoch {epoch}" for epoch in range(4)]
    assert recording.seen == ["begin", *begun[:3], "end 2", begun[3], "end 3", "over"]


def test_a_run_that_is_stopped_too_early_says_so():
    stop = keras.callbacks.EarlyStopping(
        "loss", patience=0, baseline=0.0, restore_best_weights=True
    )
    with pytest.warns(UserWarning, match=r"stopped before .* target.*AtTarget"):
        fit(pruned_model(), stop)


def test_the_best_epoch_is_one_at_the_target():
    stop = keras.callbacks.EarlyStopping(
        "loss", patience=9, mode="max", restore_best_weights=True
    )
    model = pruned_model()
    fit(model, pdp_keras.AtTarget(stop))
    assert stop.best_epoch in (2, 3)
    assert pdp_keras.sparsity_report(model).sparsity == 0.5


def test_it_holds_callbacks_only_and_pruned_models_only():
    with pytest.raises(TypeError, match=r"must be a keras.*Received: callback=3"):
        pdp_keras.AtTarget(3)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    data = np.zeros((4, 8)), np.zeros((4, 4))
    with pytest.raises(ValueError, match="must contain PDPWrapper layers"):
        model.fit(*data, verbose=0, callbacks=[pdp_keras.AtTarget(Recording())])
