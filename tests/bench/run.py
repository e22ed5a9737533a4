#!/usr/bin/env python3
"""Measure Lockstep beside the limit program on the same work; one JSON line per tool, workload and phase.

    run.py limit lockstep-local            # workloads files and commands, `run --local`
    run.py --runs 9 limit lockstep         # one command on three nodes through the daemons, too

Tools take turns within every repetition, so a change in the machine's speed reaches all of them. Every run's
end state is compared with the model; a faster wrong answer is an error.
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
from measure import measure

HERE = Path(__file__).resolve().parent


class Limit:
    """limit.rs: the fewest system calls that the work needs."""

    def write(self, workload, folder):
        model.write_plan(workload, Path(folder, "plan.tsv"))
        Path(folder, "template").write_text(model.TEMPLATE)

    def command(self, folder, root):
        return [os.environ["BENCH_LIMIT"], f"{folder}/plan.tsv", f"{folder}/template", root]


class LockstepLocal:
    """`lockstep run --local`: one task an item, the template with a fact and three variables."""

    def write(self, workload, folder):
        Path(folder, "book.yaml").write_text(book(workload))

    def command(self, folder, root):
        return ["lockstep", "run", "--local", "--quiet", "-f", f"{folder}/book.yaml", "--root", root]


TOOLS = {"limit": Limit(), "lockstep-local": LockstepLocal()}


def book(workload):
    """A book as a person writes it: block style, one task an item."""
    lines = ["metadata: {apiVersion: v1alpha, kind: TaskBook, name: bench, namespace: default}", "spec:", "  targets: {all: true}"]
    templates = workload.of(model.Template)
    if templates:
        lines.append("  variables:")
        lines.append(f"    role: {templates[0].role}")
        lines.append("    units:")
        lines += [f"      u{nth}: {{name: {item.name}, port: {item.port}}}" for nth, item in enumerate(templates)]
    lines.append("  tasks:")
    nth = 0
    for item in workload.items:
        if isinstance(item, model.Template):
            text = model.TEMPLATE
            for key, value in {"hostname": "facts.hostname", "role": "vars.role", "name": f"vars.units.u{nth}.name",
                               "port": f"vars.units.u{nth}.port"}.items():
                text = text.replace(f"@{key}@", "{{%s}}" % value)
            lines += [f"    - name: {item.name}", "      file.managed:", f"        path: /{item.path}",
                      f'        mode: "{item.mode}"', "        template: |"]
            lines += [f"          {line}" for line in text.rstrip("\n").split("\n")]
            nth += 1
        elif isinstance(item, model.Command):
            lines += [f"    - name: command {item.serial}", f'      command.run: {{argv: [{item.program}, "{item.serial}"]}}']
        else:
            sys.exit(f"no action for {item} yet")
    return "\n".join(lines) + "\n"


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work) as work:
        build_limit(work)
        local = [tool for tool in options.tools if tool in TOOLS]
        for name in ["files", "commands"]:
            if local:
                report(name, run_workload(name, local, options.runs, Path(work)))
        if "lockstep" in options.tools:
            for store in ["embedded", "etcd"]:
                three_nodes(store, options.commands, work)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="+", choices=[*TOOLS, "lockstep"])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--commands", type=int, default=60, help="runs of one command on three nodes")
    parser.add_argument("--work", default="/dev/shm", help="a folder for the roots, best on a tmpfs")
    return parser.parse_args()


def build_limit(work):
    if "BENCH_LIMIT" not in os.environ:
        binary = f"{work}/limit"
        subprocess.run(["rustc", "--edition", "2021", "-C", "opt-level=3", "-o", binary, HERE / "limit.rs"], check=True)
        os.environ["BENCH_LIMIT"] = binary


def run_workload(name, tools, runs, work):
    """Samples by (tool, phase)."""
    workload = model.WORKLOADS[name]()
    if name == "commands":
        for tool in tools:
            check_commands_run(tool, work)
    samples = {}
    for _ in range(runs):
        for tool in tools:
            folder, root = fresh_folder(work, name, tool)
            TOOLS[tool].write(workload, folder)
            model.reset(workload, root)
            for phase in workload.phases:
                if phase == "drift":
                    model.drift(workload, root)
                sample = measure(TOOLS[tool].command(folder, root), {"BENCH_ROOT": root}, f"{folder}/log")
                complain(f"{tool} {name} {phase}", sample, model.differences(workload, root), folder)
                samples.setdefault((tool, phase), []).append(sample)
    return samples


def fresh_folder(work, name, tool):
    """Never one that was used before, nor is one deleted between runs; see `reset` in workload.py."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-{tool}-", dir=work))
    return str(folder), str(folder / "root")


def check_commands_run(tool, work):
    """Untimed: the same book with a program that leaves one mark per run; count the marks."""
    folder, root = fresh_folder(work, "check", tool)
    tally = Path(folder, "tally")
    tally.write_text('#!/bin/sh\necho "$1" >> "$0.marks"\n')
    tally.chmod(0o755)
    workload = model.commands(program=str(tally))
    TOOLS[tool].write(workload, folder)
    model.reset(workload, root)
    sample = measure(TOOLS[tool].command(folder, root), {"BENCH_ROOT": root}, f"{folder}/log")
    marks = Path(folder, "tally.marks").read_text().split() if Path(folder, "tally.marks").exists() else []
    wrong = [] if sorted(map(int, marks)) == list(range(len(workload.items))) else [f"{len(marks)} commands ran"]
    complain(f"{tool} commands check", sample, wrong, folder)


def complain(what, sample, differences, folder):
    if sample.status or differences:
        tail = Path(folder, "log").read_text(errors="replace")[-1500:]
        sys.exit(f"{what}: exit {sample.status}, {len(differences)} differences {differences[:3]}\n{tail}")


def report(name, samples):
    limits = {phase: found for (tool, phase), found in samples.items() if tool == "limit"}
    state = model.tree_hash(model.expected(model.WORKLOADS[name]()))
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
    folder = f"{work}/cluster-{store}"
    environment = {**os.environ, "LOCKSTEP_DEV": folder}
    up = [str(HERE.parent / "dev-cluster.sh"), "up", store, folder]
    subprocess.run(up, check=True, env=environment, stdout=subprocess.DEVNULL)
    try:
        book_file = Path(work, f"one-{store}.yaml")
        book_file.write_text(
            "metadata: {apiVersion: v1alpha, kind: TaskBook, name: one, namespace: default}\n"
            "spec:\n  targets: {all: true}\n  tasks:\n    - {name: one, command.run: {argv: [/bin/true]}}\n")
        context = ["--context", f"{folder}/context.yaml"]
        subprocess.run(["lockstep", *context, "apply", "-f", book_file], check=True, stdout=subprocess.DEVNULL)
        walls = []
        for nth in range(count + 5):
            start = time.perf_counter()
            done = subprocess.run(["lockstep", *context, "run", "one", "--wait"], capture_output=True, text=True)
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
        subprocess.run([up[0], "down", store, folder], check=False, env=environment, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
