//! `report.html`: one file that opens anywhere, without a network.

use crate::chart::{Chart, thousands};
use crate::gallery;
use crate::markup::escape;
use crate::summary::{Run, Trend};
use crate::thumbnails::Thumbnails;
use seedling_core::backbones::Arch;
use seedling_core::error::{Error, Result};
use seedling_core::records::{self, MeasureRecord, StepRecord, When};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The file's name in a run folder.
pub const FILE_NAME: &str = "report.html";

const PAGE: &str = include_str!("template/page.html");
pub(crate) const STYLE: &str = include_str!("template/style.css");
const PROGRAM: &str = include_str!("template/page.js");

/// Renders the run folder `run` into `report.html` inside it, from whatever it holds: its
/// `metrics.jsonl`, `config.toml` and `thumbnails.safetensors` may each be missing. Says where the page
/// is.
///
/// # Errors
/// [`Error::Io`] where `run` is no folder or cannot be read or written; [`Error::File`] where its
/// thumbnails are damaged.
pub fn render(run: &Path) -> Result<PathBuf> {
    if !run.is_dir() {
        return Err(Error::file(run, "no such run folder"));
    }
    let records = Run::new(records::read(&run.join(records::FILE_NAME))?);
    let thumbnails = Thumbnails::read(run)?;
    let config_path = run.join("config.toml");
    let config = match std::fs::read_to_string(&config_path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.map_err(Error::io(&config_path))?),
    };
    let name = run.canonicalize().unwrap_or_else(|_| run.to_path_buf());
    let name = name.file_name().map(|n| n.to_string_lossy().into_owned());
    let html = page(
        name.as_deref().unwrap_or("run"),
        &records,
        thumbnails.as_ref(),
        config.as_deref(),
    );
    let path = run.join(FILE_NAME);
    seedling_core::atomic::write(&path, |file| file.write_all(html.as_bytes()))?;
    Ok(path)
}

/// A verdict's words, and how they look.
fn badge(verdict: Trend) -> (&'static str, &'static str) {
    match verdict {
        Trend::Better => ("Better", "better"),
        Trend::Same => ("About the same", "same"),
        Trend::Unchanged => ("Initial weights kept", "same"),
        Trend::Worse => ("Worse", "worse"),
        Trend::Unknown => ("", "unknown"),
    }
}

