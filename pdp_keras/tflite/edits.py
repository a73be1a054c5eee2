"""What is done to a file's bytes for a runtime, without changing what it computes."""

from __future__ import annotations

from pdp_keras.tflite.operands import with_image_operands
from pdp_keras.tflite.padding import with_explicit_padding


def edit_for_xnnpack(data: bytes) -> bytes:
    """Undoes what TensorFlow's converter does against XNNPACK's sparse path.

    Args:
        data: the content of a .tflite file.
    """
    return with_image_operands(with_explicit_padding(data))
