//! What a run leaves behind when it ends out of order.

use super::*;
use crate::cli::Common;
use seedling_core::data::Photo;
use seedling_core::data::demo::Demo;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Photos of which only so many can be asked for.
struct Cursed(Demo, AtomicUsize);

impl PhotoSource for Cursed {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn id(&self, index: usize) -> &str {
        self.0.id(index)
    }
    fn load(&self, index: usize) -> Result<Photo> {
        let left = |n: usize| n.checked_sub(1);
        let left = self
            .1
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        assert!(left.is_ok(), "this test's own panic");
        self.0.load(index)
    }
    fn label(&self, index: usize) -> Option<usize> {
        self.0.label(index)
    }
    fn classes(&self) -> &[String] {
        self.0.classes()
    }
}

#[test]
fn a_panic_leaves_the_newest_checkpoint() {
    let config = Config {
        init: "random".into(),
        image_size: 32,
        batch_size: 8,
        bn_group: 4,
        queue_size: 8,
        steps: 3,
        checkpoint_every: 2,
        head: "simple".into(),
        ..Config::adapt()
    };
    let common = Common {
        device: None,
        threads: None,
        seed: None,
        config: None,
        set: Vec::new(),
        json: false,
        quiet: true,
        verbose: false,
    };
    let console = Console::new(&common);
    let root = tempfile::tempdir().unwrap();
    let demo = || Demo::new(2, 0).unwrap();
    // Enough for the measurement before (three passes and the pictures), not for the one after; then not even
    // for the first.
    for (name, photos, steps) in [("late", 4 * demo().len(), Some(3)), ("early", 5, None)] {
        let path = root.path().join(name);
        let run = || {
            let folder = RunFolder::open(&path, false).unwrap();
            let session = session::on_own_threads(1, || {
                Session::new(config.clone(), Arc::new(demo()), &Start::default())
            });
            let mut course = Course {
                folder: &folder,
                session: session.unwrap().unwrap(),
                measured: Arc::new(Cursed(demo(), AtomicUsize::new(photos))),
                console: &console,
                command: "adapt",
            };
            course.run(false)
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        let saved = checkpoint::load(&path).ok().map(|(state, _)| state.step);
        assert_eq!(saved, steps, "{name}");
        assert_eq!(path.exists(), steps.is_some(), "{name}");
    }
}
