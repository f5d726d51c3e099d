//! Line charts as inline SVG, drawn small enough that their text stays readable on a phone.

use crate::markup::escape;
use std::fmt::Write as _;

/// One chart of one curve over steps.
#[derive(Clone, Debug, Default)]
pub struct Chart<'a> {
    /// Heading.
    pub title: &'a str,
    /// One line below the heading.
    pub note: &'a str,
    /// Appended to values in the readout (` %`).
    pub unit: &'a str,
    /// (step, value); values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Marks every point, for few of them.
    pub dots: bool,
    /// The axis starts at zero.
    pub from_zero: bool,
}

const WIDTH: f64 = 344.0;
const HEIGHT: f64 = 196.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Points drawn at most: more than this many a curve cannot show at this size.
const BUCKETS: usize = 150;

/// The mean of some neighboring points, and their lowest and highest value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

impl Chart<'_> {
    /// The chart as a `<figure>`; an empty text where there is nothing to draw.
    pub fn html(&self) -> String {
        let finite: Vec<(f64, f64)> = self
            .points
            .iter()
            .copied()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        let buckets = bucket(&finite);
        let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
            return String::new();
        };
        let low = buckets.iter().map(|b| b.low).fold(f64::INFINITY, f64::min);
        let high = buckets
            .iter()
            .map(|b| b.high)
            .fold(f64::NEG_INFINITY, f64::max);
        let low = if self.from_zero { low.min(0.0) } else { low };
        let y = Axis::new(low, high, 4);
        let x = Axis::exact(first.x, last.x, 4);
        let px = |v: f64| LEFT + x.fraction(v) * (WIDTH - LEFT - RIGHT);
        let py = |v: f64| HEIGHT - BOTTOM - y.fraction(v) * (HEIGHT - TOP - BOTTOM);

        let mut svg = String::new();
        for (v, text) in y.ticks() {
            let at = py(v);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                WIDTH - RIGHT,
                LEFT - 7.0,
                at + 4.0
            );
        }
        let mut ticks = x.ticks();
        if let Some((_, text)) = ticks.last_mut() {
            text.insert_str(0, "step ");
        }
        if ticks.len() > 5 {
            // The last label is the widest: its neighbor makes room.
            ticks.remove(ticks.len() - 2);
        }
        for (v, text) in ticks {
            let _ = write!(
                svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                px(v).min(WIDTH - RIGHT - 3.5 * text.len() as f64),
                HEIGHT - 8.0
            );
        }
        if finite.len() > buckets.len() {
            let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
                points
                    .map(|(a, b)| format!("{a:.1},{b:.1} "))
                    .collect::<String>()
            };
            let upper = path(&mut buckets.iter().map(|b| (px(b.x), py(b.high))));
            let lower = path(&mut buckets.iter().rev().map(|b| (px(b.x), py(b.low))));
            let _ = write!(svg, r#"<polygon class="band" points="{upper}{lower}"/>"#);
        }
        let line: String = buckets
            .iter()
            .map(|b| format!("{:.1},{:.1} ", px(b.x), py(b.mean)))
            .collect();
        let _ = write!(
            svg,
            r#"<polyline class="line" points="{}"/>"#,
            line.trim_end()
        );
        if self.dots || buckets.len() == 1 {
            for b in &buckets {
                let _ = write!(
                    svg,
                    r#"<circle class="dot" cx="{:.1}" cy="{:.1}" r="3.5"/>"#,
                    px(b.x),
                    py(b.mean)
                );
            }
        }
        let hover: Vec<_> = buckets
            .iter()
            .map(|b| {
                let text = format!(
                    "step {}: {}{}",
                    thousands(b.x),
                    significant(b.mean),
                    self.unit
                );
                (round(px(b.x)), round(py(b.mean)), text)
            })
            .collect();
        let hover = serde_json::to_string(&hover).unwrap_or_default();
        let alt = format!(
            "{}: {}{unit} at step {}, {}{unit} at step {}.",
            self.title,
            significant(first.mean),
            thousands(first.x),
            significant(last.mean),
            thousands(last.x),
            unit = self.unit
        );
        format!(
            r#"<figure class="chart" data-points="{hover}"><figcaption><h3>{title}</h3><output aria-live="off">{value}{unit}</output><p>{note}</p></figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{alt}">{svg}<g class="cursor" hidden><line y1="{TOP}" y2="{:.1}"/><circle r="4"/></g></svg></figure>"#,
            HEIGHT - BOTTOM,
            hover = escape(&hover),
            title = escape(self.title),
            value = significant(last.mean),
            unit = escape(self.unit),
            note = escape(self.note),
            alt = escape(&alt),
        )
    }
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// At most [`BUCKETS`] buckets of neighboring points.
fn bucket(points: &[(f64, f64)]) -> Vec<Bucket> {
    let size = points.len().div_ceil(BUCKETS).max(1);
    points
        .chunks(size)
        .map(|chunk| {
            let n = chunk.len() as f64;
            let values = chunk.iter().map(|p| p.1);
            Bucket {
                x: chunk[chunk.len() - 1].0,
                mean: values.clone().sum::<f64>() / n,
                low: values.clone().fold(f64::INFINITY, f64::min),
                high: values.fold(f64::NEG_INFINITY, f64::max),
            }
        })
        .collect()
}

