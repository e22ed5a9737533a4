"""Each tool's native book for a workload, and the command that applies it to one root.

A writer takes (workload, folder) and fills the folder; `command(folder, root)` is what gets measured.
Paths in books are relative to a root that arrives as the tool's own kind of variable, so that one book
serves many nodes.  Programs are found on PATH unless BENCH_<TOOL> names another (for example a venv's).
"""
import json
import os
import re
import shutil
from pathlib import Path

import workload as model

HERE = Path(__file__).resolve().parent


def program(tool, default):
    return os.environ.get(f"BENCH_{tool.upper().replace('-', '_')}", default)


def target_python():
    """The interpreter Ansible uses on its nodes: the distribution's, as on a real node."""
    return program("target-python", "/usr/bin/python3")


def write(folder, name, text):
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def template_in(syntax):
    """The shared template with @name@ rewritten, for example syntax='{{ %s }}'."""
    return re.sub(r"@(\w+)@", lambda found: syntax % found.group(1), model.TEMPLATE)


class Limit:
    """limit.rs, compiled by the runner into BENCH_LIMIT."""

    def write(self, workload, folder):
        model.write_plan(workload, Path(folder, "plan.tsv"))
        write(folder, "template", model.TEMPLATE)

    def command(self, folder, root):
        return [program("limit", "limit"), f"{folder}/plan.tsv", f"{folder}/template", root], {}


class LockstepLocal:
    """`lockstep run --local`: a book as a person writes it, block style, one task an item, the template with a fact
    and three variables."""

    def write(self, workload, folder):
        write(folder, "book.yaml", lockstep_book(workload))

    def command(self, folder, root):
        return ["lockstep", "run", "--local", "--quiet", "-f", f"{folder}/book.yaml", "--root", root], {}


def lockstep_book(workload, below=""):
    """The book; `below` is where the workload's root is under the node's."""
    lines = ["metadata: {apiVersion: v1alpha, kind: TaskBook, name: bench, namespace: default}", "spec:",
             "  targets: {all: true}"]
    templates = workload.of(model.Template)
    if templates:
        lines += ["  variables:", f"    role: {templates[0].role}", "    units:"]
        lines += [f"      u{nth}: {{name: {item.name}, port: {item.port}}}" for nth, item in enumerate(templates)]
    lines.append("  tasks:")
    numbers = {id(item): nth for nth, item in enumerate(templates)}
    for item in workload.items:
        lines += LOCKSTEP_TASKS[type(item)](item, below, numbers.get(id(item)))
    return "\n".join(lines) + "\n"


def lockstep_template(item, below, nth):
    text = model.TEMPLATE
    for key, value in {"hostname": "facts.hostname", "role": "vars.role", "name": f"vars.units.u{nth}.name",
                       "port": f"vars.units.u{nth}.port"}.items():
        text = text.replace(f"@{key}@", "{{%s}}" % value)
    head = [f"    - name: {item.name}", "      file.managed:", f"        path: {below}/{item.path}",
            f'        mode: "{item.mode}"', "        template: |"]
    return head + [f"          {line}" for line in text.rstrip("\n").split("\n")]


def lockstep_guarded(item, below, _):
    # Commands run on the machine itself and find the root folder in LOCKSTEP_ROOT; `creates` is below it anyway.
    path = f"{below}/{item.path}"
    return [f"    - name: {item.path}", "      command.run:",
            f"        shell: exec /usr/bin/touch \"$LOCKSTEP_ROOT{path}\"", f"        creates: {path}"]


LOCKSTEP_TASKS = {
    model.Template: lockstep_template,
    model.Guarded: lockstep_guarded,
    model.Directory: lambda item, below, _: [
        f"    - name: {item.path}", f'      file.directory: {{path: {below}/{item.path}, mode: "{item.mode}"}}'],
    model.Symlink: lambda item, below, _: [
        f"    - name: {item.path}", f"      file.symlink: {{path: {below}/{item.path}, target: {item.target}}}"],
    model.LineEdit: lambda item, below, _: [
        f"    - name: {item.path}", "      file.line:", f"        path: {below}/{item.path}",
        f"        regexp: '^{item.key} ='", f"        line: {item.line}"],
    model.Command: lambda item, below, _: [
        f"    - name: command {item.serial}", f'      command.run: {{argv: [{item.program}, "{item.serial}"]}}'],
}


