"""Where subclassed models hold their layers."""

import keras
import numpy as np
from keras import layers

import pdp_keras


@keras.saving.register_keras_serializable("test_places")
class Tower(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(8), {"last": layers.Dense(8)}]

    def call(self, x):
        return self.parts[1]["last"](self.parts[0](x))


@keras.saving.register_keras_serializable("test_places")
class Towers(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.towers = {"a": Tower(), "b.c": [Tower(), (layers.Dense(8),)]}

    def call(self, x):
        tower, (dense,) = self.towers["b.c"]
        return self.towers["a"](x) + dense(tower(x))


def test_layers_in_containers_of_models_are_found_again(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    model = Towers()
    model(x)
    pruned = pdp_keras.prune_model(model, 0.5)
    pruned.compile("sgd", "mse")
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    pruned.fit(x, np.zeros((4, 8)), epochs=1, verbose=0, callbacks=[schedule])
    pruned.save(tmp_path / "towers.keras")
    loaded = keras.models.load_model(tmp_path / "towers.keras")
    assert isinstance(loaded.towers["b.c"][1][0], pdp_keras.PDPWrapper)
    np.testing.assert_allclose(loaded(x), pruned(x), rtol=1e-5, atol=1e-6)
    stripped = pdp_keras.strip_pruning(loaded)
    np.testing.assert_allclose(stripped(x), pruned(x), rtol=1e-5, atol=1e-6)
