//! Photos and two views of each on one map, joined by triangles (the paper's figure 2): where a network sees
//! views of a photo as one, triangles are specks, which the inset enlarges.

use crate::map::{self, Point};
use crate::markup::escape;
use seedling_core::eval::Features;
use std::fmt::Write as _;

/// Features of photos, of a view of each, and of another view, one after another.
#[derive(Clone, Debug)]
pub struct Triangles {
    /// (3 * photos, dim).
    pub features: Features,
    /// The class of each photo, or all 0.
    pub labels: Vec<usize>,
    /// Names of the classes that there are; none where photos have no class.
    pub classes: Vec<String>,
}

/// Colors of classes, which tell apart on light and on dark paper.
pub(crate) const COLORS: [&str; 10] = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#e07b39", "#44aa99",
    "#8866cc", "#999966",
];

/// Of the map.
const SIDE: f64 = 480.0;
const MARGIN: f64 = 10.0;
/// Side of the inset, which lies to the right of the map, and how much it enlarges.
const INSET: f64 = 150.0;
const ZOOM: f64 = 100.0;

impl Triangles {
    /// The figure as SVG, and how wide the triangles are, as a fraction of the map's width; nothing where there are
    /// no photos.
    pub fn svg(&self) -> Option<(String, f64)> {
        let photos = self.labels.len();
        if photos == 0 || self.features.rows != 3 * photos {
            return None;
        }
        let points = placed(&map::layout(&self.features, None));
        let corners = |photo: usize| [0, 1, 2].map(|view| points[view * photos + photo]);
        let mut widths: Vec<(f64, usize)> = (0..photos)
            .map(|photo| (perimeter(corners(photo)) / 3.0, photo))
            .collect();
        widths.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (width, middle) = widths[photos / 2];

        let color = |photo: usize| COLORS[self.labels[photo] % COLORS.len()];
        let mut body = String::new();
        for photo in 0..photos {
            let [a, b, c] = corners(photo).map(|[x, y]| format!("{x:.3} {y:.3}"));
            let _ = write!(
                body,
                r#"<path d="M{a}L{b}L{c}Z" stroke="{}"/>"#,
                color(photo)
            );
        }
        let dots = (0..photos).map(|photo| {
            let [x, y] = points[photo];
            format!(
                r#"<circle cx="{x:.2}" cy="{y:.2}" r="2" fill="{}"/>"#,
                color(photo)
            )
        });
        let dots: String = dots.collect();

        // The inset shows what lies around the photo whose triangle is of middling size.
        let center = points[middle];
        let (left, top) = (SIDE, SIDE - INSET - MARGIN);
        let seen = INSET / ZOOM;
        let near = |photo: &usize| {
            let reach =
                |[x, y]: Point| (x - center[0]).abs() < seen && (y - center[1]).abs() < seen;
            corners(*photo).into_iter().any(reach)
        };
        let mut inset = String::new();
        for photo in (0..photos).filter(near) {
            let at = |[x, y]: Point| {
                let place = |v: f64, c: f64, edge: f64| (v - c) * ZOOM + edge + INSET / 2.0;
                [place(x, center[0], left), place(y, center[1], top)]
            };
            let places = corners(photo).map(at);
            let [a, b, c] = places.map(|[x, y]| format!("{x:.1} {y:.1}"));
            let _ = write!(
                inset,
                r#"<path d="M{a}L{b}L{c}Z" stroke="{}"/>"#,
                color(photo)
            );
            for ([x, y], r) in places.into_iter().zip([4.0, 2.5, 2.5]) {
                let _ = write!(
                    inset,
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="{r}" fill="{}"/>"#,
                    color(photo)
                );
            }
        }
        let alt = format!(
            "t-SNE of {photos} photos and two views of each; the middling triangle has sides of {} of the map's width.",
            percent(width / SIDE)
        );
        let svg = format!(
            r##"<svg class="triangles" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0} {SIDE}" role="img" aria-label="{}"><g fill="none" stroke-width=".7" stroke-opacity=".7">{body}</g>{dots}<line class="lead-line" x1="{:.1}" y1="{:.1}" x2="{left}" y2="{top}"/><svg x="{left}" y="{top}" width="{INSET}" height="{INSET}" viewBox="{left} {top} {INSET} {INSET}"><g fill="none" stroke-width="1.2">{inset}</g><text x="{:.1}" y="{:.1}">{ZOOM:.0}x</text></svg><rect class="frame" x="{left}" y="{top}" width="{INSET}" height="{INSET}"/></svg>"##,
            SIDE + INSET + MARGIN,
            escape(&alt),
            center[0],
            center[1],
            left + 6.0,
            top + 15.0,
        );
        Some((svg, width / SIDE))
    }