class Ansible:
    """One looping task per kind of item; pipelining; only the one fact the template needs."""
    tool = "ansible"
    strategy = "linear"
    one_task_per_item = False

    def write(self, workload, folder):
        tasks = [self.task(kind, items) for kind, items in self.grouped(workload)]
        play = {"hosts": "all", "gather_facts": False, "tasks": [
            {"ansible.builtin.setup": {"gather_subset": ["!all", "!min", "platform"], "filter": ["ansible_hostname"]}},
            *tasks]}
        write(folder, "book.yml", json.dumps([play], indent=1))
        write(folder, "template.j2", re.sub(
            r"@(\w+)@",
            lambda found: "{{ ansible_facts.hostname }}" if found[1] == "hostname" else "{{ item.%s }}" % found[1],
            model.TEMPLATE))
        write(folder, "ansible.cfg", "[defaults]\nhost_key_checking = false\n[connection]\npipelining = true\n")

    def grouped(self, workload):
        for kind, items in workload.data().items():
            if self.one_task_per_item:
                yield from ((kind, [item]) for item in items)
            elif items:
                yield kind, items

    def task(self, kind, items):
        at = "{{ bench_root }}/{{ item.path }}"
        body = {
            "directories": {"ansible.builtin.file": {"path": at, "state": "directory", "mode": "{{ item.mode }}"}},
            "templates": {"ansible.builtin.template": {"src": "template.j2", "dest": at, "mode": "{{ item.mode }}"}},
            "symlinks": {"ansible.builtin.file": {"path": at, "state": "link", "src": "{{ item.target }}"}},
            "edits": {"ansible.builtin.lineinfile": {
                "path": at, "regexp": "^{{ item.key }} =", "line": "{{ item.line }}"}},
            "guarded": {"ansible.builtin.command": {"argv": ["/usr/bin/touch", at], "creates": at}},
            "commands": {"ansible.builtin.command": {"argv": ["{{ item.program }}", "{{ item.serial }}"]}},
        }[kind]
        label = "{{ item.path | default(item.serial) }}"
        return {**body, "loop": items, "loop_control": {"label": label}}

    def command(self, folder, root):
        inventory = f"node ansible_connection=local ansible_python_interpreter={target_python()} bench_root={root}\n"
        return self.apply(folder, write(folder, "hosts.ini", inventory), 1)

    def apply(self, folder, inventory, forks):
        return ([program(self.tool, "ansible-playbook"), "-i", inventory, "-f", str(forks), f"{folder}/book.yml"],
                {"ANSIBLE_CONFIG": f"{folder}/ansible.cfg", "ANSIBLE_STRATEGY": self.strategy, **self.extra_env()})

    def extra_env(self):
        return {}


class AnsibleTasks(Ansible):
    """One task per item instead of loops: how hand-written playbooks usually look."""
    one_task_per_item = True


class AnsibleMitogen(Ansible):
    """Looping tasks with the third-party Mitogen strategy (BENCH_MITOGEN_PLUGINS: its strategy folder)."""
    tool = "ansible-mitogen"
    strategy = "mitogen_linear"

    def extra_env(self):
        return {"ANSIBLE_STRATEGY_PLUGINS": os.environ["BENCH_MITOGEN_PLUGINS"]}


class Pyinfra:
    """A deploy that loops over the items; the @local connector."""

    def write(self, workload, folder):
        write(folder, "items.json", json.dumps(workload.data()))
        write(folder, "template.j2", template_in("{{ %s }}").replace("{{ name }}", "{{ unit }}"))
        write(folder, "deploy.py", PYINFRA_DEPLOY)

    def command(self, folder, root):
        return [program("pyinfra", "pyinfra"), "-y", "--chdir", folder, "--data", f"bench_root={root}",
                "@local", "deploy.py"], {}


