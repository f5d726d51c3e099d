//! A GPU against the CPU: operations, networks, runs. Where there is no GPU, a program that
//! passes for one will do (Mesa's lavapipe); where there is neither, this is skipped, and says so.

#[path = "gpu_emulated.rs"]
mod emulated;
#[path = "gpu_languages.rs"]
mod languages;
#[path = "gpu_ops.rs"]
mod ops;
#[path = "gpu_program.rs"]
mod program;
#[path = "gpu_runs.rs"]
mod runs;
#[path = "gpu_views.rs"]
mod views;
