//! `seedling embed`: features of photos, for other programs.

use crate::Outcome;
use crate::console::Console;
use crate::eval::load;
use crate::flags::Common;
use crate::photos::budget;
use clap::Args;
use clap::builder::PossibleValuesParser;
use seedling_core::backbones::Arch;
use seedling_core::data;
use seedling_core::eval::Features;
use seedling_core::eval::extract::{Extracted, Extractor, Look};
use seedling_core::tensor_file::{self, Data, TensorRef};
use seedling_core::{Error, Result, atomic, session};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Write the features of photos to a file
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling embed ~/Pictures --weights seedling-run/weights.safetensors --out features.safetensors
  seedling embed ~/Pictures --weights shipped --out features.csv
safetensors: `features` (N, feature_dim) f32, photo ids as a JSON list under the metadata key `ids`.
csv: rows of id,v0,v1,... Ids are paths relative to PHOTOS.")]
pub struct EmbedArgs {
    /// Folder of photos (searched recursively)
    pub photos: PathBuf,
    /// The weights: a file, or shipped
    #[arg(long, value_name = "W")]
    pub weights: String,
    /// File to write: .safetensors or .csv
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
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
        Some("csv") => true,
        Some("safetensors") => false,
        _ => {
            let text = format!(
                "--out {}: expected .safetensors or .csv",
                args.out.display()
            );
            return Err(Error::Config(text));
        }
    };
    let loaded = load(&args.weights, args.arch.as_deref(), &args.common)?;
    let source = data::open_within(&args.photos, budget(&loaded.config))?;
    session::on_own_threads(loaded.config.threads, || {
        let all: Vec<usize> = (0..source.len()).collect();
        let extractor = Extractor {
            encoder: &*loaded.encoder,
            source: &*source,
            image_size: loaded.image_size,
            normalise: &loaded.file.about.normalise,
        };
        let bar = console.bar(all.len() as u64, "embed");
        let Extracted {
            features,
            photos,
            skipped,
        } = extractor.features(&all, &Look::Plain, |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        let ids: Vec<&str> = photos.iter().map(|&photo| source.id(photo)).collect();
        match csv {
            true => write_csv(&args.out, &ids, &features)?,
            false => write_tensors(&args.out, &ids, &features)?,
        }
        console.skipped(&skipped);
        console.say(&format!(
            "{} features of {} numbers in {}",
            features.rows,
            features.dim,
            args.out.display()
        ));
        console.summary(&json!({
            "command": "embed",
            "out": args.out,
            "photos": features.rows,
            "skipped": skipped.len(),
            "feature_dim": features.dim,
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
