"""Damaged .tflite files, and a process that reads them under limits.

Run as a script it reads so many mutations of the files in a folder and prints what came
of them as a line of JSON: a crash, a hang or too much memory ends the process.
"""

import collections
import json
import pathlib
import resource
import sys
import traceback

import numpy as np

# Of memory beyond what is taken once everything is imported.
MOST_MEMORY = 1 << 29


def mutated(data, generator):
    """One of the ways in which a file is damaged, or made to do damage."""
    data = bytearray(data)
    kind = generator.choice(["cut", "bits", "bytes", "offset", "swap", "huge"])
    at = int(generator.integers(len(data)))
    word = at - at % 4
    other = int(generator.integers(len(data) // 4)) * 4
    if kind == "cut":
        return bytes(data[:at])
    if kind == "bits":
        for place in generator.integers(len(data), size=generator.integers(1, 9)):
            data[place] ^= 1 << int(generator.integers(8))
    elif kind == "bytes":
        count = int(generator.integers(1, 17))
        data[at : at + count] = generator.bytes(len(data[at : at + count]))
    elif kind == "offset":
        to = int(generator.integers(-len(data), len(data)))
        data[word : word + 4] = to.to_bytes(4, "little", signed=True)
    elif kind == "swap":
        first, second = data[word : word + 4], data[other : other + 4]
        data[word : word + 4], data[other : other + 4] = second, first
    else:
        value = int(generator.choice([2**31 - 1, 2**31, 2**32 - 1, 2**24, 10**9]))
        data[word : word + 4] = value.to_bytes(4, "little")
    return bytes(data)


def read_all(data):
    """Everything that the package reads of a file, and edits in it."""
    from pdp_keras.tflite import edit_for_xnnpack, read_graph, stored_tensors

    stored_tensors(data)
    read_graph(data)
    edit_for_xnnpack(data)


def main(folder, count, seed):
    files = sorted(pathlib.Path(folder).glob("*.tflite"))
    contents = [path.read_bytes() for path in files]
    for data in contents:
        read_all(data)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    status = pathlib.Path("/proc/self/statm").read_text().split()
    taken = int(status[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_MEMORY,) * 2)
    found = collections.Counter()
    faults = []
    generator = np.random.default_rng(seed)
    for number in range(count):
        data = mutated(contents[number % len(contents)], generator)
        try:
            read_all(data)
            found["read"] += 1
        except ValueError as error:
            has_rule = "Received" in str(error)
            found["refused" if has_rule else "refused without a rule"] += 1
            if not has_rule:
                faults.append(traceback.format_exc()[-900:])
        except Exception:
            found["broken"] += 1
            faults.append(traceback.format_exc()[-900:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["bytes"] = peak - used
    print(json.dumps({"found": found, "faults": faults[:5]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
