//! Linear probe: a linear layer on frozen features, by SGD on the cross-entropy (Zhang, Isola and Efros 2016;
//! schedules of the paper's sections 3.1 and 5).

use super::features::{Features, squared_norm};
use super::geometry::check_labels;
use crate::Result;
use rayon::prelude::*;
use seedling_base::error::Error;
use seedling_base::rng::{Purpose, Rng};
use seedling_nn::gemm::{MatMul, Matrix, gemm_columns};

/// The standard deviation of an untrained layer's weights.
const INIT_STD: f32 = 0.01;
/// The first random stream of the batches' order; those before belong to other measurements.
const STREAM: u64 = 200;
/// Rows that are asked about at a time.
const BLOCK: usize = 1024;

/// How a layer is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate at first.
    pub lr: f32,
    pub momentum: f32,
    pub batch_size: usize,
    pub epochs: usize,
    /// Epochs, counted from 0, at whose beginning the rate falls to a tenth.
    pub milestones: Vec<usize>,
    /// Whether features are scaled to unit length.
    pub unit_features: bool,
}

impl Schedule {
    /// Linear evaluation on the dataset of pretraining, as MoCo has it.
    pub fn linear() -> Schedule {
        Schedule {
            lr: 30.0,
            momentum: 0.9,
            batch_size: 256,
            epochs: 100,
            milestones: vec![60, 80],
            unit_features: false,
        }
    }

    /// Transfer to CIFAR-10 and CIFAR-100.
    pub fn cifar() -> Schedule {
        Schedule {
            lr: 1.5,
            epochs: 60,
            milestones: vec![40],
            unit_features: true,
            ..Schedule::linear()
        }
    }

    /// Transfer to Caltech-101: a constant rate. Its epochs, which the paper doesn't say, are CIFAR's.
    pub fn caltech() -> Schedule {
        Schedule {
            lr: 2.0,
            milestones: Vec::new(),
            ..Schedule::cifar()
        }
    }

    /// The learning rate in an epoch, of what it is at first.
    fn factor(&self, epoch: usize) -> f32 {
        let passed = self.milestones.iter().filter(|&&at| at <= epoch);
        0.1f32.powi(passed.count() as i32)
    }
}

/// Linear layers that learn the same batches, each with a learning rate of its own.
#[derive(Clone, Debug)]
pub struct LinearProbe {
    dim: usize,
    classes: usize,
    rates: Vec<f32>,
    momentum: f32,
    /// Whether rows are scaled to unit length before they are read.
    unit_features: bool,
    /// (rates, classes, dim), and (rates, classes); their velocities.
    weight: Vec<f32>,
    bias: Vec<f32>,
    weight_velocity: Vec<f32>,
    bias_velocity: Vec<f32>,
}

impl LinearProbe {
    /// Layers that all begin with this weight (classes, dim), and a bias of zeros.
    pub fn new(weight: &[f32], dim: usize, rates: &[f32], momentum: f32) -> LinearProbe {
        let classes = weight.len() / dim.max(1);
        let weight = weight.repeat(rates.len());
        let bias = vec![0.0; classes * rates.len()];
        LinearProbe {
            dim,
            classes,
            rates: rates.to_vec(),
            momentum,
            unit_features: false,
            weight_velocity: vec![0.0; weight.len()],
            bias_velocity: bias.clone(),
            weight,
            bias,
        }
    }

    /// Rows as the layers read them.
    fn prepare(&self, x: &mut [f32]) {
        for row in x.chunks_exact_mut(self.dim).filter(|_| self.unit_features) {
            let norm = squared_norm(row).sqrt();
            if norm > 0.0 {
                row.iter_mut()
                    .for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
        }
    }

    /// Logits (rows, rates, classes) of rows x (rows, dim).
    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.dim;
        let mut logits: Vec<f32> = self.bias.repeat(rows);
        let sizes = MatMul {
            m: rows,
            n: self.bias.len(),
            k: self.dim,
        };
        let weight = Matrix::rows(&self.weight, self.dim).transposed();
        gemm_columns(sizes, Matrix::rows(x, self.dim), weight, &mut logits, true);
        logits
    }

