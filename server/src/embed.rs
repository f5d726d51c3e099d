//! `seedling embed`: features of photos, for other programs.

use crate::Outcome;
use crate::console::Console;
use crate::feature_models::{FeatureModels, open_index};
use crate::flags::Common;
use crate::photos::{self, budget};
use clap::Args;
use clap::builder::PossibleValuesParser;
use seedling_core::backbones::Arch;
use seedling_core::eval::Features;
use seedling_core::eval::extract::Extracted;
use seedling_core::index::{AlbumIndex, StoredFeatures};
use seedling_core::tensor_file::{self, Data, TensorRef};
use seedling_core::{Error, Result, atomic, session};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Write the features of photos to a file, or make the index of an album
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling embed ~/Pictures --weights seedling-run/weights.safetensors --out features.safetensors
  seedling embed ~/Pictures --weights shipped --out features.csv
  seedling embed ~/Pictures --weights seedling-run/weights.safetensors --index --out album.index
  seedling search album.index --weights seedling-run/weights.safetensors photo.jpg
safetensors: `features` (N, feature_dim) f32, photo ids as a JSON list under the metadata key `ids`.
csv: rows of id,v0,v1,... Ids are paths relative to PHOTOS.
--index writes what `seedling search` asks.")]
pub struct EmbedArgs {
    /// Folder of photos (searched recursively)
    pub photos: PathBuf,
    /// The weights: a file, or shipped
    #[arg(long, value_name = "W")]
    pub weights: String,
    /// A second network, whose features stand beside the first one's
    #[arg(long, value_name = "W2")]
    pub and: Option<String>,
    /// File to write: .safetensors or .csv; with --index any name
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Views of each photo whose features are averaged (test-time augmentation): 1, 2 (with its mirror image)
    /// or 8 (both at four sizes)
    /// [default: 1, with --index 2]
    #[arg(long, value_name = "N", value_parser = PossibleValuesParser::new(["1", "2", "8"]))]
    pub tta_views: Option<String>,
    /// Make the album's index, or renew it: only photos that are new are processed
    #[arg(long)]
    pub index: bool,
    /// Diffuse features over the album's graph of neighbors before they are written, as an index does
    #[arg(long, conflicts_with = "index")]
    pub diffuse: bool,
    /// Write the photos as queries to this index: each averaged with what it finds there
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["index", "diffuse"])]
    pub within: Option<PathBuf>,
    /// The network, for files that do not say it
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::NAMES))]
    pub arch: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// Weights or photos cannot be used, or the file cannot be written.
pub fn run(args: &EmbedArgs, console: &Console) -> Result<Outcome> {
    let csv = match args.out.extension().and_then(|e| e.to_str()) {
        _ if args.index => false,
        Some("csv") => true,
        Some("safetensors") => false,
        _ => {
            let text = format!(
                "--out {}: expected .safetensors or .csv (or --index)",
                args.out.display()
            );
            return Err(Error::Config(text));
        }
    };
    let together = args.index || args.diffuse || args.within.is_some();
    let tta_views = match &args.tta_views {
        Some(count) => count.parse().unwrap_or(1),
        None => 1 + usize::from(together),
    };
    let models = FeatureModels::open(
        &args.weights,
        args.and.as_deref(),
        args.arch.as_deref(),
        tta_views,
        &args.common,
        console,
    )?;
    let source = photos::open(&args.photos, &budget(models.config()), console)?;
    session::on_own_threads(models.config().threads, || {
        let mut known = 0;
        let found = match args.index {
            false => models.extract(&*source, console)?,
            true => {
                let (model, dim) = (models.name()?, models.feature_dim());
                let mut stored = StoredFeatures::open(Some(&args.out), &model, dim)?;
                known = source.len() - stored.missing(&*source).len();
                models.extract_missing(&*source, &mut stored, console)?;
                stored.forget_others(&*source)?;
                let (photos, features) = stored.features_of(&*source);
                Extracted {
                    features,
                    photos,
                    skipped: stored.skipped(&*source),
                }
            }
        };
        found.check(source.len())?;
        let mut features = found.features;
        if let Some(index) = &args.within {
            features = open_index(index, &models)?.0.queries(&features)?;
        } else if args.diffuse {
            features = AlbumIndex::new(&features)?.rows().clone();
        }
        let photos = &found.photos;
        let ids: Vec<&str> = photos.iter().map(|&photo| source.id(photo)).collect();
        match (args.index, csv) {
            (true, _) => {}
            (false, true) => write_csv(&args.out, &ids, &features)?,
            (false, false) => write_tensors(&args.out, &ids, &features)?,
        }
        console.skipped(&found.skipped);
        console.say(&format!(
            "{} features of {} numbers in {}{}",
            features.rows,
            features.dim,
            args.out.display(),
            match args.index {
                true => format!(", {} of them known before", known.min(features.rows)),
                false => String::new(),
            }
        ));
        console.summary(&json!({
            "command": "embed",
            "out": args.out,
            "photos": features.rows,
            "skipped": found.skipped.len(),
            "left_out": source.left_out().len(),
            "feature_dim": features.dim,
            "tta_views": tta_views,
        }));
        Ok(Outcome::Done)
    })?
}

fn write_tensors(path: &Path, ids: &[&str], features: &Features) -> Result<()> {
    let tensor = TensorRef {
        name: "features".into(),
        shape: vec![features.rows, features.dim],
        data: Data::F32(&features.values),
    };
    let metadata = BTreeMap::from([("ids".to_string(), json!(ids).to_string())]);
    tensor_file::write(path, &[tensor], &metadata)
}

fn write_csv(path: &Path, ids: &[&str], features: &Features) -> Result<()> {
    atomic::write(path, |file| {
        write!(file, "id")?;
        (0..features.dim).try_for_each(|d| write!(file, ",v{d}"))?;
        writeln!(file)?;
        for (id, row) in ids.iter().zip(features.iter()) {
            write_field(file, id)?;
            row.iter().try_for_each(|v| write!(file, ",{v}"))?;
            writeln!(file)?;
        }
        Ok(())
    })
}

/// Quotes what would otherwise read as several fields (RFC 4180).
fn write_field(file: &mut dyn Write, text: &str) -> io::Result<()> {
    match text.contains([',', '"', '\n', '\r']) {
        true => write!(file, "\"{}\"", text.replace('"', "\"\"")),
        false => write!(file, "{text}"),
    }
}