PYINFRA_DEPLOY = '''\
import json
from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.facts.server import Hostname
from pyinfra.operations import files, server

with open("items.json") as stream:
    items = json.load(stream)
root = host.data.bench_root
hostname = host.get_fact(Hostname).split(".")[0]

for item in items["directories"]:
    files.directory(path=f"{root}/{item['path']}", mode=item["mode"])
for item in items["templates"]:
    files.template(src="template.j2", dest=f"{root}/{item['path']}", mode=item["mode"], hostname=hostname,
                   unit=item["name"], port=item["port"], role=item["role"])
for item in items["symlinks"]:
    files.link(path=f"{root}/{item['path']}", target=item["target"])
for item in items["edits"]:
    files.line(path=f"{root}/{item['path']}", line=f"^{item['key']} =.*$", replace=item["line"])
for item in items["guarded"]:
    path = f"{root}/{item['path']}"
    if host.get_fact(File, path=path) is None:
        server.shell(commands=[f"/usr/bin/touch {path}"])
for item in items["commands"]:
    server.shell(commands=[f"{item['program']} {item['serial']}"])
'''


class Salt:
    """One state per item from a Jinja loop, applied masterless with salt-call --local."""

    def write(self, workload, folder):
        write(folder, "states/items.json", json.dumps(workload.data()))
        write(folder, "states/book.sls", SALT_BOOK)
        write(folder, "states/template.j2", template_in("{{ %s }}").replace("{{ hostname }}", "{{ grains['host'] }}"))

    def command(self, folder, root):
        settings = {"file_client": "local", "root_dir": f"{folder}/salt", "file_roots": {"base": [f"{folder}/states"]},
                    "id": "node", "grains": {"bench_root": root}, "log_level": "error", "log_level_logfile": "quiet"}
        write(folder, "etc/minion", json.dumps(settings))
        return [program("salt", "salt-call"), "--local", "--config-dir", f"{folder}/etc", "--retcode-passthrough",
                "--state-output=terse", "state.apply", "book"], {}


SALT_BOOK = '''\
{% import_json "items.json" as items %}
{% set root = grains["bench_root"] %}
{% for item in items.directories %}
{{ root }}/{{ item.path }}:
  file.directory:
    - mode: "{{ item.mode }}"
{% endfor %}
{% for item in items.templates %}
{{ root }}/{{ item.path }}:
  file.managed:
    - source: salt://template.j2
    - template: jinja
    - mode: "{{ item.mode }}"
    - context: {name: "{{ item.name }}", port: {{ item.port }}, role: "{{ item.role }}"}
{% endfor %}
{% for item in items.symlinks %}
{{ root }}/{{ item.path }}:
  file.symlink:
    - target: {{ item.target }}
{% endfor %}
{% for item in items.edits %}
{{ root }}/{{ item.path }}:
  file.replace:
    - pattern: "^{{ item.key }} =.*$"
    - repl: "{{ item.line }}"
    - backup: False
    - show_changes: False
{% endfor %}
{% for item in items.guarded %}
/usr/bin/touch {{ root }}/{{ item.path }}:
  cmd.run:
    - creates: {{ root }}/{{ item.path }}
{% endfor %}
{% for item in items.commands %}
{{ item.program }} {{ item.serial }}:
  cmd.run
{% endfor %}
'''


class Cfengine:
    """One bundle whose promises iterate over a data container; cf-agent without locks."""

    def write(self, workload, folder):
        write(folder, "items.json", json.dumps(workload.data()))
        write(folder, "template.mustache", template_in("{{%s}}"))
        path = write(folder, "book.cf", CFENGINE_BOOK.replace("FOLDER", str(folder)))
        os.chmod(path, 0o600)

    def command(self, folder, root):
        return [program("cfengine", "cf-agent"), "--no-lock", "--file", f"{folder}/book.cf"], {"BENCH_ROOT": root}

    def own_state(self, folder):
        """A state folder per node: ten agents that share one lose most of a second waiting for each other."""
        standard = next(path for path in ("/var/lib/cfengine3", "/var/cfengine") if os.path.isdir(path))
        shutil.copytree(standard, f"{folder}/state", symlinks=True)
        return {"CFENGINE_TEST_OVERRIDE_WORKDIR": f"{folder}/state"}


