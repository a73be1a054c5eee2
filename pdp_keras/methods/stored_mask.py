"""`StoredMask`: what the methods share that keep their mask between updates."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from pdp_keras.masks import read
from pdp_keras.methods.base import Extra, Method, Tensor, Weight


class StoredMask(Method):
    """Trains with `mask * w`, the mask a variable that updates change.

    The gradient of a pruned weight is 0.
    """

    reallocates = True

    def extras(self) -> dict[str, Extra]:
        """The mask, which starts by keeping everything."""
        return {"mask": Extra(dtype="bool", initial=1)}

    def masked(self, weight: Weight) -> Tensor:
        """The weights that the mask keeps."""
        weights = ops.cast(weight.variable.value, "float32")
        return ops.where(
            ops.convert_to_tensor(weight.extras["mask"]),
            weights,
            ops.zeros_like(weights),
        )

    def hard_masked(self, weight: Weight) -> Tensor:
        """The same."""
        return self.masked(weight)


def kept_magnitudes(weight: Any) -> np.ndarray:
    """|w| where the mask of a weight keeps it; what is pruned ranks below all of it.

    Also below a kept 0, as a new weight is until it has learned: or else the pruned one
    would come back in its place, with the value that it once had.
    """
    values = np.abs(read(weight.variable)).astype("float32")
    least = np.finfo("float32").tiny
    return np.where(read(weight.extras["mask"]), np.maximum(values, least), 0)


def smallest(ranks: np.ndarray, count: int) -> np.ndarray:
    """True for the `count` smallest of an array; of equal ones the first go first."""
    marked = np.zeros(ranks.size, bool)
    marked[np.argsort(ranks, axis=None, kind="stable")[:count]] = True
    return marked.reshape(ranks.shape)


def forget_momentum(optimizer: Any, variable: Any, where: np.ndarray) -> None:
    """Sets what an optimizer remembers of some weights to 0: momenta, velocities.

    Args:
        optimizer: a Keras optimizer, or None.
        variable: whose weights.
        where: bool, of its shape: which weights.
    """
    if optimizer is None or not where.any():
        return
    for slot in _slots(optimizer, variable):
        values = np.array(ops.convert_to_numpy(slot))
        values[where] = 0
        slot.assign(values)


def _slots(optimizer: Any, variable: Any) -> list[Any]:
    """What an optimizer keeps for a variable of the model, of its shape."""
    owners = getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables
    # Parts of a loaded model may have layers of one name: they are told apart by order.
    namesakes = [v for v in owners if _flat_name(v) == _flat_name(variable)]
    positions = [i for i, v in enumerate(namesakes) if v is variable]
    if not positions:
        return []
    # Keras names what it keeps after the variable, "w_momentum" after "w"; but
    # "w_2_momentum" after "w_2".
    start = f"{_flat_name(variable)}_"
    longer = tuple(f"{n}_" for n in map(_flat_name, owners) if n.startswith(start))
    found: dict[str, list[Any]] = {}
    for slot in optimizer.variables:
        name = slot.path.rpartition("/")[2]
        if name.startswith(start) and not name.startswith(longer):
            found.setdefault(name, []).append(slot)
    own = [slots[positions[0]] for slots in found.values()]
    return [slot for slot in own if tuple(slot.shape) == tuple(variable.shape)]


def _flat_name(variable: Any) -> str:
    return str(variable.path).replace("/", "_")
