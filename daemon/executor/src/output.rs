//! What one task prints on its way out: masked, cut to the task's limit (its head and its tail), in chunks.
//! Knows nothing of files: where chunks go is the caller's `emit`.

use std::collections::VecDeque;

use lockstep_apis::v1alpha::{OutputChunk, OutputStream};

use crate::masking::{self, Masker};

/// What a task may print if its work does not say.
pub const DEFAULT_LIMIT_BYTES: u64 = 1024 * 1024;

/// Longest chunk: a frame, and a part of a message on the wire.
const LONGEST_CHUNK: usize = 64 * 1024;

/// The output of one task.
///
/// Guarantees: at most the limit is given on, the first half of it as it comes; of what is longer the last half at the
/// end, with the number of bytes left out between. Chunks keep the order in which bytes came, per stream.
#[derive(Debug)]
pub struct TaskOutput {
    task: u32,
    /// Still to be given on as it comes.
    head_left: usize,
    tail_limit: usize,
    tail: VecDeque<(OutputStream, Vec<u8>)>,
    tail_bytes: usize,
    dropped: u64,
    streams: [masking::Stream; 3],
    scratch: Vec<u8>,
}

impl TaskOutput {
    /// Output of the task with this index; a limit of 0 is [`DEFAULT_LIMIT_BYTES`].
    pub fn new(task: u32, limit_bytes: u64) -> Self {
        let limit = if limit_bytes == 0 { DEFAULT_LIMIT_BYTES } else { limit_bytes };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            task,
            head_left: limit - limit / 2,
            tail_limit: limit / 2,
            tail: VecDeque::new(),
            tail_bytes: 0,
            dropped: 0,
            streams: Default::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes bytes; emits the chunks that are certain.
    pub fn push(
        &mut self,
        masker: &Masker,
        stream: OutputStream,
        bytes: &[u8],
        at_ms: u64,
        emit: &mut dyn FnMut(OutputChunk),
    ) {
        if masker.is_empty() {
            self.pass(stream, bytes, at_ms, emit);
            return;
        }
        let mut certain = std::mem::take(&mut self.scratch);
        certain.clear();
        self.streams[slot(stream)].push(masker, bytes, &mut certain);
        self.pass(stream, &certain, at_ms, emit);
        self.scratch = certain;
    }

    /// Emits what is left: held bytes and the tail.
    pub fn finish(mut self, at_ms: u64, emit: &mut dyn FnMut(OutputChunk)) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr, OutputStream::Diff] {
            let mut rest = Vec::new();
            self.streams[slot(stream)].finish(&mut rest);
            self.pass(stream, &rest, at_ms, emit);
        }
        let mut dropped = self.dropped;
        for (stream, data) in std::mem::take(&mut self.tail) {
            emit(OutputChunk { task: self.task, stream: stream as i32, data, at_ms, dropped });
            dropped = 0;
        }
    }

    fn pass(&mut self, stream: OutputStream, bytes: &[u8], at_ms: u64, emit: &mut dyn FnMut(OutputChunk)) {
        let (head, tail) = bytes.split_at(bytes.len().min(self.head_left));
        self.head_left -= head.len();
        for data in head.chunks(LONGEST_CHUNK) {
            emit(OutputChunk { task: self.task, stream: stream as i32, data: data.to_vec(), at_ms, dropped: 0 });
        }
        for data in tail.chunks(LONGEST_CHUNK) {
            self.keep(stream, data);
        }
    }

    /// Puts bytes at the end of the tail and drops from its start what is too much.
    fn keep(&mut self, stream: OutputStream, bytes: &[u8]) {
        match self.tail.back_mut() {
            Some((last, data)) if *last == stream && data.len() + bytes.len() <= LONGEST_CHUNK => {
                data.extend_from_slice(bytes);
            }
            _ => self.tail.push_back((stream, bytes.to_vec())),
        }
        self.tail_bytes += bytes.len();
        while self.tail_bytes > self.tail_limit {
            let Some((_, first)) = self.tail.front_mut() else { break };
            let excess = (self.tail_bytes - self.tail_limit).min(first.len());
            if excess == first.len() {
                self.tail.pop_front();
            } else {
                first.drain(..excess);
            }
            self.tail_bytes -= excess;
            self.dropped += excess as u64;
        }
    }
}

fn slot(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stderr => 1,
        OutputStream::Diff => 2,
        OutputStream::Stdout | OutputStream::Unspecified => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(masker: &Masker, limit: u64, pushes: &[(OutputStream, &[u8])]) -> Vec<OutputChunk> {
        let mut chunks = Vec::new();
        let mut output = TaskOutput::new(3, limit);
        for (stream, bytes) in pushes {
            output.push(masker, *stream, bytes, 1, &mut |chunk| chunks.push(chunk));
        }
        output.finish(2, &mut |chunk| chunks.push(chunk));
        chunks
    }

    fn text(chunks: &[OutputChunk]) -> String {
        chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned()).collect()
    }

    #[test]
    fn short_output_passes_as_it_comes() {
        let chunks = run(&Masker::new(), 100, &[(OutputStream::Stdout, b"a"), (OutputStream::Stderr, b"b")]);
        assert_eq!(chunks.len(), 2);
        assert_eq!((chunks[0].stream(), chunks[1].stream()), (OutputStream::Stdout, OutputStream::Stderr));
        assert_eq!(text(&chunks), "ab");
    }

    #[test]
    fn long_output_keeps_head_and_tail_and_counts_the_rest() {
        let lines: Vec<u8> = (0..10_000u32).flat_map(|n| format!("{n:07}\n").into_bytes()).collect();
        let pushes: Vec<_> = lines.chunks(999).map(|bytes| (OutputStream::Stdout, bytes)).collect();
        let chunks = run(&Masker::new(), 800, &pushes);
        let kept: usize = chunks.iter().map(|chunk| chunk.data.len()).sum();
        let dropped: u64 = chunks.iter().map(|chunk| chunk.dropped).sum();
        assert_eq!(kept, 800);
        assert_eq!(dropped as usize, lines.len() - 800);
        assert!(text(&chunks).starts_with("0000000\n0000001\n"));
        assert!(text(&chunks).ends_with("0009998\n0009999\n"));
    }

    #[test]
    fn memory_is_bounded_by_the_limit() {
        let mut output = TaskOutput::new(0, 1000);
        for _ in 0..10_000 {
            output.push(&Masker::new(), OutputStream::Stdout, &[b'x'; 100], 0, &mut |_| {});
        }
        let held: usize = output.tail.iter().map(|(_, data)| data.len()).sum();
        assert_eq!(held, 500);
        assert_eq!(output.dropped, 1_000_000 - 1000);
    }

    #[test]
    fn secret_is_masked_across_chunks_and_at_the_end() {
        let mut masker = Masker::new();
        masker.add(b"swordfish");
        let pushes = [
            (OutputStream::Stdout, &b"it is sword"[..]),
            (OutputStream::Stderr, b"between"),
            (OutputStream::Stdout, b"fish, sword"),
        ];
        let chunks = run(&masker, 1000, &pushes);
        let stdout: Vec<_> = chunks.into_iter().filter(|chunk| chunk.stream() == OutputStream::Stdout).collect();
        assert_eq!(text(&stdout), "it is ***, sword");
    }
}
