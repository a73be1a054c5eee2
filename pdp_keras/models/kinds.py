"""Tells the kinds of models apart."""

from __future__ import annotations

from typing import Any

import keras


def is_graph(model: Any) -> bool:
    """Whether it is a Sequential or Functional model."""
    # Keras has no public name for the Functional class; its instances alone can
    # run through a graph.
    return isinstance(model, keras.Sequential) or (
        isinstance(model, keras.Model) and hasattr(model, "_run_through_graph")
    )
