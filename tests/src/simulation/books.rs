//! Random Runs: groups, their order, windows, barriers, subsets, delegates, gates, locks, limits, priorities, reboots; and
//! how each task will end.

use lockstep_apis::v1alpha::{
    Approval, BlockPart, CompiledBlock, CompiledGate, CompiledTask, Concurrency, ConcurrencyPolicy, EarlyEnd, Group,
    LockMode, LockRequest, Metadata, OnFailure, OnInterrupt, OnUnreachable, Outcome, Run, RunSpec, Segment, Snapshot,
    SnapshotNode, Window, Within,
};

use super::random::Random;

/// One Run of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) run: Run,
    pub(crate) snapshot: Snapshot,
    pub(crate) created_ms: u64,
    /// How likely a task fails, in a thousand.
    fails: u64,
    /// Some tasks take longer than any fence.
    is_long: bool,
    seed: u64,
    pub(crate) guards: Vec<Guard>,
    pub(crate) handlers: Vec<Handler>,
}

/// A handler, as the judges see it.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    pub(crate) segment: u32,
    pub(crate) index: u32,
    pub(crate) notified_by: Vec<u32>,
    /// Nodes that owe it from a Run before.
    pub(crate) owed_by: Vec<u32>,
}

/// A block, as the judges see it: what of these segments is in no other part of it is its body.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) body: Vec<u32>,
    pub(crate) rescue: Vec<u32>,
    pub(crate) always: Vec<u32>,
}

/// What a machine has to be back: longer than it is ever away, and shorter than a story.
const REBOOT_MS: u64 = 40_000;

pub(crate) fn node_uid(node: usize) -> String {
    format!("n{node}")
}

impl Book {
    /// With blocks that are thrown with these dice, if there are any.
    pub(crate) fn random(
        random: &mut Random,
        mut dice: Option<&mut Random>,
        at: usize,
        nodes: usize,
        start_ms: u64,
    ) -> Book {
        let created_ms = start_ms + random.between(0, 7000);
        let members: Vec<u32> = (0..nodes as u32).collect();
        // With dice of its own: what else is thrown stays as it was.
        let mut patience = Random::new(random.clone().next() ^ at as u64);
        let on_unreachable = *patience.pick(&[OnUnreachable::Wait, OnUnreachable::Skip, OnUnreachable::Fail]);
        let mut snapshot = Snapshot {
            run_uid: format!("r{at}"),
            run_name: format!("run{at}"),
            namespace: "sim".into(),
            nodes: (0..nodes).map(|node| sim_node(random, node)).collect(),
            delegates: (0..nodes).map(named_node).collect(),
            timeout_ms: if random.chance(250) { random.between(4_000, 12_000) } else { random.between(30_000, 60_000) },
            grace_ms: random.between(50, 1000),
            priority: if random.chance(400) { random.between(1, 3) as i32 } else { 0 },
            concurrent: random.chance(80),
            on_unreachable: on_unreachable.into(),
            created_ms,
            ..Default::default()
        };
        let mut guards = Vec::new();
        for _ in 0..random.between(1, 2) {
            let first = snapshot.segments.len();
            add_group(random, &mut snapshot, &members);
            if let Some(dice) = dice.as_deref_mut()
                && dice.chance(600)
            {
                guards.extend(add_guard(dice, &mut snapshot, guards.len() as u32, first));
            }
        }
        let handlers = add_handlers(&mut patience, &mut snapshot, &guards);
        for name in ["l1", "l2"] {
            if random.chance(300) {
                let mode = *random.pick(&[LockMode::Read, LockMode::Read, LockMode::Write, LockMode::Clean]);
                let poison = random.chance(300);
                snapshot.locks.push(LockRequest { name: name.into(), mode: mode.into(), poison });
            }
        }
        snapshot.approval = random.chance(100).then_some(Approval { required: true, two_persons: false });
        let concurrency = random.chance(400).then(|| random_key(random));
        snapshot.concurrency_key = concurrency.as_ref().map(|own| own.key.clone()).unwrap_or_default();
        let spec = RunSpec { priority: snapshot.priority, concurrency, ..Default::default() };
        if random.chance(250) {
            snapshot.fence_ms = random.between(500, 2000);
        }
        let metadata = Metadata {
            name: snapshot.run_name.clone(),
            namespace: snapshot.namespace.clone(),
            uuid: snapshot.run_uid.clone(),
            ..Default::default()
        };
        Book {
            is_long: snapshot.fence_ms > 0,
            run: Run { metadata: Some(metadata), spec: Some(spec), status: None },
            snapshot,
            created_ms,
            fails: *random.pick(&[0, 0, 50, 200]),
            seed: random.next(),
            guards,
            handlers,
        }
    }

