//! Cuts tasks into groups and segments. A segment ends only where nodes must wait for each other: at a group's border,
//! at `sync: true`, around a task that not every node of the window does, and around one that reboots. What a task reads of another node is of
//! a task that one node does, and that task is a segment of its own: so it is always in an earlier segment.
//! A block that is cut has its `rescue` and `always` in each of its segments, for the nodes that fail there.

use std::collections::BTreeSet;

use lockstep_apis::v1alpha::{
    BlockPart, CompiledBlock, CompiledRetries, CompiledTask, OnInterrupt, OnUnreachable, Ordering, Retries, Serialize,
    SnapshotNode, Targets, Task, Within,
};
use lockstep_apis::{duration, params};

use super::delegate::{self, Choosing, Delegates};
use super::targets::{self, Inventory};
use super::{
    AdmissionNode, CheckedTask, EarlyEnd, Group, Rejection, RunOptions, Segment, VARIABLE_SET, gate, order, reboots,
    shared, windows,
};
use crate::check;
use crate::check::gate::CheckedGate;
use crate::check::ordering::Requires;
use crate::check::tasks::Checked;
use crate::outline::{Apart, Outline};
use crate::references::{References, Root};

/// Default of a task's `timeout`, in milliseconds: ten minutes.
const TASK_TIMEOUT_MS: u64 = 600_000;

/// Default of `retries.limit`.
const RETRIES: u32 = 3;

/// Default of `retries.interval`, in milliseconds.
const RETRY_INTERVAL_MS: u64 = 5000;

/// What a Run's tasks become.
#[derive(Default)]
pub(super) struct Cut {
    pub(super) groups: Vec<Group>,
    pub(super) segments: Vec<Segment>,
    pub(super) delegates: Vec<SnapshotNode>,
}

/// A book's tasks, in its order.
pub(super) struct Tasks<'t> {
    pub(super) outline: &'t Outline<'t>,
    pub(super) checked: &'t Checked<'t>,
    /// Why the Run leaves each out; "" if it does not.
    pub(super) left_out: Vec<String>,
}

/// The cluster, and the Run's nodes.
pub(super) struct Nodes<'c> {
    pub(super) inventory: &'c Inventory<'c>,
    pub(super) chosen: &'c [AdmissionNode<'c>],
    pub(super) on_unreachable: OnUnreachable,
}

/// Groups and segments of a Run whose nodes are, in the order in which they are chosen, `nodes`.
pub(super) fn cut(
    of: &Tasks<'_>,
    options: &RunOptions,
    cluster: &Nodes<'_>,
    nodes: &[SnapshotNode],
) -> Result<Cut, Rejection> {
    let Tasks { outline, checked, left_out } = of;
    let tasks = &checked.tasks[..];
    let mut delegates = Delegates::default();
    let cutting = Cutting { outline, tasks, left_out, read: Read::of(checked), cluster, nodes };
    let all: Vec<u32> = (0..nodes.len() as u32).collect();
    let (mut groups, mut segments) = (Vec::new(), Vec::new());
    for Stretch { tasks: range, own, block } in stretches(outline, options) {
        let of_block = block.map(|block| outline.blocks[block as usize].task);
        let first = &tasks[range.start];
        let targets = of_block.map_or(first.task.targets.as_ref(), |block| block.targets.as_ref());
        let members = match (own, targets) {
            // The group's nodes are those that do its tasks.
            (Some(_), Some(given)) => cutting.targeted_by(given, of_block.map_or(called(first), called_block))?,
            _ => all.clone(),
        };
        let serialize: Option<&Serialize> = own.or(options.serialize.as_ref());
        let members = cutting.in_order(serialize, members)?;
        let mut group = windows::group(serialize, options, &members)?;
        group.first_segment = segments.len() as u32;
        let end = range.end;
        let whole = own.map(|_| block.map_or(Apart::Alone, Apart::Block));
        cutting.segments(range, whole, &members, &mut segments, &mut delegates)?;
        if let Some(gate) = serialize.and_then(|serialize| serialize.gate.as_ref()) {
            let mut own = segments.split_off(group.first_segment as usize);
            gate::close(gate, groups.len() as u32, &mut own);
            segments.append(&mut own);
            let read = checked.gates.iter().filter(|checked| checked.end == end);
            let last = segments.last_mut().expect("invariant: a closed group has a segment");
            read.for_each(|gate| reads(last, &gate.references()));
        }
        group.segment_count = segments.len() as u32 - group.first_segment;
        shared::check(&group, &segments[group.first_segment as usize..], nodes)?;
        groups.push(group);
    }
    if options.ordering() == Ordering::Free {
        (1..).zip(&mut segments).for_each(|(number, segment)| together(segment, number, &checked.requires));
    }
    Ok(Cut { groups, segments, delegates: delegates.nodes })
}