CFENGINE_BOOK = '''\
body common control
{
  bundlesequence => { "book" };
}

bundle agent book
{
  vars:
    "root" string => getenv("BENCH_ROOT", 500);
    "host" string => regex_replace("$(sys.uqhost)", "\\..*", "", "");
    "items" data => readjson("FOLDER/items.json", 1000000);
    "d" slist => getindices("items[directories]");
    "t" slist => getindices("items[templates]");
    "l" slist => getindices("items[symlinks]");
    "e" slist => getindices("items[edits]");
    "g" slist => getindices("items[guarded]");
    "c" slist => getindices("items[commands]");

  files:
    "$(root)/$(items[directories][$(d)][path])/."
      create => "true",
      perms => mode("$(items[directories][$(d)][mode])");

    "$(root)/$(items[templates][$(t)][path])"
      create => "true",
      perms => mode("$(items[templates][$(t)][mode])"),
      edit_defaults => no_backup,
      edit_template => "FOLDER/template.mustache",
      template_method => "mustache",
      template_data => mergedata("items[templates][$(t)]", \'{"hostname": "$(host)"}\');

    "$(root)/$(items[symlinks][$(l)][path])"
      link_from => symlink("$(items[symlinks][$(l)][target])");

    "$(root)/$(items[edits][$(e)][path])"
      edit_defaults => no_backup,
      edit_line => set_line("$(items[edits][$(e)][key])", "$(items[edits][$(e)][line])");

  commands:
    "/usr/bin/touch $(root)/$(items[guarded][$(g)][path])"
      contain => open_umask,
      if => not(fileexists("$(root)/$(items[guarded][$(g)][path])"));

    "$(items[commands][$(c)][program]) $(items[commands][$(c)][serial])";
}

bundle edit_line set_line(key, line)
{
  replace_patterns:
    "^(?!$(line)$)$(key) =.*$"
      replace_with => text("$(line)");
}

body replace_with text(line)
{
  replace_value => "$(line)";
  occurrences => "all";
}

body perms mode(octal)
{
  mode => "$(octal)";
  rxdirs => "false";
}

body link_from symlink(target)
{
  source => "$(target)";
  link_type => "symlink";
  when_no_source => "force";
}

body edit_defaults no_backup
{
  edit_backup => "false";
  empty_file_before_editing => "false";
}

body contain open_umask
{
  umask => "022";
}
'''


class Puppet:
    """One resource per item from an each loop; puppet apply with an EPP template."""

    def write(self, workload, folder):
        write(folder, "items.json", json.dumps(workload.data()))
        os.makedirs(f"{folder}/puppet/var/state", exist_ok=True)  # on a tmpfs the first run fails without it
        parameters = "<%- | $unit, $hostname, $role, $port | -%>\n"
        write(folder, "template.epp", parameters + template_in("<%%= $%s %%>").replace("$name", "$unit"))
        write(folder, "book.pp", PUPPET_BOOK.replace("FOLDER", str(folder)))

    def command(self, folder, root):
        return [program("puppet", "puppet"), "apply", "--log_level", "err", "--confdir", f"{folder}/puppet/conf",
                "--vardir", f"{folder}/puppet/var", "--modulepath", "/usr/share/puppet/modules",
                f"{folder}/book.pp"], {"FACTER_bench_root": root}


PUPPET_BOOK = '''\
$items = loadjson('FOLDER/items.json')
$root = $facts['bench_root']
$items['directories'].each |$item| {
  file { "${root}/${item['path']}": ensure => directory, mode => $item['mode'] }
}
$items['templates'].each |$item| {
  file { "${root}/${item['path']}":
    mode    => $item['mode'],
    backup  => false,
    content => epp('FOLDER/template.epp', {
      unit => $item['name'], role => $item['role'], port => $item['port'],
      hostname => $facts['networking']['hostname'] }),
  }
}
$items['symlinks'].each |$item| {
  file { "${root}/${item['path']}": ensure => link, target => $item['target'] }
}
$items['edits'].each |$item| {
  file_line { $item['path']: path => "${root}/${item['path']}", match => "^${item['key']} =", line => $item['line'] }
}
$items['guarded'].each |$item| {
  exec { "/usr/bin/touch ${root}/${item['path']}": creates => "${root}/${item['path']}" }
}
$items['commands'].each |$item| {
  exec { "${item['program']} ${item['serial']}": }
}
'''

TOOLS = {"limit": Limit(), "lockstep-local": LockstepLocal(), "ansible": Ansible(), "ansible-tasks": AnsibleTasks(), "ansible-mitogen": AnsibleMitogen(),
         "pyinfra": Pyinfra(), "salt": Salt(), "cfengine": Cfengine(), "puppet": Puppet()}