    /// Makes some of its segments reboots: those that a node does for itself, and in no block.
    pub(crate) fn add_reboots(&mut self, dice: &mut Random) {
        for segment in &mut self.snapshot.segments {
            let [task] = &mut segment.tasks[..] else { continue };
            let plain = segment.delegates.is_empty() && segment.blocks.is_empty() && task.gate.is_none();
            if plain && dice.chance(300) {
                task.action = "reboot.now".into();
                task.timeout_ms = REBOOT_MS;
            }
        }
    }

    /// Whether a task reboots the machine.
    pub(crate) fn reboots(&self, task: u32) -> bool {
        let mut tasks = self.snapshot.segments.iter().flat_map(|segment| &segment.tasks);
        tasks.any(|of| of.index == task && of.action == "reboot.now")
    }

    /// Its concurrency key and policy.
    pub(crate) fn concurrency(&self) -> Option<&Concurrency> {
        self.run.spec.as_ref()?.concurrency.as_ref()
    }

    /// How a task ends for a node if nothing cuts it, and after how many milliseconds. The same at every attempt.
    pub(crate) fn ends(&self, for_node: &str, task: u32) -> (Outcome, u64) {
        let node: u64 = for_node[1..].parse().expect("nodes are named n0, n1, …");
        let mut random = Random::new(self.seed ^ node << 32 ^ u64::from(task));
        let outcome = match random.chance(self.fails) {
            true => Outcome::Failed,
            false => *random.pick(&[Outcome::Ok, Outcome::Changed]),
        };
        // Longer than a fence, for those that are to be cut by one.
        let takes_ms = match random.between(0, 99) {
            0..=34 if self.is_long => random.between(6_000, 20_000),
            0..=24 => random.between(300, 2500),
            _ => random.between(5, 200),
        };
        (outcome, takes_ms)
    }

    /// Leaves out some of its tasks, as tags do; not those that follow others.
    pub(crate) fn leave_out(&mut self, dice: &mut Random) {
        let follow: Vec<u32> =
            self.guards.iter().flat_map(|guard| guard.rescue.iter().chain(&guard.always)).copied().collect();
        for task in self.snapshot.segments.iter_mut().flat_map(|segment| &mut segment.tasks) {
            if task.gate.is_none() && !task.handler && !follow.contains(&task.index) && dice.chance(200) {
                task.left_out = "left out by `tags: x`".into();
            }
        }
    }

    /// Lets its tasks begin in any order but a few. Not with blocks.
    pub(crate) fn set_free(&mut self, dice: &mut Random) {
        if !self.guards.is_empty() {
            return;
        }
        let mut next = next_index(&self.snapshot);
        for (number, segment) in (1..).zip(&mut self.snapshot.segments) {
            let tasks = std::mem::take(&mut segment.tasks);
            // A handler and a gate wait for all.
            let (work, last): (Vec<_>, Vec<_>) =
                tasks.into_iter().partition(|task| task.gate.is_none() && !task.handler);
            segment.tasks = work;
            for _ in 0..dice.between(0, 3) {
                segment.tasks.push(sim_task(dice, next));
                next += 1;
            }
            for at in 0..segment.tasks.len() {
                let before: Vec<u32> = segment.tasks[..at].iter().map(|task| task.index).collect();
                segment.tasks[at].together = number;
                segment.tasks[at].after = before.into_iter().filter(|_| dice.chance(300)).collect();
            }
            // Who waits may be written first.
            (1..segment.tasks.len()).rev().for_each(|at| segment.tasks.swap(at, dice.below(at + 1)));
            segment.tasks.extend(last);
        }
    }

    /// Whether a task does not wait for all before it.
    pub(crate) fn is_free(&self, segment: u32, task: u32) -> bool {
        let mut tasks = self.snapshot.segments[segment as usize].tasks.iter();
        tasks.any(|own| own.index == task && own.together != 0)
    }

    /// What a task waits for.
    pub(crate) fn after(&self, segment: u32, task: u32) -> &[u32] {
        let mut tasks = self.snapshot.segments[segment as usize].tasks.iter();
        tasks.find(|own| own.index == task).map_or(&[], |own| &own.after)
    }

