#!/usr/bin/env python3
"""Measure Lockstep beside the limit program and other tools on the same work; one JSON line per tool, workload, phase.

    run.py limit lockstep-local                         # files, commands and mixed, `run --local`
    run.py --workloads mixed limit lockstep             # through a daemon
    run.py limit lockstep-local lockstep installed      # and every other tool that is on PATH
    run.py --runs 5 --scale 0.2 limit ansible           # slow tools: a fifth of the size

Tools take turns within every repetition, so a change in the machine's speed reaches all of them. Every run's
end state is compared with the model; a faster wrong answer is an error. One invocation at a time, as root, in a
throw-away machine: the tools keep state of their own under /var and /etc.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workload as model
from books import HERE, TOOLS, program, write, lockstep_book
from cluster import DevCluster
from measure import measure

PEERS = {"ansible": "ansible-playbook", "cfengine": "cf-agent", "puppet": "puppet", "pyinfra": "pyinfra",
         "salt": "salt-call"}
STANDARD = {"files": 500, "commands": 200, "mixed": 50}


class ThroughDaemon:
    """`lockstep run --wait` with one node: the tool, a server, an agent and an executor."""

    def __init__(self, work):
        self.cluster = DevCluster(f"{work}/daemon", 1, "embedded")
        self.root = f"{self.cluster.roots()[0]}/bench"

    def write(self, workload, folder):
        self.cluster.apply(write(folder, "book.yaml", lockstep_book(workload, "/bench")))

    def command(self, folder, root):
        return ["lockstep", *self.cluster.context, "run", "bench", "--wait"], {}


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work) as work:
        build_limit(work)
        tools = {name: TOOLS[name] for name in options.tools if name in TOOLS}
        through = ThroughDaemon(work) if "lockstep" in options.tools else None
        try:
            if through:
                tools["lockstep"] = through
            for name in options.workloads.split(","):
                report(name, options, run_workload(name, tools, options, Path(work)))
        finally:
            if through:
                through.cluster.down()
        if through and options.commands:
            for store in ["embedded", "etcd"]:
                three_nodes(store, options.commands, work)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="+", choices=[*TOOLS, "lockstep", "installed"])
    parser.add_argument("--workloads", default="files,commands,mixed")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of each workload's standard size")
    parser.add_argument("--commands", type=int, default=60, help="runs of one command on three nodes; 0: none")
    parser.add_argument("--work", default="/dev/shm", help="a folder for the roots, best on a tmpfs")
    options = parser.parse_args()
    if "installed" in options.tools:
        found = [name for name, default in PEERS.items() if shutil.which(program(name, default))]
        options.tools = [name for name in options.tools if name != "installed"]
        options.tools += [name for name in found if name not in options.tools]
    return options


def build_limit(work):
    if "BENCH_LIMIT" not in os.environ:
        binary = f"{work}/limit"
        subprocess.run(["rustc", "--edition", "2021", "-C", "opt-level=3", "-o", binary, HERE / "limit.rs"], check=True)
        os.environ["BENCH_LIMIT"] = binary


def sized(name, scale, **settings):
    return model.WORKLOADS[name](max(1, round(STANDARD[name] * scale)), **settings)


def run_workload(name, tools, options, work):
    """Samples by (tool, phase)."""
    workload = sized(name, options.scale)
    if name == "commands":
        for tool in tools:
            check_commands_run(tool, tools[tool], options, work)
    samples = {}
    for _ in range(options.runs):
        for tool, book in tools.items():
            folder, root = fresh_folder(work, name, tool, book)
            book.write(workload, folder)
            model.reset(workload, root)
            for phase in workload.phases:
                if phase == "drift":
                    model.drift(workload, root)
                sample = run_once(book, folder, root)
                complain(f"{tool} {name} {phase}", sample, model.differences(workload, root), folder)
                samples.setdefault((tool, phase), []).append(sample)
    return samples


def fresh_folder(work, name, tool, book):
    """Never one that was used before, nor is one deleted between runs; see `reset` in workload.py."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-{tool}-", dir=work))
    return str(folder), getattr(book, "root", str(folder / "root"))


