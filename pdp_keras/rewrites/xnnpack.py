"""The exact rewrites of a model for a device, one by one and in their order."""

from __future__ import annotations

import dataclasses
from typing import Any

from pdp_keras.models import ModelInputs
from pdp_keras.rewrites.factors import fold_factors
from pdp_keras.rewrites.graph_copy import Graph, resized
from pdp_keras.rewrites.head import pool_to_vectors
from pdp_keras.rewrites.normalization import fold_normalization
from pdp_keras.rewrites.padding import find_symmetric, pad_symmetrically
from pdp_keras.rewrites.turn import half_turn, is_image


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A model in another form that computes the same.

    Attributes:
        model: the new model.
        turned: whether its images are turned by 180 degrees inside.
    """

    model: Any
    turned: bool


def rewrite_for_xnnpack(model: Any, *, turn_inputs: bool = True) -> Rewritten:
    """A model in the form that XNNPACK's sparse kernels accept, as far as it goes.

    BatchNormalization is folded, pooled heads work on vectors, constant factors are
    folded, and strided convolutions get symmetric padding, after a half turn if more
    of them take it then.

    Args:
        model: a built Sequential or Functional model; not changed.
        turn_inputs: see `half_turn`.

    Raises:
        ValueError: if the model has no graph.
    """
    model = fold_factors(pool_to_vectors(fold_normalization(model)))
    turned = half_turn(model, turn_inputs=turn_inputs)
    turns = _count_symmetric(turned) > _count_symmetric(model)
    return Rewritten(pad_symmetrically(turned if turns else model), turns)


def fix_sizes(model: Any, inputs: ModelInputs) -> Any:
    """A model for inputs of these sizes, if it leaves its own open.

    Args:
        model: a built model; not changed. One without a graph is given back.
        inputs: the sizes, as `model_inputs` gives them.

    Raises:
        ValueError: if its layers do not take these sizes.
    """
    symbolic = getattr(model, "inputs", None) or ()
    if all(None not in x.shape[1:] for x in symbolic):
        return model
    shapes = [
        (x.shape[0], *one.shape) for x, one in zip(symbolic, inputs.flat, strict=True)
    ]
    return resized(model, shapes)


def _count_symmetric(model: Any) -> int:
    return len(list(find_symmetric(Graph(model))))


def turned_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Input arrays with the images among them turned by 180 degrees."""
    return {
        name: values[:, ::-1, ::-1] if is_image(values) else values
        for name, values in batch.items()
    }
