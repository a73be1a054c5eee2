"""Pruning a trained model from a little data."""

import keras
import numpy as np
import pytest

import pdp_keras

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 12)).astype("float32")
IMAGES = RNG.normal(size=(16, 8, 8, 3)).astype("float32")
TOKENS = RNG.integers(0, 20, size=(16, 6))


def dense():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((12,)), L.Dense(16, "relu"), L.Dense(4)])


def convolutional():
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = L.DepthwiseConv2D(3)(x)
    x = L.BatchNormalization()(x)
    x = L.Conv2D(8, 1)(x)
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


def attention():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(20, 8, name="table")(inputs)
    x = L.MultiHeadAttention(2, 4)(x, x)
    x = L.LayerNormalization()(x)
    return keras.Model(inputs, L.Dense(4)(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.shared = L.Dense(12, activation="relu")
        self.last = L.Dense(4)

    def call(self, x):
        return self.last(self.shared(self.shared(x)))


def subclassed():
    keras.utils.set_random_seed(1)
    model = Subclassed()
    model(X[:1])
    return model


MODELS = {
    "dense": (dense, X),
    "convolutional": (convolutional, IMAGES),
    "attention": (attention, TOKENS),
    "subclassed": (subclassed, X),
}


def kernels_of(model):
    names = [v.path for v in model.variables]
    values = [keras.ops.convert_to_numpy(v.value) for v in model.variables]
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("name", MODELS)
def test_half_of_each_product_goes_and_the_model_is_as_it_was(name, method):
    make, data = MODELS[name]
    model = make()
    before = kernels_of(model)
    got = pdp_keras.prune_once(model, data, sparsity=0.5, method=method)
    assert type(got) is type(model)
    for path, value in kernels_of(model).items():
        np.testing.assert_array_equal(value, before[path])
    pruned = 0
    for path, value in zip(before, kernels_of(got).values(), strict=True):
        is_product = path.endswith("kernel") and "depthwise" not in path
        expected = value.size // 2 if is_product else int((before[path] == 0).sum())
        # Of wanda each output has its own number.
        assert abs(int((value == 0).sum()) - expected) <= (method == "wanda") * 4, path
        pruned += is_product
    assert pruned >= 2


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("name", MODELS)
def test_two_of_four(name, method):
    make, data = MODELS[name]
    got = pdp_keras.prune_once(make(), data, mode="2:4", method=method)
    for layer in got._flatten_layers():
        if type(layer) is L.Dense:
            kernel = keras.ops.convert_to_numpy(layer.kernel.value)
            groups = (kernel != 0).reshape(-1, 4, kernel.shape[1]).sum(1)
            np.testing.assert_array_equal(groups, np.full_like(groups, 2))


def test_sparsegpt_stays_nearest_to_the_model():
    mixed = (X @ np.random.default_rng(7).normal(size=(12, 12))).astype("float32")
    model = dense()
    expected = model.predict(mixed, verbose=0)
    errors = {}
    for method in ("sparsegpt", "wanda", "magnitude"):
        got = pdp_keras.prune_once(model, mixed, sparsity=0.5, method=method)
        errors[method] = np.square(got.predict(mixed, verbose=0) - expected).mean()
    assert errors["sparsegpt"] < 0.8 * min(errors["wanda"], errors["magnitude"])


def test_all_kinds_of_data_give_the_same():
    model = dense()
    expected = kernels_of(pdp_keras.prune_once(model, X, 0.5, batch_size=16))
    batches = [X[i : i + 16] for i in range(0, 64, 16)]

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return batches[index], np.zeros(16)

    kinds = [((b, np.zeros(16)) for b in batches), Data()]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        kinds.append(tf.data.Dataset.from_tensor_slices(X).batch(16))
    for data in kinds:
        got = kernels_of(pdp_keras.prune_once(model, data, 0.5))
        for value, known in zip(got.values(), expected.values(), strict=True):
            np.testing.assert_allclose(value, known, atol=1e-5)


def test_the_start_of_fine_tuning():
    model = pdp_keras.prune_once(dense(), X, sparsity=0.5)
    zeros = kernels_of(model)
    pruned = pdp_keras.prune_model(model, sparsity=0.5, allocation="uniform")
    pruned.compile(keras.optimizers.SGD(1e-4), "mse")
    callback = pdp_keras.PDPScheduleCallback(schedule=lambda step: 1.0)
    pruned.fit(X, np.zeros((64, 4)), verbose=0, callbacks=[callback])
    stripped = kernels_of(pdp_keras.strip_pruning(pruned))
    for value, known in zip(stripped.values(), zeros.values(), strict=True):
        if value.ndim == 2:
            np.testing.assert_array_equal(value == 0, known == 0)


def test_filters_choose():
    got = pdp_keras.prune_once(attention(), TOKENS, 0.5, filters="dense.*")
    shares = [float((v == 0).mean()) for v in kernels_of(got).values() if v.ndim == 3]
    assert shares == [0.0] * 4


def with_nan():
    model = dense()
    model.layers[0].kernel.assign(np.full((12, 16), np.nan))
    return model


class Unused(Subclassed):
    def build(self, shape):
        self.shared.build(shape)
        self.last.build(shape)

    def call(self, x):
        return self.last(x)


def unused():
    model = Unused()
    model.build((None, 12))
    return model


def quantized():
    model = dense()
    model.layers[-1].quantize("int8")
    return model


@pytest.mark.skipif(not hasattr(L, "ReversibleEmbedding"), reason="a newer Keras")
@pytest.mark.parametrize("method", ["sparsegpt", "wanda"])
def test_a_tied_embedding_reads_ids_and_features(method):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(20, 8)
    hidden = L.Dense(8, activation="tanh", name="hidden")(table(inputs))
    model = keras.Model(inputs, table(hidden, reverse=True))
    got = pdp_keras.prune_once(model, TOKENS, 0.5, method=method)
    assert np.sum(got.get_layer("hidden").kernel == 0) == 32
    assert np.all(got.layers[1].embeddings != 0)


BAD = [
    (dense, X[:0], {}, "data must have at least one"),
    (dense, iter([]), {}, "data must have at least one"),
    (dense, None, {}, "data must be calibration data"),
    (dense, X, {"mode": "channel"}, "mode must be 'unstructured' or N:M"),
    (dense, X, {"method": "obs"}, "method must be one of"),
    (dense, X, {"damping": 0}, "damping must be > 0"),
    (dense, X, {"sparsity": 1.5}, "sparsity"),
    (dense, X, {"filters": "nothing"}, "filters must choose at least one"),
    (dense, X * np.nan, {}, "NaN or infinity in the input of layer 'dense"),
    (with_nan, X, {}, "NaN or infinity in 'dense"),
    (attention, TOKENS + 15, {}, r"Ids must be in \[0, 20\) for layer 'table'"),
    (unused, X, {}, "must see calibration data"),
    (
        lambda: pdp_keras.prune_model(dense(), sparsity=0.5),
        X,
        {},
        "must be stripped first",
    ),
    (lambda: keras.Sequential([L.Dense(3)]), X, {}, "must be built"),
    (quantized, X, {}, "pruned before it is quantized"),
]


@pytest.mark.parametrize("make, data, options, message", BAD)
def test_bad_input(make, data, options, message):
    model = make()
    before = kernels_of(model)
    if options.get("sparsity") is None and options.get("mode") is None:
        options = {**options, "sparsity": 0.5}
    with pytest.raises(ValueError, match=message):
        pdp_keras.prune_once(model, data, **options)
    for path, value in kernels_of(model).items():
        np.testing.assert_array_equal(value, before[path])


def test_no_model():
    with pytest.raises(TypeError, match=r"model must be a keras\.Model"):
        pdp_keras.prune_once("model", X, 0.5)
