//! Labels from ids: the class folder a photo lies in.

use std::collections::BTreeMap;

/// A part of a dataset, by its folder's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Train,
    Validation,
    Test,
}

impl Half {
    /// Which a folder of this name is.
    pub(super) fn from_folder(folder: &str) -> Option<Half> {
        match folder.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Half::Train),
            "val" | "valid" | "validation" => Some(Half::Validation),
            "test" | "testing" => Some(Half::Test),
            _ => None,
        }
    }
}

/// Class of each photo and the classes' names; all empty where the ids don't tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) of: Vec<usize>,
    pub(super) classes: Vec<String>,
}

impl Labels {
    /// Photos have labels where every one lies in a first-level folder and there are two or more
    /// of those; where all of those are halves of a dataset ([`Half`]), `train` among them, the second
    /// level counts.
    pub(super) fn from_ids<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> Labels {
        let parts = |id: &'a str| id.split('/').rev().skip(1).collect::<Vec<_>>();
        let half = |id| {
            parts(id)
                .last()
                .and_then(|folder| Half::from_folder(folder))
        };
        let has = |wanted: fn(Half) -> bool| ids.clone().filter_map(half).any(wanted);
        let in_split = ids.clone().all(|id| half(id).is_some())
            && has(|half| half == Half::Train)
            && has(|half| half != Half::Train);
        let level = usize::from(in_split);
        let class = |id: &'a str| {
            let folders = parts(id);
            folders.into_iter().rev().nth(level)
        };
        let Some(names) = ids.map(class).collect::<Option<Vec<_>>>() else {
            return Labels::default();
        };
        Labels::from_names(&names)
    }

    /// Labels from the class name of each photo; none where all are of one class.
    pub(super) fn from_names(names: &[&str]) -> Labels {
        let mut classes: BTreeMap<&str, usize> = names.iter().map(|&name| (name, 0)).collect();
        if classes.len() < 2 {
            return Labels::default();
        }
        for (index, slot) in classes.values_mut().enumerate() {
            *slot = index;
        }
        Labels {
            of: names.iter().map(|name| classes[name]).collect(),
            classes: classes.keys().map(|name| name.to_string()).collect(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<usize> {
        self.of.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ids: &[&str]) -> Labels {
        Labels::from_ids(ids.iter().copied())
    }

    #[test]
    fn class_folders_become_labels() {
        let found = labels(&["cat/1.jpg", "dog/2.jpg", "dog/deep/3.jpg"]);
        assert_eq!(found.of, [0, 1, 1]);
        assert_eq!(found.classes, ["cat", "dog"]);
    }

    #[test]
    fn split_folders_are_looked_through() {
        let found = labels(&["test/dog/2.jpg", "train/cat/1.jpg", "train/dog/3.jpg"]);
        assert_eq!(found.of, [1, 0, 1]);
        assert_eq!(found.classes, ["cat", "dog"]);
        for other in ["val", "validation", "Valid", "test"] {
            let ids = ["train/cat/1.jpg", "train/dog/3.jpg"].map(String::from);
            let mut ids: Vec<String> = ids.into();
            ids.extend(["cat", "dog"].map(|class| format!("{other}/{class}/1.jpg")));
            let found = Labels::from_ids(ids.iter().map(String::as_str));
            assert_eq!(found.classes, ["cat", "dog"], "{other}");
        }
        let found = labels(&["train/a/1.jpg", "val/a/1.jpg", "test/b/1.jpg"]);
        assert_eq!(found.classes, ["a", "b"]);
        // Without a training half these are classes of their own.
        assert_eq!(labels(&["test/a/1.jpg", "val/a/1.jpg"]).classes.len(), 2);
    }

    #[test]
    fn unclear_folders_have_no_labels() {
        let none = Labels::default();
        assert_eq!(labels(&["1.jpg", "dog/2.jpg", "cat/2.jpg"]), none);
        assert_eq!(labels(&["dog/1.jpg", "dog/2.jpg"]), none);
        assert_eq!(labels(&["train/1.jpg", "test/2.jpg"]), none);
    }
}
