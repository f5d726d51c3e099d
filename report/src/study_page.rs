//! What `seedling study` has measured: tables in the paper's layout, its own numbers beside ours, and curves.

use crate::chart::{Axis, minus, significant};
use crate::frame::{self, Frame};
use crate::html::STYLE;
use crate::markup::escape;
use crate::plane::{self, Mark};
use crate::triangles::COLORS;
use std::fmt::Write as _;

/// A figure of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Over seeds, and their standard deviation where there are several.
    pub mean: f64,
    pub spread: Option<f64>,
    pub seeds: usize,
    /// The paper's number.
    pub paper: Option<f64>,
}

impl Value {
    /// As tables show it.
    pub fn text(&self) -> String {
        match self.spread {
            Some(spread) => format!("{} ± {}", digits(self.mean), digits(spread)),
            None => digits(self.mean),
        }
    }
}

fn digits(x: f64) -> String {
    match x.abs() {
        large if large >= 10.0 => format!("{x:.1}"),
        middling if middling >= 0.1 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

/// The loss of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub name: String,
    /// (step, loss).
    pub points: Vec<(f64, f64)>,
}

/// A place of a table: a value for every measure, and why it has failed, if it has.
pub type Cell = (Vec<Option<Value>>, Option<String>);

/// A table.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    pub rows: Vec<&'a str>,
    pub columns: Vec<&'a str>,
    pub measures: Vec<String>,
    pub cells: Vec<Vec<Cell>>,
}

/// A plan's part of the page.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// The paper's name for it.
    pub table: &'a str,
    pub title: &'a str,
    pub note: &'a str,
    pub layout: Layout<'a>,
    pub curves: Vec<&'a Curve>,
    pub plane: Vec<Mark>,
    /// Whether the first measure is shown as bars.
    pub bars: bool,
    /// Figures of photos and their views, by name, as SVG.
    pub triangles: Vec<(&'a str, &'a str)>,
}

const FIGURES: &str = include_str!("template/figures.css");

/// The page of some plans.
pub fn render(sections: &[Section<'_>]) -> String {
    let contents: String = sections
        .iter()
        .enumerate()
        .map(|(i, one)| {
            format!(
                r##"<li><a href="#s{i}">{}</a> {}</li>"##,
                escape(one.table),
                escape(one.title)
            )
        })
        .collect();
    let body: String = sections
        .iter()
        .enumerate()
        .map(|(i, one)| section(i, one))
        .collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>Study</title>
<style>{STYLE}{FIGURES}</style>
</head>
<body>
<header><p class="run"><b>Seedling</b> <span>study</span></p><h1>The paper, rerun</h1>
<p class="note">Small numbers are the paper's own, on ImageNet with 200 epochs: another dataset, and another scale. Where there are several seeds, the mean and the standard deviation are shown.</p><ul class="contents">{contents}</ul></header>
<main>{body}</main>
<footer><p>Made by <code>seedling study</code>. It loads nothing from anywhere and sends nothing.</p></footer>
</body>
</html>
"#
    )
}

