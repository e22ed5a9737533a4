//! The daemon's death at any time: what was promised before holds after.

use super::admin::{Admin, phase_of};
use anyhow::Result;
use lockstep_apis::v1alpha::RunPhase;

#[tokio::test]
async fn the_servers_own_node_does_a_book_and_prints_what_it_says() -> Result<()> {
    let admin = Admin::start().await?;
    let tasks = "targets: {all: true}\ntasks:\n  - {name: place, file.managed: {path: /hello, content: hello}}\n  - {name: say, command.run: {argv: [/bin/echo, hi]}}";
    admin.book("web", tasks).await?;
    admin.run("web").await?;
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Succeeded);
    assert_eq!(std::fs::read_to_string(admin.daemon.folder().join("root/hello"))?, "hello");
    assert_eq!(admin.output("web", true).await?, "hi\n");
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_mid_task_goes_on_and_starts_nothing_twice() -> Result<()> {
    let mut admin = Admin::start().await?;
    let mark = admin.daemon.folder().join("mark");
    let go = admin.daemon.folder().join("go");
    let script = format!(
        "echo begun >> {0}; while [ ! -e {1} ]; do sleep 0.02; done; echo done >> {0}",
        mark.display(),
        go.display()
    );
    let tasks = format!("targets: {{all: true}}\ntasks:\n  - {{name: slow, command.run: {{shell: \"{script}\"}}}}");
    admin.book("web", &tasks).await?;
    admin.run("web").await?;
    admin.phase("web", &[RunPhase::Running]).await?;
    super::admin::within("the task to begin", async {
        while !mark.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    })
    .await?;
    admin.daemon.kill()?;
    std::fs::write(&go, "")?;
    admin.daemon.start()?;
    admin.channel = admin.daemon.admin().await?;
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Succeeded);
    assert_eq!(std::fs::read_to_string(&mark)?, "begun\ndone\n");
    Ok(())
}