    /// A step of SGD on the mean cross-entropy of rows x (rows, dim), with the rates times `factor`.
    pub fn step(&mut self, x: &[f32], labels: &[u32], factor: f32) {
        let rows = labels.len();
        let mut dlogits = self.logits(x);
        let (classes, width) = (self.classes, self.bias.len());
        let scale = 1.0 / rows as f32;
        let of_row = |(row, &label): (&mut [f32], &u32)| {
            for logits in row.chunks_exact_mut(classes) {
                softmax(logits);
                logits[label as usize] -= 1.0;
                logits.iter_mut().for_each(|x| *x *= scale);
            }
        };
        let of_rows = dlogits.par_chunks_exact_mut(width).zip(labels);
        of_rows.for_each(of_row);

        // velocity <- momentum * velocity + gradient, where the gradient is added to what is there.
        let momentum = self.momentum;
        let velocities = [&mut self.weight_velocity, &mut self.bias_velocity];
        for velocity in velocities {
            velocity.iter_mut().for_each(|v| *v *= momentum);
        }
        let sizes = MatMul {
            m: width,
            n: self.dim,
            k: rows,
        };
        let lhs = Matrix::rows(&dlogits, width).transposed();
        let rhs = Matrix::rows(x, self.dim);
        gemm_columns(sizes, lhs, rhs, &mut self.weight_velocity, true);
        for row in dlogits.chunks_exact(width) {
            let velocity = self.bias_velocity.iter_mut().zip(row);
            velocity.for_each(|(v, g)| *v += g);
        }
        for (layer, &rate) in self.rates.iter().enumerate() {
            let lr = rate * factor;
            let update = |values: &mut [f32], velocity: &[f32], len: usize| {
                let range = layer * len..(layer + 1) * len;
                let pairs = values[range.clone()].iter_mut().zip(&velocity[range]);
                pairs.for_each(|(x, v)| *x -= lr * v);
            };
            update(&mut self.weight, &self.weight_velocity, classes * self.dim);
            update(&mut self.bias, &self.bias_velocity, classes);
        }
    }

    /// The layer with the rate at this place: its weight (classes, dim) and bias.
    pub fn layer(&self, rate: usize) -> (&[f32], &[f32]) {
        let weight = self.classes * self.dim;
        (
            &self.weight[rate * weight..(rate + 1) * weight],
            &self.bias[rate * self.classes..(rate + 1) * self.classes],
        )
    }

    /// How often each layer is right about rows of features with these classes.
    pub fn accuracy(&self, features: &Features, labels: &[u32]) -> Vec<Accuracy> {
        let mut right = vec![[0usize; 2]; self.rates.len()];
        // Of each class: photos, and right ones by each layer.
        let mut of_class = vec![vec![0usize; 1 + self.rates.len()]; self.classes];
        let dim = self.dim.max(1);
        let blocks = features.values.chunks(BLOCK * dim);
        for (x, labels) in blocks.zip(labels.chunks(BLOCK)) {
            let mut x = x.to_vec();
            self.prepare(&mut x);
            let logits = self.logits(&x);
            for (row, &label) in logits.chunks_exact(self.bias.len()).zip(labels) {
                let class = &mut of_class[label as usize];
                class[0] += 1;
                let layers = row.chunks_exact(self.classes).zip(&mut right);
                for ((logits, right), class) in layers.zip(&mut class[1..]) {
                    let rank = rank(logits, label as usize);
                    *class += usize::from(rank == 0);
                    right[0] += usize::from(rank == 0);
                    right[1] += usize::from(rank < 5);
                }
            }
        }
        let percent = |count: usize, of: usize| 100.0 * count as f64 / of.max(1) as f64;
        of_class.retain(|class| class[0] > 0);
        let of = |(layer, [first, five]): (usize, [usize; 2])| {
            let classes = of_class
                .iter()
                .map(|class| percent(class[1 + layer], class[0]));
            Accuracy {
                top1: percent(first, features.rows),
                top5: percent(five, features.rows),
                per_class: classes.sum::<f64>() / of_class.len().max(1) as f64,
            }
        };
        right.into_iter().enumerate().map(of).collect()
    }
}

/// Percent of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// Whose class has the largest logit.
    pub top1: f64,
    /// Whose class has one of the five largest.
    pub top5: f64,
    /// Of each class those whose class has the largest, averaged over the classes that there are.
    pub per_class: f64,
}

/// How many logits are larger than the one at `label`, or as large and before it; what is no number is larger.
fn rank(logits: &[f32], label: usize) -> usize {
    let own = logits[label];
    let before =
        |&(i, &x): &(usize, &f32)| i != label && (x > own || x == own && i < label || x.is_nan());
    match own.is_nan() {
        true => logits.len(),
        false => logits.iter().enumerate().filter(before).count(),
    }
}

fn softmax(logits: &mut [f32]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in logits.iter_mut() {
        *x = (*x - largest).exp();
        sum += *x;
    }
    logits.iter_mut().for_each(|x| *x /= sum);
}

