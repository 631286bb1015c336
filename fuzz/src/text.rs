//! Properties of every text that a person reads.

/// Fails unless `text` is whole lines in which nothing moves a terminal's cursor.
pub(crate) fn assert_harmless(text: &str) {
    let harmful = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(harmful, None, "control character in {text:?}");
}
