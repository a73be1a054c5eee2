"""A layer computes the product that its kernel is taken apart into."""

import keras
import numpy as np
import pytest

from pdp_keras.models import find_kernels
from pdp_keras.one_shot import product_of

L = keras.layers
LAYERS = {
    "dense": (L.Dense(5), (4, 7)),
    "einsum": (L.EinsumDense("abc,cd->abd", output_shape=(None, 6)), (4, 7)),
    "two axes": (L.EinsumDense("abcd,cde->abe", output_shape=(None, 6)), (4, 3, 5)),
    "heads": (L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)), (4, 6)),
    "swapped": (L.EinsumDense("abc,dc->abd", output_shape=(None, 6)), (4, 7)),
    "ellipsis": (L.EinsumDense("...x,xy->...y", output_shape=(6,)), (4, 7)),
    "conv": (L.Conv2D(6, 3, padding="same"), (7, 8, 4)),
    "strides": (L.Conv2D(6, (3, 2), strides=2, padding="same"), (7, 8, 4)),
    "valid": (L.Conv2D(6, 3, strides=(2, 1), padding="valid"), (7, 8, 4)),
    "dilation": (L.Conv2D(6, 3, dilation_rate=2, padding="same"), (7, 8, 4)),
    "causal": (L.Conv1D(6, 3, padding="causal", dilation_rate=2), (9, 4)),
    "volume": (L.Conv3D(6, 2, padding="same"), (4, 5, 3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_kernel_is_what_the_layer_computes(name):
    layer, shape = LAYERS[name]
    layer = type(layer).from_config(layer.get_config())
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    expected = keras.ops.convert_to_numpy(layer(x))
    (kernel,), _ = find_kernels(layer)
    product = product_of(kernel)
    value = keras.ops.convert_to_numpy(kernel.variable.value)
    split = product.split(value)
    np.testing.assert_array_equal(product.join(split), value)
    got = [rows @ split for rows in product.rows(x)]
    np.testing.assert_allclose(
        np.concatenate(got, axis=1).reshape(expected.shape), expected, atol=1e-4
    )


def test_a_grouped_convolution_has_a_block_for_each_group():
    layer = L.Conv2D(6, 3, groups=2, padding="same")
    layer.build((None, 5, 5, 4))
    (kernel,), _ = find_kernels(layer)
    product = product_of(kernel)
    rng = np.random.default_rng(0)
    value = rng.normal(size=kernel.shape).astype("float32")
    assert product.split(value).shape == (2, 18, 3)
    np.testing.assert_array_equal(product.join(product.split(value)), value)
    # By hand: the first three outputs see the first two channels.
    x = rng.normal(size=(1, 5, 5, 4)).astype("float32")
    for group in range(2):
        part = x[..., 2 * group : 2 * group + 2]
        plain = L.Conv2D(3, 3, padding="same", use_bias=False)
        plain.build(part.shape)
        plain.kernel.assign(value[..., 3 * group : 3 * group + 3])
        (rows,) = product.rows(x)
        got = rows[group] @ product.split(value)[group]
        expected = keras.ops.convert_to_numpy(plain(part)).reshape(-1, 3)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_what_is_no_product_is_left_alone():
    class Own(L.Dense):
        def call(self, inputs):
            return super().call(inputs)

    for layer, shape in [
        (Own(3), (None, 4)),
        (L.DepthwiseConv2D(3), (None, 5, 5, 2)),
        (L.Embedding(5, 3), (None, 4)),
        (L.EinsumDense("ab,ab->ab", output_shape=(4,)), (2, 4)),
    ]:
        layer.build(shape)
        kernels, _ = find_kernels(layer)
        assert [product_of(kernel) for kernel in kernels] == [None] * len(kernels)
