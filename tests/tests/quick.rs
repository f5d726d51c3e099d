//! For every change, within two minutes once it is built: `cargo test --workspace --lib --test quick`. What computes on
//! vectors is among it, so all of it runs once more with narrower ones than the machine has.

mod docs;
mod eval;
mod jpegs;
mod loader;
mod losses;
#[cfg(feature = "candle")]
mod networks;
mod ops;
mod ops_shapes;
mod optim;
mod photos;
mod probe;
mod views;

#[test]
fn narrower_vectors_pass_the_same_tests() {
    seedling_tests::program::again_with_narrower_vectors();
}
