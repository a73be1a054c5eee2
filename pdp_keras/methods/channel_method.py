"""`ChannelMethod`: what the methods share that prune groups of channels only."""

from __future__ import annotations

from typing import NoReturn

from pdp_keras.methods.base import Method, Weight


class ChannelMethod(Method):
    """Prunes channels by what other layers make of them.

    So a layer that stands alone in a `PDPWrapper` cannot be pruned by it.
    """

    modes = ("channel",)

    def masked(self, weight: Weight) -> NoReturn:
        """Refuses.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"method={self.name!r} prunes the channels of a whole model: use "
            "pdp_keras.prune_model(model, mode='channel', ...). Received: a single "
            "layer in a PDPWrapper"
        )

    def hard_masked(self, weight: Weight) -> NoReturn:
        """Refuses.

        Raises:
            ValueError: always.
        """
        self.masked(weight)
