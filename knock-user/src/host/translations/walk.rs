//! Follows rules from the first chain of a packet to the translations of its port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    reading::{Reading, Translation},
    space::Space,
};

/// The most nested jumps, as in the kernel (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// The most rules that are evaluated, counting each time that one is evaluated for other ports.
const MOST_RULES: usize = 200_000;

/// A step of a rule.
#[derive(Clone, Debug)]
pub(super) enum RuleStep {
    /// Limits the following steps to these ports.
    Narrow(Space),
    /// Limits the following steps to packets with a mark, or to unknown ports.
    Hidden,
    /// Does one of these, by the port.
    Branch(Vec<(Space, RuleAction)>),
    /// Does this.
    Do(RuleAction),
}

/// An action on a packet.
#[derive(Clone, Debug)]
pub(super) enum RuleAction {
    /// Continues with the rules of another chain.
    Follow(String),
    /// Sends it to another address or port.
    Translate {
        /// The new address, if it changes.
        to: Option<IpAddr>,
        /// The first and the last new port, if the port changes.
        port: Option<(u16, u16)>,
    },
    /// Sends it to a target that can't be read.
    Unread,
}

/// Chains of rules.
#[derive(Debug, Default)]
pub(super) struct TranslationRules {
    /// The chains that packets from outside enter first.
    pub(super) entries: Vec<String>,
    /// All chains, by a name that includes their table.
    pub(super) chains: BTreeMap<String, Vec<Vec<RuleStep>>>,
}

impl TranslationRules {
    /// Follows all rules.
    pub(super) fn follow(&self, reading: &mut Reading) {
        let mut walk = RuleWalk {
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

struct RuleWalk<'r> {
    rules: &'r TranslationRules,
    reading: &'r mut Reading,
    left: usize,
    unread: BTreeSet<String>,
}

impl RuleWalk<'_> {
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
        steps: &[RuleStep],
        mut ports: Space,
        mut is_hidden: bool,
        depth: usize,
    ) {
        for step in steps {
            match step {
                RuleStep::Narrow(to) => ports = ports.and(to),
                RuleStep::Hidden => is_hidden = true,
                RuleStep::Branch(ways) => {
                    for (of, act) in ways {
                        self.act(chain, act, &ports.and(of), is_hidden, depth);
                    }
                }
                RuleStep::Do(act) => self.act(chain, act, &ports, is_hidden, depth),
            }
            if ports.is_empty() {
                return;
            }
        }
    }

    fn act(&mut self, chain: &str, act: &RuleAction, ports: &Space, is_hidden: bool, depth: usize) {
        if ports.is_empty() {
            return;
        }
        match act {
            RuleAction::Follow(name) => match depth.checked_sub(1) {
                Some(depth) => self.chain(name, ports, is_hidden, depth),
                None => {
                    self.unread
                        .insert(format!("{chain} nests more than {DEPTH} jumps"));
                }
            },
            RuleAction::Unread => {
                self.unread.insert(format!(
                    "{chain} translates ports in a way that is not understood"
                ));
            }
            RuleAction::Translate { port: Some(_), .. } if is_hidden && ports.is_unbounded() => {
                self.unread.insert(format!(
                    "{chain} translates ports that are chosen elsewhere, such as by a mark"
                ));
            }
            // Ports without a translation stay the same.
            RuleAction::Translate { port: None, .. } if is_hidden && ports.is_unbounded() => {}
            &RuleAction::Translate { to, port } => {
                let translations = ports.ranges().map(|from| Translation { from, to, port });
                self.reading.translations.extend(translations);
            }
        }
    }
}
