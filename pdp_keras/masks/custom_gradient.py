"""A function of tensors with a gradient of one's own, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

Tensor = Any


def with_gradient(
    compute: Callable[..., Tensor],
    gradient: Callable[..., Sequence[Tensor]],
    *inputs: Tensor,
) -> Tensor:
    """`compute(*inputs)`, differentiated as `gradient` says.

    Args:
        compute: from the inputs to one tensor.
        gradient: from the gradient of the output and the inputs to one gradient for
            each input, of its shape.
        *inputs: float tensors. All that the two functions use must be among them:
            JAX refuses to differentiate past what they close over.
    """

    @ops.custom_gradient
    def run(*inputs: Tensor) -> Any:
        def backward(*args: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            if upstream is None:
                (upstream,) = args
            return tuple(gradient(upstream, *inputs))

        return compute(*inputs), backward

    return run(*inputs)


def masked_noting(
    weights: Tensor,
    mask: Tensor,
    note: Callable[..., Sequence[Tensor]],
    *noted: Tensor,
) -> Tensor:
    """`weights * mask`; the gradient is `mask` for the weights, none for the mask.

    Args:
        weights: float tensor.
        mask: of its type, to be broadcast.
        note: from the gradient of the product, the weights, and what is noted, to the
            gradient of each of these.
        *noted: float tensors that have no part in the product; what a backward pass
            has to say to an optimizer or to the next update of a mask.
    """

    def gradient(
        upstream: Tensor, weights: Tensor, mask: Tensor, *noted: Tensor
    ) -> Sequence[Tensor]:
        notes = note(upstream, weights, *noted)
        return upstream * mask, ops.zeros_like(mask), *notes

    return with_gradient(
        lambda weights, mask, *_: weights * mask, gradient, weights, mask, *noted
    )


def straight_through(inputs: Tensor, outputs: Tensor) -> Tensor:
    """`outputs`, with the gradient of `inputs`.

    Exact where an output is its input or 0: w + (0 - w) is 0 in floating point.
    """
    return inputs + ops.stop_gradient(outputs - inputs)