/// Lets tasks of a segment begin when what they require has ended. What they require of earlier segments has.
fn together(segment: &mut Segment, number: u32, requires: &Requires) {
    // One that reboots is alone, but for what follows its failure.
    let is_free = |task: &CompiledTask| !task.handler && task.gate.is_none() && !reboots(&task.action);
    let inside: BTreeSet<u32> = segment.tasks.iter().filter(|task| is_free(task)).map(|task| task.index).collect();
    for task in segment.tasks.iter_mut().filter(|task| is_free(task)) {
        let after = requires[task.index as usize].iter().map(|before| *before as u32);
        (task.together, task.after) = (number, after.filter(|before| inside.contains(before)).collect());
    }
}

/// Tasks that are one group.
struct Stretch<'t> {
    tasks: std::ops::Range<usize>,
    /// What the task, or the block, says itself.
    own: Option<&'t Serialize>,
    block: Option<u32>,
}

/// All if the book is serialized, else each serialized task or block alone and the rest between.
fn stretches<'t>(outline: &'t Outline<'t>, options: &RunOptions) -> Vec<Stretch<'t>> {
    if options.serialize.is_some() {
        return vec![Stretch { tasks: outline.body.clone(), own: None, block: None }];
    }
    let mut stretches: Vec<Stretch<'t>> = Vec::new();
    let mut index = outline.body.start;
    while index < outline.body.end {
        let leaf = &outline.tasks[index];
        let block = leaf.within.first().map(|place| place.block);
        let of_block = block.and_then(|block| {
            let of = &outline.blocks[block as usize];
            Some(Stretch { tasks: of.tasks.clone(), own: Some(of.task.serialize.as_ref()?), block: Some(block) })
        });
        let own = leaf.written.serialize.as_ref().filter(|_| leaf.within.is_empty());
        let alone = || own.map(|own| Stretch { tasks: index..index + 1, own: Some(own), block: None });
        match (of_block.or_else(alone), stretches.last_mut()) {
            (Some(group), _) => {
                index = group.tasks.end;
                stretches.push(group);
            }
            (None, Some(last)) if last.own.is_none() => {
                index += 1;
                last.tasks.end = index;
            }
            (None, _) => {
                stretches.push(Stretch { tasks: index..index + 1, own: None, block: None });
                index += 1;
            }
        }
    }
    stretches
}

/// What tasks read of others.
struct Read {
    results: BTreeSet<String>,
    shared: BTreeSet<String>,
    all: BTreeSet<String>,
}

impl Read {
    fn of(checked: &Checked<'_>) -> Self {
        let gates: Vec<References> = checked.gates.iter().map(CheckedGate::references).collect();
        let all = || checked.tasks.iter().map(|task| &task.references).chain(&gates);
        let ids = |root| all().flat_map(|references| references.ids(root)).map(str::to_owned).collect();
        Self { results: ids(Root::Results), shared: ids(Root::Shared), all: ids(Root::All) }
    }
}

/// Notes in a segment what one of its tasks reads of others.
fn reads(segment: &mut Segment, references: &References) {
    segment.reads_nodes |= references.uses(Root::Nodes);
    for id in references.ids(Root::All) {
        if !segment.reads_all.iter().any(|known| known == id) {
            segment.reads_all.push(id.to_owned());
        }
    }
    for id in references.shared() {
        if !segment.reads_shared.iter().any(|known| known == id) {
            segment.reads_shared.push(id.to_owned());
        }
    }
}

