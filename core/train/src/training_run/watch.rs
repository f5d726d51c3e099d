//! What a run looks out for as it continues.

use crate::session::Progress;

/// Looks out for embeddings that become all alike, and sums up epochs.
#[derive(Debug, Default)]
pub struct Watch {
    warned: bool,
    alike: u32,
    losses: (f64, u32),
}

/// Below this fraction of an even spread the embeddings of a batch are all but one point.
const ALIKE: f32 = 0.1;
/// A random start looks alike too, for a while.
const PATIENCE: u32 = 100;

impl Watch {
    /// Takes in a step; a warning, once, where one is due.
    pub fn check(&mut self, progress: &Progress) -> Option<String> {
        self.losses.0 += f64::from(progress.stats.loss);
        self.losses.1 += 1;
        self.alike = if progress.stats.spread < ALIKE {
            self.alike + 1
        } else {
            0
        };
        if self.warned || self.alike < PATIENCE {
            return None;
        }
        self.warned = true;
        Some(format!(
            "the embeddings of different photos are nearly the same (spread {:.1} % of an even \
             one) since {PATIENCE} steps: a lower lr, a larger queue or other initial weights may help",
            100.0 * progress.stats.spread
        ))
    }

    /// The mean loss since the epoch before ended.
    pub fn mean_loss(&mut self) -> f64 {
        let (sum, n) = std::mem::take(&mut self.losses);
        sum / f64::from(n.max(1))
    }
}
