"""`AtTarget`: keeps a callback from choosing an epoch of the warm-up."""

from __future__ import annotations

from typing import Any

import keras

from pdp_keras.pruned import require_pruned


class AtTarget(keras.callbacks.Callback):
    """Lets a callback see only the epochs in which a model has its target sparsity.

    `EarlyStopping` and `ModelCheckpoint(save_best_only=True)` look for the best
    epoch, and would find it while little is pruned: what they put back is dense. Inside
    of this callback their `on_epoch_end` is called only once the target is reached.

    Args:
        callback: the `keras.callbacks.Callback` to hold back.

    Raises:
        TypeError: if it is not a callback.
        ValueError: when training begins, if the model is not pruned.

    Example:

    >>> stop = pdp_keras.AtTarget(keras.callbacks.EarlyStopping("loss", patience=3))
    >>> model.fit(x, y, epochs=30, callbacks=[pdp_keras.PDPScheduleCallback(), stop])
    """

    def __init__(self, callback: Any) -> None:
        super().__init__()
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "callback must be a keras.callbacks.Callback. "
                f"Received: callback={callback!r}"
            )
        self.callback = callback

    def set_params(self, params: Any) -> None:
        """Called by Keras."""
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Called by Keras."""
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        require_pruned(self.model)
        self.callback.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Passed on if nothing is left to prune."""
        parts = require_pruned(self.model)
        if not any(p.is_below_target and not p.method.learns_sparsity for p in parts):
            self.callback.on_epoch_end(epoch, logs)


def _pass_on(name: str) -> Any:
    def hook(self: AtTarget, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.callback, name)(*args, **kwargs)

    hook.__doc__ = "Called by Keras."
    return hook


# All other moments are the callback's own.
for _name in dir(keras.callbacks.Callback):
    if _name.startswith("on_") and _name not in vars(AtTarget):
        setattr(AtTarget, _name, _pass_on(_name))
