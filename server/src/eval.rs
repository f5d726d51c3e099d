//! `seedling eval`: how good the features of a weight file are on some photos.

mod judge;
mod probe;
mod show;

use crate::console::Console;
use crate::flags::Common;
use crate::photos::{self, budget};
use crate::settings::Settings;
use crate::{Outcome, shipped};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use judge::{Judge, Judged};
use probe::{Lr, TransferTo};
use seedling_core::backbones::Arch;
use seedling_core::config::{Config, Layer};
use seedling_core::data;
use seedling_core::device::Device;
use seedling_core::encoder::{Architecture, FeatureNet};
use seedling_core::eval::Metric;
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result, session};
use std::path::PathBuf;
use std::sync::Arc;

/// Measure features on photos: geometry without labels, the panel with class folders
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling eval ~/Pictures --weights seedling-run/weights.safetensors
  seedling eval PHOTOS --weights shipped --protocol knn --json
  seedling eval CIFAR --weights a.safetensors --weights b.safetensors --protocol all --page eval.html
DATA with train/ and test/ inside is judged train -> test, any other by leave-one-out; a linear layer is then
trained on a part of each class and asked about the rest.")]
pub struct EvalArgs {
    /// Folder of photos; class subfolders make labels
    pub data: PathBuf,
    /// The weights: a file, or shipped; repeatable, and shown side by side
    #[arg(long, value_name = "W", required = true)]
    pub weights: Vec<String>,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "geometry,knn,panel")]
    pub protocol: Vec<Protocol>,
    /// What near means
    #[arg(long, default_value = "euclidean")]
    pub metric: MetricName,
    /// Learning rate of the linear layers: a number, or search, which tries rates on a fifth of the training photos
    /// [default: the paper's, 30 for linear, 1.5 or 2 for transfer]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<Lr>,
    /// Crops of each training photo whose features a linear layer is trained on, an epoch on each in turn
    /// [default: 10, fewer for more than 2,000 photos]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub crops: Option<u32>,
    /// Whose schedule transfer has
    #[arg(long, value_name = "DATASET", default_value = "auto")]
    pub transfer_to: TransferTo,
    /// Write table and figures (t-SNE, alignment and uniformity) into this page
    #[arg(long, value_name = "FILE.html")]
    pub page: Option<PathBuf>,
    /// Write the figure of photos and their views, as SVG
    #[arg(long, value_name = "FILE.svg", hide = true)]
    pub triangles: Option<PathBuf>,
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
    /// What an app asks: precision at 10, mean average precision, 1-, 5- and 20-shot accuracy, purity
    Panel,
    /// A linear layer on frozen features, by the paper's schedule (100 epochs)
    Linear,
    /// A linear layer on unit features, as the paper transfers to CIFAR and Caltech-101
    Transfer,
    /// All of these
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricName {
    /// Distance of the features as they are
    Euclidean,
    /// Angle between them
    Cosine,
}

impl EvalArgs {
    fn wants(&self, protocol: Protocol) -> bool {
        self.protocol.contains(&protocol) || self.protocol.contains(&Protocol::All)
    }

    fn metric(&self) -> Metric {
        match self.metric {
            MetricName::Euclidean => Metric::Euclidean,
            MetricName::Cosine => Metric::Cosine,
        }
    }
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
    let mut all: Vec<Judged> = Vec::new();
    let names = show::names(&args.weights);
    // A mistake in the last name is told before the first is measured.
    let load = |weights: &String| load(weights, args.arch.as_deref(), &args.common, console);
    let loaded: Vec<Loaded> = args.weights.iter().map(load).collect::<Result<_>>()?;
    let mut source = None;
    for ((weights, name), loaded) in args.weights.iter().zip(names).zip(&loaded) {
        let whole = match &source {
            Some(whole) => Arc::clone(whole),
            None => source
                .insert(photos::open(&args.data, &budget(&loaded.config), console)?)
                .clone(),
        };
        let halves = data::split(&args.data, &whole);
        if let (Some((train, test)), true) = (&halves, all.is_empty()) {
            let others = whole.len() - train.len() - test.len();
            if others > 0 {
                console.note(&format!(
                    "train and test are judged; {others} photos beside them (validation, say) are not asked about"
                ));
            }
        }
        if args.weights.len() > 1 {
            console.note(&format!("{name} ({weights})"));
        }
        let judge = Judge {
            args,
            loaded,
            whole: &whole,
            halves: halves.as_ref().map(|(train, test)| (train, test)),
            console,
        };
        let judged =
            session::on_own_threads(loaded.config.threads, || judge.judge(name, weights))??;
        console.skipped(&judged.skipped);
        all.push(judged);
    }
    show::table(args, &all, console);
    if let Some(path) = &args.triangles {
        show::triangles(path, &all)?;
    }
    if let Some(path) = &args.page {
        show::page(path, &args.data, args, &all)?;
        console.say(&format!("page     {}", path.display()));
    }
    console.summary(&show::summary(args, &all));
    Ok(Outcome::Done)
}
