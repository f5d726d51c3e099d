//! Peak memory of a MoCo step follows the micro-batch, not the batch; and an index of 20,000 photos takes what it
//! says. One test only: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use seedling_core::backbones::Arch;
use seedling_core::cancel::CancelToken;
use seedling_core::encoder::{Architecture, EMBEDDING_DIM, Encoder, Head, Mode};
use seedling_core::eval::Features;
use seedling_core::index::AlbumIndex;
use seedling_core::loss::Target;
use seedling_core::microbatch::MicroBatches;
use seedling_core::moco::{Moco, MocoConfig, key_orders};
use seedling_core::nn::workspace::Workspace;
use seedling_core::queue::Queue;
use seedling_core::step::Views;
use seedling_tests::formula::{fill, numbers};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting the bytes asked for.
struct Counting;

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: usize = 64;

/// Most bytes that two steps hold beyond what network, gradients, queue and views take.
fn peak_of_steps(batch: usize, bn_group: usize) -> usize {
    let workspace = Workspace::default();
    let architecture = Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Simple));
    let encoder = |trained| Encoder::new(architecture, trained, 0, &workspace).unwrap();
    let (mut query, key) = (encoder(true), encoder(false));
    fill(&mut query.params);
    let config = MocoConfig {
        m: 0.99,
        tau: 0.2,
        symmetric: true,
        mask_own_photo: true,
        batches: MicroBatches {
            bn_group,
            mode: Mode::train(0.1),
            cancel: CancelToken::default(),
        },
    };
    let queue = Queue::random(256, EMBEDDING_DIM, 0);
    let mut moco = Moco::new(query, key, queue, Target::Positive, config).unwrap();
    let images = [1, 2].map(|stream| numbers(stream, batch * SIZE * SIZE * 3, 2.0));
    let photos: Vec<u32> = (0..batch as u32).collect();
    let views = Views {
        pixels: &[&images[0][..], &images[1][..]],
        size: (SIZE, SIZE),
        photos: &photos,
    };
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    for step in 0..2 {
        moco.step(&views, &key_orders(0, step, batch)).unwrap();
    }
    // Large buffers are pages of their own, which no allocator sees.
    PEAK.load(Ordering::Relaxed) - before + workspace.most_bytes()
}

/// Most bytes that an index of 20,000 photos of 128 numbers takes beyond these numbers while it is made, and
/// while 100 more come and go.
fn peak_of_an_index() -> usize {
    let photos = |n, stream| Features::new(n, 128, numbers(stream, n * 128, 1.0)).unwrap();
    let (album, more) = (photos(20_000, 5), photos(100, 6));
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let mut index = AlbumIndex::new(&album).unwrap();
    let made = start.elapsed();
    index.add(&more).unwrap();
    index.remove(&(0..100).collect::<Vec<_>>()).unwrap();
    let renewed = start.elapsed() - made;
    println!("20,000 photos: made in {made:?} on one thread, 100 come and 100 go in {renewed:?}");
    assert_eq!(index.len(), 20_000);
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn peak_memory_follows_the_microbatch_not_the_batch() {
    // One thread: what several hold at once depends on their timing.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
    pool.build().unwrap().install(|| {
        // What threads and libraries set up once is not the step's.
        peak_of_steps(16, 8);
        let small = peak_of_steps(16, 8);
        let large = peak_of_steps(64, 8);
        let whole = peak_of_steps(64, 64);
        println!(
            "batch 16 in micro-batches of 8: {small} bytes; 64 in 8: {large}; 64 in 64: {whole}"
        );
        // Keys and queries of 48 more photos are 200 KB; pixels are the caller's.
        assert!(large < small + small / 10, "{large} {small}");
        assert!(whole > 4 * large, "{whole} {large}");
        let index = peak_of_an_index();
        println!("an index of 20,000 photos: {index} bytes");
        assert!(index < 100 << 20, "{index}");
    });
}
