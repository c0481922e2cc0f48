//! From full blocks to sealed ones: on the thread that appends, or on others beside it; written in order either way.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use domicile::engine::TAG_BYTES;
use domicile::{Code, Error, Result};

use super::open_block::OpenBlock;
use crate::block_buffer::BlockBuffer;
use crate::compression::Packer;
use crate::format::{Arrivals, Compression, DataSummary, TimeSpan};
use crate::seal::BlockSealer;

/// A data block that has its place in its lane and its file, and needs nothing of the writer any longer to be sealed.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) lane: usize,
    pub(super) sealer: BlockSealer,
    pub(super) block: OpenBlock,
    pub(super) compression: Compression,
    pub(super) first_record: u64,
    pub(super) whole_records: u64,
    pub(super) has_times: bool,
    /// When it is sealed: what a block without event times is selected by.
    pub(super) sealed_at: i64,
    /// What the lane has counted for it while it waits.
    pub(super) payload_bytes: usize,
}

/// A data block as it is written, and what its lane's index keeps of it.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) lane: usize,
    pub(super) sequence: u32,
    block: OpenBlock,
    /// What is written in place of the block's own octets, where the lane is compressed.
    packed: Option<BlockBuffer>,
    pub(super) tag: [u8; TAG_BYTES],
    pub(super) first_record: u64,
    pub(super) whole_records: u64,
    pub(super) lowest_arrival: i64,
    pub(super) span: TimeSpan,
    pub(super) payload_bytes: usize,
}

impl Unsealed {
    /// Completes the payload with the arrays beside its records, compresses it where the lane says so, and seals it.
    pub(super) fn seal(self, packer: &mut Packer) -> Result<Sealed> {
        let Self { lane, sealer, mut block, first_record, whole_records, payload_bytes, .. } = self;
        let (arrivals, lowest_arrival) = arrivals_of(&block.arrivals);
        let spans = block.times.iter().copied().map(TimeSpan::at);
        let summary = DataSummary {
            // At most 16 MiB of offsets, so less than 2^24 records.
            count: u32::try_from(block.ends.len()).unwrap_or(u32::MAX),
            first_record,
            has_times: self.has_times,
            span: spans.reduce(TimeSpan::with).unwrap_or(TimeSpan::at(self.sealed_at)),
            arrivals,
        };
        let (payload, start) = block.buffer.parts();
        summary.complete(payload, start, &block.ends, &block.times, &block.arrivals);
        let mut packed = match self.compression {
            Compression::None => None,
            _ => Some(packer.compress(block.buffer.payload())?),
        };
        let sequence = sealer.sequence();
        let tag = sealer.seal(packed.as_mut().unwrap_or(&mut block.buffer))?;
        let span = summary.span;
        Ok(Sealed {
            lane,
            sequence,
            block,
            packed,
            tag,
            first_record,
            whole_records,
            lowest_arrival,
            span,
            payload_bytes,
        })
    }
}

impl Sealed {
    /// The octets to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.packed.as_ref().unwrap_or(&self.block.buffer).block()
    }

    /// The memory, for another block.
    pub(super) fn emptied(mut self) -> OpenBlock {
        self.block.clear();
        self.block
    }
}

/// How a block keeps its arrival numbers: not at all while they count up, so that a file sealed into one
/// lane pays nothing for its order.
fn arrivals_of(arrivals: &[i64]) -> (Arrivals, i64) {
    let Some(first) = arrivals.first() else { return (Arrivals::None, 0) };
    if arrivals.windows(2).all(|pair| matches!(pair, [left, right] if left.checked_add(1) == Some(*right))) {
        (Arrivals::From(*first), *first)
    } else {
        (Arrivals::Each, arrivals.iter().copied().min().unwrap_or(*first))
    }
}

/// Threads that seal blocks beside those that append. Cheap to clone; clones are one, and any number of writers may share it.
/// The threads end with the last clone.
///
/// It pays where few threads append and there are cores to spare. Blocks are written in the order in which they filled, whoever
/// sealed them; where the threads are behind, whoever appends seals too, so that nobody waits for a thread that is not there.
#[derive(Clone)]
pub struct SealingPool {
    threads: Arc<Threads>,
}

struct Threads {
    jobs: Option<Sender<Job>>,
    running: Vec<JoinHandle<()>>,
}

/// Blocks that are sealed together, and where they go then.
struct Job {
    blocks: Vec<Unsealed>,
    answer: Sender<Result<Vec<Sealed>>>,
}

