"""Real daemons on this machine, for what goes through them."""
import shutil
import subprocess
from pathlib import Path

SCRIPT = str(Path(__file__).resolve().parent.parent / "dev-cluster.sh")


class DevCluster:
    """K daemons, each with a root folder of its own. `store`: embedded, or etcd with three members."""

    def __init__(self, folder, nodes, store):
        self.folder, self.nodes, self.store = folder, nodes, store
        self.context = ["--context", f"{folder}/context.yaml"]
        self.script("up", str(nodes))

    def script(self, action, *more):
        subprocess.run([SCRIPT, action, self.store, self.folder, *more], check=True, stdout=subprocess.DEVNULL)

    def roots(self):
        return [f"{self.folder}/n{nth + 1}/root" for nth in range(self.nodes)]

    def apply(self, book):
        subprocess.run(["lockstep", *self.context, "apply", "-f", book], check=True, stdout=subprocess.DEVNULL)

    def down(self):
        self.script("down")
        shutil.rmtree(self.folder, ignore_errors=True)
