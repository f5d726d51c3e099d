//! How much memory this process uses, where the system tells (Linux).

/// Largest resident memory since the start or the last [`reset_peak`], in MiB.
pub fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Lets the peak start again from what is resident now.
pub fn reset_peak() {
    // Where this is not allowed the peak is that of the whole process: larger, never wrong.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
