#!/usr/bin/env python3
"""Fan-out: one 20-task book on K nodes of this machine, until every node has reported.

    fanout.py --nodes 3,10,30 limit lockstep salt ansible ansible-mitogen ansible-ssh pyinfra-ssh cfengine puppet

A node is a root folder with its own variable (and, for salt, its own minion).  Starting daemons and the first
connection are not measured; CPU counts every process involved, daemons included.  `standing_mb` is the
memory (sum of proportional set sizes) of whatever must keep running between books.
"""
import argparse
import concurrent.futures
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
from books import TOOLS, lockstep_book, program, target_python, write
from cluster import DevCluster
from measure import adopt_orphans, clean_environment, cpu_of_descendants, memory_of_descendants
from run import build_limit


class Agents:
    """K independent one-shot agents, a few at a time: what pull-style tools do after fetching their book."""

    def __init__(self, tool):
        self.tool = tool

    def start(self, folder, roots):
        book = TOOLS[self.tool]
        own_state = getattr(book, "own_state", lambda own: {})
        self.nodes = {root: f"{folder}/{name}" for name, root in roots.items()}
        self.extra = {}
        for root, own in self.nodes.items():
            os.makedirs(own)
            book.write(model.book20(), own)
            self.extra[root] = {"BENCH_ROOT": root, **own_state(own)}

    def apply(self):
        with concurrent.futures.ThreadPoolExecutor(2 * os.cpu_count()) as pool:
            return max(pool.map(self.one, self.nodes))

    def one(self, root):
        argv, env = TOOLS[self.tool].command(self.nodes[root], root)
        return run(argv, {**self.extra[root], **env}, f"{self.nodes[root]}/log")

    def stop(self):
        pass


class Push:
    """A controller that connects to every node, locally or to one sshd that answers on 127.0.0.0/8."""

    def __init__(self, tool, over_ssh=False):
        self.tool, self.over_ssh = tool, over_ssh

    def start(self, folder, roots):
        self.folder, self.roots = folder, roots
        TOOLS[self.tool].write(model.book20(), folder)
        self.server = start_sshd(folder) if self.over_ssh else None
        self.ssh_arguments = f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=no"

    def apply(self):
        argv, env = self.pyinfra() if self.tool == "pyinfra" else self.ansible()
        return run(argv, env, f"{self.folder}/log")

    def ansible(self):
        where = (f"ansible_connection=ssh ansible_user=root ansible_port={SSH_PORT} "
                 f"ansible_ssh_private_key_file={self.folder}/key ansible_ssh_common_args='{self.ssh_arguments}'"
                 if self.over_ssh else "ansible_connection=local")
        lines = [f"{name} ansible_host={address(nth)} {where} bench_root={root} "
                 f"ansible_python_interpreter={target_python()}" for nth, (name, root) in enumerate(self.roots.items())]
        inventory = write(self.folder, "hosts.ini", "\n".join(lines) + "\n")
        return TOOLS[self.tool].apply(self.folder, inventory, len(self.roots))

    def pyinfra(self):
        hosts = [(address(nth), {"bench_root": root}) for nth, root in enumerate(self.roots.values())]
        shared = {"ssh_user": "root", "ssh_port": SSH_PORT, "ssh_key": f"{self.folder}/key",
                  "ssh_strict_host_key_checking": "off", "ssh_known_hosts_file": f"{self.folder}/known_hosts"}
        write(self.folder, "inventory.py", f"hosts = ({hosts!r}, {shared!r})\n")
        return [program("pyinfra", "pyinfra"), "-y", "--chdir", self.folder, "inventory.py", "deploy.py"], {}

    def stop(self):
        if self.server:
            end(self.server)


class SaltFleet:
    """A master and K minions; the book arrives through the master's file server."""

    def start(self, folder, roots):
        self.folder, self.count = folder, len(roots)
        TOOLS["salt"].write(model.book20(), folder)
        common = {"log_level": "error", "log_level_logfile": "quiet", "user": "root"}
        write(folder, "m/master", json.dumps({
            **common, "root_dir": f"{folder}/m", "interface": "127.0.0.1", "publish_port": 24505, "ret_port": 24506,
            "auto_accept": True, "file_roots": {"base": [f"{folder}/states"]}, **self.master_settings()}))
        self.processes = [spawn([salt("master"), "-c", f"{folder}/m"], {}, f"{folder}/master.log")]
        for name, root in roots.items():
            write(folder, f"{name}/minion", json.dumps({
                **common, "id": name, "root_dir": f"{folder}/{name}", "master": "127.0.0.1", "master_port": 24506,
                "publish_port": 24505, "grains": {"bench_root": root}, **self.minion_settings()}))
            self.processes.append(spawn([salt("minion"), "-c", f"{folder}/{name}"], {}, f"{folder}/{name}.log"))
        self.wait_until_all_answer()

    def master_settings(self):
        return {}

    def minion_settings(self):
        return {}

    def wait_until_all_answer(self):
        deadline = time.monotonic() + 60 + 10 * self.count
        while time.monotonic() < deadline:
            answer = subprocess.run([*self.client(), "-t", "5", "*", "test.ping"], capture_output=True, text=True)
            if answer.stdout.count("true") == self.count:
                return
            time.sleep(1)
        raise TimeoutError("not every minion answered")

    def client(self):
        return [salt("salt"), "-c", f"{self.folder}/m", "--out", "json", "--static"]

    def apply(self):
        return run([*self.client(), "-t", "60", "*", "state.apply", "book"], {}, f"{self.folder}/log")

    def stop(self):
        end(*self.processes)


