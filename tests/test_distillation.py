"""A pruned student in a distiller: Keras' own, and the usual subclass."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import pdp_keras

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(32, 8)).astype("float32")
Y = GENERATOR.integers(0, 3, size=32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(name):
    # Another name of its hidden layer than the student's would do as well.
    stack = [layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3)]
    return keras.Sequential([keras.Input((8,)), *stack], name=name)


def keras_distiller(student):
    distillation = pytest.importorskip("keras.distillation")  # Keras 3.12 or newer
    losses = [
        distillation.LogitsDistillation(loss=keras.losses.KLDivergence()),
        distillation.FeatureDistillation(
            teacher_layer_name="hidden", student_layer_name="hidden"
        ),
    ]
    return distillation.Distiller(network("teacher"), student, losses)


class Own(keras.Model):
    """By overriding `compute_loss`, which every backend's `train_step` calls."""

    def __init__(self, teacher, student, **kwargs):
        super().__init__(**kwargs)
        self.teacher = teacher
        self.student = student
        self.teacher.trainable = False

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        soft = [keras.ops.softmax(z / 3.0) for z in (self.teacher(x), y_pred)]
        return loss + keras.ops.mean(keras.losses.kl_divergence(*soft))


def own_distiller(student):
    return Own(network("teacher"), student)


DISTILLERS = {"keras.distillation": keras_distiller, "a subclass": own_distiller}
MODES = {
    "unstructured": {"sparsity": 0.5},
    "2:4": {"mode": "2:4", "filters": "hidden"},
    "channel": {"mode": "channel"},
}


def trained(distiller):
    distiller.compile(keras.optimizers.Adam(1e-2), LOSS)
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=1)
    arguments = {"epochs": 6, "batch_size": 4, "verbose": 0, "callbacks": [schedule]}
    return distiller.fit(X, Y, **arguments).history


def values(model):
    return [keras.ops.convert_to_numpy(v) for v in model.variables]


def wrapper_names(model):
    inside = model._flatten_layers()
    return [x.name for x in inside if type(x).__module__.startswith("pdp_keras")]


@pytest.mark.parametrize("make", DISTILLERS.values(), ids=DISTILLERS)
@pytest.mark.parametrize("arguments", MODES.values(), ids=MODES)
def test_a_pruned_student(make, arguments):
    student = pdp_keras.prune_model(network("student"), **arguments)
    distiller = make(student)
    teacher = values(distiller.teacher)
    history = trained(distiller)
    assert history["sparsity"][0] == 0
    assert history["sparsity"][-1] == pytest.approx(0.5, abs=0.02)
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_equal(values(distiller.teacher), teacher)
    assert wrapper_names(distiller.teacher) == []
    # Evaluation and prediction go by the hard mask, as what is stripped.
    plain = pdp_keras.strip_pruning(distiller.student)
    assert wrapper_names(plain) == []
    predicted = distiller.predict(X, verbose=0)
    np.testing.assert_allclose(plain.predict(X, verbose=0), predicted, atol=1e-6)
    assert np.isfinite(distiller.evaluate(X, Y, verbose=0)).all()
    if "mode" in arguments and arguments["mode"] == "channel":
        assert [layer.units for layer in plain.layers] == [4, 3]


def test_features_are_those_of_the_masked_layer():
    student = pdp_keras.prune_model(network("student"), 0.75)
    distiller = keras_distiller(student)
    trained(distiller)
    extractor = distiller._student_feature_extractor
    features = keras.ops.convert_to_numpy(extractor([X], training=False)["hidden"])
    plain = pdp_keras.strip_pruning(student).get_layer("hidden")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(plain(X)), features, atol=1e-6
    )


def test_keras_distiller_is_stripped_as_a_whole():
    distiller = keras_distiller(pdp_keras.prune_model(network("student"), 0.5))
    trained(distiller)
    plain = pdp_keras.strip_pruning(distiller)
    assert type(plain) is type(distiller)
    assert wrapper_names(plain) == []
    assert wrapper_names(distiller.student)
    np.testing.assert_allclose(
        plain.predict(X, verbose=0), distiller.predict(X, verbose=0), atol=1e-6
    )
    assert pdp_keras.sparsity_report(plain.student).zeros == 44


@pytest.mark.parametrize(
    ("make", "arguments", "rule"),
    [
        (own_distiller, {"sparsity": 0.5}, "make a copy of itself from its config"),
        (keras_distiller, {"mode": "channel"}, "Channels can be removed from a Seq"),
    ],
)
def test_what_cannot_be_stripped_says_what_can(make, arguments, rule):
    distiller = make(pdp_keras.prune_model(network("student"), **arguments))
    trained(distiller)
    with pytest.raises(ValueError, match=rule) as caught:
        pdp_keras.strip_pruning(distiller)
    assert "strip_pruning(model.student)" in str(caught.value)


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("make", DISTILLERS.values(), ids=DISTILLERS)
def test_the_teacher_is_not_pruned_by_chance(make, mode, inplace):
    distiller = make(network("student"))
    distiller(X)
    distiller.built = True
    with pytest.raises(ValueError, match="frozen models \\['teacher'"):
        pdp_keras.prune_model(distiller, 0.5, mode, inplace=inplace)
    assert wrapper_names(distiller) == []


def test_filters_choose_the_student():
    distiller = own_distiller(network("student"))
    distiller(X)
    distiller.built = True
    pruned = pdp_keras.prune_model(distiller, 0.5, filters="student", inplace=True)
    assert wrapper_names(pruned.teacher) == []
    assert trained(pruned)["sparsity"][-1] == 0.5


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_a_student_with_an_extractor_is_pruned_before(mode):
    """The models share layers, of which each copy would have its own."""
    distiller = keras_distiller(network("student"))
    distiller(X)
    distiller.built = True
    with pytest.raises(ValueError, match="share 'student/hidden/kernel'"):
        pdp_keras.prune_model(distiller, 0.5, mode, filters="student", inplace=True)
    assert wrapper_names(distiller) == []


def test_a_saved_distiller_goes_on(tmp_path):
    distiller = keras_distiller(pdp_keras.prune_model(network("student"), 0.5))
    trained(distiller)
    distiller.save(tmp_path / "distiller.keras")
    with warnings.catch_warnings():
        # Keras says of its own class that its `compile` is not called.
        warnings.simplefilter("ignore", UserWarning)
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
    predicted = distiller.predict(X, verbose=0)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), predicted, atol=1e-6)
    loaded.compile("sgd", LOSS)
    loaded.fit(X, Y, verbose=0)  # without a schedule, and without a warning
    assert (
        pdp_keras.sparsity_report(pdp_keras.strip_pruning(loaded.student)).zeros == 44
    )
