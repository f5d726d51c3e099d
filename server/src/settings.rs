//! From flags to settings: defaults, preset, file, `--set`, dedicated flags, in this order.

use crate::console::Console;
use crate::flags::{Common, Training};
use seedling_core::config::{Config, Layer};
use seedling_core::data::PhotoSource;
use seedling_core::memory::{self, Budget};
use seedling_core::session::helpful;
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result};

/// Settings, and which of them were asked for.
pub struct Settings {
    /// All of them.
    pub config: Config,
    layers: Vec<Layer>,
}

impl Settings {
    /// Lays the layers over `base`.
    ///
    /// # Errors
    /// A file cannot be read; a key is unknown or its value not allowed.
    pub fn new(base: Config, first: Vec<Layer>, common: &Common, flags: Layer) -> Result<Settings> {
        let mut layers = first;
        if let Some(path) = &common.config {
            layers.push(Layer::read(path)?);
        }
        layers.push(Layer::from_assignments(&common.set)?);
        let mut flags = flags;
        flags
            .set("device", common.device.clone())
            .set("threads", common.threads.map(i64::from))
            .set("seed", common.seed.map(i64::from));
        layers.push(flags);
        let mut settings = Settings {
            config: base,
            layers,
        };
        let asked = settings.reapply()?;
        let helpful = settings.config.threads;
        if helpful < asked {
            Console::new(common).note(&format!(
                "threads: {helpful} instead of {asked}; more only wait for each other"
            ));
        }
        Ok(settings)
    }

    /// Sets what follows from what was asked for ([`Config::infer_from_requested`]).
    pub fn infer_from_requested(&mut self) {
        let mut config = self.config.clone();
        config.infer_from_requested(|key| self.asks_for(key));
        self.config = config;
    }

    /// Puts another base under the same layers (a checkpoint's settings).
    ///
    /// # Errors
    /// As [`Settings::new`].
    pub fn rebase(&mut self, base: Config) -> Result<()> {
        self.config = base;
        self.reapply().map(drop)
    }

    /// Picks what keeps a run, from these weights and on these photos, within `budget` megabytes;
    /// says in a line what that is.
    ///
    /// # Errors
    /// Nothing is small enough.
    pub fn fit_memory(
        &mut self,
        run: (Option<&WeightFile>, &dyn PhotoSource),
        budget: u32,
    ) -> Result<Option<String>> {
        let mut config = self.config.clone();
        let budget_of = Budget {
            megabytes: budget as usize,
            unified: false,
        };
        let found = memory::fit_budget(&mut config, run, budget_of, |key| self.asks_for(key))?;
        self.config = config;
        let Some(found) = found else {
            // A GPU takes as many micro-batches at once as fit, which it finds out itself.
            return Ok(None);
        };
        let Config {
            bn_group,
            freeze,
            image_size,
            ..
        } = self.config;
        Ok(Some(format!(
            "{budget} MB: micro-batches of {bn_group}, {image_size} px, {freeze} stages frozen; takes about \
             {:.0} MB (program {:.0}, networks {:.0}, photos {:.0}, views {:.0}, work {:.0})",
            found.total(),
            found.program,
            found.networks,
            found.photos,
            found.batches,
            found.work
        )))
    }

    /// Puts a checkpoint's settings under the layers of a command that named a budget when it
    /// began the run. The micro-batch that was picked stays: a `bn_group` in the layers is what it was
    /// then, the most that may be picked.
    ///
    /// # Errors
    /// As [`Settings::new`].
    pub fn rebase_within_budget(&mut self, base: Config) -> Result<()> {
        let picked = base.bn_group as i64;
        for layer in &mut self.layers {
            let most = layer.values.get("bn_group").and_then(|v| v.as_integer());
            if most.is_some_and(|most| most >= picked) {
                layer.values.remove("bn_group");
            }
        }
        self.rebase(base)
    }

    /// Lays the layers over the base; says how many threads they ask for, of which as many as help are kept.
    fn reapply(&mut self) -> Result<usize> {
        for layer in &self.layers {
            self.config.apply(layer)?;
        }
        let asked = self.config.threads;
        self.config.threads = helpful(asked);
        Ok(asked)
    }

    /// Whether some layer names `key`: then a better default must not replace it.
    pub fn asks_for(&self, key: &str) -> bool {
        self.layers
            .iter()
            .any(|layer| layer.values.contains_key(key))
    }
}

/// The layer of a training command's own flags.
pub fn training_flags(training: &Training) -> Layer {
    let mut flags = Layer::new("flags");
    flags
        .set("epochs", training.epochs.map(i64::from))
        .set("steps", training.steps.map(i64::from));
    if training.epochs.is_some() {
        // An explicit number of epochs overrules steps from a file or a preset.
        flags.set("steps", Some(0));
    }
    flags
}

/// 2 for settings that no machine could run (usage), 1 for everything else.
pub fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Config(_) => 2,
        _ => 1,
    }
}
