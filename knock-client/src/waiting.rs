//! Prints what the program waits for, once it has waited for a second.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// How long a wait remains without a text. A person notices a longer one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints from a thread of its own, because the others wait.
#[derive(Debug)]
pub struct Waiting {
    texts: Sender<Option<String>>,
}

impl Waiting {
    /// Starts the thread; `print` receives the text of each wait that lasts for a second.
    pub fn new(print: impl FnMut(&str) + Send + 'static) -> Self {
        Self::with_patience(PATIENCE, print)
    }

    fn with_patience(patience: Duration, mut print: impl FnMut(&str) + Send + 'static) -> Self {
        let (texts, received) = mpsc::channel::<Option<String>>();
        thread::spawn(move || {
            let mut next = received.recv();
            while let Ok(current) = next {
                next = match current {
                    None => received.recv(),
                    Some(text) => match received.recv_timeout(patience) {
                        Ok(other) => Ok(other),
                        Err(RecvTimeoutError::Timeout) => {
                            print(&text);
                            received.recv()
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    },
                };
            }
        });
        Self { texts }
    }

    /// Names what the program waits for from now on; `None` ends a wait.
    pub(crate) fn set(&self, text: Option<String>) {
        // The thread ends only after this value.
        let _sent = self.texts.send(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_wait_is_printed() {
        // Nothing else ends such a wait.
        let (printed, texts) = mpsc::channel();
        let waiting = Waiting::with_patience(Duration::from_millis(50), move |text: &str| {
            printed.send(text.to_owned()).expect("the test waits");
        });
        waiting.set(Some("one".to_owned()));
        assert_eq!(texts.recv().as_deref(), Ok("one"));

        let (printed, texts) = mpsc::channel();
        let waiting = Waiting::with_patience(Duration::from_secs(3600), move |text: &str| {
            printed.send(text.to_owned()).expect("the test waits");
        });
        waiting.set(Some("another".to_owned()));
        waiting.set(None);
        waiting.set(Some("a third".to_owned()));
        drop(waiting);
        assert!(
            texts.recv().is_err(),
            "the thread has ended and printed nothing"
        );
    }
}
