//! Following a PyTorch run step by step: the same optimizer, and the comparison of everything
//! an encoder holds. tests/golden/moco.py defines the stored tensors.
//!
//! Rule for tolerances: four times what PyTorch's own f32 run of the program differs by from the
//! f64 one, but at least 1e-4 of how far a tensor has moved (a tensor that hardly moves counts as
//! a thousandth of all of its kind); all that times the caller's `slack`, 1 unless it says why.

use seedling_core::params::Params;

use crate::formula::{dot, norm, sample};
use crate::golden::Golden;

/// PyTorch's SGD: g += wd * p; v = 0.9 v + g; p -= lr v.
pub fn sgd(params: &mut Params, velocity: &mut Vec<f32>, (lr, weight_decay): (f32, f32)) {
    let (values, grads) = (&mut params.values, &params.grads);
    let first = velocity.is_empty();
    velocity.resize(values.len(), 0.0);
    for ((p, v), g) in values.iter_mut().zip(velocity).zip(grads.iter()) {
        let g = g + weight_decay * *p;
        *v = if first { g } else { 0.9 * *v + g };
        *p -= lr * *v;
    }
}

/// A network's numbers at some time.
pub struct Snapshot {
    values: Vec<f32>,
    buffers: Vec<f32>,
}

impl Snapshot {
    /// Now.
    pub fn from_params(params: &Params) -> Snapshot {
        Snapshot {
            values: params.values.clone(),
            buffers: params.buffers.clone(),
        }
    }
}

/// One encoder's stored run.
pub struct Trajectory<'a> {
    pub golden: &'a Golden,
    /// Prefix of its tensors: `asymmetric.query`, `student`.
    pub name: &'a str,
    /// PyTorch's own deviations: one figure a step for each kind of entry.
    pub own: &'a serde_json::Value,
    /// Before the first step.
    pub initial: &'a Snapshot,
}

impl Trajectory<'_> {
    /// Compares all entries after step `step` (from 1): norm, how far they have moved, a random
    /// projection of the movement, and single elements where they are stored.
    pub fn check(&self, params: &Params, step: usize, slack: f64) {
        let now = Snapshot::from_params(params);
        let entries = params.layout.entries();
        let own = |part: &str| self.own[part][step - 1].as_f64().unwrap();
        let all = |column: &str| {
            let column = self.golden.floats(&format!("{}.{column}", self.name));
            &column[(step - 1) * entries.len()..step * entries.len()]
        };
        let (norms, change_norms) = (all("norm"), all("change_norm"));
        let change_dots = all("change_dot");
        let samples = format!("{}.sample.step{step:02}", self.name);
        let samples = self
            .golden
            .has(&samples)
            .then(|| self.golden.floats(&samples));
        let total = |buffer: bool| {
            entries
                .iter()
                .zip(change_norms)
                .filter(|(e, _)| e.role.is_buffer() == buffer)
                .map(|(_, &c)| c as f64 * c as f64)
                .sum::<f64>()
                .sqrt()
        };
        let totals = [total(false), total(true)];
        for (t, entry) in entries.iter().enumerate() {
            let buffer = entry.role.is_buffer();
            let (now, start) = match buffer {
                true => (&now.buffers, &self.initial.buffers),
                false => (&now.values, &self.initial.values),
            };
            let now = &now[entry.range.clone()];
            let change: Vec<f32> = now
                .iter()
                .zip(&start[entry.range.clone()])
                .map(|(a, b)| a - b)
                .collect();
            let worst = own(match buffer {
                true => "buffers_worst",
                false => "parameters_worst",
            });
            let scale = (change_norms[t] as f64).max(totals[usize::from(buffer)] / 1000.0);
            // Numbers near 1 carry 6e-8 of rounding each, whatever has changed.
            let rounding = 2e-7 * norms[t] as f64;
            let tolerance = slack * scale * (4.0 * worst).max(1e-4) + rounding;
            let mut pairs = vec![
                ("norm", norm(now), norms[t] as f64),
                ("change", norm(&change), change_norms[t] as f64),
                (
                    "change dot",
                    dot(&change, 5555 + t as u64),
                    change_dots[t] as f64,
                ),
            ];
            if let Some(samples) = samples {
                let got = sample(now, 8, 0);
                let expected = &samples[t * 8..(t + 1) * 8];
                pairs.extend(
                    got.iter()
                        .zip(expected)
                        .map(|(&a, &b)| ("element", a as f64, b as f64)),
                );
            }
            for (what, got, expected) in pairs {
                let off = (got - expected).abs();
                assert!(
                    off <= tolerance,
                    "{} step {step}: {} {what} off by {off:e} > {tolerance:e}",
                    self.name,
                    entry.name
                );
            }
        }
    }
}

/// Each |got - expected| within four times PyTorch's own deviation, or `floor` if that is more.
pub fn assert_follows(got: &[f32], expected: &[f32], own: f64, floor: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let tolerance = (4.0 * own).max(floor);
    let off = got
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() as f64)
        .fold(0.0, f64::max);
    assert!(off <= tolerance, "{what} off by {off:e} > {tolerance:e}");
}
