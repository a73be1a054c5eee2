"""`deploy_check`: will it be faster on the device, and if not, why?"""

from __future__ import annotations

from typing import Any

import keras

from pdp_keras.models import model_inputs, require_plain
from pdp_keras.rewrites import fix_sizes
from pdp_keras.targets import registry as targets
from pdp_keras.targets.report import DeployCheck


def deploy_check(
    model: Any, target: str, *, input_signature: Any = None
) -> DeployCheck:
    """Says layer by layer whether a device will skip the zeros, and what would help.

    It can be asked before anything is trained: what stands in the way of a dense
    model stands in the way of the pruned one.

    Args:
        model: a built Keras model without pruning wrappers; not changed. For
            "xnnpack" Sequential or Functional, with images of a fixed size.
        target: a key of `targets.TARGETS`: "xnnpack" (phones and browsers),
            "xnnpack-arm64", "xnnpack-wasm", "ethos-u" or "generic".
        input_signature: as for `export_tflite`, for a model that leaves sizes open.

    Returns:
        A `DeployCheck`; print it.

    Raises:
        ValueError, TypeError: an argument breaks a rule stated here.
        ExportError: the model cannot be converted.

    Example:

    >>> network = keras.applications.MobileNetV2(weights=None)
    >>> print(pdp_keras.deploy_check(network, "xnnpack"))
    """
    row = targets.get(target)
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a `keras.Model` of Keras 3. Received: model={model!r}"
        )
    require_plain(model, "check")
    if input_signature is not None:
        model = fix_sizes(model, model_inputs(model, input_signature))
    return row.check(model)
