//! Parses rules of `nft -j` (libnftables-json(5)).

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::Value;

use super::{
    nft_values::{Part, act, compared, first_address, protocol_of, range, space, text},
    space::Space,
    walk::{RuleAction, RuleStep, TranslationRules},
};

/// The hooks that packets from outside pass before this host accepts them.
const HOOKS: [&str; 2] = ["prerouting", "ingress"];
/// Targets of iptables that change the port of a packet.
const TARGETS: [&str; 3] = ["DNAT", "REDIRECT", "TPROXY"];

/// The result of reading rules.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NftFindings {
    /// Whether there are iptables rules that only `iptables-nft-save` can list.
    pub(super) has_iptables: bool,
}

/// Reads the elements of a set or map: family, table, name.
pub(super) type Elements<'e> = &'e mut dyn FnMut(&str, &str, &str) -> Option<Vec<Value>>;

/// Adds the rules in the output of `nft -j list ruleset`.
pub(super) fn take(
    list: &Value,
    elements: Elements<'_>,
    rules: &mut TranslationRules,
) -> NftFindings {
    let objects = list["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let mut taken = NftFindings::default();
    let mut known = BTreeMap::new();
    for object in objects {
        if let Some(chain) = object.get("chain")
            && chain["hook"]
                .as_str()
                .is_some_and(|hook| HOOKS.contains(&hook))
        {
            let place = TableName::of(chain);
            rules.entries.push(place.chain(text(&chain["name"])));
        } else if let Some(rule) = object.get("rule") {
            let mut reader = RulesetReader {
                place: TableName::of(rule),
                elements: &mut *elements,
                known: &mut known,
                taken: &mut taken,
            };
            let steps = reader.steps(&rule["expr"]);
            let chain = reader.place.chain(text(&rule["chain"]));
            rules.chains.entry(chain).or_default().push(steps);
        }
    }
    taken
}

/// The place of a rule.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct TableName {
    family: String,
    table: String,
}

impl TableName {
    fn of(object: &Value) -> Self {
        Self {
            family: text(&object["family"]).to_owned(),
            table: text(&object["table"]).to_owned(),
        }
    }

    fn chain(&self, name: &str) -> String {
        format!("chain {name} of table {} {} (nft)", self.family, self.table)
    }
}

struct RulesetReader<'r> {
    place: TableName,
    elements: Elements<'r>,
    known: &'r mut BTreeMap<(TableName, String), Option<Vec<Value>>>,
    taken: &'r mut NftFindings,
}

