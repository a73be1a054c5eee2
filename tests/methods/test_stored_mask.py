"""What methods with a stored mask share: the mask, and forgetting momentum."""

import keras
import numpy as np
import pytest
import reference
from keras import layers
from wrapped import assert_computes, computed, gradients, random_kernel, wrap

from pdp_keras import prune_model
from pdp_keras.methods.stored_mask import StoredMask, forget_momentum, smallest
from pdp_keras.pruned import parts as state

# id: ranks, how many, marks
MARKS = {
    "by rank": ([3, 1, 2], 2, [0, 1, 1]),
    "of equal ones the first": ([2, 1, 1, 1], 2, [0, 1, 1, 0]),
    "below 0": ([-1, -3, 0, 2], 2, [1, 1, 0, 0]),
    "infinity is last": ([np.inf, 5, -np.inf], 2, [0, 1, 1]),
    "none": ([1, 2], 0, [0, 0]),
    "all": ([1, 2], 2, [1, 1]),
    "of a matrix": ([[4, 1], [1, 3]], 3, [[0, 1], [1, 1]]),
    "of nothing": (np.zeros((0, 3)), 0, np.zeros((0, 3))),
}


@pytest.mark.parametrize(("ranks", "count", "marks"), MARKS.values(), ids=MARKS)
def test_smallest(ranks, count, marks):
    found = smallest(np.asarray(ranks, "float64"), count)
    assert found.dtype == bool and found.shape == np.shape(marks)
    np.testing.assert_array_equal(found, np.asarray(marks, bool))


@pytest.mark.parametrize("count", [0, 1, 13, 29, 30])
def test_smallest_of_random_values_with_ties(count):
    ranks = np.abs(np.round(random_kernel(6, 5), 1))
    np.testing.assert_array_equal(
        smallest(ranks, count), reference.smallest(ranks, count)
    )


class Held(StoredMask):
    """A mask that nothing changes."""

    name = "held"


def test_the_mask_keeps_all_at_first_and_is_the_gradient():
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    wrapper, weight = wrap(kernel, Held())
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel)
    mask = random_kernel(6, 5, seed=2) > 0
    weight.extras["mask"].assign(mask)
    expected = np.where(mask, kernel, 0)
    assert_computes(wrapper, expected)
    found = gradients(wrapper, upstream)
    assert found.keys() == {"kernel"}  # the mask itself is not trained
    np.testing.assert_array_equal(found["kernel"], upstream * mask)


def test_a_pruned_infinity_is_0():
    """A product with the mask would make it NaN."""
    wrapper, weight = wrap([[np.inf, 2]], Held())
    weight.extras["mask"].assign(np.array([[False, True]]))
    np.testing.assert_array_equal(computed(wrapper, training=False), [[0, 2]])


class Pair(layers.Layer):
    """Two weights of one shape, the name of one the beginning of the other's."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")
        self.w_2 = self.add_weight(shape=(shape[-1], 3), name="w_2")

    def call(self, inputs):
        return inputs @ self.w + inputs @ self.w_2


def mlp():
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(3, name="dense", use_bias=False),
            layers.Dense(3, name="dense_1", use_bias=False),
        ]
    )


def twins():
    """Two parts of one model with layers of one name."""

    def part(name):
        dense = layers.Dense(3, name="dense", use_bias=False)
        return keras.Sequential([keras.Input((3,)), dense], name=name)

    return keras.Sequential([keras.Input((3,)), part("one"), part("other")])


MODELS = {
    "neighbours": mlp,
    "twins": twins,
    "twins pruned": lambda: prune_model(twins(), method="acdc"),
    "with scores": lambda: prune_model(mlp(), method="movement"),
    "one name in another": lambda: keras.Sequential([keras.Input((3,)), Pair()]),
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.1),
    "adam, amsgrad": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
    "scaled loss": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.1)
    ),
}
SLOTS = {"sgd": 1, "adam": 2, "adam, amsgrad": 3, "scaled loss": 2}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_forgets_the_places_of_one_variable_only(name, optimizer):
    forgets_the_places_of_one_variable_only(MODELS[name](), optimizer)


def test_also_in_a_loaded_model(tmp_path):
    model = prune_model(twins(), method="acdc")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    forgets_the_places_of_one_variable_only(loaded, "adam")


def forgets_the_places_of_one_variable_only(model, optimizer):
    slots = SLOTS[optimizer]
    optimizer = OPTIMIZERS[optimizer]()
    optimizer.build(model.trainable_variables)
    for number, variable in enumerate(optimizer.variables):
        if variable.shape == (3, 3):
            variable.assign(np.full((3, 3), number + 1.0))
    before = [variable.numpy() for variable in optimizer.variables]
    where = np.eye(3, dtype=bool)
    changed = []
    for variable in model.trainable_variables:
        forget_momentum(optimizer, variable, where)
        after = [slot.numpy() for slot in optimizer.variables]
        differ = [
            i
            for i, (a, b) in enumerate(zip(before, after, strict=True))
            if not np.array_equal(a, b)
        ]
        assert len(differ) == slots
        for i in differ:
            np.testing.assert_array_equal(after[i], np.where(where, 0, before[i]))
        changed += differ
        before = after
    # Each variable has slots of its own, and all were found.
    assert len(set(changed)) == len(changed)
    assert len(changed) == sum(slot.shape == (3, 3) for slot in optimizer.variables)


def test_forgets_nothing_where_there_is_nothing():
    model = mlp()
    kernel = model.layers[0].kernel
    everywhere = np.ones((3, 3), bool)
    forget_momentum(None, kernel, everywhere)
    unbuilt = keras.optimizers.Adam(0.1)
    forget_momentum(unbuilt, kernel, everywhere)
    assert not unbuilt.built
    plain = keras.optimizers.SGD(0.1)
    plain.build(model.trainable_variables)
    forget_momentum(plain, kernel, everywhere)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    optimizer.momentums[0].assign(np.ones((3, 3)))
    forget_momentum(optimizer, kernel, ~everywhere)
    np.testing.assert_array_equal(optimizer.momentums[0], 1)


def test_the_weights_that_a_model_prunes_have_their_slots():
    """Under the names that Keras gives to the variables of a wrapped layer."""
    model = prune_model(mlp(), method="rigl")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    for slot in optimizer.variables:
        if slot.shape == (3, 3):
            slot.assign(np.ones((3, 3)))
    for weight in state.pruned_weights(model):
        forget_momentum(optimizer, weight.variable, np.ones((3, 3), bool))
        index = optimizer._get_variable_index(weight.variable)
        np.testing.assert_array_equal(optimizer.momentums[index], 0)
