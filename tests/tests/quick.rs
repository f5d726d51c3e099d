//! For every change, within two minutes once it is built: `cargo test --workspace --lib --test quick`. Everything here
//! runs in another program, too.

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
mod views;