impl SealingPool {
    /// The most threads of a pool.
    pub const THREADS_MAX: usize = 64;

    /// A pool of so many threads, from 1 to [`THREADS_MAX`](Self::THREADS_MAX).
    ///
    /// # Errors
    /// [`OutputFailed`](Code::OutputFailed) when a thread cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        let (jobs, asked) = unbounded();
        // Made first: where a thread cannot be started, those before it end with this.
        let mut made = Threads { jobs: Some(jobs), running: Vec::new() };
        for _ in 0..threads.clamp(1, Self::THREADS_MAX) {
            let asked = asked.clone();
            let builder = std::thread::Builder::new().name("domicile-seal".to_owned());
            let running = builder
                .spawn(move || seal_jobs(&asked))
                .map_err(|source| Error::output_failed("a thread that seals could not be started", source))?;
            made.running.push(running);
        }
        Ok(Self { threads: Arc::new(made) })
    }

    fn count(&self) -> usize {
        self.threads.running.len()
    }

    /// Hands blocks to the threads, unless enough of them wait there already.
    fn take(&self, blocks: Vec<Unsealed>) -> Result<Receiver<Result<Vec<Sealed>>>, Vec<Unsealed>> {
        let Some(jobs) = self.threads.jobs.as_ref().filter(|jobs| jobs.len() < self.count()) else {
            return Err(blocks);
        };
        let (answer, answered) = bounded(1);
        jobs.send(Job { blocks, answer }).map_err(|unsent| unsent.into_inner().blocks)?;
        Ok(answered)
    }
}

impl fmt::Debug for SealingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingPool").field("threads", &self.count()).finish_non_exhaustive()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.running.drain(..) {
            // Whoever waited for what a thread that panicked had was told.
            let _ = thread.join();
        }
    }
}

fn seal_jobs(asked: &Receiver<Job>) {
    let mut packer = Packer::default();
    while let Ok(Job { blocks, answer }) = asked.recv() {
        let sealed = blocks.into_iter().map(|block| block.seal(&mut packer)).collect();
        // A writer that was dropped wants nothing any longer.
        let _ = answer.send(sealed);
    }
}

/// Blocks between full and written, in order.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    passes: VecDeque<Pass>,
    blocks: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Pass {
    blocks: u64,
    bytes: usize,
    sealed: SealedPass,
}

#[derive(Debug)]
enum SealedPass {
    Here(Vec<Sealed>),
    Elsewhere(Receiver<Result<Vec<Sealed>>>),
}

impl UnderWay {
    /// Blocks that have an ordinal and are not written.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Octets of memory of their payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has blocks sealed: by the pool, or by this thread where the pool is behind.
    pub(super) fn add(
        &mut self,
        blocks: Vec<Unsealed>,
        pool: &SealingPool,
        packer: &mut Packer,
    ) -> Result<()> {
        let (count, bytes) =
            (blocks.len() as u64, blocks.iter().map(|block| block.block.memory()).sum::<usize>());
        let sealed = match pool.take(blocks) {
            Ok(answered) => SealedPass::Elsewhere(answered),
            Err(blocks) => {
                let sealed = blocks.into_iter().map(|block| block.seal(packer)).collect::<Result<_>>()?;
                SealedPass::Here(sealed)
            }
        };
        self.passes.push_back(Pass { blocks: count, bytes, sealed });
        (self.blocks, self.bytes) = (self.blocks + count, self.bytes + bytes);
        Ok(())
    }

    /// The next blocks to be written, if they are sealed; where `waits` or too many are under way, once they are.
    pub(super) fn next(&mut self, waits: bool, pool: &SealingPool) -> Result<Option<Vec<Sealed>>> {
        let waits = waits || self.passes.len() > 4 * pool.count();
        let Some(pass) = self.passes.front_mut() else { return Ok(None) };
        let sealed = match &mut pass.sealed {
            SealedPass::Here(sealed) => std::mem::take(sealed),
            SealedPass::Elsewhere(answered) if waits => answered.recv().map_err(|_| gone())??,
            SealedPass::Elsewhere(answered) => match answered.try_recv() {
                Ok(sealed) => sealed?,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(gone()),
            },
        };
        self.blocks -= pass.blocks;
        self.bytes -= pass.bytes;
        self.passes.pop_front();
        Ok(Some(sealed))
    }
}

/// A thread panicked that had blocks.
#[cold]
fn gone() -> Error {
    Error::new(Code::WriterFailed, "a thread that seals ended with blocks that it had")
}
