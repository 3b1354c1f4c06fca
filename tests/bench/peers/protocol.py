"""How a benchmark driver talks to a peer. A peer is one process for one framework in one variant; it reads commands from stdin and answers
each with one line of JSON on stdout:

    list              {"peer": "torch", "variant": "...", "threads": 2, "versions": {...}, "workloads": ["mlp_tiny", ...]}
    run mlp_tiny 500  {"workload": "mlp_tiny", "steps": 500, "samples": 16000, "seconds": 0.1, "samples_per_second": 160000.0,
                       "loss": 0.02, "setup_seconds": 1.3}
    quit              ends; so does the end of stdin

The first run of a workload builds it and warms it up (at least 3 steps and half a second) before the clock starts; setup_seconds says what
that took, first step and compilation included, and is absent later. Training goes on from run to run: loss is that of the last step,
which shows that real training was timed. What goes wrong is {"error": "..."}. Only one peer of a driver computes at a time, so it may
keep several open and alternate between them.
"""
import argparse
import json
import math
import os
import sys
import time
import traceback


def arguments(about, **choices):
    """Command line of a peer: --threads and one option per choice, whose first value is the default. Call it before importing the
    framework: thread counts are taken from the environment at import."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0], epilog="then commands on stdin: list, run WORKLOAD STEPS, quit")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    for name, values in choices.items():
        parser.add_argument("--" + name, choices=values, default=values[0])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("OMP_PROC_BIND", "close")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    return options


def variant(options):
    return " ".join(str(value) for name, value in vars(options).items() if name != "threads")


def serve(peer, options, versions, workloads):
    """workloads: name to (samples per step, build). build() gives run(n): do n steps, wait until they are done, return the last loss as
    a number (None where there is none)."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a framework prints must not come between the answers
    built = {}
    about = {"peer": peer, "variant": variant(options), "threads": options.threads}

    def run(name, steps):
        if name not in workloads:
            raise ValueError(f"no workload called {name}; there are {', '.join(workloads)}")
        samples, build = workloads[name]
        setup = {}
        if name not in built:
            start = time.perf_counter()
            built[name] = build()
            built[name](1)
            warm = time.perf_counter()
            while time.perf_counter() - warm < 0.5:
                built[name](3)
            setup = {"setup_seconds": round(time.perf_counter() - start, 3)}
        start = time.perf_counter()
        loss = built[name](steps)
        seconds = time.perf_counter() - start
        if loss is not None and not math.isfinite(loss):
            raise ValueError(f"{name}: the loss became {loss}")
        return {**about, "workload": name, "steps": steps, "samples": samples * steps, "seconds": seconds,
                "samples_per_second": samples * steps / seconds, "loss": loss, **setup}

    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        try:
            if words[0] == "quit":
                break
            if words[0] == "list":
                answer = {**about, "versions": versions, "workloads": list(workloads)}
            elif words[0] == "run" and len(words) == 3:
                answer = run(words[1], int(words[2]))
            else:
                raise ValueError(f"unknown command {line.strip()!r}; there are: list, run WORKLOAD STEPS, quit")
        except Exception as error:  # the driver goes on with the other peers
            traceback.print_exc()
            answer = {**about, "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
