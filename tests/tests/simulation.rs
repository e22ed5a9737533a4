//! Thousands of stories, each from one seed, and Lockstep broken on purpose to judge the judges.
//!
//! A seed that fails prints the command that replays it; it belongs into `regressions/seeds.txt`.
//! `LOCKSTEP_SEEDS` sets how many are played, `LOCKSTEP_FIRST_SEED` from which on.

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use lockstep_tests::simulation::{Checker, Fault, Seen, Story, Variant, play, tell};

/// Stories in CI.
const SEEDS: u64 = 20_000;

/// A broken variant that survives so many stories is not caught.
const SEEDS_PER_VARIANT: u64 = 10_000;

/// Stories in which a stopped guard would be seen if anything depended on it: it is, under `AfterFence`, much earlier.
const SEEDS_UNDER_WAIT: u64 = 1_000;

#[test]
fn no_story_breaks_a_promise() {
    let seeds = number("LOCKSTEP_SEEDS").unwrap_or(SEEDS);
    let first = number("LOCKSTEP_FIRST_SEED").unwrap_or(0);
    let (seen, bad) = play_all(first, seeds);
    println!("{seeds} stories: {seen:?}");
    assert!(bad.is_empty(), "{}", bad.iter().map(|(seed, faults)| objection(*seed, faults)).collect::<String>());
    // Stories in which nothing happens prove nothing.
    let expected = seeds / 100;
    for (what, count) in [
        ("leaderships", seen.terms),
        ("tasks", seen.starts),
        ("cut tasks", seen.cut),
        ("reruns", seen.reruns),
        ("delegated attempts", seen.delegated),
        ("given up nodes", seen.given_up),
        ("withdrawn assignments", seen.withdrawn),
        ("lost attempts", seen.lost),
        ("fenced places", seen.fenced),
        ("released places", seen.released),
        ("late reports", seen.late),
        ("tasks that were left out", seen.left_out),
        ("tasks in free order", seen.free),
        ("closed gates", seen.closed),
        ("refused runs", seen.refused),
        ("replaced runs", seen.replaced),
        ("acquired locks", seen.acquired),
        ("poisoned locks", seen.poisoned),
        ("approved runs", seen.approved),
        ("reboots", seen.reboots),
    ] {
        assert!(count >= expected, "{count} {what} in {seeds} stories: too quiet");
    }
}

#[test]
fn what_once_failed_stays_mended() {
    let seeds = include_str!("../regressions/seeds.txt").lines().map(str::trim);
    for line in seeds.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let seed = line.parse().expect("a line of seeds.txt is a number or a comment");
        let faults = play(seed, Variant::Whole).faults;
        assert!(faults.is_empty(), "{}", objection(seed, &faults));
    }
}

/// Tells one story: `LOCKSTEP_SEED=… cargo test -p lockstep-tests --test simulation -- replay --nocapture`.
#[test]
fn replay() {
    let seed = number("LOCKSTEP_SEED").unwrap_or(1);
    if env::var_os("LOCKSTEP_SEED").is_some() {
        tell(seed, Variant::Whole).iter().for_each(|line| println!("{line}"));
    }
    let faults = play(seed, Variant::Whole).faults;
    assert!(faults.is_empty(), "{}", objection(seed, &faults));
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..20 {
        assert_eq!(tell(seed, Variant::Whole), tell(seed, Variant::Whole), "seed {seed}");
    }
}

#[test]
fn no_term_compare_is_caught() {
    caught(Variant::NoTermCompare, &[Checker::FencedLeadership]);
}

#[test]
fn claim_without_compare_is_caught() {
    caught(Variant::ClaimWithoutCompare, &[Checker::AtMostOnce]);
}

#[test]
fn report_without_claim_is_caught() {
    caught(Variant::ReportWithoutClaim, &[Checker::OneEnd]);
}

#[test]
fn window_freed_on_lost_is_caught() {
    caught(Variant::WindowFreedOnLost, &[Checker::Window, Checker::Turns, Checker::Locks]);
}

#[test]
fn gate_not_compared_is_caught() {
    caught(Variant::GateNotCompared, &[Checker::Gate, Checker::Cancel]);
}

#[test]
fn journal_after_exec_is_caught() {
    caught(Variant::JournalAfterExec, &[Checker::AtMostOnce, Checker::Interrupted]);
}

#[test]
fn step_despite_doubt_is_caught() {
    caught(Variant::StepDespiteDoubt, &[Checker::Locks, Checker::Turns, Checker::Window]);
}

