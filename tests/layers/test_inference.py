"""Masks that are made once for each `predict` and `evaluate`."""

import threading

import keras
import numpy as np
import pytest

import pdp_keras

MODES = ["unstructured", "2:4", "channel"]
X = np.random.default_rng(0).normal(size=(96, 12)).astype("float32")
Y = X[:, :3] @ np.ones((3, 1), "float32")


def small_network():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(16, activation="relu", name="first"),
            keras.layers.Dense(16, activation="relu", name="second"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="last"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(16, activation="relu")
        self.last = keras.layers.Dense(1)

    def call(self, x):
        return self.last(self.first(x))


def pruned_at_target(mode="unstructured", make=small_network, **options):
    model = make()
    model(X[:1])
    pruned = pdp_keras.prune_model(model, sparsity=0.5, mode=mode, **options)
    callback = pdp_keras.PDPScheduleCallback(warmup_epochs=0)
    pruned.compile("sgd", "mse")
    pruned.fit(X, Y, epochs=2, batch_size=32, callbacks=[callback], verbose=0)
    return pruned


def directly(model):
    return keras.ops.convert_to_numpy(model(X, training=False))


def loss_of(model):
    return float(np.mean((directly(model) - Y) ** 2))


@pytest.mark.parametrize("mode", MODES)
def test_predict_and_evaluate_are_what_a_call_gives(mode):
    model = pruned_at_target(mode)
    for _ in range(2):
        got = model.predict(X, batch_size=32, verbose=0)
        np.testing.assert_allclose(got, directly(model), rtol=1e-5, atol=1e-6)
        loss = model.evaluate(X, Y, batch_size=32, verbose=0)
        np.testing.assert_allclose(loss, loss_of(model), rtol=1e-4)


def test_a_subclassed_model():
    model = pruned_at_target(make=Subclassed)
    got = model.predict(X, batch_size=32, verbose=0)
    np.testing.assert_allclose(got, directly(model), rtol=1e-5, atol=1e-6)
    stripped = pdp_keras.strip_pruning(model)
    np.testing.assert_allclose(
        got, stripped.predict(X, verbose=0), rtol=1e-5, atol=1e-6
    )


class TrainsInside(keras.Model):
    """Its first layer runs as in training; the mask of that is soft."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(16, activation="relu")
        self.middle = keras.Sequential([keras.layers.Dense(16)])
        self.last = keras.layers.Dense(1)

    def call(self, x):
        x = self.first(x, training=True)
        # Said, because Keras takes it from the call before, but on JAX does not.
        return self.last(self.middle(x, training=True), training=False)


def test_a_layer_that_trains_within_predict():
    plain = TrainsInside()
    plain(X[:1])
    model = pdp_keras.prune_model(plain, sparsity=0.8)
    schedule = pdp_keras.PDPScheduleCallback(
        warmup_epochs=0, ramp_epochs=4, update="epoch"
    )
    schedule.start(model, epochs=4)
    schedule.start_epoch(1)
    soft = directly(model)
    got = model.predict(X, batch_size=32, verbose=0)
    np.testing.assert_allclose(got, soft, rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="before they have reached"):
        hard = directly(pdp_keras.strip_pruning(model))
    assert np.max(np.abs(soft - hard)) > 1e-2


@pytest.mark.parametrize("mode", MODES)
def test_weights_may_change_between_calls(mode):
    model = pruned_at_target(mode)
    before = model.predict(X, verbose=0)
    model.evaluate(X, Y, verbose=0)
    kernel = model.get_layer("first").layer.kernel
    kernel.assign(np.random.default_rng(1).normal(size=kernel.shape))
    after = model.predict(X, verbose=0)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, directly(model), rtol=1e-5, atol=1e-5)
    loss = model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(loss, loss_of(model), rtol=1e-4)
    # And through training.
    model.fit(X, Y, epochs=1, verbose=0)
    after = model.predict(X, verbose=0)
    np.testing.assert_allclose(after, directly(model), rtol=1e-5, atol=1e-5)


def test_the_sparsity_may_change_between_calls():
    model = pruned_at_target()
    model.predict(X, verbose=0)
    for wrapper in model.layers:
        for weight in getattr(wrapper, "pruned_weights", ()):
            weight.zeros.assign(0)
    got = model.predict(X, verbose=0)
    np.testing.assert_allclose(got, directly(model), rtol=1e-5, atol=1e-6)


def test_weights_that_a_callback_exchanges_before_the_first_batch():
    model = small_network()
    model = pdp_keras.prune_model(model, sparsity=0.5)
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "mse")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=False)
    callbacks = [pdp_keras.PDPScheduleCallback(warmup_epochs=0)]
    model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    # At the end of `fit` Keras has made the averages the weights.
    kernel = model.get_layer("first").layer.kernel
    kernel.assign(kernel + 0.3)
    got = model.evaluate(X, Y, verbose=0, callbacks=[swap])
    plain = model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(plain, loss_of(model), rtol=1e-4)
    swap._swap_variables()
    averaged = loss_of(model)
    swap._swap_variables()
    assert abs(averaged - plain) > 1e-3
    np.testing.assert_allclose(got, averaged, rtol=1e-4)


class Changes(keras.callbacks.Callback):
    """Sets the last kernel to zero once a batch has run."""

    def on_predict_batch_end(self, batch, logs=None):
        kernel = self.model.get_layer("first").layer.kernel
        kernel.assign(keras.ops.zeros(kernel.shape))


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras reads no variable between batches"
)
def test_a_callback_may_change_weights_between_batches():
    model = pruned_at_target()
    model.predict(X, verbose=0)
    first = directly(model)[:32]
    got = model.predict(X, batch_size=32, verbose=0, callbacks=[Changes()])
    np.testing.assert_allclose(got[:32], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[32:], directly(model)[32:], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras reads no variable between batches"
)
def test_masks_are_made_once(monkeypatch):
    model = pruned_at_target()
    expected = directly(model)
    # A change that is not seen: the masked weights from before stay.
    monkeypatch.setattr(Changes.on_predict_batch_end, "__module__", "keras.callbacks")
    got = model.predict(X, batch_size=32, verbose=0, callbacks=[Changes()])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - directly(model)).max() > 0.1


class AdaptsAtTest(keras.Sequential):
    """Changes its first kernel in `test_step`, as test-time adaptation does."""

    def test_step(self, data):
        kernel = self.layers[0].layer.kernel
        kernel.assign(kernel * 0.5)
        return super().test_step(data)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="a test_step is stateless there"
)
def test_a_test_step_of_ones_own_masks_each_batch():
    model = pruned_at_target(make=lambda: AdaptsAtTest(small_network().layers))
    kernel = model.get_layer("first").layer.kernel
    before = keras.ops.convert_to_numpy(kernel.value)
    losses = []
    for factor in (0.5, 0.25, 0.125):
        kernel.assign(before * factor)
        losses.append(loss_of(model))
    kernel.assign(before)
    got = model.evaluate(
        np.tile(X, (3, 1)), np.tile(Y, (3, 1)), batch_size=96, verbose=0
    )
    np.testing.assert_allclose(got, np.mean(losses), rtol=1e-4)


def test_compiling_anew_takes_the_new_loss():
    model = pruned_at_target()
    model.evaluate(X, Y, verbose=0)
    model.compile("sgd", "mae")
    got = model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(got, np.mean(np.abs(directly(model) - Y)), rtol=1e-4)


def test_validation_in_fit_sees_the_new_weights():
    model = pruned_at_target()
    history = model.fit(
        X, Y, epochs=3, validation_data=(X, Y), verbose=0, batch_size=32
    ).history["val_loss"]
    np.testing.assert_allclose(history[-1], loss_of(model), rtol=1e-4)
    assert len(set(history)) == 3


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras empties the variables meanwhile"
)
def test_threads_may_predict_at_once():
    model = pruned_at_target()
    expected = directly(model)
    model.predict(X, verbose=0)
    results = {}

    def predict(number):
        for _ in range(3):
            results[number] = model.predict(X, batch_size=8, verbose=0)

    threads = [threading.Thread(target=predict, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        np.testing.assert_allclose(results[number], expected, rtol=1e-5, atol=1e-6)


def test_a_loaded_model(tmp_path):
    model = pruned_at_target("channel")
    expected = directly(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for _ in range(3):
        got = loaded.predict(X, verbose=0)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    kernel = loaded.get_layer("first").layer.kernel
    kernel.assign(kernel * 2.0)
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), directly(loaded), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mode", MODES)
def test_half_precision(mode):
    def make():
        config = small_network().get_config()
        # Outputs are float32, as Keras advises.
        for layer in config["layers"][1:-1]:
            layer["config"]["dtype"] = keras.DTypePolicy("mixed_bfloat16")
        return keras.Sequential.from_config(config)

    model = pruned_at_target(mode, make)
    got = model.predict(X, batch_size=32, verbose=0)
    np.testing.assert_allclose(got, directly(model), rtol=0.02, atol=0.02)
    stripped = pdp_keras.strip_pruning(model)
    # Compared in float32, not in half precision, where weights are often equal.
    np.testing.assert_allclose(got, stripped.predict(X, verbose=0), atol=0.03)


def test_functions_made_by_hand_mask_each_batch():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("others make a function of another kind")
    import tensorflow as tf

    model = pruned_at_target()
    model.predict(X, verbose=0)
    function = model.make_predict_function()
    batches = [(tf.constant(X),)]
    np.testing.assert_allclose(function(batches), directly(model), atol=1e-5)
    kernel = model.get_layer("first").layer.kernel
    kernel.assign(kernel * 2.0)
    np.testing.assert_allclose(function(batches), directly(model), atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_stripped_models_are_keras_own(inplace):
    pruned = pruned_at_target(make=Subclassed, inplace=inplace)
    pruned.predict(X, verbose=0)
    plain = pdp_keras.strip_pruning(pruned)
    assert "predict" not in vars(plain) and "test_step" not in vars(plain)
    got = plain.predict(X, verbose=0)
    np.testing.assert_allclose(got, directly(plain), rtol=1e-5, atol=1e-6)
