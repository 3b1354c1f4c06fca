#!/usr/bin/env python3
"""Measures the peers against one another, to find each framework's best configuration.

    peers/bin/python tests/bench/peers/measure.py                         every workload, every configuration below
    peers/bin/python tests/bench/peers/measure.py mlp_tiny infer_mlp      these workloads
    options: --rounds 5  --seconds 0.5 (of one run)  --only TEXT... (configurations that contain one of them)  --json FILE (all runs)

Runs are interleaved, A B C A B C, so that a slow minute of the machine meets everyone. For each workload and configuration the table
has the median of the samples per second, the least and the greatest, the last loss, and "others": the greatest share of the machine
that other processes took during a run. Above 5 % the line is marked noisy and should not be quoted. All chosen configurations are
open at once, half a gigabyte each.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
WORKLOADS = ["mlp_tiny", "mlp_784", "cnn_mnist", "lenet5", "resnet20", "lstm_text", "infer_mlp", "infer_cnn"]
CONFIGURATIONS = [
    f"{program} --threads {threads}"
    for program in ("torch", "torch --layout channels_last", "torch --layout channels_last --optimizer foreach",
                    "torch --engine compile --layout channels_last", "torch --engine compile --layout channels_last --optimizer loop",
                    "keras --loop fit", "keras --loop function", "keras --loop function --xla xla",
                    "jax --loop step", "jax --loop inside", "onnx --call run", "onnx --call binding")
    for threads in (1, 2)]
NOISY = 0.05


class Peer:
    def __init__(self, configuration):
        program, *options = configuration.split()
        self.name = configuration
        self.process = subprocess.Popen([sys.executable, HERE / f"{program}_peer.py", *options], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.workloads = self.ask("list")["workloads"]

    def ask(self, command):
        print(command, file=self.process.stdin)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: ended with code {self.process.wait()} at {command!r}")
        return json.loads(line)

    def cpu(self):
        """Seconds of processor time that the peer has used."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, workload, steps):
        machine, own = machine_cpu(), self.cpu()
        answer = self.ask(f"run {workload} {steps}")
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {workload}: {answer['error']}")
        busy, total = (b - a for a, b in zip(machine, machine_cpu()))
        answer["others"] = max(0.0, busy - (self.cpu() - own)) / total if total else 0.0
        answer["configuration"] = self.name
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def machine_cpu():
    """Seconds of all processors: busy (stolen ones included), and altogether."""
    ticks = [int(t) for t in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    total, idle = sum(ticks), ticks[3] + ticks[4]
    return (total - idle) / os.sysconf("SC_CLK_TCK"), total / os.sysconf("SC_CLK_TCK")


def measure(workload, peers, rounds, seconds):
    """All runs of one workload: one list per peer."""
    runs, steps = {}, {}
    for peer in [p for p in peers if workload in p.workloads]:
        try:
            first = peer.run(workload, 3)
            first = peer.run(workload, max(3, int(0.1 * 3 / first["seconds"])))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            continue
        steps[peer] = max(1, round(seconds * first["steps"] / first["seconds"]))
        runs[peer] = []
    for _ in range(rounds):
        for peer in runs:
            runs[peer].append(peer.run(workload, steps[peer]))
    return list(runs.values())


def report(workload, lists):
    rows = []
    for runs in lists:
        speeds = sorted(r["samples_per_second"] for r in runs)
        others = max(r["others"] for r in runs)
        rows.append((statistics.median(speeds), speeds[0], speeds[-1], runs[-1]["loss"], others, runs[0]["configuration"]))
    for median, least, greatest, loss, others, name in sorted(rows, reverse=True):
        loss = f"{loss:8.4f}" if loss is not None else " " * 8
        noisy = "noisy" if others > NOISY else ""
        print(f"{workload:10} {median:12,.0f}  {least:12,.0f} .. {greatest:12,.0f}  {loss}  {others:4.0%} {noisy:5}  {name}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workload", nargs="*", choices=[*WORKLOADS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    chosen = [c for c in CONFIGURATIONS if any(text in c for text in options.only)]
    if not chosen:
        parser.error(f"no configuration contains {' or '.join(options.only)}; there are: {'; '.join(CONFIGURATIONS)}")
    everything, peers = [], [Peer(c) for c in chosen]
    print(f"{'workload':10} {'samples/s':>12}  {'least':>12} .. {'greatest':>12}  {'loss':>8}  others       configuration")
    for workload in options.workload or WORKLOADS:
        lists = measure(workload, peers, options.rounds, options.seconds)
        report(workload, lists)
        everything += sum(lists, [])
    for peer in peers:
        peer.close()
    if options.json:
        options.json.write_text("".join(json.dumps(run) + "\n" for run in everything))


if __name__ == "__main__":
    main()
