//! How much memory a training run takes, and which group fits a budget.

use crate::backbones::Arch;
use crate::config::Config;
use crate::encoder::{Architecture, EMBEDDING_DIM, Encoder};
use crate::nn::workspace::Workspace;
use crate::{Error, Result};

/// Megabytes of program, libraries and what threads need on the side.
const PROGRAM: f64 = 24.0;

/// Megabytes for decoding below which a phone's usual photo (12 megapixels) would be skipped.
const LEAST_DECODE_MB: usize = 36;

/// The megabytes for decoded photos, kept and in the making, within a budget for everything:
/// (`cache_mb`, `decode_mb`). A tight one keeps few, for speed only, and skips very large ones.
pub fn photos_within(budget_mb: usize) -> (usize, usize) {
    (budget_mb / 8, (budget_mb / 6).max(LEAST_DECODE_MB))
}

/// Sets what keeps a run within `budget_mb`: photos, decoded and being decoded, in their part of it,
/// and the largest group that fits. What someone `asks_for` by the key's name stays.
///
/// # Errors
/// No group is small enough.
pub fn fit_budget(
    config: &mut Config,
    budget_mb: usize,
    asks_for: impl Fn(&str) -> bool,
) -> Result<()> {
    let (cache, decode) = photos_within(budget_mb);
    if !asks_for("cache_mb") {
        config.cache_mb = config.cache_mb.min(cache);
    }
    if !asks_for("decode_mb") {
        config.decode_mb = config.decode_mb.min(decode);
    }
    config.bn_group = group_for(config, budget_mb as f64)?;
    Ok(())
}

/// About how many megabytes a run with these settings and this group takes.
///
/// # Errors
/// The settings name no network.
pub fn estimate_mb(config: &Config, group: usize) -> Result<f64> {
    const MB: f64 = 1024.0 * 1024.0;
    let arch: Arch = config.arch.parse()?;
    let architecture = Architecture::new(arch, Some(config.head.parse()?));
    let network = Encoder::new(architecture, false, 0, &Workspace::default())?;
    let numbers = network.params.layout.parameter_count() as f64;
    // Query, key, gradient, velocity, and what an anchor pulls to.
    let copies = if config.anchor > 0.0 { 5.0 } else { 4.0 };
    // The backbone that the result is mixed with.
    let initial = match config.keeps_initial() {
        false => 0.0,
        true => {
            let backbone = Architecture::new(arch, None);
            let backbone = Encoder::new(backbone, false, 0, &Workspace::default())?;
            backbone.params.layout.parameter_count() as f64
        }
    };
    let queue = (config.queue_size * EMBEDDING_DIM) as f64 * 4.0;
    let view = (config.image_size * config.image_size * 3) as f64;
    // Two views, as bytes, of this batch and of those made ahead.
    let batch = config.batch_size as f64 * view * 2.0 * (1 + config.prefetch) as f64;
    let scale = (config.image_size as f64 / 224.0).powi(2);
    Ok(PROGRAM
        + (config.cache_mb + config.decode_mb) as f64
        + ((numbers * copies + initial) * 4.0 + queue + batch) / MB
        + group as f64 * arch.facts().image_mb * scale)
}

/// The largest group within `budget_mb` that divides `batch_size` and is not above `bn_group`.
///
/// # Errors
/// Not even the smallest fits; the message says what would be needed.
pub fn group_for(config: &Config, budget_mb: f64) -> Result<usize> {
    let mut groups: Vec<usize> = (2..=config.bn_group)
        .filter(|group| config.batch_size.is_multiple_of(*group))
        .collect();
    groups.sort_unstable_by(|a, b| b.cmp(a));
    for group in &groups {
        if estimate_mb(config, *group)? <= budget_mb {
            return Ok(*group);
        }
    }
    let least = estimate_mb(config, groups.last().copied().unwrap_or(2))?;
    Err(Error::Config(format!(
        "{budget_mb:.0} MB are not enough: these settings take about {least:.0} MB at least \
         (a smaller image_size, batch_size or cache_mb takes less)"
    )))
}
