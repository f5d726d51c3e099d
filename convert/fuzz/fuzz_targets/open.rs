//! Any bytes end in an error or in numbers, never in a panic, a hang or a huge allocation: the same
//! that tests/tests/foreign.rs asks of ten thousand files, for as long as one likes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seedling_convert::recognize::Hints;
use seedling_convert::tensors::Tensors;
use seedling_convert::weights::{Facts, converted};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = Tensors::parse("fuzzed", bytes.to_vec()) else {
        return;
    };
    let names: Vec<String> = tensors.names().map(str::to_string).collect();
    for name in &names {
        let _ = tensors.f32(name);
    }
    let _ = converted(&tensors, None, &Hints::default(), &Facts::default());
});
