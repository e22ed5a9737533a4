//! `lockstep-etcd FOLDER [MEMBERS]`: a real etcd on loopback with mutual TLS, for the demo and the benchmarks, until
//! SIGTERM. When it is ready FOLDER/endpoints names its members, and FOLDER/client has a client's identity.

use anyhow::{Context, Result};
use lockstep_tests::etcd::EtcdCluster;
use std::{fs, path::Path};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, members) = match arguments.as_slice() {
        [folder] => (folder, 3),
        [folder, members] => (folder, members.parse().context("MEMBERS is a number")?),
        _ => anyhow::bail!("usage: lockstep-etcd FOLDER [MEMBERS]"),
    };
    let mut ended = signal(SignalKind::terminate())?;
    let cluster = EtcdCluster::start(members).await?;
    let folder = Path::new(folder);
    let client = folder.join("client");
    fs::create_dir_all(&client)?;
    let tls = cluster.tls();
    for (from, to) in [(tls.ca, "ca.pem"), (tls.certificate, "cert.pem"), (tls.key, "key.pem")] {
        fs::copy(&from, client.join(to)).with_context(|| from.display().to_string())?;
    }
    fs::write(folder.join("endpoints.new"), cluster.endpoints().join(","))?;
    // Whoever waits for the file sees it whole.
    fs::rename(folder.join("endpoints.new"), folder.join("endpoints"))?;
    tokio::select! {
        _ = ended.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}
