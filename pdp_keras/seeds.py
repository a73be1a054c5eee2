"""`BackupSeeds`: a resumed run draws the random numbers that it would have drawn."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import keras
import numpy as np
from keras import ops


class BackupSeeds(keras.callbacks.Callback):
    """Keeps the states of a model's random numbers beside its backup.

    Keras saves no `SeedGenerator`: after `BackupAndRestore`, or from a `.keras` file, a
    model with `Dropout` goes on with other random numbers than it would have had. With
    this callback beside it a resumed run ends bit for bit as one that was not
    interrupted, if its batches are the same: Keras shuffles arrays anew
    (`shuffle=False`, or a data set shuffled by a seed and the epoch).

    The file holds the states for the last two epochs, so that it does not matter which
    of the two backups was written last. It is removed when training ends.

    Args:
        path: of a JSON file, which need not exist.

    Raises:
        TypeError: if it is not a path.
        ValueError: when a run is resumed, if the file is that of another model.

    Example:

    >>> backup = [
    ...     keras.callbacks.BackupAndRestore("run/backup"),
    ...     pdp_keras.BackupSeeds("run/seeds.json"),
    ... ]
    >>> schedule = pdp_keras.PDPScheduleCallback()
    >>> model.fit(x, y, epochs=30, shuffle=False, callbacks=[schedule, *backup])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"path must be that of a file. Received: path={path!r}")
        self.path = pathlib.Path(path).expanduser()
        self._is_new = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._is_new = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras; which epoch is the first one, a backup may have decided."""
        if self._is_new:
            self._is_new = False
            states = self._kept().get(str(epoch))
            if states is not None:
                self._set(states)
            else:
                self._keep(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._keep(epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self.path.unlink(missing_ok=True)

    def _variables(self) -> list[Any]:
        # On JAX the trainer holds the newest values.
        sync = getattr(self.model, "jax_state_sync", None)
        if sync is not None:
            sync()
        layers = {id(layer): layer for layer in self.model._flatten_layers()}
        return [
            generator.state
            for layer in layers.values()
            for generator in layer._seed_generators
        ]

    def _kept(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        kept: dict[str, Any] = json.loads(self.path.read_text())
        return kept

    def _keep(self, epoch: int) -> None:
        states = [
            np.asarray(ops.convert_to_numpy(state)).tolist()
            for state in self._variables()
        ]
        last = str(epoch - 1)
        kept = {key: value for key, value in self._kept().items() if key == last}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Never half a file.
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps({**kept, str(epoch): states}))
        os.replace(new, self.path)

    def _set(self, states: Any) -> None:
        variables = self._variables()
        shapes = [tuple(variable.shape) for variable in variables]
        if [np.shape(state) for state in states] != shapes:
            raise ValueError(
                "The file of BackupSeeds must be that of the model that is resumed. "
                f"Received: path={str(self.path)!r} with {len(states)} random states, "
                f"and {len(variables)} in model={self.model.name!r}"
            )
        for variable, state in zip(variables, states, strict=True):
            variable.assign(np.array(state, variable.dtype))
