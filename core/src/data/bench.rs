//! How fast this machine makes views: the figure to compare with other libraries.

use std::time::Instant;

use super::source::PhotoSource;
use super::views::{Normalise, Recipe, Scratch};
use crate::Result;
use crate::rng::{Purpose, Rng};

/// Photos per second on one thread: read, decode, two `aug+` views of 224 pixels as floats.
///
/// Runs for about `seconds` over the photos of `source` in turn.
///
/// # Errors
/// A photo that cannot be read.
pub fn bench_views(source: &dyn PhotoSource, seconds: f64) -> Result<f64> {
    const SIZE: usize = 224;
    let recipe = Recipe::by_name("aug+")?;
    let normalise = Normalise::default();
    let mut scratch = Scratch::default();
    let mut out = vec![0.0; SIZE * SIZE * 3];
    let mut done = 0usize;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let photo = source.load(done % source.len().max(1))?;
        let mut rng = Rng::new(0, Purpose::Augment, 0, done as u64);
        for _ in 0..2 {
            let view = recipe.sample(photo.width, photo.height, &mut rng);
            view.apply(&photo, SIZE, &normalise, &mut scratch, &mut out);
        }
        done += 1;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
