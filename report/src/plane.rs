//! Alignment against uniformity (the paper's figure 3; Wang and Isola 2020): the lower and the farther left, the
//! better.

use crate::chart::{Axis, significant};
use crate::markup::escape;
use std::fmt::Write as _;

/// A network on the plane.
#[derive(Clone, Debug)]
pub struct Mark {
    pub name: String,
    pub alignment: f64,
    pub uniformity: f64,
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// The plane as SVG; an empty text without marks. `across` names the alignment.
pub fn svg(across: &str, marks: &[Mark]) -> String {
    let finite = |mark: &&Mark| mark.alignment.is_finite() && mark.uniformity.is_finite();
    let marks: Vec<&Mark> = marks.iter().filter(finite).collect();
    if marks.is_empty() {
        return String::new();
    }
    let axis = |of: fn(&Mark) -> f64| {
        let values = marks.iter().map(|mark| of(mark));
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let pad = 0.1 * (high - low);
        Axis::new(low - pad, high + pad, 4)
    };
    let (x, y) = (axis(|mark| mark.alignment), axis(|mark| mark.uniformity));
    let px = |v: f64| LEFT + x.fraction(v) * (WIDTH - LEFT - RIGHT);
    let py = |v: f64| HEIGHT - BOTTOM - y.fraction(v) * (HEIGHT - TOP - BOTTOM);
    let mut body = String::new();
    for (v, text) in y.ticks() {
        let at = py(v);
        let _ = write!(
            body,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
            WIDTH - RIGHT,
            LEFT - 7.0,
            at + 4.0
        );
    }
    for (v, text) in x.ticks() {
        let at = px(v);
        let _ = write!(
            body,
            r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{:.1}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 17.0
        );
    }
    // From top to bottom, so that names that would meet move down one after another.
    let mut placed: Vec<(&Mark, f64, f64)> = marks
        .iter()
        .map(|mark| (*mark, px(mark.alignment), py(mark.uniformity)))
        .collect();
    placed.sort_by(|a, b| a.2.total_cmp(&b.2));
    let mut last = f64::NEG_INFINITY;
    for (mark, at, y) in placed {
        let line = (y + 4.0).max(last + 13.0);
        last = line;
        let (anchor, side) = match at > WIDTH * 0.6 {
            true => ("end", -9.0),
            false => ("start", 9.0),
        };
        let _ = write!(
            body,
            r#"<circle class="dot" cx="{at:.1}" cy="{y:.1}" r="5"><title>{}: alignment {}, uniformity {}</title></circle><text class="name" x="{:.1}" y="{line:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(&mark.name),
            significant(mark.alignment),
            significant(mark.uniformity),
            at + side,
            escape(&mark.name)
        );
    }
    format!(
        r#"<svg class="plane" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">{body}<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text transform="rotate(-90)" x="{:.1}" y="14" text-anchor="middle">uniformity</text></svg>"#,
        escape(&format!(
            "{across} and uniformity of {} networks",
            marks.len()
        )),
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        escape(across),
        -(TOP + HEIGHT - BOTTOM) / 2.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_marks_have_a_plane() {
        assert!(svg("alignment", &[]).is_empty());
        let mark = |name: &str, alignment, uniformity| Mark {
            name: name.into(),
            alignment,
            uniformity,
        };
        let nan = mark("a", f64::NAN, 1.0);
        assert!(svg("alignment", std::slice::from_ref(&nan)).is_empty());
        let two = [mark("<b>", 0.5, -2.0), mark("c", 0.5, -2.0), nan];
        let figure = svg("alignment", &two);
        assert_eq!(figure.matches("<circle").count(), 2);
        assert!(figure.contains("&lt;b&gt;") && !figure.contains("NaN"));
    }
}
