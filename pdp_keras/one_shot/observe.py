"""Runs a model on calibration data and looks at what its layers are called with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from pdp_keras.models import untraced

Array = npt.NDArray[Any]


class _Reached(BaseException):
    """Ends a call of the model; Keras rewrites whatever is an `Exception`."""


class Observer:
    """What the layers of a model are called with on some batches.

    Args:
        model: a built plain model.
        batches: what the model is called with, one after the other.
        names: of layers that must be called, by their ids.

    Raises:
        ValueError: if the ids that an embedding looks up are not in its table.
    """

    def __init__(
        self, model: Any, batches: Sequence[Any], names: dict[int, str]
    ) -> None:
        self.model = model
        self.batches = batches
        self.names = names
        # The order in which the layers are called, and how often for one batch.
        self.calls: dict[int, int] = {}
        layers = list(model._flatten_layers())
        with contextlib.ExitStack() as stack:
            for layer in layers:
                if id(layer) in names:
                    stack.enter_context(_hooked(layer, self._count(layer)))
                elif isinstance(layer, keras.layers.Embedding):
                    stack.enter_context(_hooked(layer, _check_ids(layer)))
            for batch in batches:
                self._run(batch)
        self.calls = {key: n // len(batches) for key, n in self.calls.items()}

    def order(self, layer: Any) -> int:
        """The place of a layer in the order of calls.

        Raises:
            ValueError: if it is not called.
        """
        places = list(self.calls)
        if id(layer) not in self.calls:
            raise ValueError(
                "Every layer that is pruned must see calibration data; leave it out "
                f"with `filters`. Received: layer {self.names[id(layer)]!r}, which the "
                "model does not call"
            )
        return places.index(id(layer))

    def inputs(self, layer: Any) -> Iterator[Array]:
        """What a layer is called with, batch after batch, float32.

        Only what comes before the layer is computed.

        Raises:
            ValueError: if it is not finite.
        """
        for batch in self.batches:
            seen: list[Array] = []

            def note(value: Any, *_: Any, seen: list[Array] = seen, **__: Any) -> None:
                value = keras.ops.cast(value, "float32")
                seen.append(keras.ops.convert_to_numpy(value))
                if len(seen) == self.calls[id(layer)]:
                    raise _Reached

            with _hooked(layer, note), contextlib.suppress(_Reached):
                self._run(batch)
            for value in seen:
                if not np.isfinite(value).all():
                    raise ValueError(
                        "Activations must be finite to be measured. Received: NaN or "
                        f"infinity in the input of layer {self.names[id(layer)]!r}"
                    )
                yield value

    def _run(self, batch: Any) -> None:
        batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
        with untraced(), _without_gradient():
            self.model(batch, training=False)

    def _count(self, layer: Any) -> Callable[..., None]:
        def count(*_: Any, **__: Any) -> None:
            self.calls[id(layer)] = self.calls.get(id(layer), 0) + 1

        return count


@contextlib.contextmanager
def _hooked(layer: Any, look: Callable[..., None]) -> Iterator[None]:
    call = layer.call

    def observed(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        look(inputs, *args, **kwargs)
        return call(inputs, *args, **kwargs)

    # Past Keras' own __setattr__, which tracks what is set.
    vars(layer)["call"] = observed
    try:
        yield
    finally:
        vars(layer).pop("call")


def _check_ids(layer: Any) -> Callable[..., None]:
    # A tied embedding is also called with features, in reverse.
    def check(ids: Any, reverse: bool = False) -> None:
        if reverse:
            return
        values = keras.ops.convert_to_numpy(ids)
        beyond = values[(values < 0) | (values >= layer.input_dim)]
        if beyond.size:
            raise ValueError(
                f"Ids must be in [0, {layer.input_dim}) for layer {layer.name!r}. "
                f"Received: {beyond.flat[0]}"
            )

    return check


@contextlib.contextmanager
def _without_gradient() -> Iterator[None]:
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield
