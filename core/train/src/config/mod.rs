//! Every setting of a run, flat: the same names in `config.toml`, in `--set` and in the code.
//!
//! Values come in layers, later ones winning: a command's defaults, a preset, a file, `--set`,
//! dedicated flags. [`Config::apply`] lays one layer over another and refuses what it does not
//! know, so that a typo is an error and never a silently ignored wish.

mod choices;
mod defaults;
mod device;
mod keys;
mod presets;

pub use choices::{ActivationDtype, Choice, DistillMethod, Keep, OptimizerKind, TeacherHead};
pub use device::{DEVICES, Device};
pub use keys::{Allowed, Config, KEYS, Key};
pub use presets::{PRESETS, preset, preset_text};

use crate::{Error, Result};
use keys::RENAMED;
use std::path::Path;

/// One layer of settings and where they were written, for error messages.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What a message calls it (`--set`, a file name, a flag).
    pub origin: String,
    /// Key to value.
    pub values: toml::Table,
}

impl Layer {
    /// An empty layer to [`Layer::set`] dedicated flags into.
    pub fn new(origin: impl Into<String>) -> Layer {
        Layer {
            origin: origin.into(),
            values: toml::Table::new(),
        }
    }

    /// Adds a value where one was given; `None` leaves the layers below visible.
    pub fn set(&mut self, key: &str, value: Option<impl Into<toml::Value>>) -> &mut Layer {
        if let Some(value) = value {
            self.values.insert(key.to_string(), value.into());
        }
        self
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML (the message names the line).
    pub fn read(path: &Path) -> Result<Layer> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Layer::parse(&text, &path.display().to_string())
    }

    /// Reads TOML that was written in `origin`.
    ///
    /// # Errors
    /// It is not TOML (the message names the line).
    pub fn parse(text: &str, origin: &str) -> Result<Layer> {
        let values = text.parse::<toml::Table>().map_err(|error| {
            Error::file(origin, format!("not valid TOML: {}", one_line(&error)))
        })?;
        Ok(Layer {
            origin: origin.into(),
            values,
        })
    }

    /// Reads `key=value` texts as given to `--set`. Text values need no quotes.
    ///
    /// # Errors
    /// A text has no `=`, an unknown key, or a value that is not of the key's type.
    pub fn from_assignments<S: AsRef<str>>(assignments: &[S]) -> Result<Layer> {
        let mut layer = Layer::new("--set");
        for assignment in assignments {
            let assignment = assignment.as_ref();
            let (name, text) = assignment
                .split_once('=')
                .ok_or_else(|| Error::Config(format!("--set {assignment}: expected key=value")))?;
            let (name, text) = (name.trim(), text.trim());
            let key = key(name, &layer.origin)?;
            let parsed = format!("value = {text}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|mut table| table.remove("value"));
            let value = match (parsed, &key.allowed) {
                (Some(value @ toml::Value::String(_)), _) => value,
                (_, Allowed::Text | Allowed::OneOf(_)) => text.into(),
                (Some(value), _) => value,
                (None, _) => text.into(),
            };
            layer.values.insert(name.to_string(), value);
        }
        Ok(layer)
    }
}

impl Config {
    /// Lays `layer` over these settings and checks each of its values.
    ///
    /// # Errors
    /// An unknown key (the message names the nearest known one), a value of the wrong type or
    /// out of range (the message names key, value and what is allowed).
    pub fn apply(&mut self, layer: &Layer) -> Result<()> {
        for (name, value) in &layer.values {
            let key = key(name, &layer.origin)?;
            if !key.allowed.permits(value) {
                return Err(Error::Config(format!(
                    "{}: {name} = {value} is not allowed; expected {}",
                    layer.origin, key.allowed
                )));
            }
            self.set(name, value);
        }
        Ok(())
    }

    /// Checks what concerns several keys at once; call it when all layers are in place.
    ///
    /// # Errors
    /// The settings contradict each other; the message says which and what would do.
    pub fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if !self.batch_size.is_multiple_of(self.bn_group) {
            return fail(format!(
                "batch_size = {} is not a multiple of bn_group = {}; a batch runs as whole micro-batches",
                self.batch_size, self.bn_group
            ));
        }
        if (1..32).contains(&self.measure_size) {
            return fail(format!(
                "measure_size = {} is too small; expected 0 or 32 to 1024",
                self.measure_size
            ));
        }
        if self.neighbor_weight > 0.0 && self.label_smoothing > 0.0 {
            return fail(
                "neighbor_weight and label_smoothing both make a soft target: one must be 0".into(),
            );
        }
        if self.optimizer == OptimizerKind::AdamW && self.l2_sp > 0.0 {
            return fail("l2_sp needs optimizer = sgd".into());
        }
        if self.precision == ActivationDtype::Bf16 && self.arch.spec().tokens {
            return fail(format!(
                "precision = bf16 is for networks of convolutions, and {} is none",
                self.arch
            ));
        }
        if !self.trains() && !self.whitening {
            return fail("epochs and steps are both 0: nothing would be done".into());
        }
        Ok(())
    }

    /// Sets what follows from what someone `asks_for` by a key's name: whoever asks for epochs or steps wants
    /// training, however small the dataset.
    pub fn infer_from_requested(&mut self, asks_for: impl Fn(&str) -> bool) {
        if (asks_for("epochs") || asks_for("steps")) && !asks_for("train_from") {
            self.train_from = 0;
        }
    }

    /// Whether any step is to be taken: otherwise the dataset's statistics are all there is.
    pub fn trains(&self) -> bool {
        self.epochs > 0 || self.steps > 0
    }

    /// Whether the initial weights stay unless the result is better. Random ones never do.
    pub fn selects_weights(&self) -> bool {
        self.trains() && self.keep == Keep::Better && self.init != "random"
    }

    /// Whether the initial weights are needed at the end.
    pub fn keeps_initial(&self) -> bool {
        self.trains() && (self.interpolation < 1.0 || self.selects_weights())
    }

    /// The settings as a TOML document with a comment on every key.
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# All settings of this run, resolved.\n");
        for key in KEYS {
            text.push('\n');
            for line in key.meaning.trim().lines() {
                text.push_str(&format!("# {}\n", line.trim()));
            }
            text.push_str(&format!("# Allowed: {}.\n", key.allowed));
            text.push_str(&format!("{} = {}\n", key.name, self.get(key.name)));
        }
        text
    }

    /// Reads what [`Config::to_toml`] wrote; keys that are missing keep this value.
    ///
    /// # Errors
    /// As [`Config::apply`].
    pub fn with_toml(mut self, text: &str, origin: &str) -> Result<Config> {
        let values = text.parse::<toml::Table>().map_err(|error| {
            Error::Config(format!("{origin}: not valid TOML: {}", one_line(&error)))
        })?;
        self.apply(&Layer {
            origin: origin.to_string(),
            values,
        })?;
        Ok(self)
    }

    /// The keys in which `other` differs and that a resumed run must not change, as
    /// (key, value here, value there).
    pub fn differences(&self, other: &Config) -> Vec<(&'static str, String, String)> {
        KEYS.iter()
            .filter(|key| !key.may_change)
            .map(|key| (key.name, self.get(key.name), other.get(key.name)))
            .filter(|(_, here, there)| here != there)
            .map(|(name, here, there)| (name, here.to_string(), there.to_string()))
            .collect()
    }
}

/// Looks a key up by name.
fn key(name: &str, origin: &str) -> Result<&'static Key> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == name) {
            return Error::Config(format!("{origin}: `{name}` is called `{now}` now"));
        }
        let nearest = KEYS
            .iter()
            .map(|key| (strsim::damerau_levenshtein(key.name, name), key.name))
            .min()
            .map_or("", |(_, nearest)| nearest);
        Error::Config(format!(
            "{origin}: unknown key `{name}`; did you mean `{nearest}`?"
        ))
    })
}

/// A TOML error with its position, on one line.
fn one_line(error: &toml::de::Error) -> String {
    error
        .to_string()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('|'))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests;
