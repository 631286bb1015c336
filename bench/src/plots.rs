//! Draws the figures of a report as SVG.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    drop_cost, growth,
    machine::MachineInfo,
    open, packet,
    report::{BenchReport, Row, Unit},
};

const WIDTH: u32 = 820;
/// The horizontal position of the bars, behind their names.
const LEFT: i32 = 300;
const RIGHT: i32 = 110;
const TOP: i32 = 62;
const BAR: i32 = 26;
const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb2);
const THEIRS: RGBColor = RGBColor(0xb9, 0xb9, 0xb9);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x77, 0x77, 0x77);
const LINES: [RGBColor; 5] = [
    RGBColor(0x1f, 0x6f, 0xb2),
    RGBColor(0xc8, 0x55, 0x1b),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0x8a, 0x4f, 0xa3),
    RGBColor(0x55, 0x55, 0x55),
];

/// A bar with its name.
#[derive(Clone, Debug)]
struct Bar {
    name: String,
    value: f64,
    is_ours: bool,
}

impl Bar {
    fn ours(name: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            is_ours: true,
        }
    }
}

/// The relation of the length of a bar to its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum BarScale {
    Linear,
    Logarithmic,
}

/// The contents of a bar chart.
struct Chart<'a> {
    title: &'a str,
    unit: Unit,
    scale: BarScale,
    bars: Vec<Bar>,
}

/// Draws every chart for which the report has the figures, and writes the report's table beside them.
///
/// # Errors
/// A file can't be written.
pub fn draw(report: &BenchReport, machine: &MachineInfo, directory: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let mut drawn = Vec::new();
    let mut bars = |name: &str, picture: Option<Chart<'_>>| -> Result<()> {
        if let Some(picture) = picture {
            draw_bars(&directory.join(name), &picture, machine)?;
            drawn.push(name.to_owned());
        }
        Ok(())
    };
    bars("flood.svg", flood(report))?;
    bars("packet.svg", packets(report))?;
    bars("open.svg", opening(report))?;
    if let Some(lines) = growing(report) {
        draw_lines(&directory.join("growth.svg"), &lines, machine)?;
        drawn.push("growth.svg".to_owned());
    }
    Ok(drawn)
}

/// Returns the figures of a row as bars, sorted by value.
fn beside(row: &Row, ours: &str) -> Vec<Bar> {
    let mut bars = vec![Bar::ours(ours, row.ours)];
    bars.extend(row.beside.iter().filter_map(|beside| {
        Some(Bar {
            name: beside.whose.clone(),
            value: *beside.figure.as_ref().ok()?,
            is_ours: false,
        })
    }));
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    bars
}

fn flood(report: &BenchReport) -> Option<Chart<'static>> {
    let row = report.row(drop_cost::TITLE, "CPU for each dropped")?;
    Some(Chart {
        title: "A SYN flood: CPU time for each dropped packet",
        unit: Unit::Nanos,
        scale: BarScale::Linear,
        bars: beside(row, "knock-user"),
    })
}

fn opening(report: &BenchReport) -> Option<Chart<'static>> {
    let row = report.row(
        open::TITLE,
        "last knock to the first SYN that is answered, half",
    )?;
    Some(Chart {
        title: "From the last knock to an open port (median, logarithmic)",
        unit: Unit::Micros,
        scale: BarScale::Logarithmic,
        bars: beside(row, "knock-user"),
    })
}

fn packets(report: &BenchReport) -> Option<Chart<'static>> {
    const ROWS: [&str; 8] = [
        "TCP data, unused port",
        "SYN, unused port",
        "SYN, protected port, no grant",
        "SYN, protected port, grant",
        "data, protected port, established flow",
        "first knock",
        "middle knock",
        "last knock, again",
    ];
    let drop = report.row(packet::TITLE, "SYN, protected port, no grant")?;
    let mut bars: Vec<Bar> = beside(drop, "");
    bars.retain(|bar| !bar.is_ours);
    let rows = ROWS
        .iter()
        .filter_map(|what| report.row(packet::TITLE, what));
    bars.extend(rows.map(|row| Bar::ours(&row.what, row.ours)));
    Some(Chart {
        title: "What a packet costs at the driver (grey: an empty program, a floor program, and peers)",
        unit: Unit::Nanos,
        scale: BarScale::Linear,
        bars,
    })
}

/// A named line: its points are a number of doors and the figure for it.
type Curve = (String, Vec<(f64, f64)>);

