//! Follows rules from where packets come in to where they get another port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Reading, Translation, space::Space};

/// Jumps in a row, as many as the kernel follows (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// Rules that are looked at, some of them again for other ports.
const MOST_RULES: usize = 200_000;

/// What a rule does, in this order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The rest is for these ports alone.
    Narrow(Space),
    /// The rest is for packets with a mark, or for ports that are not known.
    Hidden,
    /// One of these, by the port.
    Branch(Vec<(Space, Act)>),
    /// This.
    Do(Act),
}

/// What is done with a packet.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// The rules of another chain are followed.
    Follow(String),
    /// It goes to another address or port.
    Translate {
        /// The address, if it is another.
        to: Option<IpAddr>,
        /// The first and the last port there, if it is another.
        port: Option<(u16, u16)>,
    },
    /// It goes somewhere that can't be read.
    Unread,
}

/// Chains of rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Those in which packets from outside begin.
    pub(super) entries: Vec<String>,
    /// All of them, by a name that also names their table.
    pub(super) chains: BTreeMap<String, Vec<Vec<Step>>>,
}

impl Rules {
    /// Follows them all.
    pub(super) fn follow(&self, reading: &mut Reading) {
        let mut walk = Walk {
            rules: self,
            reading,
            left: MOST_RULES,
            unread: BTreeSet::new(),
        };
        for entry in &self.entries {
            walk.chain(entry, &Space::all(), false, DEPTH);
        }
        if walk.left == 0 {
            walk.unread.insert("there are too many rules".to_owned());
        }
        let unread = walk.unread;
        reading.unread.extend(unread);
    }
}

struct Walk<'r> {
    rules: &'r Rules,
    reading: &'r mut Reading,
    left: usize,
    unread: BTreeSet<String>,
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, ports: &Space, is_hidden: bool, depth: usize) {
        let Some(rules) = self.rules.chains.get(name) else {
            return;
        };
        for rule in rules {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            self.rule(name, rule, ports.clone(), is_hidden, depth);
        }
    }

    fn rule(
        &mut self,
        chain: &str,
        steps: &[Step],
        mut ports: Space,
        mut is_hidden: bool,
        depth: usize,
    ) {
        for step in steps {
            match step {
                Step::Narrow(to) => ports = ports.and(to),
                Step::Hidden => is_hidden = true,
                Step::Branch(ways) => {
                    for (of, act) in ways {
                        self.act(chain, act, &ports.and(of), is_hidden, depth);
                    }
                }
                Step::Do(act) => self.act(chain, act, &ports, is_hidden, depth),
            }
            if ports.is_empty() {
                return;
            }
        }
    }

    fn act(&mut self, chain: &str, act: &Act, ports: &Space, is_hidden: bool, depth: usize) {
        if ports.is_empty() {
            return;
        }
        match act {
            Act::Follow(name) => match depth.checked_sub(1) {
                Some(depth) => self.chain(name, ports, is_hidden, depth),
                None => {
                    self.unread.insert(format!("{chain} jumps too far"));
                }
            },
            Act::Unread => {
                self.unread.insert(format!(
                    "{chain} translates ports in a way that is not understood"
                ));
            }
            Act::Translate { port: Some(_), .. } if is_hidden && ports.is_unbounded() => {
                self.unread.insert(format!(
                    "{chain} translates ports that are chosen elsewhere, such as by a mark"
                ));
            }
            // Whatever they are, they stay the same.
            Act::Translate { port: None, .. } if is_hidden && ports.is_unbounded() => {}
            &Act::Translate { to, port } => {
                let translations = ports.ranges().map(|from| Translation { from, to, port });
                self.reading.translations.extend(translations);
            }
        }
    }
}