    pub(crate) fn is_left_out(&self, task: u32) -> bool {
        let mut tasks = self.snapshot.segments.iter().flat_map(|segment| &segment.tasks);
        tasks.any(|own| own.index == task && !own.left_out.is_empty())
    }

    /// Makes it one that goes on without nodes that are away: once they are fenced; with 0 once they are back.
    pub(crate) fn set_fence(&mut self, fence_ms: u64) {
        self.snapshot.fence_ms = fence_ms;
        self.snapshot.timeout_ms = 90_000;
        self.snapshot.groups.iter_mut().for_each(|group| group.max_failures = 6);
        self.is_long = true;
    }
}

fn random_key(random: &mut Random) -> Concurrency {
    use ConcurrencyPolicy as P;
    let policy = *random.pick(&[P::Queue, P::QueueLatest, P::Refuse, P::Join, P::Replace, P::Replace]);
    Concurrency { key: if random.chance(800) { "k1" } else { "k/2" }.into(), policy: policy.into() }
}

fn sim_node(random: &mut Random, node: usize) -> SnapshotNode {
    let early = match random.between(0, 49) {
        0 => EarlyEnd::Cordoned,
        1 => EarlyEnd::UnreachableSkipped,
        2 => EarlyEnd::UnreachableFailed,
        _ => EarlyEnd::Unspecified,
    };
    SnapshotNode { early: early.into(), ..named_node(node) }
}

fn named_node(node: usize) -> SnapshotNode {
    SnapshotNode { uid: node_uid(node), name: format!("node{node}"), ..Default::default() }
}

fn add_group(random: &mut Random, snapshot: &mut Snapshot, all: &[u32]) {
    let mut members: Vec<u32> = all.iter().copied().filter(|_| random.chance(850)).collect();
    if members.is_empty() {
        members = all.to_vec();
    }
    if random.chance(300) {
        // In an order of its own.
        (1..members.len()).rev().for_each(|at| members.swap(at, random.below(at + 1)));
    }
    let size = if random.chance(300) { members.len() } else { random.between(1, 3) as usize };
    let first_segment = snapshot.segments.len() as u32;
    let segments = if random.chance(500) { 1 } else { random.between(2, 3) };
    for _ in 0..segments {
        add_segment(random, snapshot, &members);
    }
    if random.chance(300) {
        add_gate(snapshot, first_segment as usize);
    }
    let segments = snapshot.segments.len() as u32 - first_segment;
    snapshot.groups.push(Group {
        windows: members.chunks(size).map(|nodes| Window { nodes: nodes.to_vec(), size: size as u32 }).collect(),
        first_segment,
        segment_count: segments,
        max_failures: if random.chance(600) { 0 } else { random.between(1, 2) as u32 },
        on_failure: random
            .pick(&[OnFailure::StopNow, OnFailure::FinishWindow, OnFailure::Unspecified])
            .to_owned()
            .into(),
        serialized: size < members.len(),
    });
}

/// Gives some segments a handler, behind their tasks and before a gate. Not where there are blocks or delegates.
fn add_handlers(random: &mut Random, snapshot: &mut Snapshot, guards: &[Guard]) -> Vec<Handler> {
    let mut handlers = Vec::new();
    for at in 0..snapshot.segments.len() as u32 {
        let guarded = guards.iter().any(|guard| (guard.first..=guard.last).contains(&at));
        let delegated = !snapshot.segments[at as usize].delegates.is_empty();
        if guarded || delegated || !random.chance(250) {
            continue;
        }
        let index = next_index(snapshot);
        let tasks = &mut snapshot.segments[at as usize].tasks;
        let own = tasks.iter().filter(|task| task.gate.is_none()).count();
        let mut notified_by = Vec::new();
        for task in &mut tasks[..own] {
            if random.chance(600) {
                task.notify.push(index);
                notified_by.push(task.index);
            }
        }
        tasks.insert(own, CompiledTask { handler: true, ..sim_task(random, index) });
        let owed_by: Vec<u32> = (0..snapshot.nodes.len() as u32).filter(|_| random.chance(100)).collect();
        owed_by.iter().for_each(|&node| snapshot.nodes[node as usize].owed.push(index));
        handlers.push(Handler { segment: at, index, notified_by, owed_by });
    }
    handlers
}

