//! A line of text that is edited with keys.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The longest text, in characters.
const MOST: usize = 200;

/// A text whose end is edited.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct EditLine(pub(super) String);

/// The effect of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Edited {
    /// The text is not complete.
    Continues,
    /// Enter.
    Done,
    /// Escape, or Ctrl-C.
    Cancelled,
}

impl EditLine {
    /// Takes a key.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum of the library has keys that do nothing here"
    )]
    pub(super) fn key(&mut self, key: KeyEvent) -> Edited {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Edited::Done,
            KeyCode::Esc => return Edited::Cancelled,
            KeyCode::Char('c') if is_control => return Edited::Cancelled,
            KeyCode::Char('u') if is_control => self.0.clear(),
            KeyCode::Backspace => {
                self.0.pop();
            }
            KeyCode::Char(letter) if !is_control && self.0.chars().count() < MOST => {
                self.0.push(letter);
            }
            _ => {}
        }
        Edited::Continues
    }
}
