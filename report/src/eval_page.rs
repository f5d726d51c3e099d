//! What `seedling eval` has measured, as one self-contained page.

use crate::chart::{minus, significant};
use crate::html::STYLE;
use crate::markup::escape;
use crate::plane::{self, Mark};
pub use crate::triangles::Triangles;
use crate::triangles::percent;
use std::fmt::Write as _;

/// A column of the table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Whose figures they are.
    pub subject: String,
    /// Of which half of the photos; empty where there are no halves.
    pub half: String,
    /// One for each row.
    pub values: Vec<Option<f64>>,
}

/// A network that was measured.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub name: String,
    pub about: String,
    pub alignment: Option<f64>,
    pub uniformity: Option<f64>,
    pub intra_class_alignment: Option<f64>,
    pub triangles: Option<&'a Triangles>,
}

const FIGURES: &str = include_str!("template/figures.css");

/// The page about the dataset `data`: rows of the table by name, its columns, and figures of each network.
pub fn render(data: &str, rows: &[String], columns: &[Column], subjects: &[Subject<'_>]) -> String {
    let title = escape(&format!("Features on {data}"));
    let about: String = subjects
        .iter()
        .map(|subject| match subjects.len() {
            1 => escape(&subject.about),
            _ => format!(
                "<b>{}</b> {}<br>",
                escape(&subject.name),
                escape(&subject.about)
            ),
        })
        .collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}{FIGURES}</style>
</head>
<body>
<header><p class="run"><b>Seedling</b> <span>eval</span></p><h1>{title}</h1><p class="note">{about}</p></header>
<main>
<section><h2>Figures</h2>{}</section>
{}{}
</main>
<footer><p>Made by <code>seedling eval</code>. It holds no photos, loads nothing from anywhere and sends nothing.</p></footer>
</body>
</html>
"#,
        table(rows, columns),
        the_plane(subjects),
        maps(subjects),
    )
}

fn table(rows: &[String], columns: &[Column]) -> String {
    let head = |text: &str| format!(r#"<th scope="col">{}</th>"#, escape(text));
    let halves = columns.iter().any(|column| !column.half.is_empty());
    let mut html = String::from(r#"<div class="wide"><table class="figures"><thead><tr><th></th>"#);
    html.extend(columns.iter().map(|column| head(&column.subject)));
    if halves {
        html += "</tr><tr><th></th>";
        html.extend(columns.iter().map(|column| head(&column.half)));
    }
    html += "</tr></thead><tbody>";
    for (place, name) in rows.iter().enumerate() {
        let values: Vec<Option<f64>> = columns.iter().map(|column| column.values[place]).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(html, r#"<tr><th scope="row">{}</th>"#, escape(name));
        for value in values {
            let shown = match value {
                Some(value) if value.fract() == 0.0 && name == "its k" => format!("{value:.0}"),
                Some(value) if name.ends_with('%') => minus(format!("{value:.2}")),
                Some(value) => significant(value),
                None => "\u{2013}".into(),
            };
            let _ = write!(html, "<td>{shown}</td>");
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

fn the_plane(subjects: &[Subject<'_>]) -> String {
    // Within classes where there are any, as in the paper.
    let classes = subjects
        .iter()
        .all(|one| one.intra_class_alignment.is_some());
    let (across, of): (_, fn(&Subject<'_>) -> Option<f64>) = match classes {
        true => ("intra-class alignment", |one| one.intra_class_alignment),
        false => ("alignment", |one| one.alignment),
    };
    let mark = |one: &Subject<'_>| {
        Some(Mark {
            name: one.name.clone(),
            alignment: of(one)?,
            uniformity: one.uniformity?,
        })
    };
    let marks: Vec<Mark> = subjects.iter().filter_map(mark).collect();
    let figure = plane::svg(across, &marks);
    if figure.is_empty() {
        return figure;
    }
    format!(
        r#"<section><h2>Alignment and uniformity</h2><p class="note">How near photos that belong together lie (to the left is nearer), and how evenly all of them fill the sphere (lower is more even).</p><div class="figure-grid"><figure class="chart">{figure}</figure></div></section>"#
    )
}

fn maps(subjects: &[Subject<'_>]) -> String {
    let mut figures = String::new();
    let mut legend = String::new();
    for subject in subjects {
        let Some((triangles, (svg, width))) = subject.triangles.and_then(|t| Some((t, t.svg()?)))
        else {
            continue;
        };
        if legend.is_empty() {
            legend = triangles.legend();
        }
        let _ = write!(
            figures,
            r#"<figure class="chart"><figcaption><h3>{}</h3><p>{} photos; the middling triangle's sides are {} of the map's width</p></figcaption>{svg}</figure>"#,
            escape(&subject.name),
            triangles.labels.len(),
            percent(width)
        );
    }
    match figures.is_empty() {
        true => figures,
        false => format!(
            r#"<section><h2>Photos and their views</h2><p class="note">t-SNE of photos and of two random views of each, joined by a triangle; the inset enlarges a triangle of middling size a hundred times. Where triangles are specks, the network sees nothing but which photo it is: it is over-clustered.</p>{legend}<div class="figure-grid">{figures}</div></section>"#
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_what_there_is_and_no_more() {
        let column = |subject: &str, half: &str, values: &[Option<f64>]| Column {
            subject: subject.into(),
            half: half.into(),
            values: values.to_vec(),
        };
        let rows = ["alignment", "best-NN %", "purity %"].map(String::from);
        let columns = [
            column("<a>", "train", &[Some(0.25), None, None]),
            column("<a>", "test", &[Some(-0.5), Some(61.234), None]),
        ];
        let subject = Subject {
            name: "<a>".into(),
            about: "on 3 photos".into(),
            alignment: Some(0.5),
            uniformity: Some(-2.0),
            intra_class_alignment: None,
            triangles: None,
        };
        let page = render("x & y", &rows, &columns, &[subject]);
        assert!(page.contains("Features on x &amp; y") && page.contains("61.23"));
        assert!(page.contains("class=\"plane\"") && !page.contains("class=\"triangles\""));
        assert!(!page.contains("purity") && !page.contains("<a>"));
    }
}
