//! Memory, planned before a run: [`forecast`] what it will take of the host, `device` what of a GPU, and here
//! which settings keep it within a budget.

pub(crate) mod device;
pub mod forecast;

use self::forecast::{Forecast, Forecaster, LEAST_DECODE_MB};
use crate::config::{Config, Device};
use crate::weights::WeightFile;
use crate::{Error, Result};
use seedling_data::PhotoSource;

/// Sides of views that a budget may pick, where nobody asks for one.
const SIDES: [usize; 4] = [160, 128, 96, 64];

/// Photos in a micro-batch that a budget goes below only where freezing some stages does not help.
const GOOD_MICROBATCH: usize = 8;

/// Photos in a micro-batch, at least.
const LEAST_MICROBATCH: usize = 2;

/// Stages of a backbone that a budget freezes before it makes micro-batches smaller than [`GOOD_MICROBATCH`]:
/// their part of all. Neither costs much (docs/performance.md).
const SOME_FROZEN: f64 = 0.34;

/// Stages that it freezes at most.
const MOST_FROZEN: f64 = 0.5;

/// Largest memory that this process has held, in MB, where the system tells (Linux, Android).
pub fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Memory that a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub megabytes: usize,
    /// Whether a GPU would compute in the CPU's memory, as phones' do.
    pub unified: bool,
}

/// Sets what keeps a run, from `init` and on these photos, within a `budget`. It gives up as little as
/// it can, in the order of `choices`; photos kept between epochs go before views are made smaller.
/// What someone `asks_for` by the key's name stays, but for `bn_group`, which is then the most that may
/// be picked. Returns what the run will take of the host.
///
/// A GPU with memory of its own is given the budget of that, and finds out itself how much it takes at once:
/// then nothing else is picked, and nothing returned.
///
/// # Errors
/// Nothing is small enough; the message says what would be.
pub fn fit_budget(
    config: &mut Config,
    (init, source): (Option<&WeightFile>, &dyn PhotoSource),
    budget: Budget,
    asks_for: impl Fn(&str) -> bool,
) -> Result<Option<Forecast>> {
    let on_gpu = config.device != Device::Cpu;
    if on_gpu && !budget.unified {
        config.device_mb = budget.megabytes;
        return Ok(None);
    }
    let found = fit_host(config, (init, source), budget.megabytes, asks_for)?;
    if on_gpu {
        // It may take what would be the CPU's.
        config.device_mb = (found.networks + found.work) as usize;
    }
    Ok(Some(found))
}

fn fit_host(
    config: &mut Config,
    (init, source): (Option<&WeightFile>, &dyn PhotoSource),
    budget_mb: usize,
    asks_for: impl Fn(&str) -> bool,
) -> Result<Forecast> {
    let mut forecaster = Forecaster::new(config, init, source)?;
    let choices = choices(config, &asks_for, forecaster.depth());
    let decode = forecaster.decoding(budget_mb);
    // Keeping photos between epochs is for speed only.
    let photos = [(budget_mb / 8, decode), (0, decode.min(LEAST_DECODE_MB))];
    for of_a_side in choices.chunk_by(|one, next| one.image_size == next.image_size) {
        for photos in photos {
            for choice in of_a_side {
                let wanted = choice.apply(config, photos, &asks_for);
                let forecast = forecaster.forecast(&wanted)?;
                if forecast.total() <= budget_mb as f64 {
                    *config = wanted;
                    return Ok(forecast);
                }
            }
        }
    }
    let smallest = choices.last().copied().unwrap_or(Choice {
        image_size: config.image_size,
        freeze: config.freeze,
        bn_group: config.bn_group,
    });
    let wanted = smallest.apply(config, photos[1], &asks_for);
    let least = forecaster.forecast(&wanted)?.total().ceil();
    Err(Error::Config(format!(
        "{budget_mb} MB are not enough: {} on these photos takes at least {least} MB",
        config.arch
    )))
}

/// What a budget picks.
#[derive(Clone, Copy)]
struct Choice {
    image_size: usize,
    freeze: usize,
    bn_group: usize,
}

/// The best first.
fn choices(config: &Config, asks_for: impl Fn(&str) -> bool, depth: usize) -> Vec<Choice> {
    let mut sides = vec![config.image_size];
    if !asks_for("image_size") {
        sides.extend(SIDES.into_iter().filter(|side| *side < config.image_size));
    }
    let most = |part: f64| match asks_for("freeze") {
        true => config.freeze,
        false => config.freeze.max((depth as f64 * part) as usize),
    };
    let microbatches = |least: usize| {
        let fits = move |microbatch: &usize| config.batch_size.is_multiple_of(*microbatch);
        (least..=config.bn_group).rev().filter(fits)
    };
    let mut choices = Vec::new();
    for &image_size in &sides {
        for (part, least) in [
            (SOME_FROZEN, GOOD_MICROBATCH),
            (MOST_FROZEN, LEAST_MICROBATCH),
        ] {
            for freeze in config.freeze..=most(part) {
                choices.extend(microbatches(least).map(|bn_group| Choice {
                    image_size,
                    freeze,
                    bn_group,
                }));
            }
        }
    }
    choices
}

