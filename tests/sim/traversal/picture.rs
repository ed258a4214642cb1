//! The matrix as a picture: a cell for each pair of kinds, its colour the way to the path and its
//! strength the share of direct runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use world::oracle::Expectation;
use world::scenario::Kind;

use super::Played;
use super::statistics::Tally;

/// Side of a cell with its margin, and of the cell alone, in pixels.
const STEP: usize = 13;
const CELL: usize = 12;
/// Room for the names of kinds.
const LABEL: usize = 118;
/// Room for the legend below.
const LEGEND: usize = 46;

/// Colours for light and dark surroundings. A cell without direct runs shows the colour of the
/// relay, one with some is that much of its technique's colour.
const STYLE: &str = "<style>\
text{font:9px ui-monospace,Consolas,monospace;fill:#24292f}\
.d{fill:#1a7f37}.g{fill:#0969da}.r{fill:#d0d7de}\
@media(prefers-color-scheme:dark){text{fill:#d1d7e0}.d{fill:#3fb950}.g{fill:#4493f8}.r{fill:#3d444d}}\
</style>";

/// Draws the pairs of the matrix that were played.
pub(crate) fn draw(played: &[Played]) -> String {
    let kinds = Kind::all();
    let by_name: BTreeMap<_, _> =
        played.iter().map(|played| (&played.pair.name[..], played)).collect();
    let find = |row: &Kind, column: &Kind| {
        let name = |a, b| format!("{a}:{b}");
        by_name.get(&name(row, column)[..]).or_else(|| by_name.get(&name(column, row)[..]))
    };
    // Cells of one look are one path: class of the style, tenths of direct runs.
    let mut looks: BTreeMap<(&str, usize), String> = BTreeMap::new();
    for (y, row) in kinds.iter().enumerate() {
        for (x, column) in kinds.iter().enumerate() {
            let Some(played) = find(row, column) else { continue };
            let cell = looks.entry(look(played)).or_default();
            let (x, y) = (LABEL + x * STEP, LABEL + y * STEP);
            let _infallible = write!(cell, "M{x} {y}h{CELL}v{CELL}h-{CELL}z");
        }
    }
    let size = LABEL + kinds.len() * STEP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {}\">{STYLE}\n",
        size + LEGEND
    );
    for ((class, tenths), cells) in looks {
        if tenths < 10 {
            let _infallible = writeln!(svg, "<path class=\"r\" d=\"{cells}\"/>");
        }
        if class != "r" && tenths > 0 {
            let strength = tenths as f64 / 10.0;
            let _infallible = writeln!(
                svg,
                "<path class=\"{class}\" fill-opacity=\"{strength}\" d=\"{cells}\"/>"
            );
        }
    }
    label(&mut svg, &kinds);
    legend(&mut svg, size);
    svg + "</svg>\n"
}

/// A colour and its strength in tenths; only a full share has the full strength.
fn look(played: &Played) -> (&'static str, usize) {
    let tally = Tally::of([played]);
    let tenths = tally.direct * 10 / tally.runs.max(1);
    match played.pair.expected() {
        Expectation::Direct => ("d", tenths),
        Expectation::Guessing(_) => ("g", tenths),
        Expectation::Relay => ("r", 0),
    }
}

fn label(svg: &mut String, kinds: &[Kind]) {
    for (number, kind) in kinds.iter().enumerate() {
        let (near, at) = (LABEL - 4, LABEL + number * STEP + 9);
        let _infallible =
            writeln!(svg, "<text x=\"{near}\" y=\"{at}\" text-anchor=\"end\">{kind}</text>");
        let _infallible =
            writeln!(svg, "<text transform=\"translate({at} {near}) rotate(-90)\">{kind}</text>");
    }
}

fn legend(svg: &mut String, size: usize) {
    let entries =
        [("d", "direct by simultaneous open"), ("g", "direct by guessed ports"), ("r", "relayed")];
    for (number, (class, text)) in entries.into_iter().enumerate() {
        let (x, y) = (LABEL + number * 190, size + 16);
        let _infallible = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\"/>\
             <text x=\"{}\" y=\"{}\">{text}</text>",
            x + CELL + 4,
            y + 9
        );
    }
    let _infallible = writeln!(
        svg,
        "<text x=\"{LABEL}\" y=\"{}\">mapping - filtering - ports (RFC 4787); paler: not in every run</text>",
        size + 40
    );
}
