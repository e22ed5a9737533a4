//! A task reboots the machine in mid-run: here another agent says that it is another boot.

use super::*;

#[tokio::test]
async fn a_reboot_is_reported_as_done_by_the_agent_of_the_next_boot() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let asked = bench.path("asked");
    let argv = Value::list(["touch", &asked].map(Value::text));
    let mut work = work(1, String::new());
    let task = &mut work.tasks[0];
    (task.action, task.parameters) = ("reboot.now".into(), Some(Value::map([("argv", argv)])));
    peer.hand_over(&work).await;
    bench.until("the machine is asked to reboot", |_| Path::new(&asked).exists()).await;
    bench.stop().await;
    drop(peer);
    // It goes down: nothing of the old boot is left.
    let folder = std::fs::read_dir(bench.settings.segments_folder()).unwrap().next().unwrap().unwrap().path();
    let executor = lockstep_executor::segment::executor(&folder).expect("it waits for the end");
    let executor = rustix::process::Pid::from_raw(executor.cast_signed()).unwrap();
    rustix::process::kill_process(executor, rustix::process::Signal::KILL).unwrap();
    bench.boot_id = "the next boot".into();
    bench.start();
    let (mut peer, hello) = bench.session().await;
    assert_eq!((hello.boot_id.as_str(), hello.holding), ("the next boot", vec![reference(&work)]));
    let (report, _) = peer.report().await;
    assert_eq!(outcomes(&report), [Outcome::Changed]);
    assert!(report.tasks[0].message.starts_with("rebooted in"), "{}", report.tasks[0].message);
}