impl Choice {
    /// `config` with this choice, and these megabytes for photos kept and being decoded.
    fn apply(
        self,
        config: &Config,
        (cache, decode): (usize, usize),
        asks_for: impl Fn(&str) -> bool,
    ) -> Config {
        let or = |key: &str, asked: usize, picked: usize| match asks_for(key) {
            true => asked,
            false => asked.min(picked),
        };
        Config {
            image_size: self.image_size,
            freeze: self.freeze,
            bn_group: self.bn_group,
            cache_mb: or("cache_mb", config.cache_mb, cache),
            decode_mb: or("decode_mb", config.decode_mb, decode),
            prefetch: or("prefetch", config.prefetch, 1),
            ..config.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptimizerKind;
    use seedling_data::demo::Demo;
    use seedling_nn::encoder::Architecture;

    /// What a budget leaves of a run's settings.
    fn within(budget_mb: usize, asked: &[&str]) -> Result<(Config, Forecast)> {
        within_at(128, budget_mb, asked)
    }

    fn within_at(side: usize, budget_mb: usize, asked: &[&str]) -> Result<(Config, Forecast)> {
        let mut config = Config {
            threads: 2,
            image_size: side,
            ..Config::adapt()
        };
        let source = Demo::new(8, 0)?;
        let asks = |key: &str| asked.contains(&key);
        let found = fit_host(&mut config, (None, &source), budget_mb, asks)?;
        Ok((config, found))
    }

    #[test]
    fn a_smaller_budget_leaves_less() {
        let mut last = within(2000, &[]).unwrap().0;
        assert_eq!((last.image_size, last.freeze, last.bn_group), (128, 0, 32));
        assert_eq!((last.cache_mb, last.prefetch), (250, 1));
        let refused = (60..300).rev().step_by(5).find_map(|budget| {
            let (config, found) = match within(budget, &[]) {
                Ok(found) => found,
                Err(refused) => return Some((budget, refused.to_string())),
            };
            assert!(found.total() <= budget as f64);
            assert!(config.image_size <= last.image_size, "{budget}");
            config.validate().unwrap();
            last = config;
            None
        });
        let (budget, refused) = refused.unwrap();
        assert!(last.image_size < 128, "{last:?}");
        let least = refused.split("at least ").nth(1).unwrap();
        let least: usize = least.split(' ').next().unwrap().parse().unwrap();
        assert!(budget < least && least <= budget + 7, "{refused}");
        within(least, &[]).unwrap();
        assert!(within(least - 1, &[]).is_err());
    }

    #[test]
    fn stages_are_frozen_before_microbatches_become_very_small() {
        let asked = &["image_size"];
        let found = (100..520)
            .step_by(8)
            .filter_map(|mb| within_at(224, mb, asked).ok());
        let found: Vec<(usize, usize)> = found.map(|(c, _)| (c.freeze, c.bn_group)).collect();
        assert!(
            found
                .iter()
                .any(|found| found.0 > 0 && found.1 == GOOD_MICROBATCH),
            "{found:?}"
        );
        assert!(found.contains(&(0, 16)), "{found:?}");
        // The same budget leaves the same.
        let again = (100..520)
            .step_by(8)
            .filter_map(|mb| within_at(224, mb, asked).ok());
        assert!(again.map(|(c, _)| (c.freeze, c.bn_group)).eq(found));
    }

    #[test]
    fn an_optimizer_s_numbers_are_counted() {
        let source = Demo::new(8, 0).unwrap();
        let networks = |optimizer, l2_sp| {
            let config = Config {
                optimizer,
                l2_sp,
                ..Config::adapt()
            };
            let mut forecaster = Forecaster::new(&config, None, &source).unwrap();
            forecaster.forecast(&config).unwrap().networks
        };
        let architecture = Architecture::new(Config::adapt().arch, Some(Config::adapt().head));
        let one = (architecture.size().parameters * 4) as f64 / (1024.0 * 1024.0);
        let sgd = networks(OptimizerKind::Sgd, 0.0);
        // The values that L2-SP pulls to; AdamW's second moment.
        assert!((networks(OptimizerKind::Sgd, 0.1) - sgd - one).abs() < 1e-6);
        assert!((networks(OptimizerKind::AdamW, 0.0) - sgd - one).abs() < 1e-6);
    }

    #[test]
    fn a_gpu_s_own_memory_is_what_it_is_given() {
        let source = Demo::new(8, 0).unwrap();
        let fitted = |device, unified| {
            let mut config = Config {
                device,
                threads: 2,
                ..Config::adapt()
            };
            let budget = Budget {
                megabytes: 400,
                unified,
            };
            let found = fit_budget(&mut config, (None, &source), budget, |_| false).unwrap();
            (config, found)
        };
        let (own, found) = fitted(Device::Cuda(0), false);
        assert_eq!(
            (own.device_mb, own.bn_group),
            (400, Config::adapt().bn_group)
        );
        assert!(found.is_none());
        let (shared, found) = fitted(Device::Gpu(0), true);
        let (host, same) = fitted(Device::Cpu, true);
        assert_eq!((shared.bn_group, found), (host.bn_group, same));
        assert!(shared.device_mb > 0 && shared.device_mb < 400 && host.device_mb == 0);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let (config, _) = within(500, &["image_size", "freeze", "cache_mb"]).unwrap();
        assert_eq!((config.image_size, config.freeze), (128, 0));
        assert_eq!(config.cache_mb, Config::adapt().cache_mb);
    }
}