fn section(i: usize, one: &Section<'_>) -> String {
    let note = match one.note {
        "" => String::new(),
        note => format!(r#"<p class="note">{}</p>"#, escape(note)),
    };
    let mut figures = String::new();
    let mut figure = |title: &str, svg: &str| {
        if !svg.is_empty() {
            let _ = write!(
                figures,
                r#"<figure class="chart"><figcaption><h3>{}</h3></figcaption>{svg}</figure>"#,
                escape(title)
            );
        }
    };
    if one.bars {
        figure(&one.layout.measures[0], &bars(&one.layout));
    }
    figure(
        "Intra-class alignment and uniformity",
        &plane::svg("intra-class alignment", &one.plane),
    );
    for (name, svg) in &one.triangles {
        figure(name, svg);
    }
    figure("Loss by step", &curves(&one.curves));
    format!(
        r#"<section id="s{i}"><h2>{}: {}</h2>{note}{}<div class="figure-grid">{figures}</div></section>"#,
        escape(one.table),
        escape(one.title),
        table(&one.layout)
    )
}

fn table(layout: &Layout<'_>) -> String {
    let heads: String = layout
        .columns
        .iter()
        .map(|column| format!(r#"<th scope="col">{}</th>"#, escape(column)))
        .collect();
    let mut html = format!(
        r#"<div class="wide"><table class="figures"><thead><tr><th></th><th></th>{heads}</tr></thead><tbody>"#
    );
    for (row, cells) in layout.rows.iter().zip(&layout.cells) {
        for (at, measure) in layout.measures.iter().enumerate() {
            html += "<tr>";
            if at == 0 {
                let _ = write!(
                    html,
                    r#"<th scope="rowgroup" rowspan="{}">{}</th>"#,
                    layout.measures.len(),
                    escape(row)
                );
            }
            let _ = write!(
                html,
                r#"<th scope="row" class="measure">{}</th>"#,
                escape(measure)
            );
            for (values, failed) in cells {
                let shown = match (failed, values.get(at)) {
                    (Some(why), _) if at == 0 => {
                        format!(
                            r#"<span class="failed" title="{0}">failed: {0}</span>"#,
                            escape(why)
                        )
                    }
                    (None, Some(Some(value))) => {
                        let paper = value.paper.map_or(String::new(), |paper| {
                            format!(" <small>{}</small>", minus(digits(paper)))
                        });
                        format!("{}{paper}", minus(value.text()))
                    }
                    _ => "\u{2013}".into(),
                };
                let _ = write!(html, "<td>{shown}</td>");
            }
            html += "</tr>";
        }
    }
    html + "</tbody></table></div>"
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Points of a curve, and of what they are means.
const POINTS: usize = 80;

fn framed(across: Axis, up: Axis) -> Frame {
    Frame {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        right: RIGHT,
        top: TOP,
        bottom: BOTTOM,
        across,
        up,
    }
}

/// The losses of some runs in one chart.
fn curves(curves: &[&Curve]) -> String {
    let smooth = |curve: &&Curve| -> Vec<(f64, f64)> {
        let finite: Vec<(f64, f64)> = curve
            .points
            .iter()
            .copied()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        let size = finite.len().div_ceil(POINTS).max(1);
        let mean = |part: &[(f64, f64)]| {
            let n = part.len() as f64;
            let sum = part
                .iter()
                .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
            (sum.0 / n, sum.1 / n)
        };
        finite.chunks(size).map(mean).collect()
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = curves
        .iter()
        .map(|curve| (curve.name.as_str(), smooth(curve)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    if lines.is_empty() {
        return String::new();
    }
    let last = all().map(|point| point.0).fold(1.0, f64::max);
    let frame = framed(
        Axis::exact(0.0, last, 4),
        frame::around(all().map(|point| point.1), 0.0),
    );
    let mut body = frame.rows() + &frame.columns(false);
    let mut legend = String::new();
    for (i, (name, points)) in lines.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let dash = match i / COLORS.len() {
            0 => "",
            _ => r#" stroke-dasharray="5 3""#,
        };
        let path: String = points
            .iter()
            .map(|&(a, b)| format!("{:.1},{:.1} ", frame.x(a), frame.y(b)))
            .collect();
        let _ = write!(
            body,
            r#"<polyline fill="none" stroke-width="1.6" stroke="{color}"{dash} points="{}"><title>{}</title></polyline>"#,
            path.trim_end(),
            escape(name)
        );
        let _ = write!(
            legend,
            r#"<li><i style="background:{color}"></i>{}</li>"#,
            escape(name)
        );
    }
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss by step of {} runs">{body}</svg><ul class="classes">{legend}</ul>"#,
        lines.len()
    )
}

/// The first measure of every cell as bars, rows side by side for each column.
fn bars(layout: &Layout<'_>) -> String {
    let value = |row: usize, column: usize| -> Option<f64> {
        let (values, _) = layout.cells.get(row)?.get(column)?;
        Some(values.first()?.as_ref()?.mean)
    };
    let rows = 0..layout.rows.len();
    let all: Vec<f64> = rows
        .clone()
        .flat_map(|row| (0..layout.columns.len()).filter_map(move |column| value(row, column)))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let frame = framed(
        Axis::exact(0.0, 1.0, 1),
        Axis::new(0.0, all.iter().copied().fold(1e-9, f64::max), 4),
    );
    let group = (WIDTH - LEFT - RIGHT) / layout.columns.len() as f64;
    let bar = 0.8 * group / layout.rows.len() as f64;
    let mut body = frame.rows();
    for (column, name) in layout.columns.iter().enumerate() {
        let left = LEFT + (column as f64 + 0.1) * group;
        for row in rows.clone() {
            let Some(v) = value(row, column) else {
                continue;
            };
            let _ = write!(
                body,
                r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{}"><title>{}, {name}: {}</title></rect>"#,
                left + row as f64 * bar,
                frame.y(v),
                bar - 1.5,
                (frame.floor() - frame.y(v)).max(0.0),
                COLORS[row % COLORS.len()],
                escape(layout.rows[row]),
                significant(v),
                name = escape(name)
            );
        }
        let _ = write!(
            body,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            left + 0.4 * group,
            HEIGHT - 9.0,
            escape(name)
        );
    }
    let legend: String = layout
        .rows
        .iter()
        .enumerate()
        .map(|(row, name)| {
            let color = COLORS[row % COLORS.len()];
            format!(
                r#"<li><i style="background:{color}"></i>{}</li>"#,
                escape(name)
            )
        })
        .collect();
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">{body}</svg><ul class="classes">{legend}</ul>"#,
        escape(&layout.measures[0])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_values_failures_and_curves() {
        let value = |mean| {
            Some(Value {
                mean,
                spread: Some(0.52),
                seeds: 3,
                paper: Some(33.5),
            })
        };
        let curve = Curve {
            name: "a<b".into(),
            points: (0..500)
                .map(|i| (f64::from(i), 5.0 / f64::from(i + 1)))
                .collect(),
        };
        let empty = Curve {
            name: "none".into(),
            points: vec![(1.0, f64::NAN)],
        };
        let section = Section {
            table: "Table 3",
            title: "Temperature",
            note: "",
            layout: Layout {
                rows: vec!["small"],
                columns: vec!["0.05", "0.1"],
                measures: vec!["linear %".into(), "NN %".into()],
                cells: vec![vec![
                    (vec![value(41.26), None], None),
                    (vec![None, None], Some("no <disk>".into())),
                ]],
            },
            curves: vec![&curve, &empty],
            plane: Vec::new(),
            bars: true,
            triangles: Vec::new(),
        };
        let page = render(&[section]);
        assert!(page.contains("41.3 ± 0.52 <small>33.5</small>"));
        assert!(page.contains("failed: no &lt;disk&gt;") && page.contains("a&lt;b"));
        assert_eq!(page.matches("<polyline").count(), 1);
        assert_eq!(page.matches("<rect").count(), 1);
        assert!(!page.contains("NaN"));
    }
}
