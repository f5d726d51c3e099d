//! `seedling eval`: how good the features of a weight file are on some photos.

use crate::console::Console;
use crate::flags::Common;
use crate::photos::{self, budget};
use crate::settings::Settings;
use crate::{Outcome, shipped};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use seedling_core::backbones::Arch;
use seedling_core::config::{Config, Layer};
use seedling_core::data::{self, PhotoSource, Skipped};
use seedling_core::device::Device;
use seedling_core::encoder::{Architecture, FeatureNet};
use seedling_core::eval::extract::{EvalView, Extractor};
use seedling_core::eval::{
    Features, Knn, Measured, Metric, Panel, knn, measure_photos, measured, panel_train_test,
};
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result, session};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Measure features on photos: geometry without labels, the panel with class folders
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling eval ~/Pictures --weights seedling-run/weights.safetensors
  seedling eval PHOTOS --weights shipped --protocol knn --json
DATA with train/ and test/ inside is judged train -> test, any other by leave-one-out.")]
pub struct EvalArgs {
    /// Folder of photos; class subfolders make labels
    pub data: PathBuf,
    /// The weights: a file, or shipped
    #[arg(long, value_name = "W")]
    pub weights: String,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "geometry,knn,panel")]
    pub protocol: Vec<Protocol>,
    /// What near means
    #[arg(long, default_value = "euclidean")]
    pub metric: MetricName,
    /// The network, for files that do not say it
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::NAMES))]
    pub arch: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Alignment, uniformity, instance discrimination; with classes, their tightness
    Geometry,
    /// k nearest neighbors, the best over k
    Knn,
    /// What an app asks: precision at 10, mean average precision, 1- and 5-shot accuracy, purity
    Panel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricName {
    /// Distance of the features as they are
    Euclidean,
    /// Angle between them
    Cosine,
}

/// A network with its weights, ready to measure or embed.
pub struct Loaded {
    /// The network.
    pub encoder: Arc<dyn FeatureNet>,
    /// What the file says of it.
    pub file: WeightFile,
    /// Side of the images to show it.
    pub image_size: usize,
    /// The settings.
    pub config: Config,
}

/// Loads what `--weights` names. The image size is the one the weights were trained at, unless
/// settings say otherwise.
///
/// # Errors
/// The settings or the file cannot be used.
pub fn load(
    weights: &str,
    arch: Option<&str>,
    common: &Common,
    console: &Console,
) -> Result<Loaded> {
    let settings = Settings::new(Config::adapt(), Vec::new(), common, Layer::new("flags"))?;
    let arch = arch.map(str::parse::<Arch>).transpose()?;
    let file = shipped::open(weights, arch, "--arch ", console)?.ok_or_else(|| {
        Error::Config("--weights random: random weights have nothing to measure".into())
    })?;
    let image_size = match settings.asks_for("image_size") {
        true => settings.config.image_size,
        false => file.metadata.image_size,
    };
    let architecture = Architecture {
        head: None,
        ..file.metadata.architecture
    };
    let device: Device = settings.config.device;
    let encoder = device.load(architecture, &file)?;
    Ok(Loaded {
        encoder,
        file,
        image_size,
        config: settings.config,
    })
}

