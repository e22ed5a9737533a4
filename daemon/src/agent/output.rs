//! The tail of one attempt's output: what has been read, sent and acknowledged. One message is under way at a time.
//! Knows offsets and numbers; reads through `lockstep-executor`.

use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::{OutputChunk, OutputRequest};
use lockstep_executor::segment;

/// What was not acknowledged for so long is sent again: the server could not keep it then.
pub(super) const RESEND: Duration = Duration::from_secs(30);

/// Where a tail is.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Of the first byte in the file that is not acknowledged.
    offset: u64,
    /// Chunks that are acknowledged.
    kept: u64,
    /// What is under way.
    sent: Option<Sent>,
    /// The server knows that nothing follows.
    done: bool,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    chunks: u64,
    end: u64,
    last: bool,
}

/// Read from the file, not yet sent.
pub(super) struct Read {
    chunks: Vec<OutputChunk>,
    end: u64,
}

impl Tail {
    /// Whether everything was acknowledged, the end too.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether an answer is waited for, and may still come.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.sent.as_ref().is_some_and(|sent| now < sent.at + RESEND)
    }

    /// Where to read next.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The connection is another one: what was under way may be lost and is sent again.
    pub(super) fn begin_anew(&mut self) {
        self.sent = None;
    }

    /// What to send, if anything. `ended`: what was read is all there will be, if it is empty.
    pub(super) fn next(&mut self, read: Read, ended: bool, now: Instant) -> Option<OutputRequest> {
        let last = ended && read.chunks.is_empty();
        if self.done || self.is_waiting(now) || (read.chunks.is_empty() && !last) {
            return None;
        }
        self.sent = Some(Sent { at: now, chunks: read.chunks.len() as u64, end: read.end, last });
        Some(OutputRequest { attempt: None, number: self.kept + 1, chunks: read.chunks, last })
    }

    /// The server keeps everything up to `number`. Returns how many chunks it has that we have not read yet: it had
    /// them from an earlier agent, and they are to be passed over with [`Tail::pass_over`].
    pub(super) fn acknowledged(&mut self, number: u64) -> u64 {
        let all = |sent: &Sent| number >= self.kept + sent.chunks;
        // Kept in part is sent again as a whole, when its time is over: at once could be for ever, in a circle.
        let Some(sent) = self.sent.take_if(|sent| all(sent)) else { return 0 };
        self.offset = sent.end;
        self.kept += sent.chunks;
        self.done = sent.last;
        number - self.kept
    }

    /// Passes over what the server has already.
    pub(super) fn pass_over(&mut self, folder: &Path, chunks: u64) {
        let mut left = chunks;
        while left > 0 {
            let Ok((offset, count)) = skim(folder, self.offset, left) else { return };
            if count == 0 {
                return;
            }
            (self.offset, self.kept, left) = (offset, self.kept + count, left - count);
            // Only the last, partial read stops short of what was asked for.
        }
    }
}

/// Reads on from an offset.
pub(super) fn read(folder: &Path, offset: u64) -> Result<Read, segment::SegmentError> {
    let (chunks, end) = segment::read_output(folder, offset)?;
    Ok(Read { chunks, end })
}

/// Where `most` chunks from `offset` on end, or all that one read gives if those are fewer.
fn skim(folder: &Path, offset: u64, most: u64) -> Result<(u64, u64), segment::SegmentError> {
    let (chunks, end) = segment::read_output(folder, offset)?;
    let count = chunks.len() as u64;
    if count <= most {
        return Ok((end, count));
    }
    // More was read than is to be passed over: stay, for the rest would be lost. The server passes over the repeated.
    Ok((offset, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(count: usize, end: u64) -> Read {
        Read { chunks: vec![OutputChunk::default(); count], end }
    }

    #[test]
    fn chunks_are_numbered_through_and_one_message_is_under_way() {
        let (mut tail, now) = (Tail::default(), Instant::now());
        assert!(tail.next(read(0, 0), false, now).is_none());
        assert_eq!(tail.next(read(2, 20), false, now).unwrap().number, 1);
        assert!(tail.next(read(1, 30), false, now).is_none(), "the first is not answered");
        assert_eq!(tail.acknowledged(2), 0);
        assert_eq!(tail.offset(), 20);
        let again = tail.next(read(1, 30), true, now).unwrap();
        assert_eq!((again.number, again.last), (3, false));
        tail.acknowledged(3);
        let last = tail.next(read(0, 30), true, now).unwrap();
        assert_eq!((last.number, last.last), (4, true));
        assert!(!tail.is_done());
        tail.acknowledged(3);
        assert!(tail.is_done());
    }

    #[test]
    fn what_was_lost_or_kept_in_part_is_sent_again() {
        let (mut tail, now) = (Tail::default(), Instant::now());
        tail.next(read(3, 30), false, now).unwrap();
        tail.begin_anew();
        assert_eq!(tail.next(read(3, 30), false, now).unwrap().number, 1);
        tail.acknowledged(1);
        assert_eq!((tail.offset(), tail.is_waiting(now)), (0, true));
        let now = now + RESEND;
        assert!(!tail.is_waiting(now), "for ever would be too long");
        tail.next(read(2, 20), false, now).unwrap();
        assert_eq!(tail.acknowledged(7), 5, "the server has more than this agent has sent");
    }
}