/// The whole page.
fn page(name: &str, run: &Run, thumbnails: Option<&Thumbnails>, config: Option<&str>) -> String {
    let settings = config.map(|text| text.parse::<toml::Table>());
    let arch = match &settings {
        Some(Ok(table)) => table.get("arch").and_then(|v| v.as_str()),
        _ => None,
    };
    let (verdict, sentence) = run.verdict();
    let (badge, class) = badge(verdict);
    let badge = match badge {
        "" => String::new(),
        text => format!(r#"<p class="badge {class}">{text}</p>"#),
    };
    let warning = run.collapse().map_or(String::new(), |text| {
        format!(
            r#"<p class="warning" role="note">Warning: {}</p>"#,
            escape(text)
        )
    });
    let map = thumbnails.and_then(gallery::map_data);
    let data = map.as_ref().and_then(|m| serde_json::to_string(m).ok());
    let mut parts = [
        section("change", "Side by side", &table(run)),
        section("curves", "Over the run", &curves(run)),
        map_section(thumbnails, data.is_some()),
        neighbor_section(thumbnails),
        section("settings", "Settings", &settings_table(config, &settings)),
    ]
    .concat();
    if parts.is_empty() {
        parts = r#"<section><p class="note">This run has left nothing to show yet.</p></section>"#
            .into();
    }
    // Inside a script element only `<` can end it early.
    let data = data
        .unwrap_or_else(|| "null".into())
        .replace('<', "\\u003c");
    let title = heading(run, arch);
    // Who passes the page on should know what is in it.
    let holds = match thumbnails {
        Some(a) if !a.ids.is_empty() => "It holds small copies of some photos. ",
        _ => "",
    };
    fill(&[
        ("title", &escape(&format!("{title} \u{b7} {name}"))),
        ("style", STYLE),
        ("run", &escape(name)),
        ("heading", &escape(&title)),
        ("badge", &badge),
        ("sentence", &escape(&sentence)),
        ("warning", &warning),
        ("facts", &facts(run)),
        ("parts", &parts),
        ("holds", holds),
        ("data", &data),
        ("program", PROGRAM),
    ])
}

/// Puts values into the page's `{{name}}` places in one pass, so that no value is searched for
/// places itself.
fn fill(values: &[(&str, &str)]) -> String {
    let mut out =
        String::with_capacity(PAGE.len() + values.iter().map(|v| v.1.len()).sum::<usize>());
    let mut rest = PAGE;
    while let Some((text, tail)) = rest.split_once("{{") {
        out += text;
        let (key, tail) = tail.split_once("}}").unwrap_or((tail, ""));
        out += values.iter().find(|v| v.0 == key).map_or("", |v| v.1);
        rest = tail;
    }
    out + rest
}

fn section(id: &str, heading: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!(r#"<section id="{id}"><h2>{heading}</h2>{body}</section>"#)
}

fn heading(run: &Run, arch: Option<&str>) -> String {
    let arch = match arch {
        Some(name) => match name.parse::<Arch>() {
            Ok(arch) => format!("{}, ", arch.spec().title),
            Err(_) => format!("{name}, "),
        },
        None => String::new(),
    };
    let done = match (run.info.method.as_str(), run.info.photos) {
        ("adapt", Some(n)) => format!("adapted to {} photos", thousands(n as f64)),
        ("adapt", None) => "adapted".into(),
        ("distill", _) => "distilled".into(),
        ("pretrain", _) => "pretrained".into(),
        _ if run.steps.is_empty() && run.measures.is_empty() => "not trained yet".into(),
        _ => "trained".into(),
    };
    if arch.is_empty() {
        let (first, rest) = done.split_at(1);
        return first.to_uppercase() + rest;
    }
    arch + &done
}

fn facts(run: &Run) -> String {
    let info = &run.info;
    let speeds: Vec<f64> = run
        .steps
        .iter()
        .filter_map(|s| s.images_per_second)
        .collect();
    let speed = (!speeds.is_empty()).then(|| speeds.iter().sum::<f64>() / speeds.len() as f64);
    let peak = run
        .steps
        .iter()
        .filter_map(|s| s.peak_memory_mb)
        .reduce(f64::max);
    let peak = info.peak_memory_mb.or(peak);
    let items = [
        ("Photos", info.photos.map(|n| thousands(n as f64))),
        (
            "Unreadable, skipped",
            info.skipped.map(|n| thousands(n as f64)),
        ),
        (
            "Left out beside them",
            info.left_out
                .filter(|n| *n > 0)
                .map(|n| thousands(n as f64)),
        ),
        ("Steps", run.steps.last().map(|s| thousands(s.step as f64))),
        ("Time", info.seconds.map(duration)),
        ("Speed", speed.map(|s| format!("{s:.1} photos/s"))),
        (
            "Peak memory",
            peak.map(|mb| format!("{} MiB", thousands(mb))),
        ),
    ];
    let mut html = String::new();
    for (name, value) in items {
        if let Some(value) = value {
            let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
    }
    if html.is_empty() {
        return html;
    }
    format!(r#"<dl class="facts">{html}</dl>"#)
}

fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

fn table(run: &Run) -> String {
    let rows = run.rows();
    if rows.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = run.columns().iter().map(|(name, _)| *name).collect();
    let head = |name: &str| format!(r#"<th role="columnheader" scope="col" class="n">{name}</th>"#);
    let heads: String = names.iter().map(|name| head(name)).collect();
    let mut html = format!(
        r#"<table class="change" role="table"><thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Measure</th>{heads}{}<th role="columnheader" scope="col" class="why">What it says</th></tr></thead><tbody role="rowgroup">"#,
        head("Change")
    );
    for row in rows {
        let (change, class, spoken) = match row.change() {
            None => ("\u{2013}".to_string(), "", ""),
            Some((text, verdict)) => {
                let (class, spoken) = match verdict {
                    Trend::Better => ("better", "better"),
                    Trend::Worse => ("worse", "worse"),
                    _ => ("same", ""),
                };
                let arrow = match text.chars().next() {
                    Some('+') => "\u{2191}",
                    Some('\u{2212}') => "\u{2193}",
                    _ => "",
                };
                let text = format!(
                    r#"<span aria-hidden="true">{arrow}</span> {}"#,
                    text.trim_start_matches(['+', '\u{2212}'])
                );
                (text, class, spoken)
            }
        };
        let cells: String = names
            .iter()
            .zip(&row.values)
            .enumerate()
            .map(|(i, (name, value))| {
                let last = if i + 1 == names.len() { " after" } else { "" };
                let value = row.show(*value);
                format!(r#"<td role="cell" class="n{last}" data-name="{name}">{value}</td>"#)
            })
            .collect();
        let _ = write!(
            html,
            r#"<tr role="row"><th role="rowheader" scope="row">{}</th>{cells}<td role="cell" class="n {class}" data-name="Change">{change}{}</td><td role="cell" class="why">{}</td></tr>"#,
            row.name,
            if spoken.is_empty() {
                String::new()
            } else {
                format!(r#" <small>{spoken}</small>"#)
            },
            row.meaning,
        );
    }
    html + "</tbody></table>"
}

fn curves(run: &Run) -> String {
    if run.steps.is_empty() {
        return String::new();
    }
    let steps = |value: fn(&StepRecord) -> f64| {
        run.steps
            .iter()
            .map(|s| (s.step as f64, value(s)))
            .collect::<Vec<_>>()
    };
    let measures = |value: fn(&MeasureRecord) -> Option<f64>| {
        let known = run.measures.iter();
        // Curves are of what training changes.
        let known = known.filter(|m| m.when != When::ClosedForm);
        known
            .filter_map(|m| value(m).map(|v| (m.step as f64, v)))
            .collect::<Vec<_>>()
    };
    let loss_note = match run.info.method.as_str() {
        "distill" => "Lower is closer to the teacher.",
        _ => "May rise at first, while the queue still holds random keys.",
    };
    let chart = |title, note, points, unit| Chart {
        title,
        note,
        unit,
        dots: true,
        points,
        from_zero: false,
    };
    let charts = [
        Chart {
            dots: false,
            ..chart("Loss", loss_note, steps(|s| s.loss), "")
        },
        Chart {
            dots: false,
            from_zero: true,
            ..chart("Learning rate", "Size of a step.", steps(|s| s.lr), "")
        },
        chart(
            "Best-NN",
            "Higher is better.",
            measures(|m| m.best_nn),
            " %",
        ),
        chart(
            "Instance discrimination",
            "Higher is better.",
            measures(|m| m.instance_discrimination),
            " %",
        ),
        chart(
            "Alignment",
            "Lower is steadier.",
            measures(|m| m.alignment),
            "",
        ),
        chart(
            "Uniformity",
            "More negative is more even.",
            measures(|m| m.uniformity),
            "",
        ),
    ];
    let html: String = charts.iter().map(Chart::html).collect();
    if html.is_empty() {
        return html;
    }
    format!(r#"<div class="charts">{html}</div>"#)
}

fn map_section(thumbnails: Option<&Thumbnails>, drawn: bool) -> String {
    let Some(thumbnails) = thumbnails.filter(|_| drawn) else {
        return String::new();
    };
    let colors = if thumbnails.labels.is_empty() {
        ""
    } else {
        " Colors are classes; the training never saw them."
    };
    let body = format!(
        r#"<p class="note">{} photos, laid out so that photos with similar features lie close together (t-SNE). Distances between far groups mean little.{colors}</p><div id="map"><noscript>The map needs JavaScript.</noscript></div>"#,
        thousands(thumbnails.ids.len() as f64)
    );
    section("photos", "The photos as the model sees them", &body)
}

fn neighbor_section(thumbnails: Option<&Thumbnails>) -> String {
    let rows = thumbnails.map(gallery::neighbors).unwrap_or_default();
    if rows.is_empty() {
        return rows;
    }
    let frames = match thumbnails {
        Some(a) if !a.labels.is_empty() => {
            r#" <span class="nowrap"><span class="key same"></span> of the same class,</span> <span class="nowrap"><span class="key other"></span> of another.</span>"#
        }
        _ => "",
    };
    let note = format!(
        r#"<p class="note">Photos taken evenly from the album, and the ones the model finds most like them, nearest first.{frames}</p>"#
    );
    section("neighbors", "Nearest neighbors", &(note + &rows))
}

fn settings_table(
    config: Option<&str>,
    parsed: &Option<std::result::Result<toml::Table, toml::de::Error>>,
) -> String {
    match (config, parsed) {
        (Some(text), Some(Ok(table))) if !text.trim().is_empty() => {
            let mut html = String::from(r#"<dl class="settings">"#);
            for (key, value) in table {
                let value = match value {
                    toml::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let _ = write!(
                    html,
                    "<div><dt>{}</dt><dd>{}</dd></div>",
                    escape(key),
                    escape(&value)
                );
            }
            html + "</dl>"
        }
        (Some(text), _) if !text.trim().is_empty() => format!("<pre>{}</pre>", escape(text)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_never_looks_into_values() {
        let html = fill(&[("title", "{{data}}"), ("data", "null")]);
        assert!(html.contains("<title>{{data}}</title>"));
        assert_eq!(duration(59.6), "1 min 0 s");
        assert_eq!(duration(7384.0), "2 h 3 min");
    }

    #[test]
    fn badges_are_words_a_person_reads() {
        let all = [
            Trend::Better,
            Trend::Same,
            Trend::Unchanged,
            Trend::Worse,
            Trend::Unknown,
        ];
        let words = [
            "Better",
            "About the same",
            "Initial weights kept",
            "Worse",
            "",
        ];
        assert_eq!(all.map(|verdict| badge(verdict).0), words);
    }
}
