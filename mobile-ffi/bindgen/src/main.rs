//! Writes the Kotlin and Swift sides of the library.

fn main() {
    uniffi::uniffi_bindgen_main();
}