#[test]
fn key_not_compared_is_caught() {
    caught(Variant::KeyNotCompared, &[Checker::Keys]);
}

#[test]
fn key_not_waited_for_is_caught() {
    caught(Variant::KeyNotWaitedFor, &[Checker::Keys]);
}

#[test]
fn lock_not_compared_is_caught() {
    caught(Variant::LockNotCompared, &[Checker::Locks]);
}

#[test]
fn no_poison_is_caught() {
    caught(Variant::NoPoison, &[Checker::Poison]);
}

#[test]
fn a_forgotten_failure_in_a_block_is_caught() {
    caught(Variant::LeftForgotten, &[Checker::Blocks]);
}

#[test]
fn waiting_for_who_never_comes_is_caught() {
    caught(Variant::NeverGivenUp, &[Checker::Liveness]);
}

#[test]
fn a_forgotten_handler_is_caught() {
    caught(Variant::OwedForgotten, &[Checker::Handlers]);
}

#[test]
fn a_task_that_is_left_out_and_done_is_caught() {
    caught(Variant::LeftOutDone, &[Checker::LeftOut]);
}

#[test]
fn a_forgotten_order_is_caught() {
    caught(Variant::OrderForgotten, &[Checker::Order]);
}

#[test]
fn a_reboot_that_is_not_noted_is_caught() {
    caught(Variant::RebootNotNoted, &[Checker::AtMostOnce]);
}

/// What the documents say of `AfterFence`: a stopped guard breaks the bound.
#[test]
fn stopped_guard_under_after_fence_is_caught() {
    caught(Variant::GuardStopped, &[Checker::Window, Checker::Turns, Checker::Locks]);
}

/// A heartbeat keeps work alive only while the session's record certainly is in the store.
#[test]
fn a_heartbeat_acknowledged_in_doubt_is_caught() {
    caught(Variant::AcknowledgedInDoubt, &[Checker::Window, Checker::Turns, Checker::Locks]);
}

/// And of `Wait`: it depends on no guard and no clock.
#[test]
fn stopped_guard_under_wait_breaks_nothing() {
    for seed in 0..SEEDS_UNDER_WAIT {
        let faults = play(seed, Variant::GuardStoppedUnderWait).faults;
        assert!(faults.is_empty(), "{}", objection(seed, &faults));
    }
}

/// Plays a broken variant until a checker that should object does; says which one, and after how many stories.
fn caught(variant: Variant, by: &[Checker]) {
    for seed in 0..SEEDS_PER_VARIANT {
        let faults = play(seed, variant).faults;
        if let Some(fault) = faults.iter().find(|fault| by.contains(&fault.checker)) {
            println!("{variant:?} is caught by {:?} after {} stories: {}", fault.checker, seed + 1, fault.message);
            return;
        }
        let other = faults.iter().find(|fault| fault.checker == Checker::Panic);
        assert!(other.is_none(), "{variant:?}: {}", objection(seed, &faults));
    }
    panic!("{variant:?} is not caught by {by:?} in {SEEDS_PER_VARIANT} stories");
}

/// What happened, and seeds that failed.
type Told = (Seen, Vec<(u64, Vec<Fault>)>);

/// Plays so many seeds from the first on all cores. Returns what happened, and the first few seeds that failed.
fn play_all(first: u64, seeds: u64) -> Told {
    const ENOUGH: usize = 5;
    let next = AtomicU64::new(first);
    let told: Mutex<Told> = Mutex::default();
    let threads = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Seen::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = |told: &Told| told.1.len() >= ENOUGH;
                    if seed >= first + seeds || enough(&told.lock().expect("no thread panics with it")) {
                        break;
                    }
                    let Story { faults, seen } = play(seed, Variant::Whole);
                    own += seen;
                    if !faults.is_empty() {
                        told.lock().expect("no thread panics with it").1.push((seed, faults));
                    }
                }
                told.lock().expect("no thread panics with it").0 += own;
            });
        }
    });
    told.into_inner().expect("no thread panics with it")
}

fn objection(seed: u64, faults: &[Fault]) -> String {
    let lines: String = faults
        .iter()
        .take(5)
        .map(|fault| format!("  {:?} at {} ms: {}\n", fault.checker, fault.at_ms, fault.message))
        .collect();
    format!(
        "seed {seed}:\n{lines}  LOCKSTEP_SEED={seed} cargo test -p lockstep-tests --test simulation -- replay --nocapture\n"
    )
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
