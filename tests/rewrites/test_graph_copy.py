"""Copies of graphs: flat, with names and structures kept."""

import keras
import numpy as np
import pytest
from image_models import assert_same, inputs_of, randomized
from keras import Input, Model, layers

from pdp_keras.rewrites.graph_copy import Copies, Graph, flattened, rebuilt


def block(name):
    return keras.Sequential(
        [Input((6, 6, 4)), layers.Conv2D(4, 3, padding="same", name="conv")], name=name
    )


def nested():
    """Nested models with layers of the same name, one inside another, one twice."""
    inputs = Input((6, 6, 4), name="image")
    first, second = block("first"), block("second")
    x = layers.Conv2D(4, 1, name="conv")(inputs)
    inner = Input((6, 6, 4))
    outer = Model(inner, layers.Add(name="sum")([first(inner), inner]), name="outer")
    return Model(inputs, second(first(outer(x))), name="nested")


def test_nested_models_become_flat_with_names_of_their_own():
    model = randomized(nested())
    flat = flattened(model)
    names = [x.name for x in flat.layers]
    assert names == ["image", "conv", "outer_first_conv", "sum", "second_conv"]
    assert_same(model, flat)
    # A nested model that was shared still is.
    assert len(flat.get_layer("outer_first_conv")._inbound_nodes) == 2


def structured():
    first, second = Input((3,), name="a"), Input((3,), name="b")
    x = layers.Dense(3)(first) + second
    inner = Model({"b": second, "a": first}, {"sum": x, "same": second})
    inputs = {"left": Input((3,), name="left"), "right": Input((3,), name="right")}
    outputs = inner({"a": inputs["left"], "b": inputs["right"]})
    return Model(inputs, [outputs["sum"], {"deep": outputs["same"]}])


def test_structures_of_inputs_and_outputs_are_kept():
    model = structured()
    flat = flattened(model)
    x = inputs_of(model)
    expected, got = model(x), flat(x)
    assert keras.tree.flatten_with_path(got)[1][0] == (1, "deep")
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_original_is_not_touched():
    model = randomized(nested())
    nodes = [len(x._inbound_nodes) for x in model._flatten_layers()]
    flat = flattened(model)
    assert nodes == [len(x._inbound_nodes) for x in model._flatten_layers()]
    flat.get_layer("conv").kernel.assign(flat.get_layer("conv").kernel * 0)
    assert np.abs(model.get_layer("conv").kernel).max() > 0


def test_readers_and_producers():
    inputs = Input((3,))
    a = layers.Dense(3, name="a")(inputs)
    b = layers.Dense(3, name="b")(a)
    shared = layers.Dense(3, name="shared")
    c = shared(shared(b))
    graph = Graph(Model(inputs, [layers.Add(name="sum")([a, c]), b]))
    call = {c.operation.name: c for c in graph.calls}
    assert [r.operation.name for r in graph.readers(a)] == ["b", "sum"]
    assert graph.producer(a) is call["a"]
    assert graph.producer(inputs) is None
    assert graph.only_reader(a) is None  # read twice
    assert graph.only_reader(b) is None  # an output as well
    assert graph.only_reader(c) is None  # made by a shared layer
    assert not graph.is_called_once(call["shared"])
    assert graph.is_output(b)
    assert not graph.is_output(a)


def test_the_same_layer_in_two_variants():
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(3, name="dense")(inputs))
    graph = Graph(model)
    copies = Copies(graph)

    def emit(call, tensors):
        (x,) = (tensors[id(x)] for x in call.inputs)
        first = copies.of(call.operation)
        double = copies.of(
            call.operation, convert=lambda v: [2 * v[0], v[1]], variant="double"
        )
        assert copies.of(call.operation) is first
        return double(first(x))

    both = rebuilt(graph, emit, copies)
    assert [x.name for x in both.layers[1:]] == ["dense", "dense_double"]
    np.testing.assert_array_equal(
        both.layers[2].kernel, 2 * np.asarray(both.layers[1].kernel)
    )


def test_a_copy_with_other_variables_is_refused():
    inputs = Input((3,))
    graph = Graph(Model(inputs, layers.Dense(3, name="dense")(inputs)))
    copies = Copies(graph)

    def emit(call, tensors):
        wider = copies.of(call.operation, lambda config: {**config, "units": 4})
        return call.applied(wider, tensors)

    with pytest.raises(ValueError, match=r"Received: layer='dense'.*\(3, 3\)"):
        rebuilt(graph, emit, copies)


@pytest.mark.parametrize("model", [keras.Sequential([layers.Dense(2)]), None])
def test_a_graph_is_needed(model):
    with pytest.raises(ValueError, match="must be a built Sequential or Functional"):
        Graph(model)
