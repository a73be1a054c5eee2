"""A pruned model as a whole: its parts, the run of its schedule, its copies."""

from pdp_keras.pruned.functional import mark_graphs
from pdp_keras.pruned.parts import (
    Pruned,
    channel_groups,
    current_sparsity,
    find_wrappers,
    pruned_weights,
    require_pruned,
)
from pdp_keras.pruned.plain import plain_copy
from pdp_keras.pruned.quantization import refuse_quantization
from pdp_keras.pruned.reach import require_reached
from pdp_keras.pruned.run import ScheduleRun
from pdp_keras.pruned.subclassed import describe_if_possible, mark_pruned
from pdp_keras.pruned.target import choose_for_target

__all__ = [
    "Pruned",
    "ScheduleRun",
    "channel_groups",
    "choose_for_target",
    "current_sparsity",
    "describe_if_possible",
    "find_wrappers",
    "mark_graphs",
    "mark_pruned",
    "plain_copy",
    "pruned_weights",
    "refuse_quantization",
    "require_pruned",
    "require_reached",
]
