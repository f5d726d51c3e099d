//! Everything that computes on vectors: it runs once more with narrower ones than the machine has.

mod losses;
#[cfg(feature = "candle")]
mod networks;
mod ops;
mod ops_shapes;
mod views;

#[test]
fn narrower_vectors_pass_the_same_tests() {
    seedling_tests::program::again_with_narrower_vectors();
}
