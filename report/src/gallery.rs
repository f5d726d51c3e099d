//! The pictures of a report: the map's data, and nearest neighbors of a few photos.

use crate::map::{self, Point};
use crate::markup::{data_uri, escape};
use crate::thumbnails::Thumbnails;
use seedling_core::eval::{Features, Metric, nearest};
use serde::Serialize;
use std::fmt::Write as _;

/// Photos whose neighbors are shown.
pub const QUERIES: usize = 6;
/// Neighbors shown of each.
pub const NEIGHBORS: usize = 6;

/// What the page's program needs to draw the map.
#[derive(Debug, Serialize)]
pub struct MapData<'a> {
    ids: &'a [String],
    classes: &'a [String],
    labels: &'a [u32],
    /// One place a photo, 0 to 1, for each of `names`.
    layouts: Vec<Vec<Point>>,
    names: Vec<&'static str>,
    /// `data:` addresses; empty for a photo without a picture.
    thumbnails: Vec<String>,
}

/// The map of an album; `None` below two photos or without features.
pub fn map_data(thumbnails: &Thumbnails) -> Option<MapData<'_>> {
    let mut layouts: Vec<Vec<Point>> = Vec::new();
    let mut names = Vec::new();
    for (name, features) in sets(thumbnails) {
        layouts.push(map::layout(features, layouts.first().map(Vec::as_slice)));
        names.push(name);
    }
    if layouts.is_empty() {
        return None;
    }
    fit(&mut layouts);
    Some(MapData {
        ids: &thumbnails.ids,
        classes: &thumbnails.classes,
        labels: &thumbnails.labels,
        layouts,
        names,
        thumbnails: thumbnails
            .thumbnails
            .iter()
            .map(|jpeg| data_uri(jpeg))
            .collect(),
    })
}

/// The features that can be shown, in the order and under the names of the table's columns.
fn sets(thumbnails: &Thumbnails) -> Vec<(&'static str, &Features)> {
    let last = match thumbnails.closed_form {
        Some(_) => "Trained",
        None => "After",
    };
    [
        ("Before", &thumbnails.before),
        ("Closed form", &thumbnails.closed_form),
        (last, &thumbnails.after),
    ]
    .into_iter()
    .filter_map(|(name, features)| Some((name, features.as_ref()?)))
    .filter(|(_, features)| features.rows > 1 && features.check_finite().is_ok())
    .collect()
}

/// Scales every layout into the unit square, 4 digits being plenty for a screen. Each axis fills it
/// on its own: the map is wider than high, and t-SNE's axes have no unit.
fn fit(layouts: &mut [Vec<Point>]) {
    for layout in layouts {
        for axis in 0..2 {
            let values = || layout.iter().map(|p| p[axis]);
            let low = values().fold(f64::INFINITY, f64::min);
            let high = values().fold(f64::NEG_INFINITY, f64::max);
            for p in layout.iter_mut() {
                let fraction = if high > low {
                    (p[axis] - low) / (high - low)
                } else {
                    0.5
                };
                p[axis] = (fraction * 1e4).round() / 1e4;
            }
        }
    }
}

/// Rows of photos: each query, its neighbors by each set of features. An empty text where the album
/// has too little for that.
pub fn neighbors(thumbnails: &Thumbnails) -> String {
    let n = thumbnails.ids.len();
    let sets = sets(thumbnails);
    if n < 3 || sets.is_empty() {
        return String::new();
    }
    let mut html = String::new();
    let count = QUERIES.min(n);
    for i in 0..count {
        // Evenly over the album: not chosen for looking good.
        let query = (2 * i + 1) * n / (2 * count);
        let _ = write!(
            html,
            r#"<article class="query"><figure class="asked">{}<figcaption>{}</figcaption></figure>"#,
            picture(thumbnails, query, None),
            caption(thumbnails, query)
        );
        for (name, features) in &sets {
            let near = nearest(features, query, NEIGHBORS, Metric::Euclidean);
            let same = |j: usize| {
                let label = thumbnails.labels.get(j)?;
                Some(label == thumbnails.labels.get(query)?)
            };
            let right = near.iter().filter(|n| same(n.index) == Some(true)).count();
            let score = if thumbnails.labels.is_empty() {
                String::new()
            } else {
                format!(" <span>{right} of {}</span>", near.len())
            };
            let _ = write!(html, r#"<div class="found"><h4>{name}{score}</h4><ol>"#);
            for neighbor in &near {
                let frame = match same(neighbor.index) {
                    Some(true) => r#" class="same""#,
                    Some(false) => r#" class="other""#,
                    None => "",
                };
                let _ = write!(
                    html,
                    "<li{frame}>{}</li>",
                    picture(thumbnails, neighbor.index, same(neighbor.index))
                );
            }
            html += "</ol></div>";
        }
        html += "</article>";
    }
    html
}

fn class_of(thumbnails: &Thumbnails, photo: usize) -> Option<&str> {
    let label = *thumbnails.labels.get(photo)?;
    thumbnails.classes.get(label as usize).map(String::as_str)
}

fn caption(thumbnails: &Thumbnails, photo: usize) -> String {
    // A long path may break after a folder's name.
    let id = escape(&thumbnails.ids[photo]).replace('/', "/<wbr>");
    match class_of(thumbnails, photo) {
        Some(class) => format!("<b>{}</b><span>{id}</span>", escape(class)),
        None => format!("<span>{id}</span>"),
    }
}

fn picture(thumbnails: &Thumbnails, photo: usize, same: Option<bool>) -> String {
    let id = escape(&thumbnails.ids[photo]);
    let class = class_of(thumbnails, photo).map_or(String::new(), |c| format!(", {}", escape(c)));
    let same = match same {
        Some(true) => " (same class)",
        Some(false) => " (another class)",
        None => "",
    };
    if thumbnails.thumbnails[photo].is_empty() {
        return format!(
            r#"<span class="blank" role="img" aria-label="{id}{class}{same}">?</span>"#
        );
    }
    format!(
        r#"<img src="{}" alt="{id}{class}{same}" title="{id}{class}">"#,
        data_uri(&thumbnails.thumbnails[photo])
    )
}