def run_once(book, folder, root):
    argv, env = book.command(folder, root)
    return measure(argv, {"BENCH_ROOT": root, **env}, f"{folder}/log")


def check_commands_run(tool, book, options, work):
    """Untimed: the same book with a program that leaves one mark per run; count the marks."""
    folder, root = fresh_folder(work, "check", tool, book)
    tally = Path(folder, "tally")
    tally.write_text('#!/bin/sh\necho "$1" >> "$0.marks"\n')
    tally.chmod(0o755)
    workload = sized("commands", options.scale, program=str(tally))
    book.write(workload, folder)
    model.reset(workload, root)
    sample = run_once(book, folder, root)
    marks = Path(folder, "tally.marks").read_text().split() if Path(folder, "tally.marks").exists() else []
    wrong = [] if sorted(map(int, marks)) == list(range(len(workload.items))) else [f"{len(marks)} commands ran"]
    complain(f"{tool} commands check", sample, wrong, folder)


def complain(what, sample, differences, folder):
    if sample.status or differences:
        tail = Path(folder, "log").read_text(errors="replace")[-1500:]
        sys.exit(f"{what}: exit {sample.status}, {len(differences)} differences {differences[:3]}\n{tail}")


def report(name, options, samples):
    limits = {phase: found for (tool, phase), found in samples.items() if tool == "limit"}
    state = model.tree_hash(model.expected(sized(name, options.scale)))
    for (tool, phase), found in samples.items():
        wall, cpu = medians(found)
        line = {"tool": tool, "workload": name, "phase": phase, "wall_median_s": round(wall, 5),
                "wall_min_s": round(min(s.wall_s for s in found), 5),
                "wall_max_s": round(max(s.wall_s for s in found), 5),
                "cpu_s": round(cpu, 5), "rss_mb": round(max(s.rss_mb for s in found), 1), "n": len(found), "state": state}
        if phase in limits:
            limit_wall, limit_cpu = medians(limits[phase])
            line["wall_over_limit"] = round(wall / limit_wall, 2)
            line["cpu_over_limit"] = round(cpu / limit_cpu, 2)
        print(json.dumps(line), flush=True)


def medians(samples):
    return statistics.median(s.wall_s for s in samples), statistics.median(s.cpu_s for s in samples)


def three_nodes(store, count, work):
    """One command on three nodes, from `lockstep run` to all reported: its wall time, start-up included."""
    cluster = DevCluster(f"{work}/cluster-{store}", 3, store)
    try:
        cluster.apply(write(work, f"one-{store}.yaml",
                            "metadata: {apiVersion: v1alpha, kind: TaskBook, name: one, namespace: default}\n"
                            "spec:\n  targets: {all: true}\n  tasks:\n    - {name: one, command.run: {argv: [/bin/true]}}\n"))
        walls = []
        for nth in range(count + 5):
            start = time.perf_counter()
            done = subprocess.run(["lockstep", *cluster.context, "run", "one", "--wait"], capture_output=True, text=True)
            wall = time.perf_counter() - start
            if done.returncode or "3 changed" not in done.stdout:
                sys.exit(f"run {nth}: exit {done.returncode}\n{done.stdout}{done.stderr}")
            if nth >= 5:
                walls.append(wall)
        walls.sort()
        print(json.dumps({"tool": "lockstep", "workload": f"command-3-nodes-{store}", "phase": "run",
                          "wall_median_s": round(statistics.median(walls), 5), "wall_min_s": round(walls[0], 5),
                          "wall_p99_s": round(walls[int(len(walls) * 0.99)], 5), "wall_max_s": round(walls[-1], 5),
                          "n": len(walls)}), flush=True)
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