/// Runs the command.
///
/// # Errors
/// Weights, photos or settings cannot be used.
pub fn run(args: &EvalArgs, console: &Console) -> Result<Outcome> {
    let loaded = load(&args.weights, args.arch.as_deref(), &args.common, console)?;
    let whole = photos::open(&args.data, &budget(&loaded.config), console)?;
    let halves = data::split(&args.data, &whole);
    if let Some((train, test)) = &halves {
        let others = whole.len() - train.len() - test.len();
        if others > 0 {
            console.note(&format!(
                "train and test are judged; {others} photos beside them (validation, say) are not asked about"
            ));
        }
    }
    let metric = match args.metric {
        MetricName::Euclidean => Metric::Euclidean,
        MetricName::Cosine => Metric::Cosine,
    };
    let wants = |protocol| args.protocol.contains(&protocol);
    session::on_own_threads(loaded.config.threads, || {
        let extractor = |source| Extractor {
            encoder: &*loaded.encoder,
            source,
            image_size: loaded.image_size,
            normalize: &loaded.file.metadata.normalize,
        };
        let seed = loaded.config.seed;
        // With halves, geometry looks at the test half; kNN and panel ask it of the training half.
        let judged = halves.as_ref().map_or(&whole, |(_, test)| test);
        let sample = measured::sample(judged.len(), 0, seed);
        let views = wants(Protocol::Geometry);
        let classes = wants(Protocol::Knn) || wants(Protocol::Panel);
        let alone = classes && halves.is_none();
        let judged = extractor(&**judged);
        let knows = (views, alone || views);
        let bar = console.bar(sample.len() as u64, "measure");
        let mut measured = measure_photos(&judged, &sample, (seed, metric), knows, |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        if let Some((train, _)) = halves.as_ref().filter(|_| classes) {
            let test = Test {
                features: &measured.features,
                photos: &measured.photos,
                source: judged.source,
            };
            let skipped = &mut measured.skipped;
            let train = extractor(&**train);
            let found = train_test(&train, &test, (seed, metric), skipped, console)?;
            (measured.figures.knn, measured.figures.panel) = match found {
                Some((knn, panel)) => (knn, Some(panel)),
                None => (None, None),
            };
        }
        if classes && measured.figures.panel.is_none() {
            console.note("no class folders here: neighbors and classes cannot be judged");
        }
        if !wants(Protocol::Knn) {
            measured.figures.knn = None;
        }
        if !wants(Protocol::Panel) {
            measured.figures.panel = None;
        }
        console.skipped(&measured.skipped);
        show(args, &loaded, &measured, console);
        Ok(Outcome::Done)
    })?
}

/// The features of a test half, and the photos that they are of.
struct Test<'a> {
    features: &'a Features,
    photos: &'a [usize],
    source: &'a dyn PhotoSource,
}

fn train_test(
    train: &Extractor<'_>,
    test: &Test<'_>,
    (seed, metric): (u64, Metric),
    skipped: &mut Vec<Skipped>,
    console: &Console,
) -> Result<Option<(Option<Knn>, Panel)>> {
    let all: Vec<usize> = (0..train.source.len()).collect();
    let bar = console.bar(all.len() as u64, "train");
    let found = train.features(&all, &EvalView::Plain, |done| {
        bar.set_position(done as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    skipped.extend(found.skipped);
    let labels = (
        measured::labels(train.source, &found.photos),
        measured::labels(test.source, test.photos),
    );
    let (Some(train_labels), Some(test_labels)) = labels else {
        return Ok(None);
    };
    let (train, test) = (
        (&found.features, &train_labels[..]),
        (test.features, &test_labels[..]),
    );
    Ok(Some((
        knn(train, test, metric)?,
        panel_train_test(train, test, seed)?,
    )))
}

fn show(args: &EvalArgs, loaded: &Loaded, measured: &Measured, console: &Console) {
    let geometry = &measured.figures.geometry;
    let line = |name: &str, value: Option<f64>, unit: &str| {
        if let Some(value) = value {
            console.say(&format!("{name:<24}{value:>10.3}{unit}"));
        }
    };
    console.say(&format!(
        "{} on {} photos at {} px",
        loaded.file.metadata.architecture.arch,
        measured.photos.len(),
        loaded.image_size
    ));
    if args.protocol.contains(&Protocol::Geometry) {
        line("alignment", geometry.alignment, "");
        line("uniformity", geometry.uniformity, "");
        line("intra-class alignment", geometry.intra_class_alignment, "");
        line(
            "instance discrimination",
            geometry.instance_discrimination,
            " %",
        );
        line("LiDAR", geometry.lidar, "");
    }
    if let Some(knn) = &measured.figures.knn {
        let how = format!(
            " % (k = {}, {}, {:?})",
            knn.k,
            knn.protocol.name(),
            args.metric
        );
        line("best-NN", Some(knn.best_nn), &how.to_lowercase());
    }
    if let Some(panel) = &measured.figures.panel {
        line("precision at 10", panel.precision_at_10, " %");
        line("mean average precision", panel.mean_average_precision, " %");
        line("1-shot accuracy", panel.one_shot, " %");
        line("5-shot accuracy", panel.five_shot, " %");
        line("purity of clusters", panel.purity, " %");
    }
    console.summary(&json!({
        "command": "eval",
        "weights": args.weights,
        "arch": loaded.file.metadata.architecture.arch.name(),
        "image_size": loaded.image_size,
        "photos": measured.photos.len(),
        "skipped": measured.skipped.len(),
        "geometry": args.protocol.contains(&Protocol::Geometry).then_some(geometry),
        "knn": measured.figures.knn,
        "panel": measured.figures.panel,
        "collapse": measured.figures.collapse,
    }));
}
