//! `moco_step ARCH SIZE MICROBATCH STEPS`: MoCo steps of one micro-batch on noise, to have their instructions counted
//! (`tests/arm64/instructions`).

use seedling_core::bench::{StepBench, Steps};
use seedling_core::config::Config;

fn main() -> seedling_core::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [arch, size, microbatch, steps] = &words[..] else {
        panic!("moco_step ARCH SIZE GROUP STEPS");
    };
    let number = |word: &String| word.parse::<usize>().expect("a number");
    let config = Config {
        arch: arch.parse()?,
        image_size: number(size),
        batch_size: number(microbatch),
        bn_group: number(microbatch),
        queue_size: 512,
        threads: 1,
        ..Config::adapt()
    };
    seedling_core::session::on_own_threads(1, || {
        let mut bench = StepBench::new(&config)?;
        (0..number(steps)).try_for_each(|_| bench.step())
    })?
}
