"""Runs .tflite files inside the emulated machine; see benchmarks/arm_emulation.py.

`guest.py JOB`: the job, JSON, lists for each file its path, an .npz with its inputs
by name for each run, and where to write the outputs. The first run of a file prepares
it; the last one lies between the two system calls that the plugin counts between.
"""

import json
import os
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

for job in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    interpreter = Interpreter(model_path=job["model"], num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    found = []
    for name in job["inputs"]:
        with np.load(name) as saved:
            inputs = dict(saved)
        # Copies, and later no runner: while either is held it does not run by itself.
        found.append({key: np.copy(value) for key, value in runner(**inputs).items()})
    del runner
    # Setting inputs and reading outputs in Python is not counted.
    os.getsid(0)
    interpreter.invoke()
    os.getsid(0)
    for name, outputs in zip(job["outputs"], found, strict=True):
        np.savez(name, **outputs)
