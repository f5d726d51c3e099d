//! A part of a source, by what its photos are called.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{PhotoSource, Skipped};
use crate::Result;
use crate::outline::Outline;
use crate::photo::Photo;

/// Datasets of fewer photos are not parted: what is held out would say too little.
const LEAST_TO_PART: usize = 100;

/// Some photos of another source, under the same ids and labels.
pub(super) struct Subset {
    pub(super) whole: Arc<dyn PhotoSource>,
    pub(super) indices: Vec<usize>,
}

impl PhotoSource for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn id(&self, index: usize) -> &str {
        self.whole.id(self.indices[index])
    }

    fn load(&self, index: usize) -> Result<Photo> {
        self.whole.load(self.indices[index])
    }

    fn visit(&self, index: usize, show: &mut dyn FnMut(Photo)) -> Result<()> {
        self.whole.visit(self.indices[index], show)
    }

    fn outline(&self, index: usize) -> Option<Outline> {
        self.whole.outline(self.indices[index])
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.whole.label(*self.indices.get(index)?)
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn left_out(&self) -> &[Skipped] {
        self.whole.left_out()
    }
}

/// Holds out about `ratio` of the photos, and says which; the rest is the source returned. A photo's
/// name alone decides, whichever others there are: one that was held out is held out the next time.
/// None are where there are few.
pub fn hold_out(whole: &Arc<dyn PhotoSource>, ratio: f64) -> (Arc<dyn PhotoSource>, Vec<usize>) {
    let is_held = |index: &usize| {
        let digest = Sha256::digest(whole.id(*index));
        let (first, _) = digest.split_at(8);
        let number = first.iter().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        (number as f64) < ratio * 2f64.powi(64)
    };
    let few = whole.len() < LEAST_TO_PART || ratio <= 0.0;
    let (held, indices): (Vec<usize>, Vec<usize>) = match few {
        true => (Vec::new(), Vec::new()),
        false => (0..whole.len()).partition(is_held),
    };
    if held.is_empty() || indices.is_empty() {
        return (whole.clone(), Vec::new());
    }
    let whole = whole.clone();
    (Arc::new(Subset { whole, indices }), held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Photos;

    fn dataset(names: impl Iterator<Item = usize>) -> Arc<dyn PhotoSource> {
        let mut photos = Photos::default();
        for n in names {
            photos.add_encoded(&format!("{n}.jpg"), vec![0]).unwrap();
        }
        Arc::new(photos)
    }

    #[test]
    fn a_photos_name_decides() {
        let whole = dataset(0..1000);
        let (rest, held) = hold_out(&whole, 0.2);
        assert_eq!(rest.len() + held.len(), 1000);
        assert!((150..250).contains(&held.len()), "{}", held.len());
        let names: Vec<&str> = held.iter().map(|&index| whole.id(index)).collect();
        assert!((0..rest.len()).all(|index| !names.contains(&rest.id(index))));
        // Whatever else there is, and in whatever order.
        let other = dataset((500..1200).rev());
        let (_, again) = hold_out(&other, 0.2);
        let again: Vec<&str> = again.iter().map(|&index| other.id(index)).collect();
        for name in (500..1000).map(|n| format!("{n}.jpg")) {
            assert_eq!(names.contains(&&*name), again.contains(&&*name), "{name}");
        }
    }

    #[test]
    fn few_photos_stay_together() {
        let few = dataset(0..99);
        assert!(hold_out(&few, 0.2).1.is_empty());
        assert_eq!(hold_out(&few, 0.2).0.len(), 99);
        assert!(hold_out(&dataset(0..200), 0.0).1.is_empty());
    }
}
