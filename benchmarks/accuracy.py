"""PDP against the methods that its papers compare with: one table, one command.

    python benchmarks/accuracy.py                # hours; goes on where it was stopped
    python benchmarks/accuracy.py --quick        # all methods, a quarter of an hour
    python benchmarks/accuracy.py --print_only   # the tables of what has been run

Fashion-MNIST, three networks, SGD with momentum and a cosine, the same batches, epochs
and seeds for all. Every method has the same number of candidates
(`accuracy_recipes.py`), of which validation accuracy chooses one for each network with
the first seed: at 90 % for all below 98 %, at 98 % for that and above, and for each N:M
and channels by itself. A method that learns its sparsity is instead brought to each
level by bisection. The test images are looked at by the final table only. `tfmot` is
the magnitude pruning of tensorflow-model-optimization, an outside check of
`gmp_uniform`, which is ours with the same settings.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import math
import pathlib
import re
from typing import Any

import common
import numpy as np
from absl import app, flags
from accuracy_networks import TASKS as IMAGE_TASKS
from accuracy_recipes import LEARNED, RECIPES
from accuracy_runs import Results, Row, run_all
from accuracy_text import TASKS as TEXT_TASKS
from accuracy_text_recipes import LEARNED as TEXT_LEARNED
from accuracy_text_recipes import RECIPES as TEXT_RECIPES
from accuracy_training import TASKS, Training, optimizer_of

_ALL = ["90", "95", "98", "99", "2:4", "1:4", "channel"]
_FEW = ["98", "2:4"]
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many runs of each.", 1)
_QUICK = flags.DEFINE_bool("quick", False, "Short trainings, one seed, no tuning.")
_JOBS = flags.DEFINE_integer("jobs", 2, "Trainings at a time, a core each.", 1)
_NETWORKS = flags.DEFINE_list("networks", list(IMAGE_TASKS), "Which networks.")
_STRUCTURES = flags.DEFINE_list(
    "structures",
    None,
    f"Percent, N:M, channel; by default {_ALL}, with --quick {_FEW}.",
)
_METHODS = flags.DEFINE_list("methods", None, "Which methods; by default all.")
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "sgd", ["sgd", "adam"], "Of all trainings, with the recipes of SGD."
)
_PRINT_ONLY = flags.DEFINE_bool("print_only", False, "Train nothing.")
_PLOT = flags.DEFINE_string("plot", None, "File for a picture of the tables.")
_OUTPUT = flags.DEFINE_string(
    "output", "benchmarks/results/accuracy.csv", "Results file, added to."
)

# Every method of the tables, in their order.
NAMES = list(dict.fromkeys(name for kind in RECIPES.values() for name in kind))
# What SCP makes its probabilities of, LeNet does not have.
_CANNOT = {"lenet": ("scp",)}
# Where the outside check is made; it is slow.
_CHECKS = {"tfmot": ("90", "98"), "gmp_uniform": ("90", "98")}
# Trainings for each level of a learned sparsity; they serve the other levels, too.
_TRIALS = 4
# A learned sparsity may miss its target by this part of the density.
_TOLERANCE = 0.05


def structures() -> list[str]:
    """The columns of the tables."""
    given: list[str] | None = _STRUCTURES.value
    return given or (_FEW if _QUICK.value else _ALL)


def recipes(network: str, kind: str) -> dict[str, tuple[Training, ...]]:
    """The candidates of each method for a network and a kind of structure."""
    return (TEXT_RECIPES if network in TEXT_TASKS else RECIPES)[kind]


def learned(network: str) -> dict[str, tuple[str, float, float]]:
    """What brings the methods that learn their sparsity to their target."""
    return TEXT_LEARNED if network in TEXT_TASKS else LEARNED


def kind_of(structure: str) -> str:
    """`"nm"`, `"channel"` or `"unstructured"`."""
    if structure == "channel":
        return "channel"
    return "nm" if ":" in structure else "unstructured"


def training(
    network: str,
    structure: str,
    recipe: Training,
    seed: int = 0,
    optimizer: str = "sgd",
    **arguments: Any,
) -> Training:
    """What a recipe is for a network, a structure and a seed."""
    if recipe.method == "dense":
        structure = "dense"  # One training for all columns.
    if recipe.method in LEARNED:
        structure = "98"  # Which it does not heed.
    return dataclasses.replace(
        recipe,
        network=network,
        structure=structure,
        seed=seed,
        optimizer=optimizer_of(network, optimizer),
        arguments=recipe.arguments | arguments,
        **({"epochs": 2, "images": 6000} if _QUICK.value else {}),
    )


def tuned_at(structure: str) -> str:
    """The structure at which the candidates of this one are compared."""
    if kind_of(structure) == "unstructured":
        return "98" if float(structure) >= 98 else "90"
    return structure


def tune(network: str, kind: str, results: Results) -> None:
    """Runs all candidates of all methods for one network."""
    places = dict.fromkeys(tuned_at(s) for s in structures() if kind_of(s) == kind)
    network = TASKS[network].tuned_as or network
    candidates = [
        training(network, place, recipe)
        for place in places
        for name, found in recipes(network, kind).items()
        for recipe in found
        if len(found) > 1 and name in chosen_methods(network, kind)
    ]
    run_all(candidates, results, _JOBS.value)


def best(network: str, structure: str, name: str, results: Results) -> Training:
    """The candidate of the best validation accuracy; the first one until tuned."""
    tuned_as = TASKS[network].tuned_as or network

    def accuracy(recipe: Training) -> float:
        row = results[training(tuned_as, tuned_at(structure), recipe)]
        return row["validation"] if row else -1.0

    return max(recipes(network, kind_of(structure))[name], key=accuracy)


def chosen_methods(network: str, kind: str) -> list[str]:
    """The methods that are asked for and can prune in this kind of structure."""
    wanted = _METHODS.value or list(recipes(network, kind))
    return [name for name in wanted if can_prune(network, kind, name)]


def can_prune(network: str, kind: str, name: str) -> bool:
    """Whether a method can prune a network in this kind of structure."""
    return name in recipes(network, kind) and name not in _CANNOT.get(network, ())


def is_cell(network: str, structure: str, name: str) -> bool:
    """Whether the table has this method here."""
    is_asked = structure in _CHECKS.get(name, (structure,))
    return is_asked and can_prune(network, kind_of(structure), name)


def final(network: str, structure: str, name: str, results: Results) -> list[Training]:
    """The trainings that a cell of the table is made of, a seed each."""
    recipe = best(network, structure, name, results)
    seeds = 1 if _QUICK.value else _SEEDS.value
    arguments = {}
    if name in LEARNED:
        reached = reach(network, recipe, results)
        if structure not in reached:
            return []
        arguments = {learned(network)[name][0]: reached[structure]}
    return [
        training(network, structure, recipe, seed, _OPTIMIZER.value, **arguments)
        for seed in range(seeds)
    ]


def find_learned(network: str, results: Results) -> None:
    """Runs the searches of the methods that learn their sparsity."""
    # In threads, because a search waits for one training after another.
    with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
        searches = [
            pool.submit(
                reach,
                network,
                recipes(network, "unstructured")[name][0],
                results,
                may_train=True,
            )
            for name in chosen_methods(network, "unstructured")
            if name in LEARNED
        ]
        for search in searches:
            search.result()


def reach(
    network: str, recipe: Training, results: Results, may_train: bool = False
) -> dict[str, float]:
    """The argument that brings a learned sparsity to each level, as far as searched."""
    name, low, high = learned(network)[recipe.method]
    tried: dict[float, float] = {}
    reached = {}
    for level in (s for s in structures() if kind_of(s) == "unstructured"):
        target = float(level) / 100
        for _ in range(1 if _QUICK.value else _TRIALS):
            value = next_trial(tried, target, low, high)
            spec = training(
                network, level, recipe, 0, _OPTIMIZER.value, **{name: value}
            )
            if may_train:
                run_all([spec], results, 1)
            row = results[spec]
            if row is None:
                # The search is not finished: the nearest of all that has been run.
                tried |= results.tried(spec, name)
                break
            tried[value] = row["sparsity"]
            if abs(tried[value] - target) <= _TOLERANCE * (1 - target):
                break
        if tried:
            reached[level] = min(tried, key=lambda v: abs(tried[v] - target))
    return reached


def next_trial(
    tried: dict[float, float], target: float, low: float, high: float
) -> float:
    """Between the values whose sparsities enclose the target.

    Args:
        tried: sparsities by value, which rise with it.
        target: the sparsity to be reached.
        low: no value is below it.
        high: no value is above it.
    """
    below = max((v for v, s in tried.items() if s < target), default=low)
    above = min((v for v, s in tried.items() if s >= target), default=high)
    share = 0.5
    if below in tried and above in tried:
        # The density falls about like a power of the value.
        first, last, wanted = np.log(
            [1 - tried[below], max(1e-6, 1 - tried[above]), 1 - target]
        )
        share = float(np.clip((first - wanted) / (first - last), 0.1, 0.9))
    return float(f"{below ** (1 - share) * above**share:.3g}")


def print_tables(results: Results) -> None:
    """Mean and standard deviation of the test accuracy, a table a network.

    In bold what is the best of a column, or within half a standard deviation of it;
    below, where PDP is not.
    """
    for network in _NETWORKS.value:
        found = {
            structure: {n: rows_of(network, structure, n, results) for n in NAMES}
            for structure in structures()
        }
        ranked = {s: rank_cells(s, rows) for s, rows in found.items()}
        optimizer = optimizer_of(network, _OPTIMIZER.value)
        print(f"\n{network}, {optimizer}: test accuracy in percent")
        print("| | " + " | ".join(structures()) + " | s | MB |")
        print("| --- |" + " --- |" * (len(structures()) + 2))
        for name in _METHODS.value or NAMES:
            cells, costs = [], []
            for structure in structures():
                rows = found[structure][name]
                text = describe_cell(name, structure, rows)
                is_best = ranked[structure].get(name, math.inf) <= 0.5
                cells.append(f"**{text}**" if is_best else text)
                costs += rows
            if not costs:
                continue
            seconds = np.median([row["seconds"] for row in costs])
            memory = np.median([row["megabytes"] for row in costs])
            print(
                f"| {name} | "
                + " | ".join(cells)
                + f" | {seconds:.0f} | {memory:.0f} |"
            )
        for structure, behind in ranked.items():
            if behind.get("pdp", 0.0) > 0.5:
                first = min(behind, key=lambda name: behind[name])
                print(
                    f"{structure}: PDP is {behind['pdp']:.1f} standard deviations "
                    f"behind {first}"
                )


def rank_cells(structure: str, column: dict[str, list[Row]]) -> dict[str, float]:
    """How far each method is behind the best one of a column.

    Args:
        structure: that of the column.
        column: the finished trainings by the name of the method.

    Returns:
        In standard deviations, of both together (the root of the mean variance), by
        the name of the method. Left out are the dense network, the outside check, and
        whose learned sparsity is another one; with one seed only there is nothing.
    """
    found: dict[str, tuple[float, float]] = {}
    for name, rows in column.items():
        if name == "dense" or name in _CHECKS:
            continue
        tests = [row["test"] for row in rows]
        if len(tests) > 1 and is_on_target(structure, rows):
            found[name] = float(np.mean(tests)), float(np.var(tests, ddof=1))
    if not found:
        return {}
    best, spread = max(found.values())
    return {
        name: (best - mean) / max(1e-9, math.sqrt((variance + spread) / 2))
        for name, (mean, variance) in found.items()
    }


def is_on_target(structure: str, rows: list[Row]) -> bool:
    """Whether a sparsity, which may have been learned, is that of the column."""
    if kind_of(structure) != "unstructured":
        return True
    target = float(structure) / 100
    reached = np.mean([row["sparsity"] for row in rows])
    return bool(abs(reached - target) <= 2 * _TOLERANCE * (1 - target))


def describe_cell(name: str, structure: str, rows: list[Row]) -> str:
    """Mean and deviation, and the sparsity where a learned one misses its target."""
    if not rows:
        return ""
    text = common.mean_and_std([row["test"] for row in rows])
    if name in ("dense", "tfmot") or is_on_target(structure, rows):
        return text
    reached = np.mean([row["sparsity"] for row in rows])
    return f"{text} (at {100 * reached:.1f} %)"


def plot_tables(results: Results, path: pathlib.Path) -> None:
    """Test accuracy over density, an axis a network and a line a method.

    What loses far more than the best method leaves the picture at the bottom.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    levels = [s for s in structures() if kind_of(s) == "unstructured"]
    figure, axes = plt.subplots(
        1, len(_NETWORKS.value), figsize=(5 * len(_NETWORKS.value), 4), squeeze=False
    )
    for axis, network in zip(axes[0], _NETWORKS.value, strict=True):
        bests = {s: 0.0 for s in levels}
        for name in chosen_methods(network, "unstructured"):
            cells = {s: rows_of(network, s, name, results) for s in levels}
            tests = {s: [row["test"] for row in rows] for s, rows in cells.items()}
            known = [s for s in levels if tests[s]]
            bests |= {s: max(bests[s], float(np.mean(tests[s]))) for s in known}
            axis.errorbar(
                [100 - float(s) for s in known],
                [np.mean(tests[s]) for s in known],
                [common.deviation(tests[s]) for s in known],
                label=name,
                linewidth=2.5 if name == "pdp" else 1,
                marker="o",
                markersize=3,
            )
        axis.set(title=network, xlabel="weights left, percent", xscale="log")
        left = [100 - float(s) for s in levels]
        axis.set_xticks(left, [f"{value:g}" for value in left], minor=False)
        axis.set_xticks([], minor=True)
        axis.invert_xaxis()
        least = min(bests.values())
        axis.set_ylim(bottom=max(0.0, least - 1.5 * (max(bests.values()) - least) - 1))
    axes[0, 0].set_ylabel("test accuracy, percent")
    axes[0, -1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def rows_of(network: str, structure: str, name: str, results: Results) -> list[Row]:
    """The finished trainings of a cell."""
    if not is_cell(network, structure, name):
        return []
    rows = [results[t] for t in final(network, structure, name, results)]
    return [row for row in rows if row]


def main(argv: list[str]) -> None:
    """Tunes, trains, and prints the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    for flag, known in ((_NETWORKS, TASKS), (_METHODS, NAMES)):
        unknown = sorted(set(flag.value or ()) - set(known))
        if unknown:
            raise app.UsageError(f"{flag.name}: of {list(known)}. Received: {unknown}")
    for structure in structures():
        if not re.fullmatch(r"\d+:\d+|\d+(\.\d+)?|channel", structure):
            raise app.UsageError(
                f"structures: percent, N:M, channel. Received: {structure!r}"
            )
    path = pathlib.Path(_OUTPUT.value).expanduser()
    results = Results(path.with_stem(path.stem + "_quick") if _QUICK.value else path)
    print(common.describe_machine())
    if not _PRINT_ONLY.value:
        for network in _NETWORKS.value:
            kinds = dict.fromkeys(kind_of(structure) for structure in structures())
            for kind in kinds if not _QUICK.value else ():
                tune(network, kind, results)
            find_learned(network, results)
        cells = [
            final(network, structure, name, results)
            for network in _NETWORKS.value
            for structure in structures()
            for name in chosen_methods(network, kind_of(structure))
            if is_cell(network, structure, name)
        ]
        # One seed after the other: whenever it is stopped, there is a table.
        for one_of_each in itertools.zip_longest(*cells):
            run_all([t for t in one_of_each if t], results, _JOBS.value)
    print_tables(results)
    if _PLOT.value:
        plot_tables(results, pathlib.Path(_PLOT.value).expanduser())


if __name__ == "__main__":
    app.run(main)
