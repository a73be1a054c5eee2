"""Runs a layer without keeping its masked kernel for the backward pass.

The gradient of a layer's input needs the kernel that the layer computed with. Under a
mask that is a second copy of every kernel of a network, held until the backward pass
comes back to it. Here the backward pass makes it again from the weights instead, which
costs one more pass of the mask. Only in TensorFlow graphs that XLA does not compile as
a whole (it would merge the two computations again), and only layers whose call is one
product, a bias and an activation: the last two stay outside, and of a product its
gradients need no result, so that TensorFlow leaves the second one out of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from pdp_keras.masks.compilation import is_compiled_apart

Tensor = Any

# Below so many weights another pass costs more than a copy is worth.
LEAST_WEIGHTS = 1 << 18

# Of Conv1D TensorFlow would compute the product twice, for its shape.
_KINDS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def is_worth_it(
    layer: Any, kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether `call` can and should run this layer, in what is being traced now.

    Args:
        layer: any layer.
        kernel: the one variable of it that is masked.
        args: what the layer is called with.
        kwargs: what else it is called with, without `training`.
    """
    return (
        math.prod(kernel.shape) >= LEAST_WEIGHTS
        and type(layer) in _KINDS
        and len(args) == 1
        and not kwargs
        and is_compiled_apart()
        and _is_dense_float(args[0])
        and getattr(layer, "activity_regularizer", None) is None
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and layer.compute_dtype == "float32"
    )


def call(
    layer: Any,
    inputs: Tensor,
    kernel: Any,
    masking: Callable[..., Tensor],
    *factors: Tensor,
) -> Tensor:
    """The layer's outputs, computed with a masked kernel.

    Args:
        layer: one for which `is_worth_it` holds.
        inputs: float tensor, as for the layer.
        kernel: the variable that is masked.
        masking: makes the masked weights of the weights and the factors, and has a
            gradient for all of them; reads no variable.
        *factors: float tensors, such as masks that depend on other weights too.
    """
    import tensorflow as tf

    variables = layer.variables
    masked_index = next(i for i, v in enumerate(variables) if v is kernel)
    product = _product_of(layer)

    def run(inputs: Tensor, *tensors: Tensor) -> Tensor:
        masked = list(tensors[: len(variables)])
        factors = tensors[len(variables) :]
        masked[masked_index] = masking(masked[masked_index], *factors)
        mapping = list(zip(variables, masked, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return product.call(inputs)

    @tf.custom_gradient
    def remade(*tensors: Tensor) -> Any:
        def gradient(upstream: Tensor) -> Any:
            # Not before it is needed.
            with tf.control_dependencies([upstream]), tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs = run(*tensors)
            return tape.gradient(outputs, tensors, upstream)

        return run(*tensors), gradient

    values = [ops.convert_to_tensor(variable) for variable in variables]
    outputs = remade(ops.cast(inputs, "float32"), *values, *factors)
    if layer.bias is not None:
        outputs = ops.add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


def _is_dense_float(x: Any) -> bool:
    """Neither sparse nor ragged, nor what only the layer makes a tensor of."""
    import tensorflow as tf

    return isinstance(x, tf.Tensor) and bool(x.dtype.is_floating)


def _product_of(layer: Any) -> Any:
    """A second view of the layer, with the same variables but its product alone."""
    view = object.__new__(type(layer))
    # Not by `setattr`: Keras would take the variables for the view's own.
    view.__dict__.update(layer.__dict__, activation=None, use_bias=False, bias=None)
    return view
