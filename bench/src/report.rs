//! Tables of figures: all of them with goals for developers, and those of peers for the documentation.

mod goal;

use std::fmt::Write as _;

pub use self::goal::{Goal, Unit};

/// The figure of a peer for the same measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerFigure {
    /// The name of the peer.
    pub whose: String,
    /// The figure, or the reason for its absence.
    pub figure: Result<f64, String>,
}

/// One measurement: knock-user's figure, its goals, and the figures of peers.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure of knock-user.
    pub ours: f64,
    /// The unit of the figures.
    pub unit: Unit,
    /// The goals for the figure.
    pub goals: Vec<Goal>,
    /// The figures of peers.
    pub beside: Vec<PeerFigure>,
}

impl Row {
    /// Creates a row without goals and peers.
    pub fn new(what: impl Into<String>, ours: f64, unit: Unit) -> Self {
        Self {
            what: what.into(),
            ours,
            unit,
            goals: Vec::new(),
            beside: Vec::new(),
        }
    }

    /// Adds a goal.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// Adds the figure of a peer.
    #[must_use]
    pub fn beside(self, whose: impl Into<String>, figure: f64) -> Self {
        self.beside_or(whose, Ok(figure))
    }

    /// Adds the figure of a peer, or the reason for its absence.
    #[must_use]
    pub fn beside_or(mut self, whose: impl Into<String>, figure: Result<f64, String>) -> Self {
        self.beside.push(PeerFigure {
            whose: whose.into(),
            figure,
        });
        self
    }

    /// Returns the cells of the page; a peer without a figure has none.
    fn page(&self, peers: &[&str]) -> Vec<String> {
        let figure = |peer: &&str| {
            let beside = self.beside.iter().find(|beside| beside.whose == *peer);
            match beside.map(|beside| &beside.figure) {
                Some(Ok(figure)) => self.unit.show(*figure),
                Some(Err(why)) => why.clone(),
                None => String::new(),
            }
        };
        [self.what.clone(), self.unit.show(self.ours)]
            .into_iter()
            .chain(peers.iter().map(figure))
            .collect()
    }

    fn cells(&self) -> [String; 4] {
        let joined = |texts: Vec<String>| texts.join(", ");
        let goals = self.goals.iter().map(Goal::to_string).collect();
        let beside = self.beside.iter().map(|beside| match &beside.figure {
            Ok(figure) => format!("{} {}", beside.whose, self.unit.show(*figure)),
            Err(why) => format!("{} ({why})", beside.whose),
        });
        [
            self.what.clone(),
            self.unit.show(self.ours),
            joined(goals),
            joined(beside.collect()),
        ]
    }
}

/// Rows that were measured in the same way.
#[derive(Clone, Debug)]
pub struct ReportSection {
    /// The title.
    pub title: &'static str,
    /// The method of measurement.
    pub method: String,
    /// The rows.
    pub rows: Vec<Row>,
}

