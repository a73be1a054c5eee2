"""A small model and the runs that the tests of the callback make with it."""

import keras
import models
import numpy as np

from pdp_keras import GlobalMagnitude, prune_model
from pdp_keras.pruned import parts

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.tanh(X[:, :3])
# The schedule of PDP's paper, in place of the method's own.
STRAIGHT = {"ramp": "linear", "update": "epoch"}
LAMP = GlobalMagnitude(1.0, moving=True, score="lamp")


def compiled(sparsity=0.5, **arguments):
    """180 weights in two layers; two calls give equal models."""
    keras.utils.set_random_seed(3)
    model = prune_model(models.mlp(), sparsity, **arguments)
    model.compile("adam", "mse")
    return model


def fit(model, epochs, *callbacks, **arguments):
    """Four steps an epoch."""
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **arguments)


def zeros(model):
    """Of each weight, as training sees it now."""
    return [int(w.zeros.numpy()) for w in parts.pruned_weights(model)]
