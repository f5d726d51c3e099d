//! The learning rate of every step: a pure function of the step's number.

/// How the rate falls after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Half a cosine down to zero, a little every step.
    CosineByStep,
    /// Half a cosine down to zero, constant within an epoch (MoCo's published program).
    CosineByEpoch,
    /// None.
    Constant,
}

/// Linear warm-up, then [`Decay`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate at the end of warm-up.
    pub peak: f64,
    /// How it falls from there.
    pub decay: Decay,
    /// Steps of linear rise; the first of them already moves.
    pub warmup_steps: usize,
    /// Steps of the whole run, warm-up included.
    pub steps: usize,
    /// Steps of one epoch, for [`Decay::CosineByEpoch`].
    pub steps_per_epoch: usize,
}

impl Schedule {
    /// The rate of the step with this number, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let (done, total) = match self.decay {
            Decay::Constant => return self.peak,
            Decay::CosineByStep => (
                step - self.warmup_steps,
                self.steps.saturating_sub(self.warmup_steps),
            ),
            Decay::CosineByEpoch => {
                let length = self.steps_per_epoch.max(1);
                let warmup = self.warmup_steps.div_ceil(length);
                (
                    (step / length).saturating_sub(warmup),
                    self.steps.div_ceil(length).saturating_sub(warmup),
                )
            }
        };
        let progress = (done as f64 / total.max(1) as f64).min(1.0);
        self.peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay, warmup_steps: usize) -> Schedule {
        Schedule {
            peak: 0.06,
            decay,
            warmup_steps,
            steps: 10,
            steps_per_epoch: 5,
        }
    }

    fn close(schedule: Schedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let lr = schedule.lr(step);
            assert!(
                (lr - expected).abs() < 1e-12,
                "step {step}: {lr} {expected}"
            );
        }
    }

    /// Printed by torch.optim.lr_scheduler.CosineAnnealingLR(lr 0.06, T_max 10).
    #[test]
    fn cosine_by_step_is_pytorchs() {
        close(
            schedule(Decay::CosineByStep, 0),
            &[
                0.06,
                0.05853169548885461,
                0.05427050983124842,
                0.0476335575687742,
                0.03927050983124843,
                0.03,
                0.02072949016875158,
                0.01236644243122581,
                0.005729490168751579,
                0.0014683045111453946,
                0.0,
            ],
        );
    }

    #[test]
    fn cosine_by_epoch_is_constant_within_one() {
        let mut expected = [0.06; 10];
        expected[5..].fill(0.03);
        close(schedule(Decay::CosineByEpoch, 0), &expected);
    }

    #[test]
    fn warmup_rises_to_the_peak() {
        let rise = [0.015, 0.03, 0.045, 0.06];
        for decay in [Decay::CosineByStep, Decay::CosineByEpoch, Decay::Constant] {
            close(schedule(decay, 4), &rise);
        }
        assert_eq!(schedule(Decay::CosineByStep, 4).lr(4), 0.06);
        assert_eq!(schedule(Decay::Constant, 4).lr(9), 0.06);
        // Longer than the run: it only ever rises.
        assert!(schedule(Decay::CosineByStep, 20).lr(9) <= 0.03);
    }

    #[test]
    fn past_the_end_the_rate_stays_at_zero() {
        assert!(schedule(Decay::CosineByStep, 0).lr(500) < 1e-12);
        assert!("linear".parse::<Decay>().is_err());
    }
}
