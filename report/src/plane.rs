//! Alignment against uniformity (the paper's figure 3; Wang and Isola 2020): the lower and the farther left, the
//! better.

use crate::chart::significant;
use crate::frame::{self, Frame};
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
    let axis = |of: fn(&Mark) -> f64| frame::around(marks.iter().map(|mark| of(mark)), 0.1);
    let frame = Frame {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        right: RIGHT,
        top: TOP,
        bottom: BOTTOM,
        across: axis(|mark| mark.alignment),
        up: axis(|mark| mark.uniformity),
    };
    let mut body = frame.rows() + &frame.columns(true);
    // From top to bottom, so that names that would meet move down one after another.
    let mut placed: Vec<(&Mark, f64, f64)> = marks
        .iter()
        .map(|mark| (*mark, frame.x(mark.alignment), frame.y(mark.uniformity)))
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