/// A linear axis with round tick values.
pub(crate) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// From and to a round value around `low`..`high`, with about `count` steps.
    pub(crate) fn new(low: f64, high: f64, count: usize) -> Axis {
        let pad = if high > low {
            0.0
        } else {
            low.abs().max(1e-3) * 0.1
        };
        let (low, high) = (low - pad, high + pad);
        let step = round_step((high - low) / count as f64);
        Axis {
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            step,
        }
    }

    /// Exactly `low`..`high`, ticks at whole steps of training.
    pub(crate) fn exact(low: f64, high: f64, count: usize) -> Axis {
        let step = round_step((high - low).max(1.0) / count as f64).max(1.0);
        Axis { low, high, step }
    }

    /// Where `v` lies between the ends, 0 to 1.
    pub(crate) fn fraction(&self, v: f64) -> f64 {
        if self.high > self.low {
            (v - self.low) / (self.high - self.low)
        } else {
            0.5
        }
    }

    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        let from = (self.low / self.step - 1e-6).ceil() as i64;
        let to = (self.high / self.step + 1e-6).floor() as i64;
        (from..=to)
            .take(12)
            .map(|i| {
                let v = i as f64 * self.step;
                (v, tick(v, self.step))
            })
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, about `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.max(1e-12).log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.into_iter().rev().find(|f| f * power <= raw * 1.3);
    factor.unwrap_or(1.0) * power
}

fn tick(v: f64, step: f64) -> String {
    if v == 0.0 {
        return "0".into();
    }
    if step < 1e-4 {
        return format!("{v:.0e}");
    }
    if step >= 1.0 {
        return thousands(v);
    }
    let decimals = (-step.log10()).ceil().max(0.0) as usize;
    minus(format!("{v:.decimals$}"))
}

/// A value with enough digits to tell neighbors apart.
pub fn significant(v: f64) -> String {
    let size = v.abs();
    minus(if size >= 100.0 {
        format!("{v:.1}")
    } else if size >= 10.0 {
        format!("{v:.2}")
    } else if size >= 0.1 || size == 0.0 {
        format!("{v:.3}")
    } else if size >= 1e-3 {
        format!("{v:.5}")
    } else {
        format!("{v:.1e}")
    })
}

/// A whole number with thin separators: 12 345.
pub fn thousands(v: f64) -> String {
    let digits = format!("{:.0}", v.abs());
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 && digits.len() > 3 {
            out.push(',');
        }
        out.push(c);
    }
    if v <= -0.5 {
        format!("\u{2212}{out}")
    } else {
        out
    }
}

/// The typographic minus sign, as wide as a digit.
pub fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) => format!("\u{2212}{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks_within_their_ends() {
        let texts = |a: Axis| a.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            texts(Axis::new(0.03, 0.96, 4)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            texts(Axis::new(5.0, 5.0, 4)),
            ["4.4", "4.6", "4.8", "5.0", "5.2", "5.4", "5.6"]
        );
        assert_eq!(
            texts(Axis::exact(1.0, 4000.0, 4)),
            ["1,000", "2,000", "3,000", "4,000"]
        );
        assert_eq!(
            texts(Axis::new(-2.0, -1.0, 4)).first().unwrap(),
            "\u{2212}2.0"
        );
        assert_eq!(thousands(1234567.0), "1,234,567");
    }

    #[test]
    fn charts_survive_any_points() {
        for points in [
            vec![],
            vec![(1.0, f64::NAN)],
            vec![(1.0, 2.0)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            (0..5000).map(|i| (i as f64, (i as f64).sin())).collect(),
            vec![(0.0, 1e-30), (1e9, 1e30)],
        ] {
            let html = Chart {
                title: "Loss",
                points,
                ..Chart::default()
            }
            .html();
            assert!(!html.contains("NaN") && !html.contains("inf"));
            assert!(html.len() < 60_000);
        }
    }
}
