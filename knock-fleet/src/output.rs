//! The lines to the daemon: bounded, and sent in the order in which they were added.

use std::cell::{Cell, RefCell};

use knock_wire::{Full, Queue, Report, to_line};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
};

/// About this many octets are written at a time.
const CHUNK: usize = 1 << 16;

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Output {
    waiting: RefCell<Queue<Report>>,
    /// Whether lines that left the queue are being written.
    is_writing: Cell<bool>,
    added: Notify,
    sent: Notify,
}

impl Output {
    /// Adds a report that may replace an older one, or that can be left out.
    ///
    /// # Errors
    /// The daemon does not read its lines; the report was not added.
    pub(crate) fn offer(&self, report: Report) -> Result<(), Full> {
        self.waiting.borrow_mut().push(report)?;
        self.added.notify_one();
        Ok(())
    }

    /// Adds a report that must not be lost, when there is room.
    pub(crate) async fn send(&self, report: Report) {
        loop {
            let sent = self.sent.notified();
            if self.offer(report.clone()).is_ok() {
                return;
            }
            sent.await;
        }
    }

    /// Waits until everything was written.
    pub(crate) async fn drained(&self) {
        loop {
            let sent = self.sent.notified();
            if self.waiting.borrow().is_empty() && !self.is_writing.get() {
                return;
            }
            sent.await;
        }
    }

    /// Writes what is added, until the daemon no longer reads.
    ///
    /// # Errors
    /// It closed its end.
    pub(crate) async fn write(&self, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut chunk = Vec::new();
        loop {
            let added = self.added.notified();
            while chunk.len() < CHUNK {
                let Some(report) = self.waiting.borrow_mut().pop() else {
                    break;
                };
                // Records have less than a line (`engine/record.rs`), and so have our own texts.
                if let Ok(line) = to_line(&report) {
                    chunk.extend_from_slice(line.as_bytes());
                }
            }
            if chunk.is_empty() {
                added.await;
                continue;
            }
            self.is_writing.set(true);
            self.sent.notify_waiters();
            to.write_all(&chunk).await?;
            chunk.clear();
            self.is_writing.set(false);
            self.sent.notify_waiters();
        }
    }
}