    /// Names of the classes with their colors.
    pub fn legend(&self) -> String {
        let entry = |(i, name): (usize, &String)| {
            format!(
                r#"<li><i style="background:{}"></i>{}</li>"#,
                COLORS[i % COLORS.len()],
                escape(name)
            )
        };
        let entries: String = self.classes.iter().enumerate().map(entry).collect();
        match entries.is_empty() {
            true => entries,
            false => format!(r#"<ul class="classes">{entries}</ul>"#),
        }
    }
}

/// A small fraction in words.
pub(crate) fn percent(fraction: f64) -> String {
    match 100.0 * fraction {
        small if small < 0.1 => format!("{small:.3} %"),
        small if small < 10.0 => format!("{small:.2} %"),
        large => format!("{large:.0} %"),
    }
}

/// Points scaled to fill the figure.
fn placed(points: &[Point]) -> Vec<Point> {
    let range = |axis: usize| {
        let values = points.iter().map(|point| point[axis]);
        let low = values.clone().fold(f64::INFINITY, f64::min);
        (low, values.fold(f64::NEG_INFINITY, f64::max))
    };
    let (x, y) = (range(0), range(1));
    let span = (x.1 - x.0).max(y.1 - y.0).max(1e-12);
    let scale = (SIDE - 2.0 * MARGIN) / span;
    let place = |v: f64, (low, high): (f64, f64)| (v - (low + high) / 2.0) * scale + SIDE / 2.0;
    points
        .iter()
        .map(|p| [place(p[0], x), place(p[1], y)])
        .collect()
}

fn perimeter([a, b, c]: [Point; 3]) -> f64 {
    let distance = |p: Point, q: Point| (p[0] - q[0]).hypot(p[1] - q[1]);
    distance(a, b) + distance(b, c) + distance(c, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_core::rng::{Purpose, Rng};

    fn of_views(apart: f32) -> Triangles {
        let (photos, dim) = (40, 8);
        let mut rng = Rng::new(1, Purpose::Measure, 0, 0);
        let plain: Vec<f32> = (0..photos * dim).map(|_| rng.normal()).collect();
        let mut values = plain.clone();
        for _ in 0..2 {
            values.extend(plain.iter().map(|x| x + apart * rng.normal()));
        }
        Triangles {
            features: Features::new(3 * photos, dim, values).unwrap(),
            labels: (0..photos).map(|photo| photo % 3).collect(),
            classes: ["a", "b", "c<"].map(String::from).to_vec(),
        }
    }

    #[test]
    fn triangles_are_as_wide_as_views_are_apart() {
        let (near, far) = (of_views(0.001).svg().unwrap(), of_views(1.0).svg().unwrap());
        assert!(near.1 < 0.1 * far.1, "{} {}", near.1, far.1);
        for (svg, _) in [&near, &far] {
            // Those of the map, and what the inset shows of them: one at least.
            assert!(svg.matches("<path").count() > 40);
            assert!(!svg.contains("NaN") && !svg.contains("inf "));
        }
        assert!(of_views(0.1).legend().contains("c&lt;"));
    }

    #[test]
    fn no_photos_have_no_figure_and_equal_ones_have_one() {
        let none = Triangles {
            features: Features::default(),
            labels: Vec::new(),
            classes: Vec::new(),
        };
        assert!(none.svg().is_none() && none.legend().is_empty());
        let same = Triangles {
            features: Features::new(6, 2, vec![1.0; 12]).unwrap(),
            labels: vec![0; 2],
            classes: Vec::new(),
        };
        assert!(!same.svg().unwrap().0.contains("NaN"));
    }
}