class LockstepFleet:
    """K daemons, the first of them the server with the embedded store; the book is applied once, and `run --wait`
    ends when every node has reported."""

    def start(self, folder, roots):
        self.folder = folder
        self.cluster = DevCluster(f"{folder}/cluster", len(roots), "embedded")
        # The dev cluster makes the roots; the workload's are below them.
        for name, own in zip(roots, self.cluster.roots()):
            roots[name] = f"{own}/bench"
        self.cluster.apply(write(folder, "book.yaml", lockstep_book(model.book20(), "/bench")))

    def apply(self):
        return run(["lockstep", *self.cluster.context, "run", "bench", "--wait"], {}, f"{self.folder}/log")

    def stop(self):
        self.cluster.down()


def salt(name):
    """salt, salt-master or salt-minion from the folder that holds salt-call."""
    found = Path(shutil.which(program("salt", "salt-call"))).parent
    return str(found / ("salt" if name == "salt" else f"salt-{name}"))


METHODS = {
    "limit": lambda: Agents("limit"), "cfengine": lambda: Agents("cfengine"), "puppet": lambda: Agents("puppet"),
    "salt-call": lambda: Agents("salt"), "salt": SaltFleet, "lockstep": LockstepFleet,
    "lockstep-local": lambda: Agents("lockstep-local"), "ansible": lambda: Push("ansible"),
    "ansible-mitogen": lambda: Push("ansible-mitogen"), "ansible-ssh": lambda: Push("ansible", True),
    "ansible-mitogen-ssh": lambda: Push("ansible-mitogen", True), "pyinfra-ssh": lambda: Push("pyinfra", True),
}
SSH_PORT = 24522


def address(nth):
    return f"127.0.1.{nth + 1}"


def start_sshd(folder):
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}"], check=True)
    shutil.copy(f"{folder}/key.pub", f"{folder}/authorized_keys")
    os.makedirs("/run/sshd", exist_ok=True)
    write(folder, "sshd_config", f"Port {SSH_PORT}\nListenAddress 0.0.0.0\nHostKey {folder}/host_key\n"
          f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nStrictModes no\nMaxStartups 200\n"
          f"PermitRootLogin prohibit-password\nUsePAM no\nSubsystem sftp internal-sftp\n"
          f"SetEnv SHLVL=2\n")  # bash then skips the user's ~/.bashrc, which is not part of any tool
    server = spawn([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd_config"], {},
                   f"{folder}/sshd.log")
    time.sleep(1)
    return server


def spawn(argv, env, log):
    with open(log, "wb") as stream:
        return subprocess.Popen(argv, env=clean_environment(env), stdin=subprocess.DEVNULL, stdout=stream,
                                stderr=subprocess.STDOUT)


def end(*processes):
    """Ask all to stop, then wait for each."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(argv, env, log):
    with open(log, "wb") as stream:
        return subprocess.run(argv, env=clean_environment(env), stdin=subprocess.DEVNULL, stdout=stream,
                              stderr=subprocess.STDOUT).returncode


def measure_method(name, count, runs, work):
    folder = work / f"{name}-{count}"
    folder.mkdir()
    roots = {f"n{nth}": str(folder / f"root{nth}") for nth in range(count)}
    method, book, samples = METHODS[name](), model.book20(), {}
    method.start(str(folder), roots)
    try:
        standing = memory_of_descendants()
        for _ in range(runs):
            for root in roots.values():
                model.reset(book, root)
            for phase in book.phases:
                cpu, start = cpu_of_descendants(), time.perf_counter()
                status = method.apply()
                wall, cpu = time.perf_counter() - start, cpu_of_descendants() - cpu
                wrong = [line for root in roots.values() for line in model.differences(book, root)]
                if status or wrong:
                    sys.exit(f"{name} {phase}: exit {status}, {wrong[:3]}; see {folder}/log")
                samples.setdefault(phase, []).append((wall, cpu))
    finally:
        method.stop()
    return standing, samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=list(METHODS))
    parser.add_argument("--nodes", default="3,10")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    adopt_orphans()
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    build_limit(work)
    for count in map(int, options.nodes.split(",")):
        for name in options.methods:
            standing, samples = measure_method(name, count, options.runs, work)
            for phase, found in samples.items():
                print(json.dumps({
                    "tool": name, "workload": "fanout", "phase": phase, "nodes": count,
                    "wall_median_s": round(statistics.median(wall for wall, _ in found), 3),
                    "cpu_s": round(statistics.median(cpu for _, cpu in found), 3),
                    "standing_mb": round(standing), "n": len(found)}), flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
