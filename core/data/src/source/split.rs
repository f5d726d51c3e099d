//! Datasets that come in a training and a test half.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::labels::Half;
use super::subset::Subset;
use super::{PhotoSource, shards};

/// The training and the test half of `whole`, the dataset at `path`, with one list of classes:
/// `train/` and `test/` folders (or `val/`, `validation/`, where there is no test), CIFAR binaries, or a pair
/// of archives called `...-train` and `...-test`. `None` where there are no such halves, or one is empty.
pub fn split(
    path: &Path,
    whole: &Arc<dyn PhotoSource>,
) -> Option<(Arc<dyn PhotoSource>, Arc<dyn PhotoSource>)> {
    let pair = shards::shards_in(path).ok().and_then(|s| shard_pair(&s));
    let part = |is_in: &dyn Fn(&str) -> bool| {
        let indices: Vec<usize> = (0..whole.len())
            .filter(|&index| is_in(whole.id(index)))
            .collect();
        let whole = whole.clone();
        (!indices.is_empty()).then(|| Arc::new(Subset { whole, indices }) as Arc<dyn PhotoSource>)
    };
    if let Some((train, test)) = pair {
        let prefix = |shard| Some(format!("{}/", shards::shard_stem(shard)?));
        let (train, test) = (prefix(&train)?, prefix(&test)?);
        return Some((
            part(&|id| id.starts_with(&train))?,
            part(&|id| id.starts_with(&test))?,
        ));
    }
    let half = |wanted| {
        let of = |id: &str| Half::from_folder(id.split_once('/')?.0);
        part(&|id| of(id) == Some(wanted))
    };
    let train = half(Half::Train)?;
    Some((train, half(Half::Test).or_else(|| half(Half::Validation))?))
}

/// The one pair of archives named as the halves of a dataset.
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