impl RulesetReader<'_> {
    fn steps(&mut self, expressions: &Value) -> Vec<RuleStep> {
        let all = expressions.as_array().map_or(&[][..], Vec::as_slice);
        all.iter().flat_map(|one| self.statement(one)).collect()
    }

    fn statement(&mut self, statement: &Value) -> Vec<RuleStep> {
        let Some((kind, body)) = statement.as_object().and_then(|one| one.iter().next()) else {
            return Vec::new();
        };
        match kind.as_str() {
            "match" => self.condition(body),
            "jump" | "goto" => vec![RuleStep::Do(self.follow(body))],
            "vmap" => {
                let Some(ways) = self.mapped(body) else {
                    return vec![RuleStep::Do(RuleAction::Unread)];
                };
                let ways = ways.into_iter().map(|(space, verdict)| {
                    let target = verdict.get("jump").or(verdict.get("goto"));
                    let act = target.map(|target| self.follow(target));
                    act.map(|act| (space, act))
                });
                vec![RuleStep::Branch(ways.flatten().collect())]
            }
            "dnat" | "redirect" | "tproxy" => self.translation(body),
            "mangle" if self.part(&body["key"]) == Part::Other => Vec::new(),
            "mangle" => match self.part(&body["key"]) {
                Part::Port(_) => self.ports(&body["value"], None),
                Part::Protocol | Part::Other | Part::Hidden => vec![],
            },
            "xt" => {
                let name = text(&body["name"]);
                let is_target = text(&body["type"]) == "target" && TARGETS.contains(&name);
                // Old releases print no name.
                self.taken.has_iptables |= is_target || body.is_null();
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn follow(&self, target: &Value) -> RuleAction {
        RuleAction::Follow(self.place.chain(text(&target["target"])))
    }

    fn condition(&mut self, body: &Value) -> Vec<RuleStep> {
        let key = self.key(&body["left"]);
        if key.iter().all(|part| *part == Part::Other) {
            return Vec::new();
        }
        let right = match self.listed(&body["right"]) {
            Some(right) => right,
            None => return vec![RuleStep::Hidden],
        };
        let spaces = right.iter().map(|value| space(&key, value));
        let Some(spaces) = spaces.collect::<Option<Vec<_>>>() else {
            return vec![RuleStep::Hidden];
        };
        let space = spaces.into_iter().fold(Space::none(), Space::or);
        let space = match text(&body["op"]) {
            "==" | "in" | "" => space,
            // Other parts of the key do not limit ports.
            "!=" if key.len() == 1 => protocol_of(&key).and(&space.inverted()),
            "<" | "<=" | ">" | ">=" => match compared(&key, &body["op"], &right) {
                Some(space) => space,
                None => return vec![RuleStep::Hidden],
            },
            "!=" => return Vec::new(),
            _ => return vec![RuleStep::Hidden],
        };
        vec![RuleStep::Narrow(space)]
    }

    /// Parses `{"addr": …, "port": …}`, each of which may be a map.
    fn translation(&mut self, body: &Value) -> Vec<RuleStep> {
        let (address, port) = (&body["addr"], &body["port"]);
        if let Some(map) = address.get("map") {
            let Some(ways) = self.mapped(map) else {
                return vec![RuleStep::Do(RuleAction::Unread)];
            };
            let mut steps = Vec::new();
            let plain = ways.into_iter().map(|(space, value)| {
                // The value is an address, or an address and a port.
                let act = match value["concat"].as_array().map(Vec::as_slice) {
                    Some([to, port]) => act(to, port),
                    Some(_) => RuleAction::Unread,
                    None if port.get("map").is_some() => act(&value, &Value::Null),
                    None => act(&value, port),
                };
                (space, act)
            });
            steps.push(RuleStep::Branch(plain.collect()));
            if port.get("map").is_some() {
                steps.extend(self.ports(port, None));
            }
            return steps;
        }
        let to = first_address(address);
        if to.is_none() && !address.is_null() {
            return vec![RuleStep::Do(RuleAction::Unread)];
        }
        self.ports(port, to)
    }

    /// Parses a new port, which may come from a map.
    fn ports(&mut self, port: &Value, to: Option<IpAddr>) -> Vec<RuleStep> {
        let Some(map) = port.get("map") else {
            let act = match (port, range(port)) {
                (Value::Null, _) => RuleAction::Translate { to, port: None },
                (_, Some(port)) => RuleAction::Translate {
                    to,
                    port: Some(port),
                },
                (_, None) => RuleAction::Unread,
            };
            return vec![RuleStep::Do(act)];
        };
        let Some(ways) = self.mapped(map) else {
            return vec![RuleStep::Do(RuleAction::Unread)];
        };
        let ways = ways.into_iter().map(|(space, value)| {
            let act = match range(&value) {
                Some(port) => RuleAction::Translate {
                    to,
                    port: Some(port),
                },
                None => RuleAction::Unread,
            };
            (space, act)
        });
        vec![RuleStep::Branch(ways.collect())]
    }

    /// Returns the elements of a map: the ports of each key, and its value.
    fn mapped(&mut self, map: &Value) -> Option<Vec<(Space, Value)>> {
        let key = self.key(&map["key"]);
        let elements = self.listed(&map["data"])?;
        let each = elements.iter().map(|element| {
            let pair = element.as_array()?;
            let [found, value] = pair.as_slice() else {
                return None;
            };
            Some((space(&key, found)?, value.clone()))
        });
        each.collect()
    }

    /// Returns the elements of a set or map, which may be named, or the value itself.
    fn listed(&mut self, value: &Value) -> Option<Vec<Value>> {
        if let Some(set) = value.get("set") {
            let elements = set.as_array().cloned();
            return Some(elements.unwrap_or_else(|| vec![set.clone()]));
        }
        let Some(name) = value.as_str().and_then(|name| name.strip_prefix('@')) else {
            return Some(vec![value.clone()]);
        };
        let known = (self.place.clone(), name.to_owned());
        if let Some(elements) = self.known.get(&known) {
            return elements.clone();
        }
        let elements = (self.elements)(&self.place.family, &self.place.table, name);
        self.known.insert(known, elements.clone());
        elements
    }

    fn key(&self, key: &Value) -> Vec<Part> {
        match key["concat"].as_array() {
            Some(parts) => parts.iter().map(|part| self.part(part)).collect(),
            None => vec![self.part(key)],
        }
    }

    fn part(&self, part: &Value) -> Part {
        if let Some(payload) = part.get("payload") {
            return match (text(&payload["protocol"]), text(&payload["field"])) {
                ("tcp", "dport") => Part::Port(Some(6)),
                ("udp", "dport") => Part::Port(Some(17)),
                ("th", "dport") => Part::Port(None),
                // Other protocols with ports.
                (_, "dport") => Part::Other,
                ("ip", "protocol") | ("ip6", "nexthdr") => Part::Protocol,
                // Raw bytes.
                ("", "") => Part::Hidden,
                _ => Part::Other,
            };
        }
        match part["meta"]["key"].as_str().or(part["ct"]["key"].as_str()) {
            Some("l4proto") => Part::Protocol,
            Some("mark" | "proto-dst" | "original proto-dst") => Part::Hidden,
            // A part of a port, such as its upper bits.
            None if ["&", "|", "^", "<<", ">>"]
                .iter()
                .any(|op| part.get(op).is_some()) =>
            {
                Part::Hidden
            }
            Some(_) | None => Part::Other,
        }
    }
}
