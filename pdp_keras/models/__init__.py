"""What the package knows of Keras' layers and models, pruned or not.

Which kernels there are, how a model is copied, called and counted. Nothing here knows
a mask or a wrapper, so that what ships a stripped model can stand on it.
"""

from pdp_keras.models.anew import describe_model
from pdp_keras.models.axes import KernelAxes
from pdp_keras.models.graph import (
    CopyState,
    make_anew,
    make_subclassed_anew,
    rebuild_graph,
)
from pdp_keras.models.inputs import (
    Array,
    Batch,
    ModelInput,
    ModelInputs,
    Row,
    batches,
    model_inputs,
    random_rows,
    representative_rows,
    unique_names,
)
from pdp_keras.models.kernels import (
    Kernel,
    SkippedWeight,
    child_layers,
    compile_filters,
    find_kernels,
    require_matches,
)
from pdp_keras.models.kinds import is_graph
from pdp_keras.models.layer_table import find_with_call, register_prunable_layer
from pdp_keras.models.macs import count_macs
from pdp_keras.models.own_class import (
    complete_config,
    exchange_inside,
    has_own_constructor,
    inner_first,
    plain_class,
    reseat,
    shared_arguments,
)
from pdp_keras.models.places import exchange_layers, look_up_layer, put_layer
from pdp_keras.models.plain import (
    require_built,
    require_float,
    require_plain,
    require_tensorflow,
)
from pdp_keras.models.traces import (
    compiled_functions,
    current_graph,
    forget_traces,
    untraced,
)
from pdp_keras.models.variables import copy_variables, renew_state, saved_variables
from pdp_keras.models.windows import Windows, make_windows

__all__ = [
    "Array",
    "Batch",
    "CopyState",
    "Kernel",
    "KernelAxes",
    "ModelInput",
    "ModelInputs",
    "Row",
    "SkippedWeight",
    "Windows",
    "batches",
    "child_layers",
    "compile_filters",
    "compiled_functions",
    "complete_config",
    "copy_variables",
    "count_macs",
    "current_graph",
    "describe_model",
    "exchange_inside",
    "exchange_layers",
    "find_kernels",
    "find_with_call",
    "forget_traces",
    "has_own_constructor",
    "inner_first",
    "is_graph",
    "look_up_layer",
    "make_anew",
    "make_subclassed_anew",
    "make_windows",
    "model_inputs",
    "plain_class",
    "put_layer",
    "random_rows",
    "rebuild_graph",
    "register_prunable_layer",
    "renew_state",
    "representative_rows",
    "require_built",
    "require_float",
    "require_matches",
    "require_plain",
    "require_tensorflow",
    "reseat",
    "saved_variables",
    "shared_arguments",
    "unique_names",
    "untraced",
]