/// Puts a block around tasks of some of the segments from this one on.
fn add_guard(random: &mut Random, snapshot: &mut Snapshot, block: u32, from: usize) -> Option<Guard> {
    let first = random.between(from as u64, snapshot.segments.len() as u64 - 1) as usize;
    let last = random.between(first as u64, snapshot.segments.len() as u64 - 1) as usize;
    // Every node that is in it comes to its end, and does it itself.
    let delegated = snapshot.segments[first..=last].iter().any(|segment| !segment.delegates.is_empty());
    if !snapshot.segments[last].all_of_window || delegated {
        return None;
    }
    let within = |part: BlockPart| vec![Within { block, part: part.into() }];
    let next = next_index(snapshot);
    let rescues = random.between(0, 2) as u32;
    let always = random.between(u64::from(rescues == 0), 2) as u32;
    let follows: Vec<CompiledTask> = (0..rescues + always)
        .map(|at| {
            let part = if at < rescues { BlockPart::Rescue } else { BlockPart::Always };
            CompiledTask { within: within(part), ..sim_task(random, next + at) }
        })
        .collect();
    let mut body = Vec::new();
    for at in first..=last {
        let segment = &mut snapshot.segments[at];
        // What is before it, or after it, stays outside.
        let own = segment.tasks.iter().filter(|task| task.gate.is_none()).count();
        let before = usize::from(at == first && own > 1 && random.chance(300));
        let after = usize::from(at == last && own > before + 1 && random.chance(600));
        let end = own - after;
        for task in &mut segment.tasks[before..end] {
            task.within = within(BlockPart::Body);
            body.push(task.index);
        }
        segment.tasks.splice(end..end, follows.iter().cloned());
        segment.blocks.push(CompiledBlock {
            index: block,
            rescues: rescues > 0,
            begun: at != first,
            goes_on: at != last,
            ..Default::default()
        });
    }
    let indices = |from: u32, count: u32| (next + from..next + from + count).collect();
    Some(Guard {
        first: first as u32,
        last: last as u32,
        body,
        rescue: indices(0, rescues),
        always: indices(rescues, always),
    })
}

/// An index that no task has.
fn next_index(snapshot: &Snapshot) -> u32 {
    let tasks = snapshot.segments.iter().flat_map(|segment| &segment.tasks);
    tasks.map(|task| task.index + 1).max().unwrap_or_default()
}

fn sim_task(random: &mut Random, index: u32) -> CompiledTask {
    CompiledTask {
        index,
        id: format!("t{index}"),
        action: "command.run".into(),
        on_interrupt: random.pick(&[OnInterrupt::Rerun, OnInterrupt::Rerun, OnInterrupt::Fail]).to_owned().into(),
        ..Default::default()
    }
}

fn add_segment(random: &mut Random, snapshot: &mut Snapshot, members: &[u32]) {
    let next = next_index(snapshot);
    let tasks = (0..random.between(1, 2) as u32).map(|at| sim_task(random, next + at)).collect();
    let all_of_window = random.chance(750);
    let nodes =
        if all_of_window { Vec::new() } else { members.iter().copied().filter(|_| random.chance(500)).collect() };
    let mut segment = Segment { tasks, nodes, all_of_window, ..Default::default() };
    if random.chance(200) {
        delegate(random, &mut segment, members, snapshot.delegates.len());
    }
    snapshot.segments.push(segment);
}

/// Done by others: by one for all, or by anybody for each.
fn delegate(random: &mut Random, segment: &mut Segment, members: &[u32], nodes: usize) {
    if std::mem::take(&mut segment.all_of_window) {
        segment.nodes = members.to_vec();
    }
    let one = random.chance(500).then(|| random.below(nodes) as u32);
    segment.delegates = segment.nodes.iter().map(|_| one.unwrap_or_else(|| random.below(nodes) as u32)).collect();
    segment.throttle = random.between(1, 3) as u32;
}

/// Behind all tasks of the group, for every node of a window.
fn add_gate(snapshot: &mut Snapshot, first_segment: usize) {
    let index = snapshot.segments.iter().map(|segment| segment.tasks.len() as u32).sum::<u32>();
    if snapshot.segments[first_segment..].last().is_none_or(|last| !last.all_of_window) {
        snapshot.segments.push(Segment { all_of_window: true, ..Default::default() });
    }
    let gate = CompiledTask {
        index,
        on_interrupt: OnInterrupt::Rerun.into(),
        gate: Some(CompiledGate::default()),
        ..Default::default()
    };
    snapshot.segments.last_mut().expect("made above").tasks.push(gate);
}
