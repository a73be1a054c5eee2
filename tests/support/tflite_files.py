"""Files as the converter writes them, and what they compute."""

from pdp_keras.models import inputs as tflite_inputs
from pdp_keras.tflite import conversion
from pdp_keras.tflite.file import TFLiteRun


def converted(model, sparse=False):
    inputs = tflite_inputs.model_inputs(model)
    trace = conversion.traced(model, inputs, 1)
    kind = conversion.QUANTIZATIONS[None]
    return conversion.tflite_bytes(trace, kind, [], sparse=sparse)


def outputs(data, x):
    return [next(iter(TFLiteRun(data)({"image": row[None]}).values())) for row in x]
