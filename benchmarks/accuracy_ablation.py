"""What each part of PDP's recipe is worth: one change at a time.

    python benchmarks/accuracy_ablation.py            # goes on where it stopped
    python benchmarks/accuracy_ablation.py --optimizer=adam --rows="default|gradient"
    python benchmarks/accuracy_ablation.py --structure=1:4
    python benchmarks/accuracy_ablation.py --print_only

The networks, budgets and results file are those of `accuracy.py`; accuracy is that of
the validation split, so that what is chosen here is not chosen on test images.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

import common
from absl import app, flags
from accuracy_networks import BUDGETS, TASKS
from accuracy_recipes import recipe
from accuracy_runs import Results, run_all
from accuracy_training import Training

_STRUCTURE = flags.DEFINE_string("structure", "98", "A sparsity in percent, or N:M.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many runs of each.", 1)
_JOBS = flags.DEFINE_integer("jobs", 2, "Trainings at a time, a core each.", 1)
_OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "Of all.")
_NETWORKS = flags.DEFINE_list("networks", list(TASKS), "Which networks.")
_BUDGET = flags.DEFINE_enum(
    "budget", "short", BUDGETS, "full: all images, and three times the epochs."
)
_L2 = flags.DEFINE_float("l2", 0.0, "Of a regularizer of all kernels.", 0.0)
_ROWS = flags.DEFINE_string("rows", ".", "Rows that have this, a regular expression.")
_PRINT_ONLY = flags.DEFINE_bool("print_only", False, "Train nothing.")
_OUTPUT = flags.DEFINE_string(
    "output", "benchmarks/results/accuracy.csv", "Results file, added to."
)


ROWS: dict[str, Training] = {
    "the default": recipe("pdp"),
    "for comparison: GMP by LAMP": recipe("gmp", prune={"allocation": "lamp"}),
    "for comparison: the same, ramp: 0.3": recipe(
        "gmp", prune={"allocation": "lamp"}, ramp=0.3
    ),
    "for comparison: GMP by one ranking": recipe(
        "gmp", prune={"allocation": "global"}, warmup=0.125, ramp=0.4375
    ),
    "for comparison: DNW by LAMP": recipe(
        "dnw", prune={"allocation": "lamp"}, schedule={"ramp": "cubic"}
    ),
    "for comparison: movement": recipe("movement", prune={"allocation": "global"}),
    "gradient: at most 4": recipe("pdp", {"max_gain": 4.0}),
    "gradient: without a bound": recipe("pdp", {"max_gain": None}),
    "gradient: the mask": recipe("pdp_other_gradient", {"gradient": "mask"}),
    "gradient: 1 (straight-through)": recipe(
        "pdp_other_gradient", {"gradient": "straight_through"}
    ),
    "temperature: 4 t² at first": recipe("pdp", prune={"factor": 4.0}),
    "temperature: 2 t² at first": recipe("pdp", prune={"factor": 2.0}),
    "temperature: 0.3 t² at first": recipe("pdp", prune={"factor": 0.3}),
    "temperature: 0.1 t² at first": recipe("pdp", prune={"factor": 0.1}),
    "temperature: 1e-3 in all layers": recipe("pdp", prune={"temperature": 1e-3}),
    "fall: none": recipe("pdp", schedule={"final_temperature": 1.0}),
    "fall: to a tenth": recipe("pdp", schedule={"final_temperature": 0.1}),
    "fall: to a thousandth": recipe("pdp", schedule={"final_temperature": 0.001}),
    "fall: from the ramp's beginning": recipe("pdp", schedule={"fall": (0.0, 1.0)}),
    "fall: 0.25 to 0.75 of the ramp": recipe("pdp", schedule={"fall": (0.25, 0.75)}),
    "fall: half of it after the ramp": recipe("pdp", schedule={"fall": (0.5, 1.5)}),
    "fall: until nine tenths of the run": recipe("pdp", schedule={"fall": (0.5, 1.6)}),
    "the same, gradient: 1": recipe(
        "pdp_other_gradient",
        {"gradient": "straight_through"},
        schedule={"fall": (0.5, 1.6)},
    ),
    "allocation: LAMP, once": recipe(
        "pdp",
        prune={"allocation": {"max_sparsity": 1.0, "score": "lamp", "moving": False}},
    ),
    "allocation: global, moving": recipe("pdp", prune={"allocation": {"moving": True}}),
    "allocation: global, once": recipe("pdp", prune={"allocation": "global"}),
    "allocation: ERK": recipe("pdp", prune={"allocation": "erk"}),
    "allocation: uniform": recipe("pdp", prune={"allocation": "uniform"}),
    "ramp: a straight line": recipe("pdp", schedule={"ramp": "linear"}),
    "ramp: by epoch": recipe("pdp", schedule={"update": "epoch"}),
    "ramp: 0.3 of the run": recipe("pdp", ramp=0.3),
    "ramp: 0.4 of the run": recipe("pdp", ramp=0.4),
    "ramp: 0.7 of the run": recipe("pdp", ramp=0.7),
    "warm-up: none": recipe("pdp", warmup=0.0),
    "warm-up: none, ramp: 0.3 of the run": recipe("pdp", warmup=0.0, ramp=0.3),
    "warm-up: none, ramp: 0.4 of the run": recipe("pdp", warmup=0.0, ramp=0.4),
    "warm-up: 0.3 of the run": recipe("pdp", warmup=0.3),
    "weight decay: 5e-4": recipe("pdp", weight_decay=5e-4),
    "for comparison: dense": recipe("dense"),
}

_LATE = {"fall": (0.5, 1.0)}
_AT_ONCE = {"warmup": 0.0, "schedule": _LATE}

# N:M has no allocation to choose; what it minds is when its groups decide.
N_OF_M_ROWS: dict[str, Training] = {
    "the default": recipe("pdp"),
    "for comparison: GMP": recipe("gmp"),
    "for comparison: straight-through, no warm-up": recipe("dnw", warmup=0.0),
    "for comparison: SR-STE": recipe("sr_ste", {"decay": 5e-4}, warmup=0.0),
    "warm-up: none": recipe("pdp", warmup=0.0),
    "warm-up: none, ramp: 0.3 of the run": recipe("pdp", warmup=0.0, ramp=0.3),
    "fall: in the ramp's second half": recipe("pdp", schedule=_LATE),
    "the same, warm-up: none": recipe("pdp", **_AT_ONCE),
    "the same, gradient: without a bound": recipe(
        "pdp", {"max_gain": None}, **_AT_ONCE
    ),
    "the same, gradient: 1": recipe(
        "pdp_other_gradient", {"gradient": "straight_through"}, **_AT_ONCE
    ),
    "the same, temperature: 0.3 t² at first": recipe(
        "pdp", prune={"factor": 0.3}, **_AT_ONCE
    ),
    "the same, ramp: 0.3 of the run": recipe("pdp", ramp=0.3, **_AT_ONCE),
    "the same, ramp: 0.7 of the run": recipe("pdp", ramp=0.7, **_AT_ONCE),
    "for comparison: dense": recipe("dense"),
}


def training(network: str, change: Training, seed: int) -> Training:
    """What a row is for a network and a seed."""
    return dataclasses.replace(
        change,
        network=network,
        structure="dense" if change.method == "dense" else _STRUCTURE.value,
        seed=seed,
        optimizer=_OPTIMIZER.value,
        l2=_L2.value,
        **BUDGETS[_BUDGET.value](TASKS[network]),
    )


def chosen_rows() -> dict[str, Training]:
    """The rows that are asked for."""
    structure, pattern = _STRUCTURE.value, _ROWS.value
    if not re.fullmatch(r"\d+:\d+|\d+(\.\d+)?", structure):
        raise app.UsageError(f"structure: percent or N:M. Received: {structure!r}")
    rows = N_OF_M_ROWS if ":" in structure else ROWS
    try:
        found = {name: row for name, row in rows.items() if re.search(pattern, name)}
    except re.error as error:
        raise app.UsageError(
            f"rows: a regular expression ({error}). Received: {pattern!r}"
        ) from error
    if not found:
        raise app.UsageError(f"rows: some of {list(rows)}. Received: {pattern!r}")
    return found


def main(argv: list[str]) -> None:
    """Trains and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    rows = chosen_rows()
    results = Results(pathlib.Path(_OUTPUT.value).expanduser())
    print(common.describe_machine())
    cells = {
        name: {
            network: [training(network, change, seed) for seed in range(_SEEDS.value)]
            for network in _NETWORKS.value
        }
        for name, change in rows.items()
    }
    if not _PRINT_ONLY.value:
        wanted = [t for row in cells.values() for cell in row.values() for t in cell]
        run_all(sorted(wanted, key=lambda one: one.seed), results, _JOBS.value)
    print(f"\nValidation accuracy, {_STRUCTURE.value}, {_OPTIMIZER.value}")
    print("| | " + " | ".join(_NETWORKS.value) + " |")
    print("| --- |" + " --- |" * len(_NETWORKS.value))
    for name, row in cells.items():
        texts = []
        for cell in row.values():
            found = [results[one]["validation"] for one in cell if results[one]]
            texts.append(common.mean_and_std(found) if found else "")
        print(f"| {name} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    app.run(main)