impl ReportSection {
    fn page(&self) -> String {
        let mut peers: Vec<&str> = Vec::new();
        for beside in self.rows.iter().flat_map(|row| &row.beside) {
            if !peers.contains(&beside.whose.as_str()) {
                peers.push(&beside.whose);
            }
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head = ["what", "knock-user"]
            .into_iter()
            .chain(peers.iter().copied());
        let head: Vec<String> = head.map(str::to_owned).collect();
        let rows: String = self
            .rows
            .iter()
            .map(|row| line(&row.page(&peers)))
            .collect();
        format!(
            "\n## {}\n\n{}\n\n{}|---|{}\n{rows}",
            self.title,
            wrapped(&self.method),
            line(&head),
            "--:|".repeat(head.len() - 1),
        )
    }
}

/// Breaks a paragraph into lines of at most 118 characters.
fn wrapped(text: &str) -> String {
    const COLUMNS: usize = 118;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
                continue;
            }
            if line.chars().count() + 1 + word.chars().count() <= COLUMNS {
                line.extend([" ", word]);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines.join("\n")
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub struct BenchReport {
    /// The sections.
    pub sections: Vec<ReportSection>,
}

impl BenchReport {
    /// Returns the row of a section whose name begins with a text.
    pub fn row(&self, title: &str, what: &str) -> Option<&Row> {
        let section = self
            .sections
            .iter()
            .find(|section| section.title == title)?;
        section.rows.iter().find(|row| row.what.starts_with(what))
    }

    /// Returns how many goals are met, and how many there are.
    pub fn goals(&self) -> (usize, usize) {
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        let goals: Vec<&Goal> = rows.flat_map(|row| &row.goals).collect();
        let met = goals.iter().filter(|goal| goal.is_met()).count();
        (met, goals.len())
    }

    /// Returns the sections for docs/performance/figures.md: the figures of each peer in a column,
    /// without goals.
    pub fn page(&self) -> String {
        self.sections.iter().map(ReportSection::page).collect()
    }

    /// Returns all figures with their goals, in Markdown that also reads well in a terminal.
    pub fn table(&self) -> String {
        const HEAD: [&str; 4] = ["what", "knock-user", "goal", "peers"];
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        let cells: Vec<[String; 4]> = rows.map(Row::cells).collect();
        let width = |column: usize| {
            let texts = cells.iter().map(|row| row[column].chars().count());
            texts.chain([HEAD[column].len()]).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        let line = |cells: [&str; 4]| {
            let [what, ours, goal, beside] = cells;
            let [a, b, c] = widths;
            format!("| {what:<a$} | {ours:>b$} | {goal:<c$} | {beside} |\n")
        };
        let mut text = String::new();
        let mut next = cells.iter();
        for section in &self.sections {
            // Writing to a String does not fail.
            let _written = write!(text, "\n### {}\n\n{}\n\n", section.title, section.method);
            text += &line(HEAD);
            let rule = widths.map(|width| "-".repeat(width));
            text += &line([&rule[0], &rule[1], &rule[2], "---"]);
            for [what, ours, goal, beside] in next.by_ref().take(section.rows.len()) {
                text += &line([what, ours, goal, beside]);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_say_whether_they_are_met() {
        for (goal, text) in [
            (Goal::at_most(1.3, 1.4, Unit::Times), "1.30× ≤ 1.40× ok"),
            (
                Goal::at_most(36.0, 35.0, Unit::Nanos),
                "36.0 ns ≤ 35.0 ns MISSED",
            ),
            (Goal::at_least(20.0, 20.0, Unit::Count), "20 ≥ 20 ok"),
            (
                Goal::at_least(f64::NAN, 20.0, Unit::Count),
                "NaN ≥ 20 MISSED",
            ),
        ] {
            assert_eq!(goal.to_string(), text);
        }
    }

    #[test]
    fn a_table_has_what_is_beside_and_what_is_missing() {
        let row = Row::new("a packet", 28.25, Unit::Nanos)
            .goal(Goal::at_most(1.3, 1.4, Unit::Times))
            .beside("empty", 21.5)
            .beside_or("knockd", Err("not installed".into()));
        let report = BenchReport {
            sections: vec![ReportSection {
                title: "per packet",
                method: "How.".into(),
                rows: vec![row],
            }],
        };
        let table = report.table();
        let last = table.lines().last();
        assert_eq!(
            last,
            Some(
                "| a packet |    28.2 ns | 1.30× ≤ 1.40× ok | empty 21.5 ns, knockd (not installed) |"
            )
        );
        assert_eq!(report.goals(), (1, 1));
    }

    #[test]
    fn the_page_has_a_column_for_each_peer_and_no_goals() {
        let rows = vec![
            Row::new("a packet", 28.25, Unit::Nanos)
                .goal(Goal::at_most(9.0, 1.4, Unit::Times))
                .beside("empty", 21.5)
                .beside_or("knockd", Err("not installed".into())),
            Row::new("another", 3.0, Unit::Nanos),
        ];
        let report = BenchReport {
            sections: vec![ReportSection {
                title: "packets",
                method: "word ".repeat(30).trim_end().to_owned(),
                rows,
            }],
        };
        let (first, second) = ("word ".repeat(23), "word ".repeat(7));
        let expected = format!(
            "\n## packets\n\n{}\n{}\n\n\
             | what | knock-user | empty | knockd |\n\
             |---|--:|--:|--:|\n\
             | a packet | 28.2 ns | 21.5 ns | not installed |\n\
             | another | 3.0 ns |  |  |\n",
            first.trim_end(),
            second.trim_end()
        );
        assert_eq!(report.page(), expected);
    }
}
