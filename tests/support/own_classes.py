"""Functional models whose classes have constructors of their own, as keras_hub's."""

import keras
from keras import layers


def register(cls):
    return keras.saving.register_keras_serializable("own_classes")(cls)


class OwnClass(keras.Model):
    """Keeps its arguments, and makes its graph of them."""

    def __init__(self, outputs, **arguments):
        name = arguments.pop("name", None)
        for key, value in arguments.items():
            setattr(self, key, value)
        self._arguments = list(arguments)
        inputs = keras.Input((4,), name="inputs")
        super().__init__(inputs, outputs(inputs), name=name)

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
        self.hidden = [
            layers.Dense(units, "relu", name=f"hidden_{i}") for i in range(depth)
        ]
        self.stem = layers.Dense(6, name="stem")

        def graph(inputs):
            x = self.stem(inputs)
            for i, hidden in enumerate(self.hidden):
                x = layers.Add()([x, layers.Dense(6, name=f"out_{i}")(hidden(x))])
            return layers.Dense(3, name="head")(x)

        super().__init__(graph, units=units, depth=depth, name=name)


@register
class Grouped(OwnClass):
    """How many groups its normalization has follows from no argument."""

    def __init__(self, units=8, name="grouped"):
        def graph(inputs):
            for i in range(2):
                x = layers.Dense(units, name=f"dense_{i}")(inputs)
                inputs = layers.GroupNormalization(4, name=f"norm_{i}")(x)
            return layers.Dense(3, name="head")(inputs)

        super().__init__(graph, units=units, name=name)


@register
class Halves(OwnClass):
    """Takes a part of what it makes, which no argument says."""

    def __init__(self, units=8, name="halves"):
        def graph(inputs):
            x = layers.Dense(units, name="first")(inputs)
            x = layers.Dense(units, name="second")(x)
            return layers.Dense(3, name="head")(x[:, :2] + x[:, 2:4])

        super().__init__(graph, units=units, name=name)


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
        self.embedding = layers.ReversibleEmbedding(10, 4, name="embedding")
        self.reader = Reader(self.embedding, name="reader")

        def graph(inputs):
            x = self.embedding(inputs)
            for i in range(2):
                y = layers.Dense(units, "relu", name=f"hidden_{i}")(x)
                x = layers.Add()([x, layers.Dense(4, name=f"out_{i}")(y)])
            return self.reader(x)

        super().__init__(graph, units=units, name=name)


@register
class Hidden(OwnClass):
    """Has a model inside that its constructor makes, and no config tells of."""

    def __init__(self, units=8, name="hidden"):
        self.inner = keras.Sequential(
            [keras.Input((4,)), layers.Dense(units, name="a"), layers.Dense(units)]
        )

        def graph(inputs):
            return layers.Dense(3, name="head")(self.inner(inputs))

        super().__init__(graph, units=units, name=name)
