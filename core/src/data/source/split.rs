//! Data sets that come in a training and a test half.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::subset::Subset;
use super::{PhotoSource, shards};

/// The training and the test half of `whole`, the data set at `path`, with one list of classes:
/// `train/` and `test/` folders, CIFAR binaries, or a pair of archives called `...-train` and
/// `...-test`. `None` where there are no such halves, or one is empty.
pub fn split(
    path: &Path,
    whole: &Arc<dyn PhotoSource>,
) -> Option<(Arc<dyn PhotoSource>, Arc<dyn PhotoSource>)> {
    let pair = shards::shards_in(path).ok().and_then(|s| shard_pair(&s));
    let (train, test) = match pair {
        Some((train, test)) => (
            format!("{}/", shards::shard_stem(&train)?),
            format!("{}/", shards::shard_stem(&test)?),
        ),
        None => ("train/".to_string(), "test/".to_string()),
    };
    let half = |prefix: &str| {
        let indices: Vec<usize> = (0..whole.len())
            .filter(|&index| whole.id(index).starts_with(prefix))
            .collect();
        let whole = whole.clone();
        (!indices.is_empty()).then(|| Arc::new(Subset { whole, indices }) as Arc<dyn PhotoSource>)
    };
    Some((half(&train)?, half(&test)?))
}

/// The one pair of archives named as the halves of a data set.
pub(super) fn shard_pair(shards: &[PathBuf]) -> Option<(PathBuf, PathBuf)> {
    let half_of = |path: &PathBuf, half: &str| {
        let stem = shards::shard_stem(path)?;
        let name = stem.strip_suffix(half)?;
        (name.is_empty() || name.ends_with(['-', '_', '.'])).then(|| name.to_string())
    };
    let mut pairs = shards.iter().filter_map(|train| {
        let name = half_of(train, "train")?;
        let test = shards
            .iter()
            .find(|path| half_of(path, "test").as_ref() == Some(&name))?;
        Some((train.clone(), test.clone()))
    });
    let only = pairs.next()?;
    pairs.next().is_none().then_some(only)
}
