//! `seedling devices`: where this program can compute, and how fast.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use clap::Args;
use seedling_core::backbones::Arch;
use seedling_core::config::Config;
use seedling_core::device::{self, Device};
use seedling_core::{Result, bench, session};
use serde_json::{Value, json};
use std::time::Instant;

/// List what --device may name: what is there, why something is not, and how fast each is
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling devices
  seedling devices --seconds 0                 without measuring
  seedling adapt ~/Pictures --device gpu")]
pub struct DevicesArgs {
    /// Seconds that each is measured for, by a training step of MobileNetV3-Small at 96 px
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    pub seconds: f64,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The threads can't be had.
pub fn run(args: &DevicesArgs, console: &Console) -> Result<Outcome> {
    let threads = args.common.threads.unwrap_or(0) as usize;
    session::on_own_threads(threads, || {
        let mut devices = Vec::new();
        for backend in device::list() {
            let found = match backend.found {
                Ok(found) => found,
                Err(why) => {
                    let text = why.to_string();
                    let why = text.trim_start_matches(&format!("device = {}: ", backend.name));
                    console.say(&format!("{:7} not here: {why}", backend.name));
                    devices.push(json!({ "device": backend.name, "missing": why }));
                    continue;
                }
            };
            for info in found {
                let name = info.device.to_string();
                let speed = (args.seconds > 0.0).then(|| measure(info.device, args.seconds));
                let (said, speed) = match speed.transpose() {
                    Ok(Some(rate)) => (format!("; {rate:.1} images/s"), json!(rate)),
                    Ok(None) => (String::new(), Value::Null),
                    Err(error) => (format!("; does not work: {error}"), Value::Null),
                };
                console.say(&format!("{name:7} {} ({}){said}", info.name, info.driver));
                devices.push(json!({
                    "device": name,
                    "name": info.name,
                    "driver": info.driver,
                    "images_per_second": speed,
                }));
            }
        }
        console.summary(&json!({ "command": "devices", "devices": devices }));
        Ok(Outcome::Done)
    })?
}

/// Images per second of a training step.
fn measure(device: Device, seconds: f64) -> Result<f64> {
    let config = Config {
        arch: Arch::MOBILENET_V3_SMALL,
        image_size: 96,
        batch_size: 16,
        bn_group: 16,
        queue_size: 1024,
        device,
        ..Config::adapt()
    };
    let start = Instant::now();
    let now = || start.elapsed().as_secs_f64();
    let taken = bench::times(&config, seconds, now, || Ok(()))?;
    let mean = taken.iter().sum::<f64>() / taken.len() as f64;
    Ok(config.batch_size as f64 / mean)
}
