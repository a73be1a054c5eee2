"""When what is pruned: ramps, the fall of the temperature, and moments of a run.

Numbers only; the run itself, which sets a model's counters, is in `pdp_keras.pruned`.
"""

from pdp_keras.scheduling.moment import Moment
from pdp_keras.scheduling.schedules import (
    RAMPS,
    LinearRamp,
    TemperatureFall,
)
from pdp_keras.scheduling.timetable import Timetable, check_end

__all__ = [
    "RAMPS",
    "LinearRamp",
    "Moment",
    "TemperatureFall",
    "Timetable",
    "check_end",
]
