//! Variables of objects over a real daemon: who wins, what is refused, and that a Run keeps what it was admitted with.

use anyhow::{Context, Result, ensure};
use lockstep_tests::daemon::Daemon;
use std::fs;

const OBJECTS: &str = r#"
metadata: {apiVersion: v1alpha, kind: Variables, name: all, namespace: default}
spec: {static: {port: 1, tls: {min: "1.2"}, from: all}}
---
metadata: {apiVersion: v1alpha, kind: Variables, name: mine, namespace: default}
spec: {targets: {nodes: [v1]}, static: {port: 2}}
---
metadata: {apiVersion: v1alpha, kind: ClusterVariables, name: site}
spec: {static: {tls: {ca: site}, from: site}}
---
metadata: {apiVersion: v1alpha, kind: ClusterVariables, name: unbound}
spec: {static: {hidden: true}}
---
metadata: {apiVersion: v1alpha, kind: ClusterVariablesBinding, name: site}
spec: {clusterVariables: site, namespaces: default}
---
metadata: {apiVersion: v1alpha, kind: TaskBook, name: show, namespace: default}
spec:
  targets: {all: true}
  variables: {mode: book}
  tasks:
    - {name: set, variable.set: {values: {set: "${{ vars.port }}"}}}
    - {name: write, sync: true, file.managed: {path: /vars, template: "{{json vars}}"}}
"#;

const TIE: &str = r#"
metadata: {apiVersion: v1alpha, kind: Variables, name: tie, namespace: default}
spec: {targets: {all: true}, static: {tls: {min: "1.0"}}}
"#;

#[test]
fn variables_win_by_the_table_and_ties_are_refused() -> Result<()> {
    let daemon = Daemon::init("v1", &[])?;
    let folder = daemon.folder().to_owned();
    daemon.wait_until_it_answers()?;
    let ctl = |arguments: &[&str]| daemon.ctl(arguments);
    let file = |name: &str, text: &str| -> Result<String> {
        fs::write(folder.join(name), text)?;
        Ok(folder.join(name).display().to_string())
    };
    ctl(&["apply", "-f", &file("objects.yaml", OBJECTS)?])?;

    let tie = ctl(&["apply", "-f", &file("tie.yaml", TIE)?]).err().context("a tie was accepted")?.to_string();
    ensure!(tie.contains("Variables/all and Variables/tie both set `tls.min` for every node"), "{tie}");
    let group = TIE.replace("all: true", "nodeGroups: [nobody]");
    let gone = ctl(&["apply", "-f", &file("group.yaml", &group)?]).err().context("no such group")?.to_string();
    ensure!(gone.contains("names the NodeGroup `nobody`, which is not there"), "{gone}");

    ctl(&["run", "show", "--set", "extra=[1, 2]", "--wait"])?;
    let found = fs::read_to_string(folder.join("root/vars"))?;
    let expected = r#"{"extra":[1,2],"from":"all","mode":"book","port":2,"set":2,"tls":{"ca":"site","min":"1.2"}}"#;
    ensure!(found == expected, "{found}");

    let told = ctl(&["vars", "explain", "port", "--node", "v1", "--book", "show", "--set", "port=3"])?;
    ensure!(told.starts_with("port = 3 on v1\n  Run "), "{told}");
    ensure!(told.contains("Variables/mine  2") && told.contains("Variables/all"), "{told}");
    ensure!(ctl(&["vars", "get", "tls.ca", "--node", "v1"])?.trim() == "site");
    let hidden = ctl(&["vars", "get", "hidden", "--node", "v1"]).err().context("an unbound value is seen")?;
    ensure!(hidden.to_string().contains("has no variable hidden"), "{hidden}");
    let columns = ctl(&["get", "variables"])?;
    ensure!(columns.contains("every node") && columns.contains("from port tls"), "{columns}");
    Ok(())
}
