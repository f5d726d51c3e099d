//! The frame of a figure: where values lie in it, and lines with their numbers.

use crate::chart::Axis;
use std::fmt::Write as _;

/// A picture's sides, and what is left free around the values.
pub(crate) struct Frame {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    pub(crate) across: Axis,
    pub(crate) up: Axis,
}

impl Frame {
    /// Where a value lies from the left.
    pub(crate) fn x(&self, v: f64) -> f64 {
        self.left + self.across.fraction(v) * (self.width - self.left - self.right)
    }

    /// Where a value lies from the top.
    pub(crate) fn y(&self, v: f64) -> f64 {
        self.floor() - self.up.fraction(v) * (self.floor() - self.top)
    }

    /// Where the lowest value lies from the top.
    pub(crate) fn floor(&self) -> f64 {
        self.height - self.bottom
    }

    /// Lines across, with their numbers.
    pub(crate) fn rows(&self) -> String {
        let mut lines = String::new();
        for (v, text) in self.up.ticks() {
            let at = self.y(v);
            let _ = write!(
                lines,
                r#"<line class="grid" x1="{}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                self.left,
                self.width - self.right,
                self.left - 6.0,
                at + 4.0
            );
        }
        lines
    }

    /// Numbers below, and lines up from them where `lines` asks for these.
    pub(crate) fn columns(&self, lines: bool) -> String {
        let mut found = String::new();
        for (v, text) in self.across.ticks() {
            let at = self.x(v);
            if lines {
                let _ = write!(
                    found,
                    r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{}" y2="{:.1}"/>"#,
                    self.top,
                    self.floor()
                );
            }
            let _ = write!(
                found,
                r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                self.floor() + 17.0
            );
        }
        found
    }
}

/// An axis from the least to the largest of some values, and a `part` of their range more on both sides.
pub(crate) fn around(values: impl Iterator<Item = f64> + Clone, part: f64) -> Axis {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let pad = part * (high - low);
    Axis::new(low - pad, high + pad, 4)
}
