//! Puts the weight files of `models/` into the program, so that it works wherever it is copied.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let models = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../models");
    println!("cargo:rerun-if-changed={}", models.display());
    let mut files: Vec<_> = fs::read_dir(&models)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    let mut text = String::from("pub static FILES: &[(&str, &[u8])] = &[\n");
    for file in files {
        let arch = file.file_stem().unwrap_or_default().to_string_lossy();
        let path = fs::canonicalize(&file)?;
        writeln!(text, "    ({arch:?}, include_bytes!({path:?})),")?;
    }
    text.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("shipped.rs"), text)?;
    Ok(())
}