/// Layers trained on features of several views of the same photos, an epoch on each in turn, one layer for each
/// of `rates` (in place of the schedule's). `done` is told how many epochs are, and may stop the work by an
/// error.
///
/// # Errors
/// [`Error::Shape`] where views or labels don't match, [`Error::Training`] where a feature is not finite; what
/// `done` says.
pub fn train(
    views: &[Features],
    (labels, classes): (&[u32], usize),
    schedule: &Schedule,
    rates: &[f32],
    seed: u64,
    mut done: impl FnMut(usize) -> Result<()>,
) -> Result<LinearProbe> {
    let Some(first) = views.first() else {
        return Err(Error::Config("a linear probe needs features".into()));
    };
    for view in views {
        check_labels(view, labels)?;
        first.check_like(view, "views' features", true)?;
        view.check_finite()?;
    }
    if labels.iter().any(|&label| label as usize >= classes) {
        return Err(Error::Config(format!(
            "labels of more than {classes} classes"
        )));
    }
    let dim = first.dim;
    let mut rng = Rng::new(seed, Purpose::Measure, 0, STREAM);
    let weight: Vec<f32> = (0..classes * dim)
        .map(|_| INIT_STD * rng.normal())
        .collect();
    let mut probe = LinearProbe {
        unit_features: schedule.unit_features,
        ..LinearProbe::new(&weight, dim, rates, schedule.momentum)
    };
    let batch_size = schedule.batch_size.max(1);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for epoch in 0..schedule.epochs {
        let view = &views[epoch % views.len()];
        let order = Rng::new(seed, Purpose::Measure, 0, STREAM + 1 + epoch as u64);
        let order = { order }.permutation(labels.len());
        for batch in order.chunks(batch_size) {
            x.clear();
            y.clear();
            for &row in batch {
                x.extend_from_slice(view.row(row));
                y.push(labels[row]);
            }
            probe.prepare(&mut x);
            probe.step(&x, &y, schedule.factor(epoch));
        }
        done(epoch + 1)?;
    }
    Ok(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_classes(n: usize) -> (Features, Vec<u32>) {
        let mut rng = Rng::new(3, Purpose::Measure, 0, 0);
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
        let values = labels
            .iter()
            .flat_map(|&label| [label as f32 + 0.2 * rng.normal(), rng.normal()]);
        let values = values.collect();
        (Features::new(n, 2, values).unwrap(), labels)
    }

    #[test]
    fn classes_that_a_line_divides_are_learned_and_rates_do_not_mix() {
        let (features, labels) = two_classes(300);
        let schedule = Schedule {
            batch_size: 32,
            epochs: 30,
            ..Schedule::linear()
        };
        let views = [features.clone()];
        let run =
            |rates: &[f32]| train(&views, (&labels, 2), &schedule, rates, 0, |_| Ok(())).unwrap();
        let (both, alone) = (run(&[0.01, 1.0]), run(&[1.0]));
        assert_eq!(both.layer(1), alone.layer(0));
        let found = both.accuracy(&features, &labels);
        assert!(found[1].top1 > 97.0, "{found:?}");
        assert_eq!(found[1].top5, 100.0);
    }

    #[test]
    fn rates_fall_at_the_milestones() {
        let schedule = Schedule::linear();
        let factors = [0, 59, 60, 79, 80, 99].map(|epoch| schedule.factor(epoch));
        assert_eq!(factors[..2], [1.0, 1.0]);
        assert!((factors[2] - 0.1).abs() < 1e-7 && factors[3] == factors[2]);
        assert!((factors[4] - 0.01).abs() < 1e-8 && factors[5] == factors[4]);
        assert_eq!(Schedule::caltech().factor(59), 1.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (features, labels) = two_classes(8);
        let schedule = Schedule::linear();
        let run = |views: &[Features], labels: &[u32], classes| {
            train(views, (labels, classes), &schedule, &[1.0], 0, |_| Ok(()))
        };
        assert!(run(&[], &labels, 2).is_err());
        let one = std::slice::from_ref(&features);
        assert!(run(one, &labels[1..], 2).is_err());
        assert!(run(one, &labels, 1).is_err());
        let nan = Features::new(8, 2, vec![f32::NAN; 16]).unwrap();
        assert!(run(&[nan], &labels, 2).is_err());
        let stop = |_| Err(Error::Canceled);
        let stopped = train(&[features], (&labels, 2), &schedule, &[1.0], 0, stop);
        assert!(matches!(stopped, Err(Error::Canceled)));
    }

    #[test]
    fn a_layer_that_has_diverged_is_never_right() {
        assert_eq!(rank(&[f32::NAN, 1.0], 0), 2);
        assert_eq!(rank(&[f32::NAN, 1.0], 1), 1);
        assert_eq!(rank(&[2.0, 2.0], 0), 0);
        assert_eq!(rank(&[2.0, 2.0], 1), 1);
    }
}
