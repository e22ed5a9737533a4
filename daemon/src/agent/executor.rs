//! Starts executors and waits for them. Knows processes; what an executor does is in `lockstep-executor`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lockstep_apis::v1alpha::Report;
use lockstep_executor::segment::{self, Status};
use tokio::process::Command;

use super::now_ms;
use super::segment::Surroundings;

/// How often an executor is looked at that is not our child; only the folder's lock tells that it is alive.
const LOOK: Duration = Duration::from_millis(50);

/// An executor that began nothing is started this often in all,
const STARTS: u32 = 3;

/// so long apart.
const START_PAUSE: Duration = Duration::from_millis(200);

/// Between looks at a folder that cannot be read: nothing is known then, so nothing is done.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);

/// Sees an attempt to its end, starting an executor if none has begun. `fresh`: its folder was made just now.
pub(super) async fn finish(surroundings: &Surroundings, folder: &Path, fresh: bool) -> Report {
    let (mut starts, mut problem) = (0, String::new());
    if fresh {
        starts = 1;
        problem = start(surroundings, folder).await;
    }
    loop {
        match look(surroundings, folder).await {
            Ok(Status::Ended(report)) => return report,
            Ok(Status::Working) => tokio::time::sleep(LOOK).await,
            Ok(Status::NotStarted) if starts < STARTS => {
                if starts > 0 {
                    tokio::time::sleep(START_PAUSE).await;
                }
                starts += 1;
                problem = start(surroundings, folder).await;
            }
            Ok(Status::NotStarted) => {
                let at = now_ms();
                let error = format!("the executor could not be started: {problem}");
                return Report { error, started_ms: at, finished_ms: at, ..Report::default() };
            }
            Err(problem) => {
                tracing::error!(folder = %folder.display(), %problem, "a segment's folder cannot be read");
                tokio::time::sleep(UNREADABLE_PAUSE).await;
            }
        }
    }
}

async fn look(surroundings: &Surroundings, folder: &Path) -> Result<Status, String> {
    let (folder, boot_id) = (folder.to_owned(), surroundings.boot_id.clone());
    let looked = tokio::task::spawn_blocking(move || segment::status(&folder, &boot_id)).await;
    looked.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// Starts an executor and waits for its end. It makes itself the leader of a session and outlives us if we end first.
/// Returns how it ended, for the case that it began nothing.
async fn start(surroundings: &Surroundings, folder: &Path) -> String {
    let mut command = Command::new(&surroundings.executor);
    command.arg0("lockstepd").arg("execute").arg(folder);
    if surroundings.root != Path::new("/") {
        command.arg("--root").arg(&surroundings.root);
    }
    if let (Some(cgroups), Some(name)) = (&surroundings.cgroups, folder.file_name().and_then(|name| name.to_str())) {
        command.arg("--cgroup").arg(cgroups.child(name).folder());
    }
    // Null, not ours: an executor must not keep a pipe open that somebody waits on for our end.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => match child.wait().await {
            Ok(status) => status.to_string(),
            Err(problem) => problem.to_string(),
        },
        Err(problem) => format!("{}: {problem}", surroundings.executor.display()),
    }
}