/// How a task is called in refusals.
fn called<'t>(own: &CheckedTask<'t>) -> &'t str {
    if own.task.name.is_empty() { &own.task.action } else { &own.task.name }
}

fn called_block(block: &Task) -> &str {
    if block.name.is_empty() { "block" } else { &block.name }
}

/// Who does a task.
struct Doing<'t> {
    targets: Option<&'t Targets>,
    run_once: bool,
    delegated: Option<&'t Targets>,
    apart: Option<Apart>,
}

struct Cutting<'c> {
    outline: &'c Outline<'c>,
    tasks: &'c [CheckedTask<'c>],
    left_out: &'c [String],
    read: Read,
    cluster: &'c Nodes<'c>,
    nodes: &'c [SnapshotNode],
}

impl Cutting<'_> {
    fn segments(
        &self,
        range: std::ops::Range<usize>,
        whole: Option<Apart>,
        members: &[u32],
        segments: &mut Vec<Segment>,
        delegates: &mut Delegates,
    ) -> Result<(), Rejection> {
        let mut open: Option<(std::ops::Range<usize>, Option<Apart>)> = None;
        for index in range {
            let own = &self.tasks[index];
            let doing = self.doing(index);
            // What its targets say of the whole group is said already.
            let said = whole == doing.apart && !doing.run_once;
            let apart = match doing.delegated {
                Some(_) => Some(Apart::Alone),
                None => doing.apart.filter(|_| !said),
            };
            let last = open.as_ref().map(|(_, apart)| apart);
            let joins = last.is_some_and(|last| *last == apart && apart != Some(Apart::Alone));
            // What every node did can be read when every node has done it.
            let waits = |segment: &Segment| {
                let mut read = own.references.ids(Root::All);
                read.any(|id| segment.tasks.iter().any(|task| task.id == id))
            };
            let is_left_out = !self.left_out[index].is_empty();
            // What comes after a reboot is of another boot; handlers are done before it.
            let cuts = |index: usize| reboots(&self.tasks[index].task.action);
            let reboots = cuts(index) || open.as_ref().is_some_and(|(open, _)| open.clone().any(cuts));
            if !joins || own.task.sync || reboots || (!is_left_out && segments.last().is_some_and(waits)) {
                if let (Some((before, _)), Some(segment)) = (open, segments.last_mut()) {
                    self.close(segment, before, Some(index));
                }
                let nodes = if apart.is_some() { self.doers(own, &doing, members)? } else { Vec::new() };
                let mut segment = Segment { nodes, all_of_window: apart.is_none(), ..Segment::default() };
                if let Some(given) = doing.delegated {
                    self.delegate(own, given, &mut segment, delegates)?;
                }
                segments.push(segment);
                open = Some((index..index, apart));
            }
            let segment = segments.last_mut().expect("invariant: the first task opens a segment");
            self.add(segment, index);
            open = open.map(|(open, apart)| (open.start..index + 1, apart));
        }
        if let (Some((before, _)), Some(segment)) = (open, segments.last_mut()) {
            self.close(segment, before, None);
        }
        Ok(())
    }

    /// The members of a group in the order in which they go.
    fn in_order(&self, serialize: Option<&Serialize>, members: Vec<u32>) -> Result<Vec<u32>, Rejection> {
        let Some(serialize) = serialize.filter(|serialize| !serialize.order_by.is_empty()) else { return Ok(members) };
        let mut nodes = members.into_iter().map(|node| (self.cluster.chosen[node as usize], node)).collect();
        order::sort(&serialize.order_by, &mut nodes)?;
        Ok(nodes.into_iter().map(|(_, node)| node).collect())
    }

    /// Who does a task for the nodes of its segment, and what of their results it is given.
    fn delegate(
        &self,
        own: &CheckedTask<'_>,
        given: &Targets,
        segment: &mut Segment,
        delegates: &mut Delegates,
    ) -> Result<(), Rejection> {
        let for_nodes: Vec<AdmissionNode<'_>> =
            segment.nodes.iter().map(|node| self.cluster.chosen[*node as usize]).collect();
        let choosing = Choosing {
            inventory: self.cluster.inventory,
            on_unreachable: self.cluster.on_unreachable,
            task: called(own),
        };
        segment.delegates = delegates.of(given, &for_nodes, &choosing)?;
        segment.throttle = if own.task.throttle == 0 { delegate::THROTTLE } else { own.task.throttle };
        segment.reads_results = own.references.results().map(str::to_owned).collect();
        Ok(())
    }

    fn add(&self, segment: &mut Segment, index: usize) {
        let own = &self.tasks[index];
        segment.tasks.push(self.task(own, index as u32));
        if self.left_out[index].is_empty() {
            reads(segment, &own.references);
        }
    }

    /// Ends a segment of these tasks before the one with index `next`: adds `rescue` and `always` of the blocks that go
    /// on, for the nodes that fail in it, and says which blocks there are.
    fn close(&self, segment: &mut Segment, tasks: std::ops::Range<usize>, next: Option<usize>) {
        let within = |index: usize| self.outline.tasks[index].within.as_slice();
        let next = next.map_or(&[][..], within);
        let cut = within(tasks.end - 1).iter().zip(next).take_while(|(place, next)| place.block == next.block);
        let cut: Vec<u32> = cut.map(|(place, _)| place.block).collect();
        for (depth, block) in cut.iter().enumerate().rev() {
            let all = self.outline.blocks[*block as usize].tasks.clone();
            let follows = |index: &usize| within(*index)[depth].part() != BlockPart::Body;
            all.filter(follows).for_each(|index| self.add(segment, index));
        }
        let notified: BTreeSet<u32> = segment.tasks.iter().flat_map(|task| task.notify.iter().copied()).collect();
        for handler in notified {
            self.add(segment, handler as usize);
            if !segment.delegates.is_empty() {
                let read = self.tasks[handler as usize].references.results();
                segment.reads_results.extend(read.map(str::to_owned));
            }
        }
        let places = segment.tasks.iter().flat_map(|task| &task.within);
        let blocks: BTreeSet<u32> = places.map(|Within { block, .. }| *block).collect();
        segment.blocks = blocks.into_iter().map(|block| self.block(block, &tasks, cut.contains(&block))).collect();
    }

    fn block(&self, index: u32, segment: &std::ops::Range<usize>, goes_on: bool) -> CompiledBlock {
        let block = &self.outline.blocks[index as usize];
        CompiledBlock {
            index,
            name: block.task.name.clone(),
            rescues: block.tasks.clone().any(|index| self.rescues(index, block.within.len())),
            begun: block.tasks.start < segment.start,
            goes_on,
        }
    }

    /// Whether a task is in the `rescue` of the block at this depth, and is not left out.
    fn rescues(&self, index: usize, depth: usize) -> bool {
        let place = self.outline.tasks[index].within.get(depth);
        self.left_out[index].is_empty() && place.is_some_and(|place| place.part() == BlockPart::Rescue)
    }

    /// Who does a task: as it says, or if it is left out, whoever is there anyway, as nobody need be found or waited for.
    fn doing(&self, index: usize) -> Doing<'_> {
        let CheckedTask { task, leaf, .. } = &self.tasks[index];
        if self.left_out[index].is_empty() {
            let (targets, delegated) = (task.targets.as_ref(), task.delegate_to.as_ref());
            return Doing { targets, run_once: task.run_once, delegated, apart: leaf.apart };
        }
        let around =
            || leaf.within.iter().rev().map(|place| (place.block, self.outline.blocks[place.block as usize].task));
        let mut own = around().filter(|(_, block)| block.run_once || block.targets.is_some());
        Doing {
            targets: around().find_map(|(_, block)| block.targets.as_ref()),
            run_once: around().any(|(_, block)| block.run_once),
            delegated: None,
            apart: own.next().map(|(block, _)| Apart::Block(block)),
        }
    }

    /// The nodes of a task that not every node does.
    fn doers(&self, own: &CheckedTask<'_>, doing: &Doing<'_>, members: &[u32]) -> Result<Vec<u32>, Rejection> {
        let targeted = match doing.targets {
            Some(given) => self.targeted_by(given, called(own))?,
            None => members.to_vec(),
        };
        if !doing.run_once {
            return Ok(targeted);
        }
        // The first of the first window that has one.
        let mut targeted = targeted;
        let place = |node: &u32| members.iter().position(|member| member == node).unwrap_or(usize::MAX);
        targeted.sort_by_key(place);
        // One that does nothing cannot do it for all; if none can, the first says why.
        let works = |node: &&u32| self.nodes[**node as usize].early() == EarlyEnd::Unspecified;
        Ok(targeted.iter().find(works).or(targeted.first()).copied().into_iter().collect())
    }

    /// The Run's nodes that these targets of a task or block mean.
    fn targeted_by(&self, given: &Targets, called: &str) -> Result<Vec<u32>, Rejection> {
        if check::is_unsaid_all(given) {
            let field = format!("the targets of the task `{called}`");
            return Err(Rejection::of("NoTargets", vec![check::no_targets(&field)]));
        }
        let chosen = self.cluster.inventory.choose(given, self.cluster.chosen).map_err(|mut rejection| {
            rejection.message = format!("the task `{called}`: {}", rejection.message);
            rejection
        })?;
        if chosen.is_empty() {
            let message = format!("the task `{called}` has targets that match none of the Run's nodes");
            return Err(Rejection::new("NoTargets", message));
        }
        let names: BTreeSet<&str> = chosen.iter().map(targets::name).collect();
        let all = self.nodes.iter().enumerate();
        Ok(all.filter(|(_, node)| names.contains(node.name.as_str())).map(|(index, _)| index as u32).collect())
    }

    fn task(&self, own: &CheckedTask<'_>, index: u32) -> CompiledTask {
        let task = own.task;
        let on_interrupt = match task.on_interrupt() {
            OnInterrupt::Unspecified
                if params::action(&task.action)
                    .is_some_and(|action| action.repeatable || action.only_reads(task.parameters.as_ref())) =>
            {
                OnInterrupt::Rerun
            }
            OnInterrupt::Unspecified => OnInterrupt::Fail,
            given => given,
        };
        let blocks = own.leaf.within.iter().map(|place| &self.outline.blocks[place.block as usize]);
        let conditions = blocks.filter(|block| !block.task.when.is_empty());
        let called = task.notify.iter().filter_map(|called| check::handlers::find(self.outline, called));
        let notify: BTreeSet<u32> = called.map(|index| index as u32).collect();
        let shared = own.single_producer && self.read.shared.contains(&own.id);
        CompiledTask {
            index,
            id: own.id.clone(),
            name: task.name.clone(),
            action: task.action.clone(),
            parameters: task.parameters.clone(),
            when: task.when.clone(),
            success: task.success.clone(),
            changed: task.changed.clone(),
            timeout_ms: task.timeout.as_ref().map_or(TASK_TIMEOUT_MS, duration::from_proto),
            keep_result: shared
                || task.action == VARIABLE_SET
                || self.read.results.contains(&own.id)
                || self.read.all.contains(&own.id),
            shared,
            secret: task.register.as_ref().is_some_and(|register| register.secret),
            sensitive: task.sensitive,
            environment: task.environment.clone(),
            user: task.user.clone(),
            working_directory: task.working_directory.clone(),
            on_interrupt: on_interrupt.into(),
            retries: task.retries.as_ref().map(retries),
            ignore_errors: task.ignore_errors,
            gate: None,
            r#loop: task.r#loop.clone(),
            loop_limit: if task.loop_limit == 0 { check::LOOP_LIMIT } else { task.loop_limit },
            left_out: self.left_out[index as usize].clone(),
            together: 0,
            after: Vec::new(),
            handler: own.leaf.handler,
            notify: notify.into_iter().collect(),
            within: own.leaf.within.clone(),
            scope: own.leaf.scope,
            block_scopes: conditions.clone().map(|block| block.scope).collect(),
            block_when: conditions.map(|block| block.task.when.clone()).collect(),
        }
    }
}

fn retries(given: &Retries) -> CompiledRetries {
    CompiledRetries {
        limit: if given.limit == 0 { RETRIES } else { given.limit },
        interval_ms: given.interval.as_ref().map_or(RETRY_INTERVAL_MS, duration::from_proto),
        until: given.until.clone(),
    }
}
