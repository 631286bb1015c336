//! Reads `.fwknoprc`, as `fwknop` 2.6.10 does (client/config_init.c).

/// The stanza whose directives apply to all others, too.
const DEFAULT: &str = "default";

/// A stanza, with the directives of `[default]` before its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RcStanza {
    pub(super) name: String,
    pub(super) directives: Vec<Directive>,
    /// Lines without a name and a value.
    pub(super) invalid: Vec<usize>,
}

/// A line with a name and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: String,
}

impl RcStanza {
    /// Returns whether its directives apply to all others, too.
    pub(super) fn is_default(&self) -> bool {
        self.name.eq_ignore_ascii_case(DEFAULT)
    }

    /// Returns the directive that is in effect: the last one with a name.
    pub(super) fn last(&self, name: &str) -> Option<&Directive> {
        self.directives
            .iter()
            .rev()
            .find(|directive| directive.name == name)
    }
}

/// Returns the stanzas in the order of the file.
pub(super) fn stanzas(text: &str) -> Vec<RcStanza> {
    let mut stanzas: Vec<RcStanza> = Vec::new();
    let mut current = DEFAULT.to_owned();
    // Editors of other systems begin a file with this mark.
    let text = text.trim_start_matches('\u{feff}');
    for (line, text) in (1..).zip(text.lines()) {
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = header(text) {
            current = name.to_owned();
            stanza(&mut stanzas, &current);
            continue;
        }
        let stanza = stanza(&mut stanzas, &current);
        match directive(text) {
            Some((name, value)) => stanza.directives.push(Directive {
                line,
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            None if text.trim().is_empty() => {}
            None => stanza.invalid.push(line),
        }
    }
    let default = stanzas
        .iter()
        .find(|stanza| stanza.is_default())
        .cloned()
        .unwrap_or_default();
    for stanza in stanzas.iter_mut().filter(|stanza| !stanza.is_default()) {
        stanza.directives.splice(0..0, default.directives.clone());
    }
    stanzas
}

/// Returns the stanza with a name; stanzas with the same name are one.
fn stanza<'a>(stanzas: &'a mut Vec<RcStanza>, name: &str) -> &'a mut RcStanza {
    let place = stanzas.iter().position(|stanza| stanza.name == name);
    let place = place.unwrap_or_else(|| {
        stanzas.push(RcStanza {
            name: name.to_owned(),
            ..RcStanza::default()
        });
        stanzas.len() - 1
    });
    &mut stanzas[place]
}

fn header(line: &str) -> Option<&str> {
    let (name, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    Some(name)
}

/// Returns name and value: a name ends with a blank, and at its last colon; a value at a blank, `;` or `#`.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line
        .trim_start()
        .split_once(|c: char| c.is_ascii_whitespace())?;
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    let value = rest.trim_start();
    let value = value
        .split([' ', ';', '\t', '#'])
        .next()
        .unwrap_or_default();
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_read_as_fwknop_reads_them() {
        let text = "\u{feff}USE_HMAC Y\n# SPA_SERVER a\n;x\n\n[default]\nFW_TIMEOUT 60\n  [home] # mine\nSPA_SERVER:  h.example;\n\
                    SPA_SERVER_PORT\t4000 # udp\nKEY_BASE64\n[Default]\n[home]\nFW_TIMEOUT 90\n";
        let stanzas = stanzas(text);
        let names: Vec<_> = stanzas.iter().map(|stanza| stanza.name.as_str()).collect();
        assert_eq!(names, ["default", "home", "Default"]);
        let home = &stanzas[1];
        let words: Vec<_> = home
            .directives
            .iter()
            .map(|directive| format!("{} {}={}", directive.line, directive.name, directive.value))
            .collect();
        assert_eq!(
            words,
            [
                "1 USE_HMAC=Y",
                "6 FW_TIMEOUT=60",
                "8 SPA_SERVER=h.example",
                "9 SPA_SERVER_PORT=4000",
                "13 FW_TIMEOUT=90",
            ]
        );
        assert_eq!(
            home.last("FW_TIMEOUT").map(|directive| directive.line),
            Some(13)
        );
        assert_eq!(home.invalid, [10]);
    }
}