fn growing(report: &BenchReport) -> Option<Vec<Curve>> {
    const ROWS: [&str; 5] = [
        "middle knock",
        "first knock",
        "SYN, protected port, grant",
        "SYN, protected port, no grant",
        "SYN, unused port",
    ];
    let section = report.sections.iter().find(|s| s.title == growth::TITLE)?;
    let of_doors = |what: &&str| {
        let rows = section
            .rows
            .iter()
            .filter(|row| row.what.ends_with("doors"));
        let row = { rows }.find(|row| row.what.starts_with(*what))?;
        let number = |text: &str| text.parse::<f64>().ok();
        let mut points: Vec<_> = row
            .beside
            .iter()
            .filter_map(|beside| Some((number(&beside.whose)?, *beside.figure.as_ref().ok()?)))
            .collect();
        let most = row.what.rsplit(' ').nth(1).and_then(number)?;
        points.push((most, row.ours));
        Some(((*what).to_owned(), points))
    };
    Some(ROWS.iter().filter_map(of_doors).collect())
}

fn draw_bars(path: &Path, picture: &Chart<'_>, machine: &MachineInfo) -> Result<()> {
    let bars = i32::try_from(picture.bars.len())?;
    let height = u32::try_from(TOP + bars * BAR + 16)?;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let drawn = (|| {
        root.fill(&WHITE)?;
        head(&root, picture.title, machine)?;
        let width = f64::from(i32::try_from(WIDTH).unwrap_or(i32::MAX) - LEFT - RIGHT);
        let values = || picture.bars.iter().map(|bar| bar.value);
        let most = values().fold(0.0, f64::max);
        let least = values().fold(f64::INFINITY, f64::min);
        let length = |value: f64| match picture.scale {
            BarScale::Linear => value / most * width,
            // The shortest bar is a tenth of a decade.
            BarScale::Logarithmic => {
                (value / least * 1.26).ln() / (most / least * 1.26).ln() * width
            }
        };
        for (index, bar) in (0..).zip(&picture.bars) {
            let y = TOP + index * BAR;
            let end = LEFT + length(bar.value) as i32;
            let colour = if bar.is_ours { OURS } else { THEIRS };
            let corners = [(LEFT, y + 4), (end.max(LEFT + 1), y + BAR - 4)];
            root.draw(&Rectangle::new(corners, colour.filled()))?;
            let middle = y + BAR / 2;
            let name = text(14, &INK, HPos::Right);
            root.draw(&Text::new(bar.name.clone(), (LEFT - 8, middle), name))?;
            let value = text(14, &INK, HPos::Left);
            root.draw(&Text::new(
                picture.unit.show(bar.value),
                (end + 6, middle),
                value,
            ))?;
        }
        root.present()
    })();
    drawn.map_err(|error| anyhow!("drawing {}: {error}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn head(root: &Area<'_>, title: &str, machine: &MachineInfo) -> Drawn {
    root.draw(&Text::new(
        title.to_owned(),
        (16, 20),
        text(18, &INK, HPos::Left),
    ))?;
    let from = machine.to_string();
    root.draw(&Text::new(from, (16, 42), text(12, &FAINT, HPos::Left)))
}

fn text(size: i32, colour: &RGBColor, horizontal: HPos) -> TextStyle<'_> {
    let style = TextStyle::from((FONT, size).into_font());
    style.color(colour).pos(Pos::new(horizontal, VPos::Center))
}

fn draw_lines(path: &Path, lines: &[Curve], machine: &MachineInfo) -> Result<()> {
    let root = SVGBackend::new(path, (WIDTH, 420)).into_drawing_area();
    let drawn = (|| -> Result<(), Box<dyn std::error::Error + '_>> {
        root.fill(&WHITE)?;
        head(&root, "More doors: what a packet costs, in ns", machine)?;
        let points = || lines.iter().flat_map(|(_, points)| points);
        let most = points().map(|(_, nanos)| *nanos).fold(0.0, f64::max);
        let doors = points().map(|(doors, _)| *doors).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(&root)
            .margin_top(58)
            .margin_right(24)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d((1.0..doors).log_scale(), 0.0..most * 1.6)?;
        chart
            .configure_mesh()
            .x_desc("doors")
            .x_label_formatter(&|doors| format!("{doors:.0}"))
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(THEIRS.mix(0.5))
            .draw()?;
        for ((name, points), colour) in lines.iter().zip(LINES) {
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font((FONT, 13))
            .background_style(WHITE)
            .draw()?;
        root.present()?;
        Ok(())
    })();
    drawn.map_err(|error| anyhow!("drawing {}: {error}", path.display()))
}
