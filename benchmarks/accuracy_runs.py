"""Runs many trainings, a process each, and keeps their figures in a CSV file.

What is in the file already is not run again: a killed run goes on where it was. A
process for each, so that its memory can be measured and two can share two cores.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import json
import multiprocessing
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from typing import Any

import accuracy_training
from accuracy_training import Training

FIGURES = (
    "validation",
    "test",
    "sparsity",
    "loss",
    "macs",
    "seconds",
    "megabytes",
)
_DEFAULTS = dataclasses.asdict(Training("", "", ""))
# One core for each training, small networks gain nothing from a second one; and TFMOT
# knows the old Keras only. JAX takes half the time of TensorFlow, and what it compiles
# serves all trainings that differ in seed and sparsity alone.
_ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(tempfile.gettempdir()) / "pdp_xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    # Its threads would not survive the fork.
    "TOKENIZERS_PARALLELISM": "false",
}

Row = dict[str, Any]


class Results:
    """A CSV file with a line for each finished training."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        if path.exists():
            self._read()

    def _read(self) -> None:
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            found = [(_training(row), row) for row in reader]
            columns = list(reader.fieldnames or ())
        for training, row in found:
            self.rows[_key(training)] = {name: float(row[name]) for name in FIGURES}
        if columns != [*_DEFAULTS, *FIGURES]:
            # Written before a setting was new: its columns come to be those of now.
            new = Results(self.path.with_name(f"{self.path.name}.new"))
            for training, row in found:
                new.add(training, {name: float(row[name]) for name in FIGURES})
            new.path.replace(self.path)

    def __getitem__(self, training: Training) -> Row | None:
        """The figures of a training; None if it has not been run."""
        return self.rows.get(_key(training))

    def tried(self, training: Training, argument: str) -> dict[float, float]:
        """Sparsities by the value of an argument, of trainings alike but for it."""
        found = {}
        for key, row in self.rows.items():
            arguments = json.loads(key)["arguments"]
            if argument in arguments:
                value = arguments[argument]
                alike = training.arguments | {argument: value}
                if key == _key(dataclasses.replace(training, arguments=alike)):
                    found[value] = row["sparsity"]
        return found

    def add(self, training: Training, figures: Row) -> None:
        """Adds a line to the file."""
        with self._lock:
            is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if is_new:
                    writer.writerow((*_DEFAULTS, *FIGURES))
                described = dataclasses.asdict(training).values()
                cells = [json.dumps(v) if isinstance(v, dict) else v for v in described]
                rounded = {name: f"{figures[name]:.6g}" for name in FIGURES}
                writer.writerow((*cells, *rounded.values()))
            # As the file will say: a search that is resumed takes the same way.
            self.rows[_key(training)] = {n: float(text) for n, text in rounded.items()}


def run_all(trainings: Iterable[Training], results: Results, jobs: int) -> None:
    """Runs what is not in the results yet; prints each line and the time left."""
    left = list({_key(t): t for t in trainings if not results[t]}.values())
    if not left:
        return
    start, finished = time.perf_counter(), 0
    preload = dict.fromkeys(training.task.preload for training in left)
    with _processes(min(jobs, len(left)), list(preload)) as pool:
        futures = {pool.submit(accuracy_training.run, one): one for one in left}
        for future in concurrent.futures.as_completed(futures):
            training, figures = futures[future], future.result()
            results.add(training, figures)
            finished += 1
            each = (time.perf_counter() - start) / finished
            minutes = each * (len(left) - finished) / 60
            print(
                f"{describe(training):<60} {describe_figures(figures)}   "
                f"{finished} of {len(left)}, {minutes:.0f} minutes left",
                flush=True,
            )


def _processes(jobs: int, preload: list[str]) -> concurrent.futures.ProcessPoolExecutor:
    """A fresh process for each training, from one that has imported everything."""
    os.environ.update(_ENVIRONMENT)
    # The process that forks finds modules by it alone (CPython 3.11 to 3.13).
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    # Keras on JAX imports TensorFlow, too, but not before it needs it.
    context.set_forkserver_preload(["tensorflow", *preload])
    return concurrent.futures.ProcessPoolExecutor(
        jobs, mp_context=context, max_tasks_per_child=1, initializer=_take_core
    )


# The file whose lock says that this process has a core to itself.
_lock_of_core: Any = None


def _take_core() -> None:
    """Keeps this process on a core that no other training has, if there is one.

    XLA starts as many threads as there are cores; two trainings then take turns on
    all of them, which costs both some of their time.
    """
    global _lock_of_core
    if not hasattr(os, "sched_setaffinity"):  # Linux has it
        return
    import fcntl

    for core in sorted(os.sched_getaffinity(0)):
        path = pathlib.Path(tempfile.gettempdir()) / f"pdp_keras_core_{core}"
        _lock_of_core = path.open("w")  # closed, and so given back, with the process
        try:
            fcntl.flock(_lock_of_core, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        os.sched_setaffinity(0, {core})
        return


def describe(training: Training) -> str:
    """One line that tells trainings apart."""
    values = dataclasses.asdict(training)
    named = ("network", "structure", "method", "optimizer", "seed")
    words = [str(values.pop(name)) for name in named]
    settings = {name: v for name, v in values.items() if v != _DEFAULTS[name]}
    return " ".join([*words, json.dumps(settings) if settings else ""])


def describe_figures(figures: Row) -> str:
    """Validation accuracy, sparsity and time."""
    return (
        f"{figures['validation']:6.2f} %, sparsity {figures['sparsity']:.4f}, "
        f"{figures['seconds']:4.0f} s"
    )


def _key(training: Training) -> str:
    return json.dumps(dataclasses.asdict(training), sort_keys=True)


def _training(row: dict[str, str]) -> Training:
    values: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        kind = type(default)
        if name not in row:
            continue
        values[name] = json.loads(row[name]) if kind is dict else kind(row[name])
    return Training(**values)
