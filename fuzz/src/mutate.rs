//! Deterministic mutations of a corpus: the same seed makes the same inputs with every build.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// No input grows longer: bytes.
const LONGEST: usize = 8 << 10;
/// Changes to one input.
const CHANGES_MOST: usize = 4;
/// Numbers at the limits of ranges and types.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'\n'];

/// Makes inputs out of others.
#[derive(Debug)]
pub struct Mutator<'c> {
    random: StdRng,
    corpus: &'c [Vec<u8>],
    words: &'c [Vec<u8>],
}

impl<'c> Mutator<'c> {
    /// Mutations of the inputs in `corpus`, into which `words` are put now and then.
    pub fn new(seed: u64, corpus: &'c [Vec<u8>], words: &'c [Vec<u8>]) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            corpus,
            words,
        }
    }

    /// Returns the next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut bytes = self.other();
        for _ in 0..self.random.random_range(1..=CHANGES_MOST) {
            self.change(&mut bytes);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    /// Returns an input of the corpus.
    fn other(&mut self) -> Vec<u8> {
        let other = self.corpus.choose(&mut self.random);
        other.cloned().unwrap_or_default()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.place(bytes.len());
        match self.random.random_range(0..9) {
            0 => flip(bytes, at, 1 << self.random.random_range(0..8)),
            1 => replace(bytes, at, &[self.random.random()]),
            2 => {
                let edge = EDGES.choose(&mut self.random);
                replace(bytes, at, &[edge.copied().unwrap_or_default()]);
            }
            3 => {
                let end = at + self.length(bytes.len() - at);
                bytes.drain(at..end);
            }
            4 => {
                let end = at + self.length(bytes.len() - at);
                let copy = bytes[at..end].to_vec();
                let to = self.place(bytes.len());
                insert(bytes, to, &copy);
            }
            5 => {
                let other = self.other();
                let from = self.place(other.len());
                let end = from + self.length(other.len() - from);
                insert(bytes, at, &other[from..end]);
            }
            6 => {
                let other = self.other();
                bytes.truncate(at);
                bytes.extend(&other[self.place(other.len())..]);
            }
            7 => {
                let word = self.words.choose(&mut self.random);
                let word = word.cloned().unwrap_or_default();
                match self.random.random() {
                    true => insert(bytes, at, &word),
                    false => replace(bytes, at, &word),
                }
            }
            _ => bytes.truncate(at),
        }
    }

    /// Returns a place in a text of this length, or its end.
    fn place(&mut self, length: usize) -> usize {
        self.random.random_range(0..=length)
    }

    /// Returns a length that is short more often than not.
    fn length(&mut self, most: usize) -> usize {
        let most = match self.random.random_range(0..4) {
            0 => most,
            _ => most.min(16),
        };
        self.random.random_range(0..=most)
    }
}

fn flip(bytes: &mut [u8], at: usize, mask: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
}

fn replace(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *new;
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

/// Returns the words of a dictionary as libFuzzer has them: `"text"` or `name="text"` a line, with `\xAB`, `\\`
/// and `\"`.
///
/// # Errors
/// The number of a line that is none.
pub fn dictionary(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    let mut words = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let quoted = line.find('"').map(|start| &line[start + 1..]);
        let inner = quoted.and_then(|quoted| quoted.strip_suffix('"'));
        words.push(inner.and_then(unescaped).ok_or(number)?);
    }
    Ok(words)
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        let (escaped, behind) = match after.strip_prefix('x') {
            Some(hex) => (u8::from_str_radix(hex.get(..2)?, 16).ok()?, &hex[2..]),
            None => (*after.as_bytes().first()?, after.get(1..)?),
        };
        bytes.push(escaped);
        rest = behind;
    }
    bytes.extend(rest.as_bytes());
    Some(bytes)
}
