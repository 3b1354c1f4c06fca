"""How the driver (tests/bench/run.lua) talks to a program. One process is one framework with one number of threads; it reads commands from
stdin and answers each with one line of JSON on stdout:

    list                                {"peer": "torch", "threads": 2, "versions": {...}, "workloads": {"mlp_tiny": ["eager fused", ...]}}
    run WORKLOAD VARIANT STEPS          {"seconds": 0.1, "loss": 0.02, "setup_seconds": 1.3}       blanks of a variant are written as _
    learn WORKLOAD VARIANT SEED STEPS TAIL   {"loss": mean of the last TAIL of STEPS steps from a fresh start}
    memory WORKLOAD VARIANT             {"added": bytes that three steps add to what is resident, at their peak}
    drop WORKLOAD VARIANT               forgets what was built
    quit                                ends; so does the end of stdin

The first run of a workload builds it and warms it up before the clock starts; setup_seconds says what that took, first step and compilation
included, and is absent later. Training goes on from run to run. loss is that of the last step. What goes wrong is {"error": "..."}. Only
one program computes at a time, so that a driver may keep several open and alternate between them.
"""
import argparse
import gc
import json
import math
import os
import sys
import time
import traceback

WARM_SECONDS = 0.3


def arguments(about):
    """Command line of a peer: --threads. Call it before importing the framework: thread counts are taken from the environment at import."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0], epilog="then commands on stdin, see protocol.py")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("OMP_PROC_BIND", "close")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    return options


def resident():
    with open("/proc/self/status") as f:
        lines = dict(line.split(":", 1) for line in f)
    return [1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM")]


def serve(peer, options, versions, variants, build):
    """variants: workload to its list of variants; build(workload, variant, seed) gives run(n), which does n steps, waits until they are
    done, and returns the last loss as a number (None where there is none). Names that start with sweep: are not listed."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a framework prints must not come between the answers
    built = {}

    def get(name, variant):
        if (name, variant) in built:
            return built[name, variant], {}
        start = time.perf_counter()
        run = build(name, variant, 1)
        first = time.perf_counter()
        run(1)
        once = time.perf_counter() - first
        warm, n = time.perf_counter(), 2
        while once < WARM_SECONDS * 10 and time.perf_counter() - warm < WARM_SECONDS:
            run(n)
            n = min(2 * n, 1000)
        built[name, variant] = run
        return run, {"setup_seconds": round(time.perf_counter() - start, 3)}

    def run(name, variant, steps):
        step, setup = get(name, variant)
        start = time.perf_counter()
        loss = step(int(steps))
        seconds = time.perf_counter() - start
        if loss is not None and not math.isfinite(loss):
            raise ValueError(f"{name}: the loss became {loss}")
        return {"workload": name, "variant": variant, "steps": int(steps), "seconds": seconds, "loss": loss, **setup}

    def learn(name, variant, seed, steps, tail):
        step = build(name, variant, int(seed))
        step(int(steps) - int(tail))
        return {"loss": sum(step(1) for _ in range(int(tail))) / int(tail)}

    def memory(name, variant):
        step = build(name, variant, 1)
        gc.collect()
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        before = resident()[0]
        step(3)
        return {"added": resident()[1] - before}

    def drop(name, variant):
        built.pop((name, variant), None)
        gc.collect()
        return {}

    def about():
        return {"peer": peer, "threads": options.threads, "versions": versions, "workloads": variants}

    commands = {"run": run, "learn": learn, "memory": memory, "drop": drop, "list": about}
    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        if words[0] == "quit":
            break
        try:
            if words[0] not in commands:
                raise ValueError(f"unknown command {line.strip()!r}; there are: {', '.join(commands)}, quit")
            answer = commands[words[0]](*(w.replace("_", " ") if i == 2 else w for i, w in enumerate(words[1:], 1)))
        except Exception as error:  # the driver goes on with the other peers
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
