"""Functional models whose classes have constructors of their own, as keras_hub's."""

import keras
from keras import layers


def register(cls):
    return keras.saving.register_keras_serializable("own_classes")(cls)


class OwnClass(keras.Model):
    """Keeps its arguments, and some of the layers of its graph."""

    def __init__(self, outputs, name, held=None, **arguments):
        inputs = keras.Input((4,), name="inputs")
        super().__init__(inputs, outputs(inputs), name=name)
        for key, value in {**arguments, **(held or {})}.items():
            setattr(self, key, value)
        self._arguments = list(arguments)

    def get_config(self):
        own = {key: getattr(self, key) for key in self._arguments}
        return {**own, "name": self.name}

    def double(self, x):
        """A method that a plain model has not."""
        return 2 * self(x, training=False)


@register
class Tower(OwnClass):
    """Blocks of one width around a stream; the stem's size is no argument."""

    def __init__(self, units=8, depth=2, name="tower"):
        blocks = [layers.Dense(units, "relu", name=f"hidden_{i}") for i in range(depth)]

        def graph(inputs):
            x = layers.Dense(6, name="stem")(inputs)
            for i, hidden in enumerate(blocks):
                x = layers.Add()([x, layers.Dense(6, name=f"out_{i}")(hidden(x))])
            return layers.Dense(3, name="head")(x)

        held = {"hidden": blocks}
        super().__init__(graph, name, held, units=units, depth=depth)


@register
class Grouped(OwnClass):
    """How many groups its normalization has follows from no argument."""

    def __init__(self, units=8, name="grouped"):
        def graph(inputs):
            for i in range(2):
                x = layers.Dense(units, name=f"dense_{i}")(inputs)
                inputs = layers.GroupNormalization(4, name=f"norm_{i}")(x)
            return layers.Dense(3, name="head")(inputs)

        super().__init__(graph, name, units=units)


@register
class Halves(OwnClass):
    """Takes a part of what it makes, which no argument says."""

    def __init__(self, units=8, name="halves"):
        def graph(inputs):
            x = layers.Dense(units, name="first")(inputs)
            x = layers.Dense(units, name="second")(x)
            return layers.Dense(3, name="head")(x[:, :2] + x[:, 2:4])

        super().__init__(graph, name, units=units)


@register
class Reader(layers.Layer):
    """Has a layer of the model around it, as the head of a masked language model."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.embedding(self.dense(x), reverse=True)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.embedding.input_dim)

    def get_config(self):
        embedding = keras.saving.serialize_keras_object(self.embedding)
        return {**super().get_config(), "embedding": embedding}

    @classmethod
    def from_config(cls, config):
        embedding = keras.saving.deserialize_keras_object(config.pop("embedding"))
        return cls(embedding, **config)


@register
class Tied(OwnClass):
    """Looks tokens up and reads them by one weight, in two layers of the graph."""

    def __init__(self, units=8, name="tied"):
        embedding = layers.ReversibleEmbedding(10, 4, name="embedding")
        reader = Reader(embedding, name="reader")

        def graph(inputs):
            x = embedding(inputs)
            for i in range(2):
                y = layers.Dense(units, "relu", name=f"hidden_{i}")(x)
                x = layers.Add()([x, layers.Dense(4, name=f"out_{i}")(y)])
            return reader(x)

        held = {"embedding": embedding, "reader": reader}
        super().__init__(graph, name, held, units=units)


@register
class Hidden(OwnClass):
    """Has a model inside that its constructor makes, and no config tells of."""

    def __init__(self, units=8, name="hidden"):
        def graph(inputs):
            inside = [keras.Input((4,)), layers.Dense(units), layers.Dense(units)]
            return layers.Dense(3, name="head")(keras.Sequential(inside)(inputs))

        super().__init__(graph, name, units=units)
