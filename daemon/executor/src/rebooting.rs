//! A task that reboots the machine: all that is before it is on the disk, its own mark, too, before the machine goes down.
//! Nothing is written after it went: the next boot knows by the mark that it is done.

use std::time::Duration;

use lockstep_apis::v1alpha::{CompiledTask, Outcome};
use lockstep_core::parameters::TaskTexts;
use lockstep_modules::{Action, Stream};

use crate::{
    journal::JournalError,
    preparing::Given,
    results::{self, Ended},
    sequence::{Ledger, Segment, now_ms},
};

impl Segment<'_> {
    /// Does the task. Its intent is noted.
    ///
    /// # Errors
    /// [`JournalError::GoingDown`]: the machine goes down, and this process is to end at once.
    pub(crate) fn reboot(
        &mut self,
        action: &dyn Action,
        task: &CompiledTask,
        texts: &TaskTexts,
        given: &Given,
        ledger: &mut dyn Ledger,
    ) -> Result<Ended, JournalError> {
        let mut output = None;
        let done = self.perform(action, task, given, &mut output, ledger);
        let wanted = done.result.clone();
        let ended = results::judge(task, texts, done, &self.context, self.check);
        if self.check || ended.outcome != Outcome::Changed {
            return Ok(ended);
        }
        if let Err(error) = self.unsynced.sync() {
            return Ok(ended.failing(format!("not rebooted, for what was done before is not on the disk: {error}")));
        }
        let timeout = Duration::from_millis(task.timeout_ms);
        ledger.going_down(task, now_ms() + task.timeout_ms)?;
        let mut complaint = Vec::new();
        let mut print = |_: Stream, bytes: &[u8]| complaint.extend_from_slice(&bytes[..bytes.len().min(256)]);
        if let Err(problem) = lockstep_modules::go_down(self.host, &wanted, self.cancel, &mut print) {
            let complaint = String::from_utf8_lossy(&complaint);
            let first = complaint.lines().next().map_or(String::new(), |line| format!(" ({line})"));
            return Ok(ended.failing(format!("not rebooted: {problem}{first}")));
        }
        // We are told to end when the machine goes down, or we go with it.
        match lockstep_modules::rest(self.cancel, timeout) {
            true => Err(JournalError::GoingDown),
            false => Ok(ended.failing(format!("the machine did not go down within {} s", timeout.as_secs()))),
        }
    }
}
